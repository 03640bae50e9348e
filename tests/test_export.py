"""Exports come back as they were, in the programs that people read them with."""
from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pandas
import pytest
import xarray as xr
from conftest import ALL_AXES, AXES, FIELDS, OUTCOMES
from test_analysis import COMMAND, run

from sgdmap_analysis import export, open_sweep
from sgdmap_analysis.sweep import decode_flags

GRID = {"dimension": [10, 20], "link": ["identity", "none"], "step_size": np.geomspace(1e-4, 1, 7), "init_scale": [0.0, 0.1 + 0.2]}
RESULTS = ["steps_done", "converged_step", "phase2_step", "final_error", "final_loss", "wall_time"]


def every_outcome(setting):
    """All statuses by the place of the step size, and values with all their digits."""
    place = int(np.argmin(np.abs(np.geomspace(1e-4, 1, 7) - setting["step_size"])))
    status = OUTCOMES[place]
    error = np.inf if setting["replicate"] else 1e300 * np.pi
    return status, 100 + place, error if status == "diverged" else setting["step_size"] / 3


def rows(setting):
    random = np.random.default_rng(int(1e6 * setting["step_size"]) + setting["dimension"])
    trace = np.exp(random.normal(0, 30, 5))
    if setting["step_size"] > 0.01:
        trace[3:] = np.nan  # as if it had ended
    return {"error": trace, "alignment": np.where(np.arange(5) == 1, np.nan, -trace)}


@pytest.fixture
def path(sweep_file) -> Path:
    return sweep_file(GRID, every_outcome, rows=rows, order=np.random.default_rng(0).permutation(112))


def table(path: Path) -> pandas.DataFrame:
    # pandas takes a link "none", unquoted, for nothing unless it is told not to; and floats not to the last bit.
    return pandas.read_csv(path, keep_default_na=False, na_values="", float_precision="round_trip")


def assert_bits(one: np.ndarray, other: np.ndarray) -> None:
    """Equal to the last bit; all NaN alike."""
    np.testing.assert_array_equal(np.asarray(one, dtype=float), np.asarray(other, dtype=float))


# -- CSV ---------------------------------------------------------------------------------------------------------------


def test_a_line_a_run_comes_back_in_pandas(path, tmp_path, capsys):
    out = tmp_path / "runs.csv"
    assert run("export", path, "-o", out) == 0
    assert capsys.readouterr().out == f"{out}\n"
    frame, sweep = table(out), open_sweep(path, flat=True)
    assert sorted(frame.columns[10:]) == sorted(["message", "wall_time_s", *RESULTS[:-1]])
    assert frame.columns[:10].tolist() == ["run", *AXES, "status"]
    for name in ("run", *AXES, *RESULTS[:-1]):
        if name in ("link", "input"):
            assert frame[name].tolist() == sweep[name].values.tolist()
        else:
            assert_bits(frame[name], sweep[name])
    assert_bits(frame.wall_time_s, sweep.wall_time)
    assert frame.status.tolist() == decode_flags(sweep.status).values.tolist() and set(frame.status) == set(OUTCOMES)
    assert set(frame.message) == {"none", "out_of_memory"}
    # What is not there is nothing, and whole numbers stay so.
    lines = list(csv.DictReader(open(out)))
    by_status = {line["status"]: line for line in lines}
    assert all(by_status[status][name] == "" for status in ("pending", "running", "failed") for name in RESULTS[:-1])
    assert by_status["converged"]["converged_step"] == "102" and by_status["stalled"]["converged_step"] == ""
    assert {line["final_error"] for line in lines if line["status"] == "diverged"} == {"inf", repr(1e300 * np.pi)}
    assert "nan" not in out.read_text().lower() and "#" not in out.read_text()


@pytest.mark.parametrize("size", [export._TEXTS, 100])
def test_a_line_a_record_comes_back_in_pandas(path, tmp_path, monkeypatch, size):
    monkeypatch.setattr(export, "_TEXTS", size)
    out = tmp_path / "records.csv"
    assert run("export", path, "-o", out, "--trajectories") == 0
    frame, sweep = table(out), open_sweep(path, flat=True)
    assert frame.columns[10:].tolist() == ["step", *(name for name in sweep.data_vars if name in FIELDS)]
    boxed = np.full((112, 5, len(FIELDS)), np.nan)
    step = np.searchsorted(sweep.step.values, frame.step)
    for i, name in enumerate(FIELDS):
        boxed[frame.run, step, i] = frame[name]
        assert_bits(boxed[..., i], sweep[name].values)
    # A record is there if any field is, and none of a run without an outcome.
    there = np.isfinite([sweep[name].values for name in FIELDS]).any(0)
    assert len(frame) == there.sum() and not set(frame.status) & {"pending", "running", "failed"}
    assert (np.diff(frame.run) >= 0).all()

    assert run("export", path, "-o", out, "--fields", "final_error,error") == 0
    chosen = table(out)
    assert chosen.columns[10:].tolist() == ["final_error", "step", "error"]
    assert len(chosen) == np.isfinite(sweep.error.values).sum()


