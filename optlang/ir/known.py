"""What is known of an expression: when (before training, before a step, only in it), and of what shape its parameter must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optlang.ir.nodes import Node, fold, walk
from optlang.ops import MATRIX_OPS, OPS
from optlang.types import is_special


def on_host(roots: Iterable[Node]) -> dict[Node, bool]:
    """Which nodes are numbers that hypers, `t` and static facts alone decide: computed once per step in float64."""
    return {node: node.host for node in walk(roots)}


def is_static(roots: Iterable[Node], baked: frozenset[str] = frozenset()) -> dict[Node, bool]:
    """Which nodes are decided by static facts, constants and baked hypers: known when a parameter is first seen."""

    def known(node: Node, args: tuple[bool, ...]) -> bool:
        if node.args:
            return all(args) and not node.gathers
        return node.op in ("const", "fact") or (node.op == "hyper" and node.value in baked)

    return fold(roots, known)


def of_matrix(node: Node) -> bool:
    """Whether an expression treats the parameter as a matrix."""
    return node.op in MATRIX_OPS or is_special(node.type.extent)


def shaped(roots: Sequence[Node], more: Iterable[Node] = ()) -> frozenset[Node]:
    """The nodes whose extent matters to somebody: a reduction, a product of matrices, a call on the training loop. `more`: to
    these it matters, too."""
    found = set(more)
    for node in reversed(walk(roots)):
        if node in found or OPS[node.op].role not in ("map", "select"):
            found.update(node.args)
    return frozenset(found)
