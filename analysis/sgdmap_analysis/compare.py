"""Two halves of a sweep, or two sweeps, run against run: what does one choice change?

Runs that differ only in step size, its schedule, init scale, teacher norm, label noise or link see the same random
numbers (those that differ in the kind of teacher, the same inputs and W_0, but not the same W*), and so do the same
settings of two files with one seed: they are pairs, and what differs between them is the choice. A setting's replicates
are independent pairs. Pairs of different settings are not independent where they share a replicate and a dimension,
since those share the direction of W*, of W_0 and the inputs: over all settings, what is counted as independent are
these clusters, (dimension, replicate), never the pairs.

A pair counts only where both of its runs have an outcome. Differences are second minus first throughout.
"""
from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any, Mapping, Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from . import maps, style
from .errors import ArgumentError
from .statistics import wilson_interval
from .sweep import AXES, DEFAULTS, FINAL_OUTCOMES, axes_of, check_axis, flag_codes, listed, select, told

# Settings along these axes see the same inputs; along SHARED_DIRECTIONS only W* and W_0 have the same directions.
SHARED_INPUTS = ("step_size", "init_scale", "teacher_norm", "link", "teacher", "noise", "schedule")
SHARED_DIRECTIONS = ("batch_size", "input", "gradient", "data")

# Up to so many clusters, the test flips the signs in every way there is; beyond, in so many random ways.
_EXACT_CLUSTERS = 15
_FLIPS = 20_000
_BOOTSTRAPS = 1000
# Values are put into so many bins of equal counts while they are resampled.
_BINS = 4096


# -- Statistics of pairs -----------------------------------------------------------------------------------------------


def newcombe_paired_interval(
    both: ArrayLike, only_first: ArrayLike, only_second: ArrayLike, neither: ArrayLike, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Interval for the difference of two probabilities, second minus first, seen in pairs.

    Wilson's intervals of the two are squared and added, less what their correlation takes off. Unlike p ± z·s it
    stays in [-1, 1] and keeps a width where no pair is discordant.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10 (the correlation with its continuity
    correction); recommended by M. W. Fagerland, S. Lydersen, P. Laake, Statistics in Medicine 33 (2014) 2850-2875.

    Parameters
    ----------
    both, only_first, only_second, neither
        Pairs in which both, one or none of the runs had the outcome; any shapes that broadcast; whole numbers or, for
        pairs that count less than one, real ones.

    Returns
    -------
    low, high
        The bounds, in the broadcast shape. No pairs at all give [-1, 1].
    """
    a, b, c, d = np.broadcast_arrays(*(np.asarray(cell, dtype=np.float64) for cell in (both, only_first, only_second, neither)))
    n = a + b + c + d
    some = np.maximum(n, np.finfo(float).tiny)
    first, second = (a + b) / some, (a + c) / some
    # Rounding may leave a sum of real numbers just outside of [0, n].
    low_1, high_1 = wilson_interval(np.minimum(a + b, n), n, confidence)
    low_2, high_2 = wilson_interval(np.minimum(a + c, n), n, confidence)
    product = (a + b) * (c + d) * (a + c) * (b + d)
    association = a * d - b * c
    association = np.where(association > 0, np.maximum(association - n / 2, 0), association)
    phi = np.where(product > 0, association / np.sqrt(np.where(product > 0, product, 1)), 0)

    def spread(down: np.ndarray, up: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(down**2 - 2 * phi * down * up + up**2, 0))

    low = (second - first) - spread(second - low_2, high_1 - first)
    high = (second - first) + spread(first - low_1, high_2 - second)
    return np.where(n > 0, np.maximum(low, -1), -1.0), np.where(n > 0, np.minimum(high, 1), 1.0)


def mcnemar_test(only_first: ArrayLike, only_second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """McNemar's test of whether two probabilities are equal, from the discordant pairs: p exact and p mid-p, two-sided.

    Of b + c discordant pairs, b fall on one side as heads of a fair coin do. The exact p never rejects too often, and
    with few pairs hardly ever; the mid-p, which takes half of the probability of what was seen, comes closer to its
    level.

    Source: Q. McNemar, Psychometrika 12 (1947) 153-157; M. W. Fagerland, S. Lydersen, P. Laake, BMC Medical Research
    Methodology 13 (2013) 91.

    `only_first`, `only_second`: counts of any shapes that broadcast. Without discordant pairs both p are 1.
    """
    b, c = np.broadcast_arrays(np.asarray(only_first, dtype=np.int64), np.asarray(only_second, dtype=np.int64))
    if np.any(b < 0) or np.any(c < 0):
        raise ValueError("counts are not negative")
    shape = b.shape
    tables, place = np.unique(np.stack([np.minimum(b, c).ravel(), (b + c).ravel()]), axis=1, return_inverse=True)
    exact, mid = np.ones(tables.shape[1]), np.ones(tables.shape[1])
    for i, (few, all_) in enumerate(tables.T):
        if all_ == 0:
            continue
        below, here = _fair_coin(int(few), int(all_))
        exact[i] = min(1.0, 2 * (below + here))
        mid[i] = min(1.0, 2 * below + here)
    return exact[place].reshape(shape), mid[place].reshape(shape)


def _fair_coin(k: int, n: int) -> tuple[float, float]:
    """P(X < k) and P(X = k) of X ~ Binomial(n, 1/2), k <= n/2."""
    i = np.arange(k, dtype=float)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - i) / (i + 1)))]) - n * math.log(2)
    return float(np.exp(logs[:-1]).sum()), float(np.exp(logs[-1]))


def holm(p: ArrayLike) -> np.ndarray:
    """p values adjusted so that the chance of any wrong rejection keeps to the level, whatever their dependence. NaN stay.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    return _adjusted(p, lambda ordered: np.minimum(1, np.maximum.accumulate(np.arange(ordered.size, 0, -1) * ordered)))


def benjamini_hochberg(p: ArrayLike) -> np.ndarray:
    """p values adjusted so that the expected share of wrong ones among the rejections keeps to the level. NaN stay.

    Holds for independent tests, and for such positive dependence as settings of one replicate have.
    Source: Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289-300; Y. Benjamini, D. Yekutieli, Annals of
    Statistics 29 (2001) 1165-1188.
    """
    def steps_up(ordered: np.ndarray) -> np.ndarray:
        scaled = ordered * ordered.size / np.arange(1, ordered.size + 1)
        return np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])

    return _adjusted(p, steps_up)


