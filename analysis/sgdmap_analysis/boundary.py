"""The boundary of convergence: the critical value of an axis, how it scales, and the boundary's dimension as a set.

Numbers come from `critical_values`, `scaling`, `box_counting_dimension` and `fractal`, the figure from
`draw_boundary`. An axis is handled in the space in which it is fitted, called u: the natural logarithm of its values
where all are positive, else (an axis that holds 0) the values themselves.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from . import maps, style
from .errors import ArgumentError
from .statistics import convergence, outcome_counts
from .sweep import ONLINE, axes_of, flag_codes, has_outcome, told

# The axes along which a critical value has a meaning, and the sides of the region of convergence.
BOUNDARY_AXES = ("step_size", "teacher_norm", "init_scale")
EDGES = ("upper", "lower")

# Why a setting has a critical value or none; the kinds of which a bound is known, the last value of the grid.
KINDS = ("estimated", "all converge", "none converge", "less than half converge", "beyond the grid", "no outcomes")
_OUTSIDE = ("all converge", "beyond the grid")

# The penalty of the fit, weak on purpose (see fit_logistic): runs added beyond either end, and the rate of the
# steepness' exponential prior, a mean spacing of the grid being the unit.
_AUGMENTED = 0.25
_STEEPNESS_RATE = 0.02

# Numbers in one batch of the fit: its arrays then fit into the cache, which is four times as fast as 2^20.
_BATCH = 1 << 15


# -- Distributions -----------------------------------------------------------------------------------------------------


def _beta_fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22, modified Lentz)."""
    a, b, x = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (a, b, x)))
    swap = x > (a + 1) / (a + b + 2)
    a, b, x = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    tiny = 1e-300
    c = np.ones_like(x)
    d = 1 - (a + b) * x / (a + 1)
    d = 1 / np.where(np.abs(d) < tiny, tiny, d)
    fraction = d.copy()
    for m in range(1, 300):
        for term in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                     -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            d = 1 + term * d
            d = 1 / np.where(np.abs(d) < tiny, tiny, d)
            c = 1 + term / c
            c = np.where(np.abs(c) < tiny, tiny, c)
            fraction = fraction * c * d
        if np.all(np.abs(c * d - 1) < 1e-14):
            break
    log_gamma = np.vectorize(math.lgamma, otypes=[float])
    with np.errstate(divide="ignore"):
        front = np.exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * np.log(x) + b * np.log1p(-x)) / a
    value = np.where(x <= 0, 0.0, front * fraction)
    return np.where(swap, 1 - value, value)


def student_t_quantile(probability: float, degrees: np.ndarray | float) -> np.ndarray:
    """The quantile of Student's t distribution, probability in (1/2, 1), degrees of freedom > 0, also fractional."""
    degrees = np.asarray(degrees, dtype=float)
    low, high = np.zeros_like(degrees), np.full_like(degrees, 2.0)
    upper_tail = 1 - probability

    def tail(t: np.ndarray) -> np.ndarray:
        return 0.5 * _beta_fraction(degrees / 2, 0.5, degrees / (degrees + t * t))

    while np.any(tail(high) > upper_tail):
        high = np.where(tail(high) > upper_tail, 2 * high, high)
    for _ in range(60):
        middle = (low + high) / 2
        above = tail(middle) > upper_tail
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def f_tail(value: Any, numerator: Any, denominator: Any) -> np.ndarray:
    """P(F > value) of the F distribution with these degrees of freedom."""
    value, numerator, denominator = (np.asarray(given, dtype=float) for given in (value, numerator, denominator))
    return _beta_fraction(denominator / 2, numerator / 2, denominator / (denominator + numerator * value))


# -- The fit -----------------------------------------------------------------------------------------------------------


