"""The paper's claims as measured: a module each, with what is claimed, the rule of its verdict, and its figure.

Y. Li, Y. Yuan, "Convergence Analysis of Two-layer Neural Networks with ReLU Activation", NeurIPS 2017, arXiv:1705.09886.

Each module has

`NAME`, `TITLE`, `CLAIM`, `RULE`
    the config's name, a heading, what is claimed, and how the verdict is found, in words.
`measure(sweep)`
    from a sweep to plain numbers, ready for JSON.
`judge(numbers)`
    from these numbers to a verdict and its reason; nothing else decides it.
`effects(numbers)`
    the sizes with their intervals that stand in the first table.
`details(numbers)`
    a table: a heading and rows of text.
`PANELS`, `draw(axes, numbers, sweep)`, `CAPTION`
    the figure.
"""
from __future__ import annotations

import importlib
from typing import Any

# In the order of the report.
NAMES = ("link", "phases", "zero", "rates", "bounds", "inputs", "gradient", "data", "noise")


def load(name: str) -> Any:
    """The module of a claim."""
    return importlib.import_module(f".{name}", __name__)
