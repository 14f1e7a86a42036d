"""Programs as stages: what can be computed parameter by parameter, and what must wait for all of them.

A *barrier* needs more than one parameter: a reduction per group or model, `grad`, `hvp`, `loss_at`. The program is cut there: a mark
stands for the value, and the stages on either side are elementwise, reducing or matrix code for one parameter. Conditions
of blocks that are known before the step are decided before code is made, so the side not taken costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from optlang import ir
from optlang.ir import Node, Program, State
from optlang.ops import CALLS
from optlang.types import ELEMENT, TENSOR, Extent, Type

OWN = {
    "state": "the state `{}`", "hyper": "the setting `{}`", "grad": "gradients at other points", "hvp": "products with the Hessian",
}  # fmt: skip
PARTIAL = {"sum": "sum", "mean": "sum", "amax": "amax", "amin": "amin"}  # what each parameter adds to a reduction over several
Truth = tuple[bool | None, ...]  # one for each condition of a plan; None: not to be had for this parameter


class Barrier(NamedTuple):
    """`mark` is the leaf that stands for the value of `op(args)`; `value` is the extent that a reduction leaves."""

    mark: Node
    op: str
    args: tuple[Node, ...]
    value: Extent | None

    @property
    def asked(self) -> Node | None:
        """What one parameter contributes; None where that can be counted, or is a value per group."""
        arg = self.args[0]
        if self.op in CALLS or self.op == "quantile":
            return arg if arg.type.extent.level != "group" else None
        if self.op == "count" or arg.type.extent.level == "group":
            return None
        return ir.make(PARTIAL[self.op], (arg,), TENSOR) if arg.type.extent.level == "array" else arg


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """A program cut at its barriers. `conditions` decide its blocks before the step."""

    program: Program
    barriers: Mapping[Node, Barrier]  # by their marks, each after those that it needs
    conditions: tuple[Node, ...]

    def keeps(self, state: State, truth: Truth) -> bool:
        """Whether a parameter has a state: it may stand in a block that is not taken."""
        return state.guard is None or truth[self.conditions.index(state.guard)] is True

    def decided(self, roots: Iterable[Node], truth: Truth) -> list[Node]:
        """Expressions with the blocks that a truth decides replaced by the side that is taken."""
        known = {c: t for c, t in zip(self.conditions, truth, strict=True) if t is not None}
        roots, table = list(roots), self._decisions.setdefault(truth, {})
        for node in ir.walk(roots) if known else ():
            if node not in table:
                table[node] = self._decide(node, tuple([table[arg] for arg in node.args]), known)
        return [table.get(root, root) for root in roots]

    @cached_property
    def _decisions(self) -> dict[Truth, dict[Node, Node]]:
        """What has been replaced so far: expressions share much of what they are made of."""
        return {}

    def _decide(self, node: Node, args: tuple[Node, ...], known: Mapping[Node, bool]) -> Node:
        """Values per group and model are the same for all parameters, so a parameter's own conditions do not decide them."""
        if node.type.extent.level in ("group", "model"):
            return node
        if node.op == "branch" and node.args[0] in known:
            side = args[1] if known[node.args[0]] else args[2]
            return _spread(side, node) if node in self._shaped else self._at_home(side, node)
        return ir.rebuild(node, args)

    def _at_home(self, side: Node, whole: Node) -> Node:
        """Beside values per group or model, settings are read there; those of one parameter must stay known as such."""
        is_own = side.type.extent.level in ("tensor", "array")
        return side if is_own or not self._gathers else ir.make("where", (ir.TRUE, side, _like(ir.fact("rank"), whole.type)))

    @cached_property
    def _gathers(self) -> bool:
        return any(n.type.extent.level in ("group", "model") for n in ir.walk(self._everything))

    @cached_property
    def _everything(self) -> list[Node]:
        return [*self.program.all_roots(), *(arg for b in self.barriers.values() for arg in b.args)]

    @cached_property
    def _shaped(self) -> frozenset[Node]:
        return ir.shaped(self._everything, [arg for b in self.barriers.values() for arg in b.args])

    def levels(self, wanted: Iterable[Node], truths: Iterable[Truth]) -> list[list[Barrier]]:
        """The barriers below some expressions, those that can be crossed together in one list, in order."""
        truths = list(truths)
        needs: dict[Node, set[Node]] = {}
        waiting = [leaf for leaf in _marks(wanted) if leaf in self.barriers]
        while waiting:
            mark = waiting.pop()
            if mark not in needs:
                args = [x for truth in truths for x in self.decided(self.barriers[mark].args, truth)]
                needs[mark] = {leaf for leaf in _marks(args) if leaf in self.barriers}
                waiting.extend(needs[mark])
        depth: dict[Node, int] = {}
        for mark in self.barriers:  # each comes after what it needs
            if mark in needs:
                depth[mark] = 1 + max((depth[other] for other in needs[mark]), default=-1)
        return [[self.barriers[m] for m in depth if depth[m] == level] for level in range(max(depth.values(), default=-1) + 1)]

    def needed(self, wanted: Iterable[Node], truth: Truth) -> frozenset[Node]:
        """The marks of the barriers that a parameter of such conditions takes part in: those per group and model, and below."""
        beyond = [b for b in self.barriers.values() if b.value is None or b.value.level != "tensor"]
        roots = self.decided([*wanted, *(arg for b in beyond for arg in b.args)], truth)
        found = [b.mark for level in self.levels(roots, [truth]) for b in level]
        return frozenset([*found, *(b.mark for b in beyond)])

    @cached_property
    def common(self) -> frozenset[Node]:
        """The marks to which parameters of other rules add, where the program is one of a route: values per model."""
        waiting = [b.mark for b in self.barriers.values() if b.value is not None and b.value.level == "model"]
        found: set[Node] = set()
        while waiting:
            mark = waiting.pop()
            if mark not in found and self.barriers[mark].op not in CALLS:  # a model is asked by one rule alone
                found.add(mark)
                waiting.extend(leaf for leaf in _marks(self.barriers[mark].args[:1]) if leaf in self.barriers)
        return frozenset(found)

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """The states per group and per model."""
        return tuple(s.name for s in self.program.states if s.type.extent.level in ("group", "model"))


