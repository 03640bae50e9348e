"""A sweep in the formats of other programs: CSV, and a compact netCDF-4.

What a run has not (no outcome, a step that did not happen, records after its end) is empty in CSV and a fill value in
netCDF. Both are written block by block: memory does not grow with the sweep.
"""
from __future__ import annotations

import math
import pickle
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import xarray as xr

from . import __version__, guard
from .errors import ArgumentError, SweepError
from .sweep import NAMED_AXES, _flat_variable, _open_file, axes_of, decode_flags, flag_codes, open_sweep
from .where import choose, choose_box

# What belongs to a file of sgdmap and means nothing in another: left out unless asked for.
UNUSUAL = ("rank", "checksum")

# Values that are held at a time: texts take some 60 bytes each, numbers 8.
_TEXTS = 1 << 20
_NUMBERS = 1 << 22
# Values of a chunk of netCDF, 512 KiB of doubles: what a reader of one trajectory unpacks.
_CHUNK = 1 << 16


@dataclass
class Source:
    """What is exported.

    sweep
        Masked, [axes] or [run].
    types
        How the file stores a variable.
    results, trajectories
        The variables chosen, [run] and [run, step], in the order in which they were, or by name.
    flags
        The meanings and codes of the axes that are words in the sweep.
    """

    sweep: xr.Dataset
    types: dict[str, np.dtype]
    results: list[str]
    trajectories: list[str]
    flags: dict[str, dict[str, int]]


def choose_runs(path: str, where: Sequence[str], fields: Sequence[str] | None, flat: bool) -> Source:
    """The runs and fields of a file that are to be exported; `fields` None: all but UNUSUAL.

    With `flat`, runs are along `run` in the file's order, and need not be a product of axes. Raises ArgumentError for a
    field that the file has not.
    """
    if flat:
        sweep = open_sweep(path, flat=True)
        if where:
            box, chosen = choose(open_sweep(path), where)
            runs = box.run.values if chosen is None else box.run.where(chosen, -1).transpose(*axes_of(box)).values
            sweep = sweep.isel(run=np.flatnonzero(np.isin(sweep.run.values, runs[runs >= 0])))
    else:
        sweep = choose_box(open_sweep(path), where)
    stored = open_sweep(path, masked=False, flat=True)
    have = [str(name) for name in stored.data_vars if name != "status"]
    if fields is not None:
        unknown = [name for name in fields if name not in have]
        if unknown:
            raise ArgumentError(f"{unknown[0]!r} is not a field of {path}; it has {', '.join(have)} (settings and status are "
                                "always exported)")
    wanted = [name for name in have if name not in UNUSUAL] if fields is None else list(fields)
    trajectories = [name for name in wanted if "step" in stored[name].dims]
    results = [name for name in wanted if name not in trajectories]
    with _open_file(Path(path)) as file:
        flags = {name: flag_codes(_flat_variable(file, name)) for name in NAMED_AXES if name in sweep.coords}
    return Source(sweep, {name: stored[name].dtype for name in have}, results, trajectories, flags)


