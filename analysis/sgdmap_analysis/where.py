"""Choosing runs by their settings: `dimension==50 and step_size<0.01`, or the short forms `dimension=10,50` and
`step_size=1e-3:0.1`.

An expression is Python's own syntax, of which comparisons, `in`, `and`, `or`, `not` and brackets are allowed; it is read
with the ast module and never executed.
"""
from __future__ import annotations

import ast
import re
from typing import Any, Iterable

import numpy as np
import xarray as xr

from .errors import ArgumentError
from .sweep import AXES, NAMED_AXES, ONLINE, axis_values, listed, select

# 0.001 is to find what a log range made of it.
_TOLERANCE = 1e-6

_SHORT = re.compile(r"\s*([A-Za-z_-]+)\s*=(?!=)\s*(.*)", re.DOTALL)


def choose(sweep: xr.Dataset, where: Iterable[str]) -> tuple[xr.Dataset, xr.DataArray | None]:
    """The smallest box of settings around those that fulfil all texts, and which of its settings do.

    Returns the sweep [axes] with only the values that some chosen setting has, and a mask, boolean over those axes that
    it depends on; None where the whole box is chosen. Raises ArgumentError for what cannot be understood, names an axis
    or a value that is not there, or chooses nothing.
    """
    chosen: xr.DataArray | None = None
    for text in where:
        short = _SHORT.fullmatch(text)
        if short:
            sweep = select(sweep, dict([_short_form(short[1], short[2], text)]))
            if chosen is not None:
                chosen = chosen.sel({name: sweep[name] for name in chosen.dims})
        else:
            mask = _evaluate(_parse(text), sweep, text)
            chosen = mask if chosen is None else chosen & mask
    if chosen is None:
        return sweep, None
    if not chosen.any():
        raise ArgumentError(f"no setting fulfils {' and '.join(repr(text) for text in where)}")
    for name in chosen.dims:
        index = np.flatnonzero(chosen.any([other for other in chosen.dims if other != name]).values)
        sweep, chosen = sweep.isel({name: index}), chosen.isel({name: index})
    return sweep, None if bool(chosen.all()) else chosen


def choose_box(sweep: xr.Dataset, where: Iterable[str]) -> xr.Dataset:
    """`choose` for what needs a full product of axes; an ArgumentError where the choice is none."""
    where = list(where)
    box, chosen = choose(sweep, where)
    if chosen is not None:
        raise ArgumentError(f"{' and '.join(repr(text) for text in where)}: the settings chosen are not a product of axes, "
                            "which this command needs")
    return box


def check(text: str) -> str:
    """The text itself if its syntax is right and the names in it are axes, for argparse; else an ArgumentError."""
    short = _SHORT.fullmatch(text)
    if short:
        _short_form(short[1], short[2], text)
    else:
        _check(_parse(text), text)
    return text


# -- Short forms -------------------------------------------------------------------------------------------------------


def _short_form(name: str, values: str, text: str) -> tuple[str, Any]:
    axis = axis_name(name)
    if not values.strip():
        raise ArgumentError(f"{text!r} is not AXIS=VALUE, AXIS=VALUE,VALUE or AXIS=LOW:HIGH")
    if ":" in values:
        low, _, high = values.partition(":")
        return axis, slice(_number(low, text, axis), _number(high, text, axis))
    items = [item.strip() for item in values.split(",")]
    return axis, items if axis in NAMED_AXES else [_number(item, text, axis) for item in items]


def _number(item: str, text: str, axis: str) -> float | None:
    if axis == "data" and item.strip() == ONLINE:
        return 0.0
    if not item.strip():
        if ":" in text:
            return None
        raise ArgumentError(f"{text!r}: a value is missing")
    try:
        return float(item)
    except ValueError:
        raise ArgumentError(f"{text!r}: {item!r} is not a number") from None


def axis_name(text: str) -> str:
    """The axis of that name, in which - may stand for _."""
    name = text.strip().replace("-", "_")
    if name not in AXES:
        raise ArgumentError(f"{text!r} is not an axis; the axes are {', '.join(AXES)}")
    return name


# -- Expressions -------------------------------------------------------------------------------------------------------


def _parse(text: str) -> ast.expr:
    if len(text) > 4096:
        raise ArgumentError(f"{text[:40]!r}… is longer than 4096 characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ArgumentError(f"{text!r} is neither an expression like 'dimension==50 and step_size<0.01' nor AXIS=VALUE, "
                            "AXIS=VALUE,VALUE or AXIS=LOW:HIGH") from None


