"""A rule as SymPy expressions."""

from __future__ import annotations

from typing import Any

from optlang.algebra import Algebra
from optlang.analysis.nonnegative import nonnegative
from optlang.ir import Node, Program


def expressions(program: Program) -> dict[str, Any]:
    """The new weights and slots in symbols named as in the rule: {"w": …, "m": …}. Raises TooHard for very large rules.

    What SymPy has no function for is an undefined function. Literals are exact fractions.
    """
    algebra = Algebra({h.name: h for h in program.hypers}, nonnegative(program), plain=True)
    roots = {"w": program.weights, **program.updates}
    found = {name: algebra.expression(node) for name, node in roots.items()}
    names = {symbol: algebra.sympy.Symbol(_name(node), **symbol.assumptions0) for symbol, node in algebra.nodes.items() if not node.args}
    back = {symbol: algebra.sympy.Integer(1) - _power(algebra, node, names) for symbol, node in algebra.nodes.items() if node.args}
    return {name: expr.xreplace({**names, **back}) for name, expr in found.items()}


def _name(node: Node) -> str:
    return str(node.value) if node.value is not None else node.op


def _power(algebra: Algebra, correction: Node, names: dict[Any, Any]) -> Any:
    """What `1 - beta^t`, for which the algebra has one symbol, takes from 1."""
    base, exponent = (algebra.expression(arg).xreplace(names) for arg in correction.args[1].args)
    return base**exponent