def csv_form(source: Source, form: str | None, trajectories: bool, chosen: bool) -> str:
    """'runs', 'records' or 'wide', and the fields of `source` reduced to those that such a file has.

    `chosen`: the fields were chosen one by one, not by default. Raises ArgumentError where there are no trajectories.
    """
    if form == "wide" or trajectories:
        if not source.trajectories:
            raise ArgumentError("there are no trajectories among the fields" + ("" if chosen else " of the file"))
        if form != "wide" and not chosen:
            source.results = []  # the same on each of a run's lines: only if asked for
        return "wide" if form == "wide" else "records"
    if chosen and source.trajectories:
        return "records"
    source.trajectories = []
    return "runs"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def write_csv(source: Source, output: Path, form: str) -> None:
    """A header and a line for each run or record. `source.sweep` is flat.

    form
        'runs': a line a run: its settings, status and results. 'records': a line for each record of each run until it
        ended: settings, status, results, `step`, trajectories. 'wide': a line a run, whose trajectories are columns
        `error@100`.

    Doubles are written with as many digits as bring back the same bits; flags in words; what is not there as nothing. A
    unit that is not 1 is the end of a column's name: `wall_time_s`.
    """
    sweep = source.sweep
    settings = ["run", *axes_of(sweep)]
    steps = sweep.step.values.tolist()
    columns = settings + ["status"] + [_column(sweep, name) for name in source.results]
    traced = [_column(sweep, name) for name in source.trajectories]
    if form == "records":
        columns += ["step", *traced]
    elif form == "wide":
        columns += [f"{name}@{step}" for name in traced for step in steps]
    runs = sweep.sizes["run"]
    each = len(columns) * (len(steps) if form == "records" else 1)
    with open(output, "w", newline="", encoding="utf-8") as file:
        file.write(",".join(columns) + "\n")
        for part in _blocks(runs, max(1, _TEXTS // each)):
            block = sweep.isel(run=part)
            scalars = [_texts(block[name], block[name].dtype) for name in settings]
            scalars.append(_texts(block.status, block.status.dtype))
            scalars += [_texts(block[name], source.types[name]) for name in source.results]
            if form == "runs":
                file.writelines(",".join(row) + "\n" for row in zip(*scalars))
                continue
            traces = [block[name].transpose("run", "step").values for name in source.trajectories]
            if form == "wide":
                texts = [[",".join(map(_double, row)) for row in trace.tolist()] for trace in traces]
                file.writelines(",".join(row) + "\n" for row in zip(*scalars, *texts))
                continue
            # After a run ended, all its trajectories are NaN; before, one of them may be.
            there = np.any([np.isfinite(trace) | np.isinf(trace) for trace in traces], axis=0)
            heads = [",".join(row) for row in zip(*scalars)]
            row_of, step_of = np.nonzero(there)
            step_texts = [str(step) for step in steps]
            values = [map(_double, trace[there].tolist()) for trace in traces]
            file.writelines(f"{heads[row]},{step_texts[step]},{','.join(rest)}\n"
                            for row, step, rest in zip(row_of.tolist(), step_of.tolist(), zip(*values)))


def _column(sweep: xr.Dataset, name: str) -> str:
    units = str(sweep[name].attrs.get("units", "1"))
    return name if units in ("1", "") else f"{name}_{units}"


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _double(value: float) -> str:
    return "" if value != value else repr(value)


def _texts(variable: xr.DataArray, stored: np.dtype) -> list[str]:
    """A text [run] for each value."""
    if "flag_values" in variable.attrs:
        return decode_flags(variable).values.tolist()
    values = variable.values
    if not np.issubdtype(values.dtype, np.number):
        return values.tolist()
    if np.issubdtype(stored, np.integer):
        # -1 is what did not happen, also in what is never masked.
        return ["" if value != value or value < 0 else str(int(value)) for value in values.tolist()]
    return list(map(_double, values.tolist()))


# -- netCDF-4 ----------------------------------------------------------------------------------------------------------


def check_types(source: Source) -> None:
    """An ArgumentError where a field has a type that netCDF files for others cannot have."""
    for name in source.results:
        if source.types[name] == np.uint64:
            raise ArgumentError(f"{name} has 64 bits without a sign, which CF and R's ncdf4 do not know: export it to .csv")


def write_netcdf(source: Source, output: Path, *, single: bool = False, level: int = 4) -> None:
    """A compressed netCDF-4 file (classic types only, CF), [axes] or [run] as `source.sweep` is.

    Types are those that CF-1.8 and R's ncdf4 know: no integers of 64 bits, which become 32 bits where they fit, else doubles;
    flags stay int8 with their CF attributes, so that an axis `link` has numbers with meanings.

    single
        Store results and trajectories as floats of 32 bits. What is beyond 3.4e38, as errors of diverged runs may be,
        becomes infinite.
    level
        Of zlib, 1 to 9, after shuffling the bytes.
    """
    with open(output, "wb"):
        pass  # netCDF says "permission denied" whatever the reason

    def work() -> None:
        import netCDF4

        _write_netcdf(source, netCDF4.Dataset(output, "w", format="NETCDF4"), single, level)

    _in_child(work)


def _in_child(work: Callable[[], None]) -> None:
    """`work` in a child process: once HDF5 could not write, on a full disk say, it crashes when the process ends."""

    def answered() -> bytes:
        try:
            work()
            return b"."
        except (SweepError, OSError) as error:
            return pickle.dumps(error)
        except RuntimeError as error:  # what netCDF makes of HDF5's troubles
            return pickle.dumps(OSError(f"{error}: is there room on the disk?"))
        except BaseException:
            return pickle.dumps(RuntimeError(traceback.format_exc()))

    try:
        answer = guard.in_child(answered)
    except guard.Died as error:
        raise OSError(f"netCDF ended the process: {error}") from None
    if answer != b".":
        raise pickle.loads(answer)


def _write_netcdf(source: Source, dataset: Any, single: bool, level: int) -> None:
    sweep = source.sweep
    dims = [str(name) for name in sweep.status.dims]
    with dataset as file, np.errstate(over="ignore"):
        for name, value in sweep.attrs.items():
            file.setncattr(name, _attribute(value))
        history = f"sgdmap-analysis {__version__} export"
        file.setncattr("history", "\n".join(filter(None, (str(sweep.attrs.get("history", "")), history))))
        for name in [*dims, "step"]:
            file.createDimension(name, sweep.sizes[name])

        axes = axes_of(sweep)
        coordinates = [name for name in ("run", *axes) if name not in dims]
        for name in dict.fromkeys(["run", *axes, "step"]):
            variable = sweep[name]
            values, attributes = _coded(variable, source)
            out = _create(file, name, values.dtype, [str(dim) for dim in variable.dims], level, None)
            out.setncatts(attributes)
            out[...] = values
        for name in ["status", *source.results]:
            variable = sweep[name]
            if "flag_values" in variable.attrs or np.issubdtype(source.types.get(name, variable.dtype), np.integer):
                values, attributes = _coded(variable, source)
                fill = None if "flag_values" in variable.attrs else -1
            else:
                values, attributes = variable.values.astype(np.float32 if single else np.float64), dict(variable.attrs)
                fill = np.nan
            out = _create(file, name, values.dtype, dims, level, fill)
            out.setncatts({**attributes, "coordinates": " ".join(coordinates)})
            out[...] = values
        for name in source.trajectories:
            variable = sweep[name].transpose(*dims, "step")
            out = _create(file, name, np.dtype(np.float32 if single else np.float64), [*dims, "step"], level, np.nan)
            out.setncatts({**_plain(variable.attrs), "coordinates": " ".join(coordinates)})
            for place in _boxes(variable.shape, out.chunking()):
                out[place] = variable[place].values.astype(out.dtype)


def _create(file: Any, name: str, dtype: np.dtype, dims: Sequence[str], level: int, fill: Any) -> Any:
    shape = [len(file.dimensions[dim]) for dim in dims]
    variable = file.createVariable(name, dtype, dims, zlib=True, complevel=level, shuffle=True, chunksizes=_chunks(shape),
                                   fill_value=False if fill is None else fill)
    variable.set_auto_maskandscale(False)
    return variable


def _chunks(shape: Sequence[int]) -> list[int]:
    """The last dimensions whole, as many as fit into a chunk."""
    chunks, room = [], _CHUNK
    for length in reversed(shape):
        chunks.append(max(1, min(length, room)))
        room = room // length if room >= length else 0
    return chunks[::-1]


def _boxes(shape: Sequence[int], chunks: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Boxes that cover an array in order, each of whole chunks and at most about _NUMBERS values."""
    sizes, room = list(shape), _NUMBERS
    for axis in reversed(range(len(shape))):
        if room < shape[axis]:
            sizes[axis] = max(chunks[axis], room // chunks[axis] * chunks[axis]) if room else chunks[axis]
            room = 0
        else:
            room //= shape[axis]
    grid = [math.ceil(length / size) for length, size in zip(shape, sizes)]
    for place in np.ndindex(*grid):
        yield tuple(slice(i * size, min((i + 1) * size, length)) for i, size, length in zip(place, sizes, shape))


def _coded(variable: xr.DataArray, source: Source) -> tuple[np.ndarray, dict[str, Any]]:
    """Values and attributes of a flag as numbers, and of integers in a type that CF knows; -1 for what did not happen."""
    values, attributes = variable.values, _plain(variable.attrs)
    if values.dtype.kind in "UO":  # a decoded flag
        table = source.flags[str(variable.name)]
        coded = np.array([table.get(text, -1) for text in values.ravel().tolist()], dtype=np.int8).reshape(values.shape)
        return coded, {**attributes, "flag_values": np.array(list(table.values()), dtype=np.int8),
                       "flag_meanings": " ".join(table)}
    if "flag_values" in attributes or values.dtype == np.int8:
        return values, attributes
    if np.issubdtype(values.dtype, np.floating) and not np.issubdtype(source.types.get(str(variable.name), values.dtype),
                                                                      np.integer):
        return values, attributes
    integers = np.where(np.isfinite(values), values, -1) if values.dtype.kind == "f" else values
    if integers.size and np.abs(integers).max() > 2**31 - 1:
        return integers.astype(np.float64), attributes
    return integers.astype(np.int32), attributes


def _plain(attributes: Any) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in attributes.items()}


def _attribute(value: Any) -> Any:
    """In a type that CF knows."""
    array = np.asarray(value)
    if array.dtype.kind in "iub" and array.dtype.itemsize == 8:
        return array.astype(np.int32) if np.abs(array).max() < 2**31 else array.astype(np.float64)
    return value
