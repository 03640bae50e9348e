"""Shared by the Python tests: the package's place, and a writer of result files that follows the contract."""
from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "analysis"))
sys.dont_write_bytecode = True

import sgdmap_analysis  # noqa: E402, F401  (first: it turns HDF5's file locking off)

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

OUTCOMES = ("pending", "running", "converged", "diverged", "stalled", "unfinished", "failed")
FLAGS = {
    "link": ("identity", "none"),
    "input": ("gaussian", "sphere", "student_t", "laplace", "uniform", "rademacher"),
    "gradient": ("minibatch", "population"),
    "teacher": ("gaussian", "orthogonal", "low_rank", "diagonal"),
    "schedule": ("constant", "inverse_time", "cosine"),
    "status": OUTCOMES,
    "message": ("none", "out_of_memory"),
}
AXES = ("dimension", "batch_size", "input", "replicate", "teacher_norm", "link", "step_size", "init_scale")
# Those that a file has only where a run is not at their default, among the others in the runs' nesting.
ALL_AXES = ("dimension", "batch_size", "gradient", "data", "input", "replicate", "teacher", "teacher_norm", "link", "noise",
            "schedule", "step_size", "init_scale")
FIELDS = ("loss", "batch_loss", "error", "potential", "potential_norm", "alignment", "gradient_norm", "weight_norm")
DEFAULTS: dict[str, Sequence[Any]] = {
    "dimension": [10], "batch_size": [200], "input": ["gaussian"], "replicate": range(2), "teacher_norm": [1.0],
    "link": ["identity"], "step_size": [1e-3, 1e-2, 1e-1], "init_scale": [0.0, 1.0],
}

Model = Callable[[Mapping[str, Any]], tuple[str, int, float]]


def converges_at_small_steps(setting: Mapping[str, Any]) -> tuple[str, int, float]:
    """(status, steps done, final error) of a run: the simplest rule with two outcomes."""
    return ("converged", 500, 1e-4) if setting["step_size"] < 0.05 else ("diverged", 7, 1e9)


