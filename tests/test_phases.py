"""The two phases, against trajectories whose phases are planted, and by simulation."""
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from conftest import write_sweep

from sgdmap_analysis import ArgumentError, cli, open_sweep, phases
from sgdmap_analysis.statistics import median_interval

STEPS = np.unique(np.concatenate([[0], np.round(np.geomspace(1, 1000, 40)).astype(int)]))


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:
        return int(error.code or 0)


# -- The median's interval ---------------------------------------------------------------------------------------------


def test_median_interval_against_published_ranks():
    """Ranks of the 95 % interval of the median: W. J. Conover, Practical Nonparametric Statistics, and any table of the
    sign test: n = 6: 1, 10: 2, 20: 6, 25: 8, 50: 18."""
    for n, rank in ((6, 1), (10, 2), (20, 6), (25, 8), (50, 18)):
        middle, low, high, coverage = median_interval(np.arange(1.0, n + 1))
        assert (low, high) == (rank, n + 1 - rank), n
        assert middle == (n + 1) / 2
        exact = 1 - 2 * sum(math.comb(n, j) for j in range(rank)) / 2**n
        assert coverage == pytest.approx(exact, abs=1e-12) and coverage >= 0.95


def test_median_interval_of_few_and_odd_values():
    middle, low, high, coverage = median_interval(np.array([[1, 2, np.nan, np.nan], [np.nan] * 4, [1, np.inf, np.inf, 2],
                                                            [3, np.inf, np.inf, np.inf]]))
    assert middle[0] == 1.5 and (low[0], high[0], coverage[0]) == (1, 2, 0.5)
    assert np.isnan([middle[1], low[1], high[1]]).all()
    assert middle[2] == np.inf and low[2] == 1 and high[2] == np.inf and middle[3] == np.inf
    assert coverage[2] == 1 - 2 / 2**4
    many = np.random.default_rng(0).normal(size=100_001)
    assert np.isfinite(median_interval(many)).all()  # 2^-100001 is 0


def test_median_interval_covers():
    """At least nominal for any distribution; 20,000 draws, so that 3 standard errors are 0.5 %."""
    random = np.random.default_rng(1)
    for n in (7, 12, 31):
        _, low, high, coverage = median_interval(random.exponential(size=(20_000, n)))
        share = float(((low <= math.log(2)) & (math.log(2) <= high)).mean())
        assert share == pytest.approx(coverage[0], abs=0.005) and coverage[0] >= 0.95


# -- One run -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment, record", [
    ([1, 1, 1], 0), ([-1, 1, 1], 1), ([1, -1, 1], 2), ([1, 1, -1], -1), ([0, 1, 1], 1), ([np.nan] * 3, -1),
    ([-1, 1, np.nan], 1), ([1, -1, np.nan], -1), ([-1, np.nan, 1], 2), ([np.nan, 1, 1], 1),
])
def test_turn_record(alignment, record):
    assert phases.turn_record(np.array(alignment, dtype=float)) == record


def test_decay_rate_is_that_of_an_exponential():
    rates = np.array([[0.003, 0.02], [0.1, -0.01]])
    potential = 5 * np.exp(-rates[..., None] * STEPS)
    assert phases.decay_rate(STEPS, potential) == pytest.approx(rates, rel=1e-12)
    assert phases.decay_rate(STEPS, -potential) == pytest.approx(rates, rel=1e-12)
    # What comes after the first tenth of it is noise.
    noisy = np.where(potential < 0.05, 0.03, potential)
    assert phases.decay_rate(STEPS, noisy)[0, 0] == pytest.approx(0.003, rel=1e-12)
    # polyfit is another program's least squares.
    ragged = 5 * np.exp(-0.01 * STEPS) * (1 + 0.2 * np.sin(STEPS))
    end = int(np.argmax(np.abs(ragged) <= 0.1 * abs(ragged[0])))
    expected = -np.polyfit(STEPS[: end + 1], np.log(ragged[: end + 1]), 1)[0]
    assert phases.decay_rate(STEPS, ragged) == pytest.approx(expected, rel=1e-9)


def test_decay_rate_of_nothing_is_not_a_number():
    falling = np.exp(-0.01 * STEPS)
    assert np.isnan(phases.decay_rate(STEPS, falling, floor=1.5))
    assert np.isnan(phases.decay_rate(STEPS, np.zeros(STEPS.size)))
    assert np.isnan(phases.decay_rate(STEPS, np.where(STEPS < 2, falling, np.nan)))
    assert np.isnan(phases.decay_rate(STEPS, np.full(STEPS.size, np.nan)))


