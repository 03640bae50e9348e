"""From a result file to a labelled xarray Dataset, unstacked over the axes of the grid.

The file is flat over runs (see "The file" in the README): every setting is a dataset [run]. Here the runs become a
box with one dimension an axis. Small datasets [run] are read at once; trajectories [run, step] stay in the file until
somebody asks for their values, and then only the rows asked for are read.
"""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import h5py
import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core import indexing

from . import guard
from .errors import ArgumentError, FileError, SweepError

# The axes in the order in which sgdmap nests them, the last one fastest.
AXES = ("dimension", "batch_size", "gradient", "data", "input", "replicate", "teacher", "teacher_norm", "link", "noise", "schedule",
        "step_size", "init_scale")

# Those that a file has only where some run is not at this value: elsewhere all are.
DEFAULTS: dict[str, Any] = {"gradient": "minibatch", "data": 0, "teacher": "gaussian", "noise": 0.0, "schedule": "constant"}

# Those whose values are words.
NAMED_AXES = ("gradient", "input", "teacher", "link", "schedule")

# What a number of training samples of 0 is called: fresh ones at every step.
ONLINE = "online"

# Every outcome that is a result of the training, as opposed to a run without one.
FINAL_OUTCOMES = ("converged", "diverged", "stalled", "unfinished")

# Datasets that tell how a run was done, not what came out of it: never masked, types as stored.
BOOKKEEPING = ("status", "message", "rank", "checksum")

# The layout of the file that is read here, its attribute format_version.
FORMAT_VERSION = 1

# What netCDF-4 and the HDF5 dimension scales keep for themselves, and what says how a file encodes data: in a Dataset
# that is decoded, it would be wrong, and in the way of to_netcdf.
_HIDDEN_ATTRIBUTES = {
    "CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST", "DIMENSION_LABELS", "_Netcdf4Dimid", "_Netcdf4Coordinates",
    "_NCProperties", "_nc3_strict", "_FillValue", "coordinates",
}

# What h5py raises over damaged files.
_TROUBLE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)

# Rows this close (in bytes) are read in one go, the gap thrown away: a seek costs more. And one read is at most a
# block, so that rows spread over a huge file never pull all of it into memory.
_GAP_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 26


def open_sweep(path: str | os.PathLike, *, masked: bool = True, flat: bool = False) -> xr.Dataset:
    """Open a result file of sgdmap, finished or not, also while a job writes it.

    Parameters
    ----------
    path
        The result file.
    masked
        Set the results of runs that have no outcome (pending, running, failed) to NaN, and steps that did not
        happen (-1) too; integer results become float64, which is exact up to 2^53 steps. With False every result is
        as stored, fill values included.
    flat
        Leave the runs along one dimension `run`, with their settings as coordinates. The only way to read a file
        whose runs are not a full product of axes.

    Returns
    -------
    xarray.Dataset
        Dimensions: the axes, in the order of `AXES` (length 1 where the sweep has one value; those of `DEFAULTS` only if
        the file has them), and `step`. Numeric axes ascend; `NAMED_AXES` are text; `data` is 0 for fresh samples at every
        step. Coordinates: the axes, `step`, and `run` [axes], the run's number in the file. `status` stays int8 with its
        CF flags: see `decode_flags`. Units and long names are those of the file, the root attributes are the Dataset's.

        Trajectories [axes, step] are lazy and not cached: `.load()` or `.compute()` what is used more than once.
        The file is not held open.

    The Dataset is a snapshot as far as outcomes go: runs that end after the call stay masked.
    Checksums are not compared here; `sgdmap verify` does that.

    Raises
    ------
    SweepError
        The file cannot be read, is not a result of sgdmap, or (unless `flat`) is not a full product.
    """
    path = Path(path)
    try:
        _look_first(path)
        with _open_file(path) as file:
            return _read(file, path, masked, flat)
    except _TROUBLE as error:
        raise SweepError(f"{path}: cannot be read: {_first_line(error)}") from error


