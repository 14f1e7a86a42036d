"""Signs of expressions in a case: the sign of a product is that of its factors, and what contradicts itself is no sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from optlang.algebra.inequalities import NOT_NEGATIVE, Fact, feasible, known_of
from optlang.algebra.limits import TooHard
from optlang.algebra.to_sympy import Algebra

Expr = Any  # a SymPy expression

MOST_JOINED = 6  # signs of which each two are multiplied


class Undefined(Exception):
    """A value that no real number is, as 1/0."""


class Split(Exception):
    """A sign, or truth, that has to be known first."""

    def __init__(self, atom: Expr, outcomes: tuple[Any, ...]) -> None:
        self.atom, self.outcomes = atom, outcomes


@dataclass(frozen=True, slots=True)
class Case:
    """What is taken to be so: signs of expressions, and truths of conditions that are no comparisons."""

    facts: tuple[Fact, ...] = ()
    truths: Mapping[Expr, bool] = field(default_factory=dict)

    def where(self, atom: Expr, outcome: Any) -> Case:
        """This case, and one thing more."""
        if isinstance(outcome, bool):
            return Case(self.facts, {**self.truths, atom: outcome})
        return Case((*self.facts, (atom, outcome)), self.truths)

    def put(self, symbol: Expr, value: Expr) -> Case:
        return Case(tuple((fact.subs(symbol, value), sign) for fact, sign in self.facts), self.truths)


class Signs:
    """The signs of expressions of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.sympy = algebra, algebra.sympy
        self.half = self.sympy.Rational(1, 2)
        self.factors: dict[Expr, Any] = {}
        self.bounds: dict[Expr, list[Fact]] = {}  # what is known of each symbol

    def of(self, expr: Expr, case: Case) -> int:
        """1, 0 or -1. Raises Split where a case does not tell, Undefined for a division by zero, TooHard for infinities."""
        if any(symbol.name in ("inf", "nan") for symbol in expr.free_symbols):
            raise TooHard
        top, bottom = self._factored(expr)
        if case.facts and len(top) > 2 and not bottom[1:] and len(can := [s for s in (1, 0, -1) if self.can_be(expr, s, case)]) == 1:
            return can[0]
        sign = 1
        for factor, power in (*bottom, *top):
            one = self._sign_of_factor(factor, case)
            if one == 0 and (factor, power) in bottom:
                raise Undefined
            sign *= one if power % 2 else one * one
        return sign

    def _factored(self, expr: Expr) -> Any:
        if expr not in self.factors:
            self.factors[expr] = [self._factors(self.sympy.expand(side)) for side in self.sympy.fraction(self.sympy.together(expr))]
        return self.factors[expr]

    def _factors(self, expr: Expr) -> list[tuple[Expr, int]]:
        if expr.is_number:
            return [(expr, 1)]
        try:
            number, found = self.sympy.factor_list(expr)
        except self.sympy.polys.polyerrors.BasePolynomialError:
            return [(expr, 1)]
        return [(self.sympy.sympify(number), 1), *found]

    def _sign_of_factor(self, factor: Expr, case: Case) -> int:
        for holds, sign in ((factor.is_positive, 1), (factor.is_negative, -1), (factor.is_zero, 0)):
            if holds:
                return sign
        if factor.could_extract_minus_sign():
            return -self._sign_of_factor(-factor, case)
        compared = self._squared(factor)
        if compared is not None:
            return self.of(compared, case)
        outcomes = tuple(s for s in (1, 0, -1) if self.can_be(factor, s, case))
        if len(outcomes) == 1:
            return outcomes[0]
        raise Split(factor, outcomes)

    def can_be(self, expr: Expr, sign: int, case: Case) -> bool:
        """Whether an expression can have a sign in a case. Signs of products of two that have one are told, too."""
        facts = [*case.facts, (expr, sign)]
        signed = [fact for fact in facts if fact[1] in (1, -1)]
        products = [(one * other, s * t) for (one, s), (other, t) in combinations(signed[-MOST_JOINED:], 2)]
        symbols = dict.fromkeys(symbol for fact, _ in facts for symbol in fact.free_symbols)
        roots = [(power, NOT_NEGATIVE) for power in expr.atoms(self.sympy.Pow) if power.exp == self.half]
        return feasible(self.sympy, [*facts, *products, *roots, *(fact for symbol in symbols for fact in self.known(symbol))])

    def _squared(self, expr: Expr) -> Expr | None:
        """`sqrt(x) - y` has the sign of `x - y^2`, where y is not below zero."""
        terms = self.sympy.Add.make_args(expr)
        if len(terms) != 2:
            return None
        more, less = (terms[0], -terms[1]) if not terms[0].could_extract_minus_sign() else (terms[1], -terms[0])
        if not any(power.is_Pow and power.exp == self.half for term in (more, less) for power in self.sympy.Mul.make_args(term)):
            return None
        return more**2 - less**2 if all(self._root_like(term) for term in (more, less)) else None

    def _root_like(self, term: Expr) -> bool:
        """Whether a term is a product of roots and of what is not below zero."""
        return all(factor.is_nonnegative or (factor.is_Pow and factor.exp == self.half) for factor in self.sympy.Mul.make_args(term))

    def known(self, symbol: Expr) -> list[Fact]:
        """What its range, or what it stands for, tells of a symbol."""
        if symbol not in self.bounds:
            self.bounds[symbol] = known_of(self.algebra, symbol)
        return self.bounds[symbol]
