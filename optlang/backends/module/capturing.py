"""Steps that CUDA graphs take down, in generated modules: which rules' numbers torch computes on the device as Python does on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optlang.backends.module.numbers import Numbers
from optlang.ir import Node, Program
from optlang.ops import ASKING

ARITHMETIC = frozenset(["add", "sub", "mul", "div", "neg", "pow", "sqrt"])  # with the same text for Python's numbers and torch's
CHOICES = frozenset(["where", "branch"])


def moving(nodes: Sequence[Node], numbers: Numbers) -> set[Node]:
    """The numbers that change from step to step: they are made of the step's own number, or of `lr`, which schedulers write into."""
    found: set[Node] = set()
    for node in nodes:  # operands first
        if node in numbers and (node.op == "t" or is_rate(node) or not found.isdisjoint(node.args)):
            found.add(node)
    return found


def is_rate(node: Node) -> bool:
    """Whether a setting is a step size, which may be a tensor."""
    return node.op == "hyper" and str(node.value).rpartition(".")[2] == "lr"


def refuses_graphs(program: Program, nodes: Sequence[Node], numbers: Numbers, simple: bool) -> str:
    """Why steps of a module cannot be captured; empty where they can. `nodes`: all expressions, `simple`: parameters do not need each
    other."""
    if any(program.uses(op) for op in ASKING):
        return "it asks the model again"
    if not simple:
        return "values of several parameters are computed on the host"
    if program.uses("random"):
        return "what it draws is counted on the host"
    if any(node.op in ("eigenvectors", "orthonormal") for node in nodes):
        return "torch's functions for matrices wait for the device"
    changing = moving(nodes, numbers)
    whole = [program.updates[s.name] for s in program.states if s.type.kind == "int"]
    starts = [s.init for s in program.states]
    if not changing.isdisjoint([*whole, *starts]) or not all(_is_arithmetic(node, changing, numbers) for node in nodes):
        return "its rates are computed on the host"
    return ""


def _is_arithmetic(node: Node, changing: Iterable[Node], numbers: Numbers) -> bool:
    """Whether an expression goes with tensors in place of the changing numbers that it reads."""
    reads = [arg in changing for arg in node.args]
    if not any(reads):
        return True
    if node.op in CHOICES:  # Python's own, by a number that does not change
        return node in numbers and not reads[0]
    return node.op in ARITHMETIC and node not in numbers.raises
