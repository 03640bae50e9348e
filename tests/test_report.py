"""The report and its server: the numbers of the page, its size, that it is closed in itself, and with real clicks in Chromium."""
from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import OUTCOMES, realistic_axes, realistic_model, write_sweep

from sgdmap_analysis import cli, open_sweep, report, serve, trajectories
from sgdmap_analysis.statistics import wilson_interval

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ROOT / "analysis" / "sgdmap-analysis"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"

pytestmark = pytest.mark.skipif(not any(place.exists() for place in report.plotly_places()), reason="plotly is not installed")


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse
        return int(error.code or 0)


def unpacked(page: str, name: str) -> bytes:
    """What a script element of the page holds."""
    text = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)[1]
    return gzip.decompress(base64.b64decode(text))


def decoded(header: dict, packed: bytes, name: str) -> np.ndarray:
    """[quantile, settings, records] of a field: the page's decoder once more."""
    shape = (len(header["quantiles"]), int(np.prod([len(values) for values in header["axes"].values()])), len(header["steps"]))
    index = [field["name"] for field in header["fields"]].index(name)
    field = header["fields"][index]
    size = int(np.prod(shape))
    planes = np.frombuffer(packed, np.uint8)[2 * size * index:2 * size * (index + 1)].reshape(2, *shape)
    codes = np.cumsum(planes[0].astype(np.int64) + 256 * planes[1], axis=-1) % 65536
    scaled = field["low"] + (codes - 1) * (field["high"] - field["low"]) / 65534
    values = 10.0**scaled if field["unit"] is None else np.sinh(scaled) * field["unit"]
    return np.where(codes == 0, np.nan, values)


STEPS = np.unique(np.concatenate([[0], np.geomspace(1, 20000, 22).astype(int)]))


