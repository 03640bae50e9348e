"""The report: one HTML page that holds a sweep's maps, trajectories, phases and boundaries, and works offline.

`collect` makes the numbers of the page, ready for JSON; `collect_trajectories` the bands of the trajectories; `page` puts both, the
program of the page (the folder report/ beside this file) and plotly.js into one text. `serve` makes the same page without numbers
and hands them out as they come.

All data stand in the page as base64 of gzip: nothing that a result file says can be taken for markup, and 10^5 runs fit into a few
megabytes. The page's content security policy lets only the scripts run whose hashes it lists, and nothing be loaded from elsewhere.
"""
from __future__ import annotations

import base64
import datetime
import gzip
import hashlib
import html
import importlib.util
import itertools
import json
import math
import os
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import xarray as xr

from . import __version__, style
from .errors import ArgumentError, FileError
from .maps import Axis, cell_statistics
from .sweep import axes_of, flag_codes, has_outcome

# More settings than this are merged, so that a browser stays quick and the page small.
MAX_CELLS = 150_000

# What the trajectories may take of the page, in bytes of base64; the whole page is to stay below 15 MB.
TRAJECTORY_BYTES = 5_500_000

# The fields of a trajectory that the page shows, the most telling first; and those that may be negative.
FIELDS = ("error", "potential", "alignment", "loss", "test_loss", "gradient_norm", "weight_norm")
SIGNED_FIELDS = ("potential", "alignment")
FIELD_LABELS = {
    "error": "distance from W*, ‖A−B‖/√d", "potential": "potential g", "alignment": "alignment ρ",
    "loss": "population loss L", "test_loss": "loss on the test set",
    "gradient_norm": "gradient norm ‖∇L‖", "weight_norm": "weight norm ‖W‖₂",
}

# Median and band of the trajectories over the replicates.
QUANTILES = (0.25, 0.5, 0.75)

# Failures listed one by one.
MAX_FAILURES = 1000

# Values read to measure the phases: more would keep the user waiting for minutes.
_MAX_PHASE_VALUES = 60_000_000

# Stands for infinity in JSON.
_INFINITE = 1e300

# Fields and records, from rich to poor, of which the first is taken that fits into the budget.
_LADDER = ((7, 64), (6, 64), (4, 64), (4, 48), (4, 32), (4, 24))

_PARTS = ("format.js", "data.js", "plots.js", "map.js", "detail.js", "sections.js", "table.js", "main.js")

AXIS_LABELS = {
    "dimension": "dimension d", "batch_size": "batch size B", "gradient": "gradient", "data": "training samples N", "input": "input",
    "teacher": "teacher", "teacher_norm": "teacher norm ‖W*‖₂", "link": "link", "noise": "label noise ε",
    "schedule": "step size schedule", "step_size": "step size η", "init_scale": "initialization scale",
}
AXIS_SYMBOLS = {
    "dimension": "d", "batch_size": "B", "gradient": "gradient", "data": "N", "input": "input", "teacher": "teacher",
    "teacher_norm": "‖W*‖₂", "link": "link", "noise": "ε", "schedule": "schedule", "step_size": "η", "init_scale": "init. scale",
}


# -- Numbers -----------------------------------------------------------------------------------------------------------


