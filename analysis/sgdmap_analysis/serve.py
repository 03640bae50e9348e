"""The report of a file that a job may still be writing, served on this machine alone.

The file is opened read only, for the time of a refresh, and only when it has changed: by its time and size, then by its status. A
refresh may take at most a fifth of one core's time, so that a large file on a busy disk is read less often. The page asks for the numbers and
gets "not modified" as long as they are the same.
"""
from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import signal
import socket
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable

import xarray as xr

from . import report
from .errors import ArgumentError, FileError, SweepError

# Names by which a browser on this machine, or at the other end of an ssh tunnel, calls the server. Any other name is that of a site whose
# name was pointed here (DNS rebinding), and whose pages must not read the numbers.
_HOSTS = ("127.0.0.1", "localhost", "[::1]")

DEFAULT_PORT = 8050

# A refresh is followed by a pause of so many times the processor time that it took, and at least the time that it took.
_PAUSE = 4.0

# A file changed this recently may change again within its clock's resolution.
_SETTLED_SECONDS = 2.0


class Source:
    """The numbers of a file as it is now; thread-safe.

    `opened` gives the sweep (ArgumentError, SweepError where there is none), `describe` its numbers.
    """

    def __init__(
        self, path: Path, opened: Callable[[], xr.Dataset], describe: Callable[[xr.Dataset], dict[str, Any]], interval: float
    ) -> None:
        self.path = path
        self.interval = interval
        self.reads = 0
        self._opened = opened
        self._describe = describe
        # HDF5 is read by one thread at a time, also so that no child process is made while another reads.
        self._lock = threading.Lock()
        self._mark: tuple | None = None
        self._status: str | None = None
        self._sweep: xr.Dataset | None = None
        self._data: bytes | None = None
        self._tag = ""
        self._trouble = ""
        self._not_before = 0.0

    def numbers(self) -> tuple[bytes | None, str, str]:
        """Gzipped JSON or None where nothing could be read yet, its ETag, and what is wrong with the file now or ''."""
        with self._lock:
            start, work = time.monotonic(), time.process_time()
            if start >= self._not_before:
                self._refresh()
                end = time.monotonic()
                # A little less than the page's interval, or each second question would come too early.
                self._not_before = end + max(0.5 * self.interval, end - start, _PAUSE * (time.process_time() - work))
            return self._data, self._tag, self._trouble

    def trajectories(self, setting: int) -> bytes | None:
        """Gzipped JSON of one setting's bands; None without such a setting."""
        with self._lock:
            if self._sweep is None:
                return None
            axes = report.setting_axes(self._sweep)
            sizes = [self._sweep.sizes[name] for name in axes]
            place = {}
            rest = setting
            for name, size in reversed(list(zip(axes, sizes))):
                rest, place[name] = divmod(rest, size)
            if setting < 0 or rest:
                return None
            # Runs that ended after the last refresh stay masked: curves and counts belong together.
            return report.packed_json(report.setting_trajectories(self._sweep, place))

    def _refresh(self) -> None:
        try:
            stat = os.stat(self.path)
            mark = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if mark == self._mark:
                return
            settled = time.time() - stat.st_mtime > _SETTLED_SECONDS
            self.reads += 1
            sweep = self._opened()
            status = hashlib.sha256(sweep.status.values.tobytes() + repr(mark[:2]).encode()).hexdigest()[:24]
            if status != self._status:
                self._data = report.packed_json(self._describe(sweep))
                self._tag = f'"{hashlib.sha256(self._data).hexdigest()[:24]}"'
                self._status = status
            self._sweep = sweep
            self._mark = mark if settled else None
            self._trouble = ""
        except FileNotFoundError:
            self._lost(f"{self.path} is not there yet" if self._data is None else f"{self.path} is not there any more")
        except (ArgumentError, SweepError, OSError) as error:
            self._lost(str(error))

    def _lost(self, trouble: str) -> None:
        self._trouble = trouble
        self._mark = None


