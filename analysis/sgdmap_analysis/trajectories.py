"""Trajectories: medians and quantile bands over the replicates of any field, for chosen settings."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from . import style
from .errors import ArgumentError
from .statistics import median_interval
from .sweep import axes_of, flag_codes, has_outcome

FIELDS = ("error", "loss", "test_loss", "batch_loss", "potential", "potential_norm", "alignment", "gradient_norm", "weight_norm")
# Those that may be negative, and are drawn on a scale that has a zero.
SIGNED = ("potential", "potential_norm", "alignment")

LABELS = {
    "loss": "population loss $L$",
    "test_loss": "loss on the test set",
    "batch_loss": "batch loss",
    "error": r"distance from $W^{*}$, ‖$A-B$‖$_F/\sqrt{d}$",
    "potential": "potential $g$",
    "potential_norm": "potential $g_1$",
    "alignment": r"alignment $\rho$",
    "gradient_norm": r"gradient norm ‖$\nabla L$‖$_F$",
    "weight_norm": r"weight norm ‖$W$‖$_2$",
}

MAX_CURVES = 12


# -- Numbers -----------------------------------------------------------------------------------------------------------


def fields_of(sweep: xr.Dataset) -> list[str]:
    """The fields that the file holds, in the order of FIELDS."""
    return [name for name in FIELDS if name in sweep and "step" in sweep[name].dims]


def check_field(sweep: xr.Dataset, field: str) -> str:
    """The field itself, or an ArgumentError that says which there are."""
    have = fields_of(sweep)
    if field not in have:
        raise ArgumentError(f"the file has no field {field!r}; it has {', '.join(have) or 'none'}")
    return field


def order_quantile(values: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Quantiles [len(probabilities), ...] of values [..., n] without NaN: the ceil(p k)-th smallest of k, the smallest for p = 0.

    Always one of the values (definition 1 of R. J. Hyndman, Y. Fan, The American Statistician 50 (1996) 361-365), so that
    infinities do no harm; NaN where there is no value.
    """
    ordered = np.sort(values, axis=-1)
    count = (~np.isnan(ordered)).sum(-1)
    # 0.1 * 10 is to be 1, not 1.0000000000000002.
    places = [np.clip(np.ceil(p * count - 1e-9).astype(np.int64) - 1, 0, None) for p in probabilities]
    return np.stack([np.take_along_axis(ordered, place[..., None], -1)[..., 0] for place in places])


def held(values: np.ndarray, diverged: np.ndarray, signed: bool) -> np.ndarray:
    """Trajectories [..., records] to the last record, of runs that ended before it.

    A run that ended because it converged keeps its last value. One that diverged (`diverged` [...]) counts as infinite after its
    last record in fields that cannot be negative, and as missing in the others: so a median never looks better because runs
    have left it.
    """
    known = ~np.isnan(values)
    records = np.arange(values.shape[-1])
    last = np.where(known, records, -1).max(-1, initial=-1)
    after = records > last[..., None]
    end = np.take_along_axis(values, np.maximum(last, 0)[..., None], -1)
    filled = np.where(diverged[..., None], np.nan if signed else np.inf, end)
    return np.where(after & (last >= 0)[..., None], filled, values)


def bands(
    sweep: xr.Dataset,
    field: str,
    chosen: xr.DataArray | None = None,
    quantiles: Sequence[float] = (0.25, 0.75),
    confidence: float = 0.95,
) -> xr.Dataset:
    """The median and quantiles of a field over the replicates, at every record.

    Parameters
    ----------
    field
        One of `fields_of`.
    chosen
        Boolean over some axes, which may include `replicate`: other settings are NaN. From `where.choose`.
    quantiles
        Probabilities of the bands' edges.

    Returns
    -------
    xarray.Dataset
        Over the axes without `replicate`, and `step`: `median`; `low`, `high`, the interval of the median (see
        `statistics.median_interval` for what few replicates can say); `quantiles` [quantile, ...]; `n`, replicates that count at
        the record; `ended`, of those, that had ended before it. Runs that ended early are continued as `held` says.
        Only runs with an outcome count.
    """
    check_field(sweep, field)
    signed = field in SIGNED
    axes = axes_of(sweep)
    values = sweep[field].transpose(*axes, "step")
    final = has_outcome(sweep.status).transpose(*axes)
    counts = final if chosen is None else final & chosen
    counts = counts.transpose(*axes)
    raw = np.where(counts.values[..., None], values.values, np.nan)
    diverged = (sweep.status == flag_codes(sweep.status)["diverged"]).transpose(*axes).values
    full = held(raw, diverged, signed)
    place = axes.index("replicate")
    # The field is NaN too where it is not defined: the alignment at W* itself.
    ended = np.isnan(raw) & ~np.isnan(full)
    last = np.moveaxis(full, place, -1)
    dims = tuple(name for name in axes if name != "replicate")
    middle, low, high, coverage = median_interval(last, confidence)
    edges = order_quantile(last, quantiles)
    shape = (*dims, "step")
    ret = xr.Dataset(coords={name: sweep[name] for name in (*dims, "step")}, attrs={"confidence": confidence})
    words = str(sweep[field].attrs.get("long_name", field))
    units = str(sweep[field].attrs.get("units", "1"))
    ret["median"] = (shape, middle, {"long_name": f"median {words}", "units": units})
    ret["low"] = (shape, low, {"long_name": f"lower bound of the median {words}", "units": units})
    ret["high"] = (shape, high, {"long_name": f"upper bound of the median {words}", "units": units})
    ret["coverage"] = (shape, coverage, {"long_name": "coverage of the interval of the median", "units": "1"})
    ret["quantiles"] = (("quantile", *shape), edges, {"long_name": f"quantiles of {words}", "units": units})
    ret["n"] = (shape, (~np.isnan(last)).sum(-1), {"long_name": "replicates", "units": "1"})
    ret["ended"] = (shape, np.moveaxis(ended, place, -1).sum(-1), {"long_name": "replicates that had ended", "units": "1"})
    return ret.assign_coords(quantile=list(quantiles))


