"""sgdmap-analysis map: convergence regions over two axes."""
from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ..errors import ArgumentError
from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "map",
        help="draw the convergence region over two axes of the grid",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Draw where SGD converges: quantities as colour over two axes of the grid, small multiples over
            the other axes, statistics over the replicates.

            quantities:
              probability  runs that converged / runs with an outcome, with the line where it is 1/2, and
                           dashed the lines where an end of its Wilson interval is 1/2 (with replicates).
                           Pending, running and failed runs count neither for nor against.
              outcome      the most frequent of converged, diverged, stalled, unfinished
              final_error  median of the error at the last step; diverged runs count as infinite
              steps        median steps to convergence where runs converge, to divergence where they diverge
              phase1       median length of phase I in steps, of the runs that reached phase II and did not
                           diverge; the colour of a cell is that of the most frequent of phase II reached,
                           no phase II, and diverged

            cells and pixels:
              With --cell, and by default in a .png of a map with more cells than its panels would have pixels,
              every cell is a block of whole pixels: nothing is resampled, and no line is drawn over the cells.
              The figure's size follows. Text keeps its size against the map; with --dpi it has its size in
              pixels instead, with --width the figure its width in inches. In a .pdf or .svg, a map of many cells
              is an image of one pixel a cell.
            """),
        epilog=textwrap.dedent("""\
            axes: dimension, batch_size, input, replicate, teacher_norm, link, step_size, init_scale, and those of
            gradient, data, teacher, noise, schedule that the file has; --where knows the others at their default

            examples:
              sgdmap-analysis map sweep.nc
              sgdmap-analysis map sweep.nc --where dimension=10,50 --where step_size=1e-3: -o figure2.pdf
              sgdmap-analysis map sweep.nc --x teacher_norm --y dimension --quantity probability --width 3.25
              sgdmap-analysis map sweep.nc --quantity steps --cell 2 -o large.png
              sgdmap-analysis map sweep.nc --json | jq '.panels[0].probability'
            """),
    )
    common.add_file(parser)
    parser.add_argument("--x", metavar="AXIS", type=common.axis,
                        help="axis along the bottom (default: step_size, or the longest)")
    parser.add_argument("--y", metavar="AXIS", type=common.axis,
                        help="axis up the side (default: init_scale, or the longest left)")
    parser.add_argument("--quantity", metavar="NAME[,NAME...]", type=common.checked(_quantities),
                        default=("probability", "outcome"),
                        help="what to draw, each in a block of its own (default: probability,outcome)")
    common.add_where(parser)
    common.add_output(parser, "map", "the numbers: axes, counts, probabilities with their intervals, [y][x] each")
    common.add_title(parser)
    parser.add_argument("--width", metavar="INCHES", type=common.ranged(float, 1, 40),
                        help="width of the figure (default: 5.5, or 3.25 for a single panel; wider for many)")
    parser.add_argument("--dpi", metavar="N", type=common.ranged(int, 20, 2400),
                        help="pixels an inch of a png (default: 300, or what --cell and --width make of it)")
    parser.add_argument("--cell", metavar="PIXELS", type=common.ranged(int, 1, 1000),
                        help="draw every cell as a square of PIXELS x PIXELS of a png (default: 1 if an axis has more "
                        "cells than the panel would have pixels; else cells share the panel's size). Of --width and "
                        "--dpi, at most one may be given too")
    common.add_confidence(parser, "the Wilson interval")
    parser.set_defaults(command=_map)


def _map(options: argparse.Namespace) -> None:
    output = common.picture(options, "map")
    from .. import maps

    sweep = common.open_box(options)
    x, y = maps.choose_axes(sweep, options.x, options.y)
    cells = maps.cell_statistics(sweep, x, y, options.confidence)
    if output is not None:
        figure = maps.draw_map(cells, x, y, options.quantity, title=common.title(options, sweep), width=options.width,
                               dpi=options.dpi, cell=options.cell, vector=output.suffix.lower() != ".png")
        common.save_figure(figure, output, sweep.attrs)
    common.finish(options, output, lambda: {
        **common.heading(options, sweep, output),
        "interval": {"kind": "wilson", "confidence": options.confidence},
        "replicates": sweep.replicate.values,
        **maps.map_numbers(cells, x, y, options.quantity),
    })


def _quantities(text: str) -> tuple[str, ...]:
    from ..maps import QUANTITIES

    names = [name.strip().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in QUANTITIES:
            raise ArgumentError(f"{name!r} is not one of {', '.join(QUANTITIES)}")
    return tuple(dict.fromkeys(names))