def write_sweep(
    path: Path,
    axes: Mapping[str, Sequence[Any]] | None = None,
    model: Model = converges_at_small_steps,
    *,
    steps: Sequence[int] = (0, 1, 10, 100, 1000),
    order: Sequence[int] | None = None,
    fields: Sequence[str] = FIELDS,
    settings: Sequence[Mapping[str, Any]] | None = None,
    rows: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Path:
    """Write a result file with the layout of README's "The file": flat over runs, dimension scales, CF flags, fill values.

    `axes` may have any of ALL_AXES; the file has those of AXES and these. `order` permutes the runs of the grid;
    `settings` replaces the grid's product. The loss of run r at record s is r + s/1000 (so that a test knows every
    value), the other fields the loss times their place in FIELDS plus 1. Runs without an outcome keep fill values, diverged ones have NaN after the second record. `rows` gives, by a run's setting,
    what other values some datasets have: trajectories [steps] by their names, or `phase2_step`.
    """
    grid = {**DEFAULTS, **(axes or {})}
    names = [name for name in ALL_AXES if name in grid]
    if settings is None:
        settings = [dict(zip(names, values)) for values in itertools.product(*(grid[name] for name in names))]
    if order is not None:
        settings = [settings[i] for i in order]
    results = [model(setting) for setting in settings]
    runs, records = len(settings), len(steps)

    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["Conventions"] = "CF-1.8"
        file.attrs["title"] = "synthetic sweep"
        file.attrs["source"] = "sgdmap 0.1.0 (git 0000000)"
        file.attrs["config"] = "seed: 1\n"
        file.attrs["config_digest"] = "0123456789abcdef0123456789abcdef"
        file.attrs["ranks"] = np.int32(1)
        file.attrs["format_version"] = np.int32(1)

        def put(name: str, values: np.ndarray, dims: Sequence[str], long_name: str, fill: Any = None) -> None:
            dataset = file.create_dataset(name, values.shape, values.dtype, fillvalue=fill, track_order=True)
            dataset[...] = values
            dataset.attrs["long_name"] = long_name
            dataset.attrs["units"] = "s" if name == "wall_time" else "1"
            if fill is not None:
                dataset.attrs["_FillValue"] = np.asarray([fill], values.dtype)
            if name in FLAGS:
                dataset.attrs["flag_values"] = np.arange(len(FLAGS[name]), dtype=np.int8)
                dataset.attrs["flag_meanings"] = " ".join(FLAGS[name])
            if name in ("run", "step"):
                dataset.make_scale(name)
            else:
                for i, dim in enumerate(dims):
                    dataset.dims[i].attach_scale(file[dim])
                if name not in names:
                    dataset.attrs["coordinates"] = " ".join(names)

        put("run", np.arange(runs, dtype=np.int64), ("run",), "run id")
        put("step", np.asarray(steps, dtype=np.int64), ("step",), "SGD step of each record")
        for name in names:
            values = [setting[name] for setting in settings]
            if name in FLAGS:
                stored = np.array([FLAGS[name].index(value) for value in values], dtype=np.int8)
            else:
                integer = name in ("dimension", "batch_size", "data", "replicate")
                stored = np.array(values, dtype=np.int64 if integer else np.float64)
            put(name, stored, ("run",), name.replace("_", " "))

        status = np.array([OUTCOMES.index(result[0]) for result in results], dtype=np.int8)
        done = np.isin(status, [OUTCOMES.index(name) for name in OUTCOMES[2:6]])
        steps_done = np.array([result[1] for result in results], dtype=np.int64)
        final_error = np.array([result[2] for result in results])
        converged = status == OUTCOMES.index("converged")
        put("status", status, ("run",), "outcome of the run")
        put("message", np.where(status == OUTCOMES.index("failed"), 1, 0).astype(np.int8), ("run",), "why it failed")
        loss = np.arange(runs)[:, None] + np.arange(records)[None, :] / 1000.0
        loss[status == OUTCOMES.index("diverged"), 2:] = np.nan
        loss[~done] = np.nan
        own = [rows(setting) if rows and done[r] else {} for r, setting in enumerate(settings)]
        for i, name in enumerate(FIELDS):
            if name in fields:
                values = loss * (i + 1)
                for r, row in enumerate(own):
                    if name in row:
                        values[r] = row[name]
                put(name, values, ("run", "step"), f"{name} along the trajectory", np.nan)
        put("steps_done", np.where(done, steps_done, -1), ("run",), "steps done", -1)
        put("converged_step", np.where(converged, steps_done, -1), ("run",), "first step within tolerance", -1)
        phase2_step = np.where(converged, steps_done // 2, -1)
        for r, row in enumerate(own):
            phase2_step[r] = row.get("phase2_step", phase2_step[r])
        put("phase2_step", phase2_step, ("run",), "start of phase II", -1)
        put("final_error", np.where(done, final_error, np.nan), ("run",), "error at the last step done", np.nan)
        final_loss = np.where(done, np.minimum(final_error, 1e150) ** 2, np.nan)
        put("final_loss", final_loss, ("run",), "loss at the last step done", np.nan)
        put("wall_time", np.where(done, 0.5, np.nan), ("run",), "wall time of this run's share", np.nan)
        put("rank", np.where(done, 0, -1).astype(np.int32), ("run",), "rank that wrote the run", -1)
        put("checksum", np.where(done, 2**63 + np.arange(runs, dtype=np.uint64), 0).astype(np.uint64), ("run",),
            "checksum of the run's rows")
    return path


def realistic_model(seed: int = 3) -> Model:
    """A landscape like those of two-layer ReLU networks: divergence above a step size that falls with d and the
    weights' norms, convergence below it unless the start is too far, too few steps at the smallest step sizes."""
    random = np.random.default_rng(seed)

    def model(setting: Mapping[str, Any]) -> tuple[str, int, float]:
        d, norm = setting["dimension"], setting["teacher_norm"]
        eta, scale = setting["step_size"], setting["init_scale"]
        noise = random.normal(0, 0.12, 4)
        limit = 1.1 / d * (1 + 0.6 * norm) ** -0.7 / (1 + 0.35 * scale**2) * np.exp(noise[0])
        if eta > limit:
            return "diverged", int(3 + 40 * (eta / limit - 1) ** -0.8), 10 ** min(300.0, 3 + 2 * eta / limit)
        needed = 9.0 / eta * (1 + 0.5 * scale) * np.exp(noise[1])
        if scale + 0.35 * norm > 2.35 - 0.012 * d + 0.5 * noise[2]:
            return "stalled", 20000, 0.35 * np.exp(noise[3])
        if needed > 20000:
            return "unfinished", 20000, float(np.exp(-9.0 * 20000 / needed) * 1.2 + 1.1e-3)
        return "converged", int(needed), 9.8e-4
    return model


def realistic_axes() -> dict[str, Sequence[Any]]:
    """2 x 2 panels of 25 x 17 cells and 4 replicates: 6800 runs."""
    return {
        "dimension": [10, 50], "teacher_norm": [0.5, 2.0], "replicate": range(4),
        "step_size": np.geomspace(1e-4, 1.0, 25), "init_scale": np.linspace(0, 2, 17),
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """SGDMAP_SAMPLE=3 keeps every third test: for the sanitizers, under which most of a test is start-up."""
    every = int(os.environ.get("SGDMAP_SAMPLE", "1"))
    items[:], left_out = items[::every], [item for at, item in enumerate(items) if at % every]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """write_sweep into this test's folder."""
    return lambda *args, name="sweep.nc", **kwargs: write_sweep(tmp_path / name, *args, **kwargs)


@pytest.fixture(scope="session")
def realistic_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only: shared by all tests."""
    return write_sweep(tmp_path_factory.mktemp("realistic") / "realistic.nc", realistic_axes(), realistic_model())


@pytest.fixture(scope="session", autouse=True)
def _matplotlib_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["MPLCONFIGDIR"] = str(tmp_path_factory.mktemp("matplotlib"))
