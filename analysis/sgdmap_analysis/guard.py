"""A look at a file that may crash HDF5, in a child process first.

HDF5 1.10 crashes on some damaged files, loops on others, and takes what memory they name.
"""
from __future__ import annotations

import os
import resource
import signal
from typing import Any, Callable

MEMORY = 1 << 30  # bytes more than the process has already
CPU_SECONDS = 20
WALL_SECONDS = 120


class Died(Exception):
    """The child did not come to an end by itself."""


def call(work: Callable[..., None], *arguments: Any) -> str | None:
    """Call work(*arguments) in a child. None if it returned, else the text of the exception it raised.

    Raises Died if it crashed or reached a limit, and OSError if there can be no child.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _enter()
            try:
                work(*arguments)
                answer = "."
            except BaseException as error:  # noqa: BLE001  (told by the parent)
                answer = f"!{error or type(error).__name__}"
            os.write(writer, answer.encode("utf-8", "replace")[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if not answer:
        raise Died(signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "it ended without an answer")
    return answer[1:] if answer.startswith("!") else None


def _enter() -> None:
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGILL, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the parent's affair
        signal.signal(number, signal.SIG_IGN)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    for what, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_AS, used + MEMORY)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    signal.alarm(WALL_SECONDS)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
