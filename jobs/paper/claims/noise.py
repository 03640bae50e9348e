"""Claim 9: bounded noise in the labels."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, style
from sgdmap_analysis.compare import student_quantile

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "noise"
TITLE = "Noise in the labels"
CLAIM = "SGD tolerates bounded noise: it converges to a neighbourhood of W* whose size is the noise's."
EXPONENT_MARGIN, RADIUS, MOST = 0.1, 0.1, 0.8
SETTLED = 10.0
RULE = (f"With a constant step size and labels f*(x) + c u, u uniform on [−1, 1]. Proportional: the exponent of the final error in c is within [{1 - EXPONENT_MARGIN:g}, {1 + EXPONENT_MARGIN:g}] with its whole interval, "
        f"over independent replicates. Near: in more than {MOST:g} of the replicates (Wilson's lower bound) all runs end within {RADIUS:g}·c of W*. Confirmed: both. In part: one of them. "
        "Contradicted: the whole interval of the exponent is outside, and in less than half of the replicates (upper bound) all runs end that near. Otherwise not decided. "
        f"(Added after the first run, and no part of the verdict: the exponents of the runs at their floor, those whose twin without noise ends {SETTLED:g} times as near or nearer. "
        "At the smallest step size and the smallest c the steps did not suffice.)")
PANELS = 3
CAPTION = ("d = {d}, medians over replicates. Left: final error against the noise's bound c, for constant step sizes; lines: proportional, through the median; shaded: within {radius:g}·c. Middle: error along the "
           "training at c = {c:g} and a first step size of {step_size:g}, by schedule. Right: final error over c = {c:g} against the (first) step size; line: the square root.")

SCHEDULES = ("constant", "inverse_time", "cosine")
WORDS = {"constant": "constant", "inverse_time": "inverse time", "cosine": "cosine"}


def _mean(values: np.ndarray) -> dict[str, float]:
    """Of independent values, with Student's interval; NaN left out."""
    values = values[np.isfinite(values)]
    if values.size == 0:
        return common.estimate(math.nan, math.nan, math.nan)
    if values.size == 1:
        return common.estimate(values[0], math.nan, math.nan)
    half = student_quantile((1 + common.CONFIDENCE) / 2, values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size)
    return common.estimate(values.mean(), values.mean() - half, values.mean() + half)


def _ratio(logs: np.ndarray) -> dict[str, float]:
    return common.estimate(*(math.exp(value) for value in _mean(logs).values()))


def _exponent_in_d(dims: np.ndarray, logs: np.ndarray) -> dict[str, float]:
    """The slope of log values [d, replicate]: replicates of different d are independent."""
    if dims.size < 2 or logs.shape[1] < 2:
        return common.estimate(math.nan, math.nan, math.nan)
    x = np.log(dims) - np.log(dims).mean()
    weight = x / (x**2).sum()
    value = float(weight @ logs.mean(1))
    error = math.sqrt(float((weight**2 * logs.var(1, ddof=1)).sum()) / logs.shape[1])
    half = student_quantile((1 + common.CONFIDENCE) / 2, logs.shape[1] - 1) * error
    return common.estimate(value, value - half, value + half)


