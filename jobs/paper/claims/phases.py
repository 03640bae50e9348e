"""Claim 2: the two phases."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import phases, style
from sgdmap_analysis.statistics import median_interval

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "phases"
TITLE = "The two phases"
CLAIM = ("In phase I the negative gradient may point away from W* (alignment ρ ≤ 0) while the potential g falls. In phase II, with g small, one-point "
         "convexity holds all the way to W*: ρ stays above a constant.")
RULE = ("The direction is wrong where ρ ≤ 0 while |g₁| is above its bound in phase II, max(0.1·|g₁(0)|, 0.01·√d); ρ ≤ 0 later, with g small, is counted apart. "
        "Of the runs that converge; an independent replicate counts only if all of its runs (all norms and initializations) agree. Confirmed: gradients that point the wrong "
        "way are seen in a setting beyond doubt (more than half of its replicates, Wilson's interval); wherever they are, |g| is smaller when they turn for good "
        "than at the start (share of replicates above 0.8, Wilson's lower bound); every run has a phase II that lasts to its end (the same); and the smallest ρ "
        "in phase II does not fall with d (the interval of its exponent is not all below 0). In part: one or two of the four fail. Contradicted: either of the middle "
        "two holds in less than half of the replicates beyond doubt. Not decided: no run converges, or fewer than two dimensions.")
PANELS = 3
CAPTION = ("Left: alignment along the training at d = {d}, from zero, median and range over replicates, by ‖W*‖₂: below the line the gradient points "
           "away from W*. Middle: share of the replicates with such gradients, and in steps times step size how long phase I lasts (median). Right: the "
           "smallest alignment in phase II, a dot a replicate (the least of its runs), with the mean of its logarithm and its power law.")


# The paper's experiment: ‖W*‖₂ and ‖W_0‖₂, which is twice the scale, of 0.6.
SMALL_NORM, SMALL_SCALE = 0.6, 0.3


def _least_by_dimension(dims: np.ndarray, least: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The smallest ρ [d, replicate], infinite where there is none: for each d, and its exponent in d."""
    least = np.where(np.isfinite(least), least, np.nan)
    log_d = np.log(dims.astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(least)
    resampled = np.take_along_axis(logs[None], common.draws(*logs.shape), 2).mean(-1)
    exponent = float(common.slope(log_d, logs.mean(-1)))
    by_d = []
    for i, d in enumerate(dims):
        some = np.isfinite(logs[i])
        mean = float(logs[i][some].mean()) if some.any() else math.nan
        low, high = common.student_interval(mean, resampled[:, i], int(some.sum()))
        by_d.append({"dimension": int(d), "least": float(np.nanmin(least[i])) if some.any() else math.nan,
                     "typical": common.estimate(math.exp(mean), math.exp(low), math.exp(high)), "replicates": least[i]})
    return by_d, common.estimate(exponent, *common.student_interval(exponent, common.slope(log_d, resampled), logs.shape[1]))


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    runs = phases.run_phases(sweep)
    eta = float(sweep.step_size.values[0])
    kept = ("dimension", "teacher_norm", "init_scale", "replicate")
    sweep = common.box(sweep, *kept)
    runs = runs.isel({axis: 0 for axis in runs.known.dims if axis not in kept}).transpose(*kept)
    known = runs.known.values
    converged = common.status_is(sweep, "converged") & known
    step = sweep.step.values
    alignment, potential = sweep.alignment.values, np.abs(sweep.potential_norm.values)
    # Phase I's wrong directions and those that come back when the potential is small.
    bound = np.maximum(0.1 * potential[..., :1], 0.01 * np.sqrt(sweep.dimension.values.astype(float))[:, None, None, None, None])
    with np.errstate(invalid="ignore"):
        away = (alignment <= 0) & known[..., None]
        early, late = away & (potential > bound), (away & (potential <= bound)).any(-1)
    negative = early.any(-1)
    turn_record = np.minimum(early.shape[-1] - early[..., ::-1].argmax(-1), early.shape[-1] - 1)  # the first record after the last of them
    with np.errstate(invalid="ignore", divide="ignore"):
        fell = np.take_along_axis(potential, turn_record[..., None], -1)[..., 0] / potential[..., 0]
    wrong = converged & negative & np.isfinite(fell)
    start = np.where(np.isfinite(runs.phase1_length.values), runs.phase1_length.values, np.inf)
    phase2 = converged & np.isfinite(start)
    inside = phase2[..., None] & (step >= start[..., None]) & np.isfinite(alignment)
    least = np.where(inside, alignment, np.inf).min(-1)
    at_least = np.where(inside, alignment, np.inf).argmin(-1)
    later = (step[at_least] - start)[phase2]

    def clusters(array: np.ndarray) -> np.ndarray:  # [d and replicate, runs]
        return np.moveaxis(array, 3, 1).reshape(array.shape[0] * array.shape[3], -1)

    rows = []
    for place in np.ndindex(known.shape[:3]):
        middle, low, high, _ = median_interval(np.where(negative[place], runs.phase1_length.values[place], np.nan) * eta)
        rows.append({
            "dimension": int(sweep.dimension.values[place[0]]), "teacher_norm": float(sweep.teacher_norm.values[place[1]]),
            "init_scale": float(sweep.init_scale.values[place[2]]), "wrong": common.share(negative[place].sum(), known[place].sum()),
            "late": common.share(late[place].sum(), known[place].sum()), "converged": common.share(converged[place].sum(), known[place].sum()), "phase1": common.estimate(middle, low, high),
        })
    by_d, exponent = _least_by_dimension(sweep.dimension.values, np.where(np.isfinite(least), least, np.inf).min((1, 2)))
    small = (sweep.teacher_norm.values[:, None] <= SMALL_NORM * (1 + 1e-9)) & (sweep.init_scale.values <= SMALL_SCALE * (1 + 1e-9))
    small_by_d, small_exponent = _least_by_dimension(sweep.dimension.values, np.where(np.isfinite(least) & small[..., None], least, np.inf).min((1, 2)))
    return {
        "small": {"by_dimension": small_by_d, "exponent": small_exponent},
        "rows": rows, "by_dimension": by_d,
        "potential_falls": common.share(*common.all_of_a_cluster(clusters(fell < 1), clusters(wrong))),
        "potential_ratio": dict(zip(("value", "low", "high"), map(float, median_interval(fell[wrong])[:3]))) if wrong.any() else
        common.estimate(math.nan, math.nan, math.nan),
        "phase2": common.share(*common.all_of_a_cluster(clusters(phase2), clusters(converged))),
        "exponent": exponent,
        "runs": {"all": int(known.sum()), "converged": int(converged.sum()), "wrong": int((negative & known).sum())},
        "least_at_the_end": float((later > 0).mean()) if later.size else math.nan,
    }


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    phase2, falls, exponent = numbers["phase2"], numbers["potential_falls"], numbers["exponent"]
    if phase2["n"] == 0:
        return UNDECIDED, "no run converges"
    if phase2["high"] < 0.5:
        return CONTRADICTED, "less than half of the replicates have a phase II in all runs that converge"
    if falls["n"] and falls["high"] < 0.5:
        return CONTRADICTED, "while the gradient points the wrong way, the potential does not fall"
    if not (math.isfinite(exponent["low"]) and math.isfinite(exponent["high"])):
        return UNDECIDED, "too few dimensions or replicates for a trend of the smallest ρ"
    lacking = []
    if not any(row["wrong"]["low"] > 0.5 for row in numbers["rows"]):
        lacking.append("no setting has gradients that point the wrong way beyond doubt")
    if falls["n"] and not falls["low"] > 0.8:
        lacking.append(f"only {falls['n']} of {phase2['n']} replicates have a run that went the wrong way and still reached W*, too few to be sure that the potential "
                       f"falls meanwhile ({falls['k']} of {falls['n']})" if falls["k"] == falls["n"] else
                       f"the potential falls meanwhile in {falls['k']} of {falls['n']} replicates")
    if not phase2["low"] > 0.8:
        lacking.append(f"phase II lasts to the end in all runs of {phase2['k']} of {phase2['n']} replicates, which leaves doubt")
    if exponent["high"] < 0:
        lacking.append(f"the smallest ρ in phase II falls with d, as d^{common.number(exponent['value'], '.2f')}: no constant in sight over all norms")
    if len(lacking) > 2:
        return UNDECIDED, common.joined(lacking)
    if lacking:
        return PART, common.joined(lacking)
    return CONFIRMED, (f"wrong directions are seen, and |g| falls meanwhile; then ρ stays above {common.number(min(row['least'] for row in numbers['by_dimension']), '.2f')} "
                       "in every run that converges, at any d")


def effects(numbers: dict[str, Any]) -> list[Effect]:
    rows, last = numbers["rows"], numbers["by_dimension"][-1]
    exponent, phase2 = numbers["exponent"], numbers["phase2"]
    some = sum(row["wrong"]["share"] > 0.5 for row in rows)
    small, few = numbers["small"]["exponent"], numbers["small"]["by_dimension"][-1]["typical"]
    back = sum(row["late"]["share"] > 0.5 for row in rows)
    zero = min(row["init_scale"] for row in rows)
    seen = [row["teacher_norm"] for row in rows if row["dimension"] == last["dimension"] and row["init_scale"] == zero and row["wrong"]["share"] > 0.5]
    total, went = common.share(some, len(rows)), common.share(numbers["potential_falls"]["n"], phase2["n"])
    return [
        Effect("settings with wrong directions in most replicates", total["share"], form=".0%"),
        Effect(f"smallest ‖W*‖₂ at which most runs from W₀ = 0 go the wrong way (d = {last['dimension']})", min(seen, default=math.nan), form=".2g"),
        Effect("settings in which ρ ≤ 0 comes back, g small, in most replicates", back / len(rows), form=".0%"),
        Effect("replicates with a run that went the wrong way and still reached W*", went["share"], went["low"], went["high"]),
        Effect("replicates in which phase II lasts to W*", phase2["share"], phase2["low"], phase2["high"]),
        Effect(f"smallest ρ in phase II at d = {last['dimension']}", last["typical"]["value"], last["typical"]["low"], last["typical"]["high"], ".3f"),
        Effect("its exponent in d", exponent["value"], exponent["low"], exponent["high"], "+.2f"),
        Effect(f"the same at the paper's norms, ‖W*‖₂ ≤ {SMALL_NORM:g} and ‖W₀‖₂ ≤ {2 * SMALL_SCALE:g} (d = {last['dimension']})", few["value"], few["low"], few["high"], ".3f"),
        Effect("its exponent in d", small["value"], small["low"], small["high"], "+.2f"),
    ]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "‖W*‖₂", "scale of W₀", "wrong direction seen", "phase I then lasts, η·steps", "ρ ≤ 0 later", "converged"]
    rows = [[str(row["dimension"]), common.number(row["teacher_norm"]), common.number(row["init_scale"]),
             common.count(row["wrong"]["k"], row["wrong"]["n"]),
             f"{common.number(row['phase1']['value'], '.2g')} [{common.number(row['phase1']['low'], '.2g')}, {common.number(row['phase1']['high'], '.2g')}]"
             if row["wrong"]["k"] else "–", common.count(row["late"]["k"], row["late"]["n"]), f"{row['converged']['k']} of {row['converged']['n']}"] for row in numbers["rows"]]
    return heading, rows


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION.format(d=numbers["by_dimension"][-1]["dimension"])


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    one = common.box(sweep, "dimension", "teacher_norm", "init_scale", "replicate")
    last = one.isel(dimension=-1)
    eta = float(sweep.step_size.values[0])
    norms = last.teacher_norm.values
    colours = style.ramp("", ["#8fb6de", "#1d4e94", "#08204a"], max(2, norms.size)).colors
    ax = axes[0]
    time = last.step.values * eta
    for i, norm in enumerate(norms):
        values = last.alignment.isel(teacher_norm=i, init_scale=0).values
        some = np.isfinite(values).all(0)
        if not some.any():
            some = np.isfinite(values).any(0)
        with np.errstate(all="ignore"):
            low, middle, high = (np.nanquantile(values[:, some], q, axis=0) for q in (0, 0.5, 1))
        ax.fill_between(time[some], low, high, color=colours[i], alpha=0.2, linewidth=0)
        ax.plot(time[some], middle, color=colours[i], linewidth=1, label=style.value_text(norm))
    ax.axhline(0, color=style.INK, linewidth=0.6)
    ax.set_xscale("log")
    ax.set_xlim(eta, time[-1])
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, max(top, 0.6) * 1.25)
    ax.set_xlabel("step size × SGD step")
    ax.set_ylabel(r"alignment $\rho$")
    ax.legend(title="‖$W^{*}$‖$_2$", frameon=False, fontsize=6.2, title_fontsize=6.2, loc="upper right", ncols=2, handlelength=1.2, columnspacing=0.9)

    ax = axes[1]
    d = numbers["by_dimension"][-1]["dimension"]
    rows = [row for row in numbers["rows"] if row["dimension"] == d]
    scales = sorted({row["init_scale"] for row in rows})
    image = np.array([[next(row["wrong"]["share"] for row in rows if row["teacher_norm"] == norm and row["init_scale"] == scale) for norm in norms]
                      for scale in scales])
    ax.imshow(image, origin="lower", aspect="auto", cmap=style.PROBABILITY, vmin=0, vmax=1)
    if image.size <= 30:
        for row in rows:
            x, y = common.nearest(norms, row["teacher_norm"]), scales.index(row["init_scale"])
            share, length = row["wrong"]["share"], row["phase1"]["value"]
            words = f"{row['wrong']['k']}/{row['wrong']['n']}" + (f"\n{common.number(length, '.2g')}" if row["wrong"]["k"] else "")
            ax.text(x, y, words, ha="center", va="center", fontsize=6, color="white" if share > 0.55 else style.INK)
    ax.set_xticks(range(norms.size), [style.value_text(norm) for norm in norms])
    ax.set_yticks(range(len(scales)), [style.value_text(scale) for scale in scales])
    ax.set_xlabel(style.AXIS_LABELS["teacher_norm"])
    ax.set_ylabel(style.AXIS_LABELS["init_scale"])
    ax.set_title(f"wrong direction seen, $d$ = {d}", fontsize=6.6, pad=3)

    ax = axes[2]
    dims = np.array([row["dimension"] for row in numbers["by_dimension"]], dtype=float)
    blue = style.OUTCOME_COLOURS["converged"]
    for d_value, row in zip(dims, numbers["by_dimension"]):
        values = np.asarray(row["replicates"], dtype=float)
        ax.plot(np.full(values.size, d_value), values, linestyle="", marker="o", markersize=2.4, color=blue, alpha=0.45, markeredgewidth=0)
        typical = row["typical"]
        ax.errorbar([d_value * 1.07], [typical["value"]], [[typical["value"] - typical["low"]], [typical["high"] - typical["value"]]], fmt="s",
                    markersize=2.6, color=style.INK, linewidth=0.8)
    exponent = numbers["exponent"]
    typical = np.log([row["typical"]["value"] for row in numbers["by_dimension"]])
    if np.isfinite(exponent["value"]):
        ax.plot(dims, np.exp(typical.mean() + exponent["value"] * (np.log(dims) - np.log(dims).mean())), color=style.MUTED, linewidth=0.7)
        ax.set_title(f"$d^{{{exponent['value']:.2f}}}$, exponent in [{exponent['low']:.2f}, {exponent['high']:.2f}]".replace("-", "−"), fontsize=6.6, pad=3)
    ax.set_xscale("log")
    ax.set_xticks(dims, [f"{value:g}" for value in dims])
    ax.minorticks_off()
    ax.set_ylim(0, None)
    ax.set_xlabel(style.AXIS_LABELS["dimension"])
    ax.set_ylabel(r"smallest $\rho$ in phase II")
