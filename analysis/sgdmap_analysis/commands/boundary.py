"""sgdmap-analysis boundary: critical values, how they scale, and the boundary over the map."""
from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from . import options as common

_AXES = ("step_size", "teacher_norm", "init_scale")


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "boundary",
        help="critical values with their intervals, how they scale, and the boundary's dimension",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            The value of an axis at which half of the runs converge, for each setting of the other axes: a
            logistic fit in the logarithm of the axis (in the axis itself where it holds 0), with a bootstrap
            interval over whole replicates. Drawn along another axis with a power law, and over the maps of the
            probability of convergence.

            edges:
              upper  runs converge below and not above: where step sizes become too large (default)
              lower  runs converge above and not below: step sizes too small for the budget

            A single replicate has no interval but the grid's own resolution. Pending, running and failed
            runs count neither for nor against. With --fractal, or in --json of a map of 64 x 64 values or more,
            the box-counting dimension of each map's boundary over step_size and init_scale (or the two
            longest axes).
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis boundary sweep.nc
              sgdmap-analysis boundary sweep.nc --where 'link==identity' --table -o boundary.pdf
              sgdmap-analysis boundary sweep.nc --axis init_scale --along teacher_norm
              sgdmap-analysis boundary sweep.nc --edge lower --json | jq '.scaling.laws'
              sgdmap-analysis boundary megapixel.nc --fractal --json | jq '.fractal.maps'
            """),
    )
    common.add_file(parser)
    parser.add_argument("--axis", metavar="AXIS", type=common.axis, default="step_size",
                        help=f"axis with the critical value: {', '.join(_AXES)} (default: step_size)")
    parser.add_argument("--edge", choices=("upper", "lower"), default="upper", help="which edge (default: upper)")
    parser.add_argument("--along", metavar="AXIS", type=common.axis,
                        help="axis of the power law (default: dimension, or the longest that is positive)")
    parser.add_argument("--y", metavar="AXIS", type=common.axis,
                        help="axis up the side of the maps (default: init_scale, or the longest left)")
    parser.add_argument("--resamples", metavar="N", type=common.ranged(int, 10, 100_000), default=1000,
                        help="of the bootstrap, which is exact if there are no more different ones (default: 1000)")
    parser.add_argument("--seed", metavar="N", type=common.ranged(int, 0, 2**63), default=0,
                        help="of the bootstrap (default: 0)")
    parser.add_argument("--table", action="store_true", help="print the critical values as a table too")
    parser.add_argument("--fractal", action="store_true", help="print the dimension of the boundary of each map too")
    common.add_where(parser)
    common.add_output(parser, "boundary",
                      "the numbers: critical values, power laws and dimensions with their intervals")
    common.add_title(parser)
    common.add_size(parser, "what the panels need")
    common.add_confidence(parser, "the intervals")
    parser.set_defaults(command=_boundary)


def _boundary(options: argparse.Namespace) -> None:
    output = common.picture(options, "boundary")
    from .. import boundary

    sweep = common.open_box(options)
    critical = boundary.critical_values(sweep, options.axis, options.confidence, options.resamples, options.seed,
                                        options.edge)
    plan = boundary.plan_figure(sweep, options.axis, options.along, options.y)
    laws = None
    if plan.along is not None and boundary.can_scale(critical, plan.along):
        laws = boundary.scaling(critical, plan.along, options.confidence)
    dimensions = None
    if options.fractal or (options.json and boundary.is_large(sweep)):
        dimensions = boundary.fractal(sweep, confidence=options.confidence)
    if output is not None:
        figure = boundary.draw_boundary(sweep, critical, laws, plan, title=common.title(options, sweep),
                                        width=options.width, dpi=options.dpi)
        common.save_figure(figure, output, sweep.attrs)
    if not options.json:
        if options.table:
            print(boundary.table(critical))
        if options.fractal:
            print(boundary.fractal_table(dimensions))
    elif options.table:
        # The table is for eyes, standard output for the numbers.
        print(boundary.table(critical), file=sys.stderr)
    common.finish(options, output, lambda: {
        **common.heading(options, sweep, output),
        "interval": {"kind": "cluster bootstrap, Student t", "confidence": options.confidence,
                     "resamples": options.resamples, "seed": options.seed},
        "replicates": sweep.replicate.values,
        **boundary.numbers(critical, laws, dimensions),
    })
