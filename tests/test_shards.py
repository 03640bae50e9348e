"""Sweeps in several files: shards, as job arrays train them, and the one file that is put together from them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import results

PROGRAM = os.environ["SGDMAP"]
WITH_FAULTS = os.environ["SGDMAP_FAULTS"]
# What tells of the time, the place and the rank, and the file's own tale of them.
ORIGIN = {"history", "date_created"}

# Some of everything that is a group of its own, and groups of very different cost.
CONFIG = """\
title: a sweep in parts
seed: 4
grid:
  dimension: [3, 9]
  step_size: {log: [1.0e-3, 3.0], count: 20}
  init_scale: [0, 1]
  teacher_norm: [0.5, 1.0]
  link: [identity, none]
  batch_size: [1, 20]
  replicates: 3
training:
  steps: 200
  tolerance: 1.0e-2
records: {count: 9}
output: {weights: WEIGHTS}
"""
RUNS = 2 * 20 * 2 * 2 * 2 * 2 * 3
SHARDS = 4


def command(*arguments, ranks=None, program=PROGRAM):
    mpirun = [] if ranks is None else ["mpirun", "--oversubscribe", "-n", str(ranks)]
    return [*mpirun, program, *map(str, arguments)]


def sgdmap(*arguments, ranks=None, program=PROGRAM, environment=None):
    return subprocess.run(command(*arguments, ranks=ranks, program=program), capture_output=True, text=True, timeout=300,
                          env={**os.environ, **(environment or {})})


def refused(result, status, *texts):
    assert result.returncode == status, result.stdout + result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("sgdmap: ")]) == 1, result.stderr
    for text in texts:
        assert str(text) in result.stderr, result.stderr


def contents(path):
    """The datasets, and the attributes but for those that say where a file is from."""
    ret = results.contents(path)
    with h5py.File(path, "r") as file:
        for name, value in file.attrs.items():
            if name not in ORIGIN:
                ret["attribute " + name] = np.asarray(value)
    return ret


def assert_same(a, b, *, but=()):
    a, b = contents(a), contents(b)
    assert a.keys() ^ b.keys() <= set(but)
    for name in a.keys() - set(but):
        assert a[name].tobytes() == b[name].tobytes(), name


def assert_nothing_else(folder, *names):
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


class Sweep:
    """A config, its sweep in one piece, and its shards."""

    def __init__(self, folder: Path, weights: str) -> None:
        self.config = folder / "parts.yaml"
        self.config.write_text(CONFIG.replace("WEIGHTS", weights))
        self.whole = folder / "whole.h5"
        self.parts = [folder / f"part-{i}.h5" for i in range(SHARDS)]
        assert sgdmap("run", self.config, "-o", self.whole).returncode == 0
        for i, part in enumerate(self.parts):
            result = sgdmap("run", self.config, "-o", part, "--shard", f"{i}/{SHARDS}", ranks=[None, 2, 3, 1][i % 4])
            assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module", params=["final", "none"])
def either(tmp_path_factory, request):
    return Sweep(tmp_path_factory.mktemp("sweep"), request.param)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Sweep(tmp_path_factory.mktemp("sweep"), "final")


@pytest.fixture
def parts(sweep, tmp_path):
    """Copies that a test may spoil."""
    folder = tmp_path / "in"
    folder.mkdir()
    return [Path(shutil.copy(part, folder)) for part in sweep.parts]


def done_in(path):
    with h5py.File(path) as file:
        return file["status"][:] > 1


# -- Shards ------------------------------------------------------------------------------------------------------------


def test_shards_are_a_partition_and_merge_to_the_whole(either, tmp_path):
    out = tmp_path / "merged.h5"
    done = np.array([done_in(part) for part in either.parts])
    assert (done.sum(axis=0) == 1).all() and (done.sum(axis=1) > RUNS / SHARDS / 2).all()
    result = sgdmap("merge", "-o", out, *reversed(either.parts))
    assert result.returncode == 0, result.stderr
    assert f"{RUNS} of {RUNS} runs" in result.stdout and "shard 2/4" in result.stdout
    assert_same(either.whole, out)
    assert_nothing_else(tmp_path, "merged.h5")
    assert sgdmap("verify", out).returncode == 0
    with h5py.File(out) as file:
        lines = file.attrs["history"].decode().splitlines()
        assert "sgdmap merge" in lines[0] and len(lines) == 1 + SHARDS and "--shard 3/4" in lines[1]
    # It is a file like any other: nothing is left to do, and it goes on.
    result = sgdmap("run", either.config, "-o", out)
    assert result.returncode == 0 and f"all {RUNS} runs are done" in result.stderr


def test_a_shard_is_the_same_however_it_was_trained(sweep, tmp_path):
    for ranks in (1, 3):
        path = tmp_path / f"{ranks}.h5"
        assert sgdmap("run", sweep.config, "-o", path, "--shard", f"1/{SHARDS}", ranks=ranks).returncode == 0
        assert_same(sweep.parts[1], path, but=["attribute ranks"])


def test_ranks_that_are_given_many_groups_at_once_leave_out_those_of_others(tmp_path):
    config = tmp_path / "many.yaml"
    config.write_text("seed: 2\ngrid: {dimension: [2, 3], step_size: [0.1, 0.2], init_scale: 0, teacher_norm: 0.5, batch_size: 1,\n"
                      "  replicates: 500}\ntraining: {steps: 5, tolerance: 1.0e-3}\nrecords: {count: 2}\n")
    parts = [tmp_path / f"{i}.h5" for i in range(3)]
    for i, part in enumerate(parts):
        run = ("run", config, "-o", part, "--shard", f"{i}/3")
        assert sgdmap(*run, ranks=[None, 1, 3][i]).returncode == 0
        with h5py.File(part, "r+") as file:
            file["checksum"][::5] = 0
        assert sgdmap(*run, ranks=[None, 2, 1][i]).returncode == 0
        assert sgdmap("verify", part).returncode == 0, "no run of another shard is done"
    assert (np.array([done_in(part) for part in parts]).sum(axis=0) == 1).all()


def test_what_a_shards_file_says(sweep):
    for i, part in enumerate(sweep.parts):
        runs = int(done_in(part).sum())
        numbers = json.loads(sgdmap("status", part, "--json").stdout)
        assert numbers["shard"] == f"{i}/{SHARDS}" and numbers["fraction"] == 1
        assert numbers["runs"] == numbers["done"] == sum(numbers["outcomes"].values()) == runs
        text = sgdmap("status", part).stdout
        assert f"shard {i}/{SHARDS}" in text and f"{runs} of {runs} runs done" in text and "complete" in text
        assert ". pending" not in text
        result = sgdmap("verify", part)
        assert result.returncode == 0 and f"{runs} runs: {runs} done and sound, 0 not done, 0 damaged" in result.stdout
        with h5py.File(part) as file:
            assert file.attrs["shard"] == f"{i}/{SHARDS}".encode()
            elsewhere = file["status"][:] == 0
            assert (file["loss"][:][elsewhere] == 0).all(), "a hole"
            assert np.isnan(file["final_loss"][:][elsewhere]).all() and (file["steps_done"][:][elsewhere] == -1).all()
    assert json.loads(sgdmap("status", sweep.whole, "--json").stdout)["shard"] is None
    with h5py.File(sweep.whole) as file:
        assert "shard" not in file.attrs
    ours, other = (int(np.flatnonzero(done_in(sweep.parts[i]))[0]) for i in (2, 0))
    assert sgdmap("replay", sweep.parts[2], ours).returncode == 0
    refused(sgdmap("replay", sweep.parts[2], other), 2, "is not in it", f"shard 2/{SHARDS}")


def test_shards_take_the_space_of_their_runs(tmp_path):
    config = tmp_path / "wide.yaml"
    config.write_text(
        "seed: 1\ngrid: {dimension: 4, step_size: {log: [0.01, 0.1], count: 50}, init_scale: {linear: [0, 1], count: 80},\n"
        "  teacher_norm: 0.5, batch_size: 4}\ntraining: {steps: 100, tolerance: 0.1}\nrecords: {count: 100}\n"
    )
    part = tmp_path / "part.h5"
    assert sgdmap("run", config, "-o", part, "--shard", "3/10").returncode == 0
    at = part.stat()
    if at.st_blocks * 512 >= at.st_size:
        pytest.skip("this file system has no holes")
    assert at.st_size > 25e6 and at.st_blocks * 512 < at.st_size / 5


def test_one_shard_of_one_is_the_whole(sweep, tmp_path):
    path = tmp_path / "one.h5"
    assert sgdmap("run", sweep.config, "-o", path, "--shard", "0/1").returncode == 0
    assert_same(sweep.whole, path)
    assert sgdmap("run", sweep.config, "-o", path).returncode == 0


def test_more_shards_than_groups(tmp_path):
    config = tmp_path / "few.yaml"
    config.write_text("seed: 1\ngrid: {dimension: [2, 3], step_size: 0.1, init_scale: 0, teacher_norm: 0.5, batch_size: 1}\n"
                      "training: {steps: 5, tolerance: 1.0e-3}\nrecords: {count: 2}\n")
    parts = [tmp_path / f"{i}.h5" for i in range(5)]
    runs = []
    for i, part in enumerate(parts):
        assert sgdmap("run", config, "-o", part, "--shard", f"{i}/5", ranks=[None, 2][i % 2]).returncode == 0
        assert sgdmap("run", config, "-o", part, "--shard", f"{i}/5").returncode == 0
        numbers = json.loads(sgdmap("status", part, "--json").stdout)
        assert numbers["fraction"] == 1 and sgdmap("verify", part).returncode == 0
        assert "complete" in sgdmap("status", part).stdout and "nan" not in sgdmap("status", part).stdout
        runs.append(numbers["done"])
    assert sorted(runs) == [0, 0, 0, 1, 1]
    assert sgdmap("merge", "-o", tmp_path / "all.h5", *parts).returncode == 0
    assert sgdmap("run", config, "-o", tmp_path / "whole.h5").returncode == 0
    assert_same(tmp_path / "whole.h5", tmp_path / "all.h5")


def test_another_shard_is_refused(sweep, parts, tmp_path):
    before = [part.read_bytes() for part in parts]
    run = ("run", sweep.config, "-o", parts[1])
    refused(sgdmap(*run, "--shard", "2/4", ranks=2), 2, parts[1], "shard 1/4", "2/4")
    refused(sgdmap(*run, "--shard", "1/5"), 2, parts[1], "shard 1/4", "1/5")
    refused(sgdmap(*run), 2, parts[1], "--shard 1/4", "sgdmap merge")
    refused(sgdmap(*run, "--shard", "1/4", "--set", "seed=9"), 2, "seed")
    assert [part.read_bytes() for part in parts] == before
    whole = shutil.copy(sweep.whole, tmp_path / "whole.h5")
    refused(sgdmap("run", sweep.config, "-o", whole, "--shard", "1/4"), 2, "whole sweep", "1/4")
    # Begun anew on demand, and then it is the other one.
    assert sgdmap(*run, "--shard", "2/4", "--overwrite").returncode == 0
    assert_same(parts[1], sweep.parts[2], but=["attribute ranks"])


@pytest.mark.parametrize("shard", ["", "1", "4/4", "-1/4", "1/0", "0/0", "1/4 ", " 1/4", "1/4/2", "+1/4", "a/b", "1/", "/4", "0x1/4",
                                   "0/1000001", "1/99999999999999999999", "99999999999999999999/4"])
def test_wrong_shards(sweep, tmp_path, shard):
    refused(sgdmap("run", sweep.config, "-o", tmp_path / "x.h5", f"--shard={shard}"), 2, f"--shard {shard}", "from 0 to N - 1")
    assert_nothing_else(tmp_path)


def test_a_shard_that_is_interrupted_goes_on(sweep, tmp_path):
    """Where the job was stopped, and whether by a signal or by kill -9, cannot be seen in the end."""
    slow = ("run", sweep.config, "--set", "training.steps=20000", "--set", "checkpoint.interval=0.1", "--shard", "1/4")
    whole, part = tmp_path / "whole.h5", tmp_path / "part.h5"
    assert sgdmap(*slow, "-o", whole).returncode == 0
    for how in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(command(*slow, "-o", part), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        seen = int(done_in(part).sum()) if part.exists() else 0
        while process.poll() is None and time.monotonic() < deadline and not (part.exists() and done_in(part).sum() > seen):
            time.sleep(0.005)
        process.send_signal(how)
        status = process.wait(timeout=60)
        assert status in ((75, 0) if how == signal.SIGTERM else (-9, 0))
        assert sgdmap("verify", part).returncode == 0
    assert sgdmap(*slow, "-o", part, ranks=2).returncode == 0
    assert_same(whole, part, but=["attribute ranks"])
    assert_nothing_else(tmp_path, "whole.h5", "part.h5")


def set_shard(path, text):
    with h5py.File(path, "r+") as file:
        del file.attrs["shard"]
        file.attrs["shard"] = np.bytes_(text)


def test_a_damaged_shard_attribute(parts):
    set_shard(parts[0], "1/4")
    refused(sgdmap("verify", parts[0]), 74, "attribute shard is damaged")
    for text in ("4/4", "one", ""):
        set_shard(parts[1], text or " ")
        refused(sgdmap("verify", parts[1]), 74, "its attribute shard is")
        refused(sgdmap("status", parts[1]), 74, "its attribute shard is")
    with h5py.File(parts[1], "r+") as file:
        file.attrs["shard"] = 3
    refused(sgdmap("verify", parts[1]), 74, "its attribute shard is no text")


# -- Merging -----------------------------------------------------------------------------------------------------------


def test_missing_shards_are_named_and_can_be_trained(sweep, tmp_path):
    out = tmp_path / "merged.h5"
    result = sgdmap("merge", "-o", out, sweep.parts[3], sweep.parts[1])
    there = done_in(sweep.parts[3]) | done_in(sweep.parts[1])
    assert result.returncode == 75 and not result.stderr
    assert f"{there.sum()} of {RUNS} runs" in result.stdout and "no file was given of shard 0/4, 2/4" in result.stdout
    named = np.zeros(RUNS, bool)
    for line in result.stdout.splitlines():
        if line.startswith("  still to do: "):
            words = line.split()
            named[int(words[4]) : int(words[-1]) + 1] = True
    assert (named == ~there).all()
    assert (done_in(out) == there).all() and sgdmap("verify", out).returncode == 0
    with h5py.File(out) as file:
        assert np.isnan(file["loss"][:][~there]).all() and "shard" not in file.attrs, "no holes, and no shard"
    result = sgdmap("run", sweep.config, "-o", out, ranks=2)
    assert result.returncode == 0 and f"{(~there).sum()} runs trained" in result.stdout
    assert_same(sweep.whole, out, but=["attribute ranks"])


def test_files_of_any_kind_together(sweep, parts, tmp_path):
    """Shards of another number, the whole, a file that was not finished, one file twice."""
    third = tmp_path / "third.h5"
    assert sgdmap("run", sweep.config, "-o", third, "--shard", "2/3").returncode == 0
    with h5py.File(parts[0], "r+") as file:
        half = np.flatnonzero(file["status"][:] > 1)[::2]
        file["checksum"][half] = 0
    out = tmp_path / "merged.h5"
    result = sgdmap("merge", "-o", out, third, parts[0], parts[0], parts[2])
    there = done_in(third) | done_in(parts[2]) | done_in(parts[0])
    there[half] = (done_in(third) | done_in(parts[2]))[half]
    assert result.returncode == 75 and "no file was given" not in result.stdout
    assert (done_in(out) == there).all()
    result = sgdmap("merge", "-o", out, sweep.whole, out.parent / "third.h5", "--overwrite")
    assert result.returncode == 0
    assert_same(sweep.whole, out)


def test_damaged_runs_are_left_out_and_named(sweep, parts, tmp_path):
    done = np.flatnonzero(done_in(parts[1]))
    hit = [int(run) for run in (done[0], done[5], done[6])]
    with h5py.File(parts[1], "r+") as file:
        file["loss"][hit[0], 2] += 1
        file["checksum"][hit[1]] += 1
        file["step_size"][hit[2]] = 7
    out = tmp_path / "merged.h5"
    result = sgdmap("merge", "-o", out, *parts)
    assert result.returncode == 75 and "3 damaged" in result.stdout
    assert f"{parts[1]}: run {hit[0]}: damaged, left out" in result.stderr
    assert f"{parts[1]}: runs {hit[1]} to {hit[2]}: damaged, left out" in result.stderr
    assert np.flatnonzero(~done_in(out)).tolist() == hit
    assert sgdmap("run", sweep.config, "-o", out).returncode == 0
    assert_same(sweep.whole, out)
    # Another file has them: nothing is missing.
    result = sgdmap("merge", "-o", out, "--overwrite", *parts, sweep.parts[1])
    assert result.returncode == 0 and "damaged, left out" in result.stderr
    assert_same(sweep.whole, out)


def write_run(sweep, path, run):
    """Makes `run` of the file one with other results and a right checksum: by a sweep of another config under its name."""
    other = path.with_name("other.h5")
    assert sgdmap("run", sweep.config, "-o", other, "--set", "seed=5").returncode == 0
    with h5py.File(other) as source, h5py.File(path, "r+") as file:
        rows = [name for name in source if isinstance(source[name], h5py.Dataset) and source[name].shape[0] == RUNS]
        for name in rows:
            file[name][run] = source[name][run]
        dimension = source["dimension"][run]
        at = run - source[f"weights_d{dimension}/run"][0]
        for name in ("student", "teacher"):
            file[f"weights_d{dimension}/{name}"][at] = source[f"weights_d{dimension}/{name}"][at]
    other.unlink()


def test_conflicting_results_are_an_error(sweep, parts, tmp_path):
    run = int(np.flatnonzero(done_in(parts[3]))[7])
    copy = Path(shutil.copy(parts[3], tmp_path / "copy.h5"))
    write_run(sweep, copy, run)
    assert sgdmap("verify", copy).returncode == 0
    before = sorted(p.name for p in tmp_path.iterdir())
    refused(sgdmap("merge", "-o", tmp_path / "merged.h5", *parts, copy), 74, f"run {run} ", copy, parts[3], "replay")
    assert_nothing_else(tmp_path, *before)
    assert sgdmap("replay", parts[3], run).returncode == 0 and sgdmap("replay", copy, run).returncode == 1


def test_a_failed_run_gives_way(sweep, tmp_path):
    """A run that did not fit into memory on one machine was trained on another."""
    failing, out = tmp_path / "failed.h5", tmp_path / "merged.h5"
    config = tmp_path / "large.yaml"
    config.write_text("seed: 1\ngrid: {dimension: [2, 1500], step_size: 1.0e-3, init_scale: 1, teacher_norm: 0.5, batch_size: 1}\n"
                      "training: {steps: 1, tolerance: 1.0e-3}\nrecords: {count: 2}\noutput: {fields: [error]}\n")
    good = tmp_path / "good.h5"
    assert sgdmap("run", config, "-o", good).returncode == 0
    # All of the address space that the program takes without the large run, and a little more.
    for room in range(200, 4000, 50):
        result = subprocess.run(["bash", "-c", f"ulimit -v {room * 1024}; exec \"$@\"", "bash",
                                 *command("run", config, "-o", failing, "--overwrite")], capture_output=True, text=True)
        if result.returncode in (0, 1):
            break
    if result.returncode != 1:
        pytest.skip("no amount of memory is enough for the small run alone")
    result = sgdmap("merge", "-o", out, failing)
    assert result.returncode == 1 and "failed" in result.stdout
    for order in ((failing, good), (good, failing)):
        assert sgdmap("merge", "-o", out, "--overwrite", *order).returncode == 0
        assert_same(good, out)


def test_what_is_not_merged(sweep, parts, tmp_path):
    out = tmp_path / "merged.h5"
    text, foreign = tmp_path / "notes.txt", tmp_path / "foreign.h5"
    text.write_text("dear diary")
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    other = tmp_path / "other.h5"
    assert sgdmap("run", sweep.config, "-o", other, "--set", "training.steps=10", "--set", "seed=8").returncode == 0
    cut = tmp_path / "cut.h5"
    cut.write_bytes(parts[0].read_bytes()[:100000])
    names = sorted(p.name for p in tmp_path.iterdir())
    before = {p: p.read_bytes() for p in (*parts, text, foreign, other)}
    for arguments, status, texts in [
        (("-o", out), 2, ["no FILE"]),
        ((*parts,), 2, ["-o OUT"]),
        (("-o", out, "-o", out, *parts), 2, ["twice"]),
        (("-o", "", *parts), 2, ["-o OUT"]),
        ((*parts, "-o"), 2, ["wants a value"]),
        (("-o", out, "--fast", *parts), 2, ["--fast", "unknown option"]),
        (("-o", out, "-x", *parts), 2, ["-x", "unknown option"]),
        (("-o", out, *parts, other), 2, [other, parts[0], "training.steps", "seed"]),
        (("-o", out, parts[0], text), 74, [text, "not an sgdmap result file"]),
        (("-o", out, parts[0], foreign), 74, [foreign, "not an sgdmap result file"]),
        (("-o", out, cut, parts[0]), 74, [cut, "not an sgdmap result file"]),
        (("-o", out, parts[0], tmp_path / "none.h5"), 74, ["none.h5", "No such file"]),
        (("-o", parts[1], "--overwrite", *parts), 2, [parts[1], "another file"]),
        (("-o", parts[3], *parts[:3]), 2, [parts[3], "exists", "--overwrite"]),
        (("-o", text, "--overwrite", *parts), 2, [text, "not a result file"]),
        (("-o", foreign, "--overwrite", *parts), 2, [foreign, "not a result file"]),
        (("-o", tmp_path / "none" / "out.h5", *parts), 74, ["No such file"]),
        (("-o", tmp_path, *parts), 2, [tmp_path, "not a result file"]),
    ]:
        refused(sgdmap("merge", *arguments), status, *texts)
        assert_nothing_else(tmp_path, *names)
    assert {p: p.read_bytes() for p in before} == before
    link = tmp_path / "link.h5"
    link.symlink_to(parts[1])
    refused(sgdmap("merge", "-o", link, "--overwrite", *parts), 2, parts[1], "another file")


def test_other_kernels_are_not_mixed_in(sweep, parts, tmp_path):
    with h5py.File(parts[2], "r+") as file:
        del file.attrs["blis_kernels"]
        file.attrs["blis_kernels"] = np.bytes_("elsewhere")
    out = tmp_path / "merged.h5"
    refused(sgdmap("merge", "-o", out, *parts), 2, parts[2], "elsewhere", "--any-kernels")
    assert sgdmap("merge", "-o", out, "--any-kernels", *parts).returncode == 0
    assert_same(sweep.whole, out)


class Job:
    """Holds the lock of a file as a job on another node does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.lock = open(f"{self.path}.lock", "w+")
        self.lock.write("process 11 on host n3, SLURM job 4711, since 2026-01-01T00:00:00Z")
        self.lock.flush()
        fcntl.fcntl(self.lock, 37, struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))  # F_OFD_SETLK

    def __exit__(self, *_: object) -> None:
        self.lock.close()


