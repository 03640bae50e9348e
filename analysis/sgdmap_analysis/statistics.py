"""Statistics over replicates: counts of outcomes, the probability of convergence and its interval."""
from __future__ import annotations

from statistics import NormalDist
from typing import Hashable, Iterable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from .sweep import FINAL_OUTCOMES, flag_codes


def wilson_interval(k: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval for a binomial proportion, without continuity correction.

        (k + z^2/2 ± z sqrt(k (n - k) / n + z^2/4)) / (n + z^2),   z the (1 + confidence)/2 normal quantile

    Its mean coverage is close to nominal already for the few replicates of a sweep, and it stays inside [0, 1] and
    is not empty at k = 0 or k = n, where the textbook interval p ± z sqrt(p(1-p)/n) collapses to a point.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212; recommended for small n by L. D. Brown, T. T. Cai,
    A. DasGupta, Statistical Science 16 (2001) 101-133.

    Parameters
    ----------
    k, n
        Successes and trials, 0 <= k <= n; any shapes that broadcast.
    confidence
        The nominal coverage, in (0, 1).

    Returns
    -------
    low, high
        The bounds, in the broadcast shape. n = 0 gives [0, 1]: nothing is known.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not in (0, 1)")
    k, n = np.broadcast_arrays(np.asarray(k, dtype=np.float64), np.asarray(n, dtype=np.float64))
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("k is not in [0, n]")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    spread = k * (n - k) / np.maximum(n, 1)  # 0 where n = 0
    centre = (k + z * z / 2) / (n + z * z)
    half = z * np.sqrt(spread + z * z / 4) / (n + z * z)
    # Exact at the ends, where the formula's two terms cancel but for rounding.
    low = np.where(k == 0, 0.0, centre - half)
    high = np.where(k == n, 1.0, centre + half)
    return low, high


def outcome_counts(status: xr.DataArray, over: Hashable | Iterable[Hashable] | None = "replicate") -> xr.DataArray:
    """How many runs have each status: int64 [outcome, dimensions of `status` without `over`].

    `outcome` has the file's flag meanings in their order, runs without an outcome included. With `over` None or ()
    nothing is summed.
    """
    over = () if over is None else (over,) if isinstance(over, str) else tuple(over)
    codes = flag_codes(status)
    counts = [(status == code).sum(over) for code in codes.values()]
    return xr.concat(counts, xr.DataArray(list(codes), dims="outcome", name="outcome"))


def convergence(counts: xr.DataArray, confidence: float = 0.95) -> xr.Dataset:
    """The probability of convergence from `outcome_counts`.

    A run that is pending, running or failed says nothing about convergence: it counts neither for nor against.

    Returns a Dataset [dimensions of `counts` without `outcome`] of `n`, the runs that converged, diverged, stalled or
    were unfinished; `k`, those that converged; `probability` k/n, NaN where n = 0; and Wilson's interval `low`, `high`.
    """
    n = counts.sel(outcome=list(FINAL_OUTCOMES)).sum("outcome")
    k = counts.sel(outcome="converged", drop=True)
    low, high = wilson_interval(k.values, n.values, confidence)
    return xr.Dataset(
        {
            "n": n.assign_attrs(long_name="runs with an outcome", units="1"),
            "k": k.assign_attrs(long_name="runs that converged", units="1"),
            "probability": (k / n.where(n > 0)).assign_attrs(long_name="probability of convergence", units="1"),
            "low": n.copy(data=low).assign_attrs(long_name="lower bound of the probability", units="1"),
            "high": n.copy(data=high).assign_attrs(long_name="upper bound of the probability", units="1"),
        },
        attrs={"interval": "Wilson score", "confidence": confidence},
    )


def median_interval(
    values: np.ndarray, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The median and its distribution-free interval, between order statistics.

    Between the l-th smallest and the l-th largest of n values lies the median of their distribution with probability
    1 - 2 P(Bin(n, 1/2) < l), at least: the largest l is taken for which that is at least `confidence`. There is none for few
    values (fewer than six at 0.95): then the interval goes from the smallest to the largest, and covers less.

    Source: H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., Wiley 2003, section 7.1.

    Parameters
    ----------
    values
        [..., m]; NaN is no value, infinities count (runs of which is known only that they take longer).

    Returns
    -------
    median, low, high, coverage
        [...]; NaN where there is no value. The median of two middle values one of which is infinite is infinite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)  # NaN last
    n = (~np.isnan(ordered)).sum(-1)
    counts, place = np.unique(n, return_inverse=True)
    ranks, coverages = np.array([_median_rank(int(count), confidence) for count in counts]).reshape(-1, 2).T
    rank, coverage = ranks.astype(np.int64)[place].reshape(n.shape), coverages[place].reshape(n.shape)

    def at(index: np.ndarray) -> np.ndarray:
        if ordered.shape[-1] == 0:
            return np.full(n.shape, np.nan)
        return np.take_along_axis(ordered, np.maximum(index, 0)[..., None], -1)[..., 0]

    below, above = at((n - 1) // 2), at(n // 2)
    with np.errstate(invalid="ignore"):
        middle = np.where(np.isinf(above), above, (below + above) / 2)
    empty = n == 0
    return tuple(np.where(empty, np.nan, part) for part in (middle, at(rank - 1), at(n - rank), coverage))


def _median_rank(n: int, confidence: float) -> tuple[int, float]:
    """l and the coverage of the interval from n values."""
    # In logarithms: 2^-n is 0 for a thousand replicates and more.
    terms = np.cumsum([0.0, *np.log((n - np.arange(n // 2)) / np.arange(1, n // 2 + 1))]) - n * np.log(2)
    below = np.cumsum(np.exp(terms))  # P(Bin(n, 1/2) <= j), j up to n/2
    enough = np.flatnonzero(1 - 2 * below[: (n + 1) // 2] >= confidence)
    rank = int(enough[-1]) + 1 if enough.size else 1
    return rank, max(0.0, 1 - 2 * below[rank - 1])


# Ties go to the outcome that stands first here. Convergence is last: a cell drawn as converged has more converged
# runs than runs of any other outcome.
TIE_ORDER = ("diverged", "stalled", "unfinished", "converged")


def most_frequent(counts: xr.DataArray) -> xr.Dataset:
    """The most frequent outcome of each cell, from `outcome_counts`.

    Returns a Dataset [dimensions of `counts` without `outcome`] of `most_frequent` (text) and `share` (its part of
    the runs with an outcome, NaN without any). A cell without an outcome is `pending` if anything is still to come there, else
    `failed`.
    """
    final = counts.sel(outcome=list(TIE_ORDER)).transpose("outcome", ...)
    n = final.sum("outcome").values
    winner = final.values.argmax(axis=0)  # the first of equals
    outcome = np.array(TIE_ORDER)[winner]
    waiting = sum(counts.sel(outcome=name).values for name in counts.outcome.values if name in ("pending", "running"))
    outcome = np.where(n > 0, outcome, np.where(waiting > 0, "pending", "failed"))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = final.values.max(axis=0) / np.where(n > 0, n, np.nan)
    template = final.isel(outcome=0, drop=True)
    return xr.Dataset({"most_frequent": template.copy(data=outcome), "share": template.copy(data=share)})
