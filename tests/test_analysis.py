"""The analysis against files whose every value is known (see conftest.write_sweep)."""
from __future__ import annotations

import base64
import fcntl
import io
import itertools
import json
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import matplotlib.text
import numpy as np
import PIL.Image
import pytest
import xarray as xr
from conftest import ALL_AXES, AXES, FIELDS, FLAGS, OUTCOMES, converges_at_small_steps, write_sweep
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.image import imread

from sgdmap_analysis import ArgumentError, SweepError, __version__, cli, guard, maps, open_sweep, select, style
from sgdmap_analysis import sweep as sweep_module
from sgdmap_analysis.commands.options import common_settings
from sgdmap_analysis.statistics import convergence, most_frequent, outcome_counts, wilson_interval
from sgdmap_analysis.sweep import decode_flags
from sgdmap_analysis.where import choose, choose_box

COMMAND = Path(__file__).resolve().parent.parent / "analysis" / "sgdmap-analysis"

GRIDS = {
    "default": {},
    "all axes": {
        "dimension": [10, 20], "batch_size": [100, 200], "input": ["gaussian", "laplace"], "replicate": range(2),
        "teacher_norm": [0.5, 2.0], "link": ["identity", "none"], "step_size": [1e-3, 1e-1], "init_scale": [0.0, 1.0],
    },
    "axes beside the default": {
        "gradient": ["minibatch", "population"], "data": [0, 1000], "teacher": ["gaussian", "low_rank"], "noise": [0.0, 0.1],
        "schedule": ["constant", "cosine"],
    },
    "some of them": {"schedule": ["cosine"], "data": [1000, 0], "batch_size": [10, 20]},
    "descending": {"dimension": [50, 10, 20], "step_size": [1.0, 0.1, 0.01]},
    "one run": {"replicate": [0], "step_size": [0.1], "init_scale": [1.0]},
}


