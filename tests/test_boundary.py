"""Critical values, power laws and dimensions against planted ones."""
from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import xarray as xr
from conftest import AXES, OUTCOMES
from matplotlib.text import Text

from sgdmap_analysis import ArgumentError, boundary, cli, open_sweep
from sgdmap_analysis.boundary import (
    boundary_corners, box_counting_dimension, critical_values, f_tail, fit_logistic, fractal, scaling,
    student_t_quantile,
)

CODES = {name: code for code, name in enumerate(OUTCOMES)}


def run(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse
        return int(error.code or 0)


def sweep_of(outcomes: np.ndarray, dims: tuple[str, ...], **values: object) -> xr.Dataset:
    """A sweep in memory from outcomes [dims]: names, or True for converged and False for diverged."""
    if outcomes.dtype == bool:
        codes = np.where(outcomes, CODES["converged"], CODES["diverged"])
    else:
        codes = np.vectorize(CODES.get)(outcomes)
    others = [name for name in AXES if name not in dims]
    codes = codes.astype(np.int8).reshape(codes.shape + (1,) * len(others))
    defaults = {"dimension": [10], "batch_size": [200], "input": ["gaussian"], "replicate": [0], "teacher_norm": [1.0],
                "link": ["identity"], "step_size": [0.1], "init_scale": [1.0]}
    defaults |= {name: np.arange(codes.shape[i]) for i, name in enumerate(dims)} | values
    coordinates = {name: (name, np.asarray(defaults[name])) for name in AXES}
    status = xr.DataArray(codes, dims=(*dims, *others), attrs={
        "flag_values": np.arange(len(OUTCOMES), dtype=np.int8), "flag_meanings": " ".join(OUTCOMES)})
    return xr.Dataset({"status": status.transpose(*AXES)}, coordinates)


STEPS = np.geomspace(1e-3, 1e-3 * 1.5**14, 15)
SPACING = math.log(1.5)


def one_setting(rows: list[str], steps: np.ndarray = STEPS, **kwargs: object) -> xr.Dataset:
    """The critical value of one setting, a row a replicate; the letters are those of `names`."""
    names = {"+": "converged", "-": "diverged", "~": "unfinished", ".": "pending", "x": "failed", "r": "running"}
    outcomes = np.array([[names[letter] for letter in row] for row in rows], dtype=object)
    sweep = sweep_of(outcomes, ("replicate", "step_size"), step_size=steps[: outcomes.shape[1]])
    return critical_values(sweep, **kwargs).squeeze(drop=True)


# -- Distributions -----------------------------------------------------------------------------------------------------


def test_quantiles_are_those_of_the_tables():
    # Student's t: NIST/SEMATECH e-Handbook, section 1.3.6.7.2; F: section 1.3.6.7.3 (upper 5 % points).
    np.testing.assert_allclose(student_t_quantile(0.975, np.array([1, 2, 3, 5, 10, 100])),
                               [12.706, 4.303, 3.182, 2.571, 2.228, 1.984], atol=6e-4)
    np.testing.assert_allclose(student_t_quantile(0.75, np.array([1.0])), [1.0], atol=1e-12)
    np.testing.assert_allclose(f_tail([161.448, 3.708, 4.103], [1, 3, 2], [1, 10, 10]), 0.05, atol=2e-5)
    # And the closed forms: t with 1, 2 and (by 2t^2/(4 + t^2) = v, 1 - 2 tail = sqrt(v/2)(3 - v/2)/2) 4 degrees, F with 2.
    np.testing.assert_allclose(student_t_quantile(0.975, np.array([1, 2])),
                               [math.tan(0.475 * math.pi), 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))], rtol=1e-11)
    v = 2 * student_t_quantile(0.9, 4.0) ** 2 / (4 + student_t_quantile(0.9, 4.0) ** 2)
    assert math.sqrt(v / 2) * (3 - v / 2) / 2 == pytest.approx(0.8, rel=1e-11)
    for value, degrees in itertools.product((0.3, 1, 2.5, 7), (1.5, 4, 60)):
        assert f_tail(value, 2, degrees) == pytest.approx((1 + 2 * value / degrees) ** (-degrees / 2), rel=1e-11)


# -- The fit -----------------------------------------------------------------------------------------------------------


def penalised(t, k, n, c, w):
    """The penalised log likelihood as its definition says, run by run; c, w [...]."""
    log_p = -np.logaddexp(0, (t[:, None, None] - c) / w)
    log_q = -np.logaddexp(0, -(t[:, None, None] - c) / w)
    total = (k[:, None, None] * log_p + (n - k)[:, None, None] * log_q).sum(0)
    total += 0.25 * -np.logaddexp(0, (t[0] - 1 - c) / w) + 0.25 * -np.logaddexp(0, -(t[-1] + 1 - c) / w)
    return total - 0.02 / w


