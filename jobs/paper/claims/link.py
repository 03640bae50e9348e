"""Claim 1: the identity link."""
from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import compare, style
from sgdmap_analysis.statistics import median_interval

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "link"
TITLE = "The identity link"
CLAIM = ("From a small initialization SGD reaches W* with the identity link. Without it, it does not, although the loss falls. "
         "(The paper's experiment: B = 200, step size 0.001, norms ‖W‖₂ = 0.6 and ‖W‖_F = 5, that is d near 280.)")
RULE = ("At the dimension nearest to 280 and the initialization scale nearest to 0.3. Confirmed: more than half of the runs with the link converge and "
        "less than half of those without it (both by Wilson's interval), the difference in pairs is above 0, the median vanilla loss falls to a tenth "
        "or less, and less than half of the vanilla runs end at W* with the neurons in another order (a loss of at most d·tolerance², and an "
        "error above the tolerance). In part: the difference is above 0, and something of the rest is not so. Contradicted: the difference is not "
        "positive anywhere in its interval, or less than half converge with the link. Otherwise not decided.")
PANELS = 3
CAPTION = ("Distance from W* and loss along the training at d = {d}, a line a run: with the identity link both fall to 0; without it the loss falls and the "
           "distance stays. Right: how the runs end, by d; in another order means at W* with the neurons permuted.")

FALL = 10.0


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    settings, summary = compare.compare(compare.between(sweep, "link", ["none", "identity"]))
    sweep = common.box(sweep, "dimension", "init_scale", "link", "replicate")
    tolerance = common.tolerance(sweep)
    links = list(sweep.link.values)
    first_loss = sweep.loss.isel(step=0).values
    rows = []
    for i, d in enumerate(sweep.dimension.values):
        for j, scale in enumerate(sweep.init_scale.values):
            cell = settings.sel(dimension=d, init_scale=scale).squeeze(drop=True)
            row: dict[str, Any] = {
                "dimension": int(d), "init_scale": float(scale), "p": float(cell.p), "p_mid": float(cell.p_mid),
                "difference": {"value": float(cell.difference), "low": float(cell.low), "high": float(cell.high)},
            }
            for link in ("identity", "none"):
                one = sweep.isel(dimension=i, init_scale=j, link=links.index(link))
                known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
                converged = common.status_is(one, "converged")
                loss = one.final_loss.values
                with np.errstate(invalid="ignore", divide="ignore"):
                    permuted = known & ~converged & (loss <= d * tolerance**2)
                    fall = np.where(known & np.isfinite(loss), first_loss[i, j, links.index(link)] / loss, np.nan)
                middle, low, high, _ = median_interval(fall)
                row[link] = {
                    "converged": common.share(converged.sum(), known.sum()), "permuted": common.share(permuted.sum(), known.sum()),
                    "diverged": int(common.status_is(one, "diverged").sum()),
                    "unfinished": int(common.status_is(one, "unfinished").sum()),
                    "loss_fall": common.estimate(middle, low, high),
                    "final_error": float(np.nanmedian(one.final_error.values)) if known.any() else np.nan,
                }
            rows.append(row)
    d = int(sweep.dimension.values[common.nearest(sweep.dimension.values, 280)])
    scale = float(sweep.init_scale.values[common.nearest(sweep.init_scale.values, 0.3)])
    main = next(row for row in rows if row["dimension"] == d and row["init_scale"] == scale)
    overall = summary["outcomes"]["converged"]
    return {
        "main": main, "rows": rows, "tolerance": tolerance,
        "overall": {name: float(overall[name]) for name in ("difference", "low", "high", "p")} | {"clusters": int(overall["clusters"])},
    }


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    main = numbers["main"]
    identity, none, difference = main["identity"], main["none"], main["difference"]
    at = f"at d = {main['dimension']}"
    if identity["converged"]["n"] == 0 or none["converged"]["n"] == 0:
        return UNDECIDED, f"no pair of runs has ended {at}"
    if difference["high"] <= 0:
        return CONTRADICTED, f"{at} no more runs converge with the link than without it"
    if identity["converged"]["high"] < 0.5:
        return CONTRADICTED, f"{at} less than half of the runs converge with the link"
    if not difference["low"] > 0:
        return UNDECIDED, f"{at} the interval of the difference holds 0"
    lacking = []
    if not identity["converged"]["low"] > 0.5:
        lacking.append("it is not beyond doubt that most runs converge with the link")
    if not none["converged"]["high"] < 0.5:
        lacking.append("it is not beyond doubt that most vanilla runs do not converge")
    if not none["loss_fall"]["value"] >= FALL:
        lacking.append(f"the vanilla loss falls by a factor of {common.number(none['loss_fall']['value'])} only")
    if none["permuted"]["share"] >= 0.5:
        lacking.append("most vanilla runs end at W* with the neurons in another order")
    if lacking:
        return PART, f"{at} more runs converge with the link, but {common.joined(lacking)}"
    return CONFIRMED, (f"{at} {identity['converged']['k']} of {identity['converged']['n']} runs reach W* with the link and "
                       f"{none['converged']['k']} of {none['converged']['n']} without it; {none['permuted']['k']} of the latter end at W* in another order")


