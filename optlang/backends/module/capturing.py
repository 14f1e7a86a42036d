"""Steps that CUDA graphs take down, in generated modules: what changes from step to step may lie on the device, and torch chooses by it.

One text serves both: Python's numbers and torch's tensors go through the same arithmetic, and `_where`, `_max`, `_min` and `_ieee` take
either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from optlang import ir
from optlang.backends.module.numbers import Numbers
from optlang.ir import Node, Program
from optlang.ops import CALLS
from optlang.plan import is_gathering

WAITING = frozenset(["eigenvectors", "orthonormal"])  # torch looks at what it found
DEAR = frozenset(["matmul", "inverse", "descending", "quantile", "random", "input", *WAITING])  # inputs: given where they are read
CHOICES = ("branch", "where")
ALONE = frozenset(["cbrt", "count"])  # numbers that have no text for both


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


def refuses_graphs(program: Program) -> str:
    """Why steps of a module cannot be captured: then they know all numbers on the host, and torch.compile leaves them to Python. Empty
    where one text serves both."""
    if _asks(program):
        return "it asks the model again"
    if any(node.op in WAITING for node in ir.walk(program.all_roots())):
        return "torch's functions for matrices wait for the device"
    nodes = ir.walk(program.all_roots())
    changing = moving(nodes, Numbers(program, nodes))
    whole = [program.updates[s.name] for s in program.states if s.type.kind == "int"]
    if not changing.isdisjoint(whole) or any(n.op in ALONE and not changing.isdisjoint(n.args) for n in nodes):
        return "its rates are computed on the host"
    return ""


def _asks(program: Program) -> bool:
    return any(program.uses(op) for op in CALLS)


def for_graphs(program: Program, parted: Collection[Node] = ()) -> Program:
    """The program with choices of torch's where an `if` would look at the device, if its text serves both; but for those `parted`,
    and those that compute much on one side."""
    if refuses_graphs(program):
        return program
    parted = {*parted, *dear_choices(program)}

    def step(node: Node, args: tuple[Node, ...]) -> Node:
        if node in parted:
            return ir.make("branch", args)
        return ir.make("where", args) if is_late(node) else ir.rebuild(node, args)

    return program.replaced(ir.fold(program.all_roots(), step))


def partable(program: Program, several: bool) -> set[Node]:
    """The choices by a number of the step that say what a state or the weights become, and nothing else, or `several` things: one
    side may be left out, or put back."""
    if refuses_graphs(program):
        return set()
    states = [s for s in program.states if s.type.extent.level not in ("group", "model") and s.type.kind != "int"]
    roots = [program.weights, *(program.updates[s.name] for s in states)]
    uses = Counter(arg for node in ir.walk(program.all_roots()) for arg in node.args)
    uses.update(program.all_roots())
    found: set[Node] = set()
    once = {node for node, count in uses.items() if count == 1}
    while roots:
        node = roots.pop()
        if (several or node in once) and node.op in CHOICES and node.args[0].type.extent.level == "host":
            late = is_late(node, CHOICES)
            found |= {node} if late else set()
            roots += node.args[1:] if late or node.op == "branch" else ()
    return found


def is_late(node: Node, ops: Collection[str] = ("branch",)) -> bool:
    """Whether a choice is made for a whole parameter by what is known in the step alone."""
    if node.op not in ops or node.args[0].type.extent.level not in ("host", "group", "model"):
        return False
    return any(not n.args and (n.op not in ("const", "fact", "hyper") or is_rate(n)) for n in ir.walk([node.args[0]]))


def dear_choices(program: Program) -> set[Node]:
    """The branches by what is known in the step alone that spare much, as products of matrices, where one side is left out."""
    spared = {node for node in _only_below_choices(program) if _is_dear(node)}
    if not spared:
        return set()
    late = [node for node in ir.walk(program.all_roots()) if is_late(node)]
    return {node for node in late if not spared.isdisjoint(ir.walk(node.args[1:]))}


def _is_dear(node: Node) -> bool:
    return node.op in DEAR and node.value != "window"


def _only_below_choices(program: Program) -> Iterator[Node]:
    """What is computed on one side of such branches alone; never so what is summed over parameters, for which all wait."""
    nodes = ir.walk(program.roots())
    roots = [*program.roots(), *(node for node in nodes if is_gathering(node))]
    always = set(ir.walk(roots, lambda n: n.args[:1] if is_late(n) else n.args))
    yield from (node for node in nodes if node not in always)
