"""A function that multiplies matrices, cut in halves: its products by torch, and what is made of them by a kernel.

Behind their last product most rules scale what it gave, decay the weights and add. Operator by operator that goes over the memory of a
matrix once for each, a kernel goes over it once for all. Where there is enough to compute before the products, another kernel does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.kernels import passes
from optlang.backends.kernels.handed import stored
from optlang.backends.kernels.upright import upright
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.backends.torch.binding import first_of
from optlang.backends.torch.bound import NOT_ASKED, Bound
from optlang.backends.torch.code import CellCode, generate
from optlang.backends.torch.products import added_products
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT

AHEAD, HALF = "ahead", "half"  # no inputs are called so: what stands for what one part gives the next
COMPUTED = ("map", "select", "draw")  # roles of what is not there already
WORTH = 3  # operators of torch that take as long as to call a kernel


class Kernel(NamedTuple):
    """A part that a kernel computes."""

    code: CellCode
    outputs: Sequence[Output]

    def asked(self) -> Sequence[Output]:
        return self.outputs


@dataclass(frozen=True, eq=False, repr=False)
class Halves:
    """`ahead` hands out what products need, where it is worth a kernel. `first` returns what `second` is given, then new states for
    `targets`, which no kernel has a place for; it writes nothing. `second` writes the rest. All take the numbers of the whole function."""

    whole: CellCode
    ahead: Kernel | None
    first: CellCode
    second: Kernel
    given: Sequence[Node]  # to the second
    targets: Sequence[int]  # places among the tensors of the whole function

    @property
    def parts(self) -> list[Kernel]:
        return [part for part in (self.ahead, self.second) if part]

    def begun(self, bound: Bound) -> list[Bound]:
        return [replace(bound, code=self.ahead.code, kernel=NOT_ASKED)] if self.ahead else []

    def multiplying(self, bound: Bound, made: Sequence[Tensor]) -> Bound:
        """`made`: what was handed out."""
        tensors = [*bound.tensors, *(x.view(bound.weights.shape) for x in made)]
        of = dict(zip(self.second.code.tensors, tensors, strict=False))
        first = first_of(self.first, bound.weights)
        return replace(bound, code=self.first, tensors=[of[node] for node in self.first.tensors], first=first, kernel=NOT_ASKED)

    def writing(self, bound: Bound, made: Sequence[Tensor] = (), given: Sequence[Tensor] = ()) -> Bound:
        """The second half; without what it is given, of the same types."""
        behind = self.second.code.tensors[len(bound.tensors) :]
        like = [torch.empty(0, dtype=torch.bool if node.type.kind == "bool" else bound.s.dtype) for node in behind]
        return replace(bound, code=self.second.code, tensors=[*bound.tensors, *([*made, *given] or like)], kernel=NOT_ASKED)

    def finish(self, bound: Bound, states: Iterable[Tensor]) -> None:
        """Writes the new states that the first half has returned. Nothing asks for memory."""
        for place, value in zip(self.targets, states, strict=True):
            target = bound.tensors[place]
            assert isinstance(target, Tensor)
            target.copy_(value.view(target.shape))


def halves(code: CellCode, outputs: Sequence[Output], bound: Bound, rounds: bool) -> Halves | None:
    """None where a kernel would have nothing to do but to write. `bound`: a call of the function, which says the types of tensors;
    `rounds`: as `generate` takes it."""
    changed = [o for o in outputs if o.target is not o.node]
    roots = [o.node for o in changed]
    roots = roots if rounds else upright(roots)  # factors in bfloat16 are best where they lie
    ahead = _ahead(roots)
    early = {node: ir.input_(f"{AHEAD} {place}", node.type) for place, node in enumerate(ahead)}
    put = ir.substitute(roots, early)
    new = [Output(put[node], o.target) for node, o in zip(roots, changed, strict=True)]
    mine = [o for o in new if o.target is not None and passes.has_place(o.target)]
    others = [o for o in new if o not in mine]
    given = _given([o.node for o in mine], [o.node for o in others], _sums([o.node for o in new]) if rounds else ())
    leaves = {node: ir.input_(f"{HALF} {place}", node.type) for place, node in enumerate(given)}
    put = ir.substitute([o.node for o in mine], leaves)
    written = [Output(put[o.node], o.target) for o in mine]
    computed = [n for n in ir.walk([o.node for o in written]) if OPS[n.op].role in COMPUTED and passes.kind(n.type.extent) == "element"]
    if any(o.target is None for o in others) or not computed or passes.refuses(written, lined=True):
        return None
    number = bound.s.dtype
    low = any(isinstance(x, Tensor) and x.is_floating_point() and x.dtype != number for x in bound.tensors)
    wanted = [Output(node) for node in (*given, *(o.node for o in others))]
    first = generate(code.name, wanted, low=low, double=number == torch.float64, rounds=rounds, slots=code.slots)
    second = replace(code, tensors=(*code.tensors, *early.values(), *leaves.values()), mark="")
    begun = Kernel(replace(code, written=(), mark=""), list(map(Output, ahead))) if ahead else None
    places = {node: place for place, node in enumerate(code.tensors)}
    targets = [places[o.target] for o in others if o.target is not None]
    return Halves(code, begun, first, Kernel(second, written), given, targets)


def _ahead(roots: Sequence[Node]) -> list[Node]:
    """What products need that a kernel can compute before all of them, of tensors alone."""
    known = ir.on_host(roots)
    order = _computed(roots, known)
    able = _able(order, known)
    pure = _pure(order, able, known)
    by_torch = _computed([n for n in order if n not in able], known)
    needed = {arg for n in by_torch if n not in pure for arg in n.args if arg in pure}
    found = [n for n in order if n in needed and n.type.extent == ELEMENT and n.type.kind != "bool" and OPS[n.op].role in COMPUTED]
    worth = len([n for n in _computed(found, known) if n.op not in TENSORS]) >= WORTH
    return found if worth and not passes.refuses(stored(list(map(Output, found))), lined=True) else []


def _given(roots: Sequence[Node], others: Sequence[Node], sums: Collection[Node]) -> list[Node]:
    """What a kernel for some roots must be given: what it cannot compute, and what else is computed for that and for the other roots, but
    for what it can compute for each element from tensors."""
    known = ir.on_host([*roots, *others])
    order = _computed(roots, known)
    able = _able(order, known) - {*sums}
    unable = [n for n in ir.walk(roots, lambda n: n.args if n in able else ()) if n not in able and not is_slot(n, known)]
    again = {n for n in _pure(order, able, known) if n.op in TENSORS or (n.op != "random" and passes.kind(n.type.extent) == "element")}
    ends = {*unable, *(able & {*_computed([*unable, *others], known)} - again)}
    return [n for n in _computed(roots, known, ends) if n in ends]


def _computed(roots: Sequence[Node], known: Mapping[Node, bool], ends: Collection[Node] = ()) -> list[Node]:
    """Operands first; what is behind `ends` is not entered."""
    return [n for n in ir.walk(roots, lambda n: () if n in ends or is_slot(n, known) else n.args) if not is_slot(n, known)]


def _able(order: Sequence[Node], known: Mapping[Node, bool]) -> set[Node]:
    """What a kernel can compute if it is given what it cannot."""
    return {n for n in order if not passes.trouble(n, lined=True) and all(passes.has_place(a) or is_slot(a, known) for a in n.args)}


def _pure(order: Sequence[Node], able: Collection[Node], known: Mapping[Node, bool]) -> set[Node]:
    """What it can compute if it is given nothing."""
    found: set[Node] = set()
    for node in order:
        if node in able and all(arg in found or is_slot(arg, known) for arg in node.args):
            found.add(node)
    return found


def _sums(roots: Sequence[Node]) -> Collection[Node]:
    """Those that one call makes of a product in bfloat16 and a factor of it."""
    return added_products(_computed(roots, ir.on_host(roots)), {*roots}).keys()
