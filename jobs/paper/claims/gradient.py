"""Claim 7: the exact gradient beside SGD."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from sgdmap_analysis import ArgumentError, maps, style
from sgdmap_analysis.boundary import critical_values, scaling
from sgdmap_analysis.compare import student_quantile

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "gradient"
TITLE = "The exact gradient"
CLAIM = ("The noise of SGD, not the landscape, sets the largest stable step size; the bound on the norms is the landscape's. (This goes beyond the paper: the exact gradient is "
         "SGD without its noise.)")
RATIO, SHARE_MARGIN = 2.0, 0.1
RULE = (f"Two halves. The step size is the noise's if the critical step size of the exact gradient over SGD's is above {RATIO:g} at the largest d and grows with d (both with the whole "
        f"interval; at a ratio of {RATIO:g} noise and landscape take the same share), and the landscape's if the ratio is below {RATIO:g}, or does not grow, with the whole interval. The norms are the landscape's if at the "
        f"smallest step size, over all norms, the shares that converge with and without noise differ by less than {SHARE_MARGIN} (the whole interval), and the noise's if "
        "the whole interval is beyond. Confirmed: both as claimed. In part: one as claimed. Contradicted: both otherwise. Otherwise not decided.")
PANELS = 3
CAPTION = ("Left: the step size at which half of the runs converge, with the smallest norms, against d, for SGD (B = {batch}) and the exact gradient, with their power laws. "
           "Middle: where at least half of the runs converge from the smallest W₀ at d = {d}. Right: share of the runs that converge at the smallest step size ({smallest} of SGD's critical one at d = {d}), over all "
           "norms, exact gradient minus SGD; square: all d; shaded: alike, by the margin set beforehand.")

KINDS = ("minibatch", "population")
WORDS = {"minibatch": "SGD", "population": "exact gradient"}


def _ratio(log: float, error: float, replicates: int) -> dict[str, float]:
    half = student_quantile((1 + common.CONFIDENCE) / 2, replicates - 1) * error if replicates > 1 else math.nan
    return common.estimate(*(math.exp(value) for value in (log, log - half, log + half)))


def _boundaries(critical: xr.Dataset) -> list[dict[str, Any]]:
    """[d]: of each kind of gradient, and the ratio of the two."""
    one = critical.isel({axis: 0 for axis in critical.critical.dims if axis not in ("dimension", "gradient")}).transpose("dimension", "gradient")
    names = list(one.gradient.values)
    linear = critical.attrs["space"] == "linear"
    rows = []
    for i, d in enumerate(one.dimension.values):
        row: dict[str, Any] = {"dimension": int(d)}
        logs, errors, replicates = [], [], []
        for kind in KINDS:
            cell = one.isel(dimension=i, gradient=names.index(kind))
            value = float(cell.critical)
            known = str(cell.kind.values) == "estimated" and value > 0
            row[kind] = common.estimate(value, cell.low, cell.high) | {"kind": str(cell.kind.values)}
            logs.append(math.log(value) if known else math.nan)
            errors.append(float(cell.standard_error) / (value if linear and known else 1))
            replicates.append(int(cell.replicates))
        row["log_ratio"], row["log_error"], row["replicates"] = logs[1] - logs[0], math.hypot(*errors), min(replicates)
        row["ratio"] = _ratio(row["log_ratio"], row["log_error"], row["replicates"])
        rows.append(row)
    return rows


def _growth(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The exponent in d of the ratio: the slope of its logarithm, from the errors of the points."""
    some = [row for row in rows if math.isfinite(row["log_ratio"])]
    if len(some) < 2:
        return common.estimate(math.nan, math.nan, math.nan)
    x = np.log([row["dimension"] for row in some])
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    value = float(weight @ [row["log_ratio"] for row in some])
    error = float(np.sqrt(((weight * [row["log_error"] for row in some]) ** 2).sum()))
    replicates = min(row["replicates"] for row in some)
    half = student_quantile((1 + common.CONFIDENCE) / 2, replicates - 1) * error if replicates > 1 else math.nan
    return common.estimate(value, value - half, value + half)


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in sweep.gradient.values] if "gradient" in sweep.dims else []
    if sorted(names) != sorted(KINDS):
        raise ArgumentError("the sweep has not both minibatch and population as gradient")
    for axis in ("step_size", "teacher_norm", "init_scale"):
        if sweep.sizes[axis] < 2:
            raise ArgumentError(f"{axis} has one value: a boundary needs at least two")
    first = {"step_size": [0], "teacher_norm": [0], "init_scale": [0]}
    boundaries, laws = {}, {}
    for axis in first:
        critical = critical_values(sweep.isel({name: index for name, index in first.items() if name != axis}), axis)
        boundaries[axis] = _boundaries(critical)
        if axis == "step_size":
            law = scaling(critical, "dimension").squeeze(drop=False)
            for kind in KINDS:
                part = law.isel(gradient=names.index(kind))
                laws[kind] = common.estimate(part.exponent, part.low, part.high) | {"prefactor": float(part.prefactor), "misfit": bool(part.misfit)}

    one = common.box(sweep, "gradient", "dimension", "replicate", "step_size", "teacher_norm", "init_scale")
    known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
    converged = common.status_is(one, "converged") & known
    m, p = (names.index(kind) for kind in KINDS)
    # At the smallest step size: clusters [d × replicate], norms.
    small = [array[:, :, :, 0].reshape(2, one.sizes["dimension"] * one.sizes["replicate"], -1) for array in (converged, known)]
    stratum = np.repeat(np.arange(one.sizes["dimension"]), one.sizes["replicate"])
    norms = common.paired_share_difference(small[0][m], small[0][p], small[1][m] & small[1][p], stratum)
    by_d = []
    for i, d in enumerate(one.dimension.values):
        here = stratum == i
        by_d.append({"dimension": int(d), "shares": [float(small[0][k][here].sum() / max(1, small[1][k][here].sum())) for k in (m, p)],
                     **common.paired_share_difference(small[0][m][here], small[0][p][here], (small[1][m] & small[1][p])[here], np.zeros(here.sum(), dtype=int))})
    with np.errstate(invalid="ignore"):
        probability = converged[[m, p], -1].sum(1) / known[[m, p], -1].sum(1)  # [kind, η, teacher, start], of the largest d
    return {
        "boundaries": boundaries, "laws": laws, "growth": _growth(boundaries["step_size"]), "norms": norms, "norms_by_dimension": by_d,
        "step_sizes": one.step_size.values, "teacher_norms": one.teacher_norm.values, "init_scales": one.init_scale.values,
        "batch_size": int(sweep.batch_size.values[0]), "probability": probability,
        "unfinished": [int(common.status_is(one.isel(gradient=k, step_size=[0]), "unfinished").sum()) for k in (m, p)],
    }