def run(*arguments: object) -> int:
    """The command's exit status, in this process."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse
        return int(error.code or 0)


# -- open_sweep --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_run_stands_where_its_setting_says(sweep_file, grid, shuffled):
    count = open_sweep(sweep_file(grid), flat=True).sizes["run"]
    path = sweep_file(grid, order=np.random.default_rng(0).permutation(count) if shuffled else None)
    sweep = open_sweep(path)
    flat = open_sweep(path, flat=True)

    axes = tuple(name for name in ALL_AXES if name in AXES or name in grid)
    assert sweep.status.dims == axes == sweep_module.axes_of(sweep) == sweep_module.axes_of(flat)
    assert sweep.loss.dims == (*axes, "step")
    for name in axes:
        assert sweep[name].dims == (name,)
        assert sorted(set(flat[name].values)) == sorted(sweep[name].values)
        if name not in FLAGS:
            assert (np.diff(sweep[name].values) > 0).all()
    error, loss = sweep.final_error.load(), sweep.loss.load()
    for index in range(count):
        row = flat.isel(run=index)
        place = {name: row[name].item() for name in axes}
        assert sweep.run.sel(place).item() == index
        assert error.sel(place).item() == row.final_error.item()
        assert loss.sel(place).values[:2].tolist() == [index, index + 0.001]  # the file's rows are r + s/1000


def test_coordinates_are_decoded_and_attributes_kept(sweep_file):
    sweep = open_sweep(sweep_file({"input": ["gaussian", "student_t"], "link": ["none", "identity"]}))
    assert sweep.input.values.tolist() == ["gaussian", "student_t"]
    assert sorted(sweep.link.values.tolist()) == ["identity", "none"]
    assert sweep.step.values.tolist() == [0, 1, 10, 100, 1000]
    assert sweep.wall_time.attrs["units"] == "s"
    assert sweep.loss.attrs == {"long_name": "loss along the trajectory", "units": "1"}
    assert sweep.step_size.attrs["long_name"] == "step size"
    assert sweep.attrs["title"] == "synthetic sweep"
    assert "DIMENSION_LIST" not in sweep.loss.attrs and "REFERENCE_LIST" not in sweep.step.attrs


def test_status_is_int8_with_flags_and_decodes(sweep_file):
    sweep = open_sweep(sweep_file())
    assert sweep.status.dtype == np.int8
    assert sweep.status.attrs["flag_meanings"].split() == list(OUTCOMES)
    text = decode_flags(sweep.status)
    assert text.sel(step_size=1e-3).values.ravel().tolist() == ["converged"] * 4
    assert text.sel(step_size=1e-1).values.ravel().tolist() == ["diverged"] * 4
    assert "flag_values" not in text.attrs and text.attrs["long_name"] == "outcome of the run"


def test_checksums_keep_all_their_bits(sweep_file):
    sweep = open_sweep(sweep_file())
    assert sweep.checksum.dtype == np.uint64
    assert sweep.checksum.values.ravel()[1] == 2**63 + 1


def partial(setting):
    """A model with every status, by step size and replicate."""
    statuses = {1e-3: "pending", 1e-2: "converged", 1e-1: "failed"}
    status = "running" if setting["replicate"] == 1 and setting["step_size"] == 1e-3 else statuses[setting["step_size"]]
    return status, 500, 1e-4


def test_runs_without_an_outcome_are_masked(sweep_file):
    path = sweep_file(model=partial)
    with h5py.File(path, "r+") as file:  # as if the job had been killed between a run's rows and its status
        file["loss"][...] = 7.0
        file["final_error"][...] = 7.0
        file["steps_done"][...] = 7
    sweep = open_sweep(path)
    for step_size, known in ((1e-3, False), (1e-2, True), (1e-1, False)):
        for name in ("loss", "final_error", "steps_done"):
            values = sweep[name].sel(step_size=step_size).values
            assert (values == 7).all() if known else np.isnan(values).all(), (name, step_size)
    stored = open_sweep(path, masked=False)
    assert (stored.loss.values == 7).all() and (stored.final_error.values == 7).all()
    assert stored.steps_done.dtype == np.int64
    assert stored.converged_step.sel(step_size=1e-3).values.tolist() == np.full_like(
        stored.converged_step.sel(step_size=1e-3).values, -1).tolist()


def test_an_outcome_without_its_checksum_is_none_yet(sweep_file):
    """A job was killed between the two, or writes a run anew: its rows may be those of two trainings."""
    path = sweep_file()
    with h5py.File(path, "r+") as file:
        assert (file["status"][:] > 1).all()
        file["checksum"][3] = 0
    sweep = open_sweep(path, flat=True)
    assert OUTCOMES[int(sweep.status[3])] == "pending" and (sweep.status.values > 1).sum() == sweep.sizes["run"] - 1
    assert np.isnan(sweep.loss[3]).all() and np.isnan(sweep.final_error[3])


@pytest.mark.parametrize("how", ["crash", "loop", "memory", "leave"])
def test_what_kills_hdf5_is_one_clear_line(sweep_file, capsys, monkeypatch, how):
    path = sweep_file()

    def act(file):
        if os.getpid() == parent:
            raise AssertionError("the parent came here too")
        while how == "loop":
            pass
        if how == "memory":
            np.ones(1 << 28)
        os.kill(os.getpid(), signal.SIGSEGV) if how == "crash" else os._exit(1)

    parent = os.getpid()
    monkeypatch.setattr(guard, "CPU_SECONDS", 1)
    monkeypatch.setattr(sweep_module, "_attributes", act)
    assert cli.main(["map", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sgdmap-analysis: {path}: ") and error.count("\n") == 1
    assert {"crash": "Segmentation fault", "loop": "CPU time limit exceeded", "memory": "allocate", "leave": "without an answer"}[how] in error


def test_a_child_leaves_signals_to_the_parent():
    assert guard.call(int) is None
    assert guard.call(lambda: os.kill(os.getpid(), signal.SIGINT)) is None
    assert guard.call(lambda: [][1]) == "list index out of range"


def test_steps_that_did_not_happen_are_nan(sweep_file):
    sweep = open_sweep(sweep_file())
    assert np.isnan(sweep.converged_step.sel(step_size=1e-1).values).all()
    assert (sweep.converged_step.sel(step_size=1e-2).values == 500).all()
    assert (sweep.steps_done.sel(step_size=1e-1).values == 7).all()


def test_trajectories_are_read_only_when_asked_for(sweep_file, monkeypatch):
    path = sweep_file(GRIDS["all axes"])
    read = []
    original = sweep_module._read_rows

    def counting(dataset, rows, steps):
        read.append((dataset.name, len(rows), len(steps)))
        return original(dataset, rows, steps)

    monkeypatch.setattr(sweep_module, "_read_rows", counting)
    sweep = open_sweep(path)
    part = sweep.isel(dimension=1, replicate=0).sel(step_size=1e-3, link="none")
    repr(part), part.loss.shape, sweep.nbytes
    assert read == []
    last = part.loss.isel(step=-1).values
    assert read == [("/loss", 16, 1)]
    assert last.shape == (2, 2, 2, 2)
    assert set(FIELDS) <= set(sweep.data_vars)


def test_lazy_indexing_is_that_of_numpy(sweep_file):
    path = sweep_file(GRIDS["all axes"], order=np.random.default_rng(1).permutation(256))
    lazy = open_sweep(path).batch_loss
    full = lazy.values
    everything = slice(None)
    keys = [
        (0,) * 9,
        (1, everything, [1, 0], -1, slice(None, None, -1), everything, 0, [0], slice(1, 5, 2)),
        (everything,) * 8 + ([4, 0, 2],),
        (everything,) * 8 + (slice(0, 0),),
    ]
    for key in keys:
        expected = xr.DataArray(full, dims=lazy.dims)[key].values
        np.testing.assert_array_equal(lazy[key].values, expected)
    pointwise = {"dimension": xr.DataArray([0, 1], dims="point"), "step": xr.DataArray([3, 1], dims="point")}
    expected = xr.DataArray(full, dims=lazy.dims).isel(pointwise).values
    np.testing.assert_array_equal(lazy.isel(pointwise).values, expected)


def test_rows_far_apart_are_read_in_parts(sweep_file, monkeypatch):
    monkeypatch.setattr(sweep_module, "_GAP_BYTES", 1)
    monkeypatch.setattr(sweep_module, "_BLOCK_BYTES", 100)
    path = sweep_file(GRIDS["all axes"])
    with h5py.File(path) as file:
        rows = np.array([200, 3, 4, 5, 6, 250, 4])
        np.testing.assert_array_equal(sweep_module._read_rows(file["loss"], rows, np.array([3, 1])),
                                      file["loss"][...][np.ix_(rows, [3, 1])])
    parts = [rows[part].tolist() for part in sweep_module._neighbours(rows, gap=1, span=3)]
    assert parts == [[3, 4, 4, 5], [6], [200], [250]]


def test_the_dataset_can_be_pickled_and_written(sweep_file, tmp_path):
    sweep = open_sweep(sweep_file())
    again = pickle.loads(pickle.dumps(sweep))
    xr.testing.assert_identical(again.loss.load(), sweep.loss.load())
    sweep.to_netcdf(tmp_path / "box.nc")
    with xr.open_dataset(tmp_path / "box.nc") as box:
        np.testing.assert_array_equal(box.loss.values, sweep.loss.values)


@pytest.mark.parametrize("first", ["import sgdmap_analysis", "import h5py; h5py.File({other!r}).close()"])
def test_a_file_that_a_job_writes_can_be_read(sweep_file, first):
    # Another process, since one process shares what it has open; and one without this one's environment.
    path = sweep_file(model=partial)
    environment = {key: value for key, value in os.environ.items() if key != "HDF5_USE_FILE_LOCKING"}
    environment["PYTHONPATH"] = str(COMMAND.parent)
    script = f"""if 1:
        {first.format(other=str(sweep_file(name="other.nc")))}
        import sys
        from sgdmap_analysis import open_sweep
        sweep = open_sweep({str(path)!r})
        print(sweep.loss.sel(step_size=1e-2).min().item(), flush=True)
        sys.stdin.readline()
        print(sweep.loss.sel(step_size=1e-2).min().item())
        """
    with h5py.File(path, "r+") as writer, open(path, "rb") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)  # as HDF5 does in a writer; here the environment turned it off
        reader = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                  env=environment)
        assert reader.stdout.readline() == "2.0\n"
        writer["loss"][...] = 3.0
        writer.flush()
        assert reader.communicate("go\n", timeout=30)[0] == "3.0\n"  # rows come fresh from the disk
    assert reader.returncode == 0


def test_a_format_of_the_future_is_told(sweep_file):
    path = sweep_file()
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = np.int32(2)
    with pytest.raises(SweepError, match="its format is version 2"):
        open_sweep(path)


def test_a_file_that_was_replaced_is_told(sweep_file, tmp_path):
    path = sweep_file()
    sweep = open_sweep(path)
    os.replace(sweep_file(name="other.nc"), path)
    with pytest.raises(SweepError, match="replaced"):
        sweep.loss.values


def test_runs_that_are_no_full_grid(sweep_file):
    grid = [dict(zip(AXES, values)) for values in itertools.product(
        [10], [200], ["gaussian"], [0, 1], [1.0], ["identity"], [0.1, 0.2, 0.4], [0.0, 1.0])]
    for settings in (grid[:-1], grid[:-1] + grid[:1], grid + grid[:1]):
        path = sweep_file(settings=settings)
        with pytest.raises(SweepError, match="not a full grid"):
            open_sweep(path)
        flat = open_sweep(path, flat=True)
        assert flat.loss.shape == (len(settings), 5) and flat.link.values[0] == "identity"


def test_only_some_fields(sweep_file):
    sweep = open_sweep(sweep_file(fields=["loss", "error"]))
    assert {"loss", "error"} == set(FIELDS) & set(sweep.data_vars)


def broken_files(folder: Path) -> dict[str, Path]:
    text = folder / "text.nc"
    text.write_text("not a result\n")
    foreign = folder / "foreign.nc"
    with h5py.File(foreign, "w") as file:
        file["temperature"] = [1.0]
    whole = write_sweep(folder / "whole.nc").read_bytes()
    cut = folder / "cut.nc"
    cut.write_bytes(whole[: len(whole) // 2])
    empty = folder / "empty.nc"
    empty.write_bytes(b"")
    return {"missing": folder / "missing.nc", "folder": folder, "text": text, "foreign": foreign, "cut": cut,
            "empty": empty}


def test_wrong_files_give_one_clear_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = {
        "missing": "No such file or directory", "folder": "not a regular file", "text": "not HDF5",
        "foreign": "has no dataset 'dimension'", "cut": "cannot be read: ", "empty": "not HDF5",
    }
    for kind, path in broken_files(tmp_path).items():
        assert run("map", path) == (74 if kind == "missing" else 2), kind
        captured = capsys.readouterr()
        assert captured.out == ""
        line = rf"sgdmap-analysis: {re.escape(str(path))}: [^\n]*{expected[kind]}[^\n]*\n"
        assert re.fullmatch(line, captured.err), (kind, captured.err)


def test_select(sweep_file):
    sweep = open_sweep(sweep_file({"step_size": np.geomspace(1e-4, 1, 5), "link": ["identity", "none"],
                                   "init_scale": [0.1, 0.1 + 0.2]}))
    assert select(sweep, {"step_size": [0.01]}).step_size.size == 1
    assert select(sweep, {"init_scale": [0.3]}).init_scale.size == 1  # is 0.30000000000000004 in the file
    assert select(sweep, {"init_scale": slice(0.2, 0.3)}).init_scale.size == 1
    assert select(sweep, {"step_size": slice(0.001, 0.1)}).step_size.size == 3
    assert select(sweep, {"step_size": slice(None, 0.01)}).step_size.size == 3
    assert select(sweep, {"link": ["none"]}).link.values.tolist() == ["none"]
    for where, message in (({"step_size": [0.02]}, "no value 0.02; it has 0.0001"), ({"colour": [1]}, "not an axis"),
                           ({"link": slice(0, 1)}, "names"), ({"step_size": slice(2, 3)}, "no value of step_size")):
        with pytest.raises(ArgumentError, match=message):
            select(sweep, where)


def test_where_is_an_expression(sweep_file):
    sweep = open_sweep(sweep_file({"dimension": [10, 20, 50], "step_size": np.geomspace(1e-4, 1, 5), "link": ["identity", "none"]}))

    def sizes(*where):
        box, chosen = choose(sweep, where)
        return (box.dimension.values.tolist(), np.round(np.log10(box.step_size.values)).astype(int).tolist(),
                box.link.values.tolist(), chosen)

    both = sorted(sweep.link.values.tolist())
    assert sizes("dimension==50 and step_size<0.01") == ([50], [-4, -3], both, None)
    assert sizes("dimension != 50", "step_size=0.01:") == ([10, 20], [-2, -1, 0], both, None)
    assert sizes("1e-3 <= step_size <= 0.1 and link == none") == ([10, 20, 50], [-3, -2, -1], ["none"], None)
    assert sizes("not dimension in (10, 20)", "link in ('none',)")[:3] == ([50], [-4, -3, -2, -1, 0], ["none"])
    assert sizes("0.1 > step_size")[1] == [-4, -3, -2]  # 0.1 itself is not below it, whatever the log range made of it
    *box, chosen = sizes("dimension==10 and step_size<0.001 or dimension==50 and step_size>0.1")
    assert box == [[10, 50], [-4, 0], both] and chosen.transpose("dimension", "step_size").values.tolist() == [[True, False], [False, True]]
    with pytest.raises(ArgumentError, match="not a product of axes"):
        choose_box(sweep, ["dimension==10 or step_size==1"])


@pytest.mark.parametrize("where, count", [
    ('gradient=="population"', 1), ("gradient in (population, minibatch)", 2), ("data=online", 1), ("data == online", 1),
    ("data=0,1000", 2), ("data=1:", 2), ("online < data <= 1000", 1), ("noise=0", 1), ("noise>0", 2), ("noise=0.001:", 2),
    ("schedule=cosine", 1), ("schedule != constant and noise == 0.1", 1), ("teacher=gaussian", 1), ("teacher==gaussian", 1),
])
def test_where_knows_axes_beside_their_default(sweep_file, where, count):
    axes = {"gradient": ["minibatch", "population"], "data": [0, 1000, 5000], "noise": [0.0, 0.1, 1.0], "schedule": ["constant", "cosine"]}
    sweep = open_sweep(sweep_file(axes))
    box = choose_box(sweep, [where])
    name = re.search("[a-z]+(?= ?[=<>!]| in)", where)[0]
    assert box.sizes.get(name, 1) == count and "teacher" not in box.coords
    assert box.sizes["step_size"] == 3


def test_where_knows_axes_that_the_file_lacks(sweep_file, capsys):
    """All of its runs have the default."""
    path = sweep_file()
    sweep = open_sweep(path)
    for where in ("gradient=minibatch", "data=online", "data==0", "noise<=0", "schedule==constant", "teacher in (gaussian,)",
                  "teacher!=diagonal", "noise=0:1"):
        assert choose_box(sweep, [where]).identical(sweep), where
    assert choose_box(sweep, ["noise==0 and step_size<0.05"]).sizes["step_size"] == 2
    for where, message in (("gradient=population", "gradient has no value population; it has minibatch"),
                           ("data==100", "data has no value 100; it has online"), ("noise>0", "no setting fulfils 'noise>0'"),
                           ("schedule<1", "schedule has names"), ("data=offline", "'offline' is not a number"),
                           ("data==constant", "data is compared with a number")):
        assert run("map", path, "--json", "--where", where) == 2
        assert message in capsys.readouterr().err
    assert run("map", path, "--json", "--x", "noise") == 2
    assert ("'noise' is not an axis of this file, whose runs all have 0; the axes are dimension, batch_size, input"
            in capsys.readouterr().err)


@pytest.mark.parametrize("where, message", [
    ("dimension==11", "dimension has no value 11; it has 10, 20"), ("colour==1", "'colour' is not an axis; the axes are"),
    ("dimension==10 and dimension==20", "no setting fulfils"), ("dimension<step_size", "not with another axis"),
    ("link<1", "names"), ("link==1", "compared with a name"), ("dimension==ten", "compared with a number"), ("dimension", "comparison"),
    ("__import__('os').system('true')==1", "is not an axis"), ("dimension==(lambda: 1)()", "neither a number nor a name"),
    ("dimension in 10", "after 'in' a list"), ("dimension is 10", "of operators"), ("(" * 500, "neither an expression"),
    ("dimension==", "neither an expression"), ("", "neither an expression"), ("dimension==10" + " " * 5000, "longer"),
])
def test_where_says_what_is_wrong(sweep_file, capsys, where, message):
    assert run("map", sweep_file({"dimension": [10, 20]}), "--json", "--where", where) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""


# -- Statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k, n, low, high", [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                             (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_wilson_against_published_values(k, n, low, high):
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, Table I, method 3 (score, no continuity correction).
    assert wilson_interval(k, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_solves_the_score_equation():
    # Its definition: the bounds are the p at which |k/n - p| is z standard errors of p.
    for k, n in ((0, 4), (1, 4), (2, 4), (4, 4), (7, 30)):
        for p in wilson_interval(k, n, 0.9):
            assert (k / n - p) ** 2 == pytest.approx(1.6448536269514722**2 * p * (1 - p) / n, abs=1e-12)


def test_wilson_at_the_ends_and_without_trials():
    low, high = wilson_interval([0, 4, 0], [4, 4, 0])
    assert low.tolist()[::2] == [0, 0] and high.tolist()[1:] == [1, 1]
    for k, n, confidence in ((1, 0, 0.95), (-1, 2, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError):
            wilson_interval(k, n, confidence)


@pytest.mark.parametrize("n", [4, 10, 40])
def test_wilson_mean_coverage(n):
    # Over p uniform in [0, 1], the mean coverage of the 95 % score interval is 0.956, 0.954 and 0.952 for these n (by
    # summing the binomial); 200 000 draws have a standard error of 0.0005. The textbook interval has 0.58 at n = 4.
    random = np.random.default_rng(5)
    p = random.uniform(0, 1, 200_000)
    low, high = wilson_interval(random.binomial(n, p), n)
    assert np.mean((low <= p) & (p <= high)) == pytest.approx({4: 0.9556, 10: 0.9541, 40: 0.9520}[n], abs=0.002)


def by_replicate(*statuses):
    return lambda setting: (statuses[setting["replicate"]], 100, 1e-4)


@pytest.mark.parametrize("statuses, n, k, outcome, share", [
    (("converged", "converged", "diverged", "stalled"), 4, 2, "converged", 0.5),
    (("converged", "pending", "failed", "running"), 1, 1, "converged", 1.0),
    (("converged", "converged", "diverged", "diverged"), 4, 2, "diverged", 0.5),  # a tie is no convergence
    (("unfinished", "unfinished", "stalled", "failed"), 3, 0, "unfinished", 2 / 3),
    (("pending", "failed", "failed", "failed"), 0, 0, "pending", np.nan),
    (("failed",) * 4, 0, 0, "failed", np.nan),
])
def test_only_runs_with_an_outcome_count(sweep_file, statuses, n, k, outcome, share):
    sweep = open_sweep(sweep_file({"replicate": range(4)}, by_replicate(*statuses)))
    counts = outcome_counts(sweep.status)
    result = convergence(counts)
    assert (result.n == n).all() and (result.k == k).all()
    expected = k / n if n else np.nan
    np.testing.assert_array_equal(result.probability.values, np.full(result.n.shape, expected))
    assert float(result.low.max()) == wilson_interval(k, n)[0]
    most = most_frequent(counts)
    assert (most.most_frequent == outcome).all()
    np.testing.assert_allclose(most.share.values, share)
    assert int(counts.sum("outcome").max()) == 4


def test_medians_over_replicates(sweep_file):
    def model(setting):
        return [("converged", 100, 1e-4), ("converged", 300, 2e-4), ("diverged", 8, 1e-5), ("pending", 0, 0.0),
                ("unfinished", 1000, 0.5)][setting["replicate"]]

    cells = maps.cell_statistics(open_sweep(sweep_file({"replicate": range(5)}, model)), "step_size", "init_scale")
    assert (cells.converged_step == 200).all() and (cells.diverged_step == 8).all()
    np.testing.assert_allclose(cells.final_error.values, (2e-4 + 0.5) / 2)  # of 1e-4, 2e-4, 0.5, infinity


# -- Axes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values, scale", [
    (np.geomspace(1e-4, 1, 25), "log"), (np.linspace(0, 2, 9), "linear"), ([10, 20, 50], "log"), ([1, 2, 3], "linear"),
    ([5], "linear"), ([0.5, 2.0], "linear"), ([0, 1e-3, 1e-2, 1e-1, 1], "ordinal"), ([0, 0.5, 1, 2], "linear"),
    (["identity", "none"], "categorical"), (np.linspace(0.1, 1, 10), "linear"),
])
def test_scale_is_detected(values, scale):
    assert maps.axis_scale(np.array(values)) == scale


@pytest.mark.parametrize("name, values, scale", [
    ("data", [0, 100], "ordinal"), ("data", [0, 1000, 2000, 3000], "ordinal"), ("data", [100, 1000, 10000], "log"),
    ("noise", [0.0, 0.01, 0.1, 1.0], "ordinal"), ("noise", [0.0, 0.1, 0.2, 0.3], "linear"), ("data", [0], "linear")])
def test_scales_with_a_zero(name, values, scale):
    assert maps.Axis.of(name, np.array(values)).scale == scale


def test_edges():
    np.testing.assert_allclose(maps.cell_edges(np.array([0.0, 1.0, 2.0]), "linear"), [-0.5, 0.5, 1.5, 2.5])
    np.testing.assert_allclose(maps.cell_edges(np.array([0.0, 1.0, 3.0]), "linear"), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(maps.cell_edges(np.array([1e-2, 1e-1, 1.0]), "log"), 10.0 ** np.arange(-2.5, 1))
    np.testing.assert_allclose(maps.cell_edges(np.array([1.0, 10.0, 1000.0]), "log"),
                               10.0 ** np.array([-0.5, 0.5, 2, 4]))
    for scale, value in (("linear", 0.0), ("linear", 5.0), ("log", 0.01)):
        low, high = maps.cell_edges(np.array([value]), scale)
        assert low < value < high


def test_default_axes(sweep_file):
    def chosen(grid, x=None, y=None):
        return maps.choose_axes(open_sweep(sweep_file(grid)), x, y)

    assert chosen({"dimension": range(1, 9)}) == ("step_size", "init_scale")
    assert chosen({"dimension": range(1, 9), "init_scale": [1.0]}) == ("step_size", "dimension")
    assert chosen({"teacher_norm": [1, 2, 3], "step_size": [0.1], "init_scale": [1.0]})[0] == "teacher_norm"
    assert chosen({}, y="step_size") == ("init_scale", "step_size")
    with pytest.raises(ArgumentError, match="both"):
        chosen({}, "step_size", "step_size")


def test_half_contour_lies_between_the_cells():
    x, y = maps.Axis.of("step_size", np.geomspace(1e-4, 1, 5)), maps.Axis.of("init_scale", np.linspace(0, 2, 3))
    probability = np.tile([1.0, 1.0, 0.0, 0.0, 0.0], (3, 1))
    [(line_x, line_y)] = maps.half_contour(x, y, probability)
    np.testing.assert_allclose(line_x, 10**-2.5)  # geometrically between 1e-3 and 1e-2
    assert sorted(line_y)[0] == -0.5 and sorted(line_y)[-1] == 2.5  # from frame to frame
    assert maps.half_contour(x, y, np.ones((3, 5))) == []
    assert maps.half_contour(x, y, np.full((3, 5), np.nan)) == []
    assert maps.half_contour(x, maps.Axis.of("link", np.array(["a", "b", "c"])), probability) == []


def test_no_line_is_drawn_between_fresh_samples_and_a_small_training_set():
    x = maps.Axis.of("step_size", np.geomspace(1e-3, 1, 4))
    y = maps.Axis.of("data", np.array([0, 100, 1000]))
    probability = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 0.0]])
    lines = maps.half_contour(x, y, probability)
    # Of fresh samples a line up and down; of the others one from the side, along 100 and 1000, to the top.
    online = [line for line in lines if max(line[1]) <= 0.5]
    assert len(online) == 1 and set(np.round(online[0][1], 6)) == {-0.5, 0, 0.5}
    assert all(min(line[1]) > 0.5 for line in lines if line is not online[0])
    same = maps.half_contour(x, maps.Axis.of("noise", np.array([0, 0.1, 0.2])), probability)
    assert len(same) == 2  # where something lies between


# -- Maps --------------------------------------------------------------------------------------------------------------


def drawn(path, *arguments) -> np.ndarray:
    """The picture's pixels [height, width, 3]."""
    out = path.with_suffix(".png")
    assert run("map", path, "-o", out, *arguments) == 0
    return imread(str(out))[..., :3]