@dataclass(frozen=True)
class Curve:
    """One setting: where it stands in the box, and in which words."""

    place: dict[str, int]
    values: dict[str, Any]


def curves(sweep: xr.Dataset, chosen: xr.DataArray | None, most: int | None = None) -> tuple[list[Curve], int]:
    """The chosen settings in the order of the axes, thinned evenly to `most`; and how many there are without thinning."""
    dims = [name for name in axes_of(sweep) if name != "replicate"]
    shape = [sweep.sizes[name] for name in dims]
    if chosen is None:
        flat = np.arange(math.prod(shape))
    else:
        some = chosen.any("replicate") if "replicate" in chosen.dims else chosen
        full = some.broadcast_like(xr.DataArray(np.empty(shape), dims=dims, coords={n: sweep[n].values for n in dims}))
        flat = np.flatnonzero(full.transpose(*dims).values.ravel())
    count = flat.size
    if most is not None and count > most:
        flat = flat[np.unique(np.round(np.linspace(0, count - 1, most)).astype(np.int64))]
    ret = []
    for index in flat:
        place = dict(zip(dims, (int(i) for i in np.unravel_index(index, shape))))
        ret.append(Curve(place, {name: sweep[name].values[i].item() for name, i in place.items()}))
    return ret, count


def phase2_steps(sweep: xr.Dataset, curve: Curve) -> tuple[float, int]:
    """Median step at which phase II begins over the replicates of a setting, infinite where most never get there; and of how many
    runs."""
    runs = sweep.isel(curve.place)
    final = has_outcome(runs.status).values
    length = runs.phase2_step.values
    length = np.where(final, np.where(np.isnan(length), np.inf, length), np.nan)
    middle, *_ = median_interval(np.atleast_1d(length))
    return float(middle), int(final.sum())


def numbers(sweep: xr.Dataset, data: Mapping[str, xr.Dataset], drawn: Sequence[Curve], count: int) -> dict[str, Any]:
    """For JSON: a list of settings, each with its bands by field; infinity and NaN are null."""
    settings = []
    for curve in drawn:
        phase2, runs = phase2_steps(sweep, curve)
        fields = {}
        for name, field in data.items():
            one = field.isel(curve.place)
            fields[name] = {
                key: one[key].values for key in ("median", "low", "high", "coverage", "n", "ended")
            } | {"quantiles": [edge.values for edge in one["quantiles"]]}
        settings.append({"where": curve.values, "runs": runs, "phase2_step": phase2, "fields": fields})
    any_field = next(iter(data.values()))
    return {"step": sweep.step.values, "quantiles": any_field["quantile"].values, "settings_chosen": count, "settings": settings}


# -- Figure ------------------------------------------------------------------------------------------------------------

_LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))

PHASE1 = "#fbe9d9"
PHASE2 = "#e4edf8"


def draw_trajectories(
    sweep: xr.Dataset,
    data: Mapping[str, xr.Dataset],
    drawn: Sequence[Curve],
    count: int,
    *,
    title: str = "",
    width: float | None = None,
    dpi: float | None = None,
) -> Figure:
    """A panel a field, a curve a setting: the median over the replicates as a line, the quantiles as a band.

    Colours are along the first axis that varies among the settings, kinds of lines along the second; what further axes tell
    stands in the key. Where the runs of all settings are in one phase or the other at the same time, to a factor of two,
    the phases are shaded; else a mark on each curve is where its phase II begins.
    """
    with matplotlib.rc_context(style.parameters()):
        return _draw(sweep, data, drawn, count, title, width, dpi)