@pytest.fixture(scope="module")
def realistic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only. As in conftest, with trajectories that look like those of training."""
    random = np.random.default_rng(8)

    def rows(setting: dict) -> dict[str, np.ndarray]:
        pace = setting["step_size"] * np.exp(random.normal(0, 0.3))
        error = np.maximum((0.3 + setting["init_scale"]) * np.exp(-pace * STEPS / 3), 9e-4)
        if pace > 0.05:
            error = np.where(STEPS < 40, (1 + pace) ** STEPS.clip(0, 40), np.nan)
        potential = -error * setting["dimension"] * np.exp(random.normal(0, 0.2))
        return {"error": error, "loss": error**2, "potential": potential, "potential_norm": potential / 2, "gradient_norm": 3 * error,
                "alignment": np.where(np.isnan(error), np.nan, 0.4 - (setting["init_scale"] > 1.2) * np.exp(-pace * STEPS)), "weight_norm": 1 + error}

    path = tmp_path_factory.mktemp("realistic") / "realistic.nc"
    return write_sweep(path, realistic_axes(), realistic_model(), steps=STEPS, rows=rows)


@pytest.fixture(scope="module")
def realistic_page(realistic_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    path = tmp_path_factory.mktemp("page") / "realistic.html"
    assert run("report", realistic_file, "-o", path) == 0
    return path


# -- The page's numbers ------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_map(realistic_file, realistic_page, capsys):
    numbers = json.loads(unpacked(realistic_page.read_text(), "data-numbers"))
    assert run("map", realistic_file, "--json", "--quantity", "probability,outcome,final_error,steps") == 0
    panels = json.loads(capsys.readouterr().out)["panels"]
    axes = {axis["name"]: axis["values"] for axis in numbers["axes"]}
    shape = [len(values) for values in axes.values()]
    cells = numbers["cells"]

    def box(values: list) -> np.ndarray:
        return np.array(values, dtype=object).reshape(shape)

    assert len(panels) == 4
    for panel in panels:
        place = tuple(axes[name].index(panel["where"][name]) if name in panel["where"] else slice(None) for name in axes)

        def own(values: list) -> np.ndarray:
            return box(values)[place].T  # [step_size, init_scale] there, [y][x] here

        for name in ("n", "k", "converged_step", "diverged_step"):
            assert np.array_equal(own(cells[name]), np.array(panel[name], dtype=object)), name
        for name in OUTCOMES:
            assert np.array_equal(own(cells["counts"][name]), np.array(panel["counts"][name])), name
        names = np.array(numbers["outcomes"])
        assert np.array_equal(names[own(cells["most_frequent"]).astype(int)], np.array(panel["most_frequent"]))
        for index, bound in enumerate(("low", "high")):
            found = [[cells["interval"][f"{k}/{n}"][index] for k, n in zip(*rows)] for rows in zip(own(cells["k"]), own(cells["n"]))]
            np.testing.assert_allclose(np.array(found), np.array(panel[bound]), rtol=1e-5, atol=1e-6)
        error, expected = own(cells["final_error"]).astype(float), np.array(panel["final_error"], dtype=float)
        infinite = error == -1
        assert np.array_equal(infinite, np.isnan(expected) & (np.array(panel["n"]) > 0))
        np.testing.assert_allclose(error[~infinite], expected[~infinite], rtol=1e-3)


def test_runs_without_an_outcome_are_neither_for_nor_against(sweep_file):
    states = iter(("converged", "diverged", "failed", "pending", "running", "stalled") * 2)
    numbers = report.collect(open_sweep(sweep_file(model=lambda setting: (next(states), 5, 1.0))))
    cells = numbers["cells"]
    assert sum(cells["n"]) == 6 and sum(cells["k"]) == 2
    assert numbers["counts"] == {"pending": 2, "running": 2, "converged": 2, "diverged": 2, "stalled": 2, "unfinished": 0, "failed": 2}
    assert numbers["failures"]["count"] == 2
    assert [row["message"] for row in numbers["failures"]["rows"]] == ["out of memory"] * 2
    for pair, (low, high) in cells["interval"].items():
        k, n = map(int, pair.split("/"))
        assert (low, high) == pytest.approx([bound.item() for bound in wilson_interval(k, n)], abs=1e-5)


def test_axes_beside_their_default_are_axes_of_the_page(sweep_file):
    axes = {"data": [0, 1000], "noise": [0.0, 0.01, 0.1, 1.0], "schedule": ["constant", "cosine"]}
    sweep = open_sweep(sweep_file(axes))
    numbers = report.collect(sweep)
    names = [axis["name"] for axis in numbers["axes"]]
    assert names == list(report.setting_axes(sweep)) and {"data", "noise", "schedule"} < set(names) and "teacher" not in names
    by_name = {axis["name"]: axis for axis in numbers["axes"]}
    assert by_name["data"]["values"] == [0, 1000] and by_name["data"]["scale"] == "ordinal"
    assert by_name["noise"]["label"] == "label noise ε" and by_name["noise"]["scale"] == "ordinal"
    assert len(numbers["cells"]["n"]) == 2 * 4 * 2 * 3 * 2
    header, _ = report.collect_trajectories(sweep)
    assert header["axes"]["schedule"] == ["constant", "cosine"]


def test_trajectories_are_those_of_the_command(sweep_file):
    """The rounding of the codes is at most half a step of the field's logarithm."""
    axes = {"replicate": range(5), "step_size": np.geomspace(1e-3, 1e-1, 4), "init_scale": [0.0, 0.5, 1.0]}
    path = sweep_file(axes, steps=(0, 1, 10, 100))  # the last step size diverges after its second record
    sweep = open_sweep(path)
    header, packed = report.collect_trajectories(sweep)
    raw = gzip.decompress(packed)
    assert [field["name"] for field in header["fields"]] == report.shown_fields(sweep)
    assert header["note"] == ""
    for name in report.shown_fields(sweep):
        bands = trajectories.bands(sweep, name, quantiles=(report.QUANTILES[0], report.QUANTILES[2]))
        edges = bands.quantiles.transpose("quantile", *report.setting_axes(sweep), "step").values.reshape(2, 12, 4)
        middle = bands["median"].transpose(*report.setting_axes(sweep), "step").values.reshape(12, 4)
        expected = np.stack([edges[0], middle, edges[1]])
        expected = np.where(np.isfinite(expected), expected, np.nan)
        assert np.isfinite(expected).any() and (name in report.SIGNED_FIELDS or np.isnan(expected).any())
        found = decoded(header, raw, name)
        field = next(item for item in header["fields"] if item["name"] == name)
        step = (field["high"] - field["low"]) / 65534 * (np.log(10) if field["unit"] is None else 1)
        # Below the unit of a field with a sign the error is absolute; a loss of 0 is held at 1e-40.
        np.testing.assert_allclose(found, expected, rtol=0.51 * step, atol=max(field["unit"] or 0, 1e-39) * step)
        one = report.setting_trajectories(sweep, report_place(sweep, 7))
        exact = next(item for item in one["fields"] if item["name"] == name)["values"]
        np.testing.assert_allclose(np.array(exact, float), expected[:, 7], rtol=1e-4)