def _adjusted(p: ArrayLike, adjust: Any) -> np.ndarray:
    p = np.asarray(p, dtype=np.float64)
    ret = np.full(p.size, np.nan)
    known = np.flatnonzero(np.isfinite(p.ravel()))
    order = known[np.argsort(p.ravel()[known], kind="stable")]
    ret[order] = adjust(p.ravel()[order])
    return ret.reshape(p.shape)


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Median and its interval between two order statistics, along the last dimension, NaN left out.

    The k-th smallest and the k-th largest of n values, with the largest k for which 1 - 2·P(X < k) of X ~ Binomial(n,
    1/2) is the confidence or more: it holds for values of any continuous distribution. With n < 6 at 0.95 there is
    none.

    Source: W. R. Thompson, Annals of Mathematical Statistics 7 (1936) 122-128; H. A. David, H. N. Nagaraja, Order
    Statistics (2003), section 7.1.

    Returns count, median, low, high [leading dimensions]; bounds NaN where there is no such interval.
    """
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(-1)
    places = np.array([_order_statistic(n, confidence) for n in range(values.shape[-1] + 1)])[count]

    def pick(index: np.ndarray, where: np.ndarray) -> np.ndarray:
        if values.shape[-1] == 0:
            return np.full(count.shape, np.nan)
        index = np.clip(index, 0, values.shape[-1] - 1)
        return np.where(where, np.take_along_axis(ordered, index[..., None], -1)[..., 0], np.nan)

    some = count > 0
    median = (pick((count - 1) // 2, some) + pick(count // 2, some)) / 2
    return count, median, pick(places - 1, places > 0), pick(count - places, places > 0)


def _order_statistic(n: int, confidence: float) -> int:
    """The largest k, from 1, with 1 - 2·P(X < k) >= confidence of X ~ Binomial(n, 1/2); 0 if there is none."""
    k, below = 0, 0.0
    while k < (n + 1) // 2:
        below += math.comb(n, k) * 0.5**n if n < 1000 else _fair_coin(k, n)[1]
        if 1 - 2 * below < confidence:
            break
        k += 1
    return k


def student_quantile(p: float, df: int) -> float:
    """The p-quantile, p > 1/2, of Student's t with `df` degrees of freedom, to 1e-10.

    Source: M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4, by bisection.
    """
    if df > 2000:
        return NormalDist().inv_cdf(p)

    def cdf(t: float) -> float:
        theta = math.atan2(t, math.sqrt(df))
        sine, cosine = math.sin(theta), math.cos(theta)
        total = term = 1.0 if df % 2 == 0 else cosine
        for j in range(2 if df % 2 == 0 else 3, df - 1, 2):
            term *= (j - 1) / j * cosine**2
            total += term
        if df % 2 == 0:
            inside = sine * total
        else:
            inside = 2 / math.pi * (theta + (sine * total if df > 1 else 0))
        return 0.5 + inside / 2

    low, high = 0.0, 1.0
    while cdf(high) < p:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < p else (low, middle)
    return high


def _strata(stratum: np.ndarray) -> np.ndarray:
    """Strata of clusters [clusters], those of a single cluster put together: alone they tell nothing of their spread."""
    counts = np.bincount(stratum)
    merged = np.where(counts[stratum] == 1, -1, stratum)
    ret = np.unique(merged, return_inverse=True)[1]
    if (np.bincount(ret) == 1).any():  # one single cluster is left over: then all are one stratum
        return np.zeros_like(ret)
    return ret


def clustered_difference(
    total: np.ndarray, pairs: np.ndarray, stratum: np.ndarray, confidence: float = 0.95
) -> dict[str, Any]:
    """A mean difference over pairs that come in independent clusters, its interval and a test of whether it is 0.

    The interval is Student's, from the spread of the clusters' totals within strata (W. G. Cochran, Sampling Techniques
    (1977), section 11; degrees of freedom after F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114, rounded
    down). The test flips the sign of whole clusters, as if first and second had changed names there, and is exact if
    the choice changes nothing; it is the permutation form of the clustered McNemar test of V. L. Durkalski et al.,
    Statistics in Medicine 22 (2003) 2417-2428.

    Parameters
    ----------
    total, pairs, stratum
        [clusters]: the sum of differences, the number of pairs, and the stratum.

    Returns
    -------
    `difference`; `low`, `high`, NaN where fewer than two clusters or none that differ from others; `p`; `smallest_p`,
    the least that so many clusters can give; `clusters`, `df`.
    """
    used = pairs > 0
    total, pairs = total[used].astype(float), pairs[used].astype(float)
    clusters = total.size
    ret = {"difference": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "smallest_p": np.nan, "clusters": clusters, "df": 0}
    if clusters == 0:
        return ret
    ret["difference"] = total.sum() / pairs.sum()
    ret["p"] = _flip_signs(total)
    ret["smallest_p"] = 2.0 ** (1 - clusters)
    if clusters > 1:
        scores = (total - ret["difference"] * pairs) / pairs.sum()
        variance, squares = 0.0, 0.0
        group = _strata(stratum[used])
        for h in range(group.max() + 1):
            part = scores[group == h]
            own = part.size / (part.size - 1) * float(((part - part.mean()) ** 2).sum())
            variance, squares = variance + own, squares + own**2 / (part.size - 1)
        if variance > 1e-24:
            ret["df"] = max(1, math.floor(variance**2 / squares + 1e-9))
            half = student_quantile((1 + confidence) / 2, ret["df"]) * math.sqrt(variance)
            ret["low"], ret["high"] = ret["difference"] - half, ret["difference"] + half
    return ret


def _flip_signs(total: np.ndarray) -> float:
    moved = total[total != 0]
    if moved.size == 0:
        return 1.0
    seen = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()
    if moved.size <= _EXACT_CLUSTERS:
        signs = 1 - 2 * (np.arange(2**moved.size)[:, None] >> np.arange(moved.size) & 1)
        return float((np.abs(signs @ moved) >= seen).mean())
    signs = np.random.default_rng(0).choice([-1, 1], (_FLIPS, moved.size))
    return float((1 + (np.abs(signs @ moved) >= seen).sum()) / (1 + _FLIPS))


def clustered_median(
    values: np.ndarray, cluster: np.ndarray, stratum: np.ndarray, confidence: float = 0.95
) -> dict[str, Any]:
    """The median of values that come in independent clusters, and its interval.

    The standard error is that of a bootstrap which draws, in each stratum, one cluster less than it has (J. N. K. Rao,
    C. F. J. Wu, J. Am. Stat. Assoc. 83 (1988) 231-241), the interval Student's with clusters less strata degrees of
    freedom. Random but the same at every call.

    Parameters
    ----------
    values, cluster
        [n]: finite values, and the cluster of each.
    stratum
        [clusters]

    Returns
    -------
    `median`, `low`, `high` (NaN with fewer than two clusters), `n`, `clusters`.
    """
    here, cluster = np.unique(cluster, return_inverse=True)
    ret = {"median": np.nan, "low": np.nan, "high": np.nan, "n": int(values.size), "clusters": int(here.size)}
    if values.size == 0:
        return ret
    ret["median"] = float(np.median(values))
    if here.size < 2:
        return ret
    order = np.argsort(values, kind="stable")
    bins = min(values.size, _BINS)
    bin_of = np.arange(values.size) * bins // values.size
    representatives = values[order][np.searchsorted(bin_of, np.arange(bins))]
    counts = np.bincount(cluster[order] * bins + bin_of, minlength=here.size * bins).reshape(here.size, bins)
    group = _strata(stratum[here])
    random = np.random.default_rng(0)
    weights = np.zeros((_BOOTSTRAPS, here.size))
    df = 0
    for h in range(group.max() + 1):
        members = np.flatnonzero(group == h)
        weights[:, members] = random.multinomial(members.size - 1, np.full(members.size, 1 / members.size), _BOOTSTRAPS)
        df += members.size - 1
    medians = []
    for part in np.array_split(weights, 20):
        below = np.cumsum(part @ counts, axis=1)
        half = below[:, -1:] / 2
        lower, upper = (below >= half).argmax(1), (below > half).argmax(1)
        medians.append((representatives[lower] + representatives[upper])[half[:, 0] > 0] / 2)
    half = student_quantile((1 + confidence) / 2, df) * float(np.std(np.concatenate(medians)))
    return {**ret, "low": ret["median"] - half, "high": ret["median"] + half}


# -- Which runs are pairs ----------------------------------------------------------------------------------------------


@dataclass
class Pairs:
    """Two sweeps of the same settings.

    first, second
        Datasets [axes] whose coordinates are the same, but for the axes in `compared`, which have length 1.
    names, labels
        Short words for the two, plain, and for figures, where $ marks mathematics.
    sharing
        What the two runs of a pair have in common: 'inputs' (all their random numbers), 'directions' (those of W* and
        W_0) or 'nothing', where pairs are made at random and are none but in name: the statistics hold, and gain
        nothing by it.
    only
        Settings that only one of the two has: for each, their number, and the values of axes that the other lacks.
    notes
        What a reader has to know, a sentence each.
    """

    first: xr.Dataset
    second: xr.Dataset
    names: tuple[str, str]
    labels: tuple[str, str]
    compared: tuple[str, ...]
    sharing: str
    only: tuple[dict[str, Any], dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def between(sweep: xr.Dataset, axis: str, values: Sequence[Any]) -> Pairs:
    """Pairs of the runs that have the first and the second value of an axis; ArgumentError for what is no axis or value."""
    check_axis(sweep, axis)
    if axis == "replicate":
        raise ArgumentError("replicate: replicates are what is averaged over, not what is compared")
    if len(values) != 2:
        raise ArgumentError(f"{axis}: two values are compared, not {len(values)}; it has {listed(sweep[axis].values, axis)}")
    first, second = (select(sweep, {axis: [value]}) for value in values)
    if first[axis].values[0] == second[axis].values[0]:
        raise ArgumentError(f"{axis}: both values are {listed(first[axis].values, axis)}")
    names, labels = _value_names(axis, first, second)
    sharing = "inputs" if axis in SHARED_INPUTS else "directions" if axis in SHARED_DIRECTIONS else "nothing"
    notes = {
        "inputs": [],
        "directions": [f"runs that differ in {axis} share W* and the direction of W_0, but not their inputs"],
        "nothing": [f"runs that differ in {axis} share no random numbers: their pairs are none but in name"],
    }[sharing]
    if axis == "teacher":
        notes.append("runs that differ in teacher share their inputs and the direction of W_0, but not W*")
    nothing = {"settings": 0, "values": {}}
    return Pairs(first, second, names, labels, (axis,), sharing, (nothing, nothing), notes)


def _label(name: str) -> str:
    """A file's name for figures: its ends where it is long, and no mathematics."""
    name = name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"
    return name.replace("$", r"\$")


