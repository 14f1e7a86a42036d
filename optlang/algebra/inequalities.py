"""Whether signs of several expressions can be as they are said to be: linear arithmetic over their monomials.

Every product of different symbols counts as an unknown of its own, of which only the sign is known. So what is called impossible
is, and what is not called so may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optlang.algebra.to_sympy import Algebra

Expr = Any  # a SymPy expression
Fact = tuple[Expr, int]  # an expression and its sign; 2 stands for "not below zero"
NOT_NEGATIVE = 2
MOST = 150  # inequalities at once
NUMBER = None  # stands for the monomial of no unknowns

Row = tuple[dict[Expr, Fraction], bool]  # coefficients of the monomials, whose sum is above zero (True) or not below


def known_of(algebra: Algebra, symbol: Expr) -> list[Fact]:
    """What the range of a setting, or the kind of a symbol, says of it."""
    found: list[Fact] = []
    if symbol.is_integer and symbol.is_positive:
        found.append((symbol - 1, NOT_NEGATIVE))
    elif symbol.is_nonnegative or symbol.is_positive:
        found.append((symbol, 1 if symbol.is_positive else NOT_NEGATIVE))
    node = algebra.nodes.get(symbol)
    if node is None:
        return found
    if node.op == "sub":  # 1 - beta^t
        found.append((1 - symbol, NOT_NEGATIVE))
    bounds = algebra.hypers[node.value].bounds if node.op == "hyper" and node.value in algebra.hypers else None
    if bounds is not None:
        for end, open_, way in ((bounds.low, bounds.low_open, 1), (bounds.high, bounds.high_open, -1)):
            if abs(end) != float("inf"):
                strict = open_ and not (end == 0 and node.value.rpartition(".")[2] == "lr")  # schedulers go there
                found.append((way * (symbol - algebra.number(end)), 1 if strict else NOT_NEGATIVE))
    return found


def feasible(sympy: Any, facts: Iterable[Fact]) -> bool:
    """False only where the facts contradict each other."""
    rows = [row for expr, sign in dict.fromkeys(facts) for row in _rows(sympy.expand(expr), sign)]
    unknowns = dict.fromkeys(monomial for row, _ in rows for monomial in row if monomial != NUMBER)
    rows += [({monomial: Fraction(1)}, bool(monomial.is_positive)) for monomial in unknowns if monomial.is_nonnegative]
    return _eliminated(rows)


def _rows(expr: Expr, sign: int) -> list[Row]:
    row = {NUMBER if monomial == 1 else monomial: Fraction(int(c.p), int(c.q)) for monomial, c in expr.as_coefficients_dict().items()}
    negated = {monomial: -number for monomial, number in row.items()}
    return {1: [(row, True)], NOT_NEGATIVE: [(row, False)], 0: [(row, False), (negated, False)], -1: [(negated, True)]}[sign]


def _eliminated(rows: list[Row]) -> bool:
    """Fourier's way: each unknown is between what others say, until only numbers are left."""
    while (pairs := _pairs(rows)) and len(rows) <= MOST:
        unknown = min(pairs, key=lambda one: pairs[one])
        above = [row for row in rows if row[0].get(unknown, 0) > 0]
        below = [row for row in rows if row[0].get(unknown, 0) < 0]
        rows = [row for row in rows if not row[0].get(unknown, 0)]
        rows += [_joined(one, other, unknown) for one in above for other in below]
    return bool(pairs) or all(row.get(NUMBER, 0) > 0 if strict else row.get(NUMBER, 0) >= 0 for row, strict in rows)


def _pairs(rows: list[Row]) -> dict[Expr, int]:
    """For each unknown how many inequalities there would be without it."""
    above: Counter[Expr] = Counter()
    below: Counter[Expr] = Counter()
    for row, _ in rows:
        for unknown, number in row.items():
            if unknown is not NUMBER and number:
                (above if number > 0 else below)[unknown] += 1
    return {unknown: above[unknown] * below[unknown] for unknown in {**above, **below}}


def _joined(one: Row, other: Row, unknown: Expr) -> Row:
    up, down = one[0][unknown], -other[0][unknown]
    found = {key: down * number for key, number in one[0].items() if key != unknown}
    for key, number in other[0].items():
        if key != unknown:
            found[key] = found.get(key, 0) + up * number
    return found, one[1] or other[1]