def test_fits_are_at_the_top_of_the_likelihood():
    random = np.random.default_rng(5)
    t = np.arange(12.0)
    rows = 25
    truth = 1 / (1 + np.exp((t - random.uniform(3, 8, (rows, 1))) / random.uniform(0.3, 2, (rows, 1))))
    n = random.integers(0, 7, (rows, t.size)).astype(float)
    k = random.binomial(n.astype(int), truth).astype(float)
    c, w = fit_logistic(t, k, n, np.zeros(rows, dtype=int))
    for i in range(rows):
        at_c, at_w = np.meshgrid(np.linspace(-1, 12, 261), np.geomspace(0.08, 20, 240), indexing="ij")
        values = penalised(t, k[i], n[i], at_c, at_w)
        best = np.unravel_index(values.argmax(), values.shape)
        found = penalised(t, k[i], n[i], np.array([[c[i]]]), np.array([[w[i]]])).item()
        # No point of the grid is higher, and the highest is the neighbour of what was found.
        assert found >= values.max() - 1e-9
        assert abs(at_c[best] - c[i]) < 0.06 and abs(math.log(at_w[best] / w[i])) < 0.05


def test_much_data_leave_nothing_of_the_penalty():
    random = np.random.default_rng(6)
    t = np.linspace(0, 9, 10)
    n = np.full(10, 400.0)
    k = random.binomial(400, 1 / (1 + np.exp((t - 4.3) / 1.2))).astype(float)
    c, w = fit_logistic(t, k[None], n[None], np.array([0]))
    # Plain maximum likelihood, by brute force, at steps of 0.0005.
    at_c, at_w = np.meshgrid(c[0] + np.linspace(-0.02, 0.02, 81), w[0] + np.linspace(-0.02, 0.02, 81), indexing="ij")
    z = (t[:, None, None] - at_c) / at_w
    likelihood = -(k[:, None, None] * np.logaddexp(0, z) + (n - k)[:, None, None] * np.logaddexp(0, -z)).sum(0)
    best = np.unravel_index(likelihood.argmax(), likelihood.shape)
    # The penalty is that of half a run among 4000.
    assert at_c[best] == pytest.approx(c[0], abs=2e-3) and at_w[best] == pytest.approx(w[0], abs=2e-3)


def test_the_bootstrap_is_over_whole_replicates():
    rows = ["+++++++-------", "++++++++++----", "+++++---------"]
    found = one_setting(rows)
    converged = np.array([[letter == "+" for letter in row] for row in rows], dtype=float)
    t = np.arange(14.0)
    # All 27 ordered draws, one by one; what is fitted begins at the last value where all converge.
    values = [fit_logistic(t, converged[list(draw)].sum(0)[None], np.full((1, 14), 3.0), np.array([4]), 1e-3)[0][0]
              for draw in itertools.product(range(3), repeat=3)]
    error = np.std(values) * math.sqrt(3 / 2)
    assert found.standard_error.item() == pytest.approx(error * SPACING, rel=1e-6)
    half = 4.302653 * error * SPACING
    assert math.log(found.high / found.critical) == pytest.approx(half, rel=1e-5)
    assert math.log(found.critical / found.low) == pytest.approx(half, rel=1e-5)
    assert found.basis.item() == "bootstrap" and found.replicates.item() == 3


def test_many_replicates_are_drawn_at_random_and_reproducibly():
    random = np.random.default_rng(0)
    rows = ["+" * int(length) + "-" * (15 - int(length)) for length in random.integers(4, 11, 12)]
    one, again, other = (one_setting(rows, resamples=400, seed=seed) for seed in (0, 0, 1))
    assert one.standard_error.item() == again.standard_error.item() != other.standard_error.item()
    assert one.standard_error.item() == pytest.approx(other.standard_error.item(), rel=0.15)  # 4 sd of 400 resamples


# -- Coverage ----------------------------------------------------------------------------------------------------------


def planted(random, settings: int, replicates: int, width: float, common: bool) -> tuple[np.ndarray, np.ndarray]:
    """Centres [settings] in units of the grid's spacing, and whether runs converge [settings, replicates, values].

    `common`: a replicate's runs share one threshold, as common random numbers have it; else each run has its own noise.
    """
    t = np.arange(STEPS.size)
    centre = random.uniform(6, 9, settings)
    noise = random.logistic(size=(settings, replicates, 1 if common else t.size))
    return centre, t < centre[:, None, None] + width * noise


