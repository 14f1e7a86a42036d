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
    for node in ir.walk(roots, lambda n: () if is_slot(n, known) else n.args):
        args = [new.get(arg, arg) for arg in node.args]
        if node.op == "transpose":
            new[node] = _turned(args[0])
        elif _is_lying(node) and OPS[node.op].role in ("map", "select"):
            new[node] = _turned(ir.make(node.op, list(map(_turned, args)), node.value))
        elif _is_lying(node) and node.op == "matmul":
            new[node] = _turned(ir.make("matmul", list(map(_turned, args[::-1]))))
        elif node.op in REDUCTIONS and _is_lying(node.args[0]) and isinstance(node.value, Extent):
            new[node] = _turned(ir.make(node.op, [_turned(args[0])], node.value._replace(rows=node.value.cols, cols=node.value.rows)))
        else:
            new[node] = node if is_slot(node, known) else ir.rebuild(node, tuple(args))
    return [new[root] for root in roots]


def _turned(node: Node) -> Node:
    """The transpose; of one value each, that value."""
    extent = node.type.extent
    if extent.level != "array" or extent.rows == extent.cols == 1:
        return node
    return node.args[0] if node.op == "transpose" else ir.make("transpose", [node])


def _is_lying(node: Node) -> bool:
    """Whether its rows are the columns of the parameter."""
    return node.type.extent.level == "array" and node.type.extent[1:3] == ("cols", "rows") and not node.type.window
