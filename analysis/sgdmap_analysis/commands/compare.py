"""sgdmap-analysis compare: two sweeps, or two values of an axis, run against run."""
from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two sweeps, or two values of an axis, run against run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            What does one choice change? Two values of an axis of one file, or two files with settings in
            common, compared pair by pair: runs of the same setting and replicate see the same random numbers.
            All differences are the second minus the first.

            what is told:
              a setting    probabilities of convergence and their difference with Newcombe's interval for pairs,
                           McNemar's test (exact, and mid-p), also adjusted for the number of settings (Holm;
                           Benjamini-Hochberg); medians of final error and steps where both converged
              over all     the table of outcomes; each outcome's difference, whose interval and test take the runs
                           of a dimension and replicate as one cluster, since they share W*, W_0 and inputs:
                           settings do not add evidence as replicates do
              the figure   the difference of the probability over two axes, and the table

            A pair counts only if both runs have an outcome. Settings that only one file has are counted and named.

            Runs that differ in link, teacher_norm, noise, schedule, init_scale or step_size share all random numbers;
            in teacher all but W*; in batch_size, gradient, data or input W* and the direction of W_0; in dimension,
            or of files with different seeds, nothing. The comparison then holds too, but gains nothing by the pairs,
            and a note says so. An axis that a file lacks has its default there (gradient minibatch, data online,
            teacher gaussian, noise 0, schedule constant).
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis compare sweep.nc --between link=identity,none
              sgdmap-analysis compare sweep.nc --between init_scale=0,1 --where dimension=10 -o init.pdf
              sgdmap-analysis compare sweep.nc --between schedule=constant,cosine
              sgdmap-analysis compare old.nc new.nc --table settings.csv
              sgdmap-analysis compare sweep.nc --between link=identity,none --json | jq .summary.outcomes.converged
            """),
    )
    common.add_file(parser)
    parser.add_argument("other", metavar="OTHER", nargs="?", help="result file whose runs are the second of each pair")
    parser.add_argument("--between", metavar="AXIS=FIRST,SECOND", help="compare two values of an axis of FILE")
    parser.add_argument("--x", metavar="AXIS", type=common.axis,
                        help="axis along the bottom of the maps (default: step_size, or the longest)")
    parser.add_argument("--y", metavar="AXIS", type=common.axis,
                        help="axis up their side (default: init_scale, or the longest left)")
    common.add_where(parser)
    common.add_output(parser, "compare", "the numbers: the summary, and each setting's, [y][x] a panel")
    parser.add_argument("--table", metavar="FILE.csv", type=Path, help="write a line for each setting")
    common.add_title(parser)
    parser.add_argument("--width", metavar="INCHES", type=common.ranged(float, 3, 40),
                        help="width of the figure (default: 5.5, wider for many panels)")
    parser.add_argument("--dpi", metavar="N", type=common.ranged(int, 20, 2400), help="pixels an inch of a png (default: 300)")
    common.add_confidence(parser, "the intervals")
    parser.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> None:
    if (options.other is None) == (options.between is None):
        raise ArgumentError("compare takes two files, or one file and --between AXIS=FIRST,SECOND")
    output = common.picture(options, "compare")
    if options.table is not None and options.table.suffix.lower() != ".csv":
        raise ArgumentError(f"{options.table}: the ending is not .csv")
    axis, values = _between(options.between) if options.between else ("", [])
    from .. import compare, maps
    from ..sweep import open_sweep
    from ..where import choose_box

    sweep = common.open_box(options)
    if options.other is None:
        pairs = compare.between(sweep, axis, values)
    else:
        names = _names(options.file, options.other)
        pairs = compare.align(sweep, choose_box(open_sweep(options.other), options.where), names)
    for name in (options.x, options.y):
        if name in pairs.compared:
            raise ArgumentError(f"{name} is what is compared, and no axis of the maps")
        if name == "replicate":
            raise ArgumentError("replicate: replicates are what is averaged over, and no axis of the maps")
    x, y = maps.choose_axes(pairs.first, options.x, options.y)
    settings, summary = compare.compare(pairs, options.confidence)
    if options.table is not None:
        common.write_whole(options.table, lambda partial: compare.write_table(settings, pairs, partial))
    if output is not None:
        title = compare.common_settings(pairs) if options.title is None else options.title
        figure = compare.draw(pairs, settings, summary, x, y, title=title, width=options.width, dpi=options.dpi,
                              vector=output.suffix.lower() != ".png")
        common.save_figure(figure, output, sweep.attrs)
    if not options.json:
        print("\n".join(compare.summary_lines(pairs, settings, summary)))
    common.finish(options, output, lambda: {
        **common.heading(options, sweep, output), "other": options.other,
        **compare.numbers(pairs, settings, summary, x, y),
    })


def _between(text: str) -> tuple[str, list[Any]]:
    from ..sweep import NAMED_AXES, ONLINE
    from ..where import axis_name

    name, equals, values = text.partition("=")
    if not equals:
        raise ArgumentError(f"{text!r} is not AXIS=FIRST,SECOND")
    axis = axis_name(name)
    items = [item.strip() for item in values.split(",")]
    if len(items) != 2 or not all(items):
        raise ArgumentError(f"{text!r}: two values are compared, as in link=identity,none")
    if axis in NAMED_AXES:
        return axis, items
    try:
        return axis, [0.0 if axis == "data" and item == ONLINE else float(item) for item in items]
    except ValueError:
        raise ArgumentError(f"{text!r}: {values!r} are not two numbers") from None


def _names(first: str, second: str) -> tuple[str, str]:
    """The files' names, as short as tells them apart."""
    one, two = Path(first), Path(second)
    for names in ((one.stem, two.stem), (one.name, two.name), (first, second)):
        if names[0] != names[1]:
            return names
    return "first", "second"