def fit_logistic(
    t: np.ndarray, k: np.ndarray, n: np.ndarray, start: np.ndarray, tolerance: float = 1e-7
) -> tuple[np.ndarray, np.ndarray]:
    """Penalised logistic fits of a probability that falls along t, many at once.

    P(t) = 1 / (1 + exp((t - c) / w)), fitted to k successes of n trials at the points from `start` on. The log
    likelihood is penalised in two ways, each weak against one run:

    - 1/4 of a run that converged is added one unit before the first point fitted, and 1/4 of one that did not one
      unit after the last, as prior data (C. C. Clogg et al., J. Am. Stat. Assoc. 86 (1991) 68; S. Greenland, M. A.
      Mansournia, Stat. Med. 34 (2015) 3133), so that points that all agree leave the boundary half a unit outside of
      them;
    - the steepness 1/w has an exponential prior of mean 50 per unit. Where successes and failures are separated, for
      which the likelihood alone has no maximum (A. Albert, J. A. Anderson, Biometrika 71 (1984) 1), this keeps w at
      about a tenth of the gap, and the boundary at the middle of the gap. Firth's penalty (Biometrika 80 (1993) 27)
      is finite too, but leaves the middle where there are more points on one side than on the other.

    The penalised likelihood is concave in (c/w, 1/w); Newton's method with halved steps finds its maximum.

    Parameters
    ----------
    t [points]
        Ascending, the unit being the mean spacing.
    k, n [rows, points]
        Successes and trials, as real numbers; n may be 0.
    start [rows]
        Index of the first point that is fitted.
    tolerance
        The last step of c/w and 1/w, of which Newton's method leaves about the square as error.

    Returns
    -------
    c, w [rows]
        The point where P = 1/2, within [t[start] - 1, t[-1] + 1], and the scale, both in units of t.
    """
    rows, points = k.shape
    c, w = np.empty(rows), np.empty(rows)
    batch = max(1, _BATCH // (points + 2))
    for first in range(0, rows, batch):
        part = slice(first, first + batch)
        c[part], w[part] = _fit_batch(t, k[part], n[part], start[part], tolerance)
    return c, w


def _fit_batch(
    t: np.ndarray, k: np.ndarray, n: np.ndarray, start: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    used = np.arange(t.size) >= start[:, None]
    rows = len(k)
    trials = np.empty((rows, t.size + 2))
    trials[:, 1:-1] = np.where(used, n, 0)
    trials[:, 0] = trials[:, -1] = _AUGMENTED
    wins = np.empty_like(trials)
    wins[:, 1:-1] = np.where(used, k, 0)
    wins[:, 0], wins[:, -1] = _AUGMENTED, 0
    first, last = t[start] - 1, t[-1] + 1

    # Where the probability, summed over the points, says that the fall is: the origin of each row, so that no digits
    # are lost.
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(trials[:, 1:-1] > 0, wins[:, 1:-1] / trials[:, 1:-1], 0)
    origin = np.clip(t[start] - 0.5 + share.sum(1) * (t[-1] - t[0]) / max(1, t.size - 1), first, last)
    place = np.empty_like(trials)
    place[:, 1:-1] = t - origin[:, None]
    place[:, 0], place[:, -1] = first - origin, last - origin

    alpha, beta = np.zeros(rows), np.full(rows, 2.0)
    active = np.arange(rows)
    for _ in range(100):
        x, s, m, a, b = place[active], wins[active], trials[active], alpha[active], beta[active]
        p = _logistic(a[:, None] - b[:, None] * x)
        residual, weight = s - m * p, m * p * (1 - p)
        gradient_a = residual.sum(1)
        gradient_b = -(residual * x).sum(1) - _STEEPNESS_RATE
        weighted = weight * x
        haa, hab, hbb = weight.sum(1) + 1e-12, -weighted.sum(1), (weighted * x).sum(1) + 1e-12
        determinant = np.maximum(haa * hbb - hab * hab, 1e-24)
        step_a = (hbb * gradient_a - hab * gradient_b) / determinant
        step_b = (haa * gradient_b - hab * gradient_a) / determinant
        size = np.maximum(np.abs(step_a), np.abs(step_b))
        scale = np.minimum(1, 4 / np.maximum(size, 1e-300))
        # Only long steps can miss; the objective costs as much as all the rest.
        far = np.flatnonzero(size > 0.5)
        if far.size:
            x, s, m, a_far, b_far = x[far], s[far], m[far], a[far], b[far]
            before = _objective(x, s, m, a_far, b_far)
            for _ in range(30):
                new = _objective(x, s, m, a_far + scale[far] * step_a[far], b_far + scale[far] * step_b[far])
                worse = new < before - 1e-12 * (1 + np.abs(before))
                if not worse.any():
                    break
                scale[far[worse]] /= 2
        alpha[active], beta[active] = a + scale * step_a, b + scale * step_b
        moving = size * scale > tolerance
        active = active[moving]
        if active.size == 0:
            break
    # A resample may rise along t, which no falling curve fits: it is flat then, and all on one side.
    beta = np.maximum(beta, 1e-6)
    return np.clip(origin + alpha / beta, first, last), 1 / beta


def _logistic(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def _objective(x: np.ndarray, s: np.ndarray, m: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The penalised log likelihood of each row."""
    z = a[:, None] - b[:, None] * x
    return (s * z - m * (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))))).sum(1) - _STEEPNESS_RATE * b


def _resamples(count: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `count` replicates is drawn [resample, count], and the resamples' probabilities [resample].

    All of them where they are no more than `resamples` (six replicates have 462): the bootstrap is exact then.
    """
    if math.comb(2 * count - 1, count) <= max(1, resamples):
        draws = np.array([np.bincount(draw, minlength=count)
                          for draw in combinations_with_replacement(range(count), count)], dtype=float)
        factorials = np.array([math.factorial(i) for i in range(count + 1)], dtype=float)
        chances = math.factorial(count) / factorials[draws.astype(int)].prod(1) / float(count) ** count
        return draws, chances
    random = np.random.default_rng([seed, count])
    draws = random.multinomial(count, np.full(count, 1 / count), size=resamples).astype(float)
    return draws, np.full(resamples, 1 / resamples)


# -- Critical values ---------------------------------------------------------------------------------------------------


def axis_space(values: np.ndarray) -> str:
    """'log' where all values are positive, else 'linear': the space in which an axis is fitted."""
    return "log" if np.all(np.asarray(values, dtype=float) > 0) else "linear"


def critical_values(
    sweep: xr.Dataset,
    axis: str = "step_size",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    edge: str = "upper",
) -> xr.Dataset:
    """The value of an axis at which half of the runs converge, a setting, with its interval.

    **Which edge.** Convergence is often no monotone function of the axis: steps that are too small do not get there
    within the budget, steps that are too large diverge. The `upper` edge is the one above which runs do not converge,
    the `lower` one that below which they do not. The region is split at its middle: the median of the converged runs
    over the values whose share is at least half of the largest share. Of one side, a plateau (the part, counted from
    the middle, whose mean share is the largest) is left out but for its last value, since a plateau below 1 (runs
    that stall at whatever step size) is no part of a logistic curve's fall.

    **The fit** is `fit_logistic` over u, the natural logarithm of the axis, or its values where one is 0 (attribute
    `space`).

    **The interval.** All runs of a replicate share their noise, so whole replicates are resampled within a setting
    (cluster bootstrap; C. A. Field, A. H. Welsh, J. R. Stat. Soc. B 69 (2007) 369), exactly where there are few.
    Percentiles of a handful of replicates are too narrow: the interval is critical ± t s √(R/(R-1)) in u, with the
    bootstrap's standard error s and Student's t with R-1 degrees of freedom, as for a mean of R replicates (T.
    Hesterberg, Am. Stat. 69 (2015) 371). Where successes and failures are separated, or all but so, the data say
    nothing about the place within the gap between two values of the grid, and the interval covers that gap too. A
    single replicate has no interval but the grid's own resolution: from the last value up to which all converged to
    the first from which none does (`basis` is 'grid' then, else 'bootstrap').

    Pending, running and failed runs count neither for nor against.

    Parameters
    ----------
    sweep
        From `open_sweep`.
    axis
        One of BOUNDARY_AXES, with at least two values.
    confidence
        Of the interval, in (0, 1).
    resamples, seed
        Of the bootstrap, where it is not exact.
    edge
        'upper' or 'lower'.

    Returns
    -------
    xarray.Dataset
        [all axes but `axis` and replicate]: `critical`, `low`, `high` in units of the axis; `kind`, one of KINDS;
        `basis`; `width`, the logistic scale, and `standard_error`, both in u; `degrees` of freedom; `replicates` with
        an outcome; `share`, the largest share of converged runs. Where kind is 'all converge' or 'beyond the grid',
        the boundary lies beyond the last value, which is `low` (`high` for the lower edge), and the other bound is
        infinite; else what is not known is NaN.

    Raises ArgumentError for another axis or edge, or an axis with one value.
    """
    if axis not in BOUNDARY_AXES:
        raise ArgumentError(f"{axis!r} has no critical value; the axes that have are {', '.join(BOUNDARY_AXES)}")
    if edge not in EDGES:
        raise ArgumentError(f"{edge!r} is not an edge; there are {' and '.join(EDGES)}")
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence: {confidence} is not in (0, 1)")
    if resamples < 1:
        raise ArgumentError(f"resamples: {resamples} is not at least 1")
    values = sweep[axis].values.astype(float)
    if values.size < 2:
        raise ArgumentError(f"{axis} has one value, {values[0]:.6g}: a boundary needs at least two")
    space = axis_space(values)
    u = np.log(values) if space == "log" else values
    others = [name for name in axes_of(sweep) if name not in (axis, "replicate")]
    status = sweep.status.transpose(*others, "replicate", axis)
    known = has_outcome(status).values.reshape(-1, *status.shape[-2:])
    converged = (status.values == flag_codes(sweep.status)["converged"]).reshape(known.shape)
    if edge == "lower":
        # The same problem seen in a mirror.
        u, known, converged = -u[::-1], known[..., ::-1], converged[..., ::-1]

    found = _critical(u, converged, known, confidence, resamples, seed)
    if edge == "lower":
        found["critical"] = -found["critical"]
        found["low"], found["high"] = -found["high"], -found["low"]
    for name in ("critical", "low", "high"):
        # No axis has values below 0.
        with np.errstate(over="ignore"):
            found[name] = np.exp(found[name]) if space == "log" else np.maximum(found[name], 0)

    shape = status.shape[:-2]
    unit = "1" if space == "log" else str(sweep[axis].attrs.get("units", "1"))
    words = {
        "critical": f"{axis} at which half of the runs converge ({edge} edge)",
        "low": "lower bound of the critical value", "high": "upper bound of the critical value",
        "kind": "whether there is a critical value", "basis": "what the interval comes from",
        "width": "logistic scale of the boundary", "standard_error": "standard error of the critical value",
        "degrees": "degrees of freedom of the standard error", "replicates": "replicates with an outcome",
        "share": "largest share of converged runs along the axis",
    }
    ret = xr.Dataset(
        {name: (others, found[name].reshape(shape), {"long_name": text}) for name, text in words.items()},
        {name: sweep[name] for name in others},
        {"axis": axis, "edge": edge, "space": space, "confidence": confidence,
         "first": float(values[0]), "last": float(values[-1])},
    )
    for name in ("width", "standard_error"):
        ret[name].attrs["units"] = unit
        ret[name].attrs["comment"] = "of the natural logarithm" if space == "log" else "of the axis itself"
    return ret


def _critical(
    u: np.ndarray, converged: np.ndarray, known: np.ndarray, confidence: float, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """The upper edge in u for outcomes [setting, replicate, value]; see critical_values."""
    settings, _, points = converged.shape
    spacing = (u[-1] - u[0]) / (points - 1)
    t = (u - u[0]) / spacing
    n, k = known.sum(1).astype(float), (converged & known).sum(1).astype(float)
    live = known.any(2)
    replicates = live.sum(1)
    with np.errstate(invalid="ignore"):
        share = k / n
    largest = np.where(n > 0, share, -1).max(1)

    kind = np.full(settings, "estimated", dtype="<U24")
    kind[largest < 0.5] = "less than half converge"
    kind[largest == 0] = "none converge"
    kind[(k == n).all(1)] = "all converge"
    kind[replicates == 0] = "no outcomes"

    start = _start(share, k, n, largest)
    fitted = np.flatnonzero(kind == "estimated")
    critical, width, error = np.full((3, settings), np.nan)
    low, high = np.full((2, settings), np.nan)
    c, w = fit_logistic(t, k[fitted], n[fitted], start[fitted])
    # What lies above the last value that has an outcome is not known to be there.
    end = points - 1 - np.argmax(n[:, ::-1] > 0, axis=1)
    beyond = c > t[end[fitted]]
    kind[fitted[beyond]] = "beyond the grid"
    fitted, c, w = fitted[~beyond], c[~beyond], w[~beyond]

    before, after, single = _bracket(t, k[fitted], n[fitted], start[fitted])
    deviation = _bootstrap(t, converged, known & live[..., None], fitted, start, replicates, resamples, seed)
    many = replicates[fitted] > 1
    degrees = np.maximum(1, replicates[fitted] - 1).astype(float)
    quantiles = {value: float(student_t_quantile((1 + confidence) / 2, value)) for value in np.unique(degrees)}
    half = np.array([quantiles[value] for value in degrees]) * deviation if fitted.size else deviation
    # Half a gap at each side of its middle, evenly distributed, has this standard deviation.
    resolution = np.where(single | ~many, (after - before) / math.sqrt(12), 0)
    lower = np.where(many, np.where(single, np.minimum(before, c - half), c - half), np.minimum(before, c))
    upper = np.where(many, np.where(single, np.maximum(after, c + half), c + half), np.maximum(after, c))
    from_grid = ~many | (resolution >= deviation)

    critical[fitted], width[fitted] = u[0] + spacing * c, spacing * w
    low[fitted], high[fitted] = u[0] + spacing * lower, u[0] + spacing * upper
    error[fitted] = spacing * np.maximum(deviation, resolution)
    all_degrees = np.full(settings, np.nan)
    # A gap is as wide as it is: there is nothing to estimate.
    all_degrees[fitted] = np.where(from_grid, np.inf, degrees)
    outside = np.isin(kind, _OUTSIDE)
    low[outside], high[outside] = u[end[outside]], np.inf
    basis = np.full(settings, "", dtype="<U9")
    basis[fitted] = np.where(many, "bootstrap", "grid")
    return {
        "critical": critical, "low": low, "high": high, "kind": kind, "basis": basis, "width": width,
        "standard_error": error, "degrees": all_degrees, "replicates": replicates,
        "share": np.where(replicates > 0, largest, np.nan),
    }


def _start(share: np.ndarray, k: np.ndarray, n: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Index of the first point to fit [setting]: the end of the plateau that begins at the region's middle."""
    points = k.shape[1]
    inside = np.where((n > 0) & (np.nan_to_num(share) >= largest[:, None] / 2), k, 0)
    total = np.cumsum(inside, axis=1)
    middle = np.argmax(total >= total[:, -1:] / 2, axis=1)
    on_side = np.arange(points) >= middle[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.cumsum(np.where(on_side, k, 0), 1) / np.cumsum(np.where(on_side, n, 0), 1)
    mean = np.where(on_side & (n > 0), np.nan_to_num(mean), -1)
    # The last of equals, rounding apart.
    best = mean >= mean.max(1, keepdims=True) - 1e-12
    return points - 1 - np.argmax(best[:, ::-1], axis=1)


def _bracket(
    t: np.ndarray, k: np.ndarray, n: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where all converge before, where none converges after [setting], and whether at most one value lies between.

    With one value between, where a share p converge, the curve crosses 1/2 on the side of it that p says.
    """
    points = t.size
    index = np.arange(points)
    used = (index >= start[:, None]) & (n > 0)
    failing, winning = used & (k < n), used & (k > 0)
    first_failing = np.where(failing.any(1), failing.argmax(1), points)
    last_winning = points - 1 - winning[:, ::-1].argmax(1)
    has = n > 0
    # The neighbours with an outcome; one before the plateau's end need not be fitted itself.
    previous = np.where(has & (index < first_failing[:, None]), index, -1).max(1)
    following = np.where(has & (index > last_winning[:, None]), index, points).min(1)
    before = np.where(previous >= 0, t[np.maximum(previous, 0)], t[0] - 1)
    after = np.where(following < points, t[np.minimum(following, points - 1)], t[-1] + 1)
    separated = last_winning < first_failing
    one = last_winning == first_failing
    at = np.minimum(last_winning, points - 1)
    rows = np.arange(len(k))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k[rows, at] / n[rows, at]
    before = np.where(one & (p >= 0.5), t[at], before)
    after = np.where(one & (p <= 0.5), t[at], after)
    return before, after, separated | one


def _bootstrap(
    t: np.ndarray, converged: np.ndarray, known: np.ndarray, fitted: np.ndarray, start: np.ndarray,
    replicates: np.ndarray, resamples: int, seed: int,
) -> np.ndarray:
    """The standard error [fitted] of the critical values, times √(R/(R-1)), in units of t; 0 for one replicate."""
    error = np.zeros(fitted.size)
    points = t.size
    for count in np.unique(replicates[fitted]):
        if count < 2:
            continue
        draws, chances = _resamples(int(count), resamples, seed)
        places = np.flatnonzero(replicates[fitted] == count)
        places = places[np.argsort(start[fitted][places], kind="stable")]  # those that need the same values together
        step = max(1, (1 << 21) // (len(draws) * points))
        for first in range(0, places.size, step):
            place = places[first : first + step]
            chosen = fitted[place]
            # The replicates with an outcome first, so that others have no part in it, not even in the random numbers.
            order = np.argsort(~known[chosen].any(2), axis=1, kind="stable")[:, :count, None]
            left = start[chosen].min() if chosen.size else 0
            trials = np.take_along_axis(known[chosen], order, 1)[..., left:].astype(float)
            wins = np.take_along_axis(converged[chosen], order, 1)[..., left:] * trials
            used = np.arange(left, points) >= start[chosen][:, None]
            # Replicates that all say the same have one resample.
            differ = (((wins != wins[:, :1]) | (trials != trials[:, :1])) & used[:, None]).any((1, 2))
            place, wins, trials, chosen = place[differ], wins[differ], trials[differ], chosen[differ]
            if place.size == 0:
                continue
            k = np.matmul(draws, wins).reshape(-1, points - left)
            n = np.matmul(draws, trials).reshape(-1, points - left)
            c, _ = fit_logistic(t[left:], k, n, np.repeat(start[chosen] - left, len(draws)), 1e-3)
            c = c.reshape(-1, len(draws))
            mean = c @ chances
            error[place] = np.sqrt((c - mean[:, None]) ** 2 @ chances * count / (count - 1))
    return error


# -- Scaling -----------------------------------------------------------------------------------------------------------


def scaling(critical: xr.Dataset, along: str = "dimension", confidence: float = 0.95) -> xr.Dataset:
    """Power laws critical ∝ along^exponent, one for each setting of the other axes.

    Weighted least squares of log critical on log `along`, over the settings that have an estimated critical value.
    The variance of a point is that of the boundary (bootstrap, or a gap of the grid); since a variance of a few
    replicates is a poor one, weights are of its mean with that of all points. The exponent is a linear combination of
    the points, so its variance follows from theirs as they are (what resampling each point for itself gives in the
    limit), with Satterthwaite's degrees of freedom (Biometrics Bull. 2 (1946) 110) for the interval's Student t.

    Points that scatter about the line more than their intervals allow (an F test at 5 %) are no power law to this
    precision: `misfit` is True and the interval is widened by the root of the reduced chi-square (R. T. Birge, Phys.
    Rev. 40 (1932) 207). Points are taken as independent. Along dimension and input they are; along other axes they
    share noise, which cancels in an exponent in part: the interval is wider than needed then.

    Returns
    -------
    xarray.Dataset
        [all axes but `axis`, replicate and `along`]: `exponent`, `low`, `high`; `prefactor`, in units of the critical
        value where `along` is 1; `points`; `checked`, False where there are two points, which lie on a line whatever
        they are; `chi_square` over its degrees of freedom; `misfit`. NaN with less than two points.

    Raises ArgumentError where `along` is no numeric axis of the critical values or has values that are not positive.
    """
    others = _scaling_axes(critical, along)
    values = critical[along].values.astype(float)
    table = critical.transpose(*others, along)
    place = table.critical.values
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Small errors of the axis' own values are relative ones of their logarithms.
        error = table.standard_error.values / (1 if critical.attrs["space"] == "log" else place)
        known = (table.kind.values == "estimated") & (place > 0) & np.isfinite(error)
        y = np.where(known, np.log(np.where(known, place, 1)), 0)
    variance = np.where(known, np.maximum(error, 1e-9) ** 2, 0)
    degrees = np.where(known, table.degrees.values, np.inf)
    x = np.log(values)

    points = known.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        typical = variance.sum(-1, keepdims=True) / points[..., None]
        weight = np.where(known, 2 / (variance + typical), 0)
        total = weight.sum(-1, keepdims=True)
        centred = np.where(known, x - (weight * x).sum(-1, keepdims=True) / total, 0)
        share = weight * centred / (weight * centred**2).sum(-1, keepdims=True)  # the exponent is the sum of share * y
        exponent = (share * y).sum(-1)
        level = (weight * y).sum(-1) / total[..., 0]
        residual = np.where(known, y - level[..., None] - exponent[..., None] * centred, 0)
        parts = share**2 * variance
        spread = parts.sum(-1)
        freedom = spread**2 / (parts**2 / degrees).sum(-1)
        freedom = np.clip(np.where(np.isfinite(freedom), freedom, 1e4), 1, 1e4)
        chi_square = (weight * residual**2).sum(-1) / np.where(points > 2, points - 2, np.nan)
        all_freedom = variance.sum(-1) ** 2 / (variance**2 / degrees).sum(-1)
        all_freedom = np.clip(np.where(np.isfinite(all_freedom), all_freedom, 1e4), 1, 1e4)
        tail = f_tail(np.nan_to_num(chi_square), np.maximum(points - 2, 1), all_freedom)
        misfit = (points > 2) & (tail < 0.05)
        factor = np.where(misfit, np.maximum(1, chi_square), 1)
        half = student_t_quantile((1 + confidence) / 2, freedom) * np.sqrt(spread * factor)
        prefactor = np.exp(level - exponent * (weight * x).sum(-1) / total[..., 0])
    enough = points >= 2
    axis = critical.attrs["axis"]
    words = {
        "exponent": (np.where(enough, exponent, np.nan), f"exponent of the critical {axis} along {along}"),
        "low": (np.where(enough, exponent - half, np.nan), "lower bound of the exponent"),
        "high": (np.where(enough, exponent + half, np.nan), "upper bound of the exponent"),
        "prefactor": (np.where(enough, prefactor, np.nan), f"critical {axis} where {along} is 1"),
        "points": (points, f"values of {along} with a critical value"),
        "checked": (points > 2, "whether points are enough to see a power law fail"),
        "chi_square": (np.where(points > 2, chi_square, np.nan), "chi-square over its degrees of freedom"),
        "misfit": (misfit, "whether the points are off a power law"),
    }
    return xr.Dataset(
        {name: (others, array, {"long_name": text, "units": "1"}) for name, (array, text) in words.items()},
        {name: critical[name] for name in others},
        {"axis": axis, "edge": critical.attrs["edge"], "along": along, "confidence": confidence},
    )


def can_scale(critical: xr.Dataset, along: str) -> bool:
    """Whether `scaling` is possible along that axis."""
    try:
        _scaling_axes(critical, along)
    except ArgumentError:
        return False
    return True


def _scaling_axes(critical: xr.Dataset, along: str) -> list[str]:
    """The axes of the power laws; an ArgumentError where there can be none along that axis."""
    axis, axes = critical.attrs["axis"], list(critical.critical.dims)
    if along not in axes or not np.issubdtype(critical[along].dtype, np.number):
        numeric = [name for name in axes if np.issubdtype(critical[name].dtype, np.number)]
        raise ArgumentError(
            f"the critical {axis} has no power law along {along!r}; it can have one along {', '.join(numeric)}")
    if np.any(critical[along].values <= 0):
        raise ArgumentError(f"{along} holds {critical[along].values.min():.6g}: a power law needs positive values; "
                            f"choose them with --where {along}=...")
    return [name for name in axes if name != along]


# -- Dimension ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """A box-counting dimension.

    dimension, low, high
        The slope of log count against -log size over the range used, and its interval. NaN for an empty set.
    sizes, counts
        [n] Sides of the boxes in cells, ascending, and how many boxes meet the set, the mean over all places of the
        boxes.
    used
        The smallest and largest size of the fit's range.
    """

    dimension: float
    low: float
    high: float
    sizes: np.ndarray
    counts: np.ndarray
    used: tuple[int, int]


# Maps with fewer values an axis have no range of sizes in which to see a dimension; larger sets than this no memory.
MIN_SIDE = 64
_MAX_SIDE = 1 << 14

# The jackknife leaves out one of so many blocks a side.
_BLOCKS = 4

# The largest error of the dimension on sets whose dimension is known, at the default range (see
# box_counting_dimension).
_FINITE_SIZE = 0.03


def boundary_corners(region: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """The boundary of a region [y, x] of cells: True [y - 1, x - 1] for corners between four cells that it passes.

    It passes between two neighbours (of four) on different sides. Its corners are one thick and joined in whatever
    direction it runs; the cells with a neighbour on the other side would be two thick, and the dimension of a
    straight boundary 1.12 at sizes of 2 to 16 cells, 1.04 at 8 to 64. Where `known` is False nothing is known, and no
    boundary is seen.
    """
    region = np.asarray(region, dtype=bool)
    known = np.ones_like(region) if known is None else np.asarray(known, dtype=bool)
    across = (region[:, 1:] != region[:, :-1]) & known[:, 1:] & known[:, :-1]
    up = (region[1:] != region[:-1]) & known[1:] & known[:-1]
    return across[1:] | across[:-1] | up[:, 1:] | up[:, :-1]


def box_counting_dimension(
    mask_or_points: np.ndarray, sizes: Sequence[int] | None = None, confidence: float = 0.95
) -> Dimension:
    """The box-counting (Minkowski-Bouligand) dimension of a set of cells.

    The number of boxes of side s that meet the set is averaged over all places of the boxes: s^-2 times the cells
    around which a box of side s meets the set (K. Falconer, Fractal Geometry, 2nd ed., 2003, section 3.1). A
    fixed grid of boxes would have counts that depend on where it lies. The slope is that of a least-squares line
    through log count over log s, at sizes evenly spaced on the logarithm.

    **The range.** Small boxes see cells, large ones the frame. By default s runs from L/128 (at least 2) to L/16 (at
    least 8), L being the shorter side of the mask. Measured there, L = 1024: straight lines 0.99 to 1.00, filled
    plane 2.00, Koch curve 1.257 (log 4/log 3 = 1.262), Sierpinski triangle 1.61 (1.585); Sierpinski carpet, L = 729,
    1.894 (1.893). At L = 64 and 128, straight boundaries of regions gave 1.00 to 1.04, those of discs 1.00.

    **The interval** has three parts, added in squares: the jackknife over 4 x 4 blocks of the frame (how much one
    part of the set differs from another; R. G. Miller, Biometrika 61 (1974) 1), the difference of the slopes in the
    lower and upper half of the range (how far the set is from having one dimension), and 0.03, the largest of the
    errors above at L = 1024, which all parts of a set have in common.

    Parameters
    ----------
    mask_or_points
        The set: boolean [y, x], True in it; or integers [n, 2], the places of its cells, the frame then being a square
        around them. The boundary of a region is `boundary_corners(region)`.
    sizes
        Sides of the boxes to count and fit with, at least 3 (default: see above; those counted go on to L/4).

    Raises ArgumentError for another shape, sizes out of [1, L], or a set more than 16,384 cells wide.
    """
    mask = _as_mask(mask_or_points)
    side = min(mask.shape)
    if sizes is None:
        lowest, highest = max(2, side // 128), max(8, side // 16)
        # Four an octave in the range, one an octave outside of it, to see where it bends.
        fine = lowest * 2.0 ** np.arange(0, math.log2(highest / lowest) + 1e-9, 0.25)
        coarse = 2.0 ** np.arange(0, math.log2(max(2, side / 4)) + 1e-9)
        sizes = np.unique(np.round(np.concatenate([fine, coarse, [highest]])).astype(int))
        sizes = sizes[sizes <= max(1, side)]
    else:
        sizes = np.unique(np.asarray(sizes, dtype=int))
        lowest, highest = (int(sizes[0]), int(sizes[-1])) if sizes.size else (0, 0)
    used = (sizes >= lowest) & (sizes <= highest)
    if used.sum() < 3 or sizes[0] < 1 or max(sizes[-1], highest) > side:
        shape = f"{mask.shape[1]} x {mask.shape[0]}"
        raise ArgumentError(f"a set of {shape} cells needs at least 3 sizes of boxes in [1, {side}]")
    blocks = np.array([_box_counts(mask, int(size)) for size in sizes])  # [size, block]
    counts = blocks.sum(1)
    range_used = (int(sizes[used][0]), int(sizes[used][-1]))
    if counts[0] == 0:
        return Dimension(math.nan, math.nan, math.nan, sizes, counts, range_used)

    x = np.log(sizes[used])
    dimension = _slope(x, counts[used])
    full = np.flatnonzero(blocks[used].all(0))
    # A set within a single block has no other part to compare with.
    deviation = 0.0
    if full.size > 1:
        left_out = np.array([_slope(x, counts[used] - blocks[used][:, i]) for i in full])
        spread = (full.size - 1) / full.size * ((left_out - left_out.mean()) ** 2).sum()
        deviation = float(student_t_quantile((1 + confidence) / 2, full.size - 1)) * math.sqrt(spread)
    middle = (x[0] + x[-1]) / 2
    lower, upper = x <= middle + 1e-9, x >= middle - 1e-9
    bend = 0.0
    if min(lower.sum(), upper.sum()) >= 2:
        bend = _slope(x[upper], counts[used][upper]) - _slope(x[lower], counts[used][lower])
    half = math.hypot(deviation, bend, _FINITE_SIZE)
    return Dimension(dimension, dimension - half, dimension + half, sizes, counts, range_used)


def _slope(x: np.ndarray, counts: np.ndarray) -> float:
    centred = x - x.mean()
    return float(-(centred * np.log(counts)).sum() / (centred**2).sum())


def _as_mask(mask_or_points: np.ndarray) -> np.ndarray:
    given = np.asarray(mask_or_points)
    if given.ndim != 2 or given.size == 0:
        raise ArgumentError(f"a set is a boolean [y, x] or integers [n, 2], not an array of shape {given.shape}")
    if given.dtype == bool:
        mask = given
    elif np.issubdtype(given.dtype, np.integer) and given.shape[1] == 2:
        points = given - given.min(0)
        extent = points.max(0) + 1
        side = int(extent.max())
        if side > _MAX_SIDE:
            raise ArgumentError(f"a set of {side} cells a side is too large (at most {_MAX_SIDE})")
        mask = np.zeros((side, side), dtype=bool)
        mask[tuple((points + (side - extent) // 2).T)] = True
    else:
        raise ArgumentError(f"a set is a boolean [y, x] or integers [n, 2], not {given.dtype} of shape {given.shape}")
    if max(mask.shape) > _MAX_SIDE:
        raise ArgumentError(f"a set of {max(mask.shape)} cells a side is too large (at most {_MAX_SIDE})")
    return mask


def _box_counts(mask: np.ndarray, size: int) -> np.ndarray:
    """The mean number of boxes that meet the set, in each block of the frame [block]."""
    before = size // 2
    padded = np.pad(mask, ((before, size - 1 - before),) * 2)
    sums = np.zeros((padded.shape[0] + 1, padded.shape[1] + 1), dtype=np.int32)
    np.cumsum(padded, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    hit = (sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]) > 0
    cuts = [np.linspace(0, length, _BLOCKS, endpoint=False).astype(int) for length in hit.shape]
    if min(hit.shape) < _BLOCKS:
        return np.array([hit.sum() / size**2])
    rows = np.add.reduceat(hit, cuts[0], axis=0, dtype=np.int64)
    return np.add.reduceat(rows, cuts[1], axis=1).ravel() / size**2


def is_large(sweep: xr.Dataset) -> bool:
    """Whether a map of the sweep is large enough for `fractal`."""
    return min(sweep.sizes[name] for name in maps.choose_axes(sweep, None, None)) >= MIN_SIDE


def fractal(
    sweep: xr.Dataset, x: str | None = None, y: str | None = None, outcome: str = "converged", confidence: float = 0.95
) -> xr.Dataset:
    """The box-counting dimension of the measured boundary over two axes, a setting of the others and a replicate.

    The region is that of the runs with `outcome`; a cell counts as one unit along both axes, however they are spaced.
    Each replicate has its own boundary: a mean over replicates would blur it. See `box_counting_dimension` for the
    method, the range and the interval. By default the axes are those that a map is drawn over.

    Returns
    -------
    xarray.Dataset
        [all axes but x and y]: `box_dimension`, `low`, `high`; `corners` through which the boundary passes; `reason`,
        '' or why there is no dimension: axes with less than 64 values, more than 1 % of the runs without an outcome,
        or no boundary worth the name (less than MIN_SIDE corners). Attributes: `x`, `y`, `outcome`, `smallest` and
        `largest` size of the fit's range.

    Raises ArgumentError for an axis or an outcome that is not there.
    """
    x, y = maps.choose_axes(sweep, x, y)
    codes = flag_codes(sweep.status)
    if outcome not in codes:
        raise ArgumentError(f"{outcome!r} is not an outcome; there are {', '.join(codes)}")
    others = [name for name in axes_of(sweep) if name not in (x, y)]
    status = sweep.status.transpose(*others, y, x)
    shape = status.shape[:-2]
    dimension, low, high = np.full((3, *shape), np.nan)
    corners = np.zeros(shape, dtype=np.int64)
    reason = np.full(shape, "", dtype="<U120")
    used = (0, 0)
    if min(status.shape[-2:]) < MIN_SIDE:
        reason[...] = (f"{x} has {status.shape[-1]} values and {y} {status.shape[-2]}: a dimension needs at least "
                       f"{MIN_SIDE} of both")
    else:
        known = has_outcome(status).values
        for place in np.ndindex(shape):
            missing = 1 - known[place].mean()
            if missing > 0.01:
                reason[place] = f"{100 * missing:.3g} % of the runs have no outcome"
                continue
            edge = boundary_corners(status.values[place] == codes[outcome], known[place])
            corners[place] = edge.sum()
            if corners[place] < MIN_SIDE:
                reason[place] = f"the boundary passes through {corners[place]} corners of cells, less than {MIN_SIDE}"
                continue
            found = box_counting_dimension(edge, confidence=confidence)
            dimension[place], low[place], high[place], used = found.dimension, found.low, found.high, found.used
    arrays = {"box_dimension": dimension, "low": low, "high": high, "corners": corners, "reason": reason}
    return xr.Dataset(
        {name: (others, array) for name, array in arrays.items()}, {name: sweep[name] for name in others},
        {"x": x, "y": y, "outcome": outcome, "confidence": confidence, "smallest": used[0], "largest": used[1]},
    )


# -- Drawing -----------------------------------------------------------------------------------------------------------

# More of them are too many to tell apart: some values of the other axes stand for all.
_COLOURS, _MARKERS = 4, ("o", "s", "^")
_MAP_COLUMNS, _MAP_ROWS = 4, 3

_AXIS_SYMBOLS = {"step_size": r"\eta", "teacher_norm": r"\Vert W^{*}\Vert_2", "init_scale": r"\sigma_0",
                 "dimension": "d", "batch_size": "B", "data": "N", "noise": r"\varepsilon"}


@dataclass(frozen=True)
class Plan:
    """What the figure shows: `along` (None without an axis to scale along), `second` up the side of the maps."""

    along: str | None
    second: str | None


def plan_figure(sweep: xr.Dataset, axis: str, along: str | None = None, second: str | None = None) -> Plan:
    """The axes of the figure: those asked for, else dimension, or the longest numeric one, and init_scale, or the
    longest left. An ArgumentError where one that was asked for cannot be."""
    others = [name for name in axes_of(sweep) if name not in (axis, "replicate")]
    for name, role in ((along, "along"), (second, "second axis")):
        if name is not None and name not in others:
            raise ArgumentError(f"{name!r} cannot be the {role} of a critical {axis}; there are {', '.join(others)}")
    if along is not None and along == second:
        raise ArgumentError(f"both along and up the side of the maps is {along}: two different axes are needed")
    if along is not None and sweep.sizes[along] < 2:
        varying = [name for name in others if sweep.sizes[name] > 1]
        raise ArgumentError(f"{along} has one value; the axes with more are {', '.join(varying) or 'none'}")
    by_length = sorted(others, key=lambda name: -sweep.sizes[name])

    def scales(name: str) -> bool:
        values = sweep[name].values
        return sweep.sizes[name] > 1 and np.issubdtype(values.dtype, np.number) and bool(np.all(values > 0))

    if along is None:
        # Scaling with the dimension is the question; other axes are the answer where there is one dimension.
        candidates = [name for name in ("dimension", "batch_size", *by_length) if name != second and scales(name)]
        along = candidates[0] if candidates else None
    if second is None:
        candidates = [name for name in ("init_scale", *by_length)
                      if name not in (axis, along) and sweep.sizes[name] > 1]
        # A map over two or three values is none if there is a longer axis.
        candidates.sort(key=lambda name: (sweep.sizes[name] < 5, -sweep.sizes[name] if sweep.sizes[name] < 5 else 0))
        second = candidates[0] if candidates else along
    return Plan(along, second)


def draw_boundary(
    sweep: xr.Dataset, critical: xr.Dataset, laws: xr.Dataset | None, plan: Plan, *, title: str = "",
    width: float | None = None, dpi: float | None = None,
) -> Figure:
    """The critical value along an axis with its power laws, and over maps of the probability of convergence.

    `critical` is that of the whole sweep, `laws` its `scaling` along `plan.along` (or None). Where the other axes
    have more values than can be told apart, some stand for all, and a line says so. The width (inches) is shared by
    the panels' maps; the height follows. Raises ArgumentError for a width in which they cannot be drawn.
    """
    with matplotlib.rc_context(style.parameters()):
        columns, rows, map_note = _map_places(critical, plan)
        series, note = _series(critical, laws, plan) if plan.along is not None else ([], "")
        left = 0.0
        if plan.along is not None:
            left = max([2.6, *(0.45 + style.text_width(line["label"]) for line in series), 0.25 + style.text_width(note)])
        # Inches, from the left of the maps' block: labels up the side, maps, labels of the rows.
        names = [] if plan.second is None else [style.value_text(value, plan.second) for value in critical[plan.second].values
                                                if isinstance(value, str) or plan.second == "data"]
        ticks = max([0.32, *(0.1 + style.text_width(name) for name in names)])
        x0, gap = left + 0.18 + ticks, 0.09
        beside = 0.06 + 0.13 * max(label.count("\n") + bool(label) for label, _ in rows)
        panel = {1: 2.2, 2: 1.6}.get(len(columns), 1.25)
        if len(columns) == len(rows) == 1 and plan.second is not None and critical.sizes[plan.second] > 100:
            panel = 3.2
        if width is not None:
            panel = (width - x0 - beside - gap * (len(columns) - 1)) / len(columns)
            if panel < 0.6:
                least = x0 + beside + gap * (len(columns) - 1) + 0.6 * len(columns)
                least = math.ceil(10 * least) / 10
                raise ArgumentError(f"--width {width:g} is too narrow: at least {least:g} inches are needed")
        maps_width = len(columns) * panel + (len(columns) - 1) * gap
        # Words below the maps may be wider than a single map.
        total = width or max(x0 + maps_width + beside, x0 + 1.9)
        words = style.broken(title, total - 0.06)
        tall = max(0.95 * panel, 0.8)
        legend = 0.137 * (len(series) + bool(note)) + 0.08 if series or note else 0.0
        # The panels' letters and headings stand between the title and the panels.
        top = (0.24 if plan.along is not None else 0) + (0.06 + 0.12 * len(words.splitlines()) if title else 0)
        maps_top = top + (0.16 if columns[0][0] else 0.04)
        maps_bottom = maps_top + len(rows) * tall + (len(rows) - 1) * gap
        key = maps_bottom + 0.42
        height = max(key + 0.55 + (0.14 if map_note else 0), top + 1.9 + 0.42 + legend)
        page = _Page(total, height, dpi)

        page.text(0.03, 0.04, words, va="top")
        if plan.along is not None:
            ax = page.axes(0.55, top, left - 0.55 - 0.25, height - top - 0.42 - legend, "scaling")
            _draw_series(ax, critical, plan, series)
            ax.set_title(f"Critical value ({critical.attrs['edge']} edge)", loc="left", pad=3)
            page.text(0.03, top - 0.2, "a", va="top", fontsize=8, fontweight="bold")
            page.text(left + 0.08, top - 0.2, "b", va="top", fontsize=8, fontweight="bold")
            handles, labels = ax.get_legend_handles_labels()
            line = height - legend + 0.137 / 2
            for handle, label in zip(handles, labels):
                page.figure.legend([handle], [label], loc="center left", frameon=False, fontsize=6.2, handlelength=1.4,
                                   borderpad=0, borderaxespad=0, handletextpad=0.5,
                                   bbox_to_anchor=page.place(0.1, line))
                line += 0.137
            page.text(0.1, line, note, fontsize=6.2, color=style.MUTED, va="center")

        xs = maps.Axis.of(critical.attrs["axis"], sweep[critical.attrs["axis"]].values)
        ys = maps.Axis.of(plan.second, critical[plan.second].values) if plan.second else None
        statistics = convergence(outcome_counts(sweep.status), critical.attrs["confidence"])
        for r, c in np.ndindex(len(rows), len(columns)):
            (row_label, row), (column_label, column) = rows[r], columns[c]
            ax = page.axes(x0 + c * (panel + gap), maps_top + r * (tall + gap), panel, tall, f"map {r} {c}")
            place = row | column
            if ys is None:
                _draw_curve(ax, statistics.isel(place), critical.isel(place), xs)
            else:
                _draw_over_map(ax, statistics.isel(place), critical.isel(place), xs, ys)
            ax.tick_params(labelleft=c == 0, labelbottom=r == len(rows) - 1)
            if r == 0:
                ax.set_title(column_label, pad=3)
            if c == len(columns) - 1 and row_label:
                page.text(x0 + maps_width + 0.05, maps_top + r * (tall + gap) + tall / 2, row_label, rotation=270,
                          va="center", ha="left", multialignment="center")
        side = style.AXIS_LABELS[plan.second] if plan.second else "probability of convergence"
        page.text(x0 - ticks, (maps_top + maps_bottom) / 2, side, rotation=90, va="center", ha="right")
        page.text(x0 + maps_width / 2, maps_bottom + 0.17, style.AXIS_LABELS[xs.name], va="top", ha="center")
        if ys is not None:
            cax = page.axes(x0, key, min(1.5, maps_width), 0.085, "bar")
            colours = ScalarMappable(Normalize(0, 1), style.PROBABILITY)
            bar = page.figure.colorbar(colours, cax=cax, orientation="horizontal")
            bar.outline.set_linewidth(0.5)
            bar.set_ticks([0, 0.5, 1])
            bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            bar.set_label("probability of convergence", fontsize=6.2, labelpad=1.5)
        line = key + (0.42 if ys is not None else 0)
        swatch = page.axes(x0, line - 0.043, 0.24, 0.085, "band")
        swatch.axis("off")
        swatch.set_xlim(0, 1)
        swatch.axhspan(0, 1, **_BAND)
        swatch.plot([0, 1], [0.5, 0.5], **_LINE)
        interval = f"{100 * critical.attrs['confidence']:g} % interval"
        if not (critical.basis == "bootstrap").any():
            interval = "resolution of the grid"
        page.text(x0 + 0.28, line, f"critical value, {interval}", fontsize=6.2, va="center_baseline")
        page.text(x0, line + 0.14, map_note, fontsize=6.2, va="center", color=style.MUTED)
        return page.figure


class _Page:
    """A figure laid out in inches from its top left corner."""

    def __init__(self, width: float, height: float, dpi: float | None) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=dpi or maps.DPI)
        FigureCanvasAgg(self.figure)

    def place(self, x: float, y: float) -> tuple[float, float]:
        return x / self.width, 1 - y / self.height

    def axes(self, x: float, y: float, width: float, height: float, label: str) -> Axes:
        left, bottom = self.place(x, y + height)
        return self.figure.add_axes((left, bottom, width / self.width, height / self.height), label=label)

    def text(self, x: float, y: float, text: str, **kind: Any) -> None:
        if text:
            self.figure.text(*self.place(x, y), text, **kind)


_BAND = {"facecolor": style.OUTCOME_COLOURS["diverged"], "alpha": 0.45, "linewidth": 0}
_LINE = {"color": style.INK, "linewidth": 1.0}


def _spread_out(count: int, most: int) -> np.ndarray:
    """Indices of at most so many values, evenly spread, ends included."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(int))


def _map_places(
    critical: xr.Dataset, plan: Plan
) -> tuple[list[tuple[str, dict[str, int]]], list[tuple[str, dict[str, int]]], str]:
    """Labels and places of the maps' columns and rows, and what was left out."""
    varying = [name for name in critical.critical.dims if critical.sizes[name] > 1 and name != plan.second]
    single = {name: 0 for name in critical.critical.dims if critical.sizes[name] == 1 and name != plan.second}
    across = plan.along if plan.along in varying else max(varying, key=lambda name: critical.sizes[name], default=None)
    columns = [("", {})]
    shown, count = 1, 1
    if across is not None:
        columns = [(style.setting_text(across, critical[across].values[i]), {across: int(i)})
                   for i in _spread_out(critical.sizes[across], _MAP_COLUMNS)]
        shown, count = len(columns), critical.sizes[across]
    down = [name for name in varying if name != across]
    # Settings without any boundary have nothing to show.
    has = (critical.kind == "estimated").any([name for name in critical.critical.dims if name not in down])
    has = has.transpose(*down)
    count *= has.size
    index = np.flatnonzero(has.values if has.values.any() else np.ones(has.shape))
    places = [dict(zip(down, np.unravel_index(i, has.shape))) for i in index[_spread_out(index.size, _MAP_ROWS)]]
    rows = [("\n".join(style.setting_text(name, critical[name].values[i]) for name, i in place.items()),
             {name: int(i) for name, i in place.items()} | single) for place in places]
    shown *= len(rows)
    note = f"{shown} of {count} maps; choose others with --where" if shown < count else ""
    return columns, rows, note


def _series(critical: xr.Dataset, laws: xr.Dataset | None, plan: Plan) -> tuple[list[dict[str, Any]], str]:
    """The lines of the scaling panel: place, label, colour, marker and law of each; and what was left out."""
    others = [name for name in critical.critical.dims if name != plan.along]
    varying = [name for name in others if critical.sizes[name] > 1]
    # Values without any critical value have no line.
    has = critical.kind == "estimated"
    if not bool(has.any()):
        return [], "no setting has a critical value"
    kept = {name: np.flatnonzero(has.any([other for other in has.dims if other != name]).values) for name in varying}
    by_size = sorted(varying, key=lambda name: -kept[name].size)
    limits = [_COLOURS, 2 if by_size and kept[by_size[0]].size > 3 else len(_MARKERS)] + [1] * len(varying)
    for name, limit in zip(by_size, limits):
        kept[name] = kept[name][_spread_out(kept[name].size, limit)]
    series = []
    for place in np.ndindex(*(kept[name].size for name in by_size)):
        where = {name: int(kept[name][i]) for name, i in zip(by_size, place)}
        full = {name: 0 for name in others} | where
        if not bool(has.isel(full).any()):
            continue
        # What all lines have in common is told once.
        label = ", ".join(style.setting_text(name, critical[name].values[i])
                          for name, i in where.items() if kept[name].size > 1)
        law = None if laws is None else laws.isel({name: i for name, i in full.items() if name in laws.dims})
        if law is not None and np.isfinite(law.exponent.item()):
            half = law.high.item() - law.exponent.item()
            digits = 2 if half < 0.95 else 1
            symbols = _AXIS_SYMBOLS[critical.attrs["axis"]], _AXIS_SYMBOLS[plan.along]
            label += f"{': ' if label else ''}${symbols[0]} \\propto {symbols[1]}"
            label += f"^{{{law.exponent.item():.{digits}f} \\pm {half:.{digits}f}}}$"
            label += " (two points)" if not law.checked.item() else ""
            label += ", off a power law" if law.misfit.item() else ""
        hue = place[0] / max(1, kept[by_size[0]].size - 1) if place else 0.0
        series.append({
            "place": full, "label": label, "law": law, "colour": matplotlib.colormaps["viridis"](0.85 * hue),
            "marker": _MARKERS[place[1]] if len(place) > 1 else _MARKERS[0],
        })
    common = [style.setting_text(name, critical[name].values[kept[name][0]])
              for name in by_size if kept[name].size == 1]
    count = math.prod(critical.sizes[name] for name in varying)
    if len(series) < count:
        common.append(f"{len(series)} of {count} settings")
    if any(critical.kind.isel(line["place"]).isin(_OUTSIDE).any() for line in series):
        common.append("arrow: beyond the grid")
    return series, "; ".join(common)


def _draw_series(ax: Axes, critical: xr.Dataset, plan: Plan, series: list[dict[str, Any]]) -> None:
    axis = critical.attrs["axis"]
    values = critical[plan.along].values
    # A zero before a range of magnitudes has no place on either scale.
    numeric = np.issubdtype(values.dtype, np.number) and maps.Axis.of(plan.along, values).scale != "ordinal"
    logarithmic = numeric and bool(np.all(values > 0))
    place = values.astype(float) if numeric else np.arange(values.size, dtype=float)
    if logarithmic:
        ax.set_xscale("log")
    if critical.attrs["space"] == "log":
        ax.set_yscale("log")
    shown = []
    for index, line in enumerate(series):
        one = critical.isel(line["place"])
        known = one.kind.values == "estimated"
        # Side by side, so that no bar hides another.
        shift = (index - (len(series) - 1) / 2) * min(0.02, 0.16 / len(series))
        x = place * np.exp(shift * 2) if logarithmic else place + shift * (np.ptp(place) or 1)
        middle, low, high = (one[name].values for name in ("critical", "low", "high"))
        law = line["law"]
        if law is not None and np.isfinite(law.exponent.item()):
            course = np.geomspace(place[known].min(), place[known].max(), 50)
            ax.plot(course * np.exp(shift * 2), law.prefactor.item() * course ** law.exponent.item(),
                    color=line["colour"], linewidth=0.8, zorder=2)
        error = np.abs(np.array([middle - low, high - middle]))[:, known]
        ax.errorbar(x[known], middle[known], error, color=line["colour"], marker=line["marker"], markersize=3,
                    linestyle="none", linewidth=0.8, markeredgewidth=0.4, markeredgecolor="white", capsize=1.5,
                    capthick=0.6, label=line["label"] or " ", zorder=3)
        shown += [*middle[known], *low[known], *high[known]]
        # Where the boundary lies beyond the grid there is a bound all the same.
        outside = np.isin(one.kind.values, _OUTSIDE)
        bound = low if critical.attrs["edge"] == "upper" else high
        if outside.any():
            ax.plot(x[outside], bound[outside], linestyle="none", color=line["colour"], markersize=4,
                    marker="$\\uparrow$" if critical.attrs["edge"] == "upper" else "$\\downarrow$")
            shown += [*bound[outside]]
    # Intervals that leave the grid say no more than that.
    grid = maps.Axis.of(axis, np.array([critical.attrs["first"], critical.attrs["last"]]))
    lowest, highest = grid.values
    inside = [value for value in shown if np.isfinite(value)]
    if inside:
        bottom, top = max(min(inside), lowest), min(max(inside), highest)
        if critical.attrs["space"] == "log":
            room = max(math.log(top / bottom) * 0.08, 0.1)
            ax.set_ylim(bottom * math.exp(-room), top * math.exp(room))
        else:
            room = max((top - bottom) * 0.08, 0.02 * (highest - lowest))
            ax.set_ylim(bottom - room, top + room)
    if logarithmic:
        reach = max(math.log(place.max() / place.min()) * 0.1, 0.05) + 0.16
        ax.set_xlim(place.min() * math.exp(-reach), place.max() * math.exp(reach))
    labels = _spread_out(values.size, 6)
    ax.xaxis.set_major_locator(FixedLocator(place[labels]))
    ax.xaxis.set_minor_locator(NullLocator())
    names = {float(place[i]): style.value_text(values[i], plan.along) for i in labels}
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(float(value), "")))
    ax.set_xlabel(style.AXIS_LABELS[plan.along])
    ax.set_ylabel(f"critical {style.AXIS_LABELS[axis]}")
    ax.spines[["top", "right"]].set_visible(False)
    if critical.attrs["space"] == "log":
        low, high = ax.get_ylim()
        maps._log_ticks(ax.yaxis, low, high, 6)
        ax.set_ylim(low, high)


def _on(axis: maps.Axis, values: np.ndarray) -> np.ndarray:
    """Where values lie along an axis as it is drawn; outside of it the ends of the drawn range."""
    if axis.scale == "ordinal":
        values = np.interp(values, axis.values, axis.centres)
    return np.clip(values, axis.edges[0], axis.edges[-1])


def _draw_over_map(ax: Axes, statistics: xr.Dataset, critical: xr.Dataset, xs: maps.Axis, ys: maps.Axis) -> None:
    probability = statistics.probability.transpose(ys.name, xs.name).values
    maps._ground(ax)
    if xs.scale == "log":
        ax.set_xscale("log")
    if ys.scale == "log":
        ax.set_yscale("log")
    ax.pcolormesh(xs.edges, ys.edges, np.ma.masked_invalid(probability), cmap=style.PROBABILITY, vmin=0, vmax=1,
                  rasterized=probability.size > 20_000, zorder=1)
    known = np.isfinite(critical.critical.values)
    middle, low, high = (_on(xs, np.where(known, critical[name].values, 1)) for name in ("critical", "low", "high"))
    y = ys.centres
    # Each value of the second axis is a setting of its own: a bar as high as its cell, and a line through their
    # middles.
    steps = np.repeat(ys.edges, 2)[1:-1]
    ax.fill_betweenx(steps, np.repeat(low, 2), np.repeat(high, 2), where=np.repeat(known, 2), zorder=2, **_BAND)
    few = y.size <= 30
    width = _LINE["linewidth"] * (1 if few else 0.6)
    ax.plot(np.where(known, middle, np.nan), y, zorder=3, marker="o" if few else None, markersize=1.6,
            path_effects=[Stroke(linewidth=2.2 * width, foreground="white", alpha=0.9), Normal()],
            **_LINE | {"linewidth": width})
    ax.set_xlim(xs.edges[0], xs.edges[-1])
    ax.set_ylim(ys.edges[0], ys.edges[-1])
    width, height = ax.figure.get_size_inches()
    position = ax.get_position()
    maps._ticks(ax.xaxis, xs, position.width * width / 0.45)  # labels of neighbours do not meet
    maps._ticks(ax.yaxis, ys, position.height * height / 0.2)


def _draw_curve(ax: Axes, statistics: xr.Dataset, critical: xr.Dataset, xs: maps.Axis) -> None:
    """The share of converged runs along the axis, where there is no other."""
    one = statistics.squeeze()
    known = np.isfinite(one.probability.values)
    p = one.probability.values[known]
    error = np.array([p - one.low.values[known], one.high.values[known] - p])
    if xs.scale == "log":
        ax.set_xscale("log")
    ax.errorbar(xs.centres[known], p, np.maximum(error, 0), color=style.OUTCOME_COLOURS["converged"], marker="o",
                markersize=2.5, linestyle="none", linewidth=0.7, zorder=2)
    found = critical.squeeze()
    if np.isfinite(found.critical.item()):
        ax.axvspan(*_on(xs, np.array([found.low.item(), found.high.item()])), zorder=1, **_BAND)
        ax.axvline(_on(xs, found.critical.values).item(), zorder=1.5, **_LINE)
    ax.set_xlim(xs.edges[0], xs.edges[-1])
    ax.set_ylim(-0.03, 1.03)
    maps._ticks(ax.xaxis, xs, ax.get_position().width * ax.figure.get_size_inches()[0] / 0.3)


# -- Numbers as text ---------------------------------------------------------------------------------------------------


def table(critical: xr.Dataset) -> str:
    """The critical values with their intervals, a line a setting; axes with one value are left out."""
    names = [name for name in critical.critical.dims if critical.sizes[name] > 1]
    flat = critical.squeeze(drop=True)
    lines = [[*names, f"critical {critical.attrs['axis']}", "low", "high", "replicates", "kind"]]
    values = {name: flat[name].values for name in ("critical", "low", "high", "replicates", "kind", "basis")}
    for place in np.ndindex(*(flat.sizes[name] for name in names)):
        setting = [flat[name].values[i] for name, i in zip(names, place)]
        bounds = [values[name][place] for name in ("critical", "low", "high")]
        lines.append([*(told(name, value, 4) for name, value in zip(names, setting)),
                      *("-" if math.isnan(value) else f"{value:.4g}" for value in bounds),
                      str(values["replicates"][place]),
                      values["kind"][place] + (" (grid's resolution)" if values["basis"][place] == "grid" else "")])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(size) if i == len(widths) - 1 else cell.rjust(size)
                               for i, (cell, size) in enumerate(zip(line, widths))).rstrip() for line in lines)


def numbers(critical: xr.Dataset, laws: xr.Dataset | None, dimensions: xr.Dataset | None) -> dict[str, Any]:
    """Ready for JSON: a record for each setting, power law and map."""

    def records(data: xr.Dataset, names: Sequence[str]) -> list[dict[str, Any]]:
        axes = list(data[names[0]].dims)
        arrays = {name: data[name].values for name in names}
        return [{"where": {name: data[name].values[i].item() for name, i in zip(axes, place)},
                 **{name: array[place].item() for name, array in arrays.items()}}
                for place in np.ndindex(*(data.sizes[name] for name in axes))]

    values = ("kind", "critical", "low", "high", "basis", "width", "standard_error", "replicates", "share")
    ret = {name: critical.attrs[name] for name in ("axis", "edge", "space", "confidence")}
    ret["settings"] = records(critical, values)
    ret["scaling"] = None if laws is None else {
        "along": laws.attrs["along"],
        "laws": records(laws, ("exponent", "low", "high", "prefactor", "points", "checked", "chi_square", "misfit")),
    }
    if dimensions is not None:
        ret["fractal"] = {
            **{name: dimensions.attrs[name] for name in ("x", "y", "outcome", "smallest", "largest")},
            "maps": records(dimensions, ("box_dimension", "low", "high", "corners", "reason")),
        }
    return ret


def fractal_table(dimensions: xr.Dataset) -> str:
    """The dimensions of the boundaries, a line a map."""
    flat = dimensions.squeeze(drop=True)
    names = list(flat.box_dimension.dims)
    start = "box-counting dimension of the boundary"
    reasons = np.unique(flat.reason.values)
    if reasons.size == 1 and reasons[0]:
        return f"{start}: {reasons[0]}"
    lines = []
    for place in np.ndindex(*(flat.sizes[name] for name in names)):
        one = flat.isel(dict(zip(names, place)))
        setting = ", ".join(f"{name} {ONLINE if name == 'data' and one[name] == 0 else one[name].item()}" for name in names)
        interval = f"[{one.low.item():.3f}, {one.high.item():.3f}]"
        found = one.reason.item() or (f"{one.box_dimension.item():.3f} {interval}, boxes of "
                                      f"{dimensions.attrs['smallest']} to {dimensions.attrs['largest']} cells")
        lines.append(f"{start}{f' ({setting})' if setting else ''}: {found}")
    return "\n".join(lines)
