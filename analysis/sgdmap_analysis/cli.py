"""The command sgdmap-analysis. Exit statuses are those of sgdmap: 0, 2 arguments, 74 input/output, 70 internal."""
from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any, Sequence

from . import __version__
from .errors import ArgumentError, SweepError

# The heavy imports (xarray, matplotlib) stand inside the commands, so that -h answers at once.

FORMATS = ("png", "pdf", "svg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except (ArgumentError, SweepError) as error:
        print(f"sgdmap-analysis: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # The reader (head, say) has seen enough. Python must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 74
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a bug: one line for the user, the rest for the report
        traceback.print_exc()
        print(f"sgdmap-analysis: internal error: {error}", file=sys.stderr)
        return 70
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sgdmap-analysis",
        description="Figures and numbers from a result file of sgdmap, finished or not. It only reads the file, and "
        "may do so while the job writes it.",
        epilog="sgdmap-analysis COMMAND -h explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"sgdmap-analysis {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_map(commands)
    return parser


# -- map ---------------------------------------------------------------------------------------------------------------


def _add_map(commands: Any) -> None:
    parser = commands.add_parser(
        "map",
        help="draw the convergence region over two axes of the grid",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Draw where SGD converges: quantities as colour over two axes of the grid, small multiples over
            the other axes, statistics over the replicates.

            quantities:
              probability  runs that converged / runs with an outcome, with the line where it is 1/2.
                           Pending, running and failed runs count neither for nor against.
              outcome      the most frequent of converged, diverged, stalled, unfinished
              final_error  median of the error at the last step; diverged runs count as infinite
              steps        median steps to convergence where runs converge, to divergence where they diverge

            cells and pixels:
              With --cell, and by default in a .png of a map with more cells than its panels would have pixels,
              every cell is a block of whole pixels: nothing is resampled, and no line is drawn over the cells.
              The figure's size follows. Text keeps its size against the map; with --dpi it has its size in
              pixels instead, with --width the figure its width in inches. In a .pdf or .svg, a map of many cells
              is an image of one pixel a cell.
            """),
        epilog=textwrap.dedent("""\
            axes: dimension, batch_size, input, replicate, teacher_norm, link, step_size, init_scale

            examples:
              sgdmap-analysis map sweep.nc
              sgdmap-analysis map sweep.nc --where dimension=10,50 --where step_size=1e-3: -o figure2.pdf
              sgdmap-analysis map sweep.nc --x teacher_norm --y dimension --quantity probability --width 3.25
              sgdmap-analysis map sweep.nc --quantity steps --cell 2 -o large.png
              sgdmap-analysis map sweep.nc --json | jq '.panels[0].probability'
            """),
    )
    parser.add_argument("file", metavar="FILE", help="result file of `sgdmap run`")
    parser.add_argument("--x", metavar="AXIS", type=_axis_name,
                        help="axis along the bottom (default: step_size, or the longest)")
    parser.add_argument("--y", metavar="AXIS", type=_axis_name,
                        help="axis up the side (default: init_scale, or the longest left)")
    parser.add_argument("--quantity", metavar="NAME[,NAME...]", type=_quantities, default=("probability", "outcome"),
                        help="what to draw, each in a block of its own (default: probability,outcome)")
    parser.add_argument("--where", metavar="AXIS=VALUES", type=_where, action="append", default=[],
                        help="keep some values of an axis: dimension=10, dimension=10,50, or a range "
                        "step_size=1e-3:0.1 with both ends included, either of which may be left out; may be repeated")
    parser.add_argument("-o", "--output", metavar="PICTURE", type=Path,
                        help="picture to write; the ending says how: .png, .pdf or .svg (default: FILE's name with "
                        "-map.png, in the current folder)")
    parser.add_argument("--json", action="store_true",
                        help="print the numbers: axes, counts, probabilities with their intervals, [y][x] each. Draws "
                        "only if -o is given too")
    parser.add_argument("--title", metavar="TEXT",
                        help="line above the figure (default: what all runs have in common; '' for none)")
    parser.add_argument("--width", metavar="INCHES", type=_width,
                        help="width of the figure (default: 5.5, or 3.25 for a single panel; wider for many)")
    parser.add_argument("--dpi", metavar="N", type=_dpi,
                        help="pixels an inch of a png (default: 300, or what --cell and --width make of it)")
    parser.add_argument("--cell", metavar="PIXELS", type=_cell,
                        help="draw every cell as a square of PIXELS x PIXELS of a png (default: 1 if an axis has more "
                        "cells than the panel would have pixels; else cells share the panel's size). Of --width and "
                        "--dpi, at most one may be given too")
    parser.add_argument("--confidence", metavar="P", type=_confidence, default=0.95,
                        help="coverage of the Wilson interval (default: 0.95)")
    parser.set_defaults(command=_map)


def _map(options: argparse.Namespace) -> None:
    output = options.output
    if output is None and not options.json:
        output = Path(f"{Path(options.file).stem}-map.png")
    if output is not None and output.suffix.lower().lstrip(".") not in FORMATS:
        raise ArgumentError(f"{output}: the ending is not one of .{', .'.join(FORMATS)}")

    # Its remarks on fonts and cache folders are not the user's concern.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from . import maps
    from .sweep import open_sweep, select

    sweep = select(open_sweep(options.file), dict(options.where))
    x, y = maps.choose_axes(sweep, options.x, options.y)
    cells = maps.cell_statistics(sweep, x, y, options.confidence)
    if output is not None:
        title = _common_settings(sweep) if options.title is None else options.title
        figure = maps.draw_map(cells, x, y, options.quantity, title=title, width=options.width, dpi=options.dpi,
                               cell=options.cell, vector=output.suffix.lower() != ".png")
        _save(figure, output, sweep.attrs)
    if options.json:
        numbers = {
            "file": options.file,
            "title": str(sweep.attrs.get("title", "")),
            "config_digest": str(sweep.attrs.get("config_digest", "")),
            "picture": None if output is None else str(output),
            "interval": {"kind": "wilson", "confidence": options.confidence},
            "replicates": sweep.replicate.values.tolist(),
            **maps.map_numbers(cells, x, y, options.quantity),
        }
        json.dump(numbers, sys.stdout, allow_nan=False)
        print()
    else:
        print(output)


def _common_settings(sweep: Any) -> str:
    """'d = 10, B = 200, Gaussian input, identity link': the axes with one value, which no panel shows."""
    from .style import setting_text
    from .sweep import AXES

    fixed = [name for name in AXES if sweep.sizes[name] == 1 and name != "replicate"]
    return ", ".join(setting_text(name, sweep[name].values[0]) for name in fixed)


def _save(figure: Any, output: Path, attributes: dict[str, Any]) -> None:
    """Write the picture whole or not at all. The same file gives the same bytes: no date, but where it comes from."""
    import matplotlib

    from .style import parameters

    kind = output.suffix.lower().lstrip(".")
    origin = f"{attributes.get('source', 'sgdmap')}, config digest {attributes.get('config_digest', 'unknown')}"
    metadata = {
        "png": {"Source": origin},
        "pdf": {"Subject": origin, "CreationDate": None},
        "svg": {"Source": origin, "Date": None},
    }[kind]
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with matplotlib.rc_context(parameters()):
            # In vector formats, dpi is that of the meshes too large to be shapes.
            figure.savefig(partial, format=kind, dpi=figure.dpi if kind == "png" else 600, metadata=metadata)
        os.replace(partial, output)
    except OSError as error:
        raise SweepError(f"{output}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


# -- Argument types ----------------------------------------------------------------------------------------------------


def _axis_name(text: str) -> str:
    name = text.replace("-", "_")
    from .sweep import AXES

    if name not in AXES:
        raise argparse.ArgumentTypeError(f"{text!r} is not an axis; the axes are {', '.join(AXES)}")
    return name


def _quantities(text: str) -> tuple[str, ...]:
    from .maps import QUANTITIES

    names = [name.strip().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in QUANTITIES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(QUANTITIES)}")
    return tuple(dict.fromkeys(names))


def _where(text: str) -> tuple[str, Any]:
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise argparse.ArgumentTypeError(f"{text!r} is not AXIS=VALUE, AXIS=VALUE,VALUE or AXIS=LOW:HIGH")
    axis = _axis_name(name.strip())
    if ":" in values:
        low, _, high = values.partition(":")
        return axis, slice(_number(low, text), _number(high, text))
    items = [item.strip() for item in values.split(",")]
    return axis, items if axis in ("link", "input") else [_number(item, text) for item in items]


def _number(item: str, text: str) -> float | None:
    if not item.strip():
        if ":" in text:
            return None
        raise argparse.ArgumentTypeError(f"{text!r}: a value is missing")
    try:
        return float(item)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: {item!r} is not a number") from None


def _ranged(text: str, kind: type, low: float, high: float) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [{low:g}, {high:g}]")
    return value


def _width(text: str) -> float:
    return _ranged(text, float, 1, 40)


def _dpi(text: str) -> int:
    return _ranged(text, int, 20, 2400)


def _cell(text: str) -> int:
    return _ranged(text, int, 1, 1000)


def _confidence(text: str) -> float:
    return _ranged(text, float, 0.5, 0.9999)
