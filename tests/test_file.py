"""The result file as other programs see it: h5py, xarray with both engines, ncdump, and any of them after a kill."""
from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

PROGRAM = os.environ.get("SGDMAP_TEST_STORE")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="SGDMAP_TEST_STORE names no program that makes files")

RUNS, RECORDS, WRITTEN = 24, 9, 20
FIELDS = ("loss", "error", "potential_norm")
FIELD_NUMBERS = {"loss": 0, "error": 2, "potential_norm": 4}
SETTINGS = ("dimension", "batch_size", "input", "replicate", "teacher_norm", "link", "step_size", "init_scale")
RESULTS = ("steps_done", "converged_step", "phase2_step", "final_error", "final_loss", "message", "wall_time", "rank",
           "status", "checksum")
DTYPES = {
    **dict.fromkeys(("run", "step", "dimension", "batch_size", "replicate"), "<i8"),
    **dict.fromkeys(("steps_done", "converged_step", "phase2_step"), "<i8"),
    **dict.fromkeys(("teacher_norm", "step_size", "init_scale", "final_error", "final_loss", "wall_time"), "<f8"),
    **dict.fromkeys(FIELDS, "<f8"),
    **dict.fromkeys(("input", "link", "message", "status"), "|i1"),
    "rank": "<i4", "checksum": "<u8",
}
FLAGS = {
    "link": "identity none",
    "message": "none out_of_memory",
    "status": "pending running converged diverged stalled unfinished failed",
}
TEXTS = ("Conventions", "title", "history", "source", "comment", "config", "config_overrides", "config_digest",
         "blis_version", "blis_kernels", "hdf5_version", "mpi_version", "host", "date_created")


def mpirun(ranks: int, *arguments: str | Path) -> list[str]:
    return ["mpirun", "--oversubscribe", "-n", str(ranks), str(PROGRAM), *map(str, arguments)]


def done_and_mismatched(path: Path) -> tuple[int, int]:
    """What the store itself says, in a process without MPI."""
    output = subprocess.run([str(PROGRAM), "read", str(path)], check=True, capture_output=True, text=True).stdout
    done, mismatched = map(int, output.split())
    return done, mismatched


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "sweep.h5"
    subprocess.run(mpirun(2, "make", path), check=True, timeout=60)
    return path


def test_h5py_sees_the_schema(made: Path) -> None:
    with h5py.File(made) as file:
        names = set(file) - {"weights_d2", "weights_d3"}
        assert names == set(DTYPES)
        for name, dtype in DTYPES.items():
            dataset = file[name]
            assert dataset.dtype == np.dtype(dtype), name
            dims = ("step",) if name == "step" else ("run", "step") if name in FIELDS else ("run",)
            assert dataset.shape == tuple({"run": RUNS, "step": RECORDS}[dim] for dim in dims), name
            assert dataset.chunks is None and dataset.id.get_offset() is not None, name
            assert dataset.attrs["long_name"].decode() and dataset.attrs["units"] == (
                b"s" if name == "wall_time" else b"1"), name
            if name in dims:
                assert h5py.h5ds.is_scale(dataset.id)
            else:
                assert [dimension[0].name for dimension in dataset.dims] == ["/" + dim for dim in dims]
        for name in FIELDS + ("final_error", "final_loss", "wall_time"):
            fill = file[name].attrs["_FillValue"]
            assert fill.shape == (1,) and fill.dtype == np.dtype("<f8") and np.isnan(fill[0]), name
        for name, meanings in FLAGS.items():
            attributes = file[name].attrs
            assert attributes["flag_meanings"].decode() == meanings
            assert attributes["flag_values"].dtype == np.int8
            assert attributes["flag_values"].tolist() == list(range(len(meanings.split())))
        assert file["input"].attrs["flag_meanings"].decode().split()[0] == "gaussian"
        assert file.attrs["config"].decode().startswith("title: a small sweep with an umlaut ü\n")
        assert re.fullmatch("[0-9a-f]{32}", file.attrs["config_digest"].decode())
        assert file.attrs["config_overrides"] == b""


