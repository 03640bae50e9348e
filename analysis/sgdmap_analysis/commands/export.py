"""sgdmap-analysis export: the runs as CSV or as a compact netCDF-4."""
from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from . import options as common


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "export",
        help="write the runs as CSV or as a compact netCDF-4, for pandas, R and others",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=textwrap.dedent("""\
            Write the runs for other programs; the ending of the output says how.

            .csv  a line a run: its settings, status and results. Doubles keep all their bits, flags are words, what is
                  not there (no outcome; a step that did not happen) is empty. A unit ends a column's name, wall_time_s.
                    --trajectories   a line for each record of each run until it ended: settings, status, step, fields
                    --form wide      a line a run, trajectories as columns: error@0, error@1, ...
            .nc   compressed netCDF-4, unstacked over the axes of the grid (--flat: along run, as the file is, also for
                  runs that are no full grid), with units, CF flags and fill values. No integers of 64 bits, which CF and
                  R's ncdf4 lack: they have 32 bits, or are doubles where those are too few. link and input are numbers
                  whose flag_meanings are words. With --precision single half the size; errors beyond 3.4e38 are infinite.

            rank and checksum are left out unless --fields names them; weights are not exported.
            """),
        epilog=textwrap.dedent("""\
            examples:
              sgdmap-analysis export sweep.h5 -o runs.csv
              sgdmap-analysis export sweep.h5 -o errors.csv --trajectories --fields error,loss --where dimension==10
              sgdmap-analysis export sweep.h5 -o wide.csv --form wide --fields final_error,error
              sgdmap-analysis export sweep.h5 -o small.nc --precision single

              pandas:  pandas.read_csv("runs.csv", keep_default_na=False, na_values="")
              R:       nc <- ncdf4::nc_open("small.nc"); ncdf4::ncvar_get(nc, "final_error")
            """),
    )
    common.add_file(parser)
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="file to write: .csv or .nc")
    parser.add_argument("--form", choices=("long", "wide"), help="of a .csv: trajectories as lines or as columns (default: long)")
    parser.add_argument("--trajectories", action="store_true",
                        help="of a long .csv: a line a record (default if --fields names a trajectory)")
    parser.add_argument("--fields", metavar="NAME[,NAME...]", type=_fields,
                        help="what to write beside settings and status (default: all results, and all trajectories where "
                        "there are any)")
    parser.add_argument("--flat", action="store_true", help="of a .nc: leave the runs along run")
    parser.add_argument("--precision", choices=("double", "single"), help="of the results in a .nc (default: double)")
    parser.add_argument("--level", metavar="N", type=common.ranged(int, 1, 9),
                        help="of a .nc: compression, 1 is fast and 9 small (default: 4)")
    common.add_where(parser)
    parser.add_argument("--json", action="store_true", help="print what was written: the file, its size, runs and fields")
    parser.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> None:
    kind = options.output.suffix.lower()
    if kind not in (".csv", ".nc"):
        raise ArgumentError(f"{options.output}: the ending is neither .csv nor .nc")
    foreign = {".csv": ("flat", "precision", "level"), ".nc": ("form", "trajectories")}[kind]
    for name in foreign:
        if getattr(options, name):
            raise ArgumentError(f"--{name} is not for {kind}")
    if options.trajectories and options.form == "wide":
        raise ArgumentError("--trajectories is not for --form wide, whose trajectories are columns")
    if options.output.exists() and options.output.samefile(options.file):
        raise ArgumentError(f"{options.output}: is the file to be exported")
    from .. import export

    source = export.choose_runs(options.file, options.where, options.fields, flat=kind == ".csv" or options.flat)
    if kind == ".nc":
        export.check_types(source)
        common.write_whole(options.output, lambda partial: export.write_netcdf(
            source, partial, single=options.precision == "single", level=options.level or 4))
    else:
        form = export.csv_form(source, options.form, options.trajectories, chosen=options.fields is not None)
        common.write_whole(options.output, lambda partial: export.write_csv(source, partial, form))
    common.finish(options, options.output, lambda: {
        "file": options.file, "output": str(options.output), "bytes": options.output.stat().st_size,
        "runs": source.sweep.status.size, "results": source.results, "trajectories": source.trajectories,
    })


def _fields(text: str) -> list[str]:
    names = [name.strip().replace("-", "_") for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r}: a name is missing")
    return list(dict.fromkeys(names))
