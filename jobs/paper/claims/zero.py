"""Claim 3: the zero initialization."""
from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, compare, style

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "zero"
TITLE = "The zero initialization"
CLAIM = "SGD from W₀ = 0 does as well as from a random initialization."
SHARE_MARGIN, STEPS_MARGIN = 0.1, 1.25
RULE = (f"Against each random initialization, in pairs that share W* and all inputs. As well: the share that converges is at most {SHARE_MARGIN} smaller (lower end of the "
        f"interval of the difference) and it takes at most {100 * (STEPS_MARGIN - 1):.0f} % more steps (upper end of the interval of the ratio). Confirmed: as well "
        "against all of them. In part: against some. Contradicted: against all of them the whole interval of one of the two is beyond its margin. Otherwise not decided.")
PANELS = 2
CAPTION = ("Left: share of the runs that converge, zero minus random, by d. Right: ratio of the steps that it takes, where both converge. Squares: all d. "
           "Shaded: within the margins that were set beforehand; zero does better above the line on the left, below it on the right.")


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    scales = sweep.init_scale.values
    if scales[0] != 0 or scales.size < 2:
        raise ArgumentError("the sweep has no zero initialization beside a random one")
    against = []
    for scale in scales[1:]:
        rows = [_row(sweep.sel(dimension=[d]), scale) | {"dimension": int(d)} for d in sweep.dimension.values]
        against.append({"init_scale": float(scale), **_row(sweep, scale), "rows": rows})
    return {"against": against, "margins": {"share": SHARE_MARGIN, "steps": STEPS_MARGIN}}


def _row(sweep: xr.Dataset, scale: float) -> dict[str, Any]:
    _, summary = compare.compare(compare.between(sweep, "init_scale", [scale, 0]))
    if not summary["pairs"]:
        nothing = common.estimate(np.nan, np.nan, np.nan)
        return {"pairs": 0, "clusters": 0, "random": np.nan, "zero": np.nan, "difference": nothing, "steps": nothing}
    found, speed = summary["outcomes"]["converged"], summary["speed"]
    ten = [10 ** float(speed[name]) for name in ("median", "low", "high")]
    return {"pairs": summary["pairs"], "clusters": int(found["clusters"]), "random": float(found["first"]), "zero": float(found["second"]),
            "difference": common.estimate(found["difference"], found["low"], found["high"]), "steps": common.estimate(*ten)}


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    well, worse, words = [], [], []
    for one in numbers["against"]:
        difference, steps = one["difference"], one["steps"]
        name = f"scale {common.number(one['init_scale'])}"
        good = difference["low"] > -SHARE_MARGIN and steps["high"] <= STEPS_MARGIN
        bad = difference["high"] < -SHARE_MARGIN or steps["low"] > STEPS_MARGIN
        well.append(good)
        worse.append(bad)
        words.append(f"against {name} zero does {'as well' if good else 'worse' if bad else 'we cannot say how'}")
    told = common.joined(words)
    if all(well):
        return CONFIRMED, told
    if any(well):
        return PART, told
    return (CONTRADICTED if all(worse) else UNDECIDED), told


def effects(numbers: dict[str, Any]) -> list[Effect]:
    ret = []
    for one in numbers["against"]:
        difference, steps = one["difference"], one["steps"]
        scale = common.number(one["init_scale"])
        ret.append(Effect(f"share converged, zero minus random of scale {scale}", difference["value"], difference["low"], difference["high"], "+.2f"))
        ret.append(Effect(f"steps, zero over random of scale {scale}", steps["value"], steps["low"], steps["high"], ".2f"))
    return ret


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["random W₀, scale", "d", "pairs", "converged, random", "converged, zero", "difference", "ratio of steps"]
    rows = []
    for one in numbers["against"]:
        for row in [*one["rows"], {**one, "dimension": "all"}]:
            texts = [f"{common.number(part['value'], form)} [{common.number(part['low'], form)}, {common.number(part['high'], form)}]"
                     for part, form in ((row["difference"], "+.2f"), (row["steps"], ".2f"))]
            rows.append([common.number(one["init_scale"]), str(row["dimension"]), f"{row['pairs']} in {row['clusters']} clusters",
                         common.number(row["random"], ".3f"), common.number(row["zero"], ".3f"), *texts])
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    colours = (style.OUTCOME_COLOURS["converged"], style.OUTCOME_COLOURS["diverged"], style.OUTCOME_COLOURS["unfinished"])
    dims = [row["dimension"] for row in numbers["against"][0]["rows"]]
    for ax, name, label in ((axes[0], "difference", "share converged,\nzero minus random"), (axes[1], "steps", "steps, zero over random")):
        for i, one in enumerate(numbers["against"]):
            offset = (i - (len(numbers["against"]) - 1) / 2) * 0.16
            for j, row in enumerate([*one["rows"], one]):
                part = row[name]
                low, high = (part["value"] - part["low"], part["high"] - part["value"]) if np.isfinite(part["low"]) else (0, 0)
                ax.errorbar([j + offset], [part["value"]], [[max(low, 0)], [max(high, 0)]], fmt="s" if row is one else "o", markersize=3, color=colours[i % 3],
                            linewidth=0.9, label=f"against scale {common.number(one['init_scale'])}" if j == 0 else None)
        ax.set_xticks(range(len(dims) + 1), [*map(str, dims), "all"])
        ax.set_xlim(-0.5, len(dims) + 0.5)
        ax.set_xlabel(style.AXIS_LABELS["dimension"])
        ax.set_ylabel(label)
    axes[0].axhspan(-SHARE_MARGIN, 1, color="#eef3f9", zorder=0)
    axes[0].axhline(0, color=style.MUTED, linewidth=0.6)
    low, high = axes[0].dataLim.y0, axes[0].dataLim.y1
    axes[0].set_ylim(min(-0.16, low - 0.03), max(0.16, high + 0.03))
    axes[1].axhspan(0.01, STEPS_MARGIN, color="#eef3f9", zorder=0)
    axes[1].axhline(1, color=style.MUTED, linewidth=0.6)
    known = [part for one in numbers["against"] for row in [*one["rows"], one] for part in row["steps"].values() if np.isfinite(part)]
    bottom, top = (min(known), max(known)) if known else (0.8, 1.3)
    axes[1].set_ylim(min(0.75, bottom - 0.05), max(1.35, top + 0.05))
    axes[0].legend(frameon=False, fontsize=6.2, loc="upper left")
