"""Products of matrices in one form: a sum of chains, whose numbers stand before them and whose transposes are inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optlang.ir import Node
from optlang.types import Extent

if TYPE_CHECKING:
    from optlang.algebra.to_sympy import Algebra

Expr = Any  # a SymPy expression

MOST_CHAINS = 24  # in one product; beyond, it is left as it is
CHAIN, TRANSPOSE = "chain", "transposed"


class Products:
    """Products and transposes in the expressions of one algebra."""

    def __init__(self, algebra: Algebra) -> None:
        self.algebra, self.sympy = algebra, algebra.sympy

    def expression(self, node: Node, args: list[Expr]) -> Expr | None:
        """A product or transpose of its operands; None where that has no simple form."""
        sides = [[self._split(term) for term in self.sympy.Add.make_args(self.sympy.expand(arg))] for arg in args]
        if any(inner == 1 for side in sides for _, inner in side):
            return None
        if node.op == "transpose":
            return sum(outer * self._turned(inner, node) for outer, inner in sides[0])
        if len(sides[0]) * len(sides[1]) > MOST_CHAINS:
            return None
        pairs = [(x, y) for x in sides[0] for y in sides[1]]
        return sum(x[0] * y[0] * self._applied(CHAIN, [*self._links(x[1]), *self._links(y[1])], node) for x, y in pairs)

    def _split(self, term: Expr) -> tuple[Expr, Expr]:
        """The factors that are one number per matrix, and the others."""
        return self.algebra.divided(term, lambda factor: self.algebra.made_of(factor, _is_one_per_matrix))

    def _links(self, inner: Expr) -> list[Expr]:
        return list(inner.args) if self._is(CHAIN, inner) else [inner]

    def _turned(self, inner: Expr, node: Node) -> Expr:
        if self._is(CHAIN, inner):
            return self._applied(CHAIN, [self._turned(link, node) for link in reversed(inner.args)], node)
        return inner.args[0] if self._is(TRANSPOSE, inner) else self._applied(TRANSPOSE, [inner], node)

    def _is(self, name: str, expr: Expr) -> bool:
        return getattr(expr.func, "__name__", "") == name

    def _applied(self, name: str, args: list[Expr], node: Node) -> Expr:
        found = self.sympy.Function(name)(*args)
        self.algebra.extents.setdefault(found, node.type.extent)
        return found


def _is_one_per_matrix(extent: Extent) -> bool:
    return extent.level != "array" or (extent.rows, extent.cols) == (1, 1)
