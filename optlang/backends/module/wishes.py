"""What to call values that the rule has no name for: by what they are, as a reader would."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optlang.ir import G, Node, W, const
from optlang.printing.precedence import Piece

WORDS = {"random": "z", "sqrt": "root", "div": "ratio", "matmul": "product", "mean": "mean", "sum": "total", "sign": "signs",
         "abs": "size", "branch": "chosen", "where": "chosen", "eye": "identity", "places": "indices", "amax": "largest",
         "amin": "smallest", "count": "count", "mul": "scaled", "add": "combined", "sub": "difference", "neg": "negated", "pow": "power",
         "maximum": "bounded", "minimum": "bounded", "exp": "exponential", "log": "logarithm", "floor": "whole", "mod": "remainder",
         "cos": "cosine", "sin": "sine", "tanh": "tanh", "as_matrix": "flat", "as_param": "shaped", "spread": "spread",
         "inverse": "inverse", "descending": "order", "orthonormal": "basis", "eigenvectors": "basis", "push": "window",
         "grad": "gradient", "hvp": "product", "loss_at": "loss_there"}  # fmt: skip
TRUTHS = "condition"


def name_of(node: Node, labels: Mapping[Node, str], inner: Mapping[Node, str], pieces: Mapping[Node, Piece]) -> str:
    """What the rule calls a value, or else a wish. `labels`: names of equations; `inner`: those inside blocks and functions; `pieces`:
    what is written by now."""
    if node in labels:
        return labels[node]
    if node in inner and node.op != "transpose":  # the operand's name tells more
        return inner[node]

    def text(operand: Node) -> str:
        written = pieces[operand].text if operand in pieces else ""
        return written if written.isidentifier() else ""

    return wish(node, text)


def wish(node: Node, text: Callable[[Node], str]) -> str:
    """`text` gives what an operand is called, or nothing."""
    squared = _squared(node)
    if squared is not None and (name := text(squared)):
        return f"{name}_squared"
    if node.op == "sum" and (inside := _squared(node.args[0])) is not None:
        return f"{_of(inside, text)}norm_squared"
    if node.op == "sqrt" and node.args[0].op in ("sum", "mean") and (inside := _squared(node.args[0].args[0])) is not None:
        return f"{_of(inside, text)}{'norm' if node.args[0].op == 'sum' else 'rms'}"
    if node.op == "transpose":
        return f"{text(node.args[0])}_t" if text(node.args[0]) else "transposed"
    if node.op in ("add", "maximum") and any(arg.op == "sqrt" for arg in node.args):
        return "denom"  # as in torch: what would be 0 without an epsilon, or below a bound
    if node.op == "sub" and node.args[0] is const(1):
        return "rest"
    return TRUTHS if node.type.kind == "bool" and node.op not in ("branch", "where") else WORDS.get(node.op, "x")


def _squared(node: Node) -> Node | None:
    """What a square is the square of."""
    return node.args[0] if node.op == "pow" and node.args[1] is const(2) else None


def _of(node: Node, text: Callable[[Node], str]) -> str:
    name = {G: "g", W: "w"}.get(node) or text(node)
    return f"{name}_" if name else ""