def _draw(sweep: xr.Dataset, data: Mapping[str, xr.Dataset], drawn: Sequence[Curve], count: int, title: str,
          width: float | None, dpi: float | None) -> Figure:
    across = min(len(data), 2 if len(data) != 3 else 3)
    down = math.ceil(len(data) / across)
    width = width or (3.25 if across == 1 else 5.5 if across == 2 else 7.2)
    varying = [name for name in axes_of(sweep) if name != "replicate" and len({str(c.values[name]) for c in drawn}) > 1]
    colours, kinds = _looks(drawn, varying)
    words = [", ".join(style.setting_text(name, curve.values[name]) for name in varying) for curve in drawn]
    phases = [phase2_steps(sweep, curve)[0] for curve in drawn]

    panel = 0.76 * (width / across - 0.6)
    key_columns = max(1, int(width / (0.45 + 0.055 * max(map(len, (_plain_text(w) for w in words)), default=1))))
    key_lines = math.ceil(len(drawn) / key_columns) if varying else 0
    notes = _notes(data, drawn, count, phases)
    foot = 0.16 * key_lines + 0.115 * len(notes) + 0.2
    title = style.broken(title, width - 0.1)
    head = 0.2 + 0.12 * title.count("\n") if title else 0.05
    between = 0.45  # a row's tick labels and the next one's title
    height = head + down * (panel + between) + 0.13 + foot
    figure = Figure(figsize=(width, height))
    figure.set_dpi(dpi or 300)
    left, right = 0.5, 0.08
    step = (width - right + 0.12) / across
    shared = _shared_phase(phases)
    for index, (field, one) in enumerate(data.items()):
        row, column = divmod(index, across)
        x0 = left + column * step
        y0 = height - head - row * (panel + between) - panel - 0.17
        ax = figure.add_axes((x0 / width, y0 / height, (step - left - 0.08) / width, panel / height))
        _panel(ax, sweep, field, one, drawn, colours, kinds, phases, shared)
        if row == down - 1 or index + across >= len(data):
            ax.set_xlabel("SGD step", labelpad=1.5)
    if title:
        figure.text(0.02, 1 - 0.06 / height, title, va="top", color=style.MUTED, linespacing=1.1)
    y = foot - 0.05
    if varying:
        for at, (text, colour, kind) in enumerate(zip(words, colours, kinds)):
            line, column = divmod(at, key_columns)
            x = 0.12 + column * (width - 0.12) / key_columns
            yy = y - 0.16 * line - 0.06
            figure.add_artist(Line2D([x / width, (x + 0.24) / width], [yy / height] * 2, color=colour, linestyle=kind, linewidth=1.3,
                                     transform=figure.transFigure))
            figure.text((x + 0.3) / width, yy / height, text, va="center", fontsize=6.2)
        y -= 0.16 * key_lines
    for line, text in enumerate(notes):
        figure.text(0.12 / width, (y - 0.04 - 0.115 * line) / height, text, va="top", fontsize=6.2, color=style.MUTED)
    return figure


def _plain_text(text: str) -> str:
    return text.replace("$", "").replace("{", "").replace("}", "").replace("\\eta", "η").replace("\\times", "×").replace("^", "")


def _notes(data: Mapping[str, xr.Dataset], drawn: Sequence[Curve], count: int, phases: Sequence[float]) -> list[str]:
    any_field = next(iter(data.values()))
    edges = any_field["quantile"].values
    most = int(max(int(one.n.isel(curve.place).max()) for one in data.values() for curve in drawn))
    notes = []
    if most > 1:
        notes.append(f"line: median of {most} runs; band: from the {100 * edges[0]:g} % to the {100 * edges[-1]:g} % quantile")
    else:
        notes.append("one run each")
    if len(drawn) < count:
        notes[-1] += f"; {len(drawn)} of {count} settings"
    if _shared_phase(phases) is not None:
        notes.append("shaded: phase I, then phase II, from the median step on")
    elif any(math.isfinite(step) for step in phases):
        notes.append("dot: phase II begins (median over the runs)")
    return notes