@pytest.mark.parametrize("size", [export._TEXTS, 100])
def test_wide_has_trajectories_as_columns(path, tmp_path, monkeypatch, size):
    monkeypatch.setattr(export, "_TEXTS", size)
    out = tmp_path / "wide.csv"
    assert run("export", path, "-o", out, "--form", "wide", "--fields", "error,loss,final_error") == 0
    frame, sweep = table(out), open_sweep(path, flat=True)
    columns = [[f"{name}@{step}" for step in (0, 1, 10, 100, 1000)] for name in ("error", "loss")]
    assert frame.columns[10:].tolist() == ["final_error", *columns[0], *columns[1]]
    assert_bits(frame[columns[0]], sweep.error.values)
    assert_bits(frame[columns[1]], sweep.loss.values)
    assert len(frame) == 112


def test_chosen_runs(path, tmp_path):
    out = tmp_path / "some.csv"
    assert run("export", path, "-o", out, "--where", "dimension==10 and link==none or step_size>0.5") == 0
    frame = table(out)
    expected = [(d == 10 and link == "none") or s > 0.5 for d, link, s in zip(*(open_sweep(path, flat=True)[name].values
                                                                               for name in ("dimension", "link", "step_size")))]
    assert frame.run.tolist() == np.flatnonzero(expected).tolist()
    assert run("export", path, "-o", out, "--where", "replicate=1", "--fields", "checksum,rank") == 0
    frame = table(out)
    assert len(frame) == 56 and frame.columns[10:].tolist() == ["checksum", "rank"]
    sweep = open_sweep(path, flat=True).isel(run=frame.run.values)
    assert [int(text) for text in frame.checksum] == sweep.checksum.values.tolist()  # all 64 bits


def test_runs_that_are_no_full_grid(sweep_file, tmp_path):
    settings = [{**{name: 1 for name in AXES}, "input": "gaussian", "link": link, "step_size": s, "init_scale": 0.0, "teacher_norm": 1.0}
                for link, s in (("identity", 0.1), ("none", 0.2), ("none", 0.001))]
    path = sweep_file(settings=settings)
    assert run("export", path, "-o", tmp_path / "a.csv") == 0 and len(table(tmp_path / "a.csv")) == 3
    assert run("export", path, "-o", tmp_path / "a.nc", "--flat") == 0
    assert run("export", path, "-o", tmp_path / "b.nc") == 2


def test_axes_beside_their_default_are_columns(sweep_file, tmp_path):
    axes = {"gradient": ["population"], "data": [0, 1000], "teacher": ["gaussian", "low_rank"], "noise": [0.0, 0.1],
            "schedule": ["inverse_time"]}
    path = sweep_file(axes)
    out = tmp_path / "a.csv"
    assert run("export", path, "-o", out) == 0
    frame = table(out)
    assert frame.columns[1:14].tolist() == list(ALL_AXES)
    sweep = open_sweep(path, flat=True)
    for name in ALL_AXES:
        assert frame[name].tolist() == sweep[name].values.tolist()
    assert set(frame.data) == {0, 1000}  # numbers, also of fresh samples
    assert run("export", path, "-o", out, "--where", "data=online") == 0 and len(table(out)) == len(frame) / 2
    for flat in ([], ["--flat"]):
        out = tmp_path / f"a{len(flat)}.nc"
        assert run("export", path, "-o", out, *flat) == 0
        with xr.open_dataset(out) as back:
            assert back.schedule.attrs["flag_meanings"] == "constant inverse_time cosine" and set(back.schedule.values.ravel()) == {1}
            assert set(back.data_vars["error"].dims) == ({"run", "step"} if flat else {*ALL_AXES, "step"})
            assert set(back["data"].values.ravel()) == {0, 1000} and back["data"].dtype.kind == "i"
    again = open_sweep(tmp_path / "a1.nc")
    assert again.status.dims == ALL_AXES and again.teacher.values.tolist() == ["gaussian", "low_rank"]


