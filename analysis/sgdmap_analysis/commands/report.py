"""sgdmap-analysis report: one HTML page with everything, which works offline."""
from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write one HTML page with maps, trajectories, phases, boundary and table, which works offline",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Write one self-contained HTML page: the sweep's summary and provenance, maps over any two axes, the
            trajectories of a setting that is clicked, phases, boundary and scaling, failures, and a table of
            settings to sort and filter. It loads nothing from elsewhere and stays below 15 MB; of a large sweep it
            holds the trajectories of some settings, and says which.
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis report sweep.nc
              sgdmap-analysis report sweep.nc --where 'link==identity' --title 'Identity link' -o talk.html
              sgdmap-analysis report sweep.nc --json | jq '{bytes, counts}'
            """),
    )
    common.add_file(parser)
    parser.add_argument("-o", "--output", metavar="PAGE", type=Path,
                        help="page to write (default: FILE's name with -report.html, in the current folder)")
    common.add_where(parser)
    common.add_confidence(parser, "the intervals")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (default: the sweep's title)")
    parser.add_argument("--json", action="store_true", help="print the page's size and numbers")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    output = options.output or Path(f"{Path(options.file).stem}-report.html")
    from .. import report

    sweep = common.open_box(options)
    numbers = report.write_report(sweep, output, options.confidence, title=options.title, file=options.file)
    if options.json:
        numbers.pop("style")
        common.print_json({"page": str(output), **numbers})
    else:
        print(output)