def _value_names(axis: str, first: xr.Dataset, second: xr.Dataset) -> tuple[tuple[str, str], tuple[str, str]]:
    values = [sweep[axis].values[0] for sweep in (first, second)]
    plain = [f"{axis}={told(axis, value)}" for value in values]
    return (plain[0], plain[1]), (style.setting_text(axis, values[0]), style.setting_text(axis, values[1]))


def align(first: xr.Dataset, second: xr.Dataset, names: tuple[str, str]) -> Pairs:
    """Pairs of the settings that two sweeps have in common, numbers equal within 1e-6 relative.

    An axis on which each has a single value, and another one, is what is compared; one that a file lacks has its default there.
    Raises ArgumentError where no setting is in both.
    """
    axes = tuple(axis for axis in AXES if axis in axes_of(first) or axis in axes_of(second))
    first, second = _with_axes(first, axes), _with_axes(second, axes)
    compared, common = [], ({}, {})
    only: tuple[dict[str, Any], dict[str, Any]] = ({"values": {}}, {"values": {}})
    for axis in axes:
        have = first[axis].values, second[axis].values
        same = _same(*have)
        if same.any():
            index = np.nonzero(same)
        elif have[0].size == have[1].size == 1 and axis != "replicate":
            # Without minibatches (0) their size is no difference of its own.
            if axis != "batch_size" or 0 not in (have[0][0], have[1][0]):
                compared.append(axis)
            index = np.array([0]), np.array([0])
        else:
            raise ArgumentError(f"no setting is in both files: {axis} has {listed(have[0], axis)} in {names[0]} and "
                                f"{listed(have[1], axis)} in {names[1]}")
        for side in (0, 1):
            common[side][axis] = index[side]
            missing = np.delete(have[side], index[side])
            if missing.size:
                only[side]["values"][axis] = missing
    for side, sweep in enumerate((first, second)):
        settings, shared = (math.prod(sizes) for sizes in (
            [sweep.sizes[name] for name in axes if name != "replicate"],
            [common[side][name].size for name in axes if name != "replicate"]))
        only[side]["settings"] = settings - shared
    notes, sharing = _origins(first, second, compared, names)
    first = first.isel(common[0])
    if "batch_size" not in compared and not first.batch_size.values.any():
        first = first.assign_coords(batch_size=second.batch_size[common[1]["batch_size"]])
    # The same numbers, not only nearly: what follows may look them up.
    second = second.isel(common[1]).assign_coords({name: first[name] for name in axes if name not in compared})
    labels = _label(names[0]), _label(names[1])
    if len(compared) == 1:
        names, labels = _value_names(compared[0], first, second)
    return Pairs(first, second, names, labels, tuple(compared), sharing, only, notes)


