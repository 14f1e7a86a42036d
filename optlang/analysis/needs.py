"""What a rule needs to be stepped right: all parameters of a model, or the shapes of those that it gets.

Some tools of torch give an optimizer less and do not say so: some of the parameters, or numbers without shapes. Most rules could not
step these, and nothing would fail: a norm per model would be of a few parameters, a matrix a row of numbers that belong to several.
"""

from __future__ import annotations

from collections.abc import Iterable

from optlang import ir
from optlang.ir import Node, Program
from optlang.ops import ASKING, OPS

MIXING: dict[str, str] = {
    "model": "asks the model again", "matrix": "treats parameters as matrices", "reduce": "compares elements with each other",
}  # fmt: skip
_PLACE = "torch.distributed.optim"
DIVIDING = {  # the modules of tools that make an optimizer of some parameters, or several
    f"{_PLACE}.zero_redundancy_optimizer": "ZeroRedundancyOptimizer, which gives each process some of the parameters",
    f"{_PLACE}.apply_optimizer_in_backward": "_apply_optimizer_in_backward, which makes an optimizer for each parameter",
    f"{_PLACE}.optimizer": "DistributedOptimizer, which makes an optimizer on each worker for the parameters there",
}


def why_all(program: Program, in_route: bool) -> str:
    """Why a rule needs all parameters of a model; empty where some will do."""
    if in_route:
        return "is in a route, whose groups the tool does not know"
    nodes = ir.walk(program.all_roots())
    if any(node.op in ASKING for node in nodes):
        return "asks the model, which steps all of them"
    if any(OPS[node.op].role == "reduce" and node.type.extent.level in ("model", "group") for node in nodes):
        return "has values per model or group, which are of all of them"
    drawn = any(node.op == "random" and node.type.extent.level not in ("host", "model") for node in nodes)
    return "draws numbers by the place of a parameter among all of them" if drawn else ""


def why_shapes(program: Program, in_route: bool) -> str:
    """Why a rule needs the shapes of parameters; empty where it goes element by element."""
    if in_route:
        return "is in a route, which looks at shapes"
    nodes = ir.walk(program.all_roots())
    return mixing(nodes) or ("draws numbers by their places" if any(node.op == "random" for node in nodes) else "")


def mixing(nodes: Iterable[Node]) -> str:
    """Which of some expressions is not for each element by itself; empty where none is."""
    nodes = list(nodes)
    roles = {OPS[node.op].role for node in nodes if node.value != "window"}
    reasons = [MIXING[role] for role in MIXING if role in roles] + [f"looks at `{node.value}`" for node in nodes if node.op == "fact"]
    return next(iter(reasons), "")
