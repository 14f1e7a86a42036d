"""Calls of functions in normal form: what is known of a function besides its name, as that the root of a square is the absolute value.

What may be undefined or infinite does not vanish: log(a) - log(a) is not 0 where a is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from optlang.search.programs.functions import TINY
from optlang.search.screening.values import Made, Value, call_of, factors, made, never_negative, product, summed


def called(function: str, args: Sequence[Value]) -> Value:
    """The normal form of a call."""
    if all(isinstance(arg, float) for arg in args):
        folded = _folded(function, args)
        if folded is not None:
            return folded
    rule = _RULES.get(function)
    return rule(*args) if rule is not None else call_of(function, args)


def _quotient(a: Value, b: Value) -> Value:
    """b is not cancelled: where it is zero, b/b is not 1."""
    factor, powers = factors(b)
    if not powers:
        return product([(a, 1.0)], 1 / factor) if factor else call_of("div", (a, b))
    bare = product(list(powers.items()))
    return product([(a, 1.0), (made("call", "inverse", bare), 1.0)], 1 / factor)


def _protected(b: Value) -> Value:
    """b + 1e-8. Rules train in single precision, where that is b itself for most numbers."""
    return b if isinstance(b, float) and np.float32(b + TINY) == np.float32(b) else summed([(1.0, b), (1.0, TINY)])


def _absolute(a: Value) -> Value:
    """Of -a it is that of a; of what is never negative, itself."""
    if never_negative(a):
        return a
    if not isinstance(a, Made) or a[0] != "product":
        return call_of("abs", (a,))
    bare = product([(a, 1.0)], 1 / a[1])
    even = all(exponent % 2 == 0 for _, exponent in a[2])
    return product([(bare if even else call_of("abs", (bare,)), 1.0)], abs(a[1]))


def _root(a: Value) -> Value:
    """Of a square it is the absolute value."""
    if isinstance(a, Made) and a[0] == "product" and all(exponent % 2 == 0 for _, exponent in a[2]) and a[1] > 0:
        half = product([(atom, exponent / 2) for atom, exponent in a[2]])
        return product([(_absolute(half), 1.0)], math.sqrt(a[1]))
    return call_of("sqrt", (a,))


def _power(a: Value, b: Value) -> Value:
    whole = isinstance(b, float) and b.is_integer() and 1 <= b <= 8
    return product([(a, b)]) if whole else call_of("pow", (a, b))


def _interpolated(x: Value, y: Value, a: Value) -> Value:
    """Of x and x it is x only in theory where the share is large: 1 - a loses its 1."""
    if isinstance(a, float):
        return summed([(1 - a, x), (a, y)])
    return call_of("interp", (x, y, a)) if x == y else summed([(1.0, x), (1.0, product([(a, 1.0), (summed([(1.0, y), (-1.0, x)]), 1.0)]))])


def _same(function: str) -> Callable[[Value, Value], Value]:
    return lambda a, b: a if a == b else call_of(function, (a, b))


def _sign(a: Value) -> Value:
    """Does not see a positive factor."""
    if isinstance(a, Made) and a[0] == "product":
        bare = product([(a, 1.0)], 1 / abs(a[1]))
        return product([(call_of("sign", (product([(bare, 1.0)], -1.0),)), 1.0)], -1.0) if a[1] < 0 else call_of("sign", (bare,))
    return a if isinstance(a, Made) and a[0] == "call" and a[1] == "sign" else call_of("sign", (a,))


def up_to_size(value: Value) -> Value:
    """A value up to a positive factor."""
    if isinstance(value, Made) and value[0] == "product":
        return product([(value, 1.0)], 1 / abs(value[1])) if value[1] else value
    if isinstance(value, Made) and value[0] == "sum":
        size = next((abs(coefficient) for _, coefficient in value[2] if coefficient), abs(value[1])) or 1.0
        return summed([(1 / size, value)])
    return value


def _folded(function: str, args: Sequence[float]) -> float | None:
    plain = _NUMBERS.get(function)
    with np.errstate(all="ignore"):
        value = float(plain(*args)) if plain is not None else math.nan
    return value if math.isfinite(value) else None


_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": np.divide, "pow": np.power,
    "neg": lambda a: -a, "abs": abs, "sqrt": np.sqrt, "square": lambda a: a * a, "cube": lambda a: a**3, "exp": np.exp, "log": np.log,
    "sin": np.sin, "cos": np.cos, "tanh": np.tanh, "maximum": max, "minimum": min, "sign": np.sign, "complement": lambda a: 1 - a,
    "protected_div": lambda a, b: np.divide(a, b + TINY), "protected_sqrt": lambda a: math.sqrt(abs(a)),
    "interp": lambda x, y, a: (1 - a) * x + a * y,
}  # fmt: skip
_RULES: dict[str, Callable[..., Value]] = {
    "add": lambda a, b: summed([(1.0, a), (1.0, b)]),
    "sub": lambda a, b: summed([(1.0, a), (-1.0, b)]),
    "neg": lambda a: product([(a, 1.0)], -1.0),
    "mul": lambda a, b: product([(a, 1.0), (b, 1.0)]),
    "div": _quotient,
    "square": lambda a: product([(a, 2.0)]),
    "cube": lambda a: product([(a, 3.0)]),
    "complement": lambda a: summed([(1.0, 1.0), (-1.0, a)]),
    "protected_div": lambda a, b: _quotient(a, _protected(b)),
    "reciprocal": lambda a: _quotient(1.0, _protected(a)),
    "pow": _power,
    "abs": _absolute,
    "sqrt": _root,
    "protected_sqrt": lambda a: _root(_absolute(a)),
    "interp": _interpolated,
    "maximum": _same("maximum"),
    "minimum": _same("minimum"),
    "sign": _sign,
}
