"""The stages of a plan as passes over chunks of all tensors, for backends that generate kernels.

A *pass* computes what can be computed element by element, until a reduction per tensor needs all of it; the last pass writes.
Every pass goes over the chunks of all tensors in parallel; each chunk leaves its partial results in a place of its own, and
these are added in order, so that results do not depend on how many work at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from optlang import ir
from optlang.backends.formats import Packed
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT, TENSOR, WORD_OF, Extent

REDUCTIONS = ("sum", "mean", "amax", "amin", "count")
FRAMES = ("as_matrix", "as_param", "spread")  # the same memory in the same order, or the value of the row that an element is in
SMALLER = {"element": ("row", "col", "matrix", "tensor"), "row": ("matrix", "tensor"), "col": ("matrix", "tensor"), "matrix": ("tensor",)}
NONE: Mapping[Node, int] = {}
LARGEST_POWER = 8  # whole exponents up to this become multiplications


def refuses(outputs: Sequence[Output], lined: bool = False) -> str:
    """Why these outputs are not for such kernels, or an empty string. `lined`: for kernels that know rows and columns."""
    roots = [o.node for o in outputs]
    known, order = ir.on_host(roots), _order(tuple(roots))
    for output in outputs:
        if output.target is None and output.node.type.extent not in (TENSOR,) and not is_slot(output.node, known):
            return "hands out a value for each element"
        if output.target is not None and not has_place(output.target, lined):
            return f"has a state {output.target.type}"
    if len({n.type.extent.frame for n in order if is_lined(n.type.extent)}) > 1:
        return "treats parameters as matrices in two ways"
    return next((reason for node in order if (reason := trouble(node, lined))), "")


def is_lined(extent: Extent) -> bool:
    """Whether an extent is of rows, columns or whole matrices, or sees a parameter as a matrix."""
    return extent.level == "array" and extent != ELEMENT


def kind(extent: Extent) -> str:
    """`element`, `row`, `col`, `matrix` or `tensor`; empty for what kernels have no place for."""
    return extent.level if extent.level != "array" else WORD_OF.get((extent.rows, extent.cols), "")


def has_place(tensor: Node, lined: bool = True) -> bool:
    """Whether a kernel can be given a tensor."""
    extent = tensor.type.extent
    return not tensor.type.window and (bool(kind(extent)) if lined else extent in (ELEMENT, TENSOR))


def trouble(node: Node, lined: bool) -> str:
    """Why one expression is not for such kernels, or an empty string."""
    if node.type.window or any(arg.type.window for arg in node.args):
        return "remembers a window"
    if (ir.of_matrix(node) or node.type.extent.run) and not (lined and kind(node.type.extent)):
        return f"has values {node.type}" if lined else "treats parameters as matrices"
    if node.op in TENSORS or (lined and node.op in FRAMES):
        return ""
    if OPS[node.op].role == "reduce":
        whole, left = node.args[0].type.extent, node.value
        goes = kind(left) in SMALLER.get(kind(whole), ()) if lined else (whole, left) == (ELEMENT, TENSOR)
        return "" if goes and node.op in REDUCTIONS else f"has `{node.op}` of {node.args[0].type}"
    if node.op == "random":
        return "" if node.type.extent == ELEMENT else "draws one number for a tensor"
    return "" if OPS[node.op].cpp else f"has `{node.op}`"


def inputs(outputs: Sequence[Output]) -> list[Node]:
    """The tensors that a kernel for these outputs reads or writes."""
    read = [node for node in _order(_roots(outputs)) if node.op in TENSORS]
    return list(dict.fromkeys([*read, *(o.target for o in outputs if o.target is not None and o.target is not o.node)]))


def _roots(outputs: Sequence[Output]) -> tuple[Node, ...]:
    """The expressions of what changes."""
    return tuple(o.node for o in outputs if o.target is not o.node)


@lru_cache(8)
def _order(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    """What is computed, operands first; what is known before the stage is not entered. A kernel asks for it several times."""
    known = ir.on_host(roots)

    def entered(nodes: Sequence[Node]) -> list[Node]:
        return [node for node in nodes if not is_slot(node, known)]

    return tuple(ir.walk(entered(roots), lambda node: entered(node.args)))


def has_lines(outputs: Sequence[Output]) -> bool:
    """Whether a kernel for these outputs needs rows, columns or whole matrices."""
    return any(is_lined(n.type.extent) for n in [*_order(_roots(outputs)), *inputs(outputs)])


class Passes:
    """What the kernel of some outputs computes, pass by pass. `types`: how each tensor is stored, a word or a `Packed`.

    `slots`: what is known before the stage, in the order of the rows of numbers. A column is a tensor and which part of it.
    """

    def __init__(self, outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed]) -> None:
        self.outputs = [o for o in outputs if o.target is not o.node]
        roots = _roots(outputs)
        self.known = ir.on_host(roots)
        self.order = _order(roots)
        self.names = {node: f"x{place}" for place, node in enumerate(self.order)}
        self.types = {node: types[node] for node in inputs(outputs)}
        self.columns = [(n, part) for n, kind in self.types.items() for part in range(len(kind.parts) if isinstance(kind, Packed) else 1)]
        self.tensors = {node: self.columns.index((node, 0)) for node in self.types}  # the first column of each
        self.slots = {node: place for place, node in enumerate(slots)}
        self.sums = {node: place for place, node in enumerate(n for n in self.order if n.op in REDUCTIONS)}
        self.depth = self._depths()
        self.passes = 1 + max(self.depth.values(), default=0)

    def _depths(self) -> dict[Node, int]:
        """How many reductions lie one behind the other below a node: the pass in which it can be computed."""
        depth: dict[Node, int] = {}
        for node in self.order:
            depth[node] = max((depth.get(arg, 0) for arg in node.args), default=0) + (node.op in REDUCTIONS)
        return depth

    @property
    def written(self) -> tuple[int, ...]:
        """The columns that are written into."""
        targets = {o.target for o in self.outputs}
        return tuple(place for place, (node, _) in enumerate(self.columns) if node in targets)

    def reductions(self, number: int) -> list[Node]:
        """The reductions that a pass feeds; counts are known without."""
        return [n for n in self.sums if self.depth[n] == number + 1 and n.op != "count"]

    def writes(self) -> list[tuple[Node, Node]]:
        """What goes into tensors element by element, with these."""
        return [(o.node, o.target) for o in self.outputs if o.target is not None and o.target.type.extent == ELEMENT]

    def computed(self, wanted: Sequence[Node], known: Collection[Node] = ()) -> list[Node]:
        """What one pass computes for what it is to have, in order. Reductions are finished by then, and what else is `known`."""
        inside = {n for n in wanted if not is_slot(n, self.known)}
        for node in reversed(self.order):
            if node in inside and node.op not in REDUCTIONS and node not in known:
                inside.update(arg for arg in node.args if not is_slot(arg, self.known))
        return [n for n in self.order if n in inside]

    def wanted(self, number: int, early: Mapping[Node, int] = NONE) -> list[Node]:
        """What one pass computes its body for; `early` new states are those of an earlier one."""
        last = [node for node, _ in self.writes() if node not in early] if number == self.passes - 1 else []
        return [*(n.args[0] for n in self.reductions(number)), *last, *(node for node, place in early.items() if place == number)]

    def body(self, number: int, early: Mapping[Node, int] = NONE) -> list[Node]:
        """What one pass computes; of `early` new states those that it reads again."""
        return self.computed(self.wanted(number, early), [node for node, place in early.items() if place < number])

    def read_again(self, number: int, early: Mapping[Node, int]) -> set[Node]:
        """The tensors of early states that a later pass reads."""
        targets = dict(self.writes()) if early else {}
        return {targets[node] for node in self.body(number, early) if early.get(node, number) < number} if early else set()

    def early(self, exact: Callable[[Node], bool]) -> dict[Node, int]:
        """New states that a pass before the last one can write, and which: later ones read them, not what they are made of.

        `exact`: whether what is read from a tensor is what was written.
        """
        found: dict[Node, int] = {}
        bodies = [set(self.computed(self.wanted(k))) for k in range(self.passes - 1)]
        for node, target in self.writes():
            passes = [k for k, body in enumerate(bodies) if self.depth.get(node, k + 1) <= k and node in body]
            if passes and exact(target) and node.op not in TENSORS:
                found[node] = passes[0]
        while late := self._read_late(found):
            found = {node: place for node, place in found.items() if node not in late}
        return found

    def _read_late(self, early: Mapping[Node, int]) -> set[Node]:
        """Those of early new states whose tensors a later pass reads as they were."""
        targets, bodies = dict(self.writes()), [set(self.body(k, early)) for k in range(self.passes)] if early else []
        return {node for node, place in early.items() if any(targets[node] in body for body in bodies[place + 1 :])}


def whole_power(exponent: Node) -> int:
    """A small whole exponent, or 0."""
    fits = exponent.op == "const" and not isinstance(exponent.value, bool) and float(exponent.value).is_integer()
    return int(exponent.value) if fits and 1 <= exponent.value <= LARGEST_POWER else 0
