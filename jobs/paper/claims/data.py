"""Claim 8: a training set instead of fresh samples."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from sgdmap_analysis import ArgumentError, compare, style
from sgdmap_analysis.boundary import critical_values, scaling
from sgdmap_analysis.compare import student_quantile

from . import common
from .common import CONFIRMED, CONTRADICTED, PART, UNDECIDED, Effect

NAME = "data"
TITLE = "The training set"
CLAIM = ("100,000 samples, gone through again and again, are as good as fresh ones at every step. (The paper trains on 100,000 and tests on 10,000; there is no noise in the labels.)")
SIZE, PAPER = 100_000, 280
SHARE_MARGIN, STEPS_MARGIN = 0.1, 1.25
RULE = (f"Against fresh samples, in pairs that share W* and W₀. As good: over all d the share that converges is at most {SHARE_MARGIN} smaller (lower end of the interval of the difference), and "
        f"at every d it takes at most {100 * (STEPS_MARGIN - 1):.0f} % more steps (upper end of the interval of the ratio). Needed: the number of samples from which on half of the runs converge, drawn out to the "
        f"paper's d near {PAPER} by its power law. Confirmed: as good, and the number needed is below {SIZE:,} with its whole interval. Contradicted: at every d it takes more steps than that with the whole "
        "interval, or the whole interval of the difference is below. In part: at some d it takes no more steps than that, and something of the rest is not so. Otherwise not decided.")
PANELS = 3
CAPTION = ("Left: loss on the test set along the training at d = {d}, medians over replicates, by the number of samples; dashed: the loss on the minibatches of {dashed:,} samples, about d². Middle: share of the "
           "runs that converge against samples over weights, N/d². Right: samples from which on half of the runs converge, within {long} steps and within {short}, with their power laws; "
           "the star is the paper's training set.")

QUARTER = 0.25


def _drawn_out(dims: np.ndarray, value: np.ndarray, error: np.ndarray, at: float, replicates: int) -> dict[str, float]:
    """Of the power law through the values at `at`: errors are those of the points, or the scatter about the line where that is larger."""
    some = np.isfinite(value) & (value > 0)
    if some.sum() < 3 or replicates < 2:
        return common.estimate(math.nan, math.nan, math.nan)
    x, y, error = np.log(dims[some]), np.log(value[some]), error[some]
    place = x - x.mean()
    weight = 1 / x.size + (math.log(at) - x.mean()) * place / (place**2).sum()
    scatter = float(common.misfit(x, y)) / (x.size - 2)
    # Where the scatter decides, its degrees of freedom do too.
    own, lack = (weight**2 * error**2).sum(), (weight**2).sum() * scatter
    spread, freedom = (own, replicates - 1) if own >= lack else (lack, x.size - 2)
    half = student_quantile((1 + common.CONFIDENCE) / 2, freedom) * math.sqrt(spread)
    middle = float(weight @ y)
    return common.estimate(*(math.exp(part) for part in (middle, middle - half, middle + half)))


def _needed(sweep: xr.Dataset, status: np.ndarray | None) -> dict[str, Any]:
    """Samples from which on half of the runs converge, by d, and their law; with another status in the place of the sweep's."""
    part = sweep.isel(data=sweep.data.values > 0)
    if status is not None:
        part = part.assign(status=part.status.copy(data=status))
    # critical_values knows step sizes: the number of samples takes their place.
    part = part.isel(step_size=0, drop=True).rename(data="step_size")
    critical = critical_values(part, "step_size", edge="lower")
    law = scaling(critical, "dimension")
    one = critical.isel({axis: 0 for axis in critical.critical.dims if axis != "dimension"})
    law = law.squeeze()
    estimated = one.kind.values == "estimated"
    value = np.where(estimated, one.critical.values, np.nan)
    return {
        "by_dimension": [common.estimate(value[i], one.low.values[i], one.high.values[i]) | {"kind": str(one.kind.values[i])} for i in range(value.size)],
        "exponent": common.estimate(law.exponent, law.low, law.high) | {"prefactor": float(law.prefactor), "misfit": bool(law.misfit)},
        "drawn_out": _drawn_out(one.dimension.values.astype(float), value, one.standard_error.values, PAPER, int(one.replicates.values.min())),
    }