def setting_axes(sweep: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """The axes of the page: each cell is a setting, over whose replicates the statistics are."""
    return tuple(name for name in axes_of(sweep) if name != "replicate")


def collect(
    sweep: xr.Dataset, confidence: float = 0.95, *, title: str | None = None, file: str = "", resamples: int = 400
) -> dict[str, Any]:
    """Everything that the page shows but the trajectories, ready for JSON.

    Arrays of `cells`, `phases` and `critical` are flat over the settings, in C order of `axes` (`setting_axes`); None is what is
    not known, and a final error of -1 that of runs of which the median diverged. With more than MAX_CELLS settings neighbouring
    ones are merged (see `merge_settings`), which `notes` says.

    Parameters
    ----------
    sweep
        From `open_sweep`, a product of axes.
    confidence
        Of all intervals.
    title, file
        Of the page; the sweep's own title by default.
    resamples
        Of the bootstrap of the boundary.
    """
    notes: list[str] = []
    whole = sweep
    factors = _merge_factors(sweep)
    if factors:
        sweep = merge_settings(sweep, factors)
        notes.append("Neighbouring settings are merged, " + " and ".join(
            f"{factor} values of {AXIS_LABELS[name]}" for name, factor in factors.items())
            + f" at a time: the sweep has {_settings(whole):,} settings, the page {_settings(sweep):,}. Counts are of all runs.")
    numbers = {
        "format": 1,
        "program": f"sgdmap-analysis {__version__}",
        "generated": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": str(sweep.attrs.get("title", "")) if title is None else title,
        "file": file,
        "confidence": confidence,
        **_summary(whole),
        "provenance": provenance(whole),
        "config": str(sweep.attrs.get("config", "")),
        "axes": [_axis(sweep, whole, name, factors.get(name, 1)) for name in setting_axes(sweep)],
        "cells": _cells(sweep, confidence),
        "failures": _failures(whole),
        "phases": _phases(whole, confidence, notes) if not factors else None,
        "critical": _critical(whole, confidence, resamples, notes) if not factors else [],
        "notes": notes,
        "style": _style(),
    }
    if factors:
        notes.append("Phases and boundaries are left out where settings are merged: the commands phases and boundary have them.")
    return numbers


def provenance(sweep: xr.Dataset) -> list[list[str]]:
    """Label and text of what the file says about its origin."""
    attributes = sweep.attrs
    labels = {
        "source": "program", "config_digest": "config digest", "config_overrides": "overrides", "date_created": "created",
        "host": "host", "ranks": "MPI ranks", "slurm_job_id": "SLURM job", "blis_version": "BLIS", "blis_kernels": "BLIS kernels",
        "hdf5_version": "HDF5", "mpi_version": "MPI", "history": "history", "comment": "comment",
    }
    return [[label, str(attributes[name])] for name, label in labels.items() if str(attributes.get(name, "")).strip()]


def _summary(sweep: xr.Dataset) -> dict[str, Any]:
    codes = flag_codes(sweep.status)
    values, counts = np.unique(sweep.status.values, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist()))
    wall = sweep.wall_time.values if "wall_time" in sweep else np.zeros(0)
    return {
        "runs": int(sweep.status.size),
        "replicates": int(sweep.sizes["replicate"]),
        "settings": _settings(sweep),
        "shape": {name: int(sweep.sizes[name]) for name in setting_axes(sweep)},
        "outcomes": list(codes),
        "counts": {name: int(found.get(code, 0)) for name, code in codes.items()},
        "core_hours": float(f"{np.nansum(wall) / 3600:.4g}"),
    }


def _settings(sweep: xr.Dataset) -> int:
    return math.prod(sweep.sizes[name] for name in setting_axes(sweep))


def _axis(sweep: xr.Dataset, whole: xr.Dataset, name: str, factor: int) -> dict[str, Any]:
    values = sweep[name].values
    ret = {
        "name": name, "label": AXIS_LABELS[name], "symbol": AXIS_SYMBOLS[name], "values": values.tolist(),
        "scale": Axis.of(name, values).scale,
    }
    if factor > 1:
        blocks = _blocks(whole[name].values, factor)
        ret["merged"] = [[part[0].item(), part[-1].item()] for part in blocks]
    return ret