def halves(numbers: dict[str, Any]) -> tuple[bool | None, bool | None]:
    """Whether the step size is the noise's, and whether the norms are the landscape's; None where it cannot be told."""
    ratio, growth, norms = numbers["boundaries"]["step_size"][-1]["ratio"], numbers["growth"], numbers["norms"]
    step = (True if ratio["low"] > RATIO and growth["low"] > 0 else False if ratio["high"] < RATIO or growth["high"] <= 0 else None)
    inside = norms["low"] > -SHARE_MARGIN and norms["high"] < SHARE_MARGIN
    beyond = norms["low"] > SHARE_MARGIN or norms["high"] < -SHARE_MARGIN
    return step, True if inside else False if beyond else None


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    last = numbers["boundaries"]["step_size"][-1]
    step, norms = halves(numbers)
    times = f"at d = {last['dimension']} the exact gradient is stable up to {common.number(last['ratio']['value'], '.1f')} times SGD's step size"
    words = [{True: f"{times}, and the ratio grows with d", False: f"{times}: the noise does not decide", None: "what sets the step size cannot be told"}[step],
             {True: "with and without noise as many runs converge over the norms", False: "the noise changes how many runs converge over the norms",
              None: "what bounds the norms cannot be told"}[norms]]
    told = "; ".join(words)
    return common.of_two_halves(step, norms, told)


def effects(numbers: dict[str, Any]) -> list[Effect]:
    last, laws, growth, norms = numbers["boundaries"]["step_size"][-1], numbers["laws"], numbers["growth"], numbers["norms"]
    ratio = last["ratio"]
    ret = [Effect(f"critical step size, exact gradient over SGD (d = {last['dimension']})", ratio["value"], ratio["low"], ratio["high"]),
           Effect("exponent of that ratio in d", growth["value"], growth["low"], growth["high"], "+.2f")]
    ret += [Effect(f"exponent of the critical step size in d, {WORDS[kind]}", laws[kind]["value"], laws[kind]["low"], laws[kind]["high"], "+.2f") for kind in KINDS]
    ret.append(Effect("share converged over all norms, exact gradient minus SGD", norms["difference"], norms["low"], norms["high"], "+.2f"))
    norms = numbers["norms_by_dimension"][-1]
    ret.append(Effect(f"the same at d = {norms['dimension']}, at {common.number(_smallest(numbers), '.2g')} of SGD's critical step size", norms["difference"], norms["low"], norms["high"], "+.2f"))
    for axis, words in (("teacher_norm", "‖W*‖₂ at which half converge"), ("init_scale", "scale of W₀ at which half converge")):
        row = numbers["boundaries"][axis][-1]
        if math.isfinite(row["ratio"]["value"]):
            ret.append(Effect(f"{words}, exact gradient over SGD (d = {row['dimension']})", row["ratio"]["value"], row["ratio"]["low"], row["ratio"]["high"]))
    return ret


def _smallest(numbers: dict[str, Any]) -> float:
    """The smallest step size over SGD's critical one at the largest d."""
    return float(numbers["step_sizes"][0]) / numbers["boundaries"]["step_size"][-1]["minibatch"]["value"]