@pytest.mark.parametrize("lengths, diverged, verdict", [
    ([10, 20, 30, np.inf], 0, "two phases"), ([0, 0, 0, 5], 0, "phase II from the start"), ([np.inf] * 3 + [5], 0, "phase I only"),
    ([np.inf] * 3 + [5], 3, "diverged"), ([np.inf, np.inf, 5, 5], 0, "mixed"), ([np.nan] * 4, 0, "no outcome"),
    ([5, np.nan, np.nan, np.nan], 0, "two phases"), ([np.inf] * 4, 2, "mixed"),
])
def test_verdicts(lengths, diverged, verdict):
    assert phases.verdicts(np.array([lengths], dtype=float), np.array([diverged])) == [verdict]


# -- Over replicates ---------------------------------------------------------------------------------------------------


def planted(seed: int = 0, rate: float = 0.02):
    """rows= of write_sweep: rates log-normal around `rate`, alignment negative for the first steps of every third replicate."""
    random = np.random.default_rng(seed)

    def rows(setting):
        own = rate * np.exp(0.3 * random.normal())
        alignment = np.full(STEPS.size, 0.5)
        if setting["replicate"] % 3 == 0:
            alignment[STEPS < 50] = -0.1
        length = STEPS[np.argmax(STEPS >= math.log(10) / own)]
        return {"alignment": alignment, "potential_norm": 4 * np.exp(-own * STEPS), "phase2_step": length}

    return rows


def unfinished(setting):
    return ("unfinished", 1000, 0.5)


def test_planted_phases_are_found(sweep_file):
    sweep = open_sweep(sweep_file({"replicate": range(9), "step_size": [0.01, 0.1]}, unfinished, steps=STEPS, rows=planted()))
    statistics = phases.phase_statistics(sweep)
    assert (statistics.n == 9).all() and (statistics.negative_k == 3).all() and (statistics.negative_n == 9).all()
    assert (statistics.turn_n == 3).all() and (statistics.turn_step == STEPS[STEPS >= 50][0]).all()
    assert (statistics.verdict == "two phases").all() and (statistics.phase1_censored == 0).all()
    assert ((statistics.decay_low <= 0.02) & (0.02 <= statistics.decay_high)).all()
    share = float(statistics.negative_share.isel(step_size=0, init_scale=0).squeeze())
    assert share == pytest.approx(1 / 3)
    assert phases.summary(statistics)["two phases"] == statistics.verdict.size


def test_intervals_of_rates_cover_at_the_nominal_rate(tmp_path):
    """600 settings of 9 replicates each: coverage 1 - 20/512 = 96.1 %, and 3 standard errors of it are 2.4 %."""
    path = write_sweep(tmp_path / "rates.nc", {"replicate": range(9), "step_size": np.geomspace(1e-3, 1, 30),
                                               "init_scale": np.linspace(0, 1, 20)}, unfinished, steps=STEPS, rows=planted(7))
    statistics = phases.phase_statistics(open_sweep(path))
    covered = float(((statistics.decay_low <= 0.02) & (0.02 <= statistics.decay_high)).mean())
    assert float(statistics.median_coverage.max()) == pytest.approx(1 - 20 / 512)
    assert abs(covered - (1 - 20 / 512)) < 0.024


def test_runs_without_an_outcome_do_not_count(sweep_file):
    def model(setting):
        return {0: ("failed", 0, 0.0), 1: ("pending", 0, 0.0)}.get(setting["replicate"], ("unfinished", 1000, 0.5))

    with_them = phases.phase_statistics(open_sweep(sweep_file({"replicate": range(9)}, model, steps=STEPS, rows=planted())))
    # `rows` is asked for runs with an outcome alone: the same draws.
    without = phases.phase_statistics(open_sweep(sweep_file({"replicate": range(2, 9)}, unfinished, steps=STEPS, rows=planted(),
                                                            name="without.nc")))
    assert (with_them.n == 7).all()
    for name in with_them.data_vars:
        assert with_them[name].values.tolist() == without[name].values.tolist(), name