def _with_axes(sweep: xr.Dataset, axes: Sequence[str]) -> xr.Dataset:
    """The sweep with axes of one value, the default, for those that it lacks; then without trajectories, which would be read."""
    missing = {axis: [DEFAULTS[axis]] for axis in axes if axis not in sweep.coords}
    if not missing:
        return sweep
    traced = [name for name in sweep.data_vars if "step" in sweep[name].dims]
    return sweep.drop_vars([*traced, "run"]).expand_dims(missing).transpose(*axes, ...)


def _same(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """True [first, second] where values are the same, at most once a row and a column."""
    if not np.issubdtype(first.dtype, np.number):
        return first[:, None] == second[None, :]
    same = np.isclose(first[:, None], second[None, :], rtol=1e-6, atol=0)
    return same & (np.cumsum(same, axis=0) == 1) & (np.cumsum(same, axis=1) == 1)


def _origins(first: xr.Dataset, second: xr.Dataset, compared: Sequence[str], names: tuple[str, str]) -> tuple[list[str], str]:
    """Notes on how the files came about, and what their runs share."""
    notes = []
    sharing = "inputs"
    for axis in compared:
        if axis == "dimension":
            sharing = "nothing"
        elif axis in SHARED_DIRECTIONS and sharing == "inputs":
            sharing = "directions"
    if sharing != "inputs":
        notes.append("the files differ in " + " and ".join(compared) + {
            "directions": ": their runs share W* and the direction of W_0, but not their inputs",
            "nothing": ": their runs share no random numbers, and their pairs are none but in name"}[sharing])
    elif "teacher" in compared:
        notes.append("the files differ in teacher: their runs share their inputs and the direction of W_0, but not W*")
    seeds = config_value(first.attrs, "seed"), config_value(second.attrs, "seed")
    if None in seeds or seeds[0] != seeds[1]:
        said = [f"{name} has seed {seed if seed is not None else 'unknown'}" for name, seed in zip(names, seeds)]
        notes.append(" and ".join(said) + ": their runs share no random numbers, and their pairs are none but in name")
        sharing = "nothing"
    budgets = [int(sweep.step.values[-1]) for sweep in (first, second)]
    if budgets[0] != budgets[1]:
        notes.append(f"the runs had at most {budgets[0]} steps in {names[0]} and {budgets[1]} in {names[1]}")
    tolerances = [config_value(sweep.attrs, "training.tolerance") for sweep in (first, second)]
    if tolerances[0] != tolerances[1]:
        notes.append("converged means within {} in {} and {} in {}".format(
            *itertools.chain(*((tolerance or "an unknown tolerance", name) for tolerance, name in zip(tolerances, names)))))
    for key in ("training.decay", "training.teacher_rank"):
        values = [config_value(sweep.attrs, key) for sweep in (first, second)]
        if values[0] != values[1]:
            said = [f"{value or 'not told'} in {name}" for value, name in zip(values, names)]
            notes.append(f"{key} is {' and '.join(said)}")
    return notes, sharing


def config_value(attributes: Mapping[str, Any], key: str) -> str | None:
    """A scalar of the config, `seed` or `training.tolerance`, as text; overrides of the command line go first. None if not found.

    No reader of YAML: what it does not find is unknown, and said to be.
    """
    for line in reversed(str(attributes.get("config_overrides", "")).splitlines()):
        name, equals, value = line.partition("=")
        if equals and name.strip() == key:
            return _plain_number(value)
    *parents, leaf = key.split(".")
    text = str(attributes.get("config", ""))
    indent = r"[ \t]+" if parents else ""
    patterns = [rf"^{indent}{leaf}[ \t]*:[ \t]*([^\s#,}}]+)"]
    if parents:
        patterns.append(rf"^{parents[0]}[ \t]*:[ \t]*{{[^}}]*\b{leaf}[ \t]*:[ \t]*([^\s,}}]+)")
    found = [match for pattern in patterns for match in re.findall(pattern, text, re.MULTILINE)]
    return _plain_number(found[0]) if len(found) == 1 else None


def _plain_number(text: str) -> str:
    """'1e-2' and '0.010' alike."""
    text = text.strip().strip("'\"")
    try:
        return str(int(text, 0))
    except ValueError:
        pass
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


# -- The comparison ----------------------------------------------------------------------------------------------------


def _outcomes(sweep: xr.Dataset, dims: Sequence[str]) -> np.ndarray:
    """int8 [dims]: the place in FINAL_OUTCOMES, -1 without an outcome."""
    codes = flag_codes(sweep.status)
    table = np.full(256, -1, dtype=np.int8)
    for place, name in enumerate(FINAL_OUTCOMES):
        table[codes[name] & 255] = place
    return table[sweep.status.transpose(*dims).values.astype(np.uint8)]


def compare(pairs: Pairs, confidence: float = 0.95) -> tuple[xr.Dataset, dict[str, Any]]:
    """Each setting's comparison, and that over all settings.

    Returns
    -------
    settings
        A Dataset [axes but replicate]:
        `n` pairs with two outcomes; `both`, `only_first`, `only_second`, `neither`, pairs by convergence; `first`,
        `second`, the two probabilities of convergence; `difference` with `low`, `high` (`newcombe_paired_interval`);
        `p` exact and `p_mid` (`mcnemar_test`); `p_holm` and `q`, the exact p adjusted for the number of settings with
        pairs (`holm`, `benjamini_hochberg`); and, of pairs in which both converged, `error_n`, `error_median`,
        `error_low`, `error_high`: log10 of the ratio of final errors; `steps_...`: the difference of steps to
        convergence; `speed_...`: log10 of the ratio of steps (medians, `median_interval`).
    summary
        Plain values over all settings: `pairs`, `without_outcome`, `table` [4][4] (outcomes of the first, of the
        second, in the order of FINAL_OUTCOMES), `outcomes` (each outcome's shares, `clustered_difference`, and
        McNemar's test as if all pairs were independent), and `error`, `error_undiverged` (of pairs in which neither
        diverged), `steps`, `speed` (`clustered_median`).
    """
    axes = [name for name in axes_of(pairs.first) if name != "replicate"]
    dims = [*axes, "replicate"]
    first, second = (_outcomes(sweep, dims) for sweep in (pairs.first, pairs.second))
    complete = (first >= 0) & (second >= 0)
    # A cluster for each dimension, the first of the axes, and replicate, the last (see the top); strata are the
    # dimensions.
    shape = (first.shape[0], *[1] * (first.ndim - 2), first.shape[-1])
    cluster = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), first.shape)
    stratum = np.arange(math.prod(shape)) // first.shape[-1]

    one, two = ((outcome == 0) & complete for outcome in (first, second))
    counts = {
        "n": complete.sum(-1), "both": (one & two).sum(-1), "only_first": (one & ~two).sum(-1),
        "only_second": (~one & two).sum(-1), "neither": (complete & ~one & ~two).sum(-1),
    }
    n = np.where(counts["n"] > 0, counts["n"], np.nan)
    values: dict[str, np.ndarray] = dict(counts)
    values["first"] = (counts["both"] + counts["only_first"]) / n
    values["second"] = (counts["both"] + counts["only_second"]) / n
    values["difference"] = (counts["only_second"] - counts["only_first"]) / n
    values["low"], values["high"] = newcombe_paired_interval(
        counts["both"], counts["only_first"], counts["only_second"], counts["neither"], confidence)
    exact, mid = mcnemar_test(counts["only_first"], counts["only_second"])
    values["p"], values["p_mid"] = (np.where(counts["n"] > 0, p, np.nan) for p in (exact, mid))
    values["p_holm"], values["q"] = holm(values["p"]), benjamini_hochberg(values["p"])

    def results(name: str) -> list[np.ndarray]:
        return [sweep[name].transpose(*dims).values for sweep in (pairs.first, pairs.second)]

    converged = one & two
    undiverged = complete & (first != FINAL_OUTCOMES.index("diverged")) & (second != FINAL_OUTCOMES.index("diverged"))
    error_first, error_second = results("final_error")
    with np.errstate(divide="ignore", invalid="ignore"):
        # A run that starts at its teacher has an error of 0, and no logarithm.
        error = np.log10(error_second) - np.log10(error_first)
        steps_first, steps_second = results("converged_step")
        steps = steps_second - steps_first
        speed = np.log10(steps_second) - np.log10(steps_first)
    summary: dict[str, Any] = {
        "pairs": int(complete.sum()),
        "without_outcome": int(complete.size - complete.sum()),
        "settings": int((counts["n"] > 0).sum()),
        "pairs_per_setting": [int(counts["n"].min()), int(counts["n"].max())],
        "table": np.bincount(4 * first[complete].astype(int) + second[complete], minlength=16).reshape(4, 4),
        "outcomes": {},
    }
    for place, name in enumerate(FINAL_OUTCOMES):
        summary["outcomes"][name] = _outcome_difference(
            (first == place) & complete, (second == place) & complete, complete, cluster, stratum, confidence)
    for name, difference, where in (("error", error, converged), ("error_undiverged", error, undiverged),
                                    ("steps", steps, converged), ("speed", speed, converged)):
        known = where & np.isfinite(difference)
        summary[name] = clustered_median(difference[known], cluster[known], stratum, confidence)
        if name != "error_undiverged":
            names = [f"{name}_{part}" for part in ("n", "median", "low", "high")]
            values |= zip(names, median_interval(np.where(known, difference, np.nan), confidence))
    settings = xr.Dataset({name: (axes, array) for name, array in values.items()},
                          {name: pairs.first[name] for name in axes}, {"confidence": confidence})
    # What no test of these replicates could find.
    replicates = int(counts["n"].max()) if complete.size else 0
    summary["smallest_setting_p"] = 2.0 ** (1 - replicates) if replicates else np.nan
    for name, level in (("p", "below"), ("p_holm", "holm_below"), ("q", "q_below")):
        summary[level] = int((values[name] <= 1 - confidence).sum())
    return settings, summary