def test_creation_order_is_the_schema_s(made: Path) -> None:
    with h5py.File(made) as file:
        order = []
        # (fails unless the group tracks it)
        file.id.links.iterate(lambda name: order.append(name.decode()), idx_type=h5py.h5.INDEX_CRT_ORDER)
        assert order == ["run", "step", *SETTINGS, *FIELDS, *RESULTS, "weights_d2", "weights_d3"]
        for name in order[:-2]:
            assert file[name].id.get_create_plist().get_attr_creation_order() != 0, name


def test_nothing_would_mark_the_file_as_open(made: Path) -> None:
    """Consistency flags came with version 3 of the superblock, which a file of a killed job would keep set."""
    assert made.read_bytes()[8] < 3


def test_values_and_what_is_not_written(made: Path) -> None:
    with h5py.File(made) as file:
        run, record = np.arange(RUNS), np.arange(RECORDS)
        assert file["run"][:].tolist() == run.tolist()
        assert file["step"][0] == 0 and file["step"][-1] == 1000 and (np.diff(file["step"][:]) > 0).all()
        assert file["dimension"][:].tolist() == [2] * 12 + [3] * 12
        assert file["step_size"][:6].tolist() == [0.01, 0.01, 0.01, 0.1, 0.1, 0.1]
        assert file["init_scale"][:4].tolist() == [0, 0.5, 1, 0]
        assert file["link"][:12].tolist() == [0] * 6 + [1] * 6
        for name in FIELDS:
            expected = run[:, None] + record / 64 + 1000 * FIELD_NUMBERS[name]
            assert (file[name][:WRITTEN] == expected[:WRITTEN]).all()
            assert np.isnan(file[name][WRITTEN:]).all()
        assert file["status"][:].tolist() == [2 + number % 5 for number in range(WRITTEN)] + [0] * 4
        for name, fill in {"steps_done": -1, "converged_step": -1, "phase2_step": -1, "rank": -1, "checksum": 0}.items():
            assert (file[name][WRITTEN:] == fill).all(), name
        assert (file["checksum"][:WRITTEN] != 0).all()
        for dimension, first in ((2, 0), (3, 12)):
            group = file[f"weights_d{dimension}"]
            assert group["run"][:].tolist() == list(range(first, first + 12))
            assert group["neuron"][:].tolist() == group["component"][:].tolist() == list(range(dimension))
            at = np.arange(dimension**2).reshape(dimension, dimension)
            assert (group["student"][3] == -(first + 3) - at / 1024).all()
            assert (group["teacher"][3] == -(first + 3) - at / 1024 - 1000).all()
        assert np.isnan(file["weights_d3/teacher"][WRITTEN - 12:]).all()
    assert done_and_mismatched(made) == (WRITTEN, 0)


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
def test_xarray_opens_it(made: Path, engine: str) -> None:
    with xarray.open_dataset(made, engine=engine) as sweep:
        assert dict(sweep.sizes) == {"run": RUNS, "step": RECORDS}
        assert set(sweep.coords) == {"run", "step", *SETTINGS}
        assert set(sweep.data_vars) == {*FIELDS, *RESULTS}
        for name, dtype in DTYPES.items():
            assert sweep[name].dtype == np.dtype(dtype), name
        assert sweep["loss"].dims == ("run", "step")
        assert sweep["status"].attrs["flag_meanings"] == FLAGS["status"]
        assert sweep["steps_done"].values[-1] == -1
        assert float(sweep["loss"].where(sweep["dimension"] == 3, drop=True)[0, 1]) == 12 + 1 / 64
        for name in TEXTS:
            assert isinstance(sweep.attrs[name], str), name
        assert sweep.attrs["Conventions"] == "CF-1.8"
        assert sweep.attrs["blis_kernels"] == ""
        assert "ü" in sweep.attrs["title"] and sweep.attrs["history"].endswith("sgdmap run")
        assert int(sweep.attrs["format_version"]) == 1
    with xarray.open_dataset(made, engine=engine, group="weights_d3") as weights:
        assert weights["student"].dims == ("run", "component", "neuron")


def test_ncdump_reads_it(made: Path) -> None:
    if shutil.which("ncdump") is None:
        pytest.skip("no ncdump")
    header = subprocess.run(["ncdump", "-h", made], check=True, capture_output=True, text=True).stdout
    for line in ("run = 24 ;", "double loss(run, step) ;", "loss:_FillValue = NaN ;", 'wall_time:units = "s" ;',
                 "status:flag_values = 0b, 1b, 2b, 3b, 4b, 5b, 6b ;", "uint64 checksum(run) ;", "group: weights_d2 {",
                 'history = "2026-01-01T00:00:00Z sgdmap run" ;', "double student(run, component, neuron) ;"):
        assert line in header, line


