"""sgdmap-analysis phases: the two phases of the theory, measured."""
from __future__ import annotations

import argparse
import textwrap
from typing import Any

from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "phases",
        help="measure the two phases: wrong gradients, decay of the potential, length of phase I",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Measure the two phases that the theory predicts (Li & Yuan, NeurIPS 2017): in how many runs the negative
            gradient pointed away from W* (negative alignment) and from which step on it did not, how fast the potential
            |g1| decays, how long phase I lasts, against every axis that varies; and a verdict for each setting.

            verdicts (what more than half of the runs of a setting did):
              two phases               reached phase II after the start
              phase II from the start  were in it at the first record
              phase I only             ended before it
              diverged, mixed, no outcome

            Runs that ended in phase I are censored: they count as infinite in medians, and are counted. Pending, running
            and failed runs do not count.
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis phases sweep.nc
              sgdmap-analysis phases sweep.nc --where dimension=10 --table
              sgdmap-analysis phases sweep.nc --json | jq '.verdicts'
            """),
    )
    common.add_file(parser)
    parser.add_argument("--table", action="store_true", help="print a line a setting too")
    common.add_where(parser)
    common.add_output(parser, "phases", "the numbers: a value a setting with its interval, and against each axis")
    common.add_title(parser)
    common.add_size(parser, "by the number of axes")
    common.add_confidence(parser, "the intervals")
    parser.set_defaults(command=_phases)


def _phases(options: argparse.Namespace) -> None:
    output = common.picture(options, "phases")
    from .. import phases

    sweep = common.open_box(options)
    runs = phases.run_phases(sweep)
    statistics = phases.phase_statistics(sweep, options.confidence, runs)
    marginals = phases.marginals(sweep, options.confidence, runs)
    if options.table:
        print(phases.table(statistics))
    if output is not None:
        figure = phases.draw_phases(marginals, phases.summary(statistics), title=common.title(options, sweep), width=options.width,
                                    dpi=options.dpi, confidence=options.confidence)
        common.save_figure(figure, output, sweep.attrs)
    common.finish(options, output, lambda: {
        **common.heading(options, sweep, output),
        "interval": {"confidence": options.confidence, "share": "wilson", "median": "order statistics"},
        **phases.numbers(statistics, marginals),
    })