def _settled_exponents(noise: np.ndarray, etas: np.ndarray, logs: np.ndarray, without: np.ndarray) -> tuple[dict[str, float], dict[str, float], int]:
    """Exponents in c and in the step size of log errors [cluster, η, c], from runs that are at their floor, and how many those are.

    At its floor is a run whose twin without noise (log error [cluster, η], the same inputs) is SETTLED times as near or nearer. A
    plane through those of each cluster; clusters that have too few for one are left out.
    """
    settled = np.isfinite(logs) & (without[..., None] <= logs - math.log(SETTLED))
    planes = []
    x, y = np.broadcast_arrays(np.log(noise)[None, :], np.log(etas)[:, None])
    for values, some in zip(logs, settled):
        design = np.stack([np.ones(some.sum()), x[some], y[some]], -1)
        if some.sum() > 3 and np.linalg.matrix_rank(design) == 3:
            planes.append(np.linalg.lstsq(design, values[some], rcond=None)[0][1:])
    found = np.array(planes).reshape(-1, 2)
    return _mean(found[:, 0]), _mean(found[:, 1]), int(settled.sum())


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    schedules = [str(name) for name in sweep.schedule.values] if "schedule" in sweep.dims else ["constant"]
    if "noise" not in sweep.dims or (sweep.noise.values > 0).sum() < 2:
        raise ArgumentError("the sweep has fewer than two bounds of the noise above 0")
    if "constant" not in schedules:
        raise ArgumentError("the sweep has no constant step size")
    if "schedule" not in sweep.dims:
        sweep = sweep.expand_dims(schedule=["constant"])
    one = common.box(sweep, "dimension", "replicate", "schedule", "step_size", "noise")
    dims, etas, noise, batch = one.dimension.values.astype(float), one.step_size.values, one.noise.values, int(sweep.batch_size.values[0])
    known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
    diverged = common.status_is(one, "diverged")
    error = np.where(known & ~diverged, one.final_error.values, np.nan)  # [d, replicate, schedule, η, c]
    some = noise > 0
    constant = schedules.index("constant")
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(error)
        scaled = logs[..., some] - np.log(noise[some])
    clusters = (dims.size * one.sizes["replicate"], -1)

    # A slope a replicate, over all that it has; those replicates are independent.
    in_noise = common.slope(np.log(noise[some]), logs[:, :, constant][..., some]).mean(-1).ravel()
    in_step = common.slope(np.log(etas), np.moveaxis(scaled[:, :, constant], 2, 3)).mean(-1).ravel()
    predicted = 0.5 * np.log(2 * etas[None, :] * dims[:, None] / (3 * batch))  # log of error / c
    over = (scaled[:, :, constant] - predicted[:, None, :, None]).reshape(clusters).mean(-1)
    near = (error <= RADIUS * noise)[:, :, constant][..., some].reshape(clusters)
    asked = known[:, :, constant][..., some].reshape(clusters)
    within = common.share(*common.all_of_a_cluster(near, asked))

    decaying = {}
    for name in schedules:
        if name != "constant":
            k = schedules.index(name)
            by_step = [_ratio((scaled[:, :, k, i] - scaled[:, :, constant, i]).reshape(clusters).mean(-1)) for i in range(etas.size)]
            decaying[name] = {"by_step_size": by_step, "best": by_step[-1]}
    zero, settled = None, None
    if (noise == 0).any():
        at = int(np.flatnonzero(noise == 0)[0])
        done = common.status_is(one, "converged")[:, :, constant, :, at]
        zero = common.share(done.sum(), known[:, :, constant, :, at].sum())
        shape = (clusters[0], etas.size)
        in_c, in_eta, runs = _settled_exponents(noise[some], etas, logs[:, :, constant][..., some].reshape(*shape, -1), logs[:, :, constant, :, at].reshape(shape))
        settled = {"exponent": in_c, "exponent_step_size": in_eta, "runs": runs}

    cells = []
    for j, d in enumerate(dims):
        for i, eta in enumerate(etas):
            for n, c in enumerate(noise):
                part = {"dimension": int(d), "step_size": float(eta), "noise": float(c)}
                for k, name in enumerate(schedules):
                    values = error[j, :, k, i, n]
                    part[name] = float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else math.nan
                part["within"] = common.share(int((error[j, :, constant, i, n] <= RADIUS * c).sum()), int(known[j, :, constant, i, n].sum()))
                part["diverged"] = int(diverged[j, :, constant, i, n].sum())
                cells.append(part)
    return {
        "exponent": _mean(in_noise), "exponent_step_size": _mean(in_step) if etas.size > 1 else common.estimate(math.nan, math.nan, math.nan),
        "exponent_dimension": _exponent_in_d(dims, scaled[:, :, constant].mean((-1, -2))), "over_prediction": _ratio(over), "within": within,
        "diverged": int(diverged[:, :, constant][..., some].sum()), "decaying": decaying, "without_noise": zero, "settled": settled, "cells": cells,
        "dimensions": dims, "step_sizes": etas, "noise": noise, "schedules": schedules, "batch_size": batch,
    }


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    exponent, within = numbers["exponent"], numbers["within"]
    low, high = 1 - EXPONENT_MARGIN, 1 + EXPONENT_MARGIN
    proportional = (True if exponent["low"] >= low and exponent["high"] <= high else False if exponent["high"] < low or exponent["low"] > high else None)
    near = True if within["n"] and within["low"] > MOST else False if within["n"] and within["high"] < 0.5 else None
    told = f"the final error grows as c^{common.number(exponent['value'], '.2f')}, and in {within['k']} of {within['n']} replicates all runs end within {RADIUS:g}·c of W*"
    for name, part in numbers["decaying"].items():
        best = part["best"]
        if best["high"] < 1:
            told += f"; with {WORDS[name]} steps they end {common.number(1 / best['value'], '.2g')} times as near"
        elif best["low"] > 1:
            told += f"; with {WORDS[name]} steps they end farther away"
    return common.of_two_halves(proportional, near, told)


def effects(numbers: dict[str, Any]) -> list[Effect]:
    ret = []
    for what, name in (("exponent of the final error in c", "exponent"), ("in the step size", "exponent_step_size"), ("in d", "exponent_dimension"),
                       ("final error over the c·√(2ηd/3B) expected", "over_prediction")):
        part = numbers[name]
        ret.append(Effect(what, part["value"], part["low"], part["high"]))
    if numbers["settled"]:
        for what, name in (("exponent in c, of runs at their floor", "exponent"), ("in the step size, of runs at their floor", "exponent_step_size")):
            part = numbers["settled"][name]
            ret.append(Effect(what, part["value"], part["low"], part["high"]))
    within = numbers["within"]
    ret.append(Effect(f"replicates of which all runs end within {RADIUS:g}·c", within["share"], within["low"], within["high"]))
    largest = common.number(float(numbers["step_sizes"][-1]), ".2g")
    ret += [Effect(f"final error, {WORDS[name]} over constant (step size {largest})", part["best"]["value"], part["best"]["low"], part["best"]["high"])
            for name, part in numbers["decaying"].items()]
    return ret


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "step size", "c", *(f"final error, {WORDS[name]}" for name in numbers["schedules"]), f"constant: within {RADIUS:g}·c", "constant: diverged"]
    rows = []
    for cell in numbers["cells"]:
        rows.append([str(cell["dimension"]), common.number(cell["step_size"], ".2g"), common.number(cell["noise"], "g"),
                     *(common.number(cell[name], ".2g") for name in numbers["schedules"]),
                     common.count(cell["within"]["k"], cell["within"]["n"]) if cell["noise"] > 0 else "–", str(cell["diverged"])])
    return heading, rows


