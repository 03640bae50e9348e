"""sgdmap-analysis serve: the report on loopback, refreshed while the job writes."""
from __future__ import annotations

import argparse
import sys
import textwrap
from typing import Any

from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "serve",
        help="serve the report on this machine and refresh it while the job writes",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Serve the report of FILE on 127.0.0.1, and keep it up to date while a job writes FILE: open the address
            that it prints. It only reads, and the less often the longer a look takes; a FILE that is not there yet is
            waited for. Ctrl-C ends it.

            From another machine, through ssh: ssh -L 8050:127.0.0.1:8050 HOST
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis serve sweep.nc
              sgdmap-analysis serve sweep.nc --port 0 --interval 30
            """),
    )
    common.add_file(parser)
    parser.add_argument("--port", metavar="N", type=common.ranged(int, 0, 65535),
                        help="port of 127.0.0.1; 0: one that is free (default: 8050, or one that is free)")
    parser.add_argument("--interval", metavar="SECONDS", type=common.ranged(float, 0.2, 86400), default=5.0,
                        help="time between two looks at the file (default: 5)")
    common.add_where(parser)
    common.add_confidence(parser, "the intervals")
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (default: the sweep's title)")
    parser.set_defaults(command=_serve)


def _serve(options: argparse.Namespace) -> None:
    from pathlib import Path

    from .. import report, serve
    from ..errors import FileError

    path = Path(options.file)
    if path.exists():
        common.open_box(options)  # what is no sweep, or a choice that it has not, is said at once
    report.plotly_source()

    def describe(sweep: Any) -> dict[str, Any]:
        return report.collect(sweep, options.confidence, title=options.title, file=options.file, resamples=200)

    source = serve.Source(path, lambda: common.open_box(options), describe, options.interval)

    def page() -> str:
        live = {"interval": options.interval, "file": options.file}
        return report.page(None, title=options.title or path.name, live=live)

    try:
        server = serve.make_server(source, serve.DEFAULT_PORT if options.port is None else options.port, page)
    except FileError:
        if options.port is not None:
            raise
        server = serve.make_server(source, 0, page)

    def announce() -> None:
        print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
        print("sgdmap-analysis: Ctrl-C ends it", file=sys.stderr)

    serve.run(server, announce)