def report_place(sweep, setting: int) -> dict[str, int]:
    sizes = [sweep.sizes[name] for name in report.setting_axes(sweep)]
    return dict(zip(report.setting_axes(sweep), map(int, np.unravel_index(setting, sizes))))


def test_trajectories_are_thinned_to_their_budget_and_say_so(realistic_file):
    sweep = open_sweep(realistic_file)
    header, packed = report.collect_trajectories(sweep, budget=20_000)
    assert len(packed) * 4 / 3 <= 20_000
    kept = int(np.prod([len(values) for values in header["axes"].values()]))
    assert 0 < kept < 1700
    assert f"{kept:,} of 1,700 settings" in header["note"]
    # What is left is right.
    place = {name: [list(sweep[name].values).index(value) for value in values] for name, values in header["axes"].items()}
    expected = report._bands(sweep.isel(place), "error")
    found = decoded(header, gzip.decompress(packed), "error")
    np.testing.assert_allclose(found, np.where(np.isfinite(expected), np.maximum(expected, 1e-40), np.nan), rtol=1e-2)


def test_merged_settings_keep_all_runs(sweep_file, monkeypatch):
    random = np.random.default_rng(5)
    axes = {"step_size": np.geomspace(1e-3, 1, 23), "init_scale": np.linspace(0, 2, 11)}
    path = sweep_file(axes, model=lambda setting: (str(random.choice(OUTCOMES)), 9, float(random.random())))
    sweep = open_sweep(path)
    monkeypatch.setattr(report, "MAX_CELLS", 60)
    numbers = report.collect(sweep)
    assert len(numbers["cells"]["n"]) <= 60
    for name in OUTCOMES:
        assert sum(numbers["cells"]["counts"][name]) == numbers["counts"][name]
    assert sum(numbers["counts"].values()) == 23 * 11 * 2
    axis = next(item for item in numbers["axes"] if item["name"] == "step_size")
    # The cell of the first step sizes and scales, counted by hand.
    low, high = axis["merged"][0]
    scale = next(item for item in numbers["axes"] if item["name"] == "init_scale")
    ends = scale.get("merged", [[value, value] for value in scale["values"]])[0]
    flat = open_sweep(path, flat=True)
    inside = ((flat.step_size >= low) & (flat.step_size <= high) & (flat.init_scale >= ends[0]) & (flat.init_scale <= ends[1])).values
    converged = (flat.status.values == OUTCOMES.index("converged")) & inside
    assert numbers["cells"]["k"][0] == converged.sum()
    outcome = np.isin(flat.status.values, [2, 4, 5]) & inside
    diverged = (flat.status.values == 3) & inside
    errors = np.concatenate([flat.final_error.values[outcome], np.full(diverged.sum(), np.inf)])
    median = np.median(errors)
    assert numbers["cells"]["final_error"][0] == (-1 if np.isinf(median) else pytest.approx(median, rel=1e-3))
    assert any("merged" in note for note in numbers["notes"])


# -- The page ----------------------------------------------------------------------------------------------------------


