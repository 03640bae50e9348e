"""What the subcommands share: kinds of arguments, opening a file, writing a figure or numbers."""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, Callable

from ..errors import ArgumentError, FileError

FORMATS = ("png", "pdf", "svg")


# -- Kinds of arguments ------------------------------------------------------------------------------------------------


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for argparse, which words an ArgumentError in its own way."""

    def kind(text: str) -> Any:
        try:
            return parse(text)
        except ArgumentError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return kind


@checked
def axis(text: str) -> str:
    from ..where import axis_name

    return axis_name(text)


@checked
def where(text: str) -> str:
    from ..where import check

    return check(text)


def ranged(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A number of that kind in [low, high]."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number in [{low:g}, {high:g}]")
        return value

    return parse


def add_file(parser: argparse.ArgumentParser, name: str = "file", metavar: str = "FILE") -> None:
    parser.add_argument(name, metavar=metavar, help="result file of `sgdmap run`")


def add_where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--where", metavar="CHOICE", type=where, action="append", default=[],
                        help="keep some settings: an expression over the axes, 'dimension==50 and step_size<0.01' or "
                        "'link in (identity, none)'; or for short dimension=10,50 and step_size=1e-3:0.1 (both ends included, "
                        "either may be left out); may be repeated")


def add_output(parser: argparse.ArgumentParser, name: str, numbers: str) -> None:
    """-o/--output and --json. `name`: of the picture by default, FILE's with this ending; `numbers`: what --json prints."""
    parser.add_argument("-o", "--output", metavar="PICTURE", type=Path,
                        help="picture to write; the ending says how: .png, .pdf or .svg (default: FILE's name with "
                        f"-{name}.png, in the current folder)")
    parser.add_argument("--json", action="store_true", help=f"print {numbers}. Draws only if -o is given too")


def add_confidence(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument("--confidence", metavar="P", type=ranged(float, 0.5, 0.9999), default=0.95,
                        help=f"coverage of {of} (default: 0.95)")


def add_title(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--title", metavar="TEXT",
                        help="line above the figure (default: what all runs have in common; '' for none)")


def add_size(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--width", metavar="INCHES", type=ranged(float, 1, 40), help=f"width of the figure (default: {default})")
    parser.add_argument("--dpi", metavar="N", type=ranged(int, 20, 2400), help="pixels an inch of a png (default: 300)")


# -- Doing it ----------------------------------------------------------------------------------------------------------


def picture(options: argparse.Namespace, name: str) -> Path | None:
    """Where the picture goes; None where only numbers are asked for. Checked before anything is computed."""
    output = options.output
    if output is None and not options.json:
        output = Path(f"{Path(options.file).stem}-{name}.png")
    if output is not None and output.suffix.lower().lstrip(".") not in FORMATS:
        raise ArgumentError(f"{output}: the ending is not one of .{', .'.join(FORMATS)}")
    return output


def open_box(options: argparse.Namespace) -> Any:
    """The sweep [axes], reduced to what --where keeps."""
    from ..sweep import open_sweep
    from ..where import choose_box

    return choose_box(open_sweep(options.file), options.where)


def heading(options: argparse.Namespace, sweep: Any, output: Path | None) -> dict[str, Any]:
    """The first keys of every command's numbers."""
    return {
        "file": options.file,
        "title": str(sweep.attrs.get("title", "")),
        "config_digest": str(sweep.attrs.get("config_digest", "")),
        "picture": None if output is None else str(output),
    }


def common_settings(sweep: Any) -> str:
    """'d = 10, B = 200, Gaussian input, identity link': the axes with one value, which no panel shows."""
    from ..style import setting_text
    from ..sweep import axes_of

    fixed = [name for name in axes_of(sweep) if sweep.sizes[name] == 1 and name != "replicate"]
    return ", ".join(setting_text(name, sweep[name].values[0]) for name in fixed)


def title(options: argparse.Namespace, sweep: Any) -> str:
    return common_settings(sweep) if options.title is None else options.title


def finish(options: argparse.Namespace, output: Path | None, numbers: Callable[[], dict[str, Any]]) -> None:
    """Prints the numbers with --json, else where the picture is."""
    if options.json:
        print_json(numbers())
    else:
        print(output)


def plain(value: Any) -> Any:
    """Ready for JSON: arrays as lists, NaN and infinities as None."""
    import numpy as np

    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "values") and hasattr(value, "dims"):
        value = value.values
    if isinstance(value, np.ndarray):
        if np.issubdtype(value.dtype, np.floating):
            value = np.where(np.isfinite(value), value, None)
        return value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_json(numbers: dict[str, Any]) -> None:
    json.dump(plain(numbers), sys.stdout, allow_nan=False)
    print()


def write_whole(output: Path, write: Callable[[Path], None]) -> None:
    """`write` into a file beside it, which then takes its name: there is a whole file or none."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        write(partial)
        os.replace(partial, output)
    except OSError as error:
        raise FileError(f"{output}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def save_figure(figure: Any, output: Path, attributes: dict[str, Any]) -> None:
    """Write the picture whole or not at all. The same file gives the same bytes: no date, but where it comes from."""
    import matplotlib

    from ..style import parameters

    kind = output.suffix.lower().lstrip(".")
    origin = f"{attributes.get('source', 'sgdmap')}, config digest {attributes.get('config_digest', 'unknown')}"
    metadata = {
        "png": {"Source": origin},
        "pdf": {"Subject": origin, "CreationDate": None},
        "svg": {"Source": origin, "Date": None},
    }[kind]
    with matplotlib.rc_context(parameters()):
        # In vector formats, dpi is that of the meshes too large to be shapes.
        write_whole(output, lambda partial: figure.savefig(
            partial, format=kind, dpi=figure.dpi if kind == "png" else 600, metadata=metadata))
