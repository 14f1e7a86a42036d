"""Keys of programs: equal keys mean the same program, written another way.

Two keys, the cheap one first. `structural_key`: what each value is made of, without names, dead statements and the order of
operands that commute. `algebraic_key`: values in a normal form besides, sums as coefficients and products as exponents, so
that a - b + b is a, a*1 is a and sqrt(a*a) is abs(a). What may be undefined or infinite does not vanish: log(a) - log(a) is not 0
where a is negative. Both hold for this process only: they are hashes of Python's. Values are made once and know their hash,
for programs share values: written out as trees, thirty statements may be a million calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from optlang.search.programs.functions import FUNCTIONS, TINY
from optlang.search.programs.genome import UPDATE, Argument, Form, Genome

Value = Any  # a name, a constant, or something `Made`
COMMUTES = frozenset(name for name, row in FUNCTIONS.items() if row.commutes)


def structural_key(genome: Genome, form: Form) -> int:
    """Of a genome without dead statements."""
    known: dict[str, int] = {}
    for function, target, args, _ in genome:
        given = [known.get(arg, arg) if type(arg) is str else repr(arg) for arg in args]
        if function in COMMUTES:
            given.sort(key=hash)
        known[target] = hash((function, *given))
    return hash((known.get(UPDATE), *[known.get(slot) if _is_memory(slot, genome) else None for slot in form.slots]))


def _is_memory(slot: str, genome: Genome) -> bool:
    """Whether what a slot held before the step is read; else it is a temporary, or not used at all."""
    for _, target, args, _ in genome:
        if slot in args:
            return True
        if target == slot:
            return False
    return False


# ---------------------------------------------------------------------------------------------- algebra of values
#
# A value is ("sum", constant, {atom: coefficient}) or ("product", coefficient, {atom: exponent}) with sorted items, an atom, or
# a number. Atoms are names and calls of functions; a sum is one in a product, a product without coefficient one in a sum.


def algebraic_key(genome: Genome, form: Form) -> int:
    """Of a genome without dead statements. In a scaled form the update counts up to a positive factor."""
    if len(_table) + len(_calls) > MOST:
        _table.clear()
        _calls.clear()
    known: dict[Argument, Value] = {}
    for function, target, args, _ in genome:
        call = (function, *[known.get(arg, arg) for arg in args])
        value = _calls.get(call)
        if value is None:
            value = _calls[call] = _called(function, call[1:])
        known[target] = value
    update = known.get(UPDATE)
    if form.scaled:
        call = ("direction", update)
        value = _calls.get(call)
        update = _calls[call] = _direction(update) if value is None else value
    kept = [_told(known.get(slot, slot)) if _is_memory(slot, genome) else None for slot in form.slots]
    return hash((_told(update), *kept))


class Made(tuple[Any, ...]):
    """A value of parts, the same object wherever it is met again; see `_made`."""

    own: int
    is_total: bool  # a number for all numbers

    def __hash__(self) -> int:
        return self.own

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other


MOST = 200_000
_table: dict[tuple[Any, ...], Made] = {}
_calls: dict[tuple[Any, ...], Value] = {}  # children share most calls with their parents


def _made(*parts: Any) -> Made:
    """The one value with these parts."""
    found = _table.get(parts)
    if found is None:
        found = _table[parts] = Made(parts)
        *first, last = parts
        items = [(atom, _told(number)) for atom, number in last] if type(last) is tuple else [_told(last)]
        found.own = hash((*map(_told, first), *items))
        found.is_total = _total_call(parts[1], parts[2:]) if parts[0] == "call" else all(_is_total(atom) for atom, _ in last)
    return found


def _is_total(value: Value) -> bool:
    return not isinstance(value, Made) or value.is_total


def _total_call(function: str, args: Sequence[Value]) -> bool:
    if function == "sqrt":
        defined = _never_negative(args[0])
    elif function == "unbiased":
        defined = isinstance(args[1], float) and 0 <= args[1] < 1
    else:
        defined = function in _TOTAL
    return defined and all(map(_is_total, args))


def _told(value: Any) -> Any:
    """What a value is in a hash: for Python -1 and -2 have the same."""
    return "minus one" if value == -1.0 else value


def _called(function: str, args: Sequence[Value]) -> Value:
    """The normal form of a call."""
    if all(isinstance(arg, float) for arg in args):
        folded = _folded(function, args)
        if folded is not None:
            return folded
    rule = _RULES.get(function)
    return rule(*args) if rule is not None else _atom(function, args)


def _atom(function: str, args: Sequence[Value]) -> Value:
    ordered = sorted(args, key=hash) if function in COMMUTES else args
    return _made("call", function, *ordered)


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


# sums


def _terms(value: Value) -> tuple[float, dict[Value, float]]:
    """A value as a constant and coefficients."""
    if isinstance(value, float):
        return value, {}
    if isinstance(value, Made) and value[0] == "sum":
        return value[1], dict(value[2])
    if isinstance(value, Made) and value[0] == "product" and value[1] != 1.0:
        return 0.0, {_made("product", 1.0, value[2]) if _is_more(value[2]) else value[2][0][0]: value[1]}
    return 0.0, {value: 1.0}


def _is_more(items: Sequence[tuple[Value, float]]) -> bool:
    return len(items) != 1 or items[0][1] != 1.0


def _sum(parts: Sequence[tuple[float, Value]]) -> Value:
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
            return _product([(atom, 1.0)], coefficient)
    return _made("sum", _rounded(constant), tuple(sorted(kept.items(), key=hash)))


def _rounded(value: float) -> float:
    """Two ways to the same coefficient differ in the last bits."""
    return float(f"{value:.13g}")


# products


def _factors(value: Value) -> tuple[float, dict[Value, float]]:
    """A value as a coefficient and exponents."""
    if isinstance(value, float):
        return value, {}
    if isinstance(value, Made) and value[0] == "product":
        return value[1], dict(value[2])
    return 1.0, {value: 1.0}


def _product(parts: Sequence[tuple[Value, float]], coefficient: float = 1.0) -> Value:
    """Powers of values, multiplied. Exponents are whole."""
    total: dict[Value, float] = {}
    for value, exponent in parts:
        factor, powers = _factors(value)
        coefficient *= factor**exponent if factor or exponent > 0 else math.nan
        for atom, own in powers.items():
            total[atom] = total.get(atom, 0.0) + own * exponent
    kept = {atom: exponent for atom, exponent in total.items() if exponent}
    coefficient = _rounded(coefficient)
    if coefficient == 0.0:
        return _sum([(0.0, atom) for atom in kept])
    if not kept:
        return coefficient
    items = tuple(sorted(kept.items(), key=hash))
    return items[0][0] if coefficient == 1.0 and not _is_more(items) else _made("product", coefficient, items)


def _quotient(a: Value, b: Value) -> Value:
    """b is not cancelled: where it is zero, b/b is not 1."""
    factor, powers = _factors(b)
    if not powers:
        return _product([(a, 1.0)], 1 / factor) if factor else _atom("div", (a, b))
    bare = _product(list(powers.items()))
    return _product([(a, 1.0), (_made("call", "inverse", bare), 1.0)], 1 / factor)


def _protected(b: Value) -> Value:
    """b + 1e-8. Rules train in single precision, where that is b itself for most numbers."""
    return b if isinstance(b, float) and np.float32(b + TINY) == np.float32(b) else _sum([(1.0, b), (1.0, TINY)])


# functions with a law of their own


def _never_negative(a: Value) -> bool:
    if not isinstance(a, Made) or a[0] == "sum":
        return False
    return a[1] in _NEVER_NEGATIVE if a[0] == "call" else a[1] > 0 and all(exponent % 2 == 0 for _, exponent in a[2])


def _absolute(a: Value) -> Value:
    """Of -a it is that of a; of what is never negative, itself."""
    if _never_negative(a):
        return a
    if not isinstance(a, Made) or a[0] != "product":
        return _atom("abs", (a,))
    bare = _product([(a, 1.0)], 1 / a[1])
    even = all(exponent % 2 == 0 for _, exponent in a[2])
    return _product([(bare if even else _atom("abs", (bare,)), 1.0)], abs(a[1]))


def _root(a: Value) -> Value:
    """Of a square it is the absolute value."""
    if isinstance(a, Made) and a[0] == "product" and all(exponent % 2 == 0 for _, exponent in a[2]) and a[1] > 0:
        half = _product([(atom, exponent / 2) for atom, exponent in a[2]])
        return _product([(_absolute(half), 1.0)], math.sqrt(a[1]))
    return _atom("sqrt", (a,))


def _power(a: Value, b: Value) -> Value:
    whole = isinstance(b, float) and b.is_integer() and 1 <= b <= 8
    return _product([(a, b)]) if whole else _atom("pow", (a, b))


def _interpolated(x: Value, y: Value, a: Value) -> Value:
    """Of x and x it is x only in theory where the share is large: 1 - a loses its 1."""
    if isinstance(a, float):
        return _sum([(1 - a, x), (a, y)])
    return _atom("interp", (x, y, a)) if x == y else _sum([(1.0, x), (1.0, _product([(a, 1.0), (_sum([(1.0, y), (-1.0, x)]), 1.0)]))])


def _same(function: str) -> Callable[[Value, Value], Value]:
    return lambda a, b: a if a == b else _atom(function, (a, b))


def _sign(a: Value) -> Value:
    """Does not see a positive factor."""
    if isinstance(a, Made) and a[0] == "product":
        bare = _product([(a, 1.0)], 1 / abs(a[1]))
        return _product([(_atom("sign", (_product([(bare, 1.0)], -1.0),)), 1.0)], -1.0) if a[1] < 0 else _atom("sign", (bare,))
    return a if isinstance(a, Made) and a[0] == "call" and a[1] == "sign" else _atom("sign", (a,))


_NEVER_NEGATIVE = frozenset(["abs", "sqrt", "exp", "exp2", "exp10", "cosh", "norm_tensor", "norm_model", "rms_tensor", "global_norm"])
_TOTAL = frozenset([  # numbers for all numbers
    "abs", "sign", "sin", "cos", "tanh", "atan", "asinh", "cbrt", "maximum", "minimum", "agreeing", "normalize", "clip_norm",
    "clip_global_norm", "global_norm", "global_dot",
    *(f"{name}_{word}" for name in ("norm", "rms", "mean", "sum", "amax", "amin", "dot") for word in ("tensor", "model", "row", "col")),
])  # fmt: skip
_RULES: dict[str, Callable[..., Value]] = {
    "add": lambda a, b: _sum([(1.0, a), (1.0, b)]),
    "sub": lambda a, b: _sum([(1.0, a), (-1.0, b)]),
    "neg": lambda a: _product([(a, 1.0)], -1.0),
    "mul": lambda a, b: _product([(a, 1.0), (b, 1.0)]),
    "div": _quotient,
    "square": lambda a: _product([(a, 2.0)]),
    "cube": lambda a: _product([(a, 3.0)]),
    "complement": lambda a: _sum([(1.0, 1.0), (-1.0, a)]),
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


def _direction(value: Value) -> Value:
    """A value up to a positive factor."""
    if isinstance(value, Made) and value[0] == "product":
        return _product([(value, 1.0)], 1 / abs(value[1])) if value[1] else value
    if isinstance(value, Made) and value[0] == "sum":
        size = next((abs(coefficient) for _, coefficient in value[2] if coefficient), abs(value[1])) or 1.0
        return _sum([(1 / size, value)])
    return value