def _outcome_difference(one: np.ndarray, two: np.ndarray, complete: np.ndarray, cluster: np.ndarray, stratum: np.ndarray,
                        confidence: float) -> dict[str, Any]:
    pairs = np.bincount(cluster[complete], minlength=stratum.size)
    total = np.bincount(cluster[two], minlength=stratum.size) - np.bincount(cluster[one], minlength=stratum.size)
    ret = clustered_difference(total, pairs, stratum, confidence)
    table = [int(cells.sum()) for cells in (one & two, one & ~two, ~one & two, complete & ~one & ~two)]
    ret["interval"] = "student, clusters"
    if not np.isfinite(ret["low"]) and ret["clusters"] > 0:
        # All clusters alike: nothing shows how they vary. Each then counts as a single pair.
        ret["low"], ret["high"] = map(float, newcombe_paired_interval(
            *(count * ret["clusters"] / sum(table) for count in table), confidence))
        ret["interval"] = "newcombe, a cluster as one pair"
    exact, mid = mcnemar_test(table[1], table[2])
    count = max(1, sum(table))
    return {"first": (table[0] + table[1]) / count, "second": (table[0] + table[2]) / count, **ret,
            "both": table[0], "only_first": table[1], "only_second": table[2], "neither": table[3],
            "as_if_independent": {"p": float(exact), "p_mid": float(mid)}}