def _summary(sweep: xr.Dataset, size: int) -> dict[str, Any]:
    _, summary = compare.compare(compare.between(sweep, "data", [0, size]))
    nothing = common.estimate(math.nan, math.nan, math.nan)
    if not summary["pairs"]:
        return {"pairs": 0, "clusters": 0, "difference": nothing, "steps": nothing}
    found, speed = summary["outcomes"]["converged"], summary["speed"]
    return {"pairs": summary["pairs"], "clusters": int(found["clusters"]), "difference": common.estimate(found["difference"], found["low"], found["high"]),
            "steps": common.estimate(*(10 ** float(speed[name]) for name in ("median", "low", "high"))) if speed["n"] else nothing}


def _last_known(values: np.ndarray) -> np.ndarray:
    """The last value [...] along the records that is a number; NaN if there is none."""
    known = np.isfinite(values)
    last = values.shape[-1] - 1 - known[..., ::-1].argmax(-1)
    return np.where(known.any(-1), np.take_along_axis(values, last[..., None], -1)[..., 0], np.nan)


def measure(sweep: xr.Dataset) -> dict[str, Any]:
    sizes = sweep.data.values if "data" in sweep.dims else np.array([0])
    if 0 not in sizes or sizes.size < 3:
        raise ArgumentError("the sweep has no fresh samples beside two or more training sets")
    for name in ("test_loss", "batch_loss", "error"):
        if name not in sweep:
            raise ArgumentError(f"the file has no field {name}")
    size = int(sizes[sizes > 0][common.nearest(np.log(sizes[sizes > 0]), math.log(SIZE))])
    one = common.box(sweep, "dimension", "data", "replicate")
    known = common.status_is(one, "converged", "diverged", "stalled", "unfinished")
    converged = common.status_is(one, "converged") & known
    test, batch, error = (one[name].values for name in ("test_loss", "batch_loss", "error"))
    steps = one.step.values

    # Within a quarter of the budget: as if the training had ended there.
    status = sweep.isel(data=sizes > 0).status
    codes = {name: code for name, code in zip(str(status.attrs["flag_meanings"]).split(), np.atleast_1d(status.attrs["flag_values"]))}
    late = sweep.isel(data=sizes > 0).steps_done.values > QUARTER * steps[-1]
    early = np.where((status.values == codes["converged"]) & late, codes["unfinished"], status.values)

    rows = []
    for i, d in enumerate(one.dimension.values):
        with np.errstate(invalid="ignore"):
            rows.append({"dimension": int(d), **_summary(sweep.sel(dimension=[d]), size),
                         "converged": [common.share(converged[i, j].sum(), known[i, j].sum()) for j in range(sizes.size)],
                         "test_loss": np.nanmedian(_last_known(test[i]), -1), "batch_loss": np.nanmedian(_last_known(batch[i]), -1),
                         "median_steps": np.median(np.where(converged[i], one.steps_done.values[i], np.inf), -1)})
    # The largest d, held after convergence: the median of those that have ended falls no further.
    courses = []
    for j, n in enumerate(sizes):
        curves = np.array([_held(row) for row in test[-1, j]])
        courses.append({"data": int(n), "test_loss": np.nanmedian(curves, 0), "batch_loss": np.nanmedian([_held(row) for row in batch[-1, j]], 0)})
    return {
        "size": size, "sizes": sizes, "steps": steps, "rows": rows, "overall": _summary(sweep, size), "courses": courses,
        "needed": _needed(sweep, None), "needed_quarter": _needed(sweep, early), "budget": int(steps[-1]), "first_error": float(np.nanmedian(error[..., 0])),
    }


def _held(row: np.ndarray) -> np.ndarray:
    """A trajectory whose run has ended keeps its last value."""
    known = np.isfinite(row)
    place = np.maximum.accumulate(np.where(known, np.arange(row.size), 0))
    return row[place]


