"""Claim 6: inputs beyond the Gaussian."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, style
from sgdmap_analysis.boundary import critical_values, student_t_quantile

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "inputs"
TITLE = "Inputs beyond the Gaussian"
CLAIM = ("What holds for the Gaussian holds for other inputs that are rotation-invariant or near the Gaussian: sphere and Student's t behave alike. (Laplace, uniform and "
         "Rademacher are reported as measured.)")
RATIO_MARGIN, SHARE_MARGIN = 1.25, 0.1
RULE = (f"Alike: the critical step size over the Gaussian's, over all d, is within [{1 / RATIO_MARGIN:g}, {RATIO_MARGIN:g}] with its whole interval, and at step sizes up to half of the "
        f"Gaussian's critical one the share that converges is at most {SHARE_MARGIN} smaller (lower end of the interval). Unlike: the whole interval of the ratio is outside, or the "
        "whole interval of the difference below. Confirmed: both the sphere and Student's t are alike. Contradicted: both are unlike. In part: one of them is alike, "
        "or one unlike. Otherwise not decided.")
CLAIMED = ("sphere", "student_t")
PANELS = 2
CAPTION = ("Left: critical step size over the Gaussian's at the same d; squares: all d; shaded: alike, by the margin set beforehand. Right: share of the runs that converge "
           "against the step size at d = {d}.")


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in sweep.input.values]
    if "gaussian" not in names:
        raise ArgumentError("the sweep has no Gaussian input to compare with")
    critical = critical_values(sweep, "step_size")
    dims_of = {axis: 0 for axis in critical.critical.dims if axis not in ("dimension", "input")}
    critical = critical.isel(dims_of).transpose("dimension", "input")
    one = common.box(sweep, "dimension", "input", "step_size", "replicate")
    known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
    converged = common.status_is(one, "converged")
    dims, etas, replicates = one.dimension.values, one.step_size.values, one.sizes["replicate"]
    g = names.index("gaussian")
    place = np.where(critical.kind.values == "estimated", critical.critical.values, np.nan)
    error = critical.standard_error.values
    with np.errstate(invalid="ignore"):
        safe = etas[None, :] <= np.where(np.isfinite(place[:, g]), place[:, g], -1)[:, None] / 2  # [d, η]
    stratum = np.repeat(np.arange(dims.size), replicates)
    rows = []
    for i, name in enumerate(names):
        logs, errors = np.log(place[:, i] / place[:, g]), np.hypot(error[:, i], error[:, g] if i != g else 0)
        some = np.isfinite(logs)
        freedom = max(1, replicates - 1)
        t = float(student_t_quantile((1 + common.CONFIDENCE) / 2, freedom))
        by_d = [{"dimension": int(d), "critical": common.estimate(place[j, i], critical.low.values[j, i], critical.high.values[j, i]),
                 "kind": str(critical.kind.values[j, i]),
                 "ratio": common.estimate(*(math.exp(value) for value in (logs[j], logs[j] - t * errors[j], logs[j] + t * errors[j])))}
                for j, d in enumerate(dims)]
        mean = float(logs[some].mean()) if some.any() else math.nan
        half = t * float(np.sqrt((errors[some] ** 2).sum())) / max(1, some.sum()) if replicates > 1 else math.nan
        pair = [np.moveaxis(array, 2, 1).reshape(dims.size * replicates, -1) for array in
                (converged[:, g], converged[:, i], known[:, g] & known[:, i] & safe[:, :, None])]
        rows.append({"input": name, "ratio": common.estimate(*(math.exp(value) for value in (mean, mean - half, mean + half))), "by_dimension": by_d,
                     "share": common.paired_share_difference(*pair, stratum)})
    last = {"dimension": int(dims[-1]), "step_sizes": etas,
            "share": {name: (converged[-1, i] & known[-1, i]).sum(-1) / np.maximum(1, known[-1, i].sum(-1)) for i, name in enumerate(names)}}
    return {"rows": rows, "last": last, "safe_step_sizes": safe.sum(-1)}


def alike(row: dict[str, Any]) -> bool | None:
    """Whether an input behaves as the Gaussian; None where it cannot be told."""
    ratio, share = row["ratio"], row["share"]
    if ratio["high"] < 1 / RATIO_MARGIN or ratio["low"] > RATIO_MARGIN or share["high"] < -SHARE_MARGIN:
        return False
    if ratio["low"] >= 1 / RATIO_MARGIN and ratio["high"] <= RATIO_MARGIN and share["low"] > -SHARE_MARGIN:
        return True
    return None


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    found = {row["input"]: alike(row) for row in numbers["rows"] if row["input"] in CLAIMED}
    words = {"sphere": "the sphere", "student_t": "Student's t"}
    told = common.joined([f"{words[name]} {'behaves like the Gaussian' if value else 'does not' if value is False else 'cannot be told'}" for name, value in found.items()])
    if len(found) < len(CLAIMED):
        return UNDECIDED, "the sweep lacks the sphere or Student's t"
    values = list(found.values())
    if all(value is True for value in values):
        return CONFIRMED, told
    if all(value is False for value in values):
        return CONTRADICTED, told
    if True in values or False in values:
        return PART, told
    return UNDECIDED, told


def effects(numbers: dict[str, Any]) -> list[Effect]:
    return [Effect(f"critical step size, {style.value_text(row['input']).replace('$t_5$', 't')} over Gaussian", row["ratio"]["value"], row["ratio"]["low"], row["ratio"]["high"])
            for row in numbers["rows"] if row["input"] != "gaussian"]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    dims = [row["dimension"] for row in numbers["rows"][0]["by_dimension"]]
    heading = ["input", *(f"critical step size, d = {d}" for d in dims), "ratio to the Gaussian's", "converged at safe step sizes, minus the Gaussian's", "alike"]
    rows = []
    for row in numbers["rows"]:
        texts = []
        for part in row["by_dimension"]:
            value = part["critical"]
            texts.append(f"{common.number(value['value'], '.2g')} [{common.number(value['low'], '.2g')}, {common.number(value['high'], '.2g')}]"
                         if part["kind"] == "estimated" else part["kind"])
        ratio, share = row["ratio"], row["share"]
        same = "–" if row["input"] == "gaussian" else {True: "yes", False: "no", None: "not decided"}[alike(row)]
        rows.append([style.value_text(row["input"]).replace("$t_5$", "t"), *texts,
                     f"{common.number(ratio['value'], '.2f')} [{common.number(ratio['low'], '.2f')}, {common.number(ratio['high'], '.2f')}]",
                     f"{common.number(share['difference'], '+.2f')} [{common.number(share['low'], '+.2f')}, {common.number(share['high'], '+.2f')}]", same])
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION.format(d=numbers["last"]["dimension"])


# Claimed to be alike in blues, the others in warm colours.
COLOURS = {"gaussian": style.INK, "sphere": "#1d4e94", "student_t": "#5d97cf", "laplace": "#b8431a", "uniform": "#dd9a2f", "rademacher": "#7a5c99"}


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    rows = [row for row in numbers["rows"] if row["input"] != "gaussian"]
    ax = axes[0]
    ax.axhspan(1 / RATIO_MARGIN, RATIO_MARGIN, color="#eef3f9", zorder=0)
    ax.axhline(1, color=style.MUTED, linewidth=0.6)
    for i, row in enumerate(rows):
        colour = COLOURS[row["input"]]
        parts = [*(part["ratio"] for part in row["by_dimension"]), row["ratio"]]
        for j, part in enumerate(parts):
            x = i + (j - (len(parts) - 1) / 2) * 0.16
            if math.isfinite(part["value"]) and part["value"] > 0:
                low, high = (part["value"] - part["low"], part["high"] - part["value"]) if math.isfinite(part["low"]) else (0, 0)
                ax.errorbar([x], [part["value"]], [[low], [high]], fmt="s" if j == len(parts) - 1 else "o", markersize=3.4 if j == len(parts) - 1 else 2.4, color=colour,
                            linewidth=0.9, alpha=1 if j == len(parts) - 1 else 0.6)
    ax.set_xticks(range(len(rows)), [style.value_text(row["input"]) for row in rows], rotation=20, ha="right")
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    low, high = min(low, 0.6), max(high, 1.6)
    ax.set_ylim(low, high)
    ticks = [value for value in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if low <= value <= high]
    ax.set_yticks(ticks, [f"{value:g}" for value in ticks])
    ax.minorticks_off()
    ax.set_ylabel("critical step size\nover the Gaussian's")
    ax = axes[1]
    last = numbers["last"]
    for name, values in last["share"].items():
        ax.plot(last["step_sizes"], values, color=COLOURS[name], linewidth=1.3 if name == "gaussian" else 0.9, marker="o", markersize=1.8, label=style.value_text(name))
    ax.set_xscale("log")
    ax.set_xlabel(style.AXIS_LABELS["step_size"])
    ax.set_ylabel("share converged")
    ax.set_ylim(-0.03, 1.03)
    ax.legend(frameon=False, fontsize=6.2, loc="upper right", handlelength=1.2)
    ax.set_title(f"$d$ = {last['dimension']}", fontsize=6.6, pad=3)