# -- What is told ------------------------------------------------------------------------------------------------------


def _estimate(summary: Mapping[str, Any], key: str, form: str, transform: Any = float) -> str:
    """'0.12 [0.01, 0.23]', without brackets where there is no interval."""
    middle, low, high = (transform(summary[name]) for name in (key, "low", "high"))
    text = format(middle, form)
    return f"{text} [{low:{form}}, {high:{form}}]" if math.isfinite(low) else f"{text} (no interval)"


def p_text(p: float) -> str:
    """'p = 0.031', 'p < 0.0001'."""
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _ratio(value: float) -> float:
    return 10.0 ** min(value, 300.0)


def summary_lines(pairs: Pairs, settings: xr.Dataset, summary: Mapping[str, Any]) -> list[str]:
    """The comparison in plain words, a line each."""
    confidence = 100 * settings.attrs["confidence"]
    one, two = pairs.names
    low, high = summary["pairs_per_setting"]
    lines = [f"second minus first: {two} minus {one}; {confidence:g} % intervals"]
    lines += [f"note: {note}" for note in pairs.notes]
    for name, only in zip(pairs.names, pairs.only):
        if only["values"]:
            values = "; ".join(f"{axis} {listed(missing, axis)}" for axis, missing in only["values"].items())
            lines.append(f"only in {name}: {only['settings']} settings ({values})")
    lines.append(f"pairs: {summary['pairs']} in {summary['settings']} settings, "
                 f"{low if low == high else f'{low} to {high}'} each; {summary['without_outcome']} without two outcomes do not count")
    if summary["pairs"] == 0:
        return lines
    width = max(map(len, FINAL_OUTCOMES))
    lines.append(f"outcomes (rows: {one}, columns: {two})")
    lines.append(" " * (width + 2) + "".join(f"{name:>{width + 1}}" for name in FINAL_OUTCOMES))
    for name, row in zip(FINAL_OUTCOMES, summary["table"]):
        lines.append(f"  {name:<{width}}" + "".join(f"{count:>{width + 1}}" for count in row))
    for name in FINAL_OUTCOMES:
        part = summary["outcomes"][name]
        lines.append(f"{name}: {part['first']:.4f} and {part['second']:.4f}, difference {_estimate(part, 'difference', '+.4f')}, "
                     f"{p_text(part['p'])}")
    clusters = summary["outcomes"]["converged"]["clusters"]
    lines.append(f"  over {clusters} independent clusters (dimension, replicate); no p below "
                 f"{summary['outcomes']['converged']['smallest_p']:.2g} is possible with so many")
    both = summary["steps"]
    if both["n"]:
        lines.append(f"where both converged ({both['n']} pairs): steps {_estimate(both, 'median', '+.4g')}, "
                     f"ratio {_estimate(summary['speed'], 'median', '.3g', _by(_ratio))}; "
                     f"final error, ratio {_estimate(summary['error'], 'median', '.3g', _by(_ratio))} (medians)")
    rest = summary["error_undiverged"]
    if rest["n"]:
        lines.append(f"where neither diverged ({rest['n']} pairs): final error, ratio "
                     f"{_estimate(rest, 'median', '.3g', _by(_ratio))} (median)")
    level = 1 - settings.attrs["confidence"]
    lines.append(f"settings whose outcomes differ (McNemar, exact p <= {level:.2g}): {summary['below']} of {summary['settings']}; "
                 f"adjusted for that many tests {summary['holm_below']} (Holm), {summary['q_below']} (Benjamini-Hochberg); "
                 f"{high} pairs cannot give a p below {summary['smallest_setting_p']:.2g}")
    return lines