def test_files_that_a_job_writes_are_left_alone(sweep, parts, tmp_path):
    out = tmp_path / "merged.h5"
    owner = "process 11 on host n3, SLURM job 4711, since 2026"
    with Job(parts[2]):
        refused(sgdmap("merge", "-o", out, *parts), 2, parts[2], "a job is writing it", owner)
        assert_nothing_else(tmp_path, "in")
    assert sgdmap("merge", "-o", out, *parts).returncode == 0, "the lock of a job that died is none"
    before = out.read_bytes()
    with Job(out):
        refused(sgdmap("merge", "-o", out, "--overwrite", *parts), 2, out, owner)
    assert out.read_bytes() == before
    # An input on a medium that cannot be written.
    (tmp_path / "in").chmod(0o555)
    try:
        assert sgdmap("merge", "-o", out, "--overwrite", *parts).returncode == 0
    finally:
        (tmp_path / "in").chmod(0o755)
    assert not list((tmp_path / "in").glob("part*.h5.*.lock"))


def test_two_jobs_on_one_shard_name_the_owner(sweep, parts):
    with Job(parts[0]):
        result = sgdmap("run", sweep.config, "-o", parts[0], "--shard", "0/4")
    assert result.returncode == 2 and "another job is writing it: process 11 on host n3, SLURM job 4711" in result.stderr


