"""Expressions of the transposed parameter, written with rows as rows: kernels go over the memory of a parameter as it lies.

`(a @ b).T` is `b.T @ a.T`, and the transpose of a sum is one of transposes. So what a rule computes of `g.T`, where a matrix is wide, and
turns back at its end, is nowhere turned but as a factor, where that costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from optlang import ir
from optlang.backends.kernels.passes import REDUCTIONS
from optlang.backends.outputs import is_slot
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import Extent


def upright(roots: Sequence[Node]) -> list[Node]:
    """The same values."""
    known = ir.on_host(roots)
    new: dict[Node, Node] = {}
    turned = Turned()
    for node in ir.walk(roots, lambda n: () if is_slot(n, known) else n.args):
        args = [new.get(arg, arg) for arg in node.args]
        if node.op == "transpose":
            new[node] = turned(args[0])
        elif _is_lying(node) and OPS[node.op].role in ("map", "select") and node.type.kind != "bool" and all(map(turned.has, args)):
            new[node] = turned(ir.make(node.op, list(map(turned, args)), node.value))
        elif _is_lying(node) and node.op == "matmul":
            new[node] = turned(ir.make("matmul", list(map(turned, args[::-1]))))
        elif node.op in REDUCTIONS and _is_lying(node.args[0]) and isinstance(node.value, Extent) and turned.has(args[0]):
            new[node] = turned(ir.make(node.op, [turned(args[0])], node.value._replace(rows=node.value.cols, cols=node.value.rows)))
        else:
            new[node] = node if is_slot(node, known) else ir.rebuild(node, tuple(args))
            turned.learn(new[node])
    return [new[root] for root in roots]


class Turned:
    """The transpose of a node; of one value each, that value. Truths cannot be transposed, but what they are computed of can be."""

    def __init__(self) -> None:
        self.truths: dict[Node, Node] = {}

    def __call__(self, node: Node) -> Node:
        if not _is_matrix(node):
            return node
        if node.type.kind == "bool":
            return self.truths[node]
        return node.args[0] if node.op == "transpose" else ir.make("transpose", [node])

    def has(self, node: Node) -> bool:
        can_be = not node.type.window and not node.type.extent.run and node.type.kind != "bool"
        return can_be or not _is_matrix(node) or node in self.truths

    def learn(self, node: Node) -> None:
        if node.type.kind == "bool" and _is_matrix(node) and OPS[node.op].role in ("map", "select") and all(map(self.has, node.args)):
            self.truths[node] = ir.make(node.op, list(map(self, node.args)), node.value)


def _is_matrix(node: Node) -> bool:
    extent = node.type.extent
    return extent.level == "array" and not extent.rows == extent.cols == 1


def _is_lying(node: Node) -> bool:
    """Whether its rows are the columns of the parameter."""
    return node.type.extent.level == "array" and node.type.extent[1:3] == ("cols", "rows") and not node.type.window