def judge(numbers: dict[str, Any]) -> tuple[str, str]:
    rows, overall, needed = numbers["rows"], numbers["overall"], numbers["needed"]["drawn_out"]
    if not overall["pairs"]:
        return UNDECIDED, "no pair of runs has ended"
    good = [row["dimension"] for row in rows if row["steps"]["high"] <= STEPS_MARGIN]
    slow = [row["dimension"] for row in rows if row["steps"]["low"] > STEPS_MARGIN]
    fewer = overall["difference"]["high"] < -SHARE_MARGIN
    as_many = overall["difference"]["low"] > -SHARE_MARGIN
    words = [f"{numbers['size']:,} samples are as good as fresh ones at d = {common.joined(list(map(str, good)))}" if good else f"at no d are {numbers['size']:,} samples surely as good as fresh ones"]
    if slow:
        words.append(f"they take more steps, by a quarter or more, at d = {common.joined(list(map(str, slow)))}")
    if not as_many:
        words.append("fewer runs converge" if fewer else "whether as many converge cannot be told")
    if math.isfinite(needed["value"]):
        low, high = (common.number(needed[name], ",.0f") for name in ("low", "high"))
        words.append(f"drawn out to the paper's d near {PAPER}, half of the runs need {common.number(needed['value'], ',.0f')} [{low}, {high}]"
                     + ("" if needed["high"] < SIZE else f", above {SIZE:,}" if needed["low"] > SIZE else f", which may be above {SIZE:,}"))
    told = "; ".join(words)
    if fewer or len(slow) == len(rows):
        return CONTRADICTED, told
    if as_many and len(good) == len(rows) and needed["high"] < SIZE:
        return CONFIRMED, told
    return (PART if good else UNDECIDED), told


def effects(numbers: dict[str, Any]) -> list[Effect]:
    overall, needed, last = numbers["overall"], numbers["needed"], numbers["rows"][-1]
    size, exponent, out, soon = f"{numbers['size']:,}", needed["exponent"], needed["drawn_out"], numbers["needed_quarter"]["drawn_out"]
    weights = {name: needed["by_dimension"][-1][name] / last["dimension"] ** 2 for name in ("value", "low", "high")}
    return [
        Effect(f"share converged, {size} samples minus fresh (all d)", overall["difference"]["value"], overall["difference"]["low"], overall["difference"]["high"], "+.2f"),
        *(Effect(f"steps, {size} samples over fresh (d = {row['dimension']})", row["steps"]["value"], row["steps"]["low"], row["steps"]["high"])
          for row in ([numbers["rows"][0], last] if len(numbers["rows"]) > 1 else [last])),
        Effect(f"samples for half of the runs, over d² (d = {last['dimension']})", weights["value"], weights["low"], weights["high"], ".1f"),
        Effect("their exponent in d", exponent["value"], exponent["low"], exponent["high"]),
        Effect(f"drawn out to the paper's d near {PAPER}", out["value"], out["low"], out["high"], ",.0f"),
        Effect(f"the same within a quarter of the steps ({QUARTER * numbers['budget']:,.0f})", soon["value"], soon["low"], soon["high"], ",.0f"),
    ]