def _by(transform: Any) -> Any:
    return lambda value: transform(value) if math.isfinite(value) else math.nan


def write_table(settings: xr.Dataset, pairs: Pairs, output: Path) -> None:
    """A CSV file with a line for each setting: its axes, then the variables of `compare`. Doubles keep all their bits."""
    dims = [str(name) for name in settings.dims if name not in pairs.compared]
    box = settings.isel({name: 0 for name in pairs.compared}).transpose(*dims)
    columns = {}
    for i, name in enumerate(dims):
        columns[name] = np.broadcast_to(box[name].values.reshape([-1 if j == i else 1 for j in range(len(dims))]),
                                        [box.sizes[other] for other in dims]).ravel()
    columns |= {str(name): box[name].values.ravel() for name in box.data_vars}

    texts = [["" if value != value else str(value) for value in column.tolist()] for column in columns.values()]
    with open(output, "w", newline="", encoding="utf-8") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(",".join(row) + "\n" for row in zip(*texts))


def common_settings(pairs: Pairs) -> str:
    """The axes with one value that both have, which no panel shows."""
    fixed = [name for name in axes_of(pairs.first) if pairs.first.sizes[name] == 1 and name != "replicate" and name not in pairs.compared]
    return ", ".join(style.setting_text(name, pairs.first[name].values[0]) for name in fixed)


def numbers(pairs: Pairs, settings: xr.Dataset, summary: Mapping[str, Any], x: str, y: str) -> dict[str, Any]:
    """The comparison for JSON; the panels' arrays are [y][x]."""
    facets = [name for name in settings.dims if name not in (x, y) and name not in pairs.compared]
    panels = []
    for place in itertools.product(*(range(settings.sizes[name]) for name in facets)):
        panel = settings.isel(dict(zip(facets, place)))
        panel = panel.isel({name: 0 for name in pairs.compared})
        panels.append({"where": {name: panel[name].item() for name in facets},
                       **{str(name): panel[name].transpose(y, x).values for name in settings.data_vars}})
    outcomes = {"order": list(FINAL_OUTCOMES)}
    return {
        "first": pairs.names[0], "second": pairs.names[1], "compared": list(pairs.compared), "sharing": pairs.sharing,
        "notes": pairs.notes, "only_first": pairs.only[0], "only_second": pairs.only[1],
        "interval": {"kind": "newcombe paired (settings), student over clusters (summary)",
                     "confidence": settings.attrs["confidence"]},
        "replicates": pairs.first.replicate.values, "summary": {**outcomes, **summary}, "order": ["y", "x"],
        "x": {"name": x, "values": settings[x].values}, "y": {"name": y, "values": settings[y].values}, "panels": panels,
    }


# -- The figure --------------------------------------------------------------------------------------------------------

# Purple where the first converges more, green where the second does: neither is a colour of an outcome, and readers of
# every kind of sight tell them apart (after ColorBrewer's PRGn).
_FIRST, _SECOND = ["#f7f7f7", "#b08fc7", "#4c1d78"], ["#f7f7f7", "#83bd84", "#0b5227"]
# An arm each, so that no difference is in the middle whatever their lengths.
DIFFERENCE = ListedColormap(np.concatenate([style.ramp("", _FIRST, 129).colors[:0:-1], style.ramp("", _SECOND, 129).colors]),
                            "sgdmap_difference")

# Inches, of the table of outcomes: its row labels, a cell, a line.
_ROW_LABEL = 0.62
_CELL = 0.54
_ROW = 0.165
_TABLE = _ROW_LABEL + 4 * _CELL
_FOOT = 1.38