@pytest.mark.parametrize("replicates, width, common", [
    (3, 1.0, True), (4, 1.0, True), (4, 1.0, False), (5, 0.5, False), (10, 1.0, False),
])
def test_intervals_cover_at_the_nominal_rate(replicates, width, common):
    settings = 800
    centre, converged = planted(np.random.default_rng(17), settings, replicates, width, common)
    sweep = sweep_of(converged, ("dimension", "replicate", "step_size"), step_size=STEPS)
    found = critical_values(sweep, resamples=150).squeeze(drop=True)
    assert (found.kind == "estimated").all()
    truth = STEPS[0] * 1.5**centre
    coverage = float(((found.low <= truth) & (truth <= found.high)).mean())
    # Three standard errors of a binomial share, and 1 % since the distribution of so few is Student's only nearly
    # (4000 settings each gave 0.945 to 0.957).
    assert abs(coverage - 0.95) < 3 * math.sqrt(0.95 * 0.05 / settings) + 0.01
    bias = float(np.log(found.critical / truth).mean())
    assert abs(bias) < 4 * float(np.log(found.critical / truth).std()) / math.sqrt(settings) + 0.02 * SPACING


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_other_confidence(confidence):
    settings = 800
    centre, converged = planted(np.random.default_rng(19), settings, 4, 1.0, True)
    sweep = sweep_of(converged, ("dimension", "replicate", "step_size"), step_size=STEPS)
    found = critical_values(sweep, confidence=confidence).squeeze(drop=True)
    truth = STEPS[0] * 1.5**centre
    coverage = float(((found.low <= truth) & (truth <= found.high)).mean())
    assert abs(coverage - confidence) < 3 * math.sqrt(confidence * (1 - confidence) / settings) + 0.015


@pytest.mark.parametrize("replicates", [2, 4])
def test_sharp_boundaries_are_covered_by_the_gap(replicates):
    settings = 1200
    centre, converged = planted(np.random.default_rng(18), settings, replicates, 0.02, True)
    sweep = sweep_of(converged, ("dimension", "replicate", "step_size"), step_size=STEPS)
    found = critical_values(sweep).squeeze(drop=True)
    truth = STEPS[0] * 1.5**centre
    assert float(((found.low <= truth) & (truth <= found.high)).mean()) > 0.95
    assert float(np.median(np.log(found.high / found.low))) == pytest.approx(SPACING)


# -- Kinds of settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicates", [1, 2, 5])
def test_separated_outcomes_put_the_boundary_in_the_middle_of_the_gap(replicates):
    found = one_setting(["++++-----------"] * replicates)
    assert found.kind.item() == "estimated"
    assert found.low.item() == pytest.approx(STEPS[3]) and found.high.item() == pytest.approx(STEPS[4])
    # Other values of the grid pull by less than 2 % of the gap.
    assert math.log(found.critical.item() / math.sqrt(STEPS[3] * STEPS[4])) == pytest.approx(0, abs=0.02 * SPACING)
    assert found.width.item() < 0.2 * SPACING


def test_a_gap_is_as_wide_as_the_grid_is_there():
    steps = np.array([0.001, 0.002, 0.01, 0.1, 0.2, 0.3])
    found = one_setting(["+++---"] * 3, steps)
    assert (found.low.item(), found.high.item()) == pytest.approx((0.01, 0.1))
    assert found.critical.item() == pytest.approx(math.sqrt(0.001), rel=0.02)


def test_a_single_value_between_leaves_a_gap_too():
    # At the fifth value 19 of 20 converge, at the sixth none: the half lies anywhere between.
    found = one_setting(["+++++----------"] * 19 + ["++++-----------"])
    assert found.low <= STEPS[4] * (1 + 1e-12) and STEPS[4] < found.critical < STEPS[5] <= found.high * (1 + 1e-12)
    assert found.low > STEPS[3] and found.high < STEPS[6]


def test_one_replicate_has_the_grid_s_resolution():
    found = one_setting(["+++++-+--------"])
    assert found.basis.item() == "grid"
    assert (found.low.item(), found.high.item()) == pytest.approx((STEPS[4], STEPS[7]))
    assert found.low < found.critical < found.high


@pytest.mark.parametrize("rows, kind", [
    (["---------------"] * 3, "none converge"), (["~~~~~----------"] * 3, "none converge"),
    (["+++++++++++++++"] * 3, "all converge"), (["~~~++++++++++++"] * 3, "beyond the grid"),
    (["+++++----------", "---------------", "---------------"], "less than half converge"),
    ([".....xxxxxrrrrr"] * 3, "no outcomes"), (["...............", "++-------------"], "estimated"),
])
def test_settings_without_a_boundary_say_why(rows, kind):
    found = one_setting(rows)
    assert found.kind.item() == kind
    assert np.isfinite(found.critical.item()) == (kind == "estimated")
    if kind in ("all converge", "beyond the grid"):
        assert found.low.item() == pytest.approx(STEPS[-1]) and found.high.item() == math.inf
    elif kind != "estimated":
        assert np.isnan(found.low.item()) and np.isnan(found.high.item())


