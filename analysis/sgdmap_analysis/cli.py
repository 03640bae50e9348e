"""The command sgdmap-analysis. Exit statuses are those of sgdmap: 0, 2 arguments or a file that is not a sweep, 74 input/output,
70 internal."""
from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from typing import NoReturn, Sequence

from . import __version__
from .errors import ArgumentError, SweepError

# One module each under commands/. The heavy imports (xarray, matplotlib) stand inside their functions, so that -h
# answers at once.
COMMANDS = (
    "boundary",
    "compare",
    "export",
    "map",
    "phases",
    "trajectories",
    "report",
    "serve",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Its remarks on fonts and cache folders are not the user's concern.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
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


class Parser(argparse.ArgumentParser):
    """A mistake is one line, not a page of usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')} ({self.prog} -h explains)\n")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sgdmap-analysis",
        description="Figures and numbers from a result file of sgdmap, finished or not. It only reads the file, and "
        "may do so while the job writes it.",
        epilog="sgdmap-analysis COMMAND -h explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"sgdmap-analysis {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f".commands.{name}", __package__).add_parser(commands)
    return parser