def _shown(numbers: dict[str, Any]) -> tuple[float, float, float]:
    """d, c and the step size of the middle panel."""
    noise = np.asarray(numbers["noise"], dtype=float)
    positive = noise[noise > 0]
    return float(numbers["dimensions"][-1]), float(positive[common.nearest(np.log(positive), math.log(0.1))]), float(numbers["step_sizes"][-1])


def caption(numbers: dict[str, Any]) -> str:
    d, c, eta = _shown(numbers)
    return CAPTION.format(d=int(d), c=c, step_size=eta, radius=RADIUS)


COLOURS = {"constant": style.OUTCOME_COLOURS["converged"], "inverse_time": style.OUTCOME_COLOURS["unfinished"], "cosine": style.OUTCOME_COLOURS["diverged"]}


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    d, c, eta = _shown(numbers)
    noise, etas = np.asarray(numbers["noise"], dtype=float), np.asarray(numbers["step_sizes"], dtype=float)
    positive = noise[noise > 0]
    cells = {(cell["step_size"], cell["noise"]): cell for cell in numbers["cells"] if cell["dimension"] == d}

    ax = axes[0]
    span = np.geomspace(positive[0] / 1.4, positive[-1] * 1.4, 20)
    bottom = min([cell["constant"] for (_, n), cell in cells.items() if n > 0 and math.isfinite(cell["constant"])], default=1e-4) / 2
    ax.fill_between(span, bottom, RADIUS * span, color="#eef3f9", linewidth=0, zorder=0)
    for colour, step in zip(style.ramp("", ["#8fb6de", "#1d4e94", "#08204a"], max(2, etas.size)).colors, etas):
        values = np.array([cells[float(step), float(n)]["constant"] for n in positive])
        ax.plot(positive, values, linestyle="", marker="o", markersize=2.6, color=colour, label=f"{step:g}")
        ax.plot(span, span * np.exp(np.nanmedian(np.log(values / positive))), color=colour, linewidth=0.7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(span[0], span[-1])
    ax.set_ylim(bottom, RADIUS * span[-1] * 2)
    ax.set_xlabel("bound of the noise $c$")
    ax.set_ylabel("final error (rms distance)")
    ax.legend(title=style.AXIS_LABELS["step_size"], frameon=False, fontsize=6.2, title_fontsize=6.2, loc="upper left", handlelength=0.8)

    ax = axes[1]
    wide = sweep if "schedule" in sweep.dims else sweep.expand_dims(schedule=["constant"])
    one = common.box(wide, "dimension", "replicate", "schedule", "step_size", "noise").sel(dimension=d, step_size=eta)
    x = np.maximum(one.step.values.astype(float), 0.7)
    for name in (name for name in SCHEDULES if name in numbers["schedules"]):
        ax.plot(x, np.nanmedian(one.error.sel(schedule=name, noise=c).values, 0), color=COLOURS[name], linewidth=1, label=WORDS[name])
    if 0 in noise:
        ax.plot(x, np.nanmedian(one.error.sel(schedule="constant", noise=0).values, 0), color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 2)), label="no noise")
    low = min(cells[eta, c][name] for name in numbers["schedules"])
    if math.isfinite(low):
        ax.set_ylim(low / 4, 1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(10, x[-1])
    ax.set_xlabel("SGD step")
    ax.set_ylabel("error (rms distance)")
    ax.legend(frameon=False, fontsize=6.2, loc="lower left", handlelength=1.4)

    ax = axes[2]
    for name in (name for name in SCHEDULES if name in numbers["schedules"]):
        values = np.array([cells[float(step), c][name] for step in etas]) / c
        ax.plot(etas, values, linestyle="" if name == "constant" else "-", marker="o", markersize=2.8, color=COLOURS[name], linewidth=0.8, label=WORDS[name])
        if name == "constant":
            ax.plot(etas, np.sqrt(etas) * np.exp(np.nanmedian(np.log(values / np.sqrt(etas)))), color=COLOURS[name], linewidth=0.7)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(etas, [f"{step:g}" for step in etas])
    ax.minorticks_off()
    ax.set_xlabel("first " + style.AXIS_LABELS["step_size"])
    ax.set_ylabel("final error over $c$")
    ax.legend(frameon=False, fontsize=6.2, loc="best", handlelength=1)