def details(numbers: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    heading = ["d", "samples", "samples / d²", "converged", "steps (median)", "test loss at the end", "loss on the minibatches at the end"]
    rows = []
    for row in numbers["rows"]:
        for j, n in enumerate(numbers["sizes"]):
            converged = row["converged"][j]
            rows.append([str(row["dimension"]), f"{n:,}" if n else "fresh", common.number(n / row["dimension"] ** 2, ".2g") if n else "∞",
                         common.count(converged["k"], converged["n"]), common.number(row["median_steps"][j], ".0f"), common.number(row["test_loss"][j], ".2g"),
                         common.number(row["batch_loss"][j], ".2g")])
    return heading, rows


def _shown(numbers: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The courses of the left panel, the largest training set among them, and the one with about as many samples as weights."""
    sets = [course for course in numbers["courses"] if course["data"] > 0]
    shown = sets[:: -max(1, round((len(sets) - 1) / 4))][::-1]
    weights = numbers["rows"][-1]["dimension"] ** 2
    return shown, shown[common.nearest(np.log([course["data"] for course in shown]), math.log(weights))]


def caption(numbers: dict[str, Any]) -> str:
    return CAPTION.format(d=numbers["rows"][-1]["dimension"], dashed=_shown(numbers)[1]["data"], long=f"{numbers['budget']:,}", short=f"{QUARTER * numbers['budget']:,.0f}")


def draw(axes: list[Any], numbers: dict[str, Any], sweep: xr.Dataset) -> None:
    sizes = np.asarray(numbers["sizes"])
    dims = np.array([row["dimension"] for row in numbers["rows"]], dtype=float)
    ax = axes[0]
    shown, dashed = _shown(numbers)
    colours = style.ramp("", ["#f0b98a", style.OUTCOME_COLOURS["diverged"], "#7a1418"], max(2, len(shown))).colors[::-1]
    x = np.maximum(np.asarray(numbers["steps"], dtype=float), 0.7)
    for colour, course in zip(colours, shown):
        ax.plot(x, course["test_loss"], color=colour, linewidth=1, label=f"{course['data']:,}")
        if course is dashed:
            ax.plot(x, course["batch_loss"], color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
    fresh = next(course for course in numbers["courses"] if course["data"] == 0)
    ax.plot(x, fresh["test_loss"], color=style.OUTCOME_COLOURS["converged"], linewidth=1.2, label="fresh")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(10, x[-1])
    values = np.concatenate([np.asarray(course["test_loss"], dtype=float) for course in [*shown, fresh]])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size:
        ax.set_ylim(values.min() / 30, values.max() * 2)
    ax.set_xlabel("SGD step")
    ax.set_ylabel("loss on the test set")
    ax.set_title(f"$d$ = {dims[-1]:g}", fontsize=6.6, pad=3)
    ax.legend(title="samples", frameon=False, fontsize=6.2, title_fontsize=6.2, loc="lower left", handlelength=1.2)

    ax = axes[1]
    blues = style.ramp("", ["#8fb6de", "#1d4e94", "#08204a"], max(2, dims.size)).colors
    some = sizes > 0
    for colour, row in zip(blues, numbers["rows"]):
        share = np.array([part["share"] for part in row["converged"]], dtype=float)
        ax.plot(sizes[some] / row["dimension"] ** 2, share[some], color=colour, marker="o", markersize=2.2, linewidth=0.9, label=str(row["dimension"]))
    ax.axvline(1, color=style.MUTED, linewidth=0.6, linestyle=(0, (3, 2)))
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("samples over weights, $N/d^2$")
    ax.set_ylabel("share converged")
    ax.legend(title="$d$", frameon=False, fontsize=6.2, title_fontsize=6.2, loc="upper left", handlelength=1.2)

    ax = axes[2]
    span = np.geomspace(dims[0], max(PAPER, dims[-1]), 60)
    for name, colour, marker, part in (("needed_quarter", style.OUTCOME_COLOURS["unfinished"], "s", QUARTER), ("needed", style.OUTCOME_COLOURS["converged"], "o", 1)):
        law = numbers[name]["exponent"]
        label = f"{part * numbers['budget']:,.0f} steps"
        if np.isfinite(law["value"]):
            label += f": $d^{{{law['value']:.2f}}}$ [{law['low']:.2f}, {law['high']:.2f}]"
            inner = span <= dims[-1]
            course = law["prefactor"] * span ** law["value"]
            ax.plot(span[inner], course[inner], color=colour, linewidth=0.8)
            ax.plot(span[~inner], course[~inner], color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
        for d, value in zip(dims, numbers[name]["by_dimension"]):
            if value["kind"] == "estimated":
                ax.errorbar([d], [value["value"]], [[value["value"] - value["low"]], [value["high"] - value["value"]]], fmt=marker, markersize=3, color=colour, linewidth=0.9)
        ax.plot([], [], marker=marker, markersize=3, color=colour, linewidth=0.8, label=label)
    out = numbers["needed"]["drawn_out"]
    if np.isfinite(out["value"]):
        ax.errorbar([PAPER], [out["value"]], [[out["value"] - out["low"]], [out["high"] - out["value"]]], color=style.OUTCOME_COLOURS["converged"], linewidth=0.9, capsize=2)
    ax.plot([PAPER], [SIZE], marker="*", markersize=7, color=style.OUTCOME_COLOURS["diverged"], linestyle="", label="the paper's")
    ax.plot(span, span**2, color=style.MUTED, linewidth=0.6, linestyle=(0, (1, 2)), label="$d^2$, the weights")
    common.over_dimensions(ax, [*dims, PAPER] if dims[-1] < PAPER else dims, "samples for half of the runs", 30)
    ax.legend(frameon=False, fontsize=6.2, loc="upper left", handlelength=1.2)
