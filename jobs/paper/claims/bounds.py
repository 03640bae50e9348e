"""Claim 5: the bounds on both norms."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, maps, style
from sgdmap_analysis.boundary import critical_values, scaling

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "bounds"
TITLE = "The bounds on ‖W*‖ and ‖W₀‖"
CLAIM = "There is a constant γ, the same for every large d, so that SGD converges whenever ‖W*‖₂ ≤ γ and ‖W₀‖₂ ≤ γ."
RULE = ("γ(d) is the largest norm so that all runs of all replicates with both norms up to it converge. Boundaries are the norms at which half of the runs converge: that of ‖W*‖₂ from zero "
        "and that of ‖W₀‖₂ at the smallest ‖W*‖₂. Confirmed: γ(d) > 0 at every d, and neither boundary falls with d (the interval of its exponent is not all below 0). "
        "In part: γ(d) > 0 everywhere, and a boundary falls with d. Contradicted: at some d not even the smallest norms converge in all replicates. Not decided: "
        "fewer than two dimensions have a boundary.")
PANELS = 3
CAPTION = ("Probability of convergence over both norms at the smallest and the largest d; inside the orange line all runs converge, up to its corner γ with both norms. "
           "Right: γ(d) and the two boundaries, with their power laws.")


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    kept = ("dimension", "teacher_norm", "init_scale", "replicate")
    critical = {}
    for name, axis, fixed in (("teacher", "teacher_norm", "init_scale"), ("start", "init_scale", "teacher_norm")):
        part = sweep.isel({fixed: [0]})
        if part.sizes[axis] < 2:
            raise ArgumentError(f"{axis} has one value: a boundary needs at least two")
        critical[name] = critical_values(part, axis)
    one = common.box(sweep, *kept)
    norms, scales, dims = one.teacher_norm.values, one.init_scale.values, one.dimension.values
    if "weight_norm" not in one:
        raise ArgumentError("the file has no field weight_norm")
    start = np.nanmedian(one.weight_norm.isel(step=0).values, axis=(1, 3))  # ‖W_0‖₂ [d, init_scale]
    known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
    converged = common.status_is(one, "converged")
    unfinished = common.status_is(one, "unfinished")
    sure = known.any(-1) & (converged | ~known).all(-1)  # [d, teacher, start]

    # ‖W_0‖₂ is so many times the scale: its boundary in the norm itself.
    factor = np.array([np.nanmedian(start[i][scales > 0] / scales[scales > 0]) for i in range(dims.size)])
    shape = [-1 if name == "dimension" else 1 for name in critical["start"].critical.dims]
    for name in ("critical", "low", "high", "standard_error"):
        critical["start"][name] = critical["start"][name] * factor.reshape(shape)
    laws = {name: scaling(part, "dimension").squeeze(drop=True) if dims.size > 1 else None for name, part in critical.items()}

    rows = []
    for i, d in enumerate(dims):
        row: dict[str, Any] = {"dimension": int(d), "replicates": int(known[i].any((0, 1)).sum())}
        gamma, beyond = 0.0, math.nan
        for value in np.unique(np.concatenate([norms, start[i]])):
            inside = (norms[:, None] <= value * (1 + 1e-9)) & (start[i][None, :] <= value * (1 + 1e-9))
            if not inside.any():
                continue
            if not sure[i][inside].all():
                beyond = float(value)
                break
            gamma = float(value)
        row |= {"gamma": gamma, "gamma_fails_at": beyond, "probability_at_least": common.certain(row["replicates"]) if gamma else 0.0}
        row["teacher_certain"] = _first_failing(norms, sure[i, :, 0])
        row["start_certain"] = _first_failing(start[i], sure[i, 0, :])
        for name, part in critical.items():
            cell = part.isel(dimension=i).squeeze(drop=True)
            row[name] = {"value": float(cell.critical), "low": float(cell.low), "high": float(cell.high), "kind": str(cell.kind.values)}
        row["unfinished"] = int(unfinished[i].sum())
        row["runs"] = int(known[i].sum())
        row["probability"] = (converged[i] & known[i]).sum(-1) / np.maximum(known[i].sum(-1), 1)
        row["start_norms"], row["sure"] = start[i], sure[i]
        rows.append(row)
    exponents = {}
    for name, law in laws.items():
        if law is None:
            exponents[name] = common.estimate(math.nan, math.nan, math.nan) | {"misfit": False}
        else:
            exponents[name] = common.estimate(float(law.exponent), float(law.low), float(law.high)) | {"misfit": bool(law.misfit), "prefactor": float(law.prefactor)}
    return {"rows": rows, "exponents": exponents, "teacher_norms": norms, "init_scales": scales}


def _first_failing(values: np.ndarray, sure: np.ndarray) -> float:
    """The largest value up to which all are sure; 0 if not even the first."""
    fails = np.flatnonzero(~sure)
    end = fails[0] if fails.size else sure.size
    return float(values[end - 1]) if end else 0.0


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    rows, exponents = numbers["rows"], numbers["exponents"]
    if any(row["runs"] == 0 for row in rows):
        return UNDECIDED, "some dimension has no runs with an outcome"
    none = [row["dimension"] for row in rows if row["gamma"] == 0]
    if none:
        return CONTRADICTED, f"at d = {common.joined(list(map(str, none)))} not even the smallest norms converge in all replicates"
    if any(not math.isfinite(part["low"]) for part in exponents.values()):
        return UNDECIDED, "too few dimensions have a boundary within the grid for a trend"
    words = {"teacher": "‖W*‖₂", "start": "‖W₀‖₂"}
    falling = [f"the boundary of {words[name]} falls as d^{common.number(part['value'], '.2f')}" for name, part in exponents.items() if part["high"] < 0]
    smallest = min(row["gamma"] for row in rows)
    if falling:
        return PART, f"all runs with both norms up to {common.number(smallest, '.2g')} converge at every d, but {common.joined(falling)}: no constant in sight"
    return CONFIRMED, f"all runs with both norms up to {common.number(smallest, '.2g')} converge at every d, and no boundary falls with d"


def effects(numbers: dict[str, Any]) -> list[Effect]:
    rows, exponents = numbers["rows"], numbers["exponents"]
    last = rows[-1]
    return [
        Effect("smallest γ(d): all runs up to it converge", min(row["gamma"] for row in rows), form=".2g"),
        Effect(f"‖W*‖₂ at which half converge, d = {last['dimension']}", last["teacher"]["value"], last["teacher"]["low"], last["teacher"]["high"]),
        Effect("its exponent in d", exponents["teacher"]["value"], exponents["teacher"]["low"], exponents["teacher"]["high"], "+.2f"),
        Effect(f"‖W₀‖₂ at which half converge, d = {last['dimension']}", last["start"]["value"], last["start"]["low"], last["start"]["high"]),
        Effect("its exponent in d", exponents["start"]["value"], exponents["start"]["low"], exponents["start"]["high"], "+.2f"),
    ]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "γ: all converge", "fails by", "probability below γ (95 %)", "‖W*‖₂, all converge", "‖W*‖₂, half", "‖W₀‖₂, all converge", "‖W₀‖₂, half", "still falling"]
    rows = []
    for row in numbers["rows"]:
        texts = [f"{common.number(part['value'], '.2f')} [{common.number(part['low'], '.2f')}, {common.number(part['high'], '.2f')}]" if part["kind"] == "estimated"
                 else part["kind"] for part in (row["teacher"], row["start"])]
        rows.append([str(row["dimension"]), common.number(row["gamma"], ".2f"), common.number(row["gamma_fails_at"], ".2f"),
                     f"> {row['probability_at_least']:.2f} ({row['replicates']} replicates)", common.number(row["teacher_certain"], ".2f"), texts[0],
                     common.number(row["start_certain"], ".2f"), texts[1], f"{row['unfinished']} of {row['runs']}"])
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    norms = np.asarray(numbers["teacher_norms"], dtype=float)
    orange = style.OUTCOME_COLOURS["diverged"]
    for ax, row in zip(axes, (numbers["rows"][0], numbers["rows"][-1])):
        ys = np.asarray(row["start_norms"], dtype=float)
        x_edges, y_edges = maps.cell_edges(norms, "log" if norms.size > 2 else "linear"), maps.cell_edges(ys, "linear")
        image = np.asarray(row["probability"]).T
        ax.pcolormesh(x_edges, y_edges, image, cmap=style.PROBABILITY, vmin=0, vmax=1, rasterized=True)
        sure = np.asarray(row["sure"]).T
        for (y, x), inside in np.ndenumerate(sure):
            for dx, dy, line in ((1, 0, ([x_edges[x + 1]] * 2, y_edges[[y, y + 1]])), (0, 1, (x_edges[[x, x + 1]], [y_edges[y + 1]] * 2))):
                other = (y + dy, x + dx)
                if other[0] < sure.shape[0] and other[1] < sure.shape[1] and inside != sure[other]:
                    ax.plot(*line, color=orange, linewidth=1.1, solid_capstyle="projecting")
        if row["gamma"]:
            ax.plot([row["gamma"]], [row["gamma"]], marker="D", markersize=3.4, color=orange, markeredgecolor="white", markeredgewidth=0.5, linestyle="")
        ax.set_xscale("log")
        ax.set_xlim(x_edges[0], x_edges[-1])
        ax.set_ylim(max(0, y_edges[0]), y_edges[-1])
        ticks = [value for value in (0.3, 0.6, 1, 2, 4) if x_edges[0] <= value <= x_edges[-1]]
        ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
        ax.minorticks_off()
        ax.set_xlabel(style.AXIS_LABELS["teacher_norm"])
        ax.set_ylabel("‖$W_0$‖$_2$")
        ax.set_title(f"$d$ = {row['dimension']}", fontsize=6.6, pad=3)

    ax = axes[2]
    dims = np.array([row["dimension"] for row in numbers["rows"]], dtype=float)
    for name, colour, marker, label in (("teacher", style.OUTCOME_COLOURS["converged"], "o", "‖$W^{*}$‖$_2$, half"),
                                        ("start", style.OUTCOME_COLOURS["unfinished"], "s", "‖$W_0$‖$_2$, half")):
        exponent = numbers["exponents"][name]
        if np.isfinite(exponent["value"]):
            ax.plot(dims, exponent["prefactor"] * dims ** exponent["value"], color=colour, linewidth=0.8)
            label += f": $d^{{{exponent['value']:.2f}}}$ [{exponent['low']:.2f}, {exponent['high']:.2f}]".replace("-", "−")
        for i, row in enumerate(numbers["rows"]):
            part = row[name]
            if part["kind"] == "estimated":
                ax.errorbar([dims[i]], [part["value"]], [[part["value"] - part["low"]], [part["high"] - part["value"]]], fmt=marker, markersize=3, color=colour,
                            linewidth=0.9)
        ax.plot([], [], marker=marker, markersize=3, color=colour, linewidth=0.8, label=label)
    gammas = [row["gamma"] or np.nan for row in numbers["rows"]]
    ax.plot(dims, gammas, linestyle="", marker="D", markersize=3.4, color=orange, label="$\\gamma$: all converge")
    low, high = common.over_dimensions(ax, dims, "norm", 2.2, 1.1)
    ticks = [value for value in (0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10) if low / 1.1 <= value <= high * 2.2]
    ax.set_yticks(ticks, [f"{value:g}" for value in ticks])
    ax.legend(frameon=False, fontsize=6.2, loc="upper left", handlelength=1)
