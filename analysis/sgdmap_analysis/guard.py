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


def in_child(work: Callable[[], bytes]) -> bytes:
    """What work() returns in a child process, at least one byte; the child ends with us when we are interrupted.

    Raises Died if it came to no end by itself, and OSError if there can be no child.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, work())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            answer = stream.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    if not answer:
        raise Died(signal.strsignal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else "it ended without an answer")
    return answer


def call(work: Callable[..., None], *arguments: Any) -> str | None:
    """Call work(*arguments) in a child with limits. None if it returned, else the text of the exception it raised.

    Raises Died if it crashed or reached a limit, and OSError if there can be no child.
    """

    def limited() -> bytes:
        _enter()
        try:
            work(*arguments)
            return b"."
        except BaseException as error:  # noqa: BLE001  (told by the parent)
            return f"!{error or type(error).__name__}".encode("utf-8", "replace")[:4096]

    answer = in_child(limited).decode("utf-8", "replace")
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