def share_of(picture: np.ndarray, colour: str) -> float:
    return float((np.abs(picture - to_rgb(colour)).max(axis=-1) < 2 / 255).mean())


@pytest.mark.parametrize("quantity", [*maps.QUANTITIES, "probability,outcome", ",".join(maps.QUANTITIES)])
@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_each_quantity_and_format(realistic_file, tmp_path, capsys, quantity, ending):
    if ending != "png" and "," in quantity:
        pytest.skip("layouts do not depend on the format")
    out = tmp_path / f"map.{ending}"
    arguments = ["--where", "teacher_norm=0.5", "--where", "step_size=1e-3:0.1"]
    assert run("map", realistic_file, "-o", out, "--quantity", quantity, "--dpi", 100, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n" and captured.err == ""
    assert list(tmp_path.iterdir()) == [out]
    data = out.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]) and len(data) > 5000
    if ending == "png":
        assert imread(str(out)).shape[1] == 550  # 5.5 in


def test_the_same_file_gives_the_same_bytes(realistic_file, tmp_path):
    for ending in ("png", "pdf", "svg"):
        for name in ("a", "b"):
            assert run("map", realistic_file, "-o", tmp_path / f"{name}.{ending}", "--where", "dimension=10", "--where",
                       "teacher_norm=2", "--where", "init_scale=0:0.5") == 0
        data = (tmp_path / f"a.{ending}").read_bytes()
        assert data == (tmp_path / f"b.{ending}").read_bytes(), ending
        assert b"CreationDate" not in data and b"dc:date" not in data  # both were drawn in one second


