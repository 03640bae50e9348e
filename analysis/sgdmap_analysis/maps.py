"""Maps: a quantity over two axes of the grid as colour, small multiples over the other axes.

What is drawn comes from `cell_statistics` (numbers) and the classes below it (colours); where it is drawn is decided
in inches by `draw_map`, so that a figure fits a column of a paper to the point. A map of many cells is laid out the
other way round: cells have whole pixels, and the pixels an inch follow.
"""
from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Mapping, Sequence

import contourpy
import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from . import style
from .errors import ArgumentError
from .statistics import convergence, most_frequent, outcome_counts, wilson_interval
from .sweep import FINAL_OUTCOMES, axes_of, check_axis, flag_codes, has_outcome

QUANTITIES = ("probability", "outcome", "final_error", "steps", "phase1")

# Drawing more small multiples than this helps nobody.
MAX_PANELS = 64

# More cells than this become an image inside a pdf or svg: as single shapes they would choke its readers.
_RASTER_CELLS = 20_000

# What matplotlib's Agg can draw, and a picture of 1 GB while it is drawn.
_MAX_SIDE = 2**16 - 1
_MAX_PIXELS = 2**28


# -- Axes --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One axis of a map: n cells, each around a value of the grid.

    scale
        'linear' or 'log', as the values are spaced; 'ordinal' for numbers without such a spacing (0 before a log
        range), drawn at equal distances; 'categorical' for names.
    centres, edges
        [n] and [n + 1], in data coordinates: values, or 0, 1, ... where the scale is ordinal or categorical.
    """

    name: str
    values: np.ndarray
    scale: str
    centres: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> Axis:
        # A replicate's number is its name: nothing lies between two of them.
        scale = "categorical" if name == "replicate" else axis_scale(values)
        # Fresh samples are not one sample less than one.
        if name == "data" and values[0] == 0 and values.size > 1:
            scale = "ordinal"
        centres = np.arange(values.size, dtype=float) if scale in ("ordinal", "categorical") else values.astype(float)
        return cls(name, values, scale, centres, cell_edges(centres, scale))

    def scaled(self, positions: np.ndarray) -> np.ndarray:
        """Positions where distances are those on paper."""
        return np.log10(positions) if self.scale == "log" else np.asarray(positions, dtype=float)

    def unscaled(self, positions: np.ndarray) -> np.ndarray:
        return 10.0**positions if self.scale == "log" else positions

    def is_even(self) -> bool:
        """Whether all cells are equally wide on paper: no edge is off by more than a tenth of a cell."""
        edges = self.scaled(self.edges)
        even = np.linspace(edges[0], edges[-1], edges.size)
        return bool(np.abs(edges - even).max() <= 0.1 * (even[1] - even[0]))

    def evenly(self) -> Axis:
        """This axis if its cells are equally wide, else its values at equal distances."""
        if self.is_even():
            return self
        centres = np.arange(self.values.size, dtype=float)
        return Axis(self.name, self.values, "ordinal", centres, cell_edges(centres, "ordinal"))


def axis_scale(values: np.ndarray) -> str:
    """'linear', 'log', 'ordinal' or 'categorical': how ascending values [n] are spaced."""
    if not np.issubdtype(values.dtype, np.number):
        return "categorical"
    values = values.astype(float)
    if values[0] > 0:
        return "log" if _log_spaced(values) else "linear"
    # A range of magnitudes after a zero has no scale of its own.
    if values[0] == 0 and values.size > 3 and _log_spaced(values[1:]) and values[-1] / values[1] >= 8:
        return "ordinal"
    return "linear"


def _log_spaced(values: np.ndarray) -> bool:
    """Whether positive values are more evenly spaced by ratio than by difference. Two values cannot tell."""
    if values.size < 3:
        return False

    def unevenness(gaps: np.ndarray) -> float:
        return float(np.std(gaps) / np.mean(gaps))

    # The margin keeps rounding from deciding where both are even, as for values 1e-9 apart.
    return unevenness(np.diff(np.log(values))) < unevenness(np.diff(values)) - 1e-6


def cell_edges(centres: np.ndarray, scale: str) -> np.ndarray:
    """Edges [n + 1] of cells around ascending centres [n]: midway between neighbours (geometrically where the scale is
    'log'), the first and last centre in the middle of theirs."""
    positions = np.log10(centres) if scale == "log" else np.asarray(centres, dtype=float)
    if positions.size == 1:
        half = 0.15 if scale == "log" else 0.5 * abs(positions[0]) or 0.5
        edges = np.array([positions[0] - half, positions[0] + half])
    else:
        middle = (positions[:-1] + positions[1:]) / 2
        edges = np.concatenate([[2 * positions[0] - middle[0]], middle, [2 * positions[-1] - middle[-1]]])
    return 10.0**edges if scale == "log" else edges


def choose_axes(sweep: xr.Dataset, x: str | None, y: str | None) -> tuple[str, str]:
    """The axes to draw over: those asked for, else step_size and init_scale if they vary, else the longest."""
    for axis in (x, y):
        if axis is not None:
            check_axis(sweep, axis)
    if x is not None and x == y:
        raise ArgumentError(f"x and y are both {x}")
    # Replicates are averaged over unless asked for; of equally long axes the usual ones first.
    usual = [name for name in ("step_size", "init_scale", "teacher_norm", "dimension", "batch_size", "link", "input", "noise", "data",
                               "teacher", "schedule", "gradient") if name in sweep.coords]
    preferred = [name for name in usual[:2] if sweep.sizes[name] > 1]
    by_length = sorted(usual, key=lambda name: -sweep.sizes[name])
    candidates = [name for name in dict.fromkeys([*preferred, *by_length]) if name not in (x, y)]
    if x is None:
        x = candidates.pop(0)
    if y is None:
        y = candidates.pop(0)
    return x, y


# -- Numbers -----------------------------------------------------------------------------------------------------------


def cell_statistics(sweep: xr.Dataset, x: str, y: str, confidence: float = 0.95) -> xr.Dataset:
    """Everything a map can show, over replicates (unless they are an axis of the map).

    Returns a Dataset [other axes, y, x] of `counts` [outcome, ...]; `n`, `k`, `probability`, `low`, `high` (see
    `statistics.convergence`); `most_frequent`, `share` (see `statistics.most_frequent`); and medians over
    replicates: `final_error` of the runs with an outcome, infinite for those that diverged; `converged_step` of the
    runs that converged; `diverged_step`, the steps done by those that diverged; `phase1`, the length of phase I in
    steps, of the runs that reached phase II and did not diverge. Medians are NaN where there is no such run.
    `phase2_k` counts the runs behind `phase1`, out of `n`; `phase2_low`, `phase2_high` are Wilson's interval of their
    share. `phase1` and these are left out where the file has no `phase2_step`.
    """
    over = tuple(name for name in ("replicate",) if name not in (x, y))
    counts = outcome_counts(sweep.status, over)
    cells = xr.merge([convergence(counts, confidence), most_frequent(counts)])
    cells["counts"] = counts

    codes = flag_codes(sweep.status)
    converged = sweep.status == codes["converged"]
    diverged = sweep.status == codes["diverged"]
    results = {
        "final_error": xr.where(diverged, np.inf, sweep.final_error).where(has_outcome(sweep.status)),
        "converged_step": sweep.converged_step.where(converged),
        "diverged_step": sweep.steps_done.where(diverged),
    }
    if "phase2_step" in sweep:
        # A run that met the conditions for a few records and then diverged had no phase II: nothing converged in it.
        results["phase1"] = sweep.phase2_step.where(has_outcome(sweep.status) & ~diverged)
        cells["phase2_k"] = results["phase1"].notnull().sum(over)
        low, high = wilson_interval(cells.phase2_k.values, cells.n.values, confidence)
        cells["phase2_low"], cells["phase2_high"] = cells.n.copy(data=low), cells.n.copy(data=high)
    for name, result in results.items():
        cells[name] = _median(result, over)
    others = [name for name in axes_of(sweep) if name not in (x, y, *over)]
    return cells.assign_attrs(confidence=confidence).transpose("outcome", *others, y, x)


def _median(values: xr.DataArray, over: tuple[str, ...]) -> xr.DataArray:
    """The median over the dimensions, NaN left out and infinities kept."""
    if not over:
        return values
    # np.nanmedian falls back to a Python loop and warns of empty cells; sorting puts NaN last.
    ordered = np.sort(values.transpose(..., *over).values, axis=-1)
    count = np.isfinite(ordered).sum(-1) + np.isposinf(ordered).sum(-1)
    low, high = (np.take_along_axis(ordered, np.maximum(middle, 0)[..., None], -1)[..., 0]
                 for middle in ((count - 1) // 2, count // 2))
    median = np.where(np.isinf(low) | np.isinf(high), high, (low + high) / 2)
    # An empty cell's first value is NaN already.
    return values.isel({over[0]: 0}, drop=True).copy(data=median)


def check_quantities(cells: xr.Dataset, quantities: Sequence[str]) -> None:
    """An ArgumentError where the file has nothing to draw one of them from."""
    if "phase1" in quantities and "phase1" not in cells:
        raise ArgumentError("phase1: the file has no 'phase2_step'")


def map_numbers(cells: xr.Dataset, x: str, y: str, quantities: Sequence[str]) -> dict[str, Any]:
    """What the map shows as plain numbers, ready for JSON: arrays are [y][x], NaN and infinity are None."""
    check_quantities(cells, quantities)
    facets = [name for name in cells.n.dims if name not in (x, y)]

    def plain(array: xr.DataArray) -> Any:
        values = array.transpose(y, x).values
        if np.issubdtype(values.dtype, np.floating):
            values = np.where(np.isfinite(values), values, None)
        return values.tolist()

    def axis(name: str) -> dict[str, Any]:
        values = cells[name].values
        return {"name": name, "scale": Axis.of(name, values).scale, "values": values.tolist()}

    names = ["n", "k", "probability", "low", "high", "most_frequent", "share"]
    names += [name for name in ("final_error",) if name in quantities]
    names += [name for name in ("converged_step", "diverged_step") if "steps" in quantities]
    names += [name for name in ("phase1", "phase2_k", "phase2_low", "phase2_high") if "phase1" in quantities]
    panels = []
    for place in itertools.product(*(range(cells.sizes[name]) for name in facets)):
        panel = cells.isel(dict(zip(facets, place)))
        panels.append({
            "where": {name: panel[name].item() for name in facets},
            **{name: plain(panel[name]) for name in names},
            "counts": {str(name): plain(panel.counts.sel(outcome=name)) for name in cells.outcome.values},
        })
    return {"order": ["y", "x"], "x": axis(x), "y": axis(y), "panels": panels}


# -- Colours -----------------------------------------------------------------------------------------------------------


def _rgba(colours: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """RGBA [..., 4]: opaque where shown, else clear, so that the hatched ground of the panel is seen."""
    return np.concatenate([colours, np.where(shown, 1.0, 0.0)[..., None]], axis=-1)


def _log_norm(values: np.ndarray, factor: float = 10.0) -> LogNorm:
    """A log norm over the finite positive values, at least a factor wide."""
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if values.size else (0.1, 1.0)
    if high < factor * low:
        middle = math.sqrt(low * high)
        low, high = middle / math.sqrt(factor), middle * math.sqrt(factor)
    return LogNorm(low, high)


def _log_colours(values: np.ndarray, cmap: Any, norm: LogNorm) -> np.ndarray:
    """sRGB [..., 3]; a value of exactly 0 (a student that starts at its teacher) has the colour of the smallest."""
    # Flat, since LogNorm takes no more than two dimensions.
    return cmap(norm(np.maximum(values, norm.vmin).ravel()))[:, :3].reshape(*values.shape, 3)


@dataclass(frozen=True)
class ColourBar:
    """A continuous key."""

    cmap: Any
    norm: Normalize
    label: str = ""
    mark: float | None = None


@dataclass(frozen=True)
class Swatch:
    """A discrete key: a ramp of colours, or the hatched ground where there are none."""

    label: str
    colours: np.ndarray | None


@dataclass(frozen=True)
class Line:
    """Where `values`, a DataArray [other axes, y, x], are 1/2, interpolated between the centres of cells."""

    values: xr.DataArray
    colour: str = style.INK
    width: float = 0.8
    dashes: tuple[float, float] | None = None
    halo: bool = True


@dataclass(frozen=True)
class Layer:
    """One quantity made ready to draw.

    image
        RGBA DataArray [other axes, y, x, rgba].
    lines, line_note
        What is drawn over it, the last on top, and what the key says of that.
    """

    title: str
    image: xr.DataArray
    bars: list[ColourBar]
    swatches: list[Swatch]
    note: str
    lines: tuple[Line, ...] = ()
    line_note: str = ""

    def without_lines(self) -> Layer:
        return replace(self, lines=(), line_note="", bars=[replace(bar, mark=None) for bar in self.bars])


def layer(quantity: str, cells: xr.Dataset) -> Layer:
    """The colours and the key of a quantity; see QUANTITIES."""
    painters = {"probability": _probability, "outcome": _outcome, "final_error": _final_error, "steps": _steps,
                "phase1": _phase1}
    check_quantities(cells, [quantity])
    image, bars, swatches, note = painters[quantity](cells)
    titles = {
        "probability": "Probability of convergence",
        "outcome": "Outcome" if cells.n.max() <= 1 else "Most frequent outcome",
        "final_error": "Final error" if cells.n.max() <= 1 else "Median final error",
        "steps": "Steps to convergence or divergence",
        "phase1": "Length of phase I" if cells.n.max() <= 1 else "Median length of phase I",
    }
    lines, line_note = [Line(cells.probability)], "line: probability of convergence 1/2"
    if quantity == "probability":
        line_note = ""
        if cells.n.max() > 1:
            # Only where the probability itself is drawn: elsewhere the lines would hide the colours they do not
            # explain. The lower end is 1/2 where the probability is high and its blue dark, the upper one where it is
            # pale.
            known = cells.n > 0
            lines = [Line(cells[bound].where(known), colour, 0.5, (3.2, 1.8), halo=False)
                     for bound, colour in (("low", "white"), ("high", style.INK))] + lines
            decided = ((cells.low >= 0.5) | (cells.high < 0.5)) & known
            line_note = ("line: 1/2; dashed: where an end of the interval is 1/2" if decided.any()
                         else "line: 1/2; no cell has enough runs to tell its side of it")
    elif quantity != "final_error":
        lines, line_note = [], ""
    return Layer(titles[quantity], xr.DataArray(image, dims=(*cells.n.dims, "rgba")), bars, swatches, note, tuple(lines),
                 line_note)


def _nothing(cells: xr.Dataset) -> list[Swatch]:
    """The key of cells without a result: hatched where runs are to come; failures in words of their own."""
    outcome = cells.most_frequent.values
    swatches = []
    if (outcome == "pending").any():
        swatches.append(Swatch("not run yet", None))
    if (outcome == "failed").any():
        swatches.append(Swatch("failed", _single("failed")))
    return swatches


def _single(outcome: str) -> np.ndarray:
    return np.array([to_rgb(style.OUTCOME_COLOURS[outcome])])


def _over_failed(colours: np.ndarray, shown: np.ndarray, cells: xr.Dataset) -> np.ndarray:
    failed = cells.most_frequent.values == "failed"
    return _rgba(np.where(failed[..., None], to_rgb(style.OUTCOME_COLOURS["failed"]), colours), shown | failed)


def _interval_note(cells: xr.Dataset) -> str:
    """'4 runs per cell; 95 % Wilson interval up to ±0.35': the widest Wilson interval of the map."""
    n = cells.n.values[cells.n.values > 0]
    if n.size == 0:
        return ""
    width = float(((cells.high - cells.low) / 2).where(cells.n > 0).max())
    count = f"{n.min()}" if n.min() == n.max() else f"{n.min()} to {n.max()}"
    runs = "run" if n.max() == 1 else "runs"
    return f"{count} {runs} per cell; {100 * cells.attrs['confidence']:g} % Wilson interval up to ±{width:.2f}"


def _probability(cells: xr.Dataset) -> tuple:
    p = cells.probability.values
    image = _over_failed(style.PROBABILITY(np.nan_to_num(p))[..., :3], np.isfinite(p), cells)
    bar = ColourBar(style.PROBABILITY, Normalize(0, 1), mark=0.5)
    return image, [bar], _nothing(cells), _interval_note(cells)


def _outcome(cells: xr.Dataset) -> tuple:
    outcome, share = cells.most_frequent.values, cells.share.values
    base = np.zeros((*outcome.shape, 3))
    for name in FINAL_OUTCOMES:
        base[outcome == name] = to_rgb(style.OUTCOME_COLOURS[name])
    image = _over_failed(style.tinted(base, style.share_strength(share)), np.isfinite(share), cells)
    ramp = np.linspace(1 / 3, 1, 5) if cells.n.max() > 1 else np.ones(1)
    swatches = [
        Swatch(name, style.tinted(np.tile(_single(name), (ramp.size, 1)), style.share_strength(ramp)))
        for name in FINAL_OUTCOMES
        if (outcome == name).any()
    ]
    note = "paler where replicates disagree" if cells.n.max() > 1 else ""
    return image, [], swatches + _nothing(cells), note


def _final_error(cells: xr.Dataset) -> tuple:
    error = cells.final_error.values
    norm = _log_norm(error)
    cmap = matplotlib.colormaps["viridis"]
    colours = _log_colours(np.where(np.isfinite(error), error, norm.vmin), cmap, norm)
    diverged = np.isposinf(error)
    colours[diverged] = to_rgb(style.OUTCOME_COLOURS["diverged"])
    swatches = [Swatch("diverged", _single("diverged"))] if diverged.any() else []
    image = _over_failed(colours, ~np.isnan(error), cells)
    return image, [ColourBar(cmap, norm)], swatches + _nothing(cells), ""


def _steps(cells: xr.Dataset) -> tuple:
    outcome = cells.most_frequent.values
    image = np.zeros((*outcome.shape, 4))
    # Neither: a neutral light tone, so that both hues fade towards it from their sides.
    neither = np.isin(outcome, ("stalled", "unfinished"))
    blank = np.array([to_rgb(style.NEITHER)])
    image[neither] = (*blank[0], 1)
    bars = []
    for name, values, cmap, label in (
        ("converged", cells.converged_step.values, style.CONVERGENCE_STEPS, "steps to convergence"),
        ("diverged", cells.diverged_step.values, style.DIVERGENCE_STEPS, "steps to divergence"),
    ):
        here = (outcome == name) & np.isfinite(values)
        if here.any():
            # Three, not ten: colours are scarce where neighbours differ by few steps. Less might hold no 1, 2 or 5.
            norm = _log_norm(values[here], 3.0)
            image[here, :3] = _log_colours(values[here], cmap, norm)
            image[here, 3] = 1
            bars.append(ColourBar(cmap, norm, label))
    names = [name for name in ("stalled", "unfinished") if (outcome == name).any()]
    swatches = [Swatch("neither", blank)] if names else []
    failed = outcome == "failed"
    image[failed] = (*_single("failed")[0], 1)
    notes = [f"neither: {' or '.join(names)}"] if names else []
    notes += ["median of the runs of the most frequent outcome"] if cells.n.max() > 1 else []
    note = "; ".join(notes)
    return image, bars, swatches + _nothing(cells), note


# From dark (short) to pale, and not so pale that a long phase I looks like none.
PHASE1_STEPS = style.ramp("sgdmap_phase1", ["#2a0a4a", "#31688e", "#35b779", "#a6e08a"])


def _phase1(cells: xr.Dataset) -> tuple:
    """Each cell in the colour of the most frequent of three: reached phase II, did not, diverged.

    Ties go to divergence, then to no phase II: what has the colour of a length reached phase II in more than half of
    the runs that did not diverge.
    """
    diverged = cells["counts"].sel(outcome="diverged").transpose(*cells.n.dims).values
    reached = cells.phase2_k.values
    never = cells.n.values - diverged - reached
    known = cells.n.values > 0
    is_diverged = known & (diverged >= np.maximum(never, reached))
    is_never = known & ~is_diverged & (never >= reached)
    is_reached = known & ~is_diverged & ~is_never

    length = cells.phase1.values
    norm = _log_norm(length[is_reached], 3.0)
    colours = _log_colours(np.where(is_reached, length, norm.vmin), PHASE1_STEPS, norm)
    colours[is_diverged] = to_rgb(style.OUTCOME_COLOURS["diverged"])
    colours[is_never] = to_rgb(style.NEITHER)
    bars = [ColourBar(PHASE1_STEPS, norm, "steps of phase I")] if is_reached.any() else []
    swatches = [Swatch("diverged", _single("diverged"))] if is_diverged.any() else []
    swatches += [Swatch("no phase II", np.array([to_rgb(style.NEITHER)]))] if is_never.any() else []
    note = "median of runs with phase II, where most have it" if cells.n.max() > 1 else ""
    return _over_failed(colours, known, cells), bars, swatches + _nothing(cells), note


# -- Layout ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facets:
    """The small multiples: panel [row][column] shows `cells.isel(rows[row] | columns[column])`.

    `wrapped`: one axis only, broken into lines; each panel has its own label, and `grid_columns` are drawn a line.
    """

    rows: list[tuple[str, dict[str, int]]]
    columns: list[tuple[str, dict[str, int]]]
    wrapped: bool
    grid_rows: int
    grid_columns: int

    def panels(self) -> list[tuple[int, int, str, dict[str, int]]]:
        """(row, column, own label, indexers) of each panel."""
        if self.wrapped:
            return [(i // self.grid_columns, i % self.grid_columns, label, place)
                    for i, (label, place) in enumerate(self.columns)]
        return [(r, c, "", row[1] | column[1])
                for r, row in enumerate(self.rows) for c, column in enumerate(self.columns)]


def facets(cells: xr.Dataset, x: str, y: str) -> Facets:
    """One axis along the columns; of two the longer along the rows; of more the longest along the columns and the
    product of the others along the rows."""
    varying = [name for name in cells.n.dims if name not in (x, y) and cells.sizes[name] > 1]
    count = math.prod(cells.sizes[name] for name in varying)
    if count > MAX_PANELS:
        sizes = " x ".join(f"{cells.sizes[name]} {name}" for name in varying)
        raise ArgumentError(f"{count} panels ({sizes}) are too many to draw: choose some values with --where")

    def labelled(names: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
        places = itertools.product(*(range(cells.sizes[name]) for name in names))
        return [
            ("\n".join(style.setting_text(name, cells[name].values[i]) for name, i in zip(names, place)),
             dict(zip(names, place)))
            for place in places
        ]

    by_length = sorted(varying, key=lambda name: -cells.sizes[name])
    if len(varying) <= 1:
        columns = varying
    elif len(varying) == 2:
        columns = by_length[1:]
    else:
        columns = by_length[:1]
    rows = [name for name in varying if name not in columns]
    across = labelled(columns)
    if not rows and len(across) > 5:
        lines = math.ceil(len(across) / 5)
        return Facets(labelled(()), across, True, lines, math.ceil(len(across) / lines))
    down = labelled(rows)
    return Facets(down, across, False, len(down), len(across))


# Inches. Text is 7 pt, about 0.1 in high.
_PAD = 0.03
_GAP = 0.07
_BLOCK_GAP = 0.24
_LINE = 0.145
_KEY_BAR = 0.085
_KEY_LINE = 0.15
_SIDE_KEY = 0.98
_MIN_PANEL = 0.8

# Pixels an inch: of a png unless the cells decide, and the fewest at which text can be read.
DPI = 300
_MIN_DPI = 100
# Cells whose size is not asked for are squares of one pixel, unless the map would be a thread, so many times longer
# than wide.
_MAX_ASPECT = 8


def draw_map(
    cells: xr.Dataset,
    x: str,
    y: str,
    quantities: Sequence[str] = ("probability", "outcome"),
    *,
    title: str = "",
    width: float | None = None,
    dpi: float | None = None,
    cell: int | None = None,
    vector: bool = False,
) -> Figure:
    """Draw the quantities of `cell_statistics` over the axes x and y.

    Each quantity is a block of panels with its key; blocks stand side by side where panels stay wide enough, else one
    above the other. The height follows from the content. The figure's own dpi is that to save a png with.

    width
        Inches (default: 5.5, the text width of a NeurIPS paper, or 3.25, a column, for a single panel; more if panels
        would be too small).
    dpi
        Pixels an inch of a png (default: 300).
    cell
        Every cell is a square of so many pixels of a png, nothing between cells is resampled, and no line is drawn
        over them. Of `width` and `dpi`, one follows from the other; without both, text is as large against the map as
        without `cell`. By default, a map with more cells than its panels would have pixels has one pixel a cell
        (several along an axis more than _MAX_ASPECT times shorter than the other).
    vector
        Prepare for pdf and svg, which have no pixels: no `cell`.
    """
    layers = [layer(quantity, cells) for quantity in quantities]
    return draw_layers(cells, x, y, layers, title=title, width=width, dpi=dpi, cell=cell, vector=vector)


def draw_layers(
    cells: xr.Dataset,
    x: str,
    y: str,
    layers: Sequence[Layer],
    *,
    title: str = "",
    width: float | None = None,
    dpi: float | None = None,
    cell: int | None = None,
    vector: bool = False,
    foot: tuple[float, float] = (0.0, 0.0),
) -> Figure:
    """`draw_map` of layers of any kind. `cells` has `n` [other axes, y, x] and the axes' coordinates.

    foot
        Least width of the figure where `width` is not given, and the height left free below everything else, for the
        caller to draw on.
    """
    if cell is not None and vector:
        raise ArgumentError("--cell counts the pixels of a .png; a .pdf or .svg has none")
    if cell is not None and width is not None and dpi is not None:
        raise ArgumentError("--cell, --width and --dpi are one too many: two of them decide the third")
    with matplotlib.rc_context(style.parameters()):
        return _Sheet(cells, x, y, layers, title, width, dpi, vector, foot).draw(cell)


class _CellImage(AxesImage):
    """The image of a panel [y, x, rgba], each of its cells a block of (across, up) whole pixels."""

    def __init__(self, ax: Axes, image: np.ndarray, cell: tuple[int, int]) -> None:
        super().__init__(ax, extent=(0, 1, 0, 1), origin="lower", interpolation="none", transform=ax.transAxes,
                         zorder=1)
        self.set_data(np.round(255 * image).astype(np.uint8))
        self.cell = cell

    def make_image(self, renderer: Any, magnification: float = 1.0, unsampled: bool = False) -> tuple:
        blocks = self._A.repeat(self.cell[1], axis=0).repeat(self.cell[0], axis=1)
        box = self.axes.bbox
        if unsampled or (round(box.height), round(box.width)) != blocks.shape[:2]:
            return super().make_image(renderer, magnification, unsampled)  # a format without pixels, or others' dpi
        # Not matplotlib's resampling: a panel that is wider by a rounding error would get a column of pixels more.
        return blocks, round(box.x0), round(box.y0), None

    def get_window_extent(self, renderer: Any = None) -> Any:
        return self.axes.bbox  # matplotlib takes the extent for data


class _Sheet:
    """The figure while it is laid out. Lengths are inches, heights count from the top."""

    def __init__(self, cells: xr.Dataset, x: str, y: str, layers: Sequence[Layer], title: str,
                 width: float | None, dpi: float | None, vector: bool, foot: tuple[float, float]) -> None:
        self.cells = cells
        self.x, self.y = Axis.of(x, cells[x].values), Axis.of(y, cells[y].values)
        self.layers = list(layers)
        if not _interpolates(self.x, self.y):
            self.layers = [block.without_lines() for block in self.layers]
        self.facets = facets(self.cells, x, y)
        self.title = title
        self.vector = vector
        self.foot = foot
        self.cell: tuple[int, int] | None = None  # pixels of a cell, across and up, if they decide the layout
        self.panel: tuple[float, float] | None = None  # width and height of the panels then
        self.gap = self.line_gap = _GAP  # between the panels of a line, and between lines
        self.overhang = 0.0  # of tick labels beyond the right end of a panel
        single = len(self.layers) * self.facets.grid_columns == 1
        self.width = width or max(3.25 if single else 5.5, foot[0])
        self.fixed_width = width is not None
        self.dpi = dpi or DPI
        self.fixed_dpi = dpi is not None
        self.figure = Figure(figsize=(self.width, 3))
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()

        self.row_label_lines = max(label.count("\n") + 1 if label else 0 for label, _ in self.facets.rows)
        self.y_label = ""

        # Blocks stand side by side if their panels are wide enough to read and their headings fit.
        self.side_by_side = True
        self.block_columns = len(self.layers)
        panel = self._panel_width(0.25, check=False)
        block = self.facets.grid_columns * (panel + self.gap)
        heading = max(self._text_width(text, 7, weight="bold") for text in self._headings())
        if len(self.layers) > 1 and (panel < _MIN_PANEL or heading > block + _BLOCK_GAP / 2):
            self.side_by_side = False
            self.block_columns = 1
        self._label_axes(self._panel_height(self._panel_width(0.25, check=False)))

    def _label_axes(self, height: float) -> None:
        # An axis with one value is no axis: it is told in words (see setting_text), not drawn.
        self.x_label = style.AXIS_LABELS[self.x.name] if self.x.values.size > 1 else ""
        if self.y.values.size > 1:
            room = height * self.facets.grid_rows + 0.25
            self.y_label = "\n".join(self._wrapped(style.AXIS_LABELS[self.y.name], room, 7))

    def draw(self, cell: int | None) -> Figure:
        axes = [self._panels(block) for block in self.layers]
        left, bottom = self._decorations(axes)
        across_up = self._default_cell(left) if cell is None else (cell, cell)
        if across_up is not None:
            left, bottom = self._fit_cells(across_up, axes, left)
        self._place(axes, left, bottom)
        for block, panels in zip(self.layers, axes):
            for (ax, *_), (*_, place) in zip(panels, self.facets.panels()):
                fixed = {name: 0 for name in self.cells.n.dims if name not in (self.x.name, self.y.name, *place)}
                self._paint(ax, block, place | fixed)
        self.figure.set_dpi(self.dpi)
        return self.figure

    # Panels

    def _panels(self, block: Layer) -> list[tuple[Axes, int, int, str]]:
        box = (0.2, 0.2, 0.5, 0.5)
        return [(self.figure.add_axes(box, label=f"panel {id(block)} {row} {column}"), row, column, label)
                for row, column, label, _ in self.facets.panels()]

    def _paint(self, ax: Axes, block: Layer, place: Mapping[str, int]) -> None:
        _ground(ax)
        image = block.image.isel(place).values
        if self.cell is not None or self._rasterized() and self.x.is_even() and self.y.is_even():
            ax.add_image(_CellImage(ax, image, self.cell or (1, 1)))
        else:
            mesh = ax.pcolormesh(self.x.edges, self.y.edges, image[..., 0], rasterized=self._rasterized(), zorder=1)
            mesh.set_array(None)
            mesh.set_facecolor(image.reshape(-1, 4))
            if self.vector and not self._rasterized():
                # Readers of pdf and svg smooth each shape alone: without an overlap, hairlines shine through.
                mesh.set_edgecolor("face")
                mesh.set_linewidth(0.15)
        ax.set_xlim(self.x.edges[[0, -1]])
        ax.set_ylim(self.y.edges[[0, -1]])
        for line in block.lines:
            for line_x, line_y in half_contour(self.x, self.y, line.values.isel(place).values):
                halo = [Stroke(linewidth=line.width + 1, foreground="white", alpha=0.85), Normal()] if line.halo else []
                ax.plot(line_x, line_y, color=line.colour, linewidth=line.width, zorder=3, solid_capstyle="butt",
                        dash_capstyle="butt", linestyle=(0, line.dashes) if line.dashes else "-", path_effects=halo)

    def _rasterized(self) -> bool:
        return self.vector and self.cells.n.size * len(self.layers) > _RASTER_CELLS

    def _decorations(self, axes: list[list[tuple[Axes, int, int, str]]]) -> tuple[float, float]:
        """Room for tick labels left of and below the panels, and between them, measured, not guessed."""
        panel = self._panel_width(0.45)
        height = self._panel_height(panel)
        self.figure.set_size_inches(self.width, 3)
        left = bottom = 0.0
        for panels in axes:
            for ax, *_ in panels:
                ax.set_xscale("log" if self.x.scale == "log" else "linear")
                ax.set_yscale("log" if self.y.scale == "log" else "linear")
                ax.set_xlim(self.x.edges[[0, -1]])
                ax.set_ylim(self.y.edges[[0, -1]])
                ax.set_position((0.2, 0.2, panel / self.width, height / 3))
                _ticks(ax.xaxis, self.x, panel / 0.3)
                _ticks(ax.yaxis, self.y, height / 0.2)
                box = ax.get_window_extent(self.renderer)
                beside, below = (axis.get_tightbbox(self.renderer) for axis in (ax.yaxis, ax.xaxis))
                if beside is not None:
                    left = max(left, (box.x0 - beside.x0) / self.figure.dpi)
                if below is not None:
                    bottom = max(bottom, (box.y0 - below.y0) / self.figure.dpi)
                    over = max(0.0, box.x0 - below.x0), max(0.0, below.x1 - box.x1)
                    self.overhang = max(self.overhang, over[1] / self.figure.dpi)
                    self.gap = max(self.gap, sum(over) / self.figure.dpi + 0.06)
        return left, bottom

    # Cells of whole pixels

    def _default_cell(self, left: float) -> tuple[int, int] | None:
        """The pixels of a cell across and up where panels would have fewer pixels than cells, else None."""
        if self.vector:
            return None
        across, up = self.x.values.size, self.y.values.size
        panel = self._panel_width(left)
        pixels = panel * self.dpi, self._panel_height(panel) * self.dpi
        if across <= pixels[0] and up <= pixels[1]:
            return None
        if self.fixed_width and self.fixed_dpi:
            name, cells, room = min((self.x.name, across, pixels[0]), (self.y.name, up, pixels[1]),
                                    key=lambda axis: axis[2] / axis[1])
            raise ArgumentError(f"--width {self.width:g} and --dpi {self.dpi:g} leave {room:.0f} pixels for {cells} "
                                f"values of {name}: leave one of them out, for one pixel a cell")
        return max(1, round(up / (_MAX_ASPECT * across))), max(1, round(across / (_MAX_ASPECT * up)))

    def _fit_cells(self, cell: tuple[int, int], axes: list[list[tuple[Axes, int, int, str]]],
                   left: float) -> tuple[float, float]:
        """Lay out anew around panels of whole pixels; returns the room left of and below them."""
        self.cell = cell
        self.x, self.y = self.x.evenly(), self.y.evenly()
        # A line along cells as small as pixels hides what it separates.
        self.layers = [block.without_lines() for block in self.layers]
        across, up = cell[0] * self.x.values.size, cell[1] * self.y.values.size
        # Labels depend on the size of the panels, and with a given width that size on the labels.
        for _ in range(3):
            if not self.fixed_dpi:
                self.panel = None
                usual = self._panel_width(left)
                if self.fixed_width:
                    self.dpi = across / usual
                else:
                    self.dpi = max(_MIN_DPI, math.ceil(max(across, up) / usual))
            self.panel = across / self.dpi, up / self.dpi
            self._label_axes(self.panel[1])
            left, bottom = self._decorations(axes)
            if not self.fixed_width:
                break
        if self.fixed_width and self.dpi < _MIN_DPI:
            raise ArgumentError(f"--width {self.width:g} makes {self.dpi:.0f} pixels an inch of {self.x.values.size} "
                                f"cells of {cell[0]} pixels side by side, too few for the text: leave it out, or use "
                                f"--cell {math.ceil(cell[0] * _MIN_DPI / self.dpi)}")
        labels = [label for _, _, label, _ in self.facets.panels()] + [label for label, _ in self.facets.columns]
        self.line_gap = max(_GAP, self._widest([label for label, _ in self.facets.rows]) - self.panel[1] + 0.06)
        if not self.fixed_width:
            over = self._widest(labels) - self.panel[0]
            self.gap = max(self.gap, over + 0.06)
            self.overhang = max(self.overhang, over / 2)
            before, after = self._margins(left)
            blocks = self.block_columns * self._block_width(self.panel[0]) + (self.block_columns - 1) * _BLOCK_GAP
            heading = max(self._text_width(text, 7, weight="bold") for text in self._headings())
            self.width = max(before + blocks + after, before + heading + _PAD, self.foot[0])
        return left, bottom

    def _widest(self, labels: Sequence[str]) -> float:
        return max((self._text_width(label, 7) for label in labels if label), default=0.0)

    def _check_size(self) -> None:
        width, height = (round(length * self.dpi) for length in (self.width, self.height))
        if self.cell is not None and (max(width, height) > _MAX_SIDE or width * height > _MAX_PIXELS):
            raise ArgumentError(f"a picture of {width} x {height} pixels is too large (at most {_MAX_SIDE} a side and "
                                f"{_MAX_PIXELS} in all): choose some values with --where, or a smaller --cell")

    # Sizes

    def _margins(self, left: float) -> tuple[float, float]:
        """Before the first and after the last panel of a line."""
        row_labels = max(0.04, self.overhang) + 0.115 * self.row_label_lines if self.row_label_lines else 0.0
        before = _PAD + (_LINE - 0.12 + 0.12 * len(self.y_label.splitlines()) if self.y_label else 0) + left
        after = max(row_labels, self.overhang) + (_PAD + 0.02 if self.side_by_side else 0.1 + _SIDE_KEY)
        if self.side_by_side and any(isinstance(bar.norm, LogNorm) for bar in self.layers[-1].bars):
            after = max(after, 0.11)  # half the label of a tick at the end of the bar
        return max(before, 0.08), after

    def _headings(self) -> list[str]:
        if len(self.layers) == 1:
            return [self.layers[0].title]
        return [f"{chr(ord('a') + index)}  {block.title}" for index, block in enumerate(self.layers)]

    def _panel_width(self, left: float, check: bool = True) -> float:
        if self.panel is not None:
            return self.panel[0]
        before, after = self._margins(left)
        across = self.block_columns * self.facets.grid_columns
        gaps = (self.block_columns - 1) * _BLOCK_GAP + self.block_columns * (self.facets.grid_columns - 1) * self.gap
        panel = (self.width - before - after - gaps) / across
        if not check:
            return panel
        if panel < _MIN_PANEL and not self.fixed_width:
            panel = _MIN_PANEL
            self.width = before + after + gaps + across * panel
        if panel < 0.25:
            raise ArgumentError(f"a width of {self.width:g} in leaves no room for {across} panels side by side")
        return panel

    def _panel_height(self, panel: float) -> float:
        if self.panel is not None:
            return self.panel[1]
        # A map with few lines is a strip, not a tower of bars.
        return min(0.82 * panel, 2.4, 0.06 + 0.24 * self.y.values.size)

    def _block_width(self, panel: float) -> float:
        """From the left end of a block to the right: its panels, or its words where those are wider."""
        panels = self.facets.grid_columns * panel + (self.facets.grid_columns - 1) * self.gap
        if self.panel is None or not self.side_by_side or self.fixed_width:
            return panels
        words = [self._text_width(text, 7, weight="bold") for text in self._headings()]
        for block in self.layers:
            words.append(sum(max(0.8, self._text_width(bar.label, 6.2) + 0.1) for bar in block.bars)
                         + 0.2 * (len(block.bars) - 1))
            words += [0.3 + self._text_width(swatch.label, 6.2) for swatch in block.swatches]
        return max(panels, *words)

    def _whole(self, length: float) -> float:
        """The length in whole pixels where cells are."""
        return length if self.panel is None else round(length * self.dpi) / self.dpi

    # Placing

    def _place(self, axes: list[list[tuple[Axes, int, int, str]]], left: float, bottom: float) -> None:
        panel = self._panel_width(left)
        height = self._panel_height(panel)
        before, _ = self._margins(left)
        rows, columns = self.facets.grid_rows, self.facets.grid_columns
        line_gap = 0.06 + _LINE if self.facets.wrapped else self.line_gap
        block_width = self._block_width(panel)
        panels_width = columns * panel + (columns - 1) * self.gap
        block_height = rows * height + (rows - 1) * line_gap
        column_labels = self.facets.wrapped or any(label for label, _ in self.facets.columns)

        # First the heights of everything from the top, then the figure's own, then all in its fractions.
        top = _PAD
        texts: list[tuple[float, float, str, dict[str, Any]]] = []
        if self.title:
            for line in self._wrapped(self.title, self.width - before - _PAD, 7):
                texts.append((before, top, line, {"va": "top", "fontsize": 7, "color": style.MUTED}))
                top += _LINE - 0.015
            top += 0.045
        corners = []  # (left, top) of each block's panels
        for index in range(len(self.layers)):
            x0 = before + (index * (block_width + _BLOCK_GAP) if self.side_by_side else 0)
            texts.append((x0, top, self._headings()[index], {"va": "top", "fontweight": "bold"}))
            if not self.side_by_side or index == len(self.layers) - 1:
                top += _LINE + 0.02
                top += _LINE if column_labels else 0.015
            corners.append((x0, top))
            if not self.side_by_side:
                below = bottom + _LINE if index == len(self.layers) - 1 else 0.05
                key = self._key(self.layers[index], 0, 0, _SIDE_KEY - _PAD, block_height, draw=False)
                words = self._text_width(max(self.y_label.splitlines(), key=len, default=""), 7)
                top += max(block_height + below, key, words) + 0.05
        if self.side_by_side:
            corners = [(x0, top) for x0, _ in corners]
            top += block_height + bottom + _LINE + 0.07
        foot = top

        keys = []
        end = foot
        for block, (x0, y0) in zip(self.layers, corners):
            if self.side_by_side:
                keys.append((x0, foot, block_width))
                end = max(end, foot + self._key(block, x0, foot, block_width, None, draw=False))
            else:
                key_x = self.width - _SIDE_KEY
                keys.append((key_x, y0, _SIDE_KEY - _PAD))
                used = self._key(block, key_x, y0, _SIDE_KEY - _PAD, block_height, draw=False)
                end = max(end, y0 + used)
        self.width, self.height = self._whole(self.width), self._whole(end + _PAD + self.foot[1])
        self._check_size()
        # A grain more, since matplotlib cuts off what is no whole pixel.
        grain = 1e-6 / self.dpi
        self.figure.set_size_inches(self.width + grain, self.height + grain)

        for panels, (x0, y0) in zip(axes, corners):
            count = len(panels)
            for i, (ax, row, column, label) in enumerate(panels):
                panel_x = self._whole(x0 + column * (panel + self.gap))
                panel_y = self._whole(y0 + row * (height + line_gap))
                ax.set_position(self._box(panel_x, panel_y, panel, height))
                if self.cell is not None:
                    self._frame(ax, panel_x, panel_y, panel, height)
                ax.tick_params(labelleft=column == 0 and (not self.side_by_side or panels is axes[0]),
                               labelbottom=i + columns >= count and (self.side_by_side or panels is axes[-1]))
                top_label = label if self.facets.wrapped else self.facets.columns[column][0] if row == 0 else ""
                if top_label:
                    texts.append((panel_x + panel / 2, panel_y - 0.03, top_label, {"ha": "center", "va": "bottom"}))
                row_label = "" if self.facets.wrapped else self.facets.rows[row][0]
                last = column == columns - 1 and (not self.side_by_side or panels is axes[-1])
                if row_label and last:
                    texts.append((panel_x + panel + max(0.04, self.overhang), panel_y + height / 2, row_label,
                                  {"ha": "left", "va": "center", "rotation": 270,
                                   "multialignment": "center"}))
            middle_y = y0 + block_height / 2
            if not self.side_by_side or panels is axes[0]:
                texts.append((_PAD, middle_y, self.y_label,
                              {"ha": "left", "va": "center", "rotation": 90, "multialignment": "center"}))
            if self.side_by_side or panels is axes[-1]:
                texts.append((x0 + panels_width / 2, y0 + block_height + bottom + 0.005,
                              self.x_label, {"ha": "center", "va": "top"}))
        for text_x, text_y, text, kind in texts:
            self._text(text_x, text_y, text, **kind)
        for block, (x0, y0, key_width) in zip(self.layers, keys):
            self._key(block, x0, y0, key_width, None if self.side_by_side else block_height, draw=True)

    def _frame(self, ax: Axes, x: float, y: float, width: float, height: float) -> None:
        """A frame of whole pixels around the panel, in place of spines, half of which lie on the outermost cells."""
        line = max(1, round(0.5 / 72 * self.dpi)) / self.dpi
        left, bottom, right, top = self._box(x - line, y - line, width + 2 * line, height + 2 * line)
        self.figure.add_artist(Rectangle((left, bottom), right, top, transform=self.figure.transFigure, linewidth=0,
                                         facecolor=style.INK, antialiased=False, zorder=-1))
        ax.spines[:].set_visible(False)
        ax.set_axisbelow(True)  # nor do ticks lie on cells

    def _box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height

    def _text(self, x: float, y: float, text: str, **kind: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, **kind)

    def _text_width(self, text: str, size: float, **kind: Any) -> float:
        probe = self.figure.text(0, 0, text, fontsize=size, **kind)
        extent = probe.get_window_extent(self.renderer).width / self.figure.dpi
        probe.remove()
        return extent

    # Keys

    def _key(self, block: Layer, x: float, y: float, width: float, tall: float | None, draw: bool) -> float:
        """Bars, swatches and the note of a block in a column of this width; returns the height used.

        `tall` is the block's height where the key stands beside it: bars are upright then.
        """
        used = 0.0
        lying = tall is None
        if block.bars and lying:
            share = (width - (len(block.bars) - 1) * 0.2) / len(block.bars)
            for index, bar in enumerate(block.bars):
                if draw:
                    self._bar(bar, x + index * (share + 0.2), y, share, _KEY_BAR, lying)
            used += _KEY_BAR + 0.185 + (_LINE if any(bar.label for bar in block.bars) else 0)
        elif block.bars:
            words = max(self._text_width(bar.label, 6.2) for bar in block.bars)
            length = min(max(tall - 0.45, 0.5, words), 1.5)
            for index, bar in enumerate(block.bars):
                if draw:
                    self._bar(bar, x + index * 0.52, y, _KEY_BAR, length, lying)
            used += length + 0.1
        size = 6.2
        if block.swatches:
            # Columns of one width, and lines as equally full as can be.
            box = 0.24
            entry = max(box + 0.04 + self._text_width(swatch.label, size) for swatch in block.swatches) + 0.1
            across = max(1, int((width + 0.1) / entry))
            lines = math.ceil(len(block.swatches) / across)
            across = math.ceil(len(block.swatches) / lines)
            spread = min(width / across, entry + 0.25)
            for index, swatch in enumerate(block.swatches):
                line, column = divmod(index, across)
                if draw:
                    at = x + column * spread, y + used + line * _KEY_LINE
                    self._swatch(swatch, *at, box)
                    self._text(at[0] + box + 0.04, at[1] + _KEY_BAR / 2, swatch.label, fontsize=size,
                               va="center_baseline")
            used += lines * _KEY_LINE
        for note in filter(None, (block.note, block.line_note)):
            for line in self._wrapped(note, width, size):
                if draw:
                    self._text(x, y + used - 0.01, line, fontsize=size, va="top", color=style.MUTED)
                used += 0.115
        return used

    def _wrapped(self, text: str, width: float, size: float) -> list[str]:
        lines = [""]
        for word in text.split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self._text_width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def _bar(self, bar: ColourBar, x: float, y: float, width: float, height: float, lying: bool) -> None:
        cax = self.figure.add_axes(self._box(x, y, width, height), label=f"bar {x} {y}")
        colorbar = self.figure.colorbar(ScalarMappable(bar.norm, bar.cmap), cax=cax,
                                        orientation="horizontal" if lying else "vertical")
        colorbar.outline.set_linewidth(0.5)
        colorbar.solids.set_edgecolor("face")  # no hairlines in vector output
        colorbar.solids.set_linewidth(0.15)
        if isinstance(bar.norm, LogNorm):
            _log_ticks(colorbar.ax.xaxis if lying else colorbar.ax.yaxis, bar.norm.vmin, bar.norm.vmax,
                       (width if lying else height) / 0.3)
        else:
            few = (width if lying else height) < 1.1
            colorbar.set_ticks(np.linspace(bar.norm.vmin, bar.norm.vmax, 3 if few else 5))
            (cax.xaxis if lying else cax.yaxis).set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if bar.mark is not None:
            draw = cax.axvline if lying else cax.axhline
            draw(bar.mark, color=style.INK, linewidth=0.8,
                 path_effects=[Stroke(linewidth=1.8, foreground="white", alpha=0.85), Normal()])
        if bar.label:
            colorbar.set_label(bar.label, fontsize=6.2, labelpad=1.5)

    def _swatch(self, swatch: Swatch, x: float, y: float, width: float) -> None:
        ax = self.figure.add_axes(self._box(x, y, width, _KEY_BAR), label=f"swatch {x} {y}")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_linewidth(0.4)
        if swatch.colours is None:
            _ground(ax)
        else:
            for i, colour in enumerate(swatch.colours):
                ax.axvspan(i, i + 1, color=colour, linewidth=0)
            ax.set_xlim(0, len(swatch.colours))


def _ground(ax: Axes) -> None:
    """What is seen where there is no result: light grey, hatched. One patch, however many cells it shows through."""
    ax.set_facecolor(style.NO_DATA)
    ax.add_patch(Rectangle((0, 0), 1, 1, transform=ax.transAxes, facecolor="none", edgecolor=style.HATCH,
                           hatch="//////", linewidth=0, zorder=0.5))


def _interpolates(x: Axis, y: Axis) -> bool:
    """Whether something lies between neighbouring cells, so that a line between them has a meaning."""
    return "categorical" not in (x.scale, y.scale) and min(x.values.size, y.values.size) >= 3


def half_contour(x: Axis, y: Axis, probability: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lines (x, y) along which the probability [y, x], interpolated between the centres of cells, is 1/2.

    Empty where it has no meaning: an axis of names or with too few values to interpolate, or the same side of 1/2
    everywhere.
    """
    if not _interpolates(x, y):
        return []
    known = probability[np.isfinite(probability)]
    if known.size == 0 or known.min() >= 0.5 or known.max() < 0.5:
        return []
    # Half a cell of the same value around, so that lines reach the frame; interpolated where distances are those on
    # paper, so that lines are straight on a log axis too.
    ret = []
    for across, up in itertools.product(pieces(x), pieces(y)):
        at_x, at_y = (axis.scaled(np.concatenate([axis.edges[part][:1], axis.centres[part], axis.edges[1:][part][-1:]]))
                      for axis, part in ((x, across), (y, up)))
        padded = np.ma.masked_invalid(np.pad(probability[up, across], 1, mode="edge"))
        lines = contourpy.contour_generator(at_x, at_y, padded).lines(0.5)
        ret += [(x.unscaled(line[:, 0]), y.unscaled(line[:, 1])) for line in lines if len(line) > 1]
    return ret


