"""What a step costs: operations per element of the parameter, each at its `cost` in the operator table, host scalars all but free.

The unit is one addition per element. The costs are rough throughputs of float32 units (a division or root is about four
additions, a transcendental ten); they order forms, and predict no times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optlang.ir import Node, walk
from optlang.ops import OPS
from optlang.types import Extent

HOST = 1e-6  # once per step in float64; not zero, so that shorter host expressions win
SHARE: Mapping[tuple[object, object], float] = {("rows", "cols"): 1.0, ("rows", 1): 0.02, (1, "cols"): 0.02, (1, 1): 0.002}
SMALL = 0.001  # one value per tensor, group or model
SQUARE, DOUBLE = 0.9, 0.95  # x^2 reads x once, so it beats x*x; doubling by 2*x beats x + x the same way


def size(extent: Extent) -> float:
    """The share of the parameter's elements that a value of this extent has."""
    return SHARE.get((extent.rows, extent.cols), 1.0) if extent.level == "array" else SMALL


def operation(node: Node) -> float:
    """The cost of one node, its operands left out."""
    if not node.args and node.op != "random":
        return 0.0
    weight = _weight(node)
    if node.host:
        return HOST * weight
    reduces = OPS[node.op].role == "reduce"
    return weight * max(size(node.type.extent), size(node.args[0].type.extent) if reduces else 0.0)


def _weight(node: Node) -> float:
    if node.op == "pow" and node.args[1].op == "const" and node.args[1].value == 2:
        return SQUARE
    if node.op == "mul" and any(a.op == "const" and a.value == 2 for a in node.args):
        return DOUBLE
    return OPS[node.op].cost


def cost(roots: Iterable[Node]) -> float:
    """The cost of all nodes below the roots, each once."""
    return sum(map(operation, walk(roots)))
