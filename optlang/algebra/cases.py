"""Equality case by case: where two expressions choose by signs, they are the same if they are in every case that can be.

`abs`, `sign`, `max`, `min`, `where` and comparisons are taken apart only as far as a sign is needed: that of a product is that of
its factors, and a factor whose sign nothing tells is a new case, positive, negative and zero. What contradicts itself, as far as
linear arithmetic sees, is no case. Reductions, products of matrices and whatever else reads more than one element are the same
where their operands are the same in all cases of their own: a sign that is known of this element says nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from optlang.algebra.inequalities import NOT_NEGATIVE, Fact, feasible, known_of
from optlang.algebra.limits import TooHard
from optlang.algebra.to_sympy import Algebra
from optlang.ir import Node

Expr = Any  # a SymPy expression

MOST_CASES = 400
MOST_JOINED = 6  # signs of which each two are multiplied
CHOICES: Mapping[str, str] = {f"{op}__None": op for op in ("maximum", "minimum", "where", "lt", "le", "eq", "ne", "and", "or", "not")}


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


class Cases:
    """Proofs about the expressions of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.sympy = algebra, algebra.sympy
        self.left, self.half = MOST_CASES, self.sympy.Rational(1, 2)
        self.opaque: dict[Expr, Expr] = {}  # applications of what is not looked into, and the symbols that stand for them
        self.factors: dict[Expr, Any] = {}
        self.bounds: dict[Expr, list[Fact]] = {}  # what is known of each symbol

    def same(self, a: Node, b: Node) -> bool:
        """Whether two expressions are equal in every case; False says nothing."""
        truth = a.type.kind == "bool" or b.type.kind == "bool"
        return self._equal(self.algebra.expression(a), self.algebra.expression(b), truth)

    def _equal(self, a: Expr, b: Expr, truth: bool = False) -> bool:
        return self._prove(self._closed(a), self._closed(b), Case(), truth)

    # ----------------------------------------------------------------------------------------- what is not looked into

    def _closed(self, expr: Expr) -> Expr:
        """With symbols for what reads more than one element; equal ones have the same symbol."""
        if not expr.args:
            return expr
        if not isinstance(expr, self.sympy.core.function.AppliedUndef):
            return expr.func(*map(self._closed, expr.args))
        if expr.func.__name__ in CHOICES:
            return expr.func(*map(self._closed, expr.args))
        if expr not in self.opaque:
            self.opaque[expr] = self._known_as(expr) or self._named(expr)
        return self.opaque[expr]

    def _known_as(self, expr: Expr) -> Expr | None:
        for other, symbol in list(self.opaque.items()):
            if other.func is expr.func and len(other.args) == len(expr.args):
                truths = [self._is_truth(one) or self._is_truth(two) for one, two in zip(expr.args, other.args, strict=True)]
                if all(map(self._equal, expr.args, other.args, truths)):
                    return symbol
        return None

    def _is_truth(self, expr: Expr) -> bool:
        if expr in self.algebra.nodes:
            return bool(self.algebra.nodes[expr].type.kind == "bool")
        return CHOICES.get(getattr(expr.func, "__name__", "")) in ("lt", "le", "eq", "ne", "and", "or", "not")

    def _named(self, expr: Expr) -> Expr:
        kept = expr.func.__name__.split("_")[0] in ("sum", "mean", "amax", "amin") and expr.args[0].is_nonnegative
        return self.sympy.Dummy("f", **({"nonnegative": True} if kept else {"real": True}))

    # ----------------------------------------------------------------------------------------------------- case by case

    def _prove(self, a: Expr, b: Expr, case: Case, truth: bool) -> bool:
        self.left -= 1
        if self.left < 0:
            raise TooHard
        try:
            if truth:
                return self._truth(a, case) == self._truth(b, case)
            left, right = self._value_or_none(a, case), self._value_or_none(b, case)
            if left is None or right is None:
                return left is right  # neither is defined here
            return self._is_zero(left - right, case)
        except Split as split:
            return all(self._prove_where(a, b, case, truth, split.atom, outcome) for outcome in split.outcomes)
        except Undefined:
            return False

    def _prove_where(self, a: Expr, b: Expr, case: Case, truth: bool, atom: Expr, outcome: Any) -> bool:
        if outcome == 0 and not isinstance(outcome, bool) and (solved := self._solved(atom, case)) is not None:
            symbol, value = solved
            known = [(fact.subs(symbol, value), sign) for fact, sign in self._known(symbol) if value.free_symbols]
            case = case.put(symbol, value)
            return self._prove(a.subs(symbol, value), b.subs(symbol, value), Case((*case.facts, *known), case.truths), truth)
        return self._prove(a, b, case.where(atom, outcome), truth)

    def _solved(self, atom: Expr, case: Case) -> tuple[Expr, Expr] | None:
        """A symbol, and what it is where an expression is zero."""
        for symbol in sorted(atom.free_symbols, key=self.sympy.default_sort_key):
            rest = atom.subs(symbol, 0)
            slope = self.sympy.expand(atom - rest).coeff(symbol, 1)
            if self._is_not_zero(slope, case) and symbol not in slope.free_symbols and self.sympy.expand(atom - rest - slope * symbol) == 0:
                return symbol, -rest / slope
        return None

    def _is_not_zero(self, expr: Expr, case: Case) -> bool:
        return expr != 0 and bool(expr.is_nonzero or not self._can_be(expr, 0, case))

    def _is_zero(self, difference: Expr, case: Case) -> bool:
        """Also where it is made of what is zero in this case."""
        if self.algebra.is_zero(difference):
            return True
        zeros = [fact for fact, sign in case.facts if sign == 0 and fact.free_symbols]
        top, _ = self.sympy.fraction(self.sympy.together(difference))
        return bool(zeros) and self.sympy.reduced(self.sympy.expand(top), zeros)[1] == 0

    def _value_or_none(self, expr: Expr, case: Case) -> Expr | None:
        try:
            return self._value(expr, case)
        except Undefined:
            return None

    def _value(self, expr: Expr, case: Case) -> Expr:
        """An expression without choices."""
        if not expr.args:
            if expr in (self.sympy.zoo, self.sympy.nan, self.sympy.oo, -self.sympy.oo):
                raise Undefined
            return expr
        op = CHOICES.get(getattr(expr.func, "__name__", ""))
        if op == "where":
            return self._value(expr.args[1 if self._truth(expr.args[0], case) else 2], case)
        args = [self._value(arg, case) for arg in expr.args]
        if op in ("maximum", "minimum"):
            sign = self._sign(args[0] - args[1], case)
            return args[0] if sign == 0 or (sign > 0) == (op == "maximum") else args[1]
        if expr.func is self.sympy.Abs:
            return self._sign(args[0], case) * args[0]
        if expr.func is self.sympy.sign:
            return self.sympy.Integer(self._sign(args[0], case))
        made = expr.func(*args)
        if made.has(self.sympy.zoo, self.sympy.nan, self.sympy.oo):
            raise Undefined
        return made

    def _truth(self, expr: Expr, case: Case) -> bool:
        op = CHOICES.get(getattr(expr.func, "__name__", ""))
        if op == "and":
            return all(self._truth(arg, case) for arg in expr.args)
        if op == "or":
            return any(self._truth(arg, case) for arg in expr.args)
        if op == "not":
            return not self._truth(expr.args[0], case)
        if op is not None:
            sign = self._sign(self._value(expr.args[0], case) - self._value(expr.args[1], case), case)
            return {"lt": sign < 0, "le": sign <= 0, "eq": sign == 0, "ne": sign != 0}[op]
        node = self.algebra.nodes.get(expr)
        if node is not None and node.op == "const":
            return bool(node.value)
        if expr not in case.truths:
            raise Split(expr, (True, False))
        return case.truths[expr]

    # -------------------------------------------------------------------------------------------------------- of signs

    def _sign(self, expr: Expr, case: Case) -> int:
        if any(symbol.name in ("inf", "nan") for symbol in expr.free_symbols):
            raise TooHard
        top, bottom = self._factored(expr)
        if case.facts and len(top) > 2 and not bottom[1:] and len(can := [s for s in (1, 0, -1) if self._can_be(expr, s, case)]) == 1:
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
            return self._sign(compared, case)
        outcomes = tuple(s for s in (1, 0, -1) if self._can_be(factor, s, case))
        if len(outcomes) == 1:
            return outcomes[0]
        raise Split(factor, outcomes)

    def _can_be(self, expr: Expr, sign: int, case: Case) -> bool:
        """Whether an expression can have a sign in a case. Signs of products of two that have one are told, too."""
        facts = [*case.facts, (expr, sign)]
        signed = [fact for fact in facts if fact[1] in (1, -1)]
        products = [(one * other, s * t) for (one, s), (other, t) in combinations(signed[-MOST_JOINED:], 2)]
        symbols = dict.fromkeys(symbol for fact, _ in facts for symbol in fact.free_symbols)
        roots = [(power, NOT_NEGATIVE) for power in expr.atoms(self.sympy.Pow) if power.exp == self.half]
        return feasible(self.sympy, [*facts, *products, *roots, *(fact for symbol in symbols for fact in self._known(symbol))])

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

    def _known(self, symbol: Expr) -> list[Fact]:
        if symbol not in self.bounds:
            self.bounds[symbol] = known_of(self.algebra, symbol)
        return self.bounds[symbol]