def test_cells_have_the_place_and_colour_of_their_outcome(sweep_file):
    # Converged below a step size of 0.05: two of three decades, in every row.
    cells = maps.cell_statistics(open_sweep(sweep_file({"init_scale": [0.0, 1.0, 2.0]})), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", ["outcome"])
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    ax = next(ax for ax in figure.axes if ax.get_label().startswith("panel"))
    for step_size, colour in ((1e-3, "converged"), (1e-2, "converged"), (0.03, "converged"), (0.04, "diverged"),
                              (0.1, "diverged")):
        for init_scale in (-0.4, 0.0, 2.4):
            across, up = ax.transData.transform((step_size, init_scale))
            pixel = pixels[int(pixels.shape[0] - up), int(across)]
            np.testing.assert_allclose(pixel, to_rgb(style.OUTCOME_COLOURS[colour]), atol=1.5 / 255, err_msg=str(
                (step_size, init_scale)))
    assert ax.get_xscale() == "log" and ax.get_yscale() == "linear"
    np.testing.assert_allclose(ax.get_xlim(), [10**-3.5, 10**-0.5])


def test_runs_without_an_outcome_never_look_unconverged(sweep_file):
    path = sweep_file({"step_size": [1e-3, 1e-2, 1e-1], "init_scale": [0.0, 1.0, 2.0]}, partial)
    picture = drawn(path, "--quantity", "probability", "--title", "")
    blue, grey = style.OUTCOME_COLOURS["converged"], style.OUTCOME_COLOURS["failed"]
    assert share_of(picture, blue) > 0.1 and share_of(picture, grey) > 0.1
    assert share_of(picture, style.NO_DATA) > 0.05  # the ground shows between the hatches
    cells = maps.cell_statistics(open_sweep(path), "step_size", "init_scale")
    for quantity in maps.QUANTITIES:
        words = {text.get_text() for text in maps.draw_map(cells, "step_size", "init_scale", [quantity]).texts}
        assert {"not run yet", "failed"} <= words
    diverging = sweep_file(model=by_replicate("diverged", "diverged"))
    unconverged = drawn(diverging, "--quantity", "probability", "--title", "")
    zero = "#f6f8fb"
    assert share_of(unconverged, zero) > 0.2 and share_of(picture, zero) < 0.01


@pytest.mark.parametrize("grid, arguments", [
    ({"link": ["identity", "none"], "input": ["gaussian", "sphere", "laplace"]}, ["--x", "input", "--y", "link"]),
    ({"init_scale": [1.0]}, []),
    ({"init_scale": [1.0], "step_size": [0.1]}, []),
    ({"init_scale": [0, 1e-3, 1e-2, 1e-1, 1]}, []),
    ({"replicate": range(4)}, ["--x", "step-size", "--y", "replicate"]),
    ({"dimension": range(1, 12)}, []),
    ({"dimension": [1, 2, 3], "teacher_norm": [1, 2], "link": ["identity", "none"]}, ["--width", "3.25"]),
], ids=["categorical", "one row", "one cell", "ordinal", "replicates", "wrapped", "three facets"])
def test_grids_of_every_kind(sweep_file, grid, arguments):
    picture = drawn(sweep_file(grid), "--dpi", 100, *arguments)
    assert picture.shape[1] == (325 if "--width" in arguments else 550)
    assert share_of(picture, "#ffffff") < 0.95


def words_of(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text()]


def test_axes_beside_their_default_are_told_in_words(sweep_file):
    axes = {"step_size": np.geomspace(1e-3, 1, 7), "noise": [0.0, 0.01, 0.1, 1.0], "schedule": ["constant", "inverse_time"],
            "teacher": ["low_rank"], "data": [0], "gradient": ["minibatch"]}
    sweep = open_sweep(sweep_file(axes)).isel(init_scale=[0])
    cells = maps.cell_statistics(sweep, "step_size", "noise")
    figure = maps.draw_map(cells, "step_size", "noise", ["probability"], title=common_settings(sweep))
    assert_tidy(figure)
    words = words_of(figure)
    assert {"constant schedule", "inverse-time schedule", r"label noise $\varepsilon$", r"step size $\eta$"} <= set(words)
    assert "minibatch gradient, online data" in words[0] + " ".join(words) and "low-rank teacher" in " ".join(words)
    assert {"0", "0.01", "0.1", "1"} <= set(words)
    sweep = open_sweep(sweep_file({"data": [0, 100, 1000], "step_size": np.geomspace(1e-3, 1, 7)})).isel(init_scale=[0])
    words = words_of(maps.draw_map(maps.cell_statistics(sweep, "step_size", "data"), "step_size", "data", ["outcome"]))
    assert {"online", "100", "1000", "training samples $N$"} <= set(words)


def test_without_minibatches_there_is_no_size_of_them():
    assert style.setting_text("batch_size", 0) == "no minibatch" and style.setting_text("batch_size", 5) == "$B$ = 5"
    assert style.setting_text("data", 5) == "$N$ = 5" and style.setting_text("noise", 0.0) == r"$\varepsilon$ = 0"
    assert style.setting_text("teacher", "gaussian") == "Gaussian teacher"
    assert style.setting_text("input", "student_t") == "Student $t_5$ input"


@pytest.mark.parametrize("x", ["noise", "data", "schedule", "gradient", "teacher"])
def test_maps_over_axes_beside_their_default(sweep_file, tmp_path, capsys, x):
    path = sweep_file({"noise": [0.0, 0.1], "data": [0, 1000], "schedule": ["constant", "cosine"], "teacher": ["orthogonal", "diagonal"],
                       "gradient": ["minibatch", "population"], "replicate": [0]})
    others = [("init_scale", "0"), *((name, value) for name, value in (("gradient", "population"), ("noise", "0"), ("data", "online"),
                                                                       ("teacher", "diagonal"), ("schedule", "cosine")) if name != x)]
    where = [word for name, value in others for word in ("--where", f"{name}={value}")]
    assert run("map", path, "--x", x, "--y", "step_size", "-o", tmp_path / "map.png", *where) == 0
    capsys.readouterr()
    assert run("map", path, "--x", x, "--y", "step_size", "--json", *where) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["x"]["name"] == x and len(numbers["x"]["values"]) == 2 and len(numbers["panels"]) == 1
    assert x != "data" or numbers["x"]["values"] == [0, 1000]  # numbers, not words


def assert_tidy(figure) -> None:
    """Nothing overlaps or leaves the page."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    boxes = [ax.get_tightbbox(renderer) for ax in figure.axes] + [t.get_window_extent(renderer) for t in figure.texts]
    for box in boxes:
        assert box.x0 >= page.x0 and box.y0 >= page.y0 and box.x1 <= page.x1 + 1 and box.y1 <= page.y1, box
    for one, other in itertools.combinations(boxes, 2):
        width, height = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        # 0.015 in: boxes of text include room below the line.
        assert min(width, height) <= 0.015 * figure.dpi, (one, other)


@pytest.mark.parametrize("arguments", [[], ["--width", "3.25"], ["--where", "dimension=10"], ["--quantity", "outcome"],
                                       ["--quantity", "steps,final_error"], ["--title", "a title " * 20],
                                       ["--cell", "1"], ["--cell", "5", "--quantity", "steps,final_error"],
                                       ["--cell", "4", "--dpi", "150", "--where", "dimension=10"],
                                       ["--cell", "9", "--width", "4", "--quantity", "steps"]])
def test_nothing_overlaps_or_leaves_the_page(realistic_file, arguments):
    parser = cli._parser()
    options = parser.parse_args(["map", str(realistic_file), *arguments])
    cells = maps.cell_statistics(choose_box(open_sweep(realistic_file), options.where), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", options.quantity, title=options.title or "",
                           width=options.width, dpi=options.dpi, cell=options.cell)
    assert_tidy(figure)


# -- Cells of whole pixels ---------------------------------------------------------------------------------------------

# Both axes uneven, so that cells of one size are no accident of their values; and even ones.
UNEVEN = {"dimension": [10, 20, 50], "replicate": [0], "step_size": [1e-3, 2e-3, 0.03, 0.04, 0.05, 0.9, 1.0],
          "init_scale": [0.0, 0.1, 1.0, 1.1, 2.0]}
EVEN = {**UNEVEN, "step_size": np.geomspace(1e-3, 1, 11), "init_scale": np.linspace(0, 2, 6)}


def irregular(setting):
    """A pattern without symmetry, different in each panel: outcomes and steps from a hash of the setting."""
    bits = zlib.crc32(f"{setting['dimension']} {setting['step_size']:.9g} {setting['init_scale']:.9g}".encode())
    return ("converged", "diverged", "stalled", "unfinished")[bits % 4], 10 + bits % 97, 1e-4


def expected_cells(grid, dimension, quantity, cell) -> np.ndarray:
    """Pixels [height, width, 3] of a panel as the model says: rows from the top, so the largest init_scale first."""
    runs = [[irregular({"dimension": dimension, "step_size": step_size, "init_scale": init_scale})[:2]
             for step_size in grid["step_size"]] for init_scale in reversed(grid["init_scale"])]
    if quantity == "outcome":
        colours = [[to_rgb(style.OUTCOME_COLOURS[status]) for status, _ in row] for row in runs]
    else:
        every = [irregular({"dimension": d, "step_size": s, "init_scale": i})[:2]
                 for d in grid["dimension"] for s in grid["step_size"] for i in grid["init_scale"]]
        colours = [[to_rgb(style.NEITHER)] * len(row) for row in runs]
        for outcome, cmap in (("converged", style.CONVERGENCE_STEPS), ("diverged", style.DIVERGENCE_STEPS)):
            steps = [count for status, count in every if status == outcome]
            norm = LogNorm(min(steps), max(steps))
            for colour_row, row in zip(colours, runs):
                for i, (status, count) in enumerate(row):
                    if status == outcome:
                        colour_row[i] = cmap(norm(count))[:3]
    pixels = np.round(255 * np.array(colours)).astype(np.uint8)
    return np.kron(pixels, np.ones((cell, cell, 1), dtype=np.uint8))


def places(picture: np.ndarray, block: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of each place where the block stands in the picture, pixel for pixel."""
    height, width = block.shape[:2]
    starts = np.argwhere((picture[: len(picture) - height + 1, : picture.shape[1] - width + 1] == block[0, 0]).all(-1))
    return [(r, c) for r, c in starts.tolist() if (picture[r : r + height, c : c + width] == block).all()]


def pixels_of(path: Path) -> np.ndarray:
    return np.round(255 * imread(str(path))[..., :3]).astype(np.uint8)


@pytest.mark.parametrize("grid", [UNEVEN, EVEN], ids=["uneven", "even"])
@pytest.mark.parametrize("cell", [1, 2, 3])
@pytest.mark.parametrize("arguments", [[], ["--dpi", "217"], ["--width", "3.3"]], ids=["", "dpi", "width"])
def test_each_cell_has_its_block_of_pixels(sweep_file, tmp_path, monkeypatch, grid, cell, arguments):
    if "--width" in arguments:
        monkeypatch.setattr(maps, "_MIN_DPI", 1)  # the grid is small, to be checked in full
    out = tmp_path / "map.png"
    path = sweep_file(grid, irregular)
    assert run("map", path, "-o", out, "--cell", cell, "--quantity", "outcome,steps", *arguments) == 0
    picture = pixels_of(out)
    ink = np.round(255 * np.array(to_rgb(style.INK)))
    corners = {}
    for quantity, dimension in itertools.product(("outcome", "steps"), grid["dimension"]):
        block = expected_cells(grid, dimension, quantity, cell)
        found = places(picture, block)
        assert len(found) == 1, (quantity, dimension, found)
        row, column = corners[quantity, dimension] = found[0]
        # The frame: whole pixels, around the cells and not on them.
        ring = picture[row - 1 : row + block.shape[0] + 1, column - 1 : column + block.shape[1] + 1].copy()
        ring[1:-1, 1:-1] = ink
        assert (ring == ink).all(), (quantity, dimension)
    first, *others = (corners["outcome", dimension] for dimension in grid["dimension"])
    assert all(row == first[0] for row, _ in others)
    assert first[1] < others[0][1] < others[1][1]
    if "--width" in arguments:
        assert abs(picture.shape[1] - 3.3 * dots_an_inch(out)) <= 1
    if "--dpi" in arguments:
        assert dots_an_inch(out) == pytest.approx(217, abs=0.1)


def dots_an_inch(path: Path) -> float:
    with PIL.Image.open(path) as image:
        return image.info["dpi"][0]


@pytest.mark.parametrize("grid", [UNEVEN, EVEN], ids=["uneven", "even"])
def test_ticks_stand_at_the_middle_of_their_cells(sweep_file, grid):
    cells = maps.cell_statistics(open_sweep(sweep_file(grid, irregular)), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", ["outcome"], cell=40)
    figure.canvas.draw()
    panel = next(ax for ax in figure.axes if ax.get_label().startswith("panel"))
    for name, mpl_axis, along in (("step_size", panel.xaxis, 0), ("init_scale", panel.yaxis, 1)):
        checked = 0
        for position, label in zip(mpl_axis.get_majorticklocs(), mpl_axis.get_majorticklabels()):
            middle = {style.value_text(value): 40 * (i + 0.5) for i, value in enumerate(grid[name])}
            middle |= {"$10^{-3}$": 20, "$10^{0}$": 40 * (len(grid[name]) - 0.5)} if along == 0 else {}
            if label.get_text() in middle:
                at = panel.transData.transform((position, position))[along] - panel.bbox.min[along]
                assert at == pytest.approx(middle[label.get_text()], abs=0.5), (name, label.get_text())
                checked += 1
        assert checked >= 2, name


@pytest.mark.parametrize("cell", [None, 1, 30])
@pytest.mark.parametrize("quantities", [["steps"], ["steps", "outcome"], ["final_error", "steps", "probability"]])
def test_keys_of_all_outcomes_stay_on_the_page(sweep_file, cell, quantities):
    cells = maps.cell_statistics(open_sweep(sweep_file(EVEN, irregular)), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", quantities, title="a title", cell=cell)
    assert_tidy(figure)
    words = " ".join(text.get_text() for text in figure.texts)
    assert "neither: stalled or unfinished" in words.replace("\n", " ")


def test_cells_hide_under_nothing(sweep_file, tmp_path):
    # The line where the probability is 1/2 would lie on cells; without --cell it is drawn.
    grid = {"step_size": np.geomspace(1e-3, 1, 9), "init_scale": [0.0, 1.0, 2.0, 3.0]}
    path, out = sweep_file(grid), tmp_path / "map.png"
    block = np.empty((4 * 6, 9 * 6, 3), dtype=np.uint8)
    block[:, : 5 * 6] = np.round(255 * np.array(to_rgb(style.OUTCOME_COLOURS["converged"])))  # below 0.05
    block[:, 5 * 6 :] = (0xF6, 0xF8, 0xFB)
    assert run("map", path, "-o", out, "--cell", 6, "--quantity", "probability") == 0
    assert len(places(pixels_of(out), block)) == 1
    cells = maps.cell_statistics(open_sweep(path), "step_size", "init_scale")
    for cell, lines in ((None, 1), (6, 0)):
        figure = maps.draw_map(cells, "step_size", "init_scale", ["final_error"], cell=cell)
        words = " ".join(text.get_text() for text in figure.texts)
        assert [len(ax.lines) for ax in figure.axes if ax.get_label().startswith("panel")] == [lines]
        assert ("line: probability" in words) == bool(lines)


def test_runs_to_come_show_the_ground_in_cells(sweep_file, tmp_path):
    path = sweep_file({"step_size": [1e-3, 1e-2, 1e-1], "init_scale": [0.0, 1.0]}, partial)
    assert run("map", path, "-o", tmp_path / "map.png", "--cell", 40, "--quantity", "outcome") == 0
    picture = pixels_of(tmp_path / "map.png")
    known = np.empty((80, 80, 3), dtype=np.uint8)
    for column, outcome in enumerate(("converged", "failed")):
        known[:, 40 * column : 40 * column + 40] = np.round(255 * np.array(to_rgb(style.OUTCOME_COLOURS[outcome])))
    [(row, column)] = places(picture, known)
    ground = picture[row : row + 80, column - 40 : column] / 255
    assert share_of(ground, style.NO_DATA) > 0.3 and ground.min() > 0.6  # pale, and hatched


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_many_cells_are_one_pixel_each_in_vector_files(sweep_file, tmp_path, monkeypatch, ending):
    monkeypatch.setattr(maps, "_RASTER_CELLS", 10)
    out = tmp_path / f"map.{ending}"
    assert run("map", sweep_file(EVEN, irregular), "-o", out, "--quantity", "outcome") == 0
    if ending == "pdf":
        assert out.read_bytes().count(b"/Width 11") == 3  # one image a panel
        return
    images = re.findall(r'<image[^>]*base64,([^"]+)"[^>]* transform="matrix\(([^)]*)\)"', out.read_text())
    for (data, matrix), dimension in zip(images, EVEN["dimension"], strict=True):
        across, _, _, down, *_ = (float(number) for number in matrix.split())
        image = np.round(255 * imread(io.BytesIO(base64.b64decode(data)))[..., :3])
        assert across > 0
        np.testing.assert_array_equal(image[:: 1 if down > 0 else -1], expected_cells(EVEN, dimension, "outcome", 1))


def long_axes(across: int, up: int) -> dict:
    return {"replicate": [0], "dimension": [10], "step_size": np.geomspace(1e-3, 1, across),
            "init_scale": np.linspace(0, 2, up)}


@pytest.mark.parametrize("across, up, block", [
    (90, 40, (1, 1)), (40, 90, (1, 1)),
    (90, 5, (1, 2)), (5, 90, (2, 1)),  # not to be threads
])
def test_one_pixel_a_cell_is_the_default_for_long_axes(sweep_file, tmp_path, across, up, block):
    # At 20 pixels an inch, the panel of 2.7 in has fewer pixels than 90.
    grid, out = long_axes(across, up), tmp_path / "map.png"
    assert run("map", sweep_file(grid, irregular), "-o", out, "--quantity", "outcome", "--dpi", 20) == 0
    expected = expected_cells(grid, 10, "outcome", 1).repeat(block[1], axis=0).repeat(block[0], axis=1)
    assert len(places(pixels_of(out), expected)) == 1


def test_the_default_begins_where_cells_outnumber_pixels(sweep_file):
    # Where cells and pixels are equally many or nearly so, no cell may get lost on either side of the choice.
    cells = {n: maps.cell_statistics(open_sweep(sweep_file(long_axes(n, 3), irregular)), "step_size", "init_scale")
             for n in range(48, 60)}
    fitted = []
    for n, statistics in cells.items():
        figure = maps.draw_map(statistics, "step_size", "init_scale", ["outcome"], dpi=20)
        [panel] = [ax for ax in figure.axes if ax.get_label().startswith("panel")]
        assert panel.bbox.width > n - 0.01
        fitted.append(bool(panel.images))
    assert fitted == sorted(fitted) and {False, True} == set(fitted)
    figure = maps.draw_map(statistics, "step_size", "init_scale", ["outcome"], dpi=20, vector=True)
    assert figure.get_size_inches()[0] == pytest.approx(3.25)  # formats without pixels have no such choice


def test_text_grows_with_the_map(sweep_file):
    cells = maps.cell_statistics(open_sweep(sweep_file(long_axes(60, 50), irregular)), "step_size", "init_scale")
    usual = maps.draw_map(cells, "step_size", "init_scale", ["steps"])
    assert usual.dpi == 300
    for cell in (5, 10, 30):
        figure = maps.draw_map(cells, "step_size", "init_scale", ["steps"], cell=cell)
        [panel] = [ax for ax in figure.axes if ax.get_label().startswith("panel")]
        assert panel.bbox.width == pytest.approx(60 * cell, abs=1e-3)
        assert panel.bbox.height == pytest.approx(50 * cell, abs=1e-3)
        np.testing.assert_allclose(panel.bbox.extents, np.round(panel.bbox.extents), atol=1e-3)
        # As wide as without --cell, in inches, and so in the size of its text.
        assert figure.get_size_inches()[0] == pytest.approx(3.25, abs=0.1)


@pytest.mark.parametrize("arguments, message", [
    (["--cell", "0"], "not a number in [1, 1000]"), (["--cell", "1.5"], "not a number in"),
    (["--cell", "wide"], "not a number in"),
    (["--cell", "2", "-o", "map.pdf"], "--cell counts the pixels of a .png"),
    (["--cell", "2", "-o", "map.svg"], "--cell counts the pixels of a .png"),
    (["--cell", "2", "--dpi", "300", "--width", "3"], "--cell, --width and --dpi are one too many"),
    (["--cell", "1", "--width", "3"], "too few for the text: leave it out, or use --cell "),
    (["--cell", "1000"], "is too large (at most 65535 a side"),
    (["--dpi", "20", "--width", "3"], "pixels for 70 values of step_size: leave one of them out"),
])
def test_cells_that_make_no_sense(sweep_file, tmp_path, monkeypatch, capsys, arguments, message):
    path = sweep_file(long_axes(70, 4))
    monkeypatch.chdir(tmp_path)
    assert run("map", path, "--quantity", "steps", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == [path]


def test_the_width_that_an_error_advises_is_wide_enough(sweep_file, tmp_path, capsys):
    path, out = sweep_file(long_axes(70, 40)), tmp_path / "map.png"
    assert run("map", path, "-o", out, "--cell", 1, "--width", 3) == 2
    advised = re.search(r"use --cell (\d+)", capsys.readouterr().err).group(1)
    assert run("map", path, "-o", out, "--cell", advised, "--width", 3) == 0
    assert dots_an_inch(out) >= 99.9


def test_too_many_panels(sweep_file, capsys):
    path = sweep_file({"dimension": range(1, 70)})
    assert run("map", path, "-o", path.with_suffix(".png")) == 2
    assert "69 panels (69 dimension) are too many" in capsys.readouterr().err


def test_large_meshes_are_images_in_vector_files(sweep_file, tmp_path, monkeypatch):
    path = sweep_file({"step_size": np.geomspace(1e-4, 1, 30), "init_scale": np.linspace(0, 2, 20), "replicate": [0]})
    sizes = []
    for cells in (10_000_000, 100):
        monkeypatch.setattr(maps, "_RASTER_CELLS", cells)
        assert run("map", path, "--quantity", "outcome", "-o", tmp_path / "map.svg") == 0
        text = (tmp_path / "map.svg").read_text()
        sizes.append((len(text), "<image" in text))
    assert not sizes[0][1] and sizes[1][1] and sizes[1][0] < sizes[0][0]


# -- Length of phase I, and how sure the boundary is ---------------------------------------------------------------------

PHASE1 = {"replicate": range(4), "step_size": [1e-3, 1e-2, 1e-1], "init_scale": [0.0, 1.0, 2.0]}


def phase1_file(sweep_file) -> Path:
    """By step size: phase I of 10, 20, 30 steps and once none; one phase II of four; divergence, once after a phase II."""
    def model(setting):
        if setting["step_size"] == 1e-1:
            return ("stalled" if setting["replicate"] == 0 else "diverged"), 1000, 0.5
        return ("converged" if setting["step_size"] == 1e-3 else "unfinished"), 1000, 1e-4

    def rows(setting):
        replicate = setting["replicate"]
        reached = {1e-3: [10, 20, 30, -1], 1e-2: [70, -1, -1, -1], 1e-1: [-1, 5, -1, -1]}
        return {"phase2_step": reached[setting["step_size"]][replicate]}

    return sweep_file(PHASE1, model, rows=rows)


def test_the_length_of_phase_one(sweep_file, capsys):
    path = phase1_file(sweep_file)
    assert run("map", path, "--json", "--quantity", "phase1") == 0
    [panel] = json.loads(capsys.readouterr().out)["panels"]
    # The run that diverged after a phase II has none that counts.
    assert panel["phase1"] == [[20, 70, None]] * 3 and panel["phase2_k"] == [[3, 1, 0]] * 3
    low, high = wilson_interval([3, 1, 0], 4)
    np.testing.assert_allclose(panel["phase2_low"], [low] * 3)
    np.testing.assert_allclose(panel["phase2_high"], [high] * 3)

    cells = maps.cell_statistics(open_sweep(path), "step_size", "init_scale")
    image = maps.layer("phase1", cells).image.squeeze().values
    expected = [maps.PHASE1_STEPS(0.5)[:3], to_rgb(style.NEITHER), to_rgb(style.OUTCOME_COLOURS["diverged"])]
    np.testing.assert_allclose(image[..., :3], [expected] * 3, atol=2e-2)
    assert (image[..., 3] == 1).all()
    words = {text.get_text() for text in maps.draw_map(cells, "step_size", "init_scale", ["phase1"]).texts}
    assert {"diverged", "no phase II", "Median length of phase I"} <= words


def test_a_file_without_phases_has_no_length_of_them(sweep_file, capsys):
    path = sweep_file()
    with h5py.File(path, "r+") as file:
        del file["phase2_step"]
    for arguments in (["--json"], ["-o", path.with_suffix(".png")]):
        assert run("map", path, "--quantity", "phase1", *arguments) == 2
        assert capsys.readouterr().err == "sgdmap-analysis: phase1: the file has no 'phase2_step'\n"
    assert run("map", path, "--json") == 0


def steps_down(setting):
    """Converges in 8, 8, 4, 0 and 0 of 8 replicates, by step size."""
    limit = {1e-4: 8, 1e-3: 8, 1e-2: 4, 1e-1: 0, 1.0: 0}[float(f"{setting['step_size']:.6g}")]
    return ("converged" if setting["replicate"] < limit else "stalled"), 100, 1e-4


@pytest.mark.parametrize("replicates, lines", [(8, 3), (2, 1), (1, 1)])
def test_the_boundary_s_uncertainty_is_drawn(sweep_file, replicates, lines):
    grid = {"step_size": np.geomspace(1e-4, 1, 5), "init_scale": [0.0, 1.0, 2.0], "replicate": range(replicates)}
    cells = maps.cell_statistics(open_sweep(sweep_file(grid, steps_down)), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", ["probability"])
    [panel] = [ax for ax in figure.axes if ax.get_label().startswith("panel")]
    words = " ".join(text.get_text() for text in figure.texts)
    assert len(panel.lines) == lines and ("dashed" in words) == (lines == 3)
    # Two runs never tell the side of 1/2: their interval is [0.34, 1] at best.
    assert ("no cell has enough runs" in words) == (replicates == 2)
    if lines == 3:
        # Each where the bound, a straight line over the logarithm between two cells, crosses 1/2.
        low, high = wilson_interval([8, 4, 0], 8)
        at_low = -3 + (low[0] - 0.5) / (low[0] - low[1])
        at_high = -2 + (high[1] - 0.5) / (high[1] - high[2])
        for line, at in zip(panel.lines, (at_low, at_high, -2)):
            np.testing.assert_allclose(np.log10(line.get_xdata()), at)
            assert line.is_dashed() == (line is not panel.lines[2])
    for quantity, cell, count in (("probability", 20, 0), ("final_error", 20, 0), ("final_error", None, 1)):
        other = maps.draw_map(cells, "step_size", "init_scale", [quantity], cell=cell)
        assert [len(ax.lines) for ax in other.axes if ax.get_label().startswith("panel")] == [count]
        assert "dashed" not in " ".join(text.get_text() for text in other.texts)


def test_cells_without_a_result_do_not_widen_the_boundary(sweep_file):
    # Their interval is [0, 1], which must not be drawn as if it had been measured.
    def model(setting):
        return ("pending", 0, 0.0) if setting["step_size"] > 5e-3 else ("converged", 100, 1e-4)

    grid = {"step_size": np.geomspace(1e-4, 1, 5), "init_scale": [0.0, 1.0, 2.0], "replicate": range(8)}
    cells = maps.cell_statistics(open_sweep(sweep_file(grid, model)), "step_size", "init_scale")
    figure = maps.draw_map(cells, "step_size", "init_scale", ["probability"])
    assert not any(ax.lines for ax in figure.axes if ax.get_label().startswith("panel"))


def test_stalled_and_unfinished_are_kept_apart(sweep_file, capsys):
    def model(setting):
        return ("stalled" if setting["step_size"] < 5e-3 else "unfinished"), 1000, 0.5

    path = sweep_file({"step_size": [1e-3, 1e-2], "replicate": range(4)}, model)
    assert run("map", path, "--json") == 0
    [panel] = json.loads(capsys.readouterr().out)["panels"]
    assert panel["most_frequent"] == [["stalled", "unfinished"]] * 2
    assert panel["counts"]["stalled"] == [[4, 0]] * 2 and panel["counts"]["unfinished"] == [[0, 4]] * 2
    picture = drawn(path, "--quantity", "outcome", "--title", "")
    for outcome in ("stalled", "unfinished"):
        assert share_of(picture, style.OUTCOME_COLOURS[outcome]) > 0.1
    cells = maps.cell_statistics(open_sweep(path), "step_size", "init_scale")
    words = {text.get_text() for text in maps.draw_map(cells, "step_size", "init_scale", ["outcome"]).texts}
    assert {"stalled", "unfinished"} <= words


# -- Colours -----------------------------------------------------------------------------------------------------------

# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, IEEE Trans. Vis. Comput. Graph. 15 (2009) 1291: severity 1,
# on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def cielab(rgb: np.ndarray, matrix=np.eye(3)) -> np.ndarray:
    """CIE L*a*b* (D65) [n, 3] of sRGB [n, 3] as seen through a deficiency."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(matrix)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.clip(linear, 0, 1) @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("share, distance", [(1.0, 20), (0.5, 15)])
def test_outcomes_are_told_apart(deficiency, share, distance):
    # A difference of 2.3 is just noticeable; 10 is clear at a glance.
    colours = np.array([to_rgb(colour) for colour in style.OUTCOME_COLOURS.values()])
    seen = cielab(style.tinted(colours, style.share_strength(np.full(len(colours), share))), DEFICIENCIES[deficiency])
    for one, other in itertools.combinations(range(4), 2):
        assert np.linalg.norm(seen[one] - seen[other]) > distance, (one, other)


def test_outcomes_differ_in_grey():
    lightness = cielab(np.array([to_rgb(colour) for colour in style.OUTCOME_COLOURS.values()]))[:4, 0]
    assert np.diff(np.sort(lightness)).min() > 10


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_steps_to_convergence_and_divergence_are_told_apart(deficiency):
    # Any two of them, and each from the cells of neither and from the ground: 10 is clear at a glance.
    matrix = DEFICIENCIES[deficiency]
    converged, diverged = (cielab(np.asarray(cmap.colors), matrix)
                           for cmap in (style.CONVERGENCE_STEPS, style.DIVERGENCE_STEPS))
    assert np.linalg.norm(converged[:, None] - diverged, axis=-1).min() > 35
    for other in (style.NEITHER, style.NO_DATA):
        blank = cielab(np.array([to_rgb(other)]), matrix)
        assert min(np.linalg.norm(ramp - blank, axis=-1).min() for ramp in (converged, diverged)) > 15


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_lengths_of_phase_one_are_told_from_all_else(deficiency):
    matrix = DEFICIENCIES[deficiency]
    lengths = cielab(np.asarray(maps.PHASE1_STEPS.colors), matrix)
    for other in (style.OUTCOME_COLOURS["diverged"], style.NEITHER, style.NO_DATA):
        assert np.linalg.norm(lengths - cielab(np.array([to_rgb(other)]), matrix), axis=-1).min() > 20


@pytest.mark.parametrize("cmap", [style.PROBABILITY, style.CONVERGENCE_STEPS, style.DIVERGENCE_STEPS, maps.PHASE1_STEPS])
def test_ramps_are_uniform_and_monotone(cmap):
    lab = cielab(np.asarray(cmap.colors))
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.max() / steps.min() < 2.5  # matplotlib's jet has 40
    assert (np.diff(lab[:, 0]) > 0).all() or (np.diff(lab[:, 0]) < 0).all()


# -- The command -------------------------------------------------------------------------------------------------------


def test_json_has_the_numbers(sweep_file, capsys, monkeypatch, tmp_path):
    path = sweep_file({"dimension": [10, 20], "step_size": [1e-3, 1e-2, 1e-1]}, partial)
    monkeypatch.chdir(tmp_path)
    assert run("map", path, "--json", "--confidence", "0.9", "--quantity", "probability,steps") == 0
    captured = capsys.readouterr()
    numbers = json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert captured.err == "" and numbers["picture"] is None and list(tmp_path.glob("*.png")) == []
    assert numbers["x"] == {"name": "step_size", "scale": "log", "values": [1e-3, 1e-2, 1e-1]}
    assert numbers["y"]["values"] == [0, 1] and numbers["replicates"] == [0, 1]
    assert [panel["where"]["dimension"] for panel in numbers["panels"]] == [10, 20]
    panel = numbers["panels"][0]
    low, high = wilson_interval(2, 2, 0.9)
    assert panel["n"] == [[0, 2, 0]] * 2 and panel["k"] == [[0, 2, 0]] * 2
    assert panel["probability"] == [[None, 1, None]] * 2
    assert panel["low"] == [[0, low, 0]] * 2 and panel["high"] == [[1, high, 1]] * 2
    assert panel["most_frequent"] == [["pending", "converged", "failed"]] * 2
    assert panel["counts"]["running"] == [[1, 0, 0]] * 2
    assert panel["converged_step"] == [[None, 500, None]] * 2 and "final_error" not in panel

    assert run("map", path, "--json", "-o", "out.png") == 0
    assert json.loads(capsys.readouterr().out)["picture"] == "out.png" and Path("out.png").exists()


def test_where_keeps_some_values(sweep_file, capsys):
    path = sweep_file({"dimension": [10, 20, 50], "link": ["identity", "none"]})
    assert run("map", path, "--json", "--where", "dimension=10,50", "--where", "link=none", "--where",
               "step-size=:0.01", "--where", "replicate=1") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert [panel["where"]["dimension"] for panel in numbers["panels"]] == [10, 50]
    assert numbers["x"]["values"] == [1e-3, 1e-2] and numbers["replicates"] == [1]
    assert numbers["panels"][0]["n"] == [[1, 1], [1, 1]]


@pytest.mark.parametrize("arguments, message", [
    (["--x", "colour"], "'colour' is not an axis"), (["--quantity", "loss"], "not one of probability"),
    (["--where", "dimension"], "nor AXIS=VALUE"), (["--where", "dimension=ten"], "'ten' is not a number"),
    (["--where", "dimension=11"], "dimension has no value 11"), (["-o", "map.gif"], ".png, .pdf, .svg"),
    (["--x", "link", "--y", "link"], "both link"), (["--width", "0"], "not a number in"), (["--unknown"], "--unknown"),
    (["--confidence", "95"], "not a number in"),
])
def test_bad_arguments(sweep_file, capsys, arguments, message):
    assert run("map", sweep_file(), *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
    assert "Traceback" not in captured.err


def test_a_picture_that_cannot_be_written(sweep_file, capsys, tmp_path):
    assert run("map", sweep_file(), "-o", tmp_path / "nowhere" / "map.png") == 74
    assert "No such file or directory" in capsys.readouterr().err


def test_a_picture_is_written_whole_or_not_at_all(sweep_file, capsys, tmp_path, monkeypatch):
    path = sweep_file()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run("map", path, "-o", tmp_path / "map.png") == 74
    assert capsys.readouterr().err == f"sgdmap-analysis: {tmp_path / 'map.png'}: No space left on device\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_runs_through_a_symlink(sweep_file, tmp_path):
    assert COMMAND.stat().st_mode & stat.S_IXUSR
    link = tmp_path / "bin" / "sgdmap-analysis"
    link.parent.mkdir()
    link.symlink_to(COMMAND)
    path = sweep_file(model=converges_at_small_steps)
    done = subprocess.run([link, "map", path], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sweep-map.png\n", "")
    assert (tmp_path / "sweep-map.png").stat().st_size > 5000


@pytest.mark.parametrize("arguments", [(), ("maps",), ("map",), ("map", "FILE", "--x", "foo"), ("map", "FILE", "--where", "foo=1"),
                                       ("map", "FILE", "--quantity", "speed"), ("map", "FILE", "--dpi", "0"), ("export", "FILE"),
                                       ("boundary", "FILE", "--axis", "foo"), ("map", "FILE", "--colour")])
def test_wrong_arguments_are_one_line(sweep_file, capsys, arguments):
    path = sweep_file()
    assert run(*(path if argument == "FILE" else argument for argument in arguments)) == 2
    message = capsys.readouterr().err
    assert message.startswith("sgdmap-analysis") and len(message.splitlines()) == 1 and "-h explains" in message


def test_help_and_version(capsys):
    for arguments in (["-h"], ["map", "-h"]):
        assert run(*arguments) == 0
        assert "usage: sgdmap-analysis" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"sgdmap-analysis {__version__}\n"
    assert run() == 2
    meson = (COMMAND.parent.parent / "meson.build").read_text()
    assert re.search(r"version: '([^']+)'", meson).group(1) == __version__


def test_both_xarray_engines_open_the_writer_s_file(sweep_file):
    # The writer above is a test of nothing if its files are not what the contract says: valid netCDF-4.
    path = sweep_file()
    for engine in ("netcdf4", "h5netcdf"):
        with xr.open_dataset(path, engine=engine) as flat:
            assert flat.loss.dims == ("run", "step") and flat.sizes == {"run": 12, "step": 5}