# -- netCDF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["netcdf4", "h5netcdf"])
@pytest.mark.parametrize("flat", [False, True], ids=["box", "flat"])
def test_netcdf_comes_back_in_xarray(path, tmp_path, monkeypatch, engine, flat):
    monkeypatch.setattr(export, "_NUMBERS", 40)  # many blocks
    monkeypatch.setattr(export, "_CHUNK", 12)
    out = tmp_path / "small.nc"
    assert run("export", path, "-o", out, *(["--flat"] if flat else [])) == 0
    sweep = open_sweep(path, flat=flat)
    with xr.open_dataset(out, engine=engine) as back:
        assert back.status.dims == (("run",) if flat else AXES) and back.error.dims == (*back.status.dims, "step")
        for name in ("run", "step", *AXES, *RESULTS, *FIELDS):
            if name in ("link", "input"):
                codes = dict(zip(back[name].attrs["flag_meanings"].split(), back[name].attrs["flag_values"].tolist()))
                assert back[name].values.tolist() == [codes[text] for text in sweep[name].values.tolist()]
                assert codes == {"link": {"identity": 0, "none": 1}}.get(name, codes) and len(codes) == {"link": 2}.get(name, 6)
            else:
                assert_bits(back[name], sweep[name])
                assert {key: back[name].attrs[key] for key in ("long_name", "units")} == {
                    key: sweep[name].attrs[key] for key in ("long_name", "units")}
        assert (back.status.values == sweep.status.values).all() and back.status.dtype == np.int8
        assert back.status.attrs["flag_meanings"].split() == list(OUTCOMES)
        assert back.attrs["config"] == "seed: 1\n" and back.attrs["history"].endswith("export")
        assert "checksum" not in back and "rank" not in back and "run" in back.coords


def test_a_flat_export_is_a_sweep_again(path, tmp_path):
    assert run("export", path, "-o", tmp_path / "flat.nc", "--flat") == 0
    again, sweep = open_sweep(tmp_path / "flat.nc"), open_sweep(path)
    for name in ("status", "error", "final_error", "phase2_step"):
        assert_bits(again[name].values, sweep[name].values)
    assert again.link.values.tolist() == sweep.link.values.tolist()


@pytest.mark.parametrize("flat", [False, True], ids=["box", "flat"])
def test_netcdf_has_only_what_ncdf4_and_cf_know(path, tmp_path, flat):
    # R's ncdf4 has no integers of 64 bits, CF-1.8 neither, nor coordinate variables with fill values. The R itself is too
    # large to be had here: netCDF's own tools say what is in the file.
    out = tmp_path / "small.nc"
    assert run("export", path, "-o", out, "--precision", "single", *(["--flat"] if flat else [])) == 0
    assert subprocess.run(["ncdump", "-k", out], capture_output=True, text=True).stdout == "netCDF-4\n"
    header = subprocess.run(["ncdump", "-hs", out], capture_output=True, text=True, check=True).stdout
    assert "int64" not in header and "uint" not in header and "string " not in header and "group:" not in header
    with netCDF4.Dataset(out) as file:
        assert file.Conventions == "CF-1.8"
        for name, variable in file.variables.items():
            assert variable.dtype in (np.int8, np.int32, np.float32, np.float64), name
            assert variable.long_name and variable.units
            filters = variable.filters()
            assert filters["zlib"] and filters["shuffle"]
            if name in file.dimensions or name in AXES:
                assert "_FillValue" not in variable.ncattrs() and not np.ma.is_masked(variable[...])
                values = variable[...]
                assert flat or (np.diff(values) > 0).all()  # coordinates are monotonic
            elif name not in ("run", "status", "message"):
                assert variable._FillValue == -1 or np.isnan(variable._FillValue)
            for item in variable.getncattr("coordinates").split() if "coordinates" in variable.ncattrs() else []:
                assert set(file[item].dimensions) <= set(variable.dimensions)
        assert file["error"].dtype == np.float32 and file["step_size"].dtype == np.float64
        sweep = open_sweep(path, flat=flat)
        with np.errstate(over="ignore"):
            assert_bits(np.ma.filled(file["error"][...], np.nan), sweep.error.values.astype(np.float32))
        # netCDF4 masks fill values: as R's NA.
        assert np.ma.getmaskarray(file["converged_step"][...]).sum() == np.isnan(sweep.converged_step.values).sum()


def test_steps_beyond_32_bits_are_doubles(sweep_file, tmp_path):
    path = sweep_file(model=lambda setting: ("converged", 2**40 + 1, 1e-4))
    assert run("export", path, "-o", tmp_path / "big.nc") == 0
    with netCDF4.Dataset(tmp_path / "big.nc") as file:
        assert file["steps_done"].dtype == np.float64 and (file["steps_done"][...] == 2**40 + 1).all()


