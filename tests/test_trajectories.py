"""Trajectories, against rows whose every value is known."""
from __future__ import annotations

import json

import h5py
import matplotlib.image
import numpy as np
import pytest

from sgdmap_analysis import cli, open_sweep, trajectories
from sgdmap_analysis.where import choose

STEPS = (0, 1, 10, 100, 1000)


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


def rows(setting):
    r = setting["replicate"]
    row = np.array([4.0, 3, 2, 1, 0.5]) + r
    if r == 1:
        row[3:] = np.nan  # converged at step 10
    return {"error": row, "alignment": np.array([-1.0, 0, 0.1, 0.2, 0.3]) * (r + 1), "phase2_step": 10 * (r + 1)}


def model(setting):
    return {0: ("unfinished", 1000, 0.5), 1: ("converged", 10, 1e-4), 2: ("stalled", 1000, 0.5), 3: ("diverged", 7, 1e9),
            4: ("failed", 0, 0.0), 5: ("pending", 0, 0.0)}[setting["replicate"]]


def test_quantiles_are_values_and_take_infinities():
    values = np.array([[3.0, 1, 2, np.nan], [np.inf, 1, np.inf, 2], [np.nan] * 4])
    assert trajectories.order_quantile(values, [0, 0.5, 1])[:, 0].tolist() == [1, 2, 3]
    assert trajectories.order_quantile(values, [0.25, 0.5, 0.75])[:, 1].tolist() == [1, 2, np.inf]
    assert np.isnan(trajectories.order_quantile(values, [0.5])[0, 2])
    ten = np.arange(1.0, 11)
    for p in np.linspace(0.1, 1, 10):  # numpy's own definition 1
        assert trajectories.order_quantile(ten, [p])[0] == np.quantile(ten, round(p, 10), method="inverted_cdf")


def test_runs_that_ended_early_are_held():
    values = np.array([[3.0, 2, np.nan, np.nan], [3, 9, np.nan, np.nan], [1, 2, 3, 4], [np.nan] * 4, [np.nan, 1, np.nan, 2]])
    diverged = np.array([False, True, False, True, False])
    expected = [[3, 2, 2, 2], [3, 9, np.inf, np.inf], [1, 2, 3, 4], [np.nan] * 4, [np.nan, 1, np.nan, 2]]
    assert np.array_equal(trajectories.held(values, diverged, signed=False), expected, equal_nan=True)
    assert np.isnan(trajectories.held(values, diverged, signed=True)[1, 2:]).all()


def test_bands_are_those_of_the_runs_with_an_outcome(sweep_file):
    sweep = open_sweep(sweep_file({"replicate": range(6)}, model, rows=rows, steps=STEPS))
    one = trajectories.bands(sweep, "error").isel(dimension=0, batch_size=0, input=0, teacher_norm=0, link=0, step_size=0, init_scale=0)
    # 0: 4 3 2 1 .5; 1: 5 4 3 then held; 2: 6 5 4 3 2.5; 3, diverged, has the rows of `rows` without a NaN
    full = np.array([[4, 3, 2, 1, 0.5], [5, 4, 3, 3, 3], [6, 5, 4, 3, 2.5], [7, 6, 5, 4, 3.5]])
    assert one["median"].values.tolist() == np.median(full, axis=0).tolist()
    assert one.low.values.tolist() == full.min(0).tolist() and one.high.values.tolist() == full.max(0).tolist()
    assert one.coverage.values.tolist() == [1 - 2 / 16] * 5
    assert one["quantiles"].values.tolist() == np.quantile(full, [0.25, 0.75], axis=0, method="inverted_cdf").tolist()
    assert (one.n == 4).all() and one.ended.values.tolist() == [0, 0, 0, 1, 1]


def test_settings_are_chosen_and_thinned(sweep_file):
    sweep = open_sweep(sweep_file({"dimension": [10, 20, 50], "replicate": range(4)}, model, rows=rows))
    box, chosen = choose(sweep, ["dimension==10 and step_size<0.05 or dimension==50 and step_size==0.1"])
    found, count = trajectories.curves(box, chosen)
    assert count == 6 and sorted({(c.values["dimension"], round(c.values["step_size"], 6)) for c in found}) == [
        (10, 0.001), (10, 0.01), (50, 0.1)]
    thinned, count = trajectories.curves(box, chosen, 3)
    assert count == 6 and len(thinned) == 3 and thinned[0] == found[0] and thinned[-1] == found[-1]
    other = trajectories.bands(box, "error", chosen)
    assert (other.n.sel(dimension=10, step_size=0.1, method="nearest") == 0).all()


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_the_command_draws(sweep_file, tmp_path, capsys, ending):
    path = sweep_file({"replicate": range(6), "link": ["identity", "none"]}, model, rows=rows)
    output = tmp_path / f"t.{ending}"
    assert run("trajectories", path, "-o", output, "--field", "error,alignment,loss", "--where", "init_scale=0") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n" and captured.err == "" and output.stat().st_size > 5000
    if ending == "png":
        picture = matplotlib.image.imread(output)[..., :3]
        assert (np.abs(picture - 1).max(-1) > 0.1).mean() > 0.02
        # White all around: nothing is cut off.
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert (edge > 0.99).all()


def test_the_command_prints_numbers(sweep_file, capsys):
    path = sweep_file({"replicate": range(6)}, model, rows=rows)
    assert run("trajectories", path, "--json", "--where", "step_size==0.01", "--quantiles", "0,1") == 0
    numbers = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert numbers["settings_chosen"] == 2 and numbers["quantiles"] == [0, 1] and numbers["step"] == list(STEPS)
    first = numbers["settings"][0]
    assert first["where"]["step_size"] == 0.01 and first["runs"] == 4 and first["phase2_step"] == 25
    assert first["fields"]["error"]["median"] == [5.5, 4.5, 3.5, 3, 2.75]
    assert first["fields"]["error"]["quantiles"] == [[4, 3, 2, 1, 0.5], [7, 6, 5, 4, 3.5]]


@pytest.mark.parametrize("arguments, message", [
    (["--field", "colour"], "the file has no field 'colour'; it has loss, error"),
    (["--quantiles", "0.9,0.1"], "is not LOW,HIGH"), (["--where", "dimension=11"], "dimension has no value 11; it has 10"),
    (["--max-curves", "0"], "not a number in"),
])
def test_wrong_arguments(sweep_file, capsys, arguments, message):
    assert run("trajectories", sweep_file(fields=["loss", "error", "potential_norm"]), *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err.replace("error, loss", "loss, error") and "Traceback" not in captured.err


def test_axes_beside_their_default(sweep_file, tmp_path, capsys):
    path = sweep_file({"data": [0, 1000], "schedule": ["constant", "cosine"]})
    with h5py.File(path, "r+") as file:
        file.move("batch_loss", "test_loss")
    arguments = ["--where", "step_size=0.01", "--where", "init_scale=0", "--field", "error,test_loss"]
    assert run("trajectories", path, *arguments, "-o", tmp_path / "a.png") == 0
    capsys.readouterr()
    assert run("trajectories", path, *arguments, "--where", "data=online", "--json") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert [one["where"]["schedule"] for one in settings] == ["constant", "cosine"] and settings[0]["where"]["data"] == 0
    assert len(settings[0]["fields"]["test_loss"]["median"]) == 5


def test_nothing_to_draw_is_said(sweep_file, capsys):
    path = sweep_file(model=lambda setting: ("pending", 0, 0.0))
    assert run("trajectories", path) == 2
    assert "none of the 6 settings chosen has a run with an outcome yet" in capsys.readouterr().err