def test_page_is_closed_in_itself(realistic_page):
    page = realistic_page.read_text()
    # Numbers and plotly.js stand in it as base64, in which no address can be.
    outside = re.sub(r'(<script type="text/plain"[^>]*>)[^<]*', r"\1", page)
    assert not re.search(r"""(?:src|href|url|import)\s*[=(]\s*["']?\s*(?:https?:)?//""", outside, re.IGNORECASE)
    assert not re.search(r"https?://", outside)
    assert "Plotly" in unpacked(page, "data-plotly").decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#x27;", "'")
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy and "unsafe-inline" not in policy.split("style-src")[0]
    program = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1]
    for script in (program, unpacked(page, "data-plotly").decode()):
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert len(page.encode()) < 15e6


def test_texts_of_the_file_are_never_markup(sweep_file, tmp_path):
    path = sweep_file()
    with h5py.File(path, "r+") as file:
        for name in ("title", "config", "history", "host", "source"):
            file.attrs[name] = HOSTILE + "@@program@@"
    page = tmp_path / "page.html"
    assert run("report", path, "-o", page) == 0
    text = page.read_text()
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("<script") == 4
    assert "&lt;script&gt;alert(1)" in text
    assert json.loads(unpacked(text, "data-numbers"))["config"] == HOSTILE + "@@program@@"


def test_hundred_thousand_runs(tmp_path):
    """Written flat and fast: 10^5 runs of 2 replicates, of which the page holds all settings and some trajectories."""
    path = tmp_path / "large.nc"
    write_sweep(path, {"step_size": [0.1], "init_scale": [0.0], "replicate": [0]}, steps=tuple(range(48)))
    steps, scales, replicates = np.geomspace(1e-4, 1, 250), np.linspace(0, 2, 200), 2
    runs = steps.size * scales.size * replicates
    replicate, step, scale = (part.ravel() for part in np.meshgrid(np.arange(replicates), steps, scales, indexing="ij"))
    random = np.random.default_rng(1)
    with h5py.File(path, "r+") as file:
        values = {name: np.repeat(file[name][...], runs, axis=0) for name in file if name != "step" and file[name].ndim == 1}
        rows = {name: file[name].shape[1] for name in file if file[name].ndim == 2}
        attributes = {name: {key: file[name].attrs[key] for key in ("flag_values", "flag_meanings") if key in file[name].attrs} for name in file}
        values |= {"run": np.arange(runs), "replicate": replicate, "step_size": step, "init_scale": scale}
        values["status"] = np.where(step < 0.1 * np.exp(random.normal(0, 0.2, runs)), 2, 3).astype(np.int8)
        values["checksum"] = np.ones(runs, np.uint64)
        for name in (*values, *rows):
            del file[name]
        for name, value in values.items():
            file[name] = value
            file[name].attrs.update(attributes[name])
        for name, count in rows.items():
            if name in ("error", "potential", "alignment", "loss", "potential_norm"):
                file[name] = (np.exp(random.normal(0, 1, (runs, 1))) * np.geomspace(1, 1e-4, count)).astype(np.float32)
    page = tmp_path / "large.html"
    start = time.monotonic()
    assert run("report", path, "-o", page) == 0
    assert page.stat().st_size < 15e6
    assert time.monotonic() - start < 60
    numbers = json.loads(unpacked(page.read_text(), "data-numbers"))
    assert numbers["runs"] == runs and len(numbers["cells"]["n"]) == runs // 2
    assert any("recorded steps" in note for note in numbers["notes"])


@pytest.mark.parametrize("arguments, said", [
    (["report", "none.nc"], "none.nc"),
    (["report", "{sweep}", "-o", "no/such/folder/page.html"], "there is no folder no/such/folder"),
    (["report", "{sweep}", "--where", "dimension==77"], "dimension has no value 77"),
    (["report", "{sweep}", "--confidence", "2"], "not a number in"),
    (["serve", "{sweep}", "--port", "70000"], "not a number in"),
    (["serve", "{sweep}", "--where", "dimension==77"], "dimension has no value 77"),
])
def test_bad_input_is_one_line(sweep_file, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    path = sweep_file()
    assert run(*[argument.format(sweep=path) for argument in arguments]) in (2, 74)
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1] and "Traceback" not in error
    assert not list(tmp_path.glob("*.html")) and not list(tmp_path.glob(".*.part"))


