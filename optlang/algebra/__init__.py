"""The border to SymPy: expressions cross it as graphs, never as text, and what comes back is an expression again.

SymPy is imported when it is first needed. It gets small expressions only: size, exponents and the number of terms that an
expansion would have are checked before, and a deadline ends what takes too long all the same. Equality is over the real
numbers, wherever both sides are defined; literals are read as the decimal fractions that they were written as.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from optlang.algebra.cases import Cases
from optlang.algebra.limits import MOST_NODES, MOST_TERMS, TooHard, check_size, deadline
from optlang.algebra.to_sympy import Algebra
from optlang.ir import Hyper, Node

__all__ = ["MOST_NODES", "MOST_TERMS", "SECONDS", "Algebra", "Cases", "TooHard", "check_size", "deadline", "proposals"]

SECONDS = 4.0


def proposals(
    root: Node, leaves: Collection[Node], hypers: Mapping[str, Hyper], nonnegative: Collection[Node] = (), seconds: float = 0.5
) -> list[Node]:
    """Other forms of an expression, equal over the real numbers: expanded, cancelled, factored. Empty where that is too hard."""
    found: list[Node] = []
    algebra = Algebra(hypers, nonnegative, leaves)
    try:
        with deadline(seconds):
            start = algebra.expression(root)
            for form in (algebra.sympy.cancel, algebra.sympy.factor, algebra.sympy.expand):
                node = algebra.node(form(start))
                if node is not None and node is not root and node not in found:
                    found.append(node)
    except (TooHard, ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError):
        pass  # SymPy gives up in many ways (PolynomialError is a ValueError); the forms found so far are good
    return found