def pieces(axis: Axis) -> list[slice]:
    """The cells between which something lies: nothing does between fresh samples and a small training set."""
    if axis.name == "data" and axis.values[0] == 0:
        return [slice(0, 1), slice(1, axis.values.size)]
    return [slice(0, axis.values.size)]


def _ticks(mpl_axis: Any, axis: Axis, room: float) -> None:
    """Ticks at the values where they are few or names, else at round numbers; `room`: labels that fit."""
    room = max(1, int(room))
    mpl_axis.set_minor_locator(NullLocator())
    mpl_axis.set_minor_formatter(NullFormatter())
    if axis.values.size == 1:
        mpl_axis.set_major_locator(NullLocator())
    elif axis.scale in ("ordinal", "categorical") or axis.values.size <= min(room, 6):
        # Names are all told, numbers as far as there is room.
        named = not np.issubdtype(axis.values.dtype, np.number)
        step = 1 if named else math.ceil(axis.values.size / room)
        labels = {float(centre): style.value_text(value.item() if hasattr(value, "item") else value, axis.name)
                  for centre, value in list(zip(axis.centres, axis.values))[::step]}
        mpl_axis.set_major_locator(FixedLocator(list(labels)))
        mpl_axis.set_major_formatter(FuncFormatter(lambda position, _: labels.get(float(position), "")))
    elif axis.scale == "log":
        _log_ticks(mpl_axis, axis.edges[0], axis.edges[-1], room)
    else:
        mpl_axis.set_major_locator(MaxNLocator(nbins=min(room, 6), steps=[1, 2, 2.5, 5, 10]))
        mpl_axis.set_major_formatter(FuncFormatter(lambda value, _: style.value_text(round(value, 12))))