def test_runs_that_end_in_phase_1_are_censored(sweep_file):
    def rows(setting):
        return {"phase2_step": -1 if setting["replicate"] < 5 else 100}

    statistics = phases.phase_statistics(open_sweep(sweep_file({"replicate": range(8)}, unfinished, rows=rows)))
    assert (statistics.phase1_censored == 5).all() and np.isposinf(statistics.phase1_length).all()
    assert (statistics.phase1_low == 100).all() and np.isposinf(statistics.phase1_high).all()
    assert (statistics.verdict == "phase I only").all()


def test_parts_are_the_whole(sweep_file, monkeypatch):
    sweep = open_sweep(sweep_file({"replicate": range(5), "dimension": [10, 20, 50], "link": ["identity", "none"]}, unfinished,
                                  steps=STEPS, rows=planted()))
    whole = phases.run_phases(sweep)
    monkeypatch.setattr(phases, "_BLOCK_VALUES", 200)
    assert len(list(phases._parts(sweep))) > 1
    parts = phases.run_phases(sweep)
    for name in whole.data_vars:
        assert np.array_equal(whole[name].values, parts[name].values, equal_nan=name not in ("known", "negative")), name


def test_against_an_axis(sweep_file):
    def rows(setting):
        return {"phase2_step": int(1000 * setting["step_size"]) if setting["init_scale"] == 0 else -1}

    sweep = open_sweep(sweep_file({"replicate": range(3), "init_scale": [0.0, 0.5, 1.0]}, unfinished, rows=rows))
    along = phases.length_against(sweep, "step_size")
    assert np.isposinf(along["middle"]).all() and (along.n == 9).all() and (along.censored == 6).all()
    along = phases.length_against(sweep.isel(init_scale=[0]), "step_size")
    assert along["middle"].values.tolist() == [1, 10, 100] and (along.censored == 0).all()
    with pytest.raises(ArgumentError, match="'colour' is not an axis; the axes are dimension"):
        phases.length_against(sweep, "colour")


# -- The command -------------------------------------------------------------------------------------------------------


def test_axes_beside_their_default(sweep_file, tmp_path, capsys):
    axes = {"data": [0, 1000], "schedule": ["constant", "inverse_time", "cosine"], "init_scale": [0.0]}
    path = sweep_file(axes, unfinished)
    assert run("phases", path, "--table", "-o", tmp_path / "phases.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["data", "schedule", "step_size"] and lines[1].split()[:2] == ["online", "constant"]
    assert len(lines) == 2 + 2 * 3 * 3
    assert run("phases", path, "--json") == 0
    assert json.loads(capsys.readouterr().out)["against"]["phase1_length"]["data"]["data"] == [0, 1000]


def test_the_command_draws_and_prints(sweep_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = sweep_file({"replicate": range(4), "link": ["identity", "none"]}, unfinished, steps=STEPS, rows=planted())
    assert run("phases", path) == 0
    assert capsys.readouterr().out == "sweep-phases.png\n" and (tmp_path / "sweep-phases.png").stat().st_size > 5000
    assert run("phases", path, "--json") == 0
    numbers = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert numbers["verdicts"]["two phases"] == 12 and numbers["picture"] is None
    assert np.shape(numbers["settings"]["decay_rate"]) == tuple(len(numbers["axes"][name]) for name in numbers["order"])
    assert set(numbers["against"]) == set(phases.QUANTITIES) and set(numbers["against"]["negative"]) == {"link", "step_size", "init_scale"}
    assert run("phases", path, "--table", "--where", "link=none", "-o", "p.svg") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 6 + 1 and "verdict" in lines[0] and lines[1].endswith("two phases") and lines[-1] == "p.svg"


def test_what_the_command_cannot_do(sweep_file, capsys, tmp_path):
    path = sweep_file(fields=["loss", "error"])
    assert run("phases", path) == 2
    captured = capsys.readouterr()
    assert captured.err == "sgdmap-analysis: the file has no field alignment, which the phases need; it has error, loss\n"
    assert run("phases", path, "-o", "x.gif") == 2 and ".png, .pdf, .svg" in capsys.readouterr().err
    # Nothing has an outcome: a figure that says so, and no warning.
    pending = sweep_file(model=lambda setting: ("pending", 0, 0.0), name="pending.nc")
    capsys.readouterr()
    assert run("phases", pending, "-o", tmp_path / "pending.png", "--table") == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "no outcome" in captured.out