def _cells(sweep: xr.Dataset, confidence: float) -> dict[str, Any]:
    cells = cell_statistics(sweep, "step_size", "init_scale", confidence).transpose("outcome", *setting_axes(sweep))
    ret: dict[str, Any] = {"counts": {str(name): cells.counts.sel(outcome=name).values.ravel().tolist()
                                      for name in cells.outcome.values}}
    for name in ("n", "k"):
        ret[name] = cells[name].values.ravel().tolist()
    # Wilson's interval is a function of k and n, which few pairs of numbers are.
    pairs, inverse = np.unique(np.stack([cells.k.values.ravel(), cells.n.values.ravel()]), axis=1, return_inverse=True)
    first = np.unique(inverse, return_index=True)[1]
    ret["interval"] = {f"{k}/{n}": [_rounded(cells.low.values.ravel()[i], 6), _rounded(cells.high.values.ravel()[i], 6)]
                       for (k, n), i in zip(pairs.T.tolist(), first)}
    names = list(ret["counts"])
    ret["most_frequent"] = [names.index(name) for name in cells.most_frequent.values.ravel().tolist()]
    ret["share"] = _plain(cells.share.values, 4)
    error = cells.final_error.values.ravel()
    ret["final_error"] = _plain(np.where(np.isposinf(error), -1, error), 4)
    ret["converged_step"] = _plain(cells.converged_step.values, 6)
    ret["diverged_step"] = _plain(cells.diverged_step.values, 6)
    if "phase2_step" in sweep:
        # Runs that never got to phase II have a longer phase I than any other, and count so.
        length = _last(sweep.phase2_step)
        length = np.where(_last(has_outcome(sweep.status)) & np.isnan(length), np.inf, length)
        ret["phase1_length"] = _plain(median(length), 6)
    return ret


def _last(variable: xr.DataArray) -> np.ndarray:
    """[settings axes, replicate], the replicates last."""
    return variable.transpose(*setting_axes(variable), "replicate").values


def _failures(sweep: xr.Dataset) -> dict[str, Any]:
    failed = np.argwhere(sweep.status.values == flag_codes(sweep.status)["failed"])
    messages = {}
    if "message" in sweep and "flag_values" in sweep.message.attrs:
        messages = {code: text.replace("_", " ") for text, code in flag_codes(sweep.message).items()}
    rows = []
    for place in failed[:MAX_FAILURES]:
        where = {name: sweep[name].values[i].item() for name, i in zip(axes_of(sweep), place)}
        code = int(sweep.message.values[tuple(place)]) if messages else 0
        rows.append({"run": int(sweep.run.values[tuple(place)]), "where": where, "message": messages.get(code, "")})
    return {"count": int(len(failed)), "rows": rows}


def _phases(sweep: xr.Dataset, confidence: float, notes: list[str]) -> dict[str, Any] | None:
    try:
        from .phases import phase_statistics
    except ImportError:
        return None
    if "alignment" not in sweep or "potential_norm" not in sweep:
        notes.append("The file does not hold the alignment and the potential: the two phases are not measured.")
        return None
    if 2 * sweep.alignment.size > _MAX_PHASE_VALUES:
        notes.append("The phases are left out: the trajectories are too many. The command phases has them.")
        return None
    statistics = phase_statistics(sweep, confidence)
    ret = {}
    for name, variable in statistics.data_vars.items():
        if set(variable.dims) != set(setting_axes(sweep)):
            continue
        values = variable.transpose(*setting_axes(sweep)).values.ravel()
        # Infinity is a result here (phase II was not reached), but no number of JSON: see data.js.
        ret[str(name)] = values.tolist() if values.dtype.kind in "UOb" else _plain(np.where(np.isposinf(values), _INFINITE, values), 5)
    return ret


