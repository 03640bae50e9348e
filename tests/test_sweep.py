"""The program as a user runs it: sweeps at several numbers of ranks, going on, refusals, exit statuses."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from results import assert_same, contents

PROGRAM = os.environ["SGDMAP"]
JOBS = Path(__file__).resolve().parent.parent / "jobs"

SMALL = """\
title: a small sweep
seed: 3
grid:
  dimension: [4, 11]
  step_size: {log: [1.0e-3, 3.0], count: 9}
  init_scale: [0, 1]
  teacher_norm: [0.5, 1.0]
  link: [identity, none]
  batch_size: [1, 20]
  replicates: 2
training:
  steps: 300
  tolerance: 1.0e-2
records: {count: 12}
output: {weights: final}
"""


def sgdmap(*arguments, ranks=None, timeout=120, environment=None):
    """Runs the program, with more in its environment, not in that of mpirun."""
    command = [PROGRAM, *map(str, arguments)]
    added = dict(environment or {})
    if arguments and arguments[0] != "run":  # no MPI: nothing but us can leak
        added["ASAN_OPTIONS"] = "detect_leaks=1"
    if ranks is not None:
        pairs = [word for name, value in added.items() for word in ("-x", f"{name}={value}")]
        command, added = ["mpirun", "--oversubscribe", "-n", str(ranks), *pairs, *command], {}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **added})


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The small sweep by one process without mpirun."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "small.yaml").write_text(SMALL)
    result = sgdmap("run", folder / "small.yaml", "-o", folder / "one.h5")
    assert result.returncode == 0, result.stderr
    return folder / "one.h5"


# -- The sweep ---------------------------------------------------------------------------------------------------------


def test_every_run_is_trained_and_sound(reference):
    with h5py.File(reference) as file:
        status = file["status"][:]
        assert len(status) == 2 * 9 * 2 * 2 * 2 * 2 * 2
        assert set(status) >= {2, 3} and set(status) <= {2, 3, 4, 5}
        assert np.isfinite(file["error"][:, 0]).all()
    result = sgdmap("verify", reference)
    assert result.returncode == 0 and "576 done and sound, 0 not done, 0 damaged" in result.stdout


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_same_bits_at_any_number_of_ranks(reference, config, tmp_path, ranks):
    path = tmp_path / "ranks.h5"
    result = sgdmap("run", config, "-o", path, ranks=ranks)
    assert result.returncode == 0, result.stderr
    assert_same(reference, path)
    assert not list(tmp_path.glob("*.lock")) and not list(tmp_path.glob(".*")), "nothing is left behind"


def test_more_ranks_than_groups(tmp_path):
    (tmp_path / "one.yaml").write_text(SMALL.replace("[4, 11]", "3").replace("[1, 20]", "20").replace("replicates: 2", "replicates: 1"))
    for ranks, name in ((None, "a.h5"), (5, "b.h5")):
        result = sgdmap("run", tmp_path / "one.yaml", "-o", tmp_path / name, ranks=ranks)
        assert result.returncode == 0, result.stderr
    assert_same(tmp_path / "a.h5", tmp_path / "b.h5")


def test_one_run_only(tmp_path):
    (tmp_path / "one.yaml").write_text(
        "seed: 1\ngrid: {dimension: 1, step_size: 0.1, init_scale: 0, teacher_norm: 0.5, batch_size: 1}\n"
        "training: {steps: 1, tolerance: 1.0e-3}\nrecords: {count: 2}\n"
    )
    result = sgdmap("run", tmp_path / "one.yaml", "-o", tmp_path / "one.h5")
    assert result.returncode == 0, result.stderr
    assert sgdmap("replay", tmp_path / "one.h5", 0).returncode == 0
    assert sgdmap("status", tmp_path / "one.h5").returncode == 0


KINDS = {
    "samples": """\
seed: 3
grid: {dimension: [3, 9], step_size: [0.003, 0.03], init_scale: [0, 1], teacher_norm: 0.5, batch_size: [1, 20],
       data: [online, 50], input: [gaussian, laplace], teacher: [gaussian, orthogonal, low_rank, diagonal],
       noise: [0, 0.2], schedule: [constant, inverse_time, cosine], replicates: 2}
training: {steps: 200, tolerance: 0.1, teacher_rank: 2, decay: 30, test_samples: 300}
records: {count: 8}
output: {weights: final}
""",
    "population": """\
seed: 3
grid: {dimension: [3, 9, 30], step_size: {log: [0.003, 3], count: 12}, init_scale: [0, 1], teacher_norm: 0.5, batch_size: 20,
       gradient: [population, minibatch], input: [student_t, gaussian], replicates: 2}