def test_without_plotly_it_says_what_to_install(sweep_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "plotly_places", lambda: [tmp_path / "plotly.js"])
    assert run("report", sweep_file(), "-o", tmp_path / "page.html") == 2
    assert "python3-plotly" in capsys.readouterr().err


def test_json_has_the_numbers_and_the_size(sweep_file, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run("report", sweep_file(), "-o", page, "--json", "--title", "A title") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["bytes"] == page.stat().st_size and numbers["title"] == "A title" and numbers["runs"] == 12


# -- The server --------------------------------------------------------------------------------------------------------


class Served:
    """sgdmap-analysis serve as a process."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, COMMAND, "serve", path, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/", self.url)[1])

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, gzip.decompress(body) if headers.get("content-encoding") == "gzip" and body else body

    def numbers(self) -> dict:
        return json.loads(self.ask("/data.json")[2])

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.process.stderr.close()


@pytest.fixture
def served():
    started: list[Served] = []

    def start(*arguments) -> Served:
        started.append(Served(*arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.end()


def test_server_answers(sweep_file, served):
    path = sweep_file()
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    one = served(path, "--interval", "0.2")
    status, headers, body = one.ask("/data.json")
    assert status == 200 and json.loads(body)["runs"] == 12
    tag = headers["etag"]
    assert one.ask("/data.json", If_None_Match=tag)[0] == 304
    assert one.ask("/data.json", If_None_Match='"other"')[0] == 200
    status, headers, body = one.ask("/data.json", "HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 100
    status, headers, page = one.ask("/")
    assert status == 200 and b"connect-src &#x27;self&#x27;" in page
    assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    status, headers, body = one.ask("/trajectories.json?setting=5")
    assert status == 200
    sweep = open_sweep(path)
    assert json.loads(body) == report.setting_trajectories(sweep, report_place(sweep, 5))
    for wrong in ("/trajectories.json?setting=6", "/trajectories.json?setting=-1", "/trajectories.json", "/etc/passwd", "/../../etc/passwd"):
        assert one.ask(wrong)[0] == 404, wrong
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        status, headers, _ = one.ask("/data.json", method)
        assert status == 405 and headers["allow"] == "GET, HEAD", method
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert one.end() == 0


@pytest.mark.parametrize("host, status", [
    ("127.0.0.1", 200), ("localhost:9999", 200), ("[::1]:80", 200), ("LOCALHOST", 200),
    ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:8050", 421), ("", 421),
])
def test_server_answers_to_its_own_names_only(sweep_file, host, status):
    source = serve.Source(sweep_file(), lambda: None, lambda _: {}, 1.0)
    source._data, source._tag, source._not_before = gzip.compress(b"{}"), '"1"', float("inf")
    server = serve.make_server(source, 0, lambda: "page")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        connection.putrequest("GET", "/data.json", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()
    finally:
        server.shutdown()
        server.server_close()


def test_server_is_on_loopback_only(sweep_file, served):
    one = served(sweep_file())
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"]
    assert [place for place in listening if int(place.split(":")[1], 16) == one.port] == [f"0100007F:{one.port:04X}"]
    assert one.end(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_server_is_ended_as_soon_as_it_is_announced(sweep_file, number):
    source = serve.Source(sweep_file(), lambda: None, lambda _: {}, 1.0)
    handlers = signal.getsignal(number)
    serve.run(serve.make_server(source, 0, lambda: "page"), lambda: os.kill(os.getpid(), number))
    assert signal.getsignal(number) is handlers


def test_server_waits_for_the_file_and_follows_it(tmp_path, served):
    path = tmp_path / "later.nc"
    one = served(path, "--interval", "0.2")
    status, headers, body = one.ask("/data.json")
    assert status == 503 and "is not there yet" in json.loads(body)["message"]

    def wait_for(check, seconds: float = 60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = check()
            if found:
                return found
            time.sleep(0.1)
        pytest.fail("it did not happen in time")

    path.write_bytes(b"\x89HDF\r\n\x1a\nhalf")
    wait_for(lambda: "cannot be read" in json.loads(one.ask("/data.json")[2]).get("message", ""))
    whole = tmp_path / "whole.nc"
    states = ["converged"] * 2 + ["pending"] * 10
    write_sweep(whole, model=lambda setting: (states.pop(0), 5, 1e-4))
    os.replace(whole, path)
    wait_for(lambda: one.ask("/data.json")[0] == 200)
    status, headers, body = one.ask("/data.json")
    assert json.loads(body)["counts"]["converged"] == 2
    tag = headers["etag"]
    # One more run is done, as the job writes it: rows, then status and checksum.
    with h5py.File(path, "r+") as file:
        file["steps_done"][5], file["final_error"][5] = 7, 1e-4
        file["status"][5], file["checksum"][5] = 2, 1
    wait_for(lambda: one.ask("/data.json", If_None_Match=tag)[0] == 200)
    assert one.numbers()["counts"] == {"pending": 9, "running": 0, "converged": 3, "diverged": 0, "stalled": 0, "unfinished": 0, "failed": 0}
    # A file that goes away leaves the last state, and says so.
    path.unlink()
    wait_for(lambda: "there" in one.ask("/data.json")[1].get("x-sgdmap-trouble", ""))
    assert one.numbers()["counts"]["converged"] == 3


def test_file_is_read_only_when_it_changed_and_not_too_often(sweep_file, monkeypatch):
    path = sweep_file()
    os.utime(path, (1e9, 1e9))
    clock = [100.0]
    monkeypatch.setattr(serve.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(serve.time, "process_time", lambda: clock[0])

    def opened():
        clock[0] += 2.0  # a look takes two seconds
        return open_sweep(path)

    described: list[int] = []
    source = serve.Source(path, opened, lambda sweep: described.append(1) or {"n": len(described)}, 5.0)
    first = source.numbers()
    assert source.reads == 1
    clock[0] += 100
    assert source.numbers() == first and source.reads == 1  # unchanged: not opened
    clock[0] += 5
    with h5py.File(path, "r+") as file:
        file["final_loss"][0] = 1.0
    os.utime(path, (2e9, 1.1e9))
    assert source.numbers() == first and source.reads == 2 and len(described) == 1  # same outcomes
    with h5py.File(path, "r+") as file:
        file["status"][0] = 3
    os.utime(path, (2e9, 1.2e9))
    assert source.numbers() == first and source.reads == 2  # too soon after a look of two seconds
    clock[0] += 7
    assert source.numbers() == first and source.reads == 2
    clock[0] += 2
    assert source.numbers()[1] != first[1] and source.reads == 3 and len(described) == 2


def test_a_taken_port_is_said(sweep_file, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert run("serve", sweep_file(), "--port", other.getsockname()[1]) == 74
    assert "in use" in capsys.readouterr().err


# -- In a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def playwright() -> Path:
    """The module playwright-core, installed once into the build folder; else the tests are skipped."""
    for tool in ("node", "npm", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = ROOT / "build" / "browser"
    module = folder / "node_modules" / "playwright-core"
    wanted = json.loads((ROOT / "tests" / "browser" / "package.json").read_text())["dependencies"]["playwright-core"]
    if not (module / "package.json").exists() or json.loads((module / "package.json").read_text())["version"] != wanted:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(ROOT / "tests" / "browser" / name, folder)
        except OSError as error:
            pytest.skip(f"playwright-core has no place: {error}")
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            pytest.skip(f"playwright-core {wanted} could not be installed: {(done.stderr.strip() or 'npm failed').splitlines()[-1]}")
    return module


def test_in_a_browser(playwright, realistic_file, realistic_page, sweep_file, tmp_path, served):
    sweep = open_sweep(realistic_file)
    numbers = json.loads(unpacked(realistic_page.read_text(), "data-numbers"))
    cells = numbers["cells"]
    sizes = [len(axis["values"]) for axis in numbers["axes"]]
    names = [axis["name"] for axis in numbers["axes"]]
    steps, scales = sweep.step_size.values, sweep.init_scale.values

    def expected(x: int, y: int) -> dict:
        place = [x if name == "step_size" else y if name == "init_scale" else 0 for name in names]
        cell = int(np.ravel_multi_index(place, sizes))
        k, n = cells["k"][cell], cells["n"][cell]
        low, high = wilson_interval(k, n)
        return {"x": x, "y": y, "count": f"{k} of {n}", "interval": f"{low:.2f} to {high:.2f}",
                "words": [f"init. scale = {scales[y]:g}", f"η = {float(f'{steps[x]:.3g}'):g}" if steps[x] >= 1e-3 else "η = "]}

    table = np.array([cells["k"], cells["n"]])
    dimension = np.array(numbers["axes"][0]["values"])[np.unravel_index(np.arange(len(cells["n"])), sizes)[0]]
    half = int(((table[0] >= 0.5 * table[1]) & (dimension == 10)).sum())
    stalled = int((np.array(numbers["outcomes"])[cells["most_frequent"]] == "stalled").sum())

    hostile = sweep_file({"link": ["identity", "none"], "init_scale": [0.0]}, name="hostile.nc")
    with h5py.File(hostile, "r+") as file:
        file.attrs["title"], file.attrs["config"], file.attrs["host"] = HOSTILE, HOSTILE, HOSTILE
        file["link"].attrs["flag_meanings"] = "<img/src=x/onerror=alert(3)> <b>none</b>"
    hostile_page = tmp_path / "hostile.html"
    assert run("report", hostile, "-o", hostile_page) == 0

    states = ["converged"] * 4 + ["pending"] * 8
    growing = sweep_file(name="growing.nc", model=lambda setting: (states.pop(0), 500, 1e-4))
    server = served(growing, "--interval", "0.3")
    go = tmp_path / "go"

    def grow() -> None:
        while not go.exists():
            if stop.wait(0.05):
                return
        with h5py.File(growing, "r+") as file:
            for name in ("error", "loss", "potential", "alignment", "gradient_norm", "weight_norm"):
                file[name][4:7] = 1.0
            file["steps_done"][4:7], file["final_error"][4:7] = 500, 1e-4
            file["status"][4:7], file["checksum"][4:7] = 2, 1

    stop = threading.Event()
    writer = threading.Thread(target=grow)
    writer.start()
    settings = {
        "playwright": str(playwright), "chromium": shutil.which("chromium"), "folder": str(tmp_path),
        "pictures": os.environ.get("SGDMAP_PICTURES"),
        "page": str(realistic_page), "title": "synthetic sweep", "counts": {name: count for name, count in numbers["counts"].items() if count},
        "cells": [expected(13, 2), expected(6, 4), expected(24, 16)], "corner": "η = 10⁻⁴, init. scale = 0",
        "filters": [{"text": "p>=0.5 d=10", "count": f"{half:,} of"}, {"text": "most frequent = stalled", "count": f"{stalled:,} of"},
                    {"text": "stalled", "count": f"{stalled:,} of"}, {"text": "step size < 0.01", "count": "816 of"}],
        "hostile": str(hostile_page), "hostileText": HOSTILE,
        "live": {"url": server.url, "go": str(go), "before": "4", "after": "7"},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    try:
        done = subprocess.run(["node", ROOT / "tests" / "browser" / "report.js", tmp_path / "settings.json"], capture_output=True,
                              text=True, timeout=240)
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)

    # What was downloaded is what the file holds. The map: d = 50, as chosen in the table before.
    rows = read_csv(tmp_path / "map.csv")
    assert len(rows) == 25 * 17
    for row in rows:
        place = {"dimension": 50, "teacher_norm": float(row["teacher_norm"])}
        one = sweep.status.sel(place).sel(step_size=float(row["step_size"]), init_scale=float(row["init_scale"])).squeeze().values
        assert int(row["dimension"]) == 50 and int(row["k"]) == (one == 2).sum() and int(row["n"]) == 4
    rows = read_csv(tmp_path / "settings.csv")
    assert len(rows) == 1700 and sum(int(row["k"]) for row in rows) == numbers["counts"]["converged"]
    rows = read_csv(tmp_path / "trajectories.csv")
    assert [int(row["step"]) for row in rows] == STEPS.tolist() and "error_q50" in rows[0]
    assert len(read_csv(tmp_path / "boundary.csv")) == 2 * 2 * 17


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))
