"""In which order a function computes its expressions, and which of them it is done with after each."""

from __future__ import annotations

from collections.abc import Sequence

from optlang import ir
from optlang.backends.outputs import is_slot
from optlang.backends.torch.products import Products
from optlang.ir import Node


def order_of(roots: Sequence[Node], products_first: bool = False) -> list[Node]:
    """The expressions to compute, operands first; what is known before the stage is not entered. `products_first`: of operands,
    those that more products of matrices lie behind, so that others have no further use when they are added."""
    known = ir.on_host(roots)
    behind: dict[Node, int] = {}
    for node in ir.walk(roots) if products_first else ():
        behind[node] = max((behind[arg] for arg in node.args), default=0) + (node.op == "matmul")

    def operands(node: Node) -> Sequence[Node]:
        inside = () if is_slot(node, known) or node.type.extent.level in ("group", "model") else node.args
        return sorted(inside, key=lambda arg: -behind[arg]) if behind else inside

    return ir.walk(roots, operands)


def last_uses(order: Sequence[Node], products: Products) -> dict[Node, list[Node]]:
    """Under each expression the operands that nothing later needs; what is multiplied transposed is needed itself."""
    last: dict[Node, Node] = {}
    for node in order:
        for arg in products.operands(node):
            last[arg] = node
            while arg.op == "transpose":
                arg = arg.args[0]
                last[arg] = node
    found: dict[Node, list[Node]] = {}
    for arg, node in last.items():
        found.setdefault(node, []).append(arg)
    return found
