"""Values of programs in a normal form: sums as coefficients, products as exponents, so that a - b + b is a and a*1 is a.

A value is ("sum", constant, {atom: coefficient}) or ("product", coefficient, {atom: exponent}) with sorted items, an atom, or
a number. Atoms are names and calls of functions; a sum is one in a product, a product without coefficient one in a sum. Values are
made once and know their hash, for programs share values: written out as trees, thirty statements may be a million calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from optlang.search.programs.functions import FUNCTIONS

Value = Any  # a name, a constant, or something `Made`
COMMUTES = frozenset(name for name, row in FUNCTIONS.items() if row.commutes)
_NEVER_NEGATIVE = frozenset(["abs", "sqrt", "exp", "exp2", "exp10", "cosh", "norm_tensor", "norm_model", "rms_tensor", "global_norm"])
_TOTAL = frozenset([  # numbers for all numbers
    "abs", "sign", "sin", "cos", "tanh", "atan", "asinh", "cbrt", "maximum", "minimum", "agreeing", "normalize", "clip_norm",
    "clip_global_norm", "global_norm", "global_dot",
    *(f"{name}_{word}" for name in ("norm", "rms", "mean", "sum", "amax", "amin", "dot") for word in ("tensor", "model", "row", "col")),
])  # fmt: skip


class Made(tuple[Any, ...]):
    """A value of parts, the same object wherever it is met again; see `made`."""

    own: int
    is_total: bool  # a number for all numbers

    def __hash__(self) -> int:
        return self.own

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


TABLE: dict[tuple[Any, ...], Made] = {}  # whoever asks for values empties it, before it grows for ever


def made(*parts: Any) -> Made:
    """The one value with these parts."""
    found = TABLE.get(parts)
    if found is None:
        found = TABLE[parts] = Made(parts)
        *first, last = parts
        items = [(atom, hash_key(number)) for atom, number in last] if type(last) is tuple else [hash_key(last)]
        found.own = hash((*map(hash_key, first), *items))
        found.is_total = _total_call(parts[1], parts[2:]) if parts[0] == "call" else all(_is_total(atom) for atom, _ in last)
    return found


def _is_total(value: Value) -> bool:
    return not isinstance(value, Made) or value.is_total


def _total_call(function: str, args: Sequence[Value]) -> bool:
    if function == "sqrt":
        defined = never_negative(args[0])
    elif function == "unbiased":
        defined = isinstance(args[1], float) and 0 <= args[1] < 1
    else:
        defined = function in _TOTAL
    return defined and all(map(_is_total, args))


def hash_key(value: Any) -> Any:
    """What a value is in a hash: for Python -1 and -2 have the same."""
    return "minus one" if value == -1.0 else value


def call_of(function: str, args: Sequence[Value]) -> Value:
    ordered = sorted(args, key=hash) if function in COMMUTES else args
    return made("call", function, *ordered)


def never_negative(a: Value) -> bool:
    if not isinstance(a, Made) or a[0] == "sum":
        return False
    return a[1] in _NEVER_NEGATIVE if a[0] == "call" else a[1] > 0 and all(exponent % 2 == 0 for _, exponent in a[2])


# sums


def _terms(value: Value) -> tuple[float, dict[Value, float]]:
    """A value as a constant and coefficients."""
    if isinstance(value, float):
        return value, {}
    if isinstance(value, Made) and value[0] == "sum":
        return value[1], dict(value[2])
    if isinstance(value, Made) and value[0] == "product" and value[1] != 1.0:
        return 0.0, {made("product", 1.0, value[2]) if _is_more(value[2]) else value[2][0][0]: value[1]}
    return 0.0, {value: 1.0}


def _is_more(items: Sequence[tuple[Value, float]]) -> bool:
    return len(items) != 1 or items[0][1] != 1.0


def summed(parts: Sequence[tuple[float, Value]]) -> Value:
    """Multiples of values, added."""
    constant, total = 0.0, dict[Value, float]()
    for factor, value in parts:
        more, terms = _terms(value)
        constant += factor * more
        for atom, coefficient in terms.items():
            total[atom] = total.get(atom, 0.0) + factor * coefficient
    kept = {atom: _rounded(c) if abs(c) > 1e-14 else 0.0 for atom, c in total.items() if abs(c) > 1e-14 or not _is_total(atom)}
    if not kept:
        return _rounded(constant)
    if constant == 0.0 and len(kept) == 1:
        [(atom, coefficient)] = kept.items()
        if coefficient:
            return product([(atom, 1.0)], coefficient)
    return made("sum", _rounded(constant), tuple(sorted(kept.items(), key=hash)))


def _rounded(value: float) -> float:
    """Two ways to the same coefficient differ in the last bits."""
    return float(f"{value:.13g}")


# products


def factors(value: Value) -> tuple[float, dict[Value, float]]:
    """A value as a coefficient and exponents."""
    if isinstance(value, float):
        return value, {}
    if isinstance(value, Made) and value[0] == "product":
        return value[1], dict(value[2])
    return 1.0, {value: 1.0}


def product(parts: Sequence[tuple[Value, float]], coefficient: float = 1.0) -> Value:
    """Powers of values, multiplied. Exponents are whole."""
    total: dict[Value, float] = {}
    for value, exponent in parts:
        factor, powers = factors(value)
        coefficient *= factor**exponent if factor or exponent > 0 else math.nan
        for atom, own in powers.items():
            total[atom] = total.get(atom, 0.0) + own * exponent
    kept = {atom: exponent for atom, exponent in total.items() if exponent}
    coefficient = _rounded(coefficient)
    if coefficient == 0.0:
        return summed([(0.0, atom) for atom in kept])
    if not kept:
        return coefficient
    items = tuple(sorted(kept.items(), key=hash))
    return items[0][0] if coefficient == 1.0 and not _is_more(items) else made("product", coefficient, items)