def test_the_two_edges_of_a_region():
    rows = ["~~~~++++++-----", "~~~++++++++----", "~~~~++++++-----"]
    upper, lower = one_setting(rows), one_setting(rows, edge="lower")
    assert STEPS[9] < upper.critical < STEPS[10] and STEPS[3] < lower.critical < STEPS[4]
    # The lower edge is the upper one of the axis seen in a mirror.
    mirrored = one_setting([row[::-1] for row in rows])
    assert lower.critical * mirrored.critical == pytest.approx(STEPS[0] * STEPS[-1])
    assert lower.low * mirrored.high == pytest.approx(STEPS[0] * STEPS[-1])
    # Too small and too large at once: what does not converge on one side says nothing about the other.
    whole = one_setting([row.replace("~", "+") for row in rows])
    assert upper.critical == pytest.approx(whole.critical.item(), rel=1e-3)
    beyond = one_setting(["+++++----------"] * 2, edge="lower")
    assert beyond.kind.item() == "beyond the grid"
    assert beyond.low.item() == 0 and beyond.high.item() == pytest.approx(STEPS[0])


def test_a_plateau_below_one_does_not_move_the_edge():
    # Two of six replicates stall at whatever step size; the others diverge at the same.
    rows = ["+++++++++------"] * 4 + ["---------------"] * 2
    found = one_setting(rows)
    assert STEPS[8] <= found.critical <= STEPS[9]


def test_runs_without_an_outcome_have_no_influence():
    random = np.random.default_rng(1)
    rows = ["+" * length + "-" * (15 - length) for length in (6, 8, 7, 9)]
    plain = one_setting(rows)
    for letter in ".xr":
        more = one_setting([*rows[:2], letter * 15, *rows[2:], letter * 15])
        for name in ("critical", "low", "high", "width", "standard_error"):
            assert more[name].item() == pytest.approx(plain[name].item(), rel=1e-12), name
        assert more.replicates.item() == 4
    # Single runs: whatever the reason, and never as if they had not converged.
    holes = random.random((4, 15)) < 0.3
    results = []
    for letter in ".xr-":
        masked = ["".join(letter if hole else old for old, hole in zip(row, line)) for row, line in zip(rows, holes)]
        results.append(one_setting(masked).critical.item())
    assert results[0] == results[1] == results[2] and abs(results[0] / results[3] - 1) > 0.01
    assert results[0] == pytest.approx(plain.critical.item(), rel=SPACING)
    # A value of which nothing is known is part of the gap.
    gap = one_setting(["+++++.---------", "+++++x---------"])
    assert (gap.low.item(), gap.high.item()) == pytest.approx((STEPS[4], STEPS[6]))
    assert gap.critical.item() == pytest.approx(STEPS[5], rel=0.01)


def test_an_axis_that_holds_zero_is_fitted_as_it_is():
    scales = np.linspace(0, 2, 9)
    sweep = sweep_of(np.tile(scales < 1.1, (3, 1)), ("replicate", "init_scale"), init_scale=scales)
    found = critical_values(sweep, "init_scale").squeeze(drop=True)
    assert found.attrs["space"] == "linear"
    assert found.critical.item() == pytest.approx(1.125, abs=0.005)
    assert (found.low.item(), found.high.item()) == (1, 1.25)
    positive = critical_values(sweep.isel(init_scale=slice(1, None)), "init_scale").squeeze(drop=True)
    assert positive.attrs["space"] == "log" and positive.critical.item() == pytest.approx(math.sqrt(1.25), abs=0.01)


@pytest.mark.parametrize("arguments, message", [
    ({"axis": "dimension"},
     "'dimension' has no critical value; the axes that have are step_size, teacher_norm, init_scale"),
    ({"axis": "init_scale"}, "init_scale has one value, 1: a boundary needs at least two"),
    ({"edge": "left"}, "there are upper and lower"), ({"confidence": 1.0}, "not in (0, 1)"),
    ({"resamples": 0}, "at least 1"),
])
def test_arguments_that_make_no_boundary(arguments, message):
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(").replace(")", r"\)")):
        one_setting(["++--"], **arguments)


# -- Scaling -----------------------------------------------------------------------------------------------------------

DIMENSIONS = np.array([5, 10, 20, 40])


def power_laws(random, laws: int, replicates: int, width: float, bend: float = 0.0) -> xr.Dataset:
    """Sweeps [law along teacher_norm, dimension, replicate, step_size] of which the critical value is about 3/d."""
    steps = np.geomspace(0.01, 3, 24)
    spacing = math.log(steps[1] / steps[0])
    log_d = np.log(DIMENSIONS)
    centre = math.log(3) - log_d + bend * (log_d - log_d.mean()) ** 2
    # Anywhere in its gap.
    centre = centre + random.uniform(-0.5, 0.5, (laws, 1)) * spacing
    threshold = centre[..., None] + width * spacing * random.logistic(size=(laws, DIMENSIONS.size, replicates))
    return sweep_of(np.log(steps) < threshold[..., None], ("teacher_norm", "dimension", "replicate", "step_size"),
                    dimension=DIMENSIONS, step_size=steps)