def _spread(side: Node, whole: Node) -> Node:
    """One side of a block as many values as the block has: to a reduction it matters how many they are."""
    type_ = whole.type
    if side.type.extent == type_.extent and side.type.window == type_.window:
        return side
    if type_.window:
        like = next(n for n in ir.walk([whole]) if not n.args and n.type.window)
    elif type_.extent.level == "array":
        like = _array(type_.extent)
    else:
        like = ir.fact("rank")
    return ir.make("where", (ir.TRUE, side, _like(like, type_)))


def _array(extent: Extent) -> Node:
    """Something of an extent, whatever its values."""
    if extent.run:
        return ir.make("amax", (ir.W,), extent)
    return ir.W if extent == ELEMENT else ir.eye(extent.rows, extent.frame, extent.cols)


def _like(leaf: Node, type_: Type) -> Node:
    """The leaf, or a truth value in its place."""
    return ir.make("eq", (leaf, leaf)) if type_.kind == "bool" else leaf


def _marks(roots: Iterable[Node]) -> list[Node]:
    return [node for node in ir.walk(roots) if node.op == "input"]


def plan(program: Program, parts: bool = False) -> Plan:
    """The program cut at its barriers. `parts`: values per tensor are barriers, too, for processes hold parts of parameters."""
    barriers: dict[Node, Barrier] = {}

    def cut(node: Node, args: tuple[Node, ...]) -> Node:
        if not (node.op in CALLS or is_gathering(node) or (parts and _is_of_a_tensor(node))):
            return ir.rebuild(node, args)
        same = next((b for b in barriers.values() if (b.op, b.args, b.value) == (node.op, args, node.value)), None)
        mark = same.mark if same else ir.input_(f"barrier {len(barriers)}", Type("real", node.type.extent, node.type.window))
        barriers.setdefault(mark, Barrier(mark, node.op, args, node.value if isinstance(node.value, Extent) else None))
        return mark

    roots = program.all_roots()
    table = ir.fold(roots, cut)
    after = program.replaced(table)
    if parts:  # what starts from values of all elements is not stepped in parts
        after = replace(after, states=program.states)
    everything = [*(table[root] for root in roots), *(arg for b in barriers.values() for arg in b.args)]
    known = ir.on_host(everything)
    conditions = dict.fromkeys(n.args[0] for n in ir.walk(everything) if n.op == "branch" and known[n.args[0]])
    conditions |= dict.fromkeys(s.guard for s in after.states if s.guard is not None)
    return Plan(replace(after, reports=after.reports or {}), barriers, tuple(conditions))


def sees_all(program: Program) -> bool:
    """Whether some values are of all parameters of an optimizer, in a route those of other rules included."""
    return bool(_of_all(program))


def _of_all(program: Program) -> list[Node]:
    """The values of all parameters that are ever computed; equations that nothing reads are not."""
    nodes = ir.walk([*program.roots(), *(s.init for s in program.states)])
    return [n for n in nodes if is_gathering(n) and n.value.level == "model"]


def refuses_others(program: Program) -> str:
    """Why a program cannot be one of several rules of a route; empty where it can.

    There `model` is all parameters of the optimizer, and those of other rules have no states and settings of this one.
    """
    what = _needs_own(program)
    return what and (f"in one, `per model` is over the parameters of all its rules, and a value {program.name} takes per model reads "
                     f"{what}, which those of other rules do not have; use `per group`")  # fmt: skip


def _needs_own(program: Program) -> str:
    """What a value per model takes from each parameter that only those of this rule have; empty where it takes nothing such."""
    waiting = [n.args[0] for n in _of_all(program)]
    seen: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node in seen or node.type.extent.level == "model":  # that is known of the model, not of each parameter
            continue
        seen.add(node)
        if node.op in OWN:
            return OWN[node.op].format(node.value)
        waiting.extend(node.args)
    return ""


def _is_of_a_tensor(node: Node) -> bool:
    """Whether a node reduces elements to one value per tensor."""
    return isinstance(node.value, Extent) and node.value.level == "tensor" and bool(node.args) and node.args[0].type.extent.level == "array"


def is_gathering(node: Node) -> bool:
    """Whether a node reduces to one value per group or model."""
    return isinstance(node.value, Extent) and bool(node.args) and node.value.level in ("group", "model")