def places(arguments, trace):
    trace.unlink(missing_ok=True)
    assert sgdmap(*arguments, program=WITH_FAULTS, environment={"SGDMAP_FAULT_TRACE": str(trace)}).returncode == 0
    return len(trace.read_text().splitlines())


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_a_merge_that_dies_leaves_no_half_file(sweep, tmp_path, how):
    """At a sample of all its steps. With OUT there before, it is the old or the new one."""
    out = tmp_path / "merged.h5"
    arguments = ("merge", "-o", out, "--overwrite", *sweep.parts)
    count = places(arguments, tmp_path / "trace")
    assert count > 100
    out.unlink()
    (tmp_path / "trace").unlink()
    old = tmp_path / "old.h5"
    assert sgdmap("merge", "-o", old, sweep.parts[0]).returncode == 75
    for i, place in enumerate([*range(1, count, count // 8), count - 1, count]):
        shutil.copy(old, out) if i % 2 else out.unlink(missing_ok=True)
        result = sgdmap(*arguments, program=WITH_FAULTS, environment={"SGDMAP_FAULT": f"{how} {place}"})
        assert result.returncode == (-9 if how == "kill" else 74), result.stderr
        if out.exists():
            assert sgdmap("verify", out).returncode == 0
            if i % 2 and out.read_bytes() != old.read_bytes():
                assert_same(sweep.whole, out)
        if how == "fail":
            assert_nothing_else(tmp_path, "old.h5", *(["merged.h5"] if out.exists() else []))
    result = sgdmap(*arguments)
    assert result.returncode == 0
    assert_same(sweep.whole, out)
    assert_nothing_else(tmp_path, "old.h5", "merged.h5")


def test_a_signal_ends_a_merge_and_nothing_is_made(sweep, tmp_path):
    """In the middle of making the file, of copying, and of a block."""
    arguments = ("merge", "-o", tmp_path / "merged.h5", *sweep.parts)
    for name, place, nth in (("TERM", "create: reserved", 1), ("INT", "merge: to be copied", 3), ("USR1", "loss", 12)):
        result = sgdmap(*arguments, program=WITH_FAULTS, environment={"SGDMAP_FAULT": f"{name} {nth}", "SGDMAP_FAULT_PLACE": place})
        assert result.returncode == 75 and "interrupted" in result.stderr, result.stderr
        assert_nothing_else(tmp_path)
    assert sgdmap(*arguments, program=WITH_FAULTS).returncode == 0


def test_help():
    result = sgdmap("merge", "-h")
    assert result.returncode == 0 and result.stdout.startswith("usage: sgdmap merge")
    assert "merge" in sgdmap("--help").stdout and "--shard I/N" in sgdmap("run", "-h").stdout
