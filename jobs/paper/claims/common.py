"""What the claims share: verdicts, effects, and statistics over replicates."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, style, wilson_interval
from sgdmap_analysis.boundary import student_t_quantile
from sgdmap_analysis.compare import clustered_difference, config_value, newcombe_paired_interval
from sgdmap_analysis.sweep import flag_codes, has_outcome

CONFIRMED, PART, CONTRADICTED, UNDECIDED, MISSING = VERDICTS = (
    "confirmed", "holds in part", "contradicted", "not decided", "not run")

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Effect:
    """A size, with its interval where there is one."""

    what: str
    value: float
    low: float = math.nan
    high: float = math.nan
    form: str = ".2f"
    unit: str = ""

    def size(self) -> str:
        return number(self.value, self.form) + self.unit

    def interval(self) -> str:
        if math.isnan(self.low) or math.isnan(self.high):
            return "–"
        return f"[{number(self.low, self.form)}, {number(self.high, self.form)}]"


def number(value: float | None, form: str = ".3g") -> str:
    """A number for readers: a real minus, ∞, and – for what is not known."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = format(value, form)
    if "e" in text:
        mantissa, exponent = text.split("e")
        superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{superscript}"
    return text.replace("-", "−")


def count(k: int, n: int) -> str:
    """'5 of 6 [0.44, 0.97]': a share with Wilson's interval."""
    low, high = wilson_interval(k, n, CONFIDENCE)
    return f"{k} of {n} [{float(low):.2f}, {float(high):.2f}]"


def share(k: int, n: int) -> dict[str, Any]:
    low, high = wilson_interval(k, n, CONFIDENCE)
    return {"k": int(k), "n": int(n), "share": k / n if n else math.nan, "low": float(low), "high": float(high)}


def certain(n: int) -> float:
    """The 95 % lower bound (Clopper-Pearson, one-sided) of a probability that all of n replicates agree with."""
    return (1 - CONFIDENCE) ** (1 / n) if n else 0.0


def tolerance(sweep: xr.Dataset) -> float:
    text = config_value(sweep.attrs, "training.tolerance")
    if text is None:
        raise ArgumentError("the file's config has no training.tolerance")
    return float(text)


def box(sweep: xr.Dataset, *kept: str) -> xr.Dataset:
    """The sweep over the axes `kept` and step alone; ArgumentError where another axis has more than one value."""
    for axis in sweep.status.dims:
        if axis not in kept and sweep.sizes[axis] > 1:
            raise ArgumentError(f"{axis} has {sweep.sizes[axis]} values here, where one is expected")
    return sweep.isel({axis: 0 for axis in sweep.status.dims if axis not in kept}).transpose(*kept, "step")


def status_is(sweep: xr.Dataset, *names: str) -> np.ndarray:
    codes = flag_codes(sweep.status)
    return np.isin(sweep.status.values, [codes[name] for name in names])


def unfinished_runs(sweep: xr.Dataset) -> int:
    """Runs without an outcome."""
    return int((~has_outcome(sweep.status)).sum())


def nearest(values: np.ndarray, wanted: float) -> int:
    return int(np.argmin(np.abs(np.asarray(values, dtype=float) - wanted)))


# -- Over replicates ---------------------------------------------------------------------------------------------------


def all_of_a_cluster(success: np.ndarray, known: np.ndarray) -> tuple[int, int]:
    """Clusters [cluster, run] of which all known runs succeed, and clusters with a known run."""
    some = known.any(-1)
    return int((some & (success | ~known).all(-1)).sum()), int(some.sum())


def paired_share_difference(first: np.ndarray, second: np.ndarray, known: np.ndarray, stratum: np.ndarray) -> dict[str, float]:
    """Second minus first, of bool [cluster, run] in pairs, with the interval over clusters."""
    one, two = first & known, second & known
    pairs = known.sum(-1)
    found = clustered_difference(two.sum(-1) - one.sum(-1), pairs, stratum, CONFIDENCE)
    low, high = found["low"], found["high"]
    if not math.isfinite(low) and found["clusters"]:
        # All clusters alike: nothing shows how they vary. Each then counts as a single pair.
        weight = found["clusters"] / pairs.sum()
        table = [(one & two).sum(), (one & ~two).sum(), (~one & two & known).sum(), (known & ~one & ~two).sum()]
        low, high = map(float, newcombe_paired_interval(*(cells * weight for cells in table), CONFIDENCE))
    return {"difference": float(found["difference"]), "low": float(low), "high": float(high), "clusters": int(found["clusters"])}


def draws(points: int, replicates: int) -> np.ndarray:
    """Indices [resample, point, replicate] of a bootstrap in which each point has its own replicates; the same at every call."""
    return np.random.default_rng([0, points, replicates]).integers(0, replicates, (RESAMPLES, points, replicates))


def student_interval(estimate: float, resampled: np.ndarray, replicates: int) -> tuple[float, float]:
    """From a bootstrap's standard error and Student's t, as for a mean of so many replicates (T. Hesterberg, Am. Stat. 69
    (2015) 371)."""
    resampled = resampled[np.isfinite(resampled)]
    if replicates < 2 or resampled.size < RESAMPLES // 2 or not math.isfinite(estimate):
        return math.nan, math.nan
    error = float(resampled.std()) * math.sqrt(replicates / (replicates - 1))
    half = float(student_t_quantile((1 + CONFIDENCE) / 2, replicates - 1)) * error
    return estimate - half, estimate + half


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the least-squares lines through y [..., point]; NaN where a point is missing, or there are fewer than two."""
    if x.size < 2:
        return np.full(y.shape[:-1], np.nan)
    centred = x - x.mean()
    with np.errstate(invalid="ignore"):
        return (y * centred).sum(-1) / (centred**2).sum()


def misfit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The sum of squares [...] of y [..., point] about its least-squares line."""
    with np.errstate(invalid="ignore"):
        residual = y - y.mean(-1, keepdims=True) - slope(x, y)[..., None] * (x - x.mean())
        return (residual**2).sum(-1)


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": float(value), "low": float(low), "high": float(high)}


def over_dimensions(ax: Any, dims: Sequence[float], label: str, room: float, below: float = 1) -> tuple[float, float]:
    """Logarithmic axes of a law in d, whose values are the ticks; `room` and `below` are factors left free above and below. Returns the limits before."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(dims, [f"{value:g}" for value in dims])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ax.set_ylim(low / below, high * room)
    ax.set_xlabel(style.AXIS_LABELS["dimension"])
    ax.set_ylabel(label)
    return low, high


def of_two_halves(first: bool | None, second: bool | None, told: str) -> tuple[str, str]:
    """The verdict on a claim of two halves, each of which holds, does not, or (None) cannot be told."""
    if first and second:
        return CONFIRMED, told
    if first or second:
        return PART, told
    return (CONTRADICTED if first is False and second is False else UNDECIDED), told


def plain(value: Any) -> Any:
    """Numbers of any kind for JSON; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def joined(words: Sequence[str]) -> str:
    """'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


