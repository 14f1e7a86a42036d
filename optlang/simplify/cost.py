"""What a step costs: operations per element of the parameter, dear ones weighted, host scalars all but free.

The unit is one addition per element. The weights are rough throughputs of float32 units (a division or root is about four
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

WEIGHTS: Mapping[str, float] = {
    "div": 4.0, "sqrt": 4.0, "cbrt": 15.0, "exp": 8.0, "exp2": 8.0, "expm1": 10.0, "log": 8.0, "log2": 8.0, "log10": 8.0,
    "log1p": 10.0, "sin": 12.0, "cos": 12.0, "tan": 15.0, "asin": 15.0, "acos": 15.0, "atan": 15.0, "sinh": 12.0, "cosh": 12.0,
    "tanh": 12.0, "asinh": 15.0, "acosh": 15.0, "atanh": 15.0, "atan2": 20.0, "mod": 6.0, "random": 30.0, "matmul": 500.0,
    "grad": 1e6, "hvp": 2e6, "loss_at": 3e5, "quantile": 50.0, "neg": 0.9, "abs": 0.9, "transpose": 0.5, "as_matrix": 0.1,
    "as_param": 0.1, "spread": 0.1,
}  # fmt: skip
POWER, SQUARE = 20.0, 0.9  # x^2 reads x once, so it beats x*x; doubling by 2*x beats x + x the same way
DOUBLE = 0.95


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
    if node.op == "pow":
        exponent = node.args[1]
        return SQUARE if exponent.op == "const" and exponent.value == 2 else POWER
    if node.op == "mul" and any(a.op == "const" and a.value == 2 for a in node.args):
        return DOUBLE
    return WEIGHTS.get(node.op, 1.0)


def cost(roots: Iterable[Node]) -> float:
    """The cost of all nodes below the roots, each once."""
    return sum(map(operation, walk(roots)))