def axes_of(sweep: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """The axes that a sweep, or what was computed from it, has, in the order of AXES."""
    return tuple(name for name in AXES if name in sweep.coords)


def check_axis(sweep: xr.Dataset, axis: str) -> str:
    """The axis itself, or an ArgumentError that says which there are."""
    have = axes_of(sweep)
    if axis not in have:
        known = f" of this file, whose runs all have {told(axis, DEFAULTS[axis])}" if axis in DEFAULTS else ""
        raise ArgumentError(f"{axis!r} is not an axis{known}; the axes are {', '.join(have)}")
    return axis


def axis_values(sweep: xr.Dataset, axis: str) -> np.ndarray:
    """Values [n] of an axis; the default alone where the sweep lacks the axis. ArgumentError for what is no axis at all."""
    if axis in DEFAULTS and axis not in sweep.coords:
        return np.array([DEFAULTS[axis]])
    return sweep[check_axis(sweep, axis)].values


def decode_flags(variable: xr.DataArray) -> xr.DataArray:
    """Text [same dimensions] from a variable with CF `flag_values` and `flag_meanings`; unknown values are ''."""
    codes = flag_codes(variable)
    if max(map(len, codes)) > 256:
        raise ValueError("flag_meanings with a word of more than 256 letters")
    text = np.full(variable.shape, "", dtype=f"<U{max(map(len, codes))}")
    for meaning, code in codes.items():
        text[variable.values == code] = meaning
    kept = {key: value for key, value in variable.attrs.items() if key not in ("flag_values", "flag_meanings")}
    decoded = variable.copy(data=text)
    decoded.attrs = kept
    return decoded


def flag_codes(variable: xr.DataArray | xr.Variable) -> dict[str, int]:
    """The meaning and value of each CF flag, in the file's order: {'pending': 0, 'running': 1, ...}."""
    values = np.atleast_1d(variable.attrs["flag_values"])
    return {meaning: int(value) for meaning, value in zip(str(variable.attrs["flag_meanings"]).split(), values)}


def has_outcome(status: xr.DataArray) -> xr.DataArray:
    """True [same dimensions] where a run ended with one of FINAL_OUTCOMES."""
    codes = flag_codes(status)
    return status.isin([codes[name] for name in FINAL_OUTCOMES])


def select(sweep: xr.Dataset, where: Mapping[str, Sequence[Any] | slice]) -> xr.Dataset:
    """Keep some values of axes, which stay as dimensions.

    `where` maps an axis to the values wanted (numbers match within 1e-6 relative, so that 0.001 finds what a log range
    made of it) or to a slice of bounds, both inclusive, as in xarray. Raises ArgumentError for an unknown axis or a
    value that is not there.
    """
    for axis, wanted in where.items():
        values = axis_values(sweep, axis)
        numeric = np.issubdtype(values.dtype, np.number)
        if isinstance(wanted, slice):
            if not numeric:
                raise ArgumentError(f"{axis} has names, not numbers: give them one by one, not as a range")
            low = -np.inf if wanted.start is None else wanted.start * (1 - np.sign(wanted.start) * 1e-6)
            high = np.inf if wanted.stop is None else wanted.stop * (1 + np.sign(wanted.stop) * 1e-6)
            index = np.flatnonzero((values >= low) & (values <= high))
            if index.size == 0:
                raise ArgumentError(f"no value of {axis} lies in that range; it has {listed(values, axis)}")
        else:
            found = []
            for value in wanted:
                match = np.isclose(values, value, rtol=1e-6, atol=0) if numeric else values == value
                if not match.any():
                    raise ArgumentError(f"{axis} has no value {told(axis, value)}; it has {listed(values, axis)}")
                found.append(int(np.argmax(match)))
            index = np.unique(found)
        if axis in sweep.coords:
            sweep = sweep.isel({axis: index})
    return sweep


# -- Reading -----------------------------------------------------------------------------------------------------------


def _look_first(path: Path) -> None:
    """In a child process, all that HDF5 will be asked for but the values. A SweepError if it does not get through."""
    _check_regular(path)
    try:
        trouble = guard.call(_walk, path)
    except guard.Died as death:
        raise SweepError(f"{path}: not an sgdmap result file: HDF5 cannot read it: {death}") from None
    if trouble is not None:
        raise SweepError(trouble.splitlines()[0])


def _walk(path: Path) -> None:
    try:
        with _open_file(path) as file:
            _attributes(file)
            datasets = _datasets(file, path)
            for dataset in datasets.values():
                _attributes(dataset)
                _dimensions(dataset, -1, -1)
                if dataset.chunks is not None and dataset.ndim == 1:
                    dataset[...]
    except _TROUBLE as error:
        raise SweepError(f"{path}: cannot be read: {_first_line(error)}") from error


def _datasets(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """The datasets of numbers in the root group: no links to elsewhere, and none whose values cannot be in the file."""
    size = os.stat(path).st_size
    datasets = {}
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            continue
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            continue
        if dataset.dtype.kind not in "iuf" or dataset.is_virtual or dataset.external:
            continue
        # A copy may be compressed, but deflate does no better than a thousandth.
        room = size if dataset.chunks is None else 1100 * size
        if int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize > room:
            raise SweepError(f"{path}: not an sgdmap result file: the values of {name!r} are not all in it")
        datasets[name] = dataset
    return datasets


def _check_regular(path: Path) -> None:
    """A FileError with the system's own words where the file cannot be read at all."""
    try:
        if not path.is_file():
            os.stat(path)  # raises if there is nothing at all
            raise SweepError(f"{path}: not an sgdmap result file: not a regular file")
        with open(path, "rb"):
            pass
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}") from error


def _open_file(path: Path) -> h5py.File:
    """The open file, or a SweepError that says in one line why not."""
    _check_regular(path)
    if not h5py.is_hdf5(path):
        raise SweepError(f"{path}: not an sgdmap result file: not HDF5")
    try:
        # Locking off here too: the environment variable is too late if h5py was loaded first.
        return h5py.File(path, "r", locking=False)
    except ValueError:  # an HDF5 too old to be told (before 1.10.7): the environment has to do
        return h5py.File(path, "r")


def _read(file: h5py.File, path: Path, masked: bool, flat: bool) -> xr.Dataset:
    datasets = _datasets(file, path)
    names = tuple(name for name in AXES if name not in DEFAULTS or name in datasets)
    needed = (*names, "run", "step", "status")
    missing = [name for name in needed if name not in datasets]
    if missing:
        raise SweepError(f"{path}: not an sgdmap result file: it has no dataset {missing[0]!r}")

    version = int(file.attrs.get("format_version", FORMAT_VERSION))
    if version != FORMAT_VERSION:
        raise SweepError(f"{path}: its format is version {version}, this program knows version {FORMAT_VERSION}")

    # Checksum and status first: they are written after a run's rows, so whatever is final now has all of its results,
    # even if the job goes on writing while the rest is read.
    checksum = _flat_variable(file, "checksum") if "checksum" in datasets else None
    status = _flat_variable(file, "status")
    if "flag_values" not in status.attrs or "flag_meanings" not in status.attrs:
        raise SweepError(f"{path}: not an sgdmap result file: 'status' has no flags")
    unknown = [name for name in (*FINAL_OUTCOMES, "pending") if name not in flag_codes(status)]
    if unknown:
        raise SweepError(f"{path}: not an sgdmap result file: 'status' has no outcome {unknown[0]!r}")
    run_count = status.sizes["run"]
    if run_count == 0:
        raise SweepError(f"{path}: it has no runs")
    final = has_outcome(xr.DataArray(status)).values
    if checksum is not None and checksum.shape == status.shape:
        # An outcome whose checksum is missing is that of a run whose writing was cut short.
        status.values[final & (checksum.values == 0)] = flag_codes(status)["pending"]
        final &= checksum.values != 0

    settings = {name: _flat_variable(file, name) for name in names}
    for name, setting in settings.items():
        if setting.shape != (run_count,):
            raise SweepError(f"{path}: not an sgdmap result file: {name!r} does not have one value a run")
    if flat:
        axes: dict[str, xr.Variable] = {}
        order = np.arange(run_count)
        dims: tuple[str, ...] = ("run",)
    else:
        axes, order = _unstack(settings, run_count, path)
        dims = names
        order = order.reshape([axes[name].size for name in names])

    # None where the runs stand in the file as in the box, which is sgdmap's own order: a reshape, no gather.
    in_order = bool(np.array_equal(order.ravel(), np.arange(run_count)))

    def unstacked(flat_values: np.ndarray) -> np.ndarray:
        return flat_values.reshape(order.shape) if in_order else flat_values[order]

    source = _Source(path, file)
    variables: dict[str, xr.Variable] = {}
    for name, dataset in datasets.items():
        if name in ("run", "step", "status", *names):
            continue
        file_dims = _dimensions(dataset, run_count, file["step"].shape[0])
        if file_dims == ("run",):
            variable = _flat_variable(file, name)
            values = variable.values
            if masked and name not in BOOKKEEPING and "flag_values" not in variable.attrs:
                values = _masked(values, final)
            variables[name] = xr.Variable(dims, unstacked(values), variable.attrs)
        elif file_dims == ("run", "step"):
            rows = _Rows(source, name, dataset, order, final if masked else None)
            variables[name] = xr.Variable((*dims, "step"), indexing.LazilyIndexedArray(rows), _attributes(dataset))
    variables["status"] = xr.Variable(dims, unstacked(status.values), status.attrs)

    run = _flat_variable(file, "run")
    coordinates = {"step": xr.Variable(("step",), file["step"][...], _attributes(file["step"]))}
    coordinates["run"] = xr.Variable(dims, unstacked(run.values), run.attrs)
    if flat:
        coordinates |= {name: _decoded(setting) for name, setting in settings.items()}
    else:
        coordinates |= axes
    return xr.Dataset(variables, coordinates, _attributes(file))


def _unstack(
    settings: Mapping[str, xr.Variable], run_count: int, path: Path
) -> tuple[dict[str, xr.Variable], np.ndarray]:
    """The axes' distinct values, and the file's row of each cell of the box [cells], C order.

    Found from the settings alone, in whatever order the runs stand.
    """
    axes: dict[str, xr.Variable] = {}
    cell = np.zeros(run_count, dtype=np.int64)
    for name, setting in settings.items():
        values, inverse = np.unique(setting.values, return_inverse=True)
        if name != "replicate" and np.issubdtype(values.dtype, np.floating) and np.isnan(values).any():
            raise SweepError(f"{path}: not an sgdmap result file: {name!r} has values that are not numbers")
        # Checked before the product can overflow: a box larger than the runs has holes anyway.
        size = int(np.prod([axis.size for axis in axes.values()], dtype=np.float64)) * values.size
        if size > run_count:
            raise SweepError(_not_a_product(path, run_count, settings))
        cell = cell * values.size + inverse
        axes[name] = _decoded(xr.Variable((name,), values, setting.attrs))
    if size != run_count or np.bincount(cell, minlength=size).max() != 1:
        raise SweepError(_not_a_product(path, run_count, settings))
    order = np.empty(run_count, dtype=np.int64)
    order[cell] = np.arange(run_count)
    return axes, order


def _not_a_product(path: Path, run_count: int, settings: Mapping[str, xr.Variable]) -> str:
    counts = {name: np.unique(setting.values).size for name, setting in settings.items()}
    shape = " x ".join(f"{count} {name}" for name, count in counts.items() if count > 1)
    return f"{path}: the runs are not a full grid: {run_count} runs for {shape or 'one setting'}"


def _flat_variable(file: h5py.File, name: str) -> xr.Variable:
    dataset = file[name]
    if dataset.ndim != 1:
        raise SweepError(f"{file.filename}: not an sgdmap result file: {name!r} has {dataset.ndim} dimensions, not 1")
    return xr.Variable(("run",), dataset[...], _attributes(dataset))


def _dimensions(dataset: h5py.Dataset, run_count: int, step_count: int) -> tuple[str, ...]:
    """Names of the dimensions by their scales, or by their lengths where no scale is attached."""
    names = []
    for axis, (dimension, length) in enumerate(zip(dataset.dims, dataset.shape)):
        if len(dimension) > 0:
            names.append(dimension[0].name.rsplit("/", 1)[-1])
        elif axis == 0 and length == run_count:
            names.append("run")
        elif axis == 1 and length == step_count:
            names.append("step")
        else:
            names.append("")
    return tuple(names)


def _masked(values: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Float64 [run]: NaN where the run has no outcome, or where an integer says that a thing did not happen (-1)."""
    happened = final & (values >= 0) if np.issubdtype(values.dtype, np.integer) else final
    return np.where(happened, values, np.nan).astype(np.float64)


def _decoded(variable: xr.Variable) -> xr.Variable:
    """Flags as text, anything else as it is."""
    if "flag_values" not in variable.attrs:
        return variable
    return decode_flags(xr.DataArray(variable)).variable


def _attributes(item: h5py.File | h5py.Dataset) -> dict[str, Any]:
    """Attributes as Python text, scalars or arrays, without HDF5's and netCDF's own."""
    attributes = {}
    for name in item.attrs:
        if name in _HIDDEN_ATTRIBUTES:
            continue
        value = item.attrs[name]
        if isinstance(value, h5py.Empty):
            value = ""
        if isinstance(value, np.ndarray) and value.size == 1 and name != "flag_values":
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        attributes[name] = value
    return attributes


def _first_line(error: BaseException) -> str:
    return (str(error).strip("'\"") or type(error).__name__).splitlines()[0]


def told(axis: str, value: Any, digits: int = 6) -> str:
    """A value of an axis in a message or a table: a name, 'online', or a number with so many digits."""
    if isinstance(value, str):
        return str(value)
    return ONLINE if axis == "data" and value == 0 else f"{value:.{digits}g}"


def listed(values: np.ndarray, axis: str = "") -> str:
    """An axis' values for a message, the middle of many left out."""
    shown = [told(axis, value) for value in values]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:5], "...", *shown[-5:]])