def _looks(drawn: Sequence[Curve], varying: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """A colour and a kind of line for each curve."""
    if not varying:
        return [style.OUTCOME_COLOURS["converged"]] * len(drawn), ["-"] * len(drawn)
    # The axis with most values has the colours, the kinds of lines are few.
    values = {name: list(dict.fromkeys(curve.values[name] for curve in drawn)) for name in varying}
    ranked = sorted(varying, key=lambda name: -len(values[name]))
    first, second = ranked[0], next((name for name in ranked[1:] if len(values[name]) <= len(_LINES)), None)
    ordered = sorted(values[first])
    ramp = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.86, len(ordered)))[:, :3]
    if len(ordered) <= 2:
        ramp = np.array([to_rgb(style.OUTCOME_COLOURS["converged"]), to_rgb(style.OUTCOME_COLOURS["diverged"])])
    colours = [tuple(ramp[ordered.index(curve.values[first])]) for curve in drawn]
    kinds = [_LINES[values[second].index(curve.values[second])] if second else "-" for curve in drawn]
    return colours, kinds


def _shared_phase(phases: Sequence[float]) -> float | None:
    """The step at which phase II begins for all curves, if they agree to a factor of two."""
    finite = [step for step in phases if math.isfinite(step) and step > 0]
    if not finite or len(finite) < len(phases) or max(finite) > 2 * min(finite):
        return None
    return float(np.exp(np.mean(np.log(finite))))


def _panel(ax: Any, sweep: xr.Dataset, field: str, one: xr.Dataset, drawn: Sequence[Curve], colours: Sequence[Any],
           kinds: Sequence[Any], phases: Sequence[float], shared: float | None) -> None:
    steps = sweep.step.values.astype(float)
    # Step 0 has a place of its own, left of step 1: linear up to 1, then logarithmic.
    ax.set_xscale("symlog", linthresh=1, linscale=0.35)
    ax.set_xlim(0, steps[-1])
    ends = []
    for curve, colour, kind, phase2 in zip(drawn, colours, kinds, phases):
        at = one.isel(curve.place)
        middle = np.where(np.isinf(at["median"].values), np.nan, at["median"].values)
        low, high = (np.where(np.isinf(edge), np.nan, edge) for edge in (at["quantiles"].values[0], at["quantiles"].values[-1]))
        if int(at.n.max()) > 1:
            # A band whose upper edge has diverged goes out of the panel.
            beyond = 1e6 * np.nanmax(np.abs(np.concatenate([high, low])), initial=1.0)
            top = np.where(np.isinf(at["quantiles"].values[-1]) & ~np.isnan(low), beyond, high)
            ax.fill_between(steps, low, top, color=colour, alpha=0.16, linewidth=0, zorder=2)
        ax.plot(steps, middle, color=colour, linestyle=kind, linewidth=1.1, zorder=3)
        ends += [low, np.where(np.isnan(high), middle, high), middle]
        if shared is None and math.isfinite(phase2) and np.isfinite(middle).any():
            record = int(np.searchsorted(steps, phase2))
            if record < steps.size and np.isfinite(middle[record]):
                ax.plot(steps[record], middle[record], "o", color=colour, markersize=3, markeredgecolor="white",
                        markeredgewidth=0.4, zorder=4)
    _scale_y(ax, field, np.concatenate(ends) if ends else np.zeros(1))
    if shared is not None:
        ax.axvspan(0, shared, color=PHASE1, linewidth=0, zorder=0)
        ax.axvspan(shared, steps[-1], color=PHASE2, linewidth=0, zorder=0)
        for x, text, align in ((0, " I", "left"), (steps[-1], "II ", "right")):
            ax.text(x, 0.98, text, transform=ax.get_xaxis_transform(), va="top", ha=align, fontsize=6.2, color=style.MUTED)
    last = int(math.floor(math.log10(max(steps[-1], 1))))
    every = max(1, math.ceil((last + 1) / 4))
    ax.set_xticks([0, *(10.0**power for power in range(0, last + 1, every))])
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == 0 else "1" if value == 1 else
                                               f"$10^{{{round(math.log10(value))}}}$"))
    ax.set_title(LABELS[field], loc="left", pad=3)


def _scale_y(ax: Any, field: str, values: np.ndarray) -> None:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        ax.set_ylim(0, 1)
        return
    low, high = float(finite.min()), float(finite.max())
    if field in SIGNED:
        # What diverges must not flatten the rest.
        core = np.quantile(np.abs(finite), 0.95)
        if high - low > 20 * core > 0:
            ax.set_yscale("symlog", linthresh=max(core, 1e-12))
        else:
            room = 0.05 * (high - low) or 0.5
            ax.set_ylim(low - room, high + room)
            ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
        ax.axhline(0, color=style.MUTED, linewidth=0.5, zorder=1)
        return
    positive = finite[finite > 0]
    if positive.size == 0:
        ax.set_ylim(0, 1)
        return
    ax.set_yscale("log", nonpositive="mask")
    low, high = float(positive.min()), float(positive.max())
    # Below 1e-16 of the largest there is rounding alone.
    low = max(low, high * 1e-18)
    factor = max((high / low) ** 0.05, 1.1)
    ax.set_ylim(low / factor, high * factor)
