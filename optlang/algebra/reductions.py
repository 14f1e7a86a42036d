"""Reductions in one form: sums term by term, without the factors that are the same for all that is summed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optlang import ir
from optlang.ir import Node
from optlang.types import COL, ELEMENT, MATRIX, ROW, TENSOR, Extent, broadcasts_to

if TYPE_CHECKING:
    from optlang.algebra.to_sympy import Algebra

Expr = Any  # a SymPy expression

SIZES: dict[Extent, tuple[str, ...]] = {  # how many values a parameter has: the elements by these
    ELEMENT: (), ROW: ("cols",), COL: ("rows",), MATRIX: ("rows", "cols"), TENSOR: ("numel",),
}  # fmt: skip


class Reductions:
    """What is reduced in the expressions of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.sympy = algebra, algebra.sympy
        self.sums: dict[Expr, tuple[Extent, Expr]] = {}  # what they are sums of

    def expression(self, node: Node, arg: Expr) -> Expr | None:
        """A sum, mean, count or extreme of `arg`; None where nothing is known of it."""
        if node.value == "window":
            return None
        if node.op in ("amax", "amin"):
            return self._extreme(node, arg)
        from_, left = node.args[0].type.extent, node.value
        many = self._count(from_, left)
        if node.op == "count":
            return many
        terms = [self.algebra.divided(term, lambda factor: self._constant(factor, left))
                 for term in self.sympy.Add.make_args(self.sympy.expand(arg))]  # fmt: skip
        if node.op == "mean" and many is None:
            return sum(outer * (1 if inner == 1 else self._applied("mean", node, inner)) for outer, inner in terms)
        total = sum(outer * (many if inner == 1 and many is not None else self._sum(from_, node, inner)) for outer, inner in terms)
        return total / many if node.op == "mean" else total

    def _count(self, from_: Extent, left: Extent) -> Expr | None:
        """How many values become one, where the sizes of a parameter tell it."""
        if self.algebra.plain or from_ not in SIZES or left not in SIZES:
            return None
        many = self.sympy.Integer(1)
        for names, power in ((SIZES[left], 1), (SIZES[from_], -1)):
            for name in names:
                many *= self.algebra.expression(ir.fact(name)) ** power
        return many

    def _constant(self, expr: Expr, left: Extent) -> bool:
        """Whether an expression is the same for all values that become one. Over several parameters, literals and values of all of them
        are: each parameter has its own `t` and facts."""
        far = left.level in ("model", "group")
        return self.algebra.made_of(expr, lambda extent: not far if extent.level == "host" else broadcasts_to(extent, left))

    def _sum(self, from_: Extent, node: Node, inner: Expr) -> Expr:
        """A sum of sums is the sum of all."""
        if inner in self.sums and self.algebra.extents[inner] == from_ and self._count(self.sums[inner][0], node.value) is not None:
            from_, inner = self.sums[inner]
        found = self._applied("sum", node, inner, from_)
        self.sums[found] = (from_, inner)
        return found

    def _applied(self, op: str, node: Node, inner: Expr, from_: Extent | None = None) -> Expr:
        found = self.sympy.Function(f"{op}_{node.value}_{from_ or node.args[0].type.extent}")(inner)
        self.algebra.extents[found] = node.type.extent
        return found

    def _extreme(self, node: Node, arg: Expr) -> Expr:
        """Without the constant factors that are known not to be below zero."""
        outer, inner = self.algebra.divided(arg, lambda factor: factor.is_nonnegative and self._constant(factor, node.value))
        return outer if inner == 1 else outer * self._applied(node.op, node, inner)