def _critical(sweep: xr.Dataset, confidence: float, resamples: int, notes: list[str]) -> list[dict[str, Any]]:
    """Critical values of each axis that can have one, with their power laws along all axes that can have one."""
    try:
        from . import boundary
    except ImportError:
        return []
    ret = []
    for axis in boundary.BOUNDARY_AXES:
        # Fewer values than this have an edge, but no place of it worth the name.
        if sweep.sizes[axis] < 4:
            continue
        critical = boundary.critical_values(sweep, axis, confidence, resamples)
        others = [name for name in setting_axes(sweep) if name != axis]
        table = critical.transpose(*others)
        # infinity: the boundary lies beyond the grid
        entry: dict[str, Any] = {"axis": axis, "axes": others, "kind": table.kind.values.ravel().tolist()}
        for name in ("critical", "low", "high"):
            values = table[name].values.ravel()
            entry[name] = _plain(np.where(np.isposinf(values), np.nan, values), 5)
        entry["first"], entry["last"] = float(critical.attrs["first"]), float(critical.attrs["last"])
        entry["scaling"] = []
        for along in others:
            if sweep.sizes[along] < 2 or not boundary.can_scale(critical, along):
                continue
            laws = boundary.scaling(critical, along, confidence)
            names = [name for name in others if name != along]
            laws = laws.transpose(*names)
            entry["scaling"].append({
                "along": along, "axes": names,
                **{name: _plain(laws[name].values, 5) for name in ("exponent", "low", "high", "prefactor")},
                "points": laws.points.values.ravel().tolist(), "misfit": laws.misfit.values.ravel().tolist(),
            })
        ret.append(entry)
    return ret


def _style() -> dict[str, Any]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex, to_rgb

    def stops(ramp: Any) -> list[str]:
        return [to_hex(colour) for colour in ramp(np.linspace(0, 1, 64))]

    strengths = style.share_strength(np.linspace(0.25, 1, 7))
    tints = {name: [to_hex(colour) for colour in style.tinted(np.tile(to_rgb(code), (7, 1)), strengths)]
             for name, code in style.OUTCOME_COLOURS.items()}
    return {
        "outcomes": {**style.OUTCOME_COLOURS, "pending": style.NO_DATA, "running": style.NO_DATA},
        "tints": tints, "neither": style.NEITHER, "no_data": style.NO_DATA, "hatch": style.HATCH,
        "ramps": {
            "probability": stops(style.PROBABILITY), "converged": stops(style.CONVERGENCE_STEPS),
            "diverged": stops(style.DIVERGENCE_STEPS), "error": stops(colormaps["viridis"]),
            # No outcome's hue: neither convergence nor divergence is meant.
            "phase": stops(style.ramp("sgdmap_phase", ["#f6f3f9", "#b99fd0", "#553080"])),
        },
    }