def draw(pairs: Pairs, settings: xr.Dataset, summary: Mapping[str, Any], x: str, y: str, *, title: str = "",
         width: float | None = None, dpi: float | None = None, vector: bool = False) -> Figure:
    """Maps of the difference of the probability of convergence over x and y, and the table of outcomes below them."""
    others = [name for name in settings.dims if name not in (x, y)]
    cells = settings.transpose(*others, y, x)
    one, two = pairs.labels
    beside = width is None or width >= 5.2
    difference = cells.difference.values
    known = np.isfinite(difference)
    image = DIFFERENCE((np.nan_to_num(difference) + 1) / 2)[..., :3]
    n = cells.n.values[cells.n.values > 0]
    note = f"green: {two} converges more often; purple: {one} does"
    if n.size:
        half = float(((cells.high - cells.low) / 2).where(cells.n > 0).max())
        count = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
        note += f"; {count} pair{'s' if n.max() > 1 else ''} per cell; {100 * settings.attrs['confidence']:g} % interval up to ±{half:.2f}"
    drawn = [(words, dashes, values) for words, dashes, values in (("dashed", (3.2, 1.6), cells.second), ("line", None, cells.first))
             if float(values.min()) < 0.5 <= float(values.max())]
    line_note = "; ".join(f"{words}: probability 1/2 with {one if dashes is None else two}" for words, dashes, _ in drawn[::-1])
    swatches = [] if known.all() else [maps.Swatch("no pair with two outcomes", None)]
    layer = maps.Layer(
        f"Probability of convergence: {two} minus {one}" if beside and len("".join(pairs.names)) <= 40
        else "Difference in probability of convergence",
        xr.DataArray(np.concatenate([image, known[..., None].astype(float)], axis=-1), dims=(*cells.n.dims, "rgba")),
        [maps.ColourBar(DIFFERENCE, Normalize(-1, 1))], swatches, note,
        tuple(maps.Line(values, dashes=dashes) for _, dashes, values in drawn), line_note,
    )
    words = _words(pairs, summary)
    foot = _FOOT if beside else _FOOT + 0.12 * (len(words) + 1)
    figure = maps.draw_layers(cells, x, y, [layer], title=title, width=width, dpi=dpi, vector=vector,
                              foot=(5.5 if beside else _TABLE, foot))
    with matplotlib.rc_context(style.parameters()):
        _draw_table(figure, pairs, summary, words, foot, beside)
    return figure


def _words(pairs: Pairs, summary: Mapping[str, Any]) -> list[str]:
    """Lines beside the table."""
    converged = summary["outcomes"]["converged"]
    one, two = pairs.labels
    if summary["pairs"] == 0:
        return ["no pair of runs with two outcomes"]
    lines = [f"{one}: {converged['first']:.3f} converge", f"{two}: {converged['second']:.3f} converge",
             f"difference {_estimate(converged, 'difference', '+.3f')}, {p_text(converged['p'])}".replace("-", "−"),
             f"from {converged['clusters']} independent clusters ($d$, replicate)"]
    if pairs.sharing != "inputs":
        lines[-1] += {"directions": ",", "nothing": ","}[pairs.sharing]
        lines.append("which share " + {"directions": "W* and W_0 only", "nothing": "no random numbers"}[pairs.sharing])
    if summary["steps"]["n"]:
        lines.append(f"where both converge ({summary['steps']['n']:,} pairs), medians:")
        lines.append(f"steps × {_estimate(summary['speed'], 'median', '.3g', _by(_ratio))}")
    if summary["error_undiverged"]["n"]:
        lines.append(f"where neither diverges ({summary['error_undiverged']['n']:,} pairs):")
        lines.append(f"final error × {_estimate(summary['error_undiverged'], 'median', '.3g', _by(_ratio))}")
    return lines


def _draw_table(figure: Figure, pairs: Pairs, summary: Mapping[str, Any], words: Sequence[str], foot: float,
                beside: bool) -> None:
    width, height = figure.get_size_inches()

    def text(x: float, y: float, words: str, **kind: Any) -> None:
        figure.text(x / width, 1 - (height - foot + y) / height, words, **{"fontsize": 6.2, "va": "center", **kind})

    left, top = 0.08, 0.46
    text(left, 0.1, f"Outcomes of {summary['pairs']:,} pairs", fontsize=7, fontweight="bold")
    text(left, 0.24, f"rows: {pairs.labels[0]}; columns: {pairs.labels[1]}")
    table = np.asarray(summary["table"])
    share = np.sqrt(table / max(1, table.sum()))
    purple, green = DIFFERENCE(0.12)[:3], DIFFERENCE(0.88)[:3]
    for i, name in enumerate(FINAL_OUTCOMES):
        at = left + _ROW_LABEL + (i + 0.5) * _CELL
        text(at, 0.38, name, ha="center", color=style.MUTED)
        text(left + _ROW_LABEL - 0.05, top + (i + 0.5) * _ROW, name, ha="right", color=style.MUTED)
        for j in range(4):
            base = np.array(to_rgb("#8a8a8a") if (i == 0) == (j == 0) else purple if i == 0 else green)
            colour = style.tinted(base[None], np.array([0.75 * share[i, j]]))[0]
            box = (left + _ROW_LABEL + j * _CELL, top + i * _ROW)
            figure.add_artist(Rectangle((box[0] / width, 1 - (height - foot + box[1] + _ROW) / height), _CELL / width,
                                        _ROW / height, transform=figure.transFigure, facecolor=np.clip(colour, 0, 1),
                                        edgecolor="white", linewidth=0.8))
            text(box[0] + _CELL / 2, box[1] + _ROW / 2, f"{table[i, j]:,}", ha="center",
                 color=style.INK if table[i, j] else style.MUTED)
    if summary["without_outcome"]:
        text(left, top + 4 * _ROW + 0.1, f"{summary['without_outcome']:,} more without two outcomes do not count",
             color=style.MUTED)
    x0, y0 = (left + _TABLE + 0.25, 0.25) if beside else (left, _FOOT)
    for i, line in enumerate(words):
        text(x0, y0 + 0.125 * i, line)
