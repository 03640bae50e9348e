"""Claim 4: the number of steps."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, style

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "rates"
TITLE = "The number of steps"
CLAIM = "SGD converges to within ε of W* in a number of steps that is polynomial in d and 1/ε."
RULE = ("Medians over replicates of the steps to ε = 0.01, at the best step size of each d and at the theory's kind, 10/d². Confirmed: at both, steps grow with d as a power "
        "rather than exponentially (smaller squares about the line in the logarithm, in 95 % of the bootstrap's resamples), and with 1/ε no faster than as a power "
        "(the exponent's interval is finite). In part: at one of the two. Contradicted: at both, the exponential fits better in 95 % of the resamples. Otherwise not decided. "
        "That the steps are even logarithmic in 1/ε is said where a + b·log(1/ε) fits better than a power in 95 %.")
PANELS = 2
CAPTION = ("Left: steps to ε at the best step size of each d (that for the smallest ε), ε on a logarithmic axis and steps on a linear one, relative to those to the smallest ε: "
           "straight lines are logarithms, the dashed curve is the power that fits best. Right: steps to ε = 0.01 against d, medians over replicates, with their power laws.")

ACCURACIES = tuple(10.0 ** (-0.5 * i) for i in range(2, 9))
MAIN = 0.01
THEORY = 10.0  # step size times d²
SURE = 0.95


def steps_to(step: np.ndarray, error: np.ndarray, last_step: np.ndarray, last_error: np.ndarray, accuracy: float) -> np.ndarray:
    """Steps [...] until the error [..., record] first is at most `accuracy`, between records by its logarithm.

    `last_step` and `last_error` [...] are the run's end, which need be no record. Infinite where that never is.
    """
    steps = np.concatenate([np.broadcast_to(step, error.shape).astype(float), last_step[..., None]], -1)
    errors = np.concatenate([error, last_error[..., None]], -1)
    below = errors <= accuracy  # NaN is not
    first = below.argmax(-1)
    some = below.any(-1)
    # The record before: the last one known.
    known = np.isfinite(errors) & (np.arange(errors.shape[-1]) < first[..., None])
    before = np.where(known, np.arange(errors.shape[-1]), -1).max(-1)

    def at(array: np.ndarray, index: np.ndarray) -> np.ndarray:
        return np.take_along_axis(array, np.maximum(index, 0)[..., None], -1)[..., 0]

    with np.errstate(invalid="ignore", divide="ignore"):
        high, low = np.log(at(errors, before)), np.log(np.maximum(at(errors, first), 1e-300))
        part = np.clip((high - math.log(accuracy)) / (high - low), 0, 1)
        between = at(steps, before) + part * (at(steps, first) - at(steps, before))
    return np.where(some, np.where(before < 0, at(steps, first), between), np.inf)


def log_misfit(accuracies: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares [...] of log steps [..., accuracy] about a + b log(1/ε), b > 0, and about a power of 1/ε."""
    size = np.log(1 / accuracies)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(steps)
    best = np.full(y.shape[:-1], np.inf)
    for shift in np.concatenate([-size[0] + np.geomspace(1e-3, 1e3, 200)]):
        residual = y - np.log(size + shift)
        residual = residual - residual.mean(-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            best = np.minimum(best, (residual**2).sum(-1))
    return best, common.misfit(size, y)


def _fit(dims: np.ndarray, steps: np.ndarray, index: np.ndarray) -> dict[str, Any]:
    """Of steps(resampling) [resample + 1, d], the plain one first."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(np.where(np.isfinite(steps), steps, np.nan))
    exponents = common.slope(np.log(dims), y)
    with np.errstate(invalid="ignore"):
        better = (common.misfit(np.log(dims), y) < common.misfit(dims, y))[1:]
    known = np.isfinite(exponents[1:])
    low, high = common.student_interval(float(exponents[0]), exponents[1:], index.shape[-1])
    enough = dims.size > 2 and known.sum() > common.RESAMPLES // 2
    return {"steps": steps[0], "exponent": common.estimate(exponents[0], low, high),
            "power_better": float(better[known].mean()) if enough else math.nan}


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    sweep = common.box(sweep, "dimension", "step_size", "replicate")
    dims, etas = sweep.dimension.values.astype(float), sweep.step_size.values
    tolerance = common.tolerance(sweep)
    accuracies = np.array([value for value in ACCURACIES if value >= tolerance * (1 - 1e-9)])
    if accuracies.size == 0 or accuracies[-1] > MAIN:
        raise ArgumentError(f"the tolerance is {tolerance:g}: steps to {MAIN:g} need one as small")
    error = sweep.error.values
    times = np.stack([steps_to(sweep.step.values, error, sweep.steps_done.values, sweep.final_error.values, value) for value in accuracies])
    times[:, ~common.status_is(sweep, "converged", "diverged", "stalled", "unfinished")] = np.nan  # [accuracy, d, η, replicate]

    replicates = times.shape[-1]
    index = np.concatenate([np.broadcast_to(np.arange(replicates), (1, dims.size, replicates)), common.draws(dims.size, replicates)])
    # Medians of resampled replicates [accuracy, resample, d, η]; a replicate is drawn with all of its step sizes.
    medians = np.stack([np.stack([np.median(times[:, i][..., index[r, i]], -1) for i in range(dims.size)], 1) for r in range(len(index))], 1)

    main = common.nearest(np.log(accuracies), math.log(MAIN))
    best = medians[main].min(-1)
    theory = np.full(best.shape, np.inf)
    for i, d in enumerate(dims):
        near = common.nearest(np.log(etas), math.log(THEORY / d**2))
        if abs(math.log(etas[near] * d**2 / THEORY)) < 0.2:
            theory[:, i] = medians[main][:, i, near]
    ret: dict[str, Any] = {
        "dimensions": dims, "accuracies": accuracies, "replicates": replicates,
        "best": _fit(dims, best, index) | {"step_size": etas[medians[main, 0].argmin(-1)]},
        "theory": _fit(dims, theory, index) | {"step_size": THEORY / dims**2},
    }
    # Against ε, at the one step size that is best for the smallest.
    chosen = medians[-1, 0].argmin(-1)
    curves = medians[:, :, np.arange(dims.size), chosen]  # [accuracy, resample, d]
    reached = np.isfinite(curves[:, 0]).all(0)
    curves = np.moveaxis(curves[:, :, reached], 0, -1)  # [resample, d, accuracy]
    ret["curves"] = [{"dimension": int(d), "step_size": float(etas[chosen[i]]), "steps": medians[:, 0, i, chosen[i]]} for i, d in enumerate(dims)]
    nothing = common.estimate(math.nan, math.nan, math.nan)
    ret["accuracy"] = {"exponent": nothing, "logarithm_better": math.nan, "misfit_logarithm": math.nan, "misfit_power": math.nan}
    if reached.any() and accuracies.size > 2:
        with np.errstate(invalid="ignore"):
            exponents = common.slope(np.log(1 / accuracies), np.log(curves)).mean(-1)
            logarithm, power = (part.mean(-1) for part in log_misfit(accuracies, curves))
        interval = common.student_interval(float(exponents[0]), exponents[1:], replicates)
        ret["accuracy"] = {"exponent": common.estimate(exponents[0], *interval), "logarithm_better": float((logarithm < power)[1:].mean()),
                           "misfit_logarithm": math.sqrt(logarithm[0] / accuracies.size), "misfit_power": math.sqrt(power[0] / accuracies.size)}
    return ret


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    sure = [numbers[name]["power_better"] for name in ("best", "theory")]
    epsilon = numbers["accuracy"]
    finite = math.isfinite(epsilon["exponent"]["high"])
    if not finite or all(math.isnan(value) for value in sure):
        return UNDECIDED, "too few dimensions, accuracies or runs that converge for a fit"
    logarithmic = (" (in 1/ε even logarithmically)" if epsilon["logarithm_better"] >= SURE else "")
    power = [value >= SURE for value in sure]
    if all(power):
        return CONFIRMED, f"powers of d, at the best step size and at 10/d², and of 1/ε{logarithmic}"
    if any(power):
        return PART, f"a power of d {'at the best step size' if power[0] else 'at 10/d²'} alone; of 1/ε a power{logarithmic}"
    if all(value <= 1 - SURE for value in sure):
        return CONTRADICTED, "steps grow exponentially with d rather than as a power"
    return UNDECIDED, "a power of d and an exponential cannot be told apart over these dimensions"


def effects(numbers: dict[str, Any]) -> list[Effect]:
    best, theory, epsilon = (numbers[name]["exponent"] for name in ("best", "theory", "accuracy"))
    return [
        Effect("exponent of d, best step size", best["value"], best["low"], best["high"]),
        Effect("exponent of d, step size 10/d²", theory["value"], theory["low"], theory["high"]),
        Effect("exponent of 1/ε, if it were a power", epsilon["value"], epsilon["low"], epsilon["high"]),
        Effect("resamples in which a logarithm of 1/ε fits better", numbers["accuracy"]["logarithm_better"], form=".0%"),
    ]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "best step size", "steps to 0.01", "step size 10/d²", "steps to 0.01", *(f"steps to {common.number(value, '.2g')}, best" for value in numbers["accuracies"])]
    rows = []
    for i, d in enumerate(numbers["dimensions"]):
        rows.append([f"{d:g}", common.number(numbers["best"]["step_size"][i], ".2g"), common.number(numbers["best"]["steps"][i], ".0f"),
                     common.number(numbers["theory"]["step_size"][i], ".2g"), common.number(numbers["theory"]["steps"][i], ".0f"),
                     *(common.number(value, ".0f") for value in numbers["curves"][i]["steps"])])
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    fit = numbers["accuracy"]
    return CAPTION + (f" The logarithm misses the points by {100 * fit['misfit_logarithm']:.1f} %, the power by {100 * fit['misfit_power']:.1f} % (root mean square)."
                      if math.isfinite(fit["misfit_power"]) else "")


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    dims, accuracies = np.asarray(numbers["dimensions"]), np.asarray(numbers["accuracies"])
    colours = style.ramp("", ["#8fb6de", "#1d4e94", "#08204a"], max(2, dims.size)).colors
    ax = axes[0]
    relative = []
    for colour, curve in zip(colours, numbers["curves"]):
        steps = np.asarray(curve["steps"], dtype=float)
        if np.isfinite(steps).all():
            relative.append(steps / steps[-1])
            ax.plot(1 / accuracies, relative[-1], color=colour, linewidth=0.9, marker="o", markersize=2.2, label=str(curve["dimension"]))
    if relative:
        x, y = np.log(1 / accuracies), np.log(relative).mean(0)
        power = float(common.slope(x, y))
        fine = np.geomspace(1 / accuracies[0], 1 / accuracies[-1], 100)
        ax.plot(fine, np.exp(y.mean() + power * (np.log(fine) - x.mean())), color=style.OUTCOME_COLOURS["diverged"], linewidth=0.9, linestyle=(0, (3, 2)),
                label=f"$(1/\\varepsilon)^{{{power:.2f}}}$")
        ax.legend(title="$d$", frameon=False, fontsize=6.2, title_fontsize=6.2, loc="upper left", ncols=2, handlelength=1.4, columnspacing=0.9)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.6)
    ax.set_xlabel(r"1/$\varepsilon$")
    ax.set_ylabel("steps to $\\varepsilon$, relative")

    ax = axes[1]
    for name, colour, marker, label in (("best", style.OUTCOME_COLOURS["converged"], "o", "best step size"),
                                        ("theory", style.OUTCOME_COLOURS["diverged"], "s", "step size 10/$d^2$")):
        part = numbers[name]
        steps, exponent = np.asarray(part["steps"], dtype=float), part["exponent"]
        some = np.isfinite(steps)
        words = label
        if np.isfinite(exponent["value"]):
            words += f": $d^{{{exponent['value']:.2f}}}$ [{exponent['low']:.2f}, {exponent['high']:.2f}]"
            logs = np.log(steps)
            ax.plot(dims, np.exp(logs.mean() + exponent["value"] * (np.log(dims) - np.log(dims).mean())), color=colour, linewidth=0.8)
        ax.plot(dims[some], steps[some], linestyle="", marker=marker, markersize=3, color=colour, label=words)
    common.over_dimensions(ax, dims, "steps to $\\varepsilon$ = 0.01", 4)
    ax.legend(frameon=False, fontsize=6.2, loc="upper left", handlelength=0.8)