def test_another_hdf5_file_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.attrs["config"] = "variable length"
        file.attrs["format_version"] = 1
    result = subprocess.run([str(PROGRAM), "read", str(path)], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{path}: not an sgdmap result file: ")


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.__delitem__("loss"),
        lambda file: file.move("loss", "lost"),
        lambda file: file.__delitem__("weights_d3"),
        lambda file: (file.__delitem__("rank"), file.create_dataset("rank", data=np.zeros(RUNS))),
        lambda file: (file.__delitem__("rank"), file.create_dataset("rank", data=np.zeros(RUNS + 1, "<i4"))),
        lambda file: (file.__delitem__("rank"), file.create_dataset("rank", data=np.zeros(RUNS, "<i4"), chunks=(4,))),
        lambda file: (file.__delitem__("rank"), file.create_dataset("rank", shape=(), dtype="<i4")),
        lambda file: (file.__delitem__("rank"), file.create_group("rank")),
        lambda file: (file.__delitem__("error"), file.create_dataset("error", shape=(RUNS, RECORDS, 1))),
        lambda file: file["step"].write_direct(np.zeros(RECORDS, "<i8")),
        lambda file: file.attrs.__delitem__("config"),
        lambda file: file.attrs.__setitem__("config", np.bytes_("grid: [")),
        lambda file: file.attrs.__setitem__("config", np.bytes_(file.attrs["config"].replace(b"seed: 7", b"seed: 6"))),
        lambda file: file.attrs.__setitem__("config_digest", np.bytes_("0" * 32)),
        lambda file: file.attrs.__setitem__("format_version", "one"),
        lambda file: file.attrs.__setitem__("format_version", 2),
    ],
)
def test_a_file_that_does_not_fit_its_config_is_refused(made: Path, tmp_path: Path, change) -> None:
    path = tmp_path / "changed.h5"
    shutil.copy(made, path)
    with h5py.File(path, "r+") as file:
        change(file)
    result = subprocess.run([str(PROGRAM), "read", str(path)], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{path}: ")
    assert any(text in result.stderr for text in ("sgdmap result file: ", "format", "dataset step: entry 1 is 0"))


@pytest.mark.parametrize("name", ["checksum", "status", "message", "link", "step_size", "run", "final_loss", "phase2_step"])
def test_a_changed_value_is_a_mismatch(made: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "changed.h5"
    shutil.copy(made, path)
    with h5py.File(path, "r+") as file:
        file[name][5] = file[name][5] + 1
        file["wall_time"][5] = 77  # another machine, another time
        file["rank"][5] = 77
    assert done_and_mismatched(path) == (WRITTEN - 1, 1)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_after_a_kill_the_file_opens_and_holds_the_rows(tmp_path: Path, victim: int) -> None:
    """Rank 0 wrote runs 0 to 11; all ranks write the others over and over while one is killed."""
    path = tmp_path / "killed.h5"
    job = subprocess.Popen(mpirun(3, "write", path), stderr=subprocess.PIPE, text=True)
    try:
        processes = [int(line) for line in (job.stderr.readline() for _ in range(3))]
        with h5py.File(path) as file:  # beside the writers
            assert (file["loss"][:12] == np.arange(12)[:, None] + np.arange(RECORDS) / 64).all()
        time.sleep(0.05 * (1 + victim))
        os.kill(processes[victim], signal.SIGKILL)
        job.communicate(timeout=60)
    finally:
        if job.poll() is None:
            job.kill()
    assert job.returncode != 0
    with h5py.File(path) as file:
        rows = np.arange(RUNS)[:, None] + np.arange(RECORDS) / 64
        assert (file["loss"][:12] == rows[:12]).all()
        assert (file["loss"][12:] == rows[12:]).all()
        assert (file["status"][:] >= 2).all()
    done, mismatched = done_and_mismatched(path)
    assert RUNS - 3 <= done <= RUNS and mismatched == 0  # each rank was writing one run
    subprocess.run(mpirun(2, "make", path), check=True, timeout=60)  # and nothing is in the way of the next job
    assert done_and_mismatched(path) == (WRITTEN, 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["killed.h5"]