@pytest.mark.parametrize("replicates, width", [(4, 1.0), (5, 0.5)])
def test_exponents_are_recovered_at_the_nominal_rate(replicates, width):
    laws = 300
    critical = critical_values(power_laws(np.random.default_rng(3), laws, replicates, width))
    found = scaling(critical).squeeze(drop=True)
    assert found.exponent.dims == ("teacher_norm",) and (found.points == 4).all() and found.checked.all()
    coverage = float(((found.low <= -1) & (-1 <= found.high)).mean())
    error = found.exponent.values + 1
    assert abs(error.mean()) < 4 * error.std() / math.sqrt(laws)
    # Binomial, and 2 % on the side of caution: Satterthwaite's degrees of freedom, and the gaps.
    assert -3 * math.sqrt(0.95 * 0.05 / laws) < coverage - 0.95 < 3 * math.sqrt(0.95 * 0.05 / laws) + 0.02
    assert float(found.misfit.mean()) < 0.12
    # Half a spacing at random each, and the exponent's error times the logarithm of the middle.
    assert float(np.median(found.prefactor)) == pytest.approx(3, rel=0.1)


def test_sharp_boundaries_have_an_exponent_with_the_grid_s_resolution():
    found = scaling(critical_values(power_laws(np.random.default_rng(4), 300, 4, 0.01))).squeeze(drop=True)
    assert float(((found.low <= -1) & (-1 <= found.high)).mean()) > 0.92
    # Four points each with the error of a gap of 0.248: sd 0.0716, over the spread of log d.
    spread = math.sqrt(((np.log(DIMENSIONS) - np.log(DIMENSIONS).mean()) ** 2).sum())
    half = 1.96 * math.log(300) / 23 / math.sqrt(12) / spread
    assert float(np.median((found.high - found.low) / 2)) == pytest.approx(half, rel=0.1)


def test_what_is_no_power_law_is_flagged():
    critical = critical_values(power_laws(np.random.default_rng(5), 40, 5, 0.1, bend=-0.4))
    found = scaling(critical).squeeze(drop=True)
    straight = scaling(critical_values(power_laws(np.random.default_rng(5), 40, 5, 0.1))).squeeze(drop=True)
    assert float(found.misfit.mean()) > 0.8 and float(straight.misfit.mean()) < 0.2
    assert float(np.median(found.high - found.low)) > 1.5 * float(np.median(straight.high - straight.low))


def test_two_points_give_an_exponent_without_a_check():
    critical = critical_values(power_laws(np.random.default_rng(6), 3, 4, 0.1).isel(dimension=[0, 3]))
    found = scaling(critical).squeeze(drop=True)
    assert np.isfinite(found.exponent).all() and np.isfinite(found.low).all() and not found.checked.any()
    assert np.isnan(found.chi_square).all()
    single = scaling(critical.isel(dimension=[0])).squeeze(drop=True)
    assert np.isnan(single.exponent).all() and (single.points == 1).all()


def test_axes_without_a_power_law():
    critical = critical_values(power_laws(np.random.default_rng(7), 3, 2, 0.1))
    with pytest.raises(ArgumentError, match="no power law along 'link'; it can have one along dimension"):
        scaling(critical, "link")
    with pytest.raises(ArgumentError, match="teacher_norm holds 0"):
        scaling(critical, "teacher_norm")


# -- Dimension ---------------------------------------------------------------------------------------------------------


def koch(side: int, order: int) -> np.ndarray:
    """Cells [n, 2] of the Koch curve across a frame of so many cells."""
    points = np.array([0, 1 + 0j])
    for _ in range(order):
        start, step = points[:-1], np.diff(points) / 3
        peak = start + step + step * np.exp(1j * np.pi / 3)
        points = np.append(np.stack([start, start + step, peak, start + 2 * step], 1).ravel(), points[-1])
    between = np.arange(4) / 4
    points = (points[:-1, None] + np.diff(points)[:, None] * between).ravel()
    return np.unique(np.round(np.stack([points.imag, points.real], 1) * (side - 1)).astype(int), axis=0)


def carpet(level: int) -> np.ndarray:
    mask = np.ones((1, 1), dtype=bool)
    for _ in range(level):
        hole = np.zeros_like(mask)
        mask = np.block([[mask, mask, mask], [mask, hole, mask], [mask, mask, mask]])
    return mask


def cantor_dust(level: int) -> np.ndarray:
    line = np.ones(1, dtype=bool)
    for _ in range(level):
        line = np.concatenate([line, np.zeros_like(line), line])
    return line[:, None] & line