def _text(part: dict[str, Any], form: str) -> str:
    return f"{common.number(part['value'], form)} [{common.number(part['low'], form)}, {common.number(part['high'], form)}]" if part.get("kind", "estimated") == "estimated" else part["kind"]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d"]
    for words in ("critical step size", "‖W*‖₂, half", "scale of W₀, half"):
        heading += [f"{words}, SGD", f"{words}, exact", "ratio"]
    heading += ["converged over the norms, SGD", "exact", "difference"]
    rows = []
    for i, by_d in enumerate(numbers["norms_by_dimension"]):
        row = [str(by_d["dimension"])]
        for axis in ("step_size", "teacher_norm", "init_scale"):
            part = numbers["boundaries"][axis][i]
            row += [_text(part["minibatch"], ".2g"), _text(part["population"], ".2g"), _text(part["ratio"], ".2f")]
        row += [*(common.number(share, ".2f") for share in by_d["shares"]),
                f"{common.number(by_d['difference'], '+.2f')} [{common.number(by_d['low'], '+.2f')}, {common.number(by_d['high'], '+.2f')}]"]
        rows.append(row)
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION.format(batch=numbers["batch_size"], d=numbers["norms_by_dimension"][-1]["dimension"], smallest=common.number(_smallest(numbers), ".2g"))


COLOURS = {"minibatch": style.OUTCOME_COLOURS["diverged"], "population": style.OUTCOME_COLOURS["converged"]}
# Of the map: neither, SGD alone, the exact gradient alone, both.
REGIONS = (style.NEITHER, style.OUTCOME_COLOURS["diverged"], "#a9c7e8", style.OUTCOME_COLOURS["converged"])


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    ax = axes[0]
    rows = numbers["boundaries"]["step_size"]
    dims = np.array([row["dimension"] for row in rows], dtype=float)
    for kind, marker in zip(KINDS, "os"):
        law = numbers["laws"][kind]
        label = WORDS[kind]
        if np.isfinite(law["value"]):
            ax.plot(dims, law["prefactor"] * dims ** law["value"], color=COLOURS[kind], linewidth=0.8)
            label += f": $d^{{{law['value']:.2f}}}$ [{law['low']:.2f}, {law['high']:.2f}]".replace("-", "−")
        for d, row in zip(dims, rows):
            part = row[kind]
            if part["kind"] == "estimated":
                ax.errorbar([d], [part["value"]], [[part["value"] - part["low"]], [part["high"] - part["value"]]], fmt=marker, markersize=3, color=COLOURS[kind], linewidth=0.9)
        ax.plot([], [], marker=marker, markersize=3, color=COLOURS[kind], linewidth=0.8, label=label)
    low, high = common.over_dimensions(ax, dims, "critical step size", 3)
    ax.legend(frameon=False, fontsize=6.2, loc="upper right", handlelength=1)

    ticks = [value for value in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if low <= value <= high]
    ax.set_yticks(ticks, [f"{value:g}" for value in ticks])

    ax = axes[1]
    etas, values = np.asarray(numbers["step_sizes"], dtype=float), np.asarray(numbers["teacher_norms"], dtype=float)
    with np.errstate(invalid="ignore"):
        inside = np.asarray(numbers["probability"], dtype=float)[..., 0] >= 0.5
    scale = maps.axis_scale(values)
    ax.pcolormesh(maps.cell_edges(etas, "log"), maps.cell_edges(values, scale), (inside[0] + 2 * inside[1]).T, cmap=ListedColormap(REGIONS), vmin=-0.5, vmax=3.5, rasterized=True)
    ax.set_xscale("log")
    if scale == "log":
        ax.set_yscale("log")
    ax.set_yticks(values, [f"{value:.2g}" for value in values])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(style.AXIS_LABELS["step_size"])
    ax.set_ylabel(style.AXIS_LABELS["teacher_norm"])
    ax.set_title(f"$d$ = {rows[-1]['dimension']}", fontsize=6.6, pad=3)
    handles = [Patch(facecolor=REGIONS[i], edgecolor=style.MUTED, linewidth=0.3, label=label)
               for i, label in ((3, "both"), (2, "exact gradient alone"), (1, "SGD alone"), (0, "neither")) if i != 1 or (inside[0] & ~inside[1]).any()]
    ax.legend(handles=handles, frameon=True, framealpha=0.9, edgecolor="none", fontsize=6.2, loc="upper right", handlelength=1)

    ax = axes[2]
    parts = [*numbers["norms_by_dimension"], numbers["norms"]]
    ax.axhspan(-SHARE_MARGIN, SHARE_MARGIN, color="#eef3f9", zorder=0)
    ax.axhline(0, color=style.MUTED, linewidth=0.6)
    for i, part in enumerate(parts):
        if np.isfinite(part["difference"]):
            ax.errorbar([i], [part["difference"]], [[max(0, part["difference"] - part["low"])], [max(0, part["high"] - part["difference"])]],
                        fmt="s" if i == len(parts) - 1 else "o", markersize=3, color=COLOURS["population"], linewidth=0.9)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -0.2), max(high, 0.2))
    ax.set_xlim(-0.5, len(parts) - 0.5)
    ax.set_xticks(range(len(parts)), [*(str(row["dimension"]) for row in rows), "all"])
    ax.set_xlabel(style.AXIS_LABELS["dimension"])
    ax.set_ylabel("share converged over norms,\nexact minus SGD")