def _log_ticks(mpl_axis: Any, low: float, high: float, room: float) -> None:
    """Powers of ten, thinned to those that fit; 1, 2, 5 where the axis holds less than two of them."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = range(first, last + 1)
    if len(powers) >= 2:
        step = max(1, math.ceil(len(powers) / max(1, int(room))))
        # Of the ways to take every step-th, the one in the middle: labels stay off the ends, and off the neighbours.
        spare = (len(powers) - 1) % step
        start = (spare + 1) // 2 if spare or step == 1 else step // 2
        mpl_axis.set_major_locator(FixedLocator([10.0**power for power in powers[start::step]]))
        mpl_axis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{round(math.log10(value))}}}$"))
        if step == 1 and room > 1.5 * len(powers):
            mpl_axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=100))
        else:
            mpl_axis.set_minor_locator(FixedLocator([10.0**power for power in powers]))
    else:
        marks = [factor * 10.0**power for power in range(first - 2, last + 3) for factor in (1, 2, 5)]
        inside = [mark for mark in marks if low <= mark <= high]
        mpl_axis.set_major_locator(FixedLocator(inside[::max(1, math.ceil(len(inside) / max(1, int(room))))]))
        mpl_axis.set_major_formatter(FuncFormatter(lambda value, _: style.value_text(float(f"{value:.6g}"))))
    mpl_axis.set_minor_formatter(NullFormatter())