def triangle(side: int) -> np.ndarray:
    i, j = np.mgrid[:side, :side]
    return (i & j) == 0


def slanted(side: int, slope: float) -> np.ndarray:
    x = np.arange(side)
    return np.stack([np.round(slope * x).astype(int), x], 1)


SETS = {
    "straight line": (slanted(1024, 0), 1.0), "slanted line": (slanted(1024, 0.37), 1.0),
    "diagonal": (slanted(1024, 1), 1.0),
    "filled plane": (np.ones((512, 512), dtype=bool), 2.0), "Koch curve": (koch(1024, 7), math.log(4, 3)),
    "Sierpinski carpet": (carpet(6), math.log(8, 3)), "Sierpinski triangle": (triangle(1024), math.log2(3)),
    "Cantor dust": (cantor_dust(6), 2 * math.log(2, 3)),
}


@pytest.mark.parametrize("name", SETS)
def test_dimensions_of_known_sets(name):
    given, truth = SETS[name]
    found = box_counting_dimension(given)
    # The finite-size error: 0.026 for the triangle, whose frame cuts through its sides, else at most 0.013.
    assert found.dimension == pytest.approx(truth, abs=0.03)
    assert found.low <= truth <= found.high
    assert found.high - found.low < 0.4 and found.used[1] >= 8 * found.used[0]
    assert (np.diff(found.sizes) > 0).all() and (np.diff(found.counts) <= 0).all()
    assert found.sizes.size == found.counts.size


@pytest.mark.parametrize("side, tolerance", [(64, 0.05), (128, 0.03), (512, 0.02)])
def test_boundaries_of_regions(side, tolerance):
    y, x = np.mgrid[:side, :side]
    shapes = {1.0: [y < 0.37 * x + side / 4, x < side / 2 + 0.5, x + y < side, x < y,
                    np.hypot(x - side / 2, y - side / 2) < side / 3],
              2.0: [np.random.default_rng(side).random((side, side)) < 0.5]}
    for truth, regions in shapes.items():
        for region in regions:
            found = box_counting_dimension(boundary_corners(region))
            assert found.dimension == pytest.approx(truth, abs=tolerance) and found.low <= truth <= found.high
            # A region and what is left of the map have one boundary.
            assert box_counting_dimension(boundary_corners(~region)).dimension == found.dimension


def test_box_counts_are_the_mean_over_all_places():
    mask = np.random.default_rng(2).random((64, 64)) < 0.02
    found = box_counting_dimension(mask, sizes=[2, 3, 7])
    for size, count in zip(found.sizes, found.counts):
        # Around each cell of the frame a box: it reaches size // 2 back.
        hits = 0
        for y, x in np.ndindex(64, 64):
            low_y, low_x = y - size // 2, x - size // 2
            hits += mask[max(low_y, 0) : low_y + size, max(low_x, 0) : low_x + size].any()
        assert count == pytest.approx(hits / size**2)
    assert found.used == (2, 7)


def test_unknown_cells_make_no_boundary():
    region = np.zeros((8, 8), dtype=bool)
    region[:, 4:] = True
    known = np.ones_like(region)
    assert boundary_corners(region).sum() == 7
    known[:, 4] = False
    assert not boundary_corners(region, known).any()


def test_sets_that_have_no_dimension():
    empty = box_counting_dimension(np.zeros((100, 100), dtype=bool))
    assert np.isnan([empty.dimension, empty.low, empty.high]).all()
    for given, message in (
        (np.zeros((3, 4, 5)), "shape"), (np.zeros((4, 4)), "not float64"),
        (np.array([[0, 0], [10**6, 0]]), "too large"), (np.ones((4, 4), dtype=bool), "at least 3 sizes"),
    ):
        with pytest.raises(ArgumentError, match=message):
            box_counting_dimension(given)
    with pytest.raises(ArgumentError, match="at least 3 sizes"):
        box_counting_dimension(np.ones((64, 64), dtype=bool), sizes=[1, 2, 100])


def test_the_boundary_of_a_large_map():
    side = 128
    y, x = np.mgrid[:side, :side]
    disc = np.hypot(x - side / 2, y - side / 2) < side / 3
    outcomes = np.where(np.stack([disc, np.zeros_like(disc), disc]), "converged", "diverged").astype(object)
    outcomes[0, :, 110:] = "stalled"
    outcomes[2, :20] = "pending"
    sweep = sweep_of(outcomes, ("replicate", "init_scale", "step_size"))
    found = fractal(sweep).squeeze(drop=True)
    assert [found.attrs[name] for name in ("x", "y", "smallest", "largest")] == ["step_size", "init_scale", 2, 8]
    assert found.box_dimension.values[0] == box_counting_dimension(boundary_corners(disc)).dimension
    # Where the others diverge or stall there is a straight boundary as well, of one corner a row.
    beside = fractal(sweep, outcome="stalled").squeeze(drop=True)
    assert beside.corners.values[0] == side - 1 and beside.box_dimension.values[0] == pytest.approx(1, abs=1e-6)
    assert found.low[0] < 1 < found.high[0] and found.reason.values[0] == ""
    assert "through 0 corners" in found.reason.values[1]
    assert "15.6 % of the runs have no outcome" in found.reason.values[2]
    assert np.isnan(found.box_dimension.values[1:]).all()
    small = fractal(sweep.isel(init_scale=slice(40))).squeeze(drop=True)
    assert (small.reason == "step_size has 128 values and init_scale 40: a dimension needs at least 64 of both").all()
    with pytest.raises(ArgumentError, match="'lost' is not an outcome"):
        fractal(sweep, outcome="lost")