def test_it_is_compact(sweep_file, tmp_path):
    random = np.random.default_rng(0)

    def digits(_):
        return {name: np.exp(random.normal(0, 1, 5)) for name in FIELDS}

    grid = {"step_size": np.geomspace(1e-4, 1, 40), "init_scale": np.linspace(0, 1, 40), "replicate": [0]}
    path = sweep_file(grid, lambda setting: ("stalled", 9, random.lognormal()), rows=digits)
    for name, arguments in (("double", []), ("single", ["--precision", "single"])):
        assert run("export", path, "-o", tmp_path / f"{name}.nc", *arguments) == 0
    sizes = [file.stat().st_size for file in (path, tmp_path / "double.nc", tmp_path / "single.nc")]
    assert sizes[1] < 0.95 * sizes[0] and sizes[2] < 0.65 * sizes[1]  # random digits do not compress


def test_boxes_cover_an_array_once():
    for shape, numbers, chunk in (((3, 4, 5), 7, 3), ((3, 4, 5), 1000, 10), ((1, 1, 9), 4, 4), ((5, 1, 2), 2, 1), ((7,), 3, 2)):
        seen = np.zeros(shape, int)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export, "_NUMBERS", numbers)
            patch.setattr(export, "_CHUNK", chunk)
            for place in export._boxes(shape, export._chunks(shape)):
                seen[place] += 1
                assert seen[place].size <= max(numbers, chunk)
        assert (seen == 1).all(), (shape, numbers, chunk)


# -- The command -------------------------------------------------------------------------------------------------------


def test_json(path, tmp_path, capsys):
    out = tmp_path / "a.csv"
    assert run("export", path, "-o", out, "--json", "--fields", "final-error,loss") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers == {"file": str(path), "output": str(out), "bytes": out.stat().st_size, "runs": 112, "results": ["final_error"],
                       "trajectories": ["loss"]}


@pytest.mark.parametrize("arguments, message", [
    (["-o", "a.xlsx"], "the ending is neither .csv nor .nc"), ([], "-o/--output"),
    (["-o", "a.csv", "--fields", "colour"], "'colour' is not a field"), (["-o", "a.csv", "--fields", "colour"], "it has "),
    (["-o", "a.csv", "--fields", "error,"], "a name is missing"), (["-o", "a.csv", "--flat"], "--flat is not for .csv"),
    (["-o", "a.csv", "--precision", "single"], "--precision is not for .csv"), (["-o", "a.nc", "--form", "wide"], "--form is not for .nc"),
    (["-o", "a.nc", "--fields", "checksum"], "64 bits without a sign"), (["-o", "a.nc", "--level", "0"], "not a number in"),
    (["-o", "a.csv", "--form", "wide", "--trajectories"], "not for --form wide"), (["-o", "a.csv", "--form", "tall"], "invalid choice"),
    (["-o", "a.csv", "--trajectories", "--fields", "final_error"], "no trajectories among the fields"),
    (["-o", "a.csv", "--where", "dimension==11"], "dimension has no value 11; it has 10, 20"),
    (["-o", "a.nc", "--where", "dimension==10 or link==none"], "not a product of axes"), (["-o", "sweep.nc"], "is the file to be exported"),
])
def test_bad_arguments(path, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    assert run("export", path, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


@pytest.mark.parametrize("ending", ["csv", "nc"])
def test_there_is_a_whole_file_or_none(path, tmp_path, capsys, monkeypatch, ending):
    out = tmp_path / f"out.{ending}"
    out.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run("export", path, "-o", out) == 74
    assert capsys.readouterr().err == f"sgdmap-analysis: {out}: No space left on device\n"
    assert out.read_text() == "before" and sorted(tmp_path.iterdir()) == sorted([path, out])
    assert run("export", path, "-o", tmp_path / "nowhere" / f"out.{ending}") == 74
    assert "No such file or directory" in capsys.readouterr().err


def test_a_full_disk(path, tmp_path):
    # Another process, since a limit on the size of files is for ever; the largest of them is not to leave a crash behind.
    script = f"""if 1:
        import resource, sys
        sys.path.insert(0, {str(COMMAND.parent)!r})
        from sgdmap_analysis import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        sys.exit(cli.main(sys.argv[1:]))
        """
    for ending, reason in (("csv", "File too large"), ("nc", "is there room on the disk?")):
        out = tmp_path / f"out.{ending}"
        done = subprocess.run([sys.executable, "-c", script, "export", path, "-o", out], capture_output=True, text=True, timeout=60)
        assert done.returncode == 74 and reason in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_only_read(path, tmp_path):
    before = path.read_bytes()
    with h5py.File(path, "r"):
        for name in ("a.csv", "a.nc"):
            assert run("export", path, "-o", tmp_path / name) == 0
    assert path.read_bytes() == before