training: {steps: 200, tolerance: 1.0e-2}
records: {count: 8}
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_training(tmp_path, kind):
    """The same bits by ranks, shards and after a kill; settings as asked for; what a run is told on the command line."""
    (tmp_path / "kinds.yaml").write_text(KINDS[kind])
    one, path = tmp_path / "one.h5", tmp_path / "three.h5"
    assert sgdmap("run", tmp_path / "kinds.yaml", "-o", one).returncode == 0
    with h5py.File(one) as file:
        assert set(file["status"][:]) <= {2, 3, 4, 5} and 2 in file["status"][:]
        assert ("test_loss" in file) == (kind == "samples") == ("gradient" not in file)
        names = file["loss"].attrs["coordinates"].decode().split()
        settings = list(zip(*(file[name][:].tolist() for name in names)))
        assert len(set(settings)) == len(settings) == np.prod([len(set(file[name][:])) for name in names])
        if kind == "samples":
            assert names == ["dimension", "batch_size", "data", "input", "replicate", "teacher", "teacher_norm", "link", "noise", "schedule",
                             "step_size", "init_scale"]
            assert file["data"][0] == 0 and set(file["data"][:]) == {0, 50}
            assert file["teacher"].attrs["flag_meanings"] == b"gaussian orthogonal low_rank diagonal"
            assert np.isfinite(file["test_loss"][:, 0]).all()
        else:
            exact = file["gradient"][:] == 1
            pairs = file["loss"][:][exact], file["batch_loss"][:][exact]
            assert np.array_equal(*pairs, equal_nan=True) and exact.sum() == len(exact) / 2
        run = int(np.flatnonzero((file["dimension"][:] == 9) & (file["status"][:] != 3))[-1])
    result = sgdmap("replay", one, run)
    assert result.returncode == 0 and "the same bits" in result.stdout
    assert re.search("data 50.*teacher diagonal.*noise 0.2.*schedule cosine" if kind == "samples" else "gradient minibatch", result.stdout)

    process = subprocess.Popen([PROGRAM, "run", tmp_path / "kinds.yaml", "-o", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_runs(path, 10, process)
    process.kill()
    process.wait()
    assert sgdmap("run", tmp_path / "kinds.yaml", "-o", path, ranks=3).returncode == 0
    assert_same(one, path)
    for shard in range(3):
        assert sgdmap("run", tmp_path / "kinds.yaml", "-o", tmp_path / f"{shard}.h5", "--shard", f"{shard}/3").returncode == 0
    merged = sgdmap("merge", "-o", tmp_path / "merged.h5", *(tmp_path / f"{shard}.h5" for shard in range(3)))
    assert merged.returncode == 0, merged.stderr
    assert_same(one, tmp_path / "merged.h5")
    assert "0 damaged" in sgdmap("verify", tmp_path / "merged.h5").stdout
    between = "noise=0,0.2" if kind == "samples" else "gradient=minibatch,population"
    some = ["--where", "dimension==9 and input!='laplace' and batch_size==20 and " +
            ("teacher in ('gaussian', 'low_rank')" if kind == "samples" else "gradient=='population'")]
    for arguments in (["map", one, "-o", tmp_path / "map.png", *some], ["export", one, "-o", tmp_path / "runs.csv"],
                      ["compare", one, "--between", between, "--json"]):
        drawn = subprocess.run([JOBS.parent / "analysis" / "sgdmap-analysis", *arguments], capture_output=True, text=True, timeout=120)
        assert drawn.returncode == 0, drawn.stderr
    assert ("data" if kind == "samples" else "gradient") in (tmp_path / "runs.csv").read_text().splitlines()[0].split(",")
    text = sgdmap("status", one).stdout
    assert ("data online" in text and "schedule cosine" in text) if kind == "samples" else "gradient population" in text


def test_a_sweep_of_population_alone_has_no_batches(tmp_path):
    text = KINDS["population"].replace(" batch_size: 20,\n", "\n").replace("[population, minibatch]", "population")
    (tmp_path / "exact.yaml").write_text(text)
    assert sgdmap("run", tmp_path / "exact.yaml", "-o", tmp_path / "exact.h5").returncode == 0
    with h5py.File(tmp_path / "exact.h5") as file:
        assert not file["batch_size"][:].any() and (file["gradient"][:] == 1).all()
        assert np.isfinite(file["batch_loss"][:, 0]).all()
    assert "B =" not in sgdmap("status", tmp_path / "exact.h5").stdout


def test_weights_are_those_of_the_last_step(reference):
    with h5py.File(reference) as file:
        d, bound, runs = file["dimension"][:], file["teacher_norm"][:], np.arange(len(file["run"]))
        for dimension in (4, 11):
            group = file[f"weights_d{dimension}"]
            assert np.array_equal(group["run"][:], runs[d == dimension])
            student, teacher = group["student"][:], group["teacher"][:]
            np.testing.assert_allclose(np.linalg.norm(teacher, 2, axis=(1, 2)), bound[d == dimension], rtol=1e-12)
            link = np.where(file["link"][:][d == dimension] == 0, 1.0, 0.0)[:, None, None] * np.eye(dimension)
            error = np.linalg.norm(student + link - teacher - np.eye(dimension), axis=(1, 2)) / np.sqrt(dimension)
            expected = file["final_error"][:][d == dimension]
            finite = np.isfinite(expected)
            np.testing.assert_allclose(error[finite], expected[finite], rtol=1e-9)


def test_replay_gives_the_stored_bits_and_notices_others(reference, tmp_path):
    for run in (0, 17, 300, 575):
        result = sgdmap("replay", reference, run)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "the same bits in all" in result.stdout
    copy = tmp_path / "copy.h5"
    copy.write_bytes(reference.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["error"][17, 0] = np.nextafter(file["error"][17, 0], 1)
    result = sgdmap("replay", copy, 17)
    assert result.returncode == 1 and "error[0]" in result.stdout
    result = sgdmap("verify", copy)
    assert result.returncode == 74 and "run 17" in result.stdout and "1 runs are damaged" in result.stderr


# -- Going on ----------------------------------------------------------------------------------------------------------


def test_the_same_command_again_has_nothing_to_do(reference, config, tmp_path):
    path = tmp_path / "again.h5"
    path.write_bytes(reference.read_bytes())
    before = contents(path)
    result = sgdmap("run", config, "-o", path, ranks=2)
    assert result.returncode == 0 and "all 576 runs are done" in result.stderr
    after = contents(path)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    with h5py.File(path) as file:
        assert file.attrs["history"].count(b"sgdmap run") == 2 and file.attrs["ranks"] == 2


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_is_missing_or_damaged_is_trained_again(reference, config, tmp_path, ranks):
    path = tmp_path / "part.h5"
    path.write_bytes(reference.read_bytes())
    with h5py.File(path, "r+") as file:
        file["status"][5] = 0
        file["status"][100:110] = 1
        file["loss"][300, 3] += 1
        file["checksum"][400] += 1
        file["status"][401] = 6
    result = sgdmap("run", config, "-o", path, ranks=ranks)
    assert result.returncode == 0 and "14 runs trained" in result.stdout, result.stdout + result.stderr
    assert_same(reference, path)


def flip(path, dice, names, count):
    """Changes bytes of so many runs' rows; the runs."""
    hit = set()
    with h5py.File(path) as file:
        places = {name: (file[name].id.get_offset(), file[name].id.get_storage_size() // len(file[name])) for name in names}
        first = {name: file[name.rsplit("/", 1)[0]]["run"][0] if "/" in name else 0 for name in names}
        lengths = {name: len(file[name]) for name in names}
    with open(path, "r+b") as stream:
        while len(hit) < count:
            name = dice.choice(names)
            row = int(dice.integers(lengths[name]))
            if first[name] + row in hit:
                continue
            offset, size = places[name]
            at = offset + row * size + int(dice.integers(size))
            stream.seek(at)
            byte = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([byte ^ int(dice.integers(1, 256))]))
            hit.add(int(first[name] + row))
    return sorted(hit)


def damaged_runs(output):
    """The runs that verify names."""
    runs = []
    for line in output.splitlines():
        words = line.split()
        if line.endswith(": damaged"):
            runs += range(int(words[1].rstrip(":")), int(words[-2].rstrip(":")) + 1)
    return runs


COLUMNS = ["loss", "batch_loss", "error", "potential", "potential_norm", "alignment", "gradient_norm", "weight_norm", "status",
           "steps_done", "converged_step", "phase2_step", "final_error", "final_loss", "message", "checksum",
           "weights_d4/student", "weights_d4/teacher", "weights_d11/student", "weights_d11/teacher"]
SETTINGS = ["run", "dimension", "batch_size", "input", "replicate", "teacher_norm", "link", "step_size", "init_scale"]


@pytest.mark.parametrize("seed, count", [(1, 1), (2, 3), (3, 40), (4, 200)])
def test_flipped_bytes_are_named_and_trained_again(reference, config, tmp_path, seed, count):
    path = tmp_path / "flipped.h5"
    path.write_bytes(reference.read_bytes())
    hit = flip(path, np.random.default_rng(seed), COLUMNS, count)
    result = sgdmap("verify", path)
    assert result.returncode == 74 and damaged_runs(result.stdout) == hit
    result = sgdmap("run", config, "-o", path, ranks=1 + seed % 2)
    assert result.returncode == 0 and f"{count} runs trained" in result.stdout
    assert sgdmap("verify", path).returncode == 0
    assert_same(reference, path)


def test_what_the_config_knows_is_mended_without_training(reference, config, tmp_path):
    path = tmp_path / "flipped.h5"
    path.write_bytes(reference.read_bytes())
    hit = flip(path, np.random.default_rng(5), SETTINGS, 30)
    assert damaged_runs(sgdmap("verify", path).stdout) == hit
    with h5py.File(path, "r+") as file:
        file["step"][3] += 1
        file["weights_d4/run"][2] += 1
        file["weights_d11/neuron"][10] = 0
    assert "dataset step: entry 3" in sgdmap("verify", path).stdout
    result = sgdmap("run", config, "-o", path)
    assert result.returncode == 0 and "all 576 runs are done" in result.stderr
    assert sgdmap("verify", path).returncode == 0
    assert_same(reference, path)


def test_damaged_units_and_titles_are_found(reference, tmp_path):
    path = tmp_path / "attributes.h5"
    for name, attribute, value in (("wall_time", "units", b"h"), ("status", "flag_values", np.arange(1, 8, dtype="i1")),
                                   ("link", "flag_meanings", b"none identity"), ("loss", "_FillValue", np.zeros(1)),
                                   ("error", "coordinates", b"dimension"), ("/", "title", b"another")):
        path.write_bytes(reference.read_bytes())
        with h5py.File(path, "r+") as file:
            del file[name].attrs[attribute]
            file[name].attrs[attribute] = value
        result = sgdmap("verify", path)
        assert result.returncode == 74 and f"attribute {attribute} " in result.stderr, result.stderr


def wait_for_runs(path, count, process):
    """Until so many runs stand in the file, read while it is written."""
    for _ in range(3000):
        if path.exists():
            with h5py.File(path, "r") as file:
                if (file["status"][:] > 1).sum() >= count:
                    return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("the job wrote nothing")


LONG = SMALL.replace("steps: 300", "steps: 6000").replace("[4, 11]", "[4, 30]")


@pytest.mark.parametrize("who", ["rank", "job"])
def test_a_killed_job_goes_on(tmp_path, who):
    config = tmp_path / "long.yaml"
    config.write_text(LONG)
    path, whole = tmp_path / "killed.h5", tmp_path / "whole.h5"
    process = subprocess.Popen(
        ["mpirun", "--oversubscribe", "-n", "2", PROGRAM, "run", str(config), "-o", str(path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )
    wait_for_runs(path, 10, process)
    ranks = subprocess.run(["pgrep", "-f", f"{PROGRAM} run {config}"], capture_output=True, text=True).stdout.split()
    victims = [int(pid) for pid in ranks if int(pid) != process.pid]
    assert len(victims) == 2
    for victim in victims[1:] if who == "rank" else victims + [process.pid]:
        os.kill(victim, signal.SIGKILL)
    process.wait(timeout=60)
    status = sgdmap("status", path, "--json")
    assert status.returncode == 0 and 10 <= json.loads(status.stdout)["done"] < 576
    assert sgdmap("verify", path).returncode == 0
    result = sgdmap("run", config, "-o", path, ranks=3)
    assert result.returncode == 0, result.stderr
    assert sgdmap("run", config, "-o", whole, ranks=2).returncode == 0
    assert_same(whole, path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_ends_the_job_with_75_and_it_goes_on(tmp_path, name):
    config = tmp_path / "long.yaml"
    config.write_text(LONG)
    path = tmp_path / "signal.h5"
    process = subprocess.Popen(
        ["mpirun", "--oversubscribe", "-n", "2", PROGRAM, "run", str(config), "-o", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    wait_for_runs(path, 10, process)
    ranks = subprocess.run(["pgrep", "-f", f"{PROGRAM} run {config}"], capture_output=True, text=True).stdout.split()
    os.kill([int(pid) for pid in ranks if int(pid) != process.pid][-1], getattr(signal, name))
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75 and "interrupted" in stderr
    assert sgdmap("verify", path).returncode == 0
    assert not path.with_name(path.name + ".lock").exists()


def test_another_config_is_refused_with_the_differences(reference, config, tmp_path):
    path = tmp_path / "file.h5"
    path.write_bytes(reference.read_bytes())
    before = path.read_bytes()
    result = sgdmap("run", config, "-o", path, "--set", "training.steps=400", "--set", "seed=4", ranks=2)
    assert result.returncode == 2
    for text in ("training.steps", "300", "400", "seed", "--overwrite", str(path)):
        assert text in result.stderr, result.stderr
    assert path.read_bytes() == before
    # What does not change a result may differ.
    result = sgdmap("run", config, "-o", path, "--set", "title=another", "--set", "checkpoint.interval=5")
    assert result.returncode == 0, result.stderr
    # Begun anew on demand.
    result = sgdmap("run", config, "-o", path, "--set", "training.steps=100", "--overwrite", ranks=2)
    assert result.returncode == 0, result.stderr
    with h5py.File(path) as file:
        assert file["step"][-1] == 100 and b"training.steps=100" in file.attrs["config_overrides"]
    # A file knows its overrides.
    assert sgdmap("replay", path, 3).returncode == 0
    assert sgdmap("run", config, "-o", path, "--set", "training.steps=100").returncode == 0


def test_alignment_and_hints_change_no_result(reference, config, tmp_path):
    path = tmp_path / "aligned.h5"
    aligned = ("--set", "file.alignment=65536", "--set", "file.threshold=65536", "--set", "file.hints=[romio_ds_write=disable, nothing=1]")
    result = sgdmap("run", config, "-o", path, *aligned, ranks=2)
    assert result.returncode == 0, result.stderr
    assert_same(reference, path)
    with h5py.File(path) as file:
        assert file["weights_d11/student"].id.get_offset() % 65536 == 0
    # Going on without them, and with them where the file has none: the layout is that of its beginning.
    assert "all 576 runs are done" in sgdmap("run", config, "-o", path).stderr
    other = tmp_path / "other.h5"
    other.write_bytes(reference.read_bytes())
    with h5py.File(other, "r+") as file:
        file["status"][5:9] = 0
    assert sgdmap("run", config, "-o", other, *aligned).returncode == 0
    assert_same(reference, other)
    with h5py.File(other) as file, h5py.File(reference) as before:
        assert file["weights_d11/student"].id.get_offset() == before["weights_d11/student"].id.get_offset()


@pytest.mark.parametrize("ranks, failing", [(None, 0), (3, 0), (3, 1)])
@pytest.mark.parametrize("after", [0, 3, 40])
def test_a_rank_that_cannot_write_ends_the_job_with_74(reference, config, tmp_path, ranks, failing, after):
    """Writes fail on one rank as on a full disk, at once or later. No rank hangs, and with room the sweep is completed."""
    path = tmp_path / "full.h5"
    assert sgdmap("run", config, "-o", path, "--set", "training.steps=300").returncode == 0
    with h5py.File(path, "r+") as file:
        file["status"][:] = 0
    preload = os.environ["SGDMAP_FAIL_WRITES"]
    asan = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout
    first = [line.split()[2] for line in asan.splitlines() if "libasan" in line]  # it insists on being the first
    environment = {
        "LD_PRELOAD": ":".join([*first, preload]), "FAIL_RANK": str(failing), "FAIL_AFTER": str(after),
        "FAIL_SUFFIX": "full.h5",
    }
    result = sgdmap("run", config, "-o", path, ranks=ranks, environment=environment, timeout=60)
    assert result.returncode == 74, result.stdout + result.stderr
    assert "full.h5" in result.stderr and not path.with_name("full.h5.lock").exists()
    assert sgdmap("run", config, "-o", path, ranks=2).returncode == 0
    assert_same(reference, path)


def kernels_in(path):
    with h5py.File(path) as file:
        return file.attrs["blis_kernels"].decode()


def test_other_kernels_are_not_mixed_in(reference, config, tmp_path):
    path = tmp_path / "kernels.h5"
    other = {"BLIS_ARCH_TYPE": "25"}  # BLIS 0.9's number of "generic"
    assert sgdmap("run", config, "-o", path, environment=other).returncode == 0
    if kernels_in(path) == kernels_in(reference):
        pytest.skip("this CPU has one family of kernels")
    refused(sgdmap("run", config, "-o", path, ranks=2), 2, kernels_in(path), kernels_in(reference), "--any-kernels")
    assert sgdmap("run", config, "-o", path, "--any-kernels").returncode == 0
    # What is no family is not handed on to BLIS, which would abort.
    for wrong in ("99", "skx", ""):
        result = sgdmap("run", config, "-o", tmp_path / "wrong.h5", "--overwrite", environment={"BLIS_ARCH_TYPE": wrong})
        assert result.returncode == 0 and kernels_in(tmp_path / "wrong.h5") == kernels_in(reference)


def test_ranks_with_different_kernels_are_refused(config, tmp_path):
    command = ["mpirun", "--oversubscribe", "-n", "1", PROGRAM, "run", str(config), "-o", str(tmp_path / "x.h5"), ":",
               "-n", "1", "-x", "BLIS_ARCH_TYPE=25", PROGRAM, "run", str(config), "-o", str(tmp_path / "x.h5")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if result.returncode == 0:
        pytest.skip("this CPU has one family of kernels")
    refused(result, 2, "rank 1", "generic")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.yaml"]


def test_a_damaged_setting_is_mended(reference, config, tmp_path):
    path = tmp_path / "damaged.h5"
    path.write_bytes(reference.read_bytes())
    with h5py.File(path, "r+") as file:
        file["step_size"][11] = 0.5
        file["link"][12] = 1 - file["link"][12]
    result = sgdmap("verify", path)
    assert result.returncode == 74 and damaged_runs(result.stdout) == [11, 12]
    assert sgdmap("run", config, "-o", path).returncode == 0
    assert sgdmap("verify", path).returncode == 0
    assert_same(reference, path)


def test_names_that_mpi_io_would_read_otherwise(config, tmp_path):
    for name in ("-", "ufs:x.h5", "two words.h5", "ümlaut.h5"):
        result = subprocess.run([PROGRAM, "run", "small.yaml", "-o", name], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / name).exists()


def test_output_that_cannot_be_written(config, reference):
    for arguments in (("plan", config), ("status", reference), ("verify", reference), ("status", "--json", reference)):
        with open("/dev/full", "w") as full:
            result = subprocess.run([PROGRAM, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, text=True)
        assert result.returncode == 74 and "standard output" in result.stderr


def test_two_jobs_on_one_file(reference, config, tmp_path):
    path = tmp_path / "shared.h5"
    path.write_bytes(reference.read_bytes())
    lock = open(f"{path}.lock", "w+")
    lock.write("process 1 on host elsewhere")
    lock.flush()
    whole = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    fcntl.fcntl(lock, 37, whole)  # F_OFD_SETLK
    status = sgdmap("status", path, "--json")
    assert json.loads(status.stdout)["running"] is True
    result = sgdmap("run", config, "-o", path, ranks=2)
    assert result.returncode == 2 and "another job is writing it: process 1 on host elsewhere" in result.stderr
    lock.close()  # as the kernel does for a killed job: the file stays, the lock does not
    assert sgdmap("run", config, "-o", path).returncode == 0
    assert json.loads(sgdmap("status", path, "--json").stdout)["running"] is False


# -- Refusals: one message, the right status, nothing written -----------------------------------------------------------


def refused(result, status, *texts):
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("sgdmap")]
    assert len(lines) == 1, result.stderr
    for text in texts:
        assert text in result.stderr, result.stderr


@pytest.mark.parametrize("ranks", [None, 3])
def test_bad_configs(tmp_path, ranks):
    path = tmp_path / "out.h5"
    config = tmp_path / "bad.yaml"
    for old, new, texts in [
        ("dimension: [4, 11]", "dimension: 0", ["bad.yaml:4", "grid.dimension", "0", "[1, 4096]"]),
        ("step_size:", "step_siz:", ["bad.yaml:5", "grid.step_siz", "step_size"]),
        ("steps: 300", "steps: many", ["bad.yaml:12", "training.steps", "many"]),
        ("seed: 3\n", "", ["seed", "missing"]),
    ]:
        config.write_text(SMALL.replace(old, new))
        refused(sgdmap("run", config, "-o", path, ranks=ranks), 2, *texts)
    config.write_text(SMALL.replace("dimension: [4, 11]", "dimension: {linear: [1, 4096], count: 4096}").replace("count: 9", "count: 1000000").replace("replicates: 2", "replicates: 1000000"))
    refused(sgdmap("run", config, "-o", path, ranks=ranks), 2, "runs")
    refused(sgdmap("run", tmp_path / "none.yaml", "-o", path, ranks=ranks), 74, "none.yaml", "No such file")
    refused(sgdmap("run", tmp_path, "-o", path, ranks=ranks), 74, str(tmp_path), "irectory")
    config.write_text(SMALL)
    refused(sgdmap("run", config, "-o", path, "--set", "grid.step_size=abc", ranks=ranks), 2, "--set grid.step_size=abc")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.yaml"], "nothing is written"


@pytest.mark.parametrize("ranks", [None, 2])
def test_bad_outputs(config, tmp_path, ranks):
    missing = tmp_path / "missing" / "out.h5"
    refused(sgdmap("run", config, "-o", missing, ranks=ranks), 74, str(missing), "No such file")
    refused(sgdmap("run", config, "-o", tmp_path, ranks=ranks), 2, str(tmp_path), "not a result file of sgdmap")
    text = tmp_path / "notes.txt"
    text.write_text("dear diary")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    before = foreign.read_bytes()
    for extra in ((), ("--overwrite",)):
        refused(sgdmap("run", config, "-o", text, *extra, ranks=ranks), 2, str(text), "not a result file of sgdmap")
        refused(sgdmap("run", config, "-o", foreign, *extra, ranks=ranks), 2, str(foreign), "not a result file of sgdmap")
    assert text.read_text() == "dear diary" and foreign.read_bytes() == before
    refused(sgdmap("run", config, "-o", text / "out.h5", ranks=ranks), 74, "Not a directory")
    config.write_text(SMALL.replace("count: 9", "count: 1000000").replace("replicates: 2", "replicates: 1000000"))
    refused(sgdmap("run", config, "-o", tmp_path / "huge.h5", ranks=ranks), 74, "huge.h5", "free")
    assert not (tmp_path / "huge.h5").exists()


def test_wrong_arguments(config, tmp_path):
    refused(sgdmap("run", config), 2, "-o FILE")
    refused(sgdmap("run", "-o", tmp_path / "x.h5"), 2, "CONFIG is missing")
    refused(sgdmap("run", config, config, "-o", tmp_path / "x.h5"), 2, "one CONFIG")
    refused(sgdmap("run", config, "-o", tmp_path / "x.h5", "--fast"), 2, "--fast")
    refused(sgdmap("run", config, "-o", tmp_path / "x.h5", "--overwrit"), 2, "--overwrit", "unknown option")
    assert sgdmap("run", config, "-o", tmp_path / "y.h5", "--set", "title=--json").returncode == 0
    refused(sgdmap("sweep"), 2, "sweep", "unknown command")
    assert sgdmap().returncode == 2
    for arguments in (("plan",), ("plan", config, "--ranks", "0"), ("status",), ("verify", config, config), ("replay", config),
                      ("status", "--colour", config)):
        assert sgdmap(*arguments).returncode == 2, arguments
    for command in ("status", "verify"):
        refused(sgdmap(command, config), 74, "not an sgdmap result file")
        refused(sgdmap(command, tmp_path / "none.h5"), 74, "No such file")
    refused(sgdmap("replay", config, 0), 74, "not an sgdmap result file")


def test_replay_wants_a_run_that_is_there(reference):
    for run in ("576", "-1", "x", "", "1e2"):
        result = sgdmap("replay", reference, "--", run)
        assert result.returncode == 2 and "[0, 575]" in result.stderr


# -- Help, plan, status ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "run", "status", "verify", "replay"])
def test_help(command):
    result = sgdmap(command, "-h")
    assert result.returncode == 0 and result.stdout.startswith("usage: ") and not result.stderr
    assert command in sgdmap("--help").stdout


def test_version():
    assert sgdmap("--version").stdout.startswith("sgdmap 0.")


def test_plan(config, tmp_path):
    result = sgdmap("plan", config, "--ranks", 7)
    assert result.returncode == 0
    for text in ("576 runs of 300 steps", "core-hours", "memory a rank", "size of the file", "on 7 ranks", "step_size"):
        assert text in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"], "plan writes nothing"


def test_plan_of_a_sweep_beyond_simulation(config):
    """9 * 10^12 runs: told at once, and not played through for hours."""
    axis = "={linear: [0.1, 1], count: 500000}"
    result = sgdmap("plan", config, "--ranks", 1000, "--set", "grid.step_size" + axis, "--set", "grid.init_scale" + axis)
    assert result.returncode == 0 and "even shares" in result.stdout


def test_plan_for_a_program(config, reference):
    """--json: the numbers of the text, without their units."""
    plain = json.loads(sgdmap("plan", config, "--json").stdout)
    assert plain["runs"] == 576 and plain["steps"] == 300 and plain["groups"] > 0
    assert abs(plain["file_bytes"] - reference.stat().st_size) < 0.6e6
    assert not {"ranks", "wall_seconds", "efficiency"} & plain.keys()
    result = sgdmap("plan", config, "--ranks", 3, "--json")
    assert result.returncode == 0 and result.stdout.count("\n") == 1, "one line"
    with_ranks = json.loads(result.stdout)
    assert with_ranks["ranks"] == 3 and 0 < with_ranks["efficiency"] <= 1
    assert {name: with_ranks[name] for name in plain} == plain
    assert with_ranks["core_seconds"] / 3 <= with_ranks["wall_seconds"]
    assert sgdmap("plan", config, "--json", "--calibrate").returncode == 0
    # Beyond the simulation the time is in even shares, and there is no efficiency.
    axis = "={linear: [0.1, 1], count: 500000}"
    many = sgdmap("plan", config, "--ranks", 1000, "--json", "--set", "grid.step_size" + axis, "--set", "grid.init_scale" + axis)
    even = json.loads(many.stdout)
    assert "efficiency" not in even and even["wall_seconds"] == pytest.approx(even["core_seconds"] / 1000, rel=1e-4)


def test_plan_tells_the_size_of_the_file(config, reference):
    with_unit = [line for line in sgdmap("plan", config).stdout.splitlines() if "size of the file" in line][0].split()[-2:]
    size = float(with_unit[0]) * {"kB": 1e3, "MB": 1e6}[with_unit[1]]
    assert abs(size - reference.stat().st_size) < 0.6e6


def test_plan_tells_the_memory_of_a_rank(tmp_path):
    config = tmp_path / "large.yaml"
    config.write_text(
        "seed: 1\ngrid: {dimension: 700, step_size: [1.0e-4, 1.0e-3], init_scale: 1, teacher_norm: [0.5, 1], batch_size: 50}\n"
        "training: {steps: 2, tolerance: 1.0e-3}\nrecords: {count: 2}\noutput: {weights: final}\n"
    )
    line = [line for line in sgdmap("plan", config).stdout.splitlines() if "memory a rank" in line][0]
    planned = float(line.split()[-2]) * {"MB": 1e6, "GB": 1e9}[line.split()[-1]]
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); " \
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    output = subprocess.run([sys.executable, "-c", code, PROGRAM, "run", str(config), "-o", str(tmp_path / "large.h5")],
                            capture_output=True, text=True, check=True, timeout=120).stdout
    used = int(output) * 1024
    print(f"planned {planned / 1e6:.0f} MB, used {used / 1e6:.0f} MB")
    if "libasan" not in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True).stdout:
        assert 0.4 * planned < used < 1.1 * planned


def test_status(reference):
    result = sgdmap("status", reference)
    assert result.returncode == 0 and "576 of 576 runs done" in result.stdout and "complete" in result.stdout
    assert result.stdout.count("d = ") == 8 and "# converged" in result.stdout
    numbers = json.loads(sgdmap("status", reference, "--json").stdout)
    assert numbers["runs"] == numbers["done"] == sum(numbers["outcomes"].values()) == 576
    assert numbers["eta_seconds"] is None and numbers["fraction"] == 1
    with h5py.File(reference) as file:
        counts = np.bincount(file["status"][:], minlength=7)
    assert list(numbers["outcomes"].values()) == counts.tolist()
    watch = sgdmap("status", reference, "--watch", timeout=20)
    assert watch.returncode == 0, "a file that is complete is not watched"


def on_a_terminal(columns, rows, *arguments, seconds=1.5):
    """What the program draws on a terminal of that size within that time."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (rows, columns))
    process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=its, stderr=its)
    os.close(its)
    drawn = b""
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < seconds or b"step_size across" not in drawn:
            assert time.monotonic() - begun < 60, drawn
            if select.select([ours], [], [], 0.1)[0]:
                drawn += os.read(ours, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return re.sub(r"\x1b\[\d*[mJH]", "", drawn.decode()).replace("\r", "")


def test_a_map_fills_in(reference, tmp_path):
    """A cell shows what is done of it; on a terminal without room for all maps those are seen that are filling."""
    path = tmp_path / "part.h5"
    shutil.copy(reference, path)
    with h5py.File(path, "r+") as file:
        last = (file["dimension"][:] == 11) & (file["batch_size"][:] == 20)
        undone = ~last | (file["replicate"][:] == 1)
        for name in ("checksum", "status"):
            values = file[name][:]
            values[undone] = 0
            file[name][:] = values
        names = ("teacher_norm", "link", "status")
        norms, links, status = (file[name][:][last & ~undone] for name in names)
    shown = sgdmap("status", path).stdout
    for norm, link in ((0.5, 0), (1.0, 1)):
        cells = status[(norms == norm) & (links == link)].reshape(9, -1)  # [step_size][init_scale]
        letters = np.array(list("??#x-+!"))[cells]
        panel = shown.split(f"d = 11, B = 20, ‖W*‖ = {norm:g}, link {('identity', 'none')[link]}\n")[1].split("\n")
        assert [line[12:] for line in panel[: letters.shape[1]]] == ["".join(row) for row in letters.T[::-1]]
    for columns, rows, maps, across in ((100, 20, 2, 2), (200, 20, 4, 4), (60, 20, 1, 1)):
        drawn = on_a_terminal(columns, rows, "status", path, "--watch")
        titles = [line for line in drawn.splitlines() if "link" in line]
        assert titles[0].count("d = 11, B = 20") == across and max(map(len, drawn.splitlines())) <= max(columns, 101)
        assert drawn.count("d = ") == maps and f"… and {16 - maps} more maps" in drawn


def test_status_while_a_job_writes(tmp_path):
    config = tmp_path / "long.yaml"
    config.write_text(LONG)
    path = tmp_path / "live.h5"
    process = subprocess.Popen([PROGRAM, "run", str(config), "-o", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_runs(path, 20, process)
    numbers = json.loads(sgdmap("status", path, "--json").stdout)
    assert numbers["running"] and 20 <= numbers["done"] < 576
    assert numbers["runs_per_second"] > 0 and numbers["eta_seconds"] > 0
    assert "a job is writing" in sgdmap("status", path).stdout
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 75
    assert "no job is writing" in sgdmap("status", path).stdout


def test_the_ready_sweeps_are_sound():
    configs = sorted(JOBS.glob("*.yaml"))
    assert configs
    for config in configs:
        assert sgdmap("plan", config).returncode == 0, config