def _rounded(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _plain(values: np.ndarray, digits: int) -> list[float | None]:
    """Flat, for JSON: so many significant digits, None where not finite."""
    flat = np.ravel(values).astype(float)
    form = f"%.{digits}g"
    return [float(form % value) if finite else None for value, finite in zip(flat.tolist(), np.isfinite(flat).tolist())]


def median(values: np.ndarray) -> np.ndarray:
    """The median [...] of values [..., n], NaN left out and infinities kept; that of two middle values of which one is infinite is
    infinite. np.nanmedian loops in Python and warns of what has no value."""
    ordered = np.sort(values, axis=-1)  # NaN last
    return _middle(ordered, (~np.isnan(ordered)).sum(-1))


def _middle(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
    # With no value at all, the first one is NaN.
    low, high = _at(ordered, np.maximum(count - 1, 0) // 2), _at(ordered, np.minimum(count // 2, ordered.shape[-1] - 1))
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(high), high, (low + high) / 2)


def _at(ordered: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take_along_axis(ordered, index[..., None], -1)[..., 0]


# -- Fewer settings ----------------------------------------------------------------------------------------------------


def _merge_factors(sweep: xr.Dataset) -> dict[str, int]:
    """How many neighbouring values of the longest axes are merged, so that at most MAX_CELLS settings are left."""
    factors: dict[str, int] = {}
    while True:
        sizes = {name: math.ceil(sweep.sizes[name] / factors.get(name, 1)) for name in setting_axes(sweep)}
        if math.prod(sizes.values()) <= MAX_CELLS:
            return factors
        longest = max(sizes, key=lambda name: (np.issubdtype(sweep[name].dtype, np.number), sizes[name]))
        factors[longest] = factors.get(longest, 1) + 1


def _blocks(values: np.ndarray, factor: int) -> list[np.ndarray]:
    return [values[start:start + factor] for start in range(0, values.size, factor)]


def merge_settings(sweep: xr.Dataset, factors: dict[str, int]) -> xr.Dataset:
    """Neighbouring settings seen as one, with the runs of all of them as its replicates.

    `factors` says how many values of an axis become one: their middle, geometric where all are positive. Returns the datasets that maps need,
    [axes] with `replicate` longer by the product of the factors; runs that fill a last, shorter block up have a status that no flag
    names, so that no statistic counts them. Trajectories are left out.
    """
    names = [name for name in ("status", "final_error", "converged_step", "steps_done", "phase2_step") if name in sweep]
    axes = setting_axes(sweep)
    ret = {}
    coordinates: dict[str, Any] = {}
    for name in axes_of(sweep):
        values = sweep[name].values
        if name == "replicate":
            continue
        if name in factors:
            ends = np.array([[block[0], block[-1]] for block in _blocks(values.astype(float), factors[name])])
            middle = np.sqrt(ends[:, 0] * ends[:, 1]) if np.all(ends > 0) else ends.mean(1)
            coordinates[name] = (name, middle, sweep[name].attrs)
        else:
            coordinates[name] = sweep[name]
    for name in names:
        variable = sweep[name].transpose(*axes, "replicate")
        values = variable.values
        filler = -1 if name == "status" else np.nan
        shape: list[int] = []
        padding = []
        for axis in axes:
            factor = factors.get(axis, 1)
            blocks = math.ceil(sweep.sizes[axis] / factor)
            padding.append((0, blocks * factor - sweep.sizes[axis]))
            shape += [blocks, factor]
        values = np.pad(values, [*padding, (0, 0)], constant_values=filler).reshape(*shape, values.shape[-1])
        order = [*range(0, len(shape), 2), *range(1, len(shape), 2), len(shape)]
        values = values.transpose(order)
        values = values.reshape(*values.shape[:len(axes)], -1)
        ret[name] = xr.Variable((*axes, "replicate"), values, variable.attrs)
    count = next(iter(ret.values())).shape[-1]
    coordinates["replicate"] = ("replicate", np.arange(count))
    return xr.Dataset(ret, coordinates, sweep.attrs).transpose(*axes_of(sweep))


# -- Trajectories ------------------------------------------------------------------------------------------------------


def shown_fields(sweep: xr.Dataset) -> list[str]:
    """The fields of the file that the page shows, in its order."""
    return [name for name in FIELDS if name in sweep and "step" in sweep[name].dims]


def _spread(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count`, evenly spread, ends included."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(int))


def _every(count: int, stride: int) -> np.ndarray:
    """Each stride-th of `count`, the same number left out at both ends."""
    return np.arange((count - 1) % stride // 2, count, stride)


def collect_trajectories(sweep: xr.Dataset, budget: int = TRAJECTORY_BYTES) -> tuple[dict[str, Any], bytes]:
    """Bands of the trajectories of as many settings as fit into `budget` bytes of base64.

    Returns a header for JSON and the numbers: for each field and each of QUANTILES uint16 [settings, records], little endian, gzipped.
    Code 0 is NaN; the others are `low + (code - 1) (high - low) / 65534` of the field's logarithm (to base 10), or of asinh(value / unit)
    for fields that may be negative. The header has `fields` (name, label, low, high, unit or None), `steps`, `axes` (the values of each axis
    that are kept), `quantiles`, and `note`, what was thinned.
    """
    fields = shown_fields(sweep)
    axes = {name: np.arange(sweep.sizes[name]) for name in setting_axes(sweep)}
    if not fields:
        return {"fields": [], "note": "The file holds no trajectories."}, gzip.compress(b"")
    records = sweep.sizes["step"]
    settings = _settings(sweep)
    # How much a setting takes, measured on a few of them.
    sample = {name: _spread(index.size, 4) for name, index in axes.items()}
    while math.prod(index.size for index in sample.values()) > 200:
        longest = max(sample, key=lambda name: sample[name].size)
        sample[longest] = _spread(axes[longest].size, sample[longest].size - 1)
    ladder = dict.fromkeys((min(count, len(fields)), min(most, records)) for count, most in _LADDER)
    for count, most in ladder:
        packed = _packed(sweep, fields[:count], sample, _spread(records, most))[1]
        each = len(packed) * 4 / 3 / math.prod(index.size for index in sample.values())
        if each * settings <= 0.9 * budget:
            break
    step_index = _spread(records, most)
    # A sample compresses otherwise than all of them together: what it promised is mended by what came out.
    for attempt in itertools.count():
        axes = _thinned(sweep, 0.9 * budget / each)
        kept = math.prod(index.size for index in axes.values())
        header, packed = _packed(sweep, fields[:count], axes, step_index)
        size = len(packed) * 4 / 3
        if size <= budget and (kept == settings or size > 0.45 * budget or attempt >= 3):
            break
        each = max(size / kept, 1.1 * each if size > budget else 0)

    said = []
    if kept < settings:
        said.append(f"trajectories of {kept:,} of {settings:,} settings")
    if step_index.size < records:
        said.append(f"{step_index.size} of {records} recorded steps")
    if count < len(fields):
        said.append(f"{count} of {len(fields)} fields ({', '.join(fields[count:]).replace('_', ' ')} left out)")
    header["note"] = f"To keep the page small it holds {', '.join(said)}." if said else ""
    return header, packed


def _thinned(sweep: xr.Dataset, most: float) -> dict[str, np.ndarray]:
    """Indices of each axis, a lattice of at most so many settings: every n-th value of the longest axes."""
    axes = {name: np.arange(sweep.sizes[name]) for name in setting_axes(sweep)}
    stride = {name: 1 for name in setting_axes(sweep)}
    while math.prod(index.size for index in axes.values()) > max(1, most):
        longest = max(axes, key=lambda name: axes[name].size)
        stride[longest] += 1
        axes[longest] = _every(sweep.sizes[longest], stride[longest])
    return axes


def _packed(
    sweep: xr.Dataset, fields: Sequence[str], axes: dict[str, np.ndarray], records: np.ndarray
) -> tuple[dict[str, Any], bytes]:
    chosen = sweep.isel({**axes, "step": records})
    coded, described = [], []
    for name in fields:
        bands = _bands(chosen, name)
        codes, field = _quantised(bands, name)
        described.append(field)
        # Differences along the steps, the high bytes apart from the low ones: both compress well.
        step = np.diff(codes, axis=-1, prepend=np.uint16(0)).astype("<u2")
        coded.append(np.ascontiguousarray(step.view(np.uint8).reshape(*step.shape, 2).transpose(3, 0, 1, 2)).tobytes())
    header = {
        "fields": described, "steps": chosen.step.values.tolist(), "quantiles": list(QUANTILES),
        "axes": {name: chosen[name].values.tolist() for name in setting_axes(sweep)},
    }
    return header, gzip.compress(b"".join(coded), 6, mtime=0)


def _bands(sweep: xr.Dataset, name: str) -> np.ndarray:
    """Quantiles [QUANTILES, settings, records] of a field over the replicates.

    Those of `trajectories.bands`, but read in parts along the first axes, so that not all rows are in memory; NaN where a quantile
    is not finite.
    """
    from .trajectories import SIGNED, held

    # Not transposed before it is read, which would make xarray look up each value on its own.
    field, status = sweep[name], sweep.status
    codes = flag_codes(sweep.status)
    axes = setting_axes(sweep)
    settings = math.prod(field.sizes[name] for name in axes)
    replicates, records = field.sizes["replicate"], field.sizes["step"]
    ret = np.empty((len(QUANTILES), settings, records))
    # The outer axes whose product gives parts of a bearable size.
    outer: list[str] = []
    size = field.size
    for name in axes:
        if size <= 4_000_000:
            break
        outer.append(name)
        size //= field.sizes[name]
    part = settings // math.prod(field.sizes[name] for name in outer)
    for number, place in enumerate(np.ndindex(*(field.sizes[name] for name in outer))):
        indices = {axis: [index] for axis, index in zip(outer, place)}
        values = field.isel(indices).compute().transpose(*axes, "replicate", "step").values.reshape(part, replicates, records)
        ends = status.isel(indices).transpose(*axes, "replicate").values.reshape(part, replicates)
        full = held(values, ends == codes["diverged"], name in SIGNED).transpose(0, 2, 1)
        ordered = np.sort(full, axis=-1)  # once for all of them; NaN last
        count = (~np.isnan(ordered)).sum(-1)
        low, high = (np.clip(np.ceil(q * count - 1e-9).astype(np.int64) - 1, 0, None) for q in (QUANTILES[0], QUANTILES[2]))
        here = ret[:, number * part:(number + 1) * part]
        here[0], here[1], here[2] = _at(ordered, low), _middle(ordered, count), _at(ordered, high)
    return np.where(np.isfinite(ret), ret, np.nan)


def _quantised(values: np.ndarray, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """uint16 codes of the values' shape, and what decodes them; see collect_trajectories."""
    field: dict[str, Any] = {"name": name, "label": FIELD_LABELS[name], "unit": None}
    values = np.clip(values, -1e30, 1e30)  # what lies beyond diverges, and is not read off a curve
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in SIGNED_FIELDS:
            magnitude = np.abs(values[np.isfinite(values) & (values != 0)])
            # Below a thousandth of what is typical of the field a value is as good as 0.
            field["unit"] = float(f"{np.quantile(magnitude, 0.02) / 1000 if magnitude.size else 1:.2g}") or 1e-300
            scaled = np.arcsinh(values / field["unit"])
        else:
            scaled = np.log10(np.maximum(values, 1e-40))  # a student that starts at its teacher
    known = np.isfinite(scaled)
    low, high = (float(scaled[known].min()), float(scaled[known].max())) if known.any() else (0.0, 1.0)
    high = max(high, low + 1e-9)
    field["low"], field["high"] = low, high
    codes = np.zeros(values.shape, np.uint16)
    codes[known] = np.round((scaled[known] - low) / (high - low) * 65534).astype(np.uint16) + 1
    return codes, field


def setting_trajectories(sweep: xr.Dataset, place: dict[str, int]) -> dict[str, Any]:
    """The bands of one setting at all records, ready for JSON: for each field [quantile][record]."""
    one = sweep.isel({name: [index] for name, index in place.items()})
    fields = []
    for name in shown_fields(sweep):
        bands = _bands(one, name)[:, 0]
        fields.append({"name": name, "label": FIELD_LABELS[name], "values": [_plain(band, 5) for band in bands]})
    return {
        "steps": one.step.values.tolist(), "quantiles": list(QUANTILES), "fields": fields,
        "where": {name: one[name].values[0].item() for name in setting_axes(sweep)},
    }


# -- The page ----------------------------------------------------------------------------------------------------------


def plotly_places() -> list[Path]:
    """Where plotly.js may be: in a plotly installed with pip, and in Debian's package."""
    places = []
    # Found without an import, which takes a second.
    found = importlib.util.find_spec("plotly")
    if found is not None and found.submodule_search_locations:
        places += [Path(folder) / "package_data" / "plotly.min.js" for folder in found.submodule_search_locations]
    return [*places, Path("/usr/share/python3-plotly/plotly.js")]


def plotly_source() -> str:
    """The text of plotly.js; an ArgumentError where there is none."""
    for place in plotly_places():
        try:
            return place.read_text(encoding="utf-8")
        except OSError:
            continue
    raise ArgumentError("the report needs plotly.js, which is not there: install Debian's package python3-plotly, or plotly with pip")


def _asset(name: str) -> str:
    return (Path(__file__).parent / "report" / name).read_text(encoding="utf-8")


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def packed_json(numbers: Any) -> bytes:
    """Numbers as gzipped JSON, the same bytes for the same numbers."""
    return gzip.compress(json.dumps(numbers, allow_nan=False, separators=(",", ":")).encode(), 6, mtime=0)


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def page(
    numbers: dict[str, Any] | None, trajectories: bytes = b"", *, title: str, live: dict[str, Any] | None = None,
) -> str:
    """The whole page as text.

    Parameters
    ----------
    numbers
        From `collect`, with the header of `collect_trajectories` as `trajectories`. None in a page that asks its server for them.
    trajectories
        From `collect_trajectories`.
    live
        How such a page asks: `interval`, seconds between two questions, and `file`.
    """
    program = "(function () {\n\"use strict\";\n" + "\n".join(_asset(name) for name in _PARTS) + "\n})();\n"
    plotly = plotly_source()
    # plotly.js makes functions from text when it starts ('unsafe-eval'); no text of the file ever gets there.
    policy = "; ".join([
        "default-src 'none'", f"script-src {_hash(program)} {_hash(plotly)} 'unsafe-eval'", "style-src 'unsafe-inline'",
        "img-src data: blob:", "font-src data:", "connect-src 'self'" if live else "connect-src 'none'",
        "base-uri 'none'", "form-action 'none'",
    ])
    pieces = {
        "title": html.escape(title or "sgdmap"),
        "policy": html.escape(policy),
        "css": _asset("report.css"),
        "numbers": "" if numbers is None else _encoded(packed_json(numbers)),
        "trajectories": _encoded(trajectories),
        "plotly": _encoded(gzip.compress(plotly.encode(), 7, mtime=0)),
        "live": html.escape(json.dumps(live)) if live else "",
        "static": _static(numbers) if numbers else "",
        "program": program,
    }
    # One pass, so that nothing a piece holds is taken for a placeholder.
    text = _asset("report.html")
    parts = text.split("@@")
    if len(parts) % 2 == 0:
        raise ValueError("report.html: @@ does not come in pairs")
    return "".join(part if index % 2 == 0 else pieces[part] for index, part in enumerate(parts))


def _static(numbers: dict[str, Any]) -> str:
    """What a reader without JavaScript sees."""
    counts = ", ".join(f"{count:,} {name}" for name, count in numbers["counts"].items() if count)
    rows = "".join(f"<dt>{html.escape(label)}</dt><dd>{html.escape(text)}</dd>" for label, text in numbers["provenance"])
    return (f"<p>{numbers['runs']:,} runs: {html.escape(counts)}.</p><dl>{rows}</dl><pre>{html.escape(numbers['config'])}</pre>")


def write_report(
    sweep: xr.Dataset, output: Path, confidence: float = 0.95, *, title: str | None = None, file: str = ""
) -> dict[str, Any]:
    """Write the page, whole or not at all; returns its numbers (with `bytes`, the size of the page)."""
    # What is missing is said before anything is computed.
    plotly_source()
    if not output.parent.is_dir():
        raise FileError(f"{output}: there is no folder {output.parent}")
    numbers = collect(sweep, confidence, title=title, file=file)
    numbers["trajectories"], packed = collect_trajectories(sweep)
    if numbers["trajectories"]["note"]:
        numbers["notes"].append(numbers["trajectories"]["note"])
    text = page(numbers, packed, title=numbers["title"])
    data = text.encode("utf-8")

    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        os.replace(partial, output)
    except OSError as error:
        raise FileError(f"{output}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return {**numbers, "bytes": len(data)}
