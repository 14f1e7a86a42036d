"""Conditions that always hold, or never do, whatever the numbers in them: they are left out of what people read.

`every k from 1` holds where `t >= 1` and `t - 1` is a multiple of k, and the first is always so. What is computed stays the same bit
for bit, so this is for what people read: modules and LaTeX. A rule itself is compiled as it is written.
"""

from __future__ import annotations

from optlang.ir import Node, Program, const, fold, rebuild

INF = float("inf")
LEAST = {"t": 1.0, "rank": 0.0}  # other facts are sizes, which may be 0 as well
MIRRORED = {"lt": "gt", "le": "ge"}


def without_constant_conditions(program: Program) -> Program:
    """The program without comparisons that always hold or never do, and without what they choose among."""
    ranges = {h.name: (h.bounds.low, h.bounds.high) for h in program.hypers if h.bounds is not None and h.kind == "int"}

    def step(node: Node, args: tuple[Node, ...]) -> Node:
        node = rebuild(node, args)
        if node.op in ("lt", "le", "gt", "ge") and (outcome := _outcome(node, ranges)) is not None:
            return const(outcome)
        return _without_truths(node)

    return program.replaced(fold(program.all_roots(), step))


def _outcome(node: Node, ranges: dict[str, tuple[float, float]]) -> bool | None:
    op, (a, b) = MIRRORED.get(node.op, node.op), node.args[:: -1 if node.op in MIRRORED else 1]
    (low, high), (least, most) = _range(a, ranges), _range(b, ranges)
    if low > most or (op == "ge" and low == most):
        return True
    return False if high < least or (op == "gt" and high == least) else None


def _range(node: Node, ranges: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """The smallest and the largest value of a number that is known before the step."""
    if node.op == "const" and node.type.kind == "int":
        return float(node.value), float(node.value)
    if node.op in ("t", "fact"):
        return LEAST.get(node.value or node.op, 0.0), INF
    return ranges.get(node.value, (-INF, INF)) if node.op == "hyper" else (-INF, INF)


def _without_truths(node: Node) -> Node:
    """A condition without parts that are known, a choice that is made."""
    truths = [arg.value if arg.op == "const" and arg.type.kind == "bool" else None for arg in node.args]
    if node.op in ("and", "or") and truths != [None, None]:
        decided = node.op == "or"
        return const(decided) if decided in truths else node.args[0 if truths[0] is None else 1]
    if node.op == "not" and truths[0] is not None:
        return const(not truths[0])
    if node.op in ("where", "branch") and truths[0] is not None and node.args[1 if truths[0] else 2].type == node.type:
        return node.args[1 if truths[0] else 2]
    return node
