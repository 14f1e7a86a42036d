"""A step of a simplification before it is taken: the program after it, and what would have to be proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optlang import ir
from optlang.algebra import Algebra, TooHard, deadline
from optlang.analysis.live_states import without_dead
from optlang.analysis.nonnegative import nonnegative
from optlang.ir import Node, Program, substitute
from optlang.search.distil.listing import value_of
from optlang.search.programs.genome import constant
from optlang.types import TypeProblem

SECONDS = 0.5  # for one proof


@dataclass(frozen=True, eq=False)
class Move:
    """A step that might be taken: what it is called, and the program after it. `claim`: (old, new, what both are made of)."""

    name: str
    program: Program
    claim: tuple[Node, Node, frozenset[Node]] | None = None
    evidence: str = ""


def replaced(program: Program, table: Mapping[Node, Node]) -> Program | None:
    """The program with other nodes in some places; None where they do not fit."""
    try:
        return without_dead(folded(program.replaced(substitute(program.all_roots(), table))))
    except TypeProblem:
        return None


def folded(program: Program) -> Program:
    """Literals that meet are computed, but for the share 1 - b of an average."""

    def new(node: Node, args: tuple[Node, ...]) -> Node:
        fresh = ir.rebuild(node, args)
        if not args or any(a.op != "const" and not is_share(a) for a in args) or is_share(fresh) or fresh.type.kind == "bool":
            return fresh
        value = value_of(fresh) if fresh.type.extent.level == "host" else np.nan
        return constant(float(value)) if np.isfinite(value) else fresh

    try:
        return program.replaced(ir.fold(program.all_roots(), new))
    except TypeProblem:
        return program


def is_share(node: Node) -> bool:
    return node.op == "sub" and all(a.op == "const" for a in node.args) and node.args[0].value == 1


def same(program: Program, a: Node, b: Node, leaves: frozenset[Node] = frozenset()) -> bool:
    algebra = Algebra({h.name: h for h in program.hypers}, nonnegative(program), leaves)  # loads SymPy before the clock starts
    try:
        with deadline(SECONDS):
            return algebra.same(a, b)
    except (TooHard, ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError, AttributeError):
        return False
