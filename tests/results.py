"""What two result files have in common: for the tests that compare sweeps to the bit."""
from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

# What may differ between equal sweeps.
VOLATILE = {"wall_time", "rank"}


def contents(path: Path) -> dict[str, np.ndarray]:
    """Every dataset of the file, by name, without what may differ between equal sweeps."""
    ret = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: ret.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) and name not in VOLATILE else None
        )
    return ret


def assert_same(a: Path, b: Path) -> None:
    a, b = contents(a), contents(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