def effects(numbers: dict[str, Any]) -> list[Effect]:
    main = numbers["main"]
    difference, none = main["difference"], main["none"]
    return [
        Effect(f"share converged, identity minus none (d = {main['dimension']}, pairs)", difference["value"], difference["low"],
               difference["high"], "+.2f"),
        Effect("factor by which the vanilla loss fell (median)", none["loss_fall"]["value"], none["loss_fall"]["low"], none["loss_fall"]["high"],
               ".3g"),
        Effect("vanilla runs that end at W* in another order", none["permuted"]["share"], none["permuted"]["low"], none["permuted"]["high"]),
    ]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "scale of W₀", "converged, identity", "converged, none", "none: in another order", "none: loss fell by", "none: distance at the end",
               "McNemar p"]
    rows = []
    for row in numbers["rows"]:
        identity, none = row["identity"], row["none"]
        rows.append([str(row["dimension"]), common.number(row["init_scale"]), common.count(identity["converged"]["k"], identity["converged"]["n"]),
                     common.count(none["converged"]["k"], none["converged"]["n"]), common.count(none["permuted"]["k"], none["permuted"]["n"]),
                     common.number(none["loss_fall"]["value"]), common.number(none["final_error"]), common.number(row["p"], ".2g")])
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION.format(d=numbers["main"]["dimension"])


COLOURS = {"identity": style.OUTCOME_COLOURS["converged"], "none": style.OUTCOME_COLOURS["diverged"]}
LABELS = {"identity": "identity link", "none": "no link (vanilla)"}


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    main = numbers["main"]
    one = common.box(sweep, "dimension", "init_scale", "link", "replicate").sel(dimension=main["dimension"], init_scale=main["init_scale"])
    for ax, field, label in ((axes[0], "error", "error (rms distance)"), (axes[1], "loss", "loss")):
        for link in ("none", "identity"):
            values = one[field].sel(link=link).values
            for i, row in enumerate(values):
                ax.plot(np.maximum(one.step.values, 0.7), row, color=COLOURS[link], linewidth=0.8, alpha=0.8, label=LABELS[link] if i == 0 else None)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("SGD step")
        ax.set_ylabel(label)
        ax.set_xlim(0.7, float(one.step.values[-1]))
    axes[0].axhline(numbers["tolerance"], color=style.MUTED, linewidth=0.6, linestyle=(0, (3, 2)))
    axes[0].text(0.9, numbers["tolerance"] * 1.1, "tolerance", fontsize=5.6, color=style.MUTED, va="bottom")
    axes[0].legend(frameon=False, fontsize=6.2, loc="lower left", bbox_to_anchor=(0, 0.1))
    rows = [row for row in numbers["rows"] if row["init_scale"] == main["init_scale"]]
    ax = axes[2]
    parts = (("converged", style.OUTCOME_COLOURS["converged"], "at $W^{*}$"), ("permuted", style.OUTCOME_COLOURS["unfinished"], "in another order"),
             ("else", style.OUTCOME_COLOURS["stalled"], "elsewhere"))
    for i, row in enumerate(rows):
        for j, link in enumerate(("identity", "none")):
            bottom = 0.0
            shares = [row[link]["converged"]["share"], row[link]["permuted"]["share"]]
            for (_, colour, label), part in zip(parts, [*shares, 1 - sum(shares)]):
                ax.bar(i + (j - 0.5) * 0.4, part, 0.36, bottom, color=colour, label=label if i == j == 0 else None)
                bottom += part
            ax.text(i + (j - 0.5) * 0.4, 1.02, ("identity", "none")[j], rotation=90, fontsize=5.4, ha="center", va="bottom", color=style.MUTED)
    ax.set_xticks(range(len(rows)), [str(row["dimension"]) for row in rows])
    ax.set_xlabel(style.AXIS_LABELS["dimension"])
    ax.set_ylabel("share of runs")
    ax.set_ylim(0, 1.28)
    ax.set_yticks([0, 0.5, 1])
    ax.legend(frameon=False, fontsize=6.2, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, handlelength=1, columnspacing=0.8)