def make_server(source: Source, port: int, page: Callable[[], str]) -> http.server.ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet running: `/`, `/data.json` and `/trajectories.json?setting=N`, GET and HEAD only.

    Port 0 is one that is free. FileError where the port is taken.
    """
    whole: list[bytes] = []

    def packed_page() -> bytes:
        # Made once, when first asked for: plotly.js takes a second to pack.
        if not whole:
            whole.append(gzip.compress(page().encode("utf-8"), 1, mtime=0))
        return whole[0]

    class Handler(http.server.BaseHTTPRequestHandler):
        server_version = "sgdmap-analysis"
        sys_version = ""
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            self._answer()

        do_HEAD = do_GET

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._refuse_method
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None:
            pass

        def _refuse_method(self) -> None:
            # What a body says is not read: the connection ends.
            self.close_connection = True
            self._send(405, b'{"message":"only GET and HEAD"}', "application/json", {"Allow": "GET, HEAD"})

        def _answer(self) -> None:
            if _host_name(self.headers.get("Host", "")) not in _HOSTS:
                self._send(421, b'{"message":"this server answers to 127.0.0.1 and localhost only"}', "application/json")
                return
            url = urllib.parse.urlsplit(self.path)
            if url.path == "/":
                self._send(200, packed_page(), "text/html; charset=utf-8", {"Content-Encoding": "gzip"})
            elif url.path == "/data.json":
                self._numbers()
            elif url.path == "/trajectories.json":
                self._trajectories(url.query)
            else:
                self._send(404, b'{"message":"not found"}', "application/json")

        def _numbers(self) -> None:
            data, tag, trouble = source.numbers()
            if data is None:
                self._send(503, json.dumps({"message": f"Waiting: {trouble}."}).encode(), "application/json", {"Retry-After": "1"})
                return
            headers = {"ETag": tag}
            if trouble:
                headers["X-Sgdmap-Trouble"] = urllib.parse.quote(trouble)
            wanted = [part.strip().removeprefix("W/") for part in self.headers.get("If-None-Match", "").split(",")]
            if tag in wanted or "*" in wanted:
                self._send(304, b"", None, headers)
            else:
                self._send(200, data, "application/json", {**headers, "Content-Encoding": "gzip"})

        def _trajectories(self, query: str) -> None:
            text = urllib.parse.parse_qs(query).get("setting", [""])[0]
            data = None
            if text.isascii() and text.isdigit() and len(text) < 16:
                try:
                    data = source.trajectories(int(text))
                except (SweepError, OSError) as error:
                    self._send(503, json.dumps({"message": str(error)}).encode(), "application/json")
                    return
            if data is None:
                self._send(404, b'{"message":"no such setting"}', "application/json")
            else:
                self._send(200, data, "application/json", {"Content-Encoding": "gzip"})

        def _send(self, code: int, body: bytes, kind: str | None, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            if kind:
                self.send_header("Content-Type", kind)
            if code != 304:
                self.send_header("Content-Length", str(len(body)))
            # Nothing is kept: the next look is at the file as it is then. Nor shown within another site's page.
            for name, value in {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
                                "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
                                **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD" and code != 304:
                try:
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            import sys

            # A browser that closes a connection early is no trouble.
            if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, socket.timeout)):
                super().handle_error(request, client_address)

    try:
        return Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise FileError(f"port {port} of 127.0.0.1: {error.strerror or error}") from error


def _host_name(host: str) -> str:
    """'localhost' of 'localhost:8050', '[::1]' of '[::1]:8050'."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[:host.find("]") + 1]
    return host.rsplit(":", 1)[0] if ":" in host else host


def run(server: http.server.ThreadingHTTPServer, announce: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then return.

    ``announce`` is called when both signals are heard: who reads the address there may end the server at once."""

    def stop(*_: Any) -> None:
        # From another thread: shutdown waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        announce()
        server.serve_forever(poll_interval=0.2)
    finally:
        server.server_close()
        for number, handler in before.items():
            signal.signal(number, handler)
