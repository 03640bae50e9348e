"""The two phases that the theory predicts, measured: when the gradient points the wrong way, how the potential decays, how long
phase I lasts.

Y. Li, Y. Yuan, "Convergence Analysis of Two-layer Neural Networks with ReLU Activation", NeurIPS 2017, arXiv:1705.09886: in phase I
the gradient may point away from W*, while the potential g decreases; in phase II, with a small potential, one-point convexity holds,
the alignment ρ = <-∇L, B-A>/‖B-A‖² is positive. Phase II begins at the first record from which on ρ > 0 and
|g1| <= max(0.1 |g1(0)|, 0.01 sqrt(d)) hold at every later one: `phase2_step` of the file.
"""
from __future__ import annotations

import math
import textwrap
from typing import Any, Iterator

import matplotlib
import matplotlib.ticker
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import maps, style
from .errors import ArgumentError
from .statistics import median_interval, wilson_interval
from .sweep import axes_of, check_axis, flag_codes, has_outcome, told

FIELDS = ("alignment", "potential_norm")

# Values of a trajectory that are worked on at a time; with what is computed from them, they take some 100 bytes each.
_BLOCK_VALUES = 1 << 20

# The rate is that of the first decades of the potential, before the noise of SGD takes over: phase I ends at a tenth of it.
DECAY_TO = 0.1

# Of the definition of phase II: |g1| <= FLOOR sqrt(d) is small.
FLOOR = 0.01

VERDICTS = ("two phases", "phase II from the start", "phase I only", "mixed", "diverged", "no outcome")


# -- One run -----------------------------------------------------------------------------------------------------------


def turn_record(alignment: np.ndarray) -> np.ndarray:
    """The record from which on the alignment is positive at every later one.

    alignment
        [..., records]; NaN where there is no record: after a run's end, or at W* itself.

    Returns int64 [...]: 0 where it is positive from the start, -1 where it is not positive at the last record there is, or
    there is none.
    """
    known = ~np.isnan(alignment)
    wrong = known & ~(alignment > 0)
    records = np.arange(alignment.shape[-1])
    last_wrong = np.where(wrong, records, -1).max(-1, initial=-1)
    later = known & (records > last_wrong[..., None])
    first = np.where(later, records, alignment.shape[-1]).min(-1, initial=alignment.shape[-1])
    return np.where(first < alignment.shape[-1], first, -1)


