"""Offline analysis of sgdmap result files: labelled data, statistics over replicates, maps.

    from sgdmap_analysis import open_sweep
    sweep = open_sweep("sweep.nc")
    sweep.loss.sel(dimension=10, step_size=1e-2, method="nearest")
"""
import os

# A job may be writing the file that is read here, and a killed one may have left its lock (always so on some
# parallel file systems). HDF5 looks at this once, when it is loaded: set it before h5py or netCDF4 come in.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")

from .errors import ArgumentError, FileError, SweepError  # noqa: E402
from .statistics import convergence, outcome_counts, wilson_interval  # noqa: E402
from .sweep import decode_flags, open_sweep, select  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "FileError",
    "SweepError",
    "convergence",
    "decode_flags",
    "open_sweep",
    "outcome_counts",
    "select",
    "wilson_interval",
]