# -- The command -------------------------------------------------------------------------------------------------------


def planted_model(seed: int = 0):
    """Runs that diverge above 0.8/d, with a threshold for each replicate, and are unfinished below 0.002."""
    random = np.random.default_rng(seed)
    noise = {(d, r): random.normal(0, 0.15) for d in (5, 10, 20) for r in range(5)}

    def model(setting):
        limit = 0.8 / setting["dimension"] * math.exp(noise[setting["dimension"], setting["replicate"]])
        limit /= 1 + setting["init_scale"] ** 2
        if setting["init_scale"] > 1.2:
            return "stalled", 1000, 0.5
        if setting["step_size"] > limit:
            return "diverged", 7, 1e9
        return ("converged", 500, 1e-4) if setting["step_size"] > 0.002 else ("unfinished", 1000, 0.1)

    return model


PLANTED = {"dimension": [5, 10, 20], "replicate": range(5), "step_size": np.geomspace(1e-3, 1, 25),
           "init_scale": [0.0, 0.5, 1.0, 1.5]}


@pytest.fixture(scope="module")
def planted_file(tmp_path_factory):
    from conftest import write_sweep

    return write_sweep(tmp_path_factory.mktemp("boundary") / "planted.nc", PLANTED, planted_model())


def test_json_has_the_numbers(planted_file, capsys):
    assert run("boundary", planted_file, "--json", "--confidence", "0.9") == 0
    captured = capsys.readouterr()
    numbers = json.loads(captured.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert captured.err == "" and numbers["picture"] is None and numbers["replicates"] == [0, 1, 2, 3, 4]
    assert [numbers[name] for name in ("axis", "edge", "space", "confidence")] == ["step_size", "upper", "log", 0.9]
    assert len(numbers["settings"]) == 12 and "fractal" not in numbers
    for setting in numbers["settings"]:
        where = setting["where"]
        truth = 0.8 / where["dimension"] / (1 + where["init_scale"] ** 2)
        if where["init_scale"] > 1.2:
            assert setting["kind"] == "none converge" and setting["critical"] is None and setting["low"] is None
        else:
            # The noise is 0.15 a replicate, 0.07 for the mean of five.
            assert setting["kind"] == "estimated" and setting["low"] < setting["critical"] < setting["high"]
            assert math.log(setting["critical"] / truth) == pytest.approx(0, abs=0.3)
    assert numbers["scaling"]["along"] == "dimension" and len(numbers["scaling"]["laws"]) == 4
    for law in numbers["scaling"]["laws"][:3]:
        assert law["low"] < -1 < law["high"] and law["points"] == 3 and law["checked"]
    assert numbers["scaling"]["laws"][3]["exponent"] is None
    assert run("boundary", planted_file, "--json", "--edge", "lower") == 0
    lower = json.loads(capsys.readouterr().out)["settings"]
    assert all(s["low"] <= 0.002 <= s["high"] for s in lower if s["kind"] == "estimated")


def test_a_picture_and_a_table(planted_file, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("boundary", planted_file, "--table", "--fractal", "--dpi", 150) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["dimension", "init_scale", "critical", "step_size", "low", "high", "replicates", "kind"]
    assert len(lines) == 15 and lines[-1] == "planted-boundary.png" and "none converge" in lines[4]
    assert "step_size has 25 values and init_scale 4: a dimension needs at least 64 of both" in lines[-2]
    assert captured.err == "" and (tmp_path / "planted-boundary.png").stat().st_size > 20_000
    for ending in ("pdf", "svg"):
        assert run("boundary", planted_file, "-o", f"out.{ending}") == 0
        assert capsys.readouterr().out == f"out.{ending}\n" and (tmp_path / f"out.{ending}").stat().st_size > 5000


def texts(figure) -> list[str]:
    return list(dict.fromkeys(text.get_text() for text in figure.findobj(Text) if text.get_text()))


def test_the_figure_shows_the_critical_values(planted_file):
    sweep = open_sweep(planted_file)
    critical = critical_values(sweep)
    plan = boundary.plan_figure(sweep, "step_size")
    assert plan == boundary.Plan("dimension", "init_scale")
    laws = scaling(critical)
    figure = boundary.draw_boundary(sweep, critical, laws, plan, title="planted")
    panels = {ax.get_label(): ax for ax in figure.axes}
    assert [name for name in panels if name.startswith("map")] == ["map 0 0", "map 0 1", "map 0 2"]
    for column, d in enumerate((5, 10, 20)):
        [line] = panels[f"map 0 {column}"].lines
        np.testing.assert_allclose(line.get_xdata()[:3], critical.critical.sel(dimension=d).values.ravel()[:3])
        assert np.isnan(line.get_xdata()[3]) and line.get_ydata().tolist() == [0, 0.5, 1, 1.5]
    containers = panels["scaling"].containers
    assert len(containers) == 3
    for container, scale in zip(containers, (0, 0.5, 1)):
        points = container.lines[0].get_ydata()
        np.testing.assert_allclose(points, critical.critical.sel(init_scale=scale).values.ravel())
    law = laws.sel(init_scale=0).squeeze()
    words = [text for text in texts(figure) if "propto" in text]
    assert len(words) == 3 and f"{law.exponent.item():.2f} \\pm {law.high.item() - law.exponent.item():.2f}" in words[0]
    assert "3 of 4 settings" in texts(figure)


@pytest.mark.parametrize("axes, plan", [
    ({"dimension": [10]}, (None, None)), ({"dimension": [10, 20]}, ("dimension", "dimension")),
    ({"teacher_norm": [0.5, 1, 2], "dimension": [10]}, ("teacher_norm", "teacher_norm")),
    ({"link": ["identity", "none"]}, (None, "link")),
])
def test_sweeps_with_few_axes(sweep_file, tmp_path, axes, plan):
    def model(setting):
        return ("converged", 9, 1e-4) if setting["step_size"] < 0.5 / setting["dimension"] else ("diverged", 7, 1e9)

    path = sweep_file({"step_size": np.geomspace(1e-3, 1, 12), "init_scale": [1.0], **axes}, model)
    assert boundary.plan_figure(open_sweep(path), "step_size") == boundary.Plan(*plan)
    assert run("boundary", path, "--dpi", 60, "-o", tmp_path / "out.png") == 0


def test_axes_beside_their_default(sweep_file, tmp_path, capsys):
    axes = {"step_size": np.geomspace(1e-3, 1, 7), "data": [0, 100, 1000], "schedule": ["constant", "inverse_time"], "init_scale": [0.0]}
    path = sweep_file(axes)
    assert run("boundary", path, "--table", "-o", tmp_path / "a.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["data", "schedule"] and lines[1].split()[:2] == ["online", "constant"]
    assert run("boundary", path, "--along", "data", "-o", tmp_path / "b.png") == 0
    assert run("boundary", path, "--along", "data", "--where", "data=1:", "--json") == 0
    laws = json.loads(capsys.readouterr().out.split("\n", 1)[1])["scaling"]["laws"]
    assert [law["where"]["schedule"] for law in laws] == ["constant", "inverse_time"]
    sweep = open_sweep(path)
    critical = boundary.critical_values(sweep, "step_size", resamples=20)
    with pytest.raises(ArgumentError, match="data holds 0: a power law needs positive values"):
        boundary.scaling(critical, "data")


def test_a_sweep_that_has_only_begun(sweep_file, tmp_path, capsys):
    path = sweep_file({"dimension": [10, 20]}, lambda setting: ("pending", 0, 0.0))
    assert run("boundary", path, "--json", "--dpi", 60, "-o", tmp_path / "out.png") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {setting["kind"] for setting in numbers["settings"]} == {"no outcomes"}
    assert all(law["exponent"] is None for law in numbers["scaling"]["laws"])


@pytest.mark.parametrize("arguments, message", [
    (["--axis", "colour"], "'colour' is not an axis"), (["--axis", "dimension"], "'dimension' has no critical value"),
    (["--axis", "teacher_norm"], "teacher_norm has one value, 1"), (["--edge", "left"], "invalid choice: 'left'"),
    (["--along", "step_size"], "'step_size' cannot be the along of a critical step_size; there are dimension"),
    (["--along", "batch_size"], "batch_size has one value; the axes with more are dimension, init_scale"),
    (["--along", "dimension", "--y", "dimension"], "two different axes are needed"),
    (["--resamples", "1"], "not a number in"), (["-o", "out.gif"], ".png, .pdf, .svg"),
    (["--width", "2"], "--width 2 is too narrow: at least"), (["--where", "dimension=11"], "dimension has no value 11"),
])
def test_bad_arguments(planted_file, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run("boundary", planted_file, *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == "" and "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_help(capsys):
    assert run("boundary", "-h") == 0
    assert "--along" in capsys.readouterr().out