def _is_axis(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in AXES


def _value(node: ast.expr, text: str) -> float | str:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        if isinstance(node.operand.value, (int, float)):
            return -node.operand.value
    # A name of an outcome or a link may stand without its quotes.
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and node.value is None:
        return "none"
    raise ArgumentError(f"{text!r}: {ast.unparse(node)!r} is neither a number nor a name")


def _values(node: ast.expr, text: str) -> list[float | str]:
    if not isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        raise ArgumentError(f"{text!r}: after 'in' a list is expected, as in 'dimension in (10, 50)'")
    return [_value(item, text) for item in node.elts]


def _comparisons(node: ast.Compare, text: str) -> list[tuple[str, ast.cmpop, list[float | str]]]:
    """(axis, operator, values) of each link of a chain like 0.01 <= step_size < 0.1."""
    mirrored = {ast.Lt: ast.Gt(), ast.Gt: ast.Lt(), ast.LtE: ast.GtE(), ast.GtE: ast.LtE()}
    links = []
    for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators):
        if _is_axis(right) and not _is_axis(left):
            left, right, operator = right, left, mirrored.get(type(operator), operator)
        if not _is_axis(left):
            name = left.id if isinstance(left, ast.Name) else ast.unparse(left)
            raise ArgumentError(f"{text!r}: {name!r} is not an axis; the axes are {', '.join(AXES)}")
        if _is_axis(right):
            raise ArgumentError(f"{text!r}: an axis is compared with numbers or names, not with another axis")
        if isinstance(operator, (ast.In, ast.NotIn)):
            values = _values(right, text)
        elif isinstance(operator, (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            values = [_value(right, text)]
        else:
            raise ArgumentError(f"{text!r}: of operators there are ==, !=, <, <=, >, >=, in, not in, and, or, not")
        axis = left.id
        named = axis in NAMED_AXES
        if axis == "data":
            values = [0 if value == ONLINE else value for value in values]
        if named and isinstance(operator, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)):
            raise ArgumentError(f"{text!r}: {axis} has names, which are not less or greater")
        for value in values:
            if named != isinstance(value, str):
                raise ArgumentError(f"{text!r}: {axis} is compared with a {'name' if named else 'number'}, not with {value!r}")
        links.append((axis, operator, values))
    return links


def _check(node: ast.expr, text: str) -> None:
    if isinstance(node, ast.BoolOp):
        for part in node.values:
            _check(part, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check(node.operand, text)
    elif isinstance(node, ast.Compare):
        _comparisons(node, text)
    else:
        raise ArgumentError(f"{text!r}: {ast.unparse(node)!r} is no comparison like 'dimension==50', nor AXIS=VALUE, "
                            "AXIS=VALUE,VALUE or AXIS=LOW:HIGH")


def _evaluate(node: ast.expr, sweep: xr.Dataset, text: str) -> xr.DataArray:
    """True [axes named in the expression] where it holds."""
    _check(node, text)
    if isinstance(node, ast.BoolOp):
        parts = [_evaluate(part, sweep, text) for part in node.values]
        ret = parts[0]
        for part in parts[1:]:
            ret = ret & part if isinstance(node.op, ast.And) else ret | part
        return ret
    if isinstance(node, ast.UnaryOp):
        return ~_evaluate(node.operand, sweep, text)
    ret = None
    for axis, operator, values in _comparisons(node, text):
        have = axis_values(sweep, axis)
        part = xr.DataArray(_compare(have, operator, values, axis), dims=axis, coords={axis: have})
        if axis not in sweep.coords:
            part = part.isel({axis: 0}, drop=True)  # all runs have the default
        ret = part if ret is None else ret & part
    return ret


def _compare(have: np.ndarray, operator: ast.cmpop, values: list[Any], axis: str) -> np.ndarray:
    def equals(value: Any) -> np.ndarray:
        equal = have == value if isinstance(value, str) else np.isclose(have, value, rtol=_TOLERANCE, atol=0)
        if not equal.any() and isinstance(operator, (ast.Eq, ast.In)):
            raise ArgumentError(f"{axis} has no value {ONLINE if axis == 'data' and value == 0 else value}; it has {listed(have, axis)}")
        return equal

    if isinstance(operator, (ast.Eq, ast.In, ast.NotEq, ast.NotIn)):
        found = np.any([equals(value) for value in values], axis=0) if values else np.zeros(have.shape, bool)
        return ~found if isinstance(operator, (ast.NotEq, ast.NotIn)) else found
    value = values[0]
    equal = np.isclose(have, value, rtol=_TOLERANCE, atol=0)
    if isinstance(operator, (ast.LtE, ast.GtE)):
        return equal | (have < value if isinstance(operator, ast.LtE) else have > value)
    return ~equal & (have < value if isinstance(operator, ast.Lt) else have > value)
