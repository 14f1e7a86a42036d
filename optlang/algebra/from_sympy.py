"""From SymPy back: an expression as a node again, with the terms and factors in an order that people would write."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from functools import reduce
from typing import Any

from optlang import ir
from optlang.ir import Node
from optlang.ops import OPS

Expr = Any  # a SymPy expression


class FromSympy:
    """`nodes`: what the symbols stand for; `known`: symbols that are the same for every element."""

    def __init__(self, sympy: Any, nodes: Mapping[Expr, Node], known: Collection[Expr]) -> None:
        self.sympy, self.nodes, self.known = sympy, nodes, known

    def node(self, expr: Expr) -> Node | None:
        """A SymPy expression as a node; None where it holds what has no operator."""
        if expr in self.nodes:
            return self.nodes[expr]
        if expr.is_Rational:
            return _constant(Fraction(int(expr.p), int(expr.q)))
        if expr.is_Add:
            return self._sum(expr)
        if expr.is_Mul:
            return self._product(expr)
        if expr.is_Pow:
            return self._root(expr)
        op = next((o.name for o in OPS.values() if o.sympy and getattr(self.sympy, o.sympy, None) is expr.func), None)
        args = [self.node(arg) for arg in expr.args]
        if op is None or len(args) != OPS[op].operands or any(arg is None for arg in args):
            return None
        return ir.make(op, [arg for arg in args if arg is not None])

    def _sum(self, expr: Expr) -> Node | None:
        """Terms with a minus last, as differences."""
        terms = sorted(expr.args, key=lambda term: (term.could_extract_minus_sign(), self.sympy.default_sort_key(term)))
        total: Node | None = None
        for term in terms:
            minus = total is not None and term.could_extract_minus_sign()
            node = self.node(-term if minus else term)
            if node is None:
                return None
            total = node if total is None else ir.sub(total, node) if minus else ir.add(total, node)
        return total

    def _product(self, expr: Expr) -> Node | None:
        """Numbers known before the step first, and one division for all that is below the line."""
        top, bottom = self.sympy.fraction(expr)
        if bottom != 1:
            above, below = self.node(top), self.node(bottom)
            return None if above is None or below is None else ir.div(above, below)
        factors = sorted(expr.args, key=lambda f: (not f.is_Number, not f.free_symbols <= self.known, self.sympy.default_sort_key(f)))
        nodes = [self.node(factor) for factor in factors]
        found = [node for node in nodes if node is not None]
        return reduce(ir.mul, found) if len(found) == len(nodes) else None

    def _root(self, expr: Expr) -> Node | None:
        base, exponent = expr.args
        if exponent.is_Rational and exponent < 0:
            below = self.node(base ** (-exponent))
            return None if below is None else ir.div(ir.const(1), below)
        inner, power = self.node(base), self.node(exponent)
        if inner is None or power is None:
            return None
        half = self.sympy.Rational(1, 2)
        return ir.make("sqrt", (inner,)) if exponent == half else ir.power(inner, power)


def _constant(value: Fraction) -> Node:
    return ir.const(int(value) if value.denominator == 1 and abs(value) < 2**53 else float(value))
