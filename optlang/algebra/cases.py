"""Equality case by case: where two expressions choose by signs, they are the same if they are in every case that can be.

`abs`, `sign`, `max`, `min`, `where` and comparisons are taken apart only as far as a sign is needed: that of a product is that of
its factors, and a factor whose sign nothing tells is a new case, positive, negative and zero. What contradicts itself, as far as
linear arithmetic sees, is no case. Reductions, products of matrices and whatever else reads more than one element are the same
where their operands are the same in all cases of their own: a sign that is known of this element says nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optlang.algebra.limits import TooHard
from optlang.algebra.signs import Case, Expr, Signs, Split, Undefined
from optlang.algebra.to_sympy import Algebra
from optlang.ir import Node

MOST_CASES = 400
CHOICES: Mapping[str, str] = {f"{op}__None": op for op in ("maximum", "minimum", "where", "lt", "le", "eq", "ne", "and", "or", "not")}


class Cases:
    """Proofs about the expressions of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.sympy = algebra, algebra.sympy
        self.signs, self.left = Signs(algebra), MOST_CASES
        self.opaque: dict[Expr, Expr] = {}  # applications of what is not looked into, and the symbols that stand for them

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
        if not isinstance(expr, self.sympy.core.function.AppliedUndef) or expr.func.__name__ in CHOICES:
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
            known = [(fact.subs(symbol, value), sign) for fact, sign in self.signs.known(symbol) if value.free_symbols]
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
        return expr != 0 and bool(expr.is_nonzero or not self.signs.can_be(expr, 0, case))

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
            sign = self.signs.of(args[0] - args[1], case)
            return args[0] if sign == 0 or (sign > 0) == (op == "maximum") else args[1]
        if expr.func is self.sympy.Abs:
            return self.signs.of(args[0], case) * args[0]
        if expr.func is self.sympy.sign:
            return self.sympy.Integer(self.signs.of(args[0], case))
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
            sign = self.signs.of(self._value(expr.args[0], case) - self._value(expr.args[1], case), case)
            return {"lt": sign < 0, "le": sign <= 0, "eq": sign == 0, "ne": sign != 0}[op]
        node = self.algebra.nodes.get(expr)
        if node is not None and node.op == "const":
            return bool(node.value)
        if expr not in case.truths:
            raise Split(expr, (True, False))
        return case.truths[expr]
