"""What is inside a sign needs no factor or divisor that is always positive: exact, and what search leaves behind often."""

from __future__ import annotations

from collections.abc import Iterator

from optlang import ir
from optlang.analysis.nonnegative import nonnegative
from optlang.ir import Node, Program, walk
from optlang.search.distil.protections import least
from optlang.search.programs.moves import Move, replaced


def sign_moves(program: Program) -> Iterator[Move]:
    """sign(x) for sign(x·y) and sign(x/y) where y is positive whatever the gradients are."""
    known = nonnegative(program)
    for node in [n for n in walk(program.roots()) if n.op == "sign"]:
        for rest, positive in _split(node.args[0]):
            low = least(positive, known)
            changed = replaced(program, {node: ir.make("sign", (rest,))}) if low > 0 and rest.type == node.args[0].type else None
            if changed is not None:
                evidence = f"what goes is never below {low:.3g}, by its form"
                yield Move("positive factor inside a sign left out", changed, None, evidence)


def _split(node: Node) -> Iterator[tuple[Node, Node]]:
    """What stays and what might go."""
    if node.op in ("mul", "div"):
        yield node.args[0], node.args[1]
    if node.op == "mul":
        yield node.args[1], node.args[0]