def decay_rate(step: np.ndarray, potential_norm: np.ndarray, floor: np.ndarray | float = 0.0) -> np.ndarray:
    """Rate r of |g1| ~ exp(-r step) while it falls to a tenth of its first value.

    step, potential_norm, floor
        [records], [..., records] and [...]. Least squares in log|g1| over the records up to the first at which |g1| is at most a
        tenth of |g1| at the first record, that one included; over all records where it never is.

    Returns float64 [...], 1/step; NaN with fewer than three such records, and where |g1| is at most `floor` at the first: then it
    has nothing to decay, and its logarithm is noise.
    """
    size = np.abs(potential_norm)
    known = np.isfinite(size) & (size > 0)
    small = known & (size <= DECAY_TO * size[..., :1])
    records = np.arange(size.shape[-1])
    end = np.where(small, records, size.shape[-1]).min(-1, initial=size.shape[-1])
    used = known & (records <= end[..., None]) & known[..., :1]
    count = used.sum(-1)
    x = np.where(used, step.astype(np.float64), 0)
    y = np.log(np.where(used, size, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        x_mean, y_mean = x.sum(-1) / count, y.sum(-1) / count
        dx = np.where(used, x - x_mean[..., None], 0)
        slope = (dx * (y - y_mean[..., None])).sum(-1) / (dx * dx).sum(-1)
    return np.where((count >= 3) & (size[..., 0] > floor), -slope, np.nan)


def run_phases(sweep: xr.Dataset) -> xr.Dataset:
    """What each run did: a Dataset over the axes.

    `known` (has an outcome and an alignment), `negative` (bool: the alignment was negative at some record), `turn_step` (the
    step of `turn_record`; infinite where it never turned for good, NaN where not known and where it was positive from the
    start, so that nothing had to turn), `decay_rate` (1/step) and
    `phase1_length` (steps before phase II; infinite where the run ended in phase I). The trajectories are read in parts.

    Raises ArgumentError if the file lacks the alignment or the potential.
    """
    missing = [name for name in FIELDS if name not in sweep]
    if missing:
        have = [name for name in sweep.data_vars if "step" in sweep[name].dims]
        raise ArgumentError(f"the file has no field {missing[0]}, which the phases need; it has {', '.join(map(str, have)) or 'none'}")
    step = sweep.step.values
    axes = axes_of(sweep)
    outcome = has_outcome(sweep.status).transpose(*axes)
    shape = outcome.shape

    negative, turned, rate, known = (np.empty(shape, kind) for kind in (bool, np.float64, np.float64, bool))
    for place in _parts(sweep):
        alignment, potential = (sweep[name].isel(place).transpose(*axes, "step").values for name in FIELDS)
        index = tuple(place.get(name, slice(None)) for name in outcome.dims)
        some = np.isfinite(alignment).any(-1)
        record = turn_record(alignment)
        negative[index] = (alignment < 0).any(-1)
        turned[index] = np.where(record > 0, step[record], np.where(record == 0, np.nan, np.inf))
        floor = FLOOR * np.sqrt(sweep.dimension.isel({"dimension": index[0]}).values.astype(np.float64))
        rate[index] = decay_rate(step, potential, floor.reshape(-1, *[1] * (len(shape) - 1)))
        known[index] = some
    final = outcome.values
    known &= final
    ret = xr.Dataset(coords={name: sweep[name] for name in outcome.dims})
    ret["known"] = (outcome.dims, known)
    ret["negative"] = (outcome.dims, negative & known)
    ret["turn_step"] = (outcome.dims, np.where(known, turned, np.nan))
    ret["decay_rate"] = (outcome.dims, np.where(final, rate, np.nan))
    length = sweep.phase2_step.transpose(*axes).values
    ret["phase1_length"] = (outcome.dims, np.where(final, np.where(np.isnan(length), np.inf, length), np.nan))
    return ret


def _parts(sweep: xr.Dataset) -> Iterator[dict[str, slice]]:
    """Places of the box whose trajectories fit into memory, each of runs that are neighbours in the file."""
    axes = sweep.alignment.dims[:-1]
    sizes = [sweep.sizes[name] for name in axes]
    cut, inner = len(axes) - 1, sweep.sizes["step"]
    while cut > 0 and inner * sizes[cut] <= _BLOCK_VALUES:
        inner *= sizes[cut]
        cut -= 1
    at_once = max(1, _BLOCK_VALUES // max(1, inner))
    for outer in np.ndindex(*sizes[:cut]):
        fixed = {name: slice(i, i + 1) for name, i in zip(axes, outer)}
        for first in range(0, sizes[cut], at_once):
            yield {**fixed, axes[cut]: slice(first, first + at_once)}


# -- Over replicates ---------------------------------------------------------------------------------------------------


def phase_statistics(sweep: xr.Dataset, confidence: float = 0.95, runs: xr.Dataset | None = None) -> xr.Dataset:
    """The phases of each setting, over its replicates. `runs`: from `run_phases`, where it is known already.

    Returns a Dataset over the axes without `replicate`:

    `n`
        runs with an outcome. Others count for nothing.
    `negative_k`, `negative_n`, `negative_share`, `negative_low`, `negative_high`
        runs whose alignment was negative at some record, of those with an alignment, and Wilson's interval of the share.
    `turn_n`, `turn_step`, `turn_low`, `turn_high`
        median of the step from which on the alignment is positive, over the `turn_n` runs in which it was not from the start, and
        the interval of the median. Runs that never turned for good count as infinite; a median that is infinite says so.
    `decay_rate`, `decay_low`, `decay_high`
        median over runs of the rate of |g1|, 1/step (see `decay_rate`), and its interval. The median, since a run whose potential
        was small from the start can have any rate.
    `phase1_length`, `phase1_low`, `phase1_high`, `phase1_censored`
        median length of phase I, steps, with its interval; runs that ended in phase I are censored: infinite in the median, and
        counted.
    `verdict`
        text, one of VERDICTS; see `verdicts`.

    Intervals of medians are `statistics.median_interval`s: with few replicates they span all values and cover less than asked for,
    `median_coverage` tells how much.
    """
    runs = run_phases(sweep) if runs is None else runs
    over = "replicate"

    def last(array: xr.DataArray) -> tuple[np.ndarray, xr.DataArray]:
        moved = array.transpose(..., over)
        return moved.values, moved.isel({over: 0}, drop=True)

    def put(name: str, values: np.ndarray, template: xr.DataArray, long_name: str, units: str) -> None:
        ret[name] = template.copy(data=values).assign_attrs(long_name=long_name, units=units)

    known, template = last(runs.known)
    final, _ = last(has_outcome(sweep.status))
    negative, _ = last(runs.negative)
    ret = xr.Dataset(attrs={"confidence": confidence})
    put("n", final.sum(-1), template, "runs with an outcome", "1")
    k, n = negative.sum(-1), known.sum(-1)
    low, high = wilson_interval(k, n, confidence)
    put("negative_k", k, template, "runs whose alignment was negative at some record", "1")
    put("negative_n", n, template, "runs with an alignment", "1")
    with np.errstate(invalid="ignore", divide="ignore"):
        put("negative_share", np.where(n > 0, k / np.maximum(n, 1), np.nan), template, "share of runs with negative alignment", "1")
    put("negative_low", low, template, "lower bound of the share", "1")
    put("negative_high", high, template, "upper bound of the share", "1")

    for name, source, words, units in (
        ("turn", "turn_step", "step from which on the alignment is positive", "steps"),
        ("decay", "decay_rate", "rate of decay of |g1| in phase I", "1/step"),
        ("phase1", "phase1_length", "length of phase I", "steps"),
    ):
        values, _ = last(runs[source])
        middle, low, high, coverage = median_interval(values, confidence)
        put(source, middle, template, f"median {words}", units)
        put(f"{name}_low", low, template, f"lower bound of the median {words}", units)
        put(f"{name}_high", high, template, f"upper bound of the median {words}", units)
        if name == "turn":
            put("turn_n", (~np.isnan(values)).sum(-1), template, "runs whose alignment was not positive from the start", "1")
        if name == "phase1":
            put("phase1_censored", np.isposinf(values).sum(-1), template, "runs that ended in phase I", "1")
            put("median_coverage", coverage, template, "coverage of the intervals of medians", "1")

    length, _ = last(runs.phase1_length)
    status, _ = last(sweep.status)
    diverged = (status == flag_codes(sweep.status)["diverged"]).sum(-1)
    put("verdict", verdicts(length, diverged), template, "verdict on the phases", "1")
    return ret


def verdicts(phase1_length: np.ndarray, diverged: np.ndarray) -> np.ndarray:
    """A plain verdict a setting: text [...] from lengths of phase I [..., replicates] and the number of diverged runs [...].

    What more than half of the runs with an outcome did: they diverged; they reached phase II at a record after the first ('two
    phases') or were in it at the first ('phase II from the start'); they ended before it without diverging ('phase I only').
    'mixed' where no half agrees.
    """
    final = ~np.isnan(phase1_length)
    n = final.sum(-1)
    reached = np.isfinite(phase1_length).sum(-1)
    at_once = (phase1_length == 0).sum(-1)
    # A run may reach phase II and diverge later, or begin at W*: divergence is what it ended with.
    ret = np.full(n.shape, "mixed", dtype=f"<U{max(map(len, VERDICTS))}")
    ret[2 * (n - reached - np.minimum(diverged, n - reached)) > n] = "phase I only"
    ret[2 * reached > n] = "two phases"
    ret[2 * at_once > n] = "phase II from the start"
    ret[2 * diverged > n] = "diverged"
    ret[n == 0] = "no outcome"
    return ret


QUANTITIES = ("negative", "turn_step", "decay_rate", "phase1_length")


def against(runs: xr.Dataset, quantity: str, axis: str, confidence: float = 0.95) -> xr.Dataset:
    """One of QUANTITIES against one axis, over all runs of the other axes. `runs`: from `run_phases`.

    Returns a Dataset [axis] of `middle`, `low`, `high`, `n` (runs that count) and `censored` (of those, runs without an end: infinite
    in the median). For `negative` that is the share of runs with negative alignment and Wilson's interval, for the others the
    median and its interval. Settings are not replicates of each other: the interval is that of a run drawn from the
    grid, not of one setting.
    """
    check_axis(runs, axis)
    values = runs[quantity].transpose(axis, ...).values
    flat = values.reshape(values.shape[0], -1)
    if quantity == "negative":
        known = runs.known.transpose(axis, ...).values.reshape(flat.shape)
        k, n = (flat & known).sum(-1), known.sum(-1)
        low, high = wilson_interval(k, n, confidence)
        middle = np.where(n > 0, k / np.maximum(n, 1), np.nan)
        low, high = np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)
        censored = np.zeros_like(n)
    else:
        middle, low, high, _ = median_interval(flat, confidence)
        n, censored = (~np.isnan(flat)).sum(-1), np.isposinf(flat).sum(-1)
    parts = {"middle": middle, "low": low, "high": high, "n": n, "censored": censored}
    return xr.Dataset({name: (axis, part) for name, part in parts.items()}, {axis: runs[axis]})


def length_against(sweep: xr.Dataset, axis: str, confidence: float = 0.95) -> xr.Dataset:
    """Length of phase I, steps, against one axis; see `against`."""
    return against(run_phases(sweep), "phase1_length", axis, confidence)


# -- Text --------------------------------------------------------------------------------------------------------------


def number_text(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:.4g}"


def table(statistics: xr.Dataset) -> str:
    """A line a setting: the axes that vary, and its phases with their intervals."""
    axes = [name for name in statistics.verdict.dims if statistics.sizes[name] > 1]
    fixed = {name: 0 for name in statistics.verdict.dims if name not in axes}
    flat = statistics.isel(fixed, drop=True)
    if axes:
        flat = flat.stack(setting=axes)
    else:
        flat = flat.expand_dims("setting")

    def ranged(middle: str, low: str, high: str) -> list[str]:
        texts = []
        for m, l, h in zip(flat[middle].values, flat[low].values, flat[high].values):
            bounds = "" if math.isnan(m) or math.isnan(l) else f" [{number_text(l)}, {number_text(h)}]"
            texts.append(number_text(m) + bounds)
        return texts

    columns: list[tuple[str, list[str]]] = []
    for name in axes:
        values = flat[name].values
        columns.append((str(name), [told(name, value) for value in values]))
    columns += [
        ("runs", [str(v) for v in flat.n.values]),
        ("negative alignment", [f"{k} of {n}" for k, n in zip(flat.negative_k.values, flat.negative_n.values)]),
        ("turns at step", ranged("turn_step", "turn_low", "turn_high")),
        ("decay of |g1|, 1/step", ranged("decay_rate", "decay_low", "decay_high")),
        ("length of phase I", ranged("phase1_length", "phase1_low", "phase1_high")),
        ("censored", [str(v) for v in flat.phase1_censored.values]),
        ("verdict", [str(v) for v in flat.verdict.values]),
    ]
    widths = [max(len(title), *(len(text) for text in texts)) for title, texts in columns]
    lines = ["  ".join(title.ljust(width) for (title, _), width in zip(columns, widths))]
    for row in zip(*(texts for _, texts in columns)):
        lines.append("  ".join(text.ljust(width) for text, width in zip(row, widths)))
    return "\n".join(line.rstrip() for line in lines)


def summary(statistics: xr.Dataset) -> dict[str, int]:
    """How many settings have each verdict, in the order of VERDICTS."""
    return {name: int((statistics.verdict == name).sum()) for name in VERDICTS}


def numbers(statistics: xr.Dataset, marginals: dict[str, dict[str, xr.Dataset]]) -> dict[str, Any]:
    """For JSON: arrays over the axes of `order`; infinity is told as null, with `phase1_censored` and `n` beside it."""
    dims = list(statistics.verdict.dims)
    return {
        "order": dims,
        "axes": {name: statistics[name].values for name in dims},
        "verdicts": summary(statistics),
        "settings": {str(name): statistics[name].transpose(*dims).values for name in statistics.data_vars},
        "against": {
            quantity: {axis: {str(name): data[name].values for name in data.variables} for axis, data in by_axis.items()}
            for quantity, by_axis in marginals.items()
        },
    }


# -- Figure ------------------------------------------------------------------------------------------------------------

_ROW_LABELS = {
    "negative": "runs with\nnegative alignment",
    "turn_step": "alignment turns\npositive at step",
    "decay_rate": "rate of decay\nof |$g_1$|, 1/step",
    "phase1_length": "length of\nphase I, steps",
}


def marginals(sweep: xr.Dataset, confidence: float = 0.95, runs: xr.Dataset | None = None) -> dict[str, dict[str, xr.Dataset]]:
    """`against` for each quantity and each axis with more than one value, or step_size if there is none. `runs`: from `run_phases`,
    where it is known already."""
    runs = run_phases(sweep) if runs is None else runs
    axes = [name for name in axes_of(sweep) if sweep.sizes[name] > 1 and name != "replicate"] or ["step_size"]
    return {quantity: {axis: against(runs, quantity, axis, confidence) for axis in axes} for quantity in QUANTITIES}


def draw_phases(data: dict[str, dict[str, xr.Dataset]], summary: dict[str, int], *, title: str = "", width: float | None = None,
                dpi: float | None = None, confidence: float = 0.95) -> Figure:
    """A row a quantity, a column an axis: what `marginals` says, with its intervals. Medians that are infinite stand at the top as
    open marks: most runs never got there."""
    with matplotlib.rc_context(style.parameters()):
        axes = list(data[QUANTITIES[0]])
        width = width or max(3.25, 0.85 + 1.2 * len(axes))
        left, right, panel_height, gap = 0.85, 0.08, 0.82, 0.1
        step = (width - left - right) / len(axes)
        verdicts_text = ", ".join(f"{name} {count}" for name, count in summary.items() if count)
        notes = [f"settings by verdict: {verdicts_text}",
                 f"medians and shares over all runs of the other axes; bars: {100 * confidence:g} % interval",
                 "turns: of runs that did not begin with positive alignment; open: most never got there; on the lower frame: not positive"]
        per_line = max(20, int((width - 0.2) / 0.048))
        lines = [line for note in notes for line in textwrap.wrap(note, per_line)]
        title = style.broken(title, width - 0.1)
        head = 0.22 + 0.12 * title.count("\n") if title else 0.06
        names = {axis: [style.value_text(value) for value in data[QUANTITIES[0]][axis][axis].values if isinstance(value, str)] for axis in axes}
        slanted = [axis for axis in axes if sum(style.text_width(name) + 0.06 for name in names[axis]) > step]
        # Room below the panels for names that lie aslant.
        aslant = max([0.0, *(0.5 * style.text_width(name) for axis in slanted for name in names[axis])])
        foot = 0.42 + aslant + 0.115 * len(lines)
        height = head + len(QUANTITIES) * (panel_height + gap) + foot
        figure = Figure(figsize=(width, height))
        figure.set_dpi(dpi or 300)
        if title:
            figure.text(0.02, 1 - 0.05 / height, title, va="top", color=style.MUTED, linespacing=1.1)
        for row, quantity in enumerate(QUANTITIES):
            limits = _limits(quantity, list(data[quantity].values()))
            for column, axis in enumerate(axes):
                y0 = height - head - (row + 1) * panel_height - row * gap
                ax = figure.add_axes(((left + column * step) / width, y0 / height, (step - 0.1) / width, panel_height / height))
                _panel(ax, quantity, data[quantity][axis], axis, limits, step - 0.1)
                ax.tick_params(labelleft=column == 0, labelbottom=row == len(QUANTITIES) - 1)
                if column == 0:
                    ax.set_ylabel(_ROW_LABELS[quantity], fontsize=6.2)
                    ax.yaxis.set_label_coords(-0.5 / (step - 0.1), 0.5)
                if row == len(QUANTITIES) - 1:
                    ax.set_xlabel(style.AXIS_LABELS[axis], labelpad=1.5)
                    if axis in slanted:
                        for label in ax.get_xticklabels():
                            label.set(rotation=30, rotation_mode="anchor", ha="right")
        for index, line in enumerate(lines):
            figure.text(0.1 / width, (0.115 * (len(lines) - index)) / height, line, va="top", fontsize=6.2, color=style.MUTED)
        return figure


def _limits(quantity: str, columns: list[xr.Dataset]) -> tuple[float, float]:
    values = np.concatenate([data[name].values for data in columns for name in ("middle", "low", "high")])
    values = values[np.isfinite(values)]
    if quantity == "negative":
        return 0.0, 1.0
    values = values[values > 0]
    if values.size == 0:
        return 0.1, 1.0
    low, high = float(values.min()), float(values.max())
    room = max((high / low) ** 0.1, 1.3)
    return low / room, high * room**1.5


def _panel(ax: Any, quantity: str, data: xr.Dataset, axis: str, limits: tuple[float, float], width: float) -> None:
    place = maps.Axis.of(axis, data[axis].values)
    middle, low, high = (data[name].values.astype(float) for name in ("middle", "low", "high"))
    never = np.isposinf(middle)
    ax.set_xscale("log" if place.scale == "log" else "linear")
    ax.set_xlim(place.edges[[0, -1]])
    colour = style.OUTCOME_COLOURS["converged"]
    if quantity == "negative":
        ax.set_ylim(*limits)
        ax.set_yticks([0, 0.5, 1])
    else:
        # Rates may be negative, and steps 0: both lie on the lower frame.
        ax.set_yscale("log")
        ax.set_ylim(*limits)
    bottom, top = ax.get_ylim()
    for x, l, h in zip(place.centres, low, high):
        if not np.isnan(l):
            ax.plot([x, x], [np.clip(l, bottom, top), np.clip(h, bottom, top)], color=colour, linewidth=0.8, alpha=0.55, zorder=2)
    inside = np.clip(np.where(never, np.nan, middle), bottom, top)
    joined = place.scale != "categorical"
    for part in maps.pieces(place):
        ax.plot(place.centres[part], inside[part], color=colour, linewidth=0.9 if joined else 0, marker="o",
                markersize=2.2 if len(inside) <= 40 else 1, zorder=3, clip_on=False)
    if never.any():
        ax.plot(place.centres[never], np.full(never.sum(), top), linestyle="", marker="o", markersize=2.8, markerfacecolor="white",
                markeredgecolor=colour, markeredgewidth=0.7, zorder=3, clip_on=False)
    maps._ticks(ax.xaxis, place, width / 0.3)
    ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())