# -- Lazy rows ---------------------------------------------------------------------------------------------------------


class _Source:
    """A file that is opened anew for each read, so that nothing stays open and rows come fresh from the disk."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path.absolute()
        stat = os.stat(self.path)
        self.identity = (stat.st_dev, stat.st_ino)

    def open(self) -> h5py.File:
        file = _open_file(self.path)
        stat = os.stat(self.path)
        if (stat.st_dev, stat.st_ino) != self.identity:
            file.close()
            raise SweepError(f"{self.path}: was replaced since it was opened; open it again")
        return file


class _Rows(BackendArray):
    """A dataset [run, step] seen as [axes, step]: the rows of the cells asked for, read when they are asked for."""

    def __init__(
        self, source: _Source, name: str, dataset: h5py.Dataset, order: np.ndarray, final: np.ndarray | None
    ) -> None:
        self.source = source
        self.name = name
        self.order = order  # [axes] the row of each cell
        self.final = final  # [run] False: NaN instead of what is stored; None: all as stored
        self.shape = (*order.shape, dataset.shape[1])
        self.dtype = dataset.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._get)

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        # Outer indexing, one dimension after the other from the last, so that an integer drops only its own.
        rows = self.order
        for axis in reversed(range(rows.ndim)):
            rows = rows[(slice(None),) * axis + (key[axis],)]
        steps = np.arange(self.shape[-1])[key[-1]]
        with self.source.open() as file:
            values = _read_rows(file[self.name], np.ravel(rows), np.ravel(steps))
        if self.final is not None:
            values[~self.final[np.ravel(rows)]] = np.nan
        return values.reshape(np.shape(rows) + np.shape(steps))


def _read_rows(dataset: h5py.Dataset, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """`dataset[rows][:, steps]` [rows, steps] by few contiguous reads.

    HDF5's own point selection grows with the square of the number of points.
    """
    values = np.empty((rows.size, steps.size), dataset.dtype)
    if values.size == 0:
        return values
    first, last = int(steps.min()), int(steps.max()) + 1
    picked = steps - first
    row_bytes = max(1, dataset.shape[1] * dataset.dtype.itemsize)
    for place in _neighbours(rows, max(1, _GAP_BYTES // row_bytes), max(1, _BLOCK_BYTES // row_bytes)):
        low, high = int(rows[place].min()), int(rows[place].max()) + 1
        block = dataset[low:high, first:last]
        values[place] = block[np.ix_(rows[place] - low, picked)]
    return values


def _neighbours(rows: np.ndarray, gap: int, span: int) -> Iterable[np.ndarray]:
    """Positions in `rows`, in parts whose rows stand at most `gap` apart and span at most `span` rows."""
    places = np.argsort(rows, kind="stable")
    ordered = rows[places]
    for part in np.split(places, np.flatnonzero(np.diff(ordered) > gap) + 1):
        start = 0
        part_rows = rows[part]
        while start < part.size:
            stop = int(np.searchsorted(part_rows, part_rows[start] + span))
            yield part[start:stop]
            start = stop
