"""Torch source for one parameter: expressions of a plan as a function over tensors, to be fused by `torch.compile`.

A function works on flat views where everything is elementwise, and on (batch, rows, cols) views where rows and columns
matter. What is known before the stage (hypers, `t`, facts, values per group and model) comes in one small tensor `s`, so
that nothing is compiled again when it changes. Nothing of a `.opt` file enters the text but sanitized names and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from optlang.backends.outputs import TENSORS, Output
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT


@dataclass(frozen=True, eq=False, repr=False)
class CellCode:
    """`def NAME(tensors…, s, counter, first)`: `s` holds the values of `slots`, `counter` is (t, seed, stream) of draws,
    `first` the parameter's first dimension; with that a tuple of how many there are where there are `runs`, of such lengths.

    `write` gives the text, which nobody needs where a kernel takes its place. `mark`: its file, where it is kept; see `code_cache`."""

    name: str
    write: Callable[[], str]
    tensors: tuple[Node, ...]
    slots: tuple[Node, ...]
    shaped: bool
    draws: bool
    elementwise: bool  # may run over the elements of many parameters at once
    of_matrices: bool  # each matrix by itself: several parameters of a shape may come as one
    multiplies: bool  # products or factorisations of matrices, or sorting, take most of its time
    written: tuple[int, ...]  # the places of the tensors that it writes into
    runs: tuple[int, ...] = ()
    mark: str = ""

    @cached_property
    def text(self) -> str:
        return self.write()


def generate(
    name: str, outputs: Sequence[Output], names: Iterable[tuple[str, Node]] = (), low: bool = False, double: bool = False,
    rounds: bool = False, slots: Sequence[Node] = (), in_place: bool = True,
) -> CellCode:  # fmt: skip
    """The function that computes outputs. `low`: tensors of 16 bits, computed in float32; `double`: of 64 bits; `rounds`: factors
    of products of matrices are rounded to bfloat16. `slots`: those that come first, used or not. `in_place`: values may be written
    over those that are of no more use, which autograd would still need."""
    from optlang.backends.torch.writer import Writer  # noqa: PLC0415 - what is kept on disk is not written again

    writer = Writer(outputs, {node: text for text, node in names}, low, double, rounds and not double, in_place)
    writer.slots |= {node: place for place, node in enumerate(slots)}
    body = writer.body()
    head = f"def {name}({', '.join([*writer.tensors.values(), 's', 'counter', 'first'])}):"
    targets = {o.target for o in outputs if o.target is not o.node}
    draws = any(n.op == "random" for n in writer.order)
    used = [*writer.order, *writer.tensors]
    text = "\n".join([head, *(f"    {line}" for line in body)]) + "\n"
    return CellCode(
        name=name,
        write=lambda: text,
        tensors=tuple(writer.tensors),
        slots=tuple(writer.slots),
        shaped=writer.shaped,
        draws=draws,
        elementwise=not writer.shaped and not draws and all(map(_is_elementwise, used)),
        of_matrices=writer.shaped and not draws and all(map(_is_of_matrices, [*used, *(o.node for o in outputs)])),
        multiplies=writer.multiplies,
        written=tuple(place for place, node in enumerate(writer.tensors) if node in targets),
        runs=writer.runs,
    )


def _is_elementwise(node: Node) -> bool:
    """Whether a value of one element depends on that element alone. Values per tensor come from reductions or states."""
    if node.op in TENSORS:
        return node.type.extent == ELEMENT and not node.type.window
    return OPS[node.op].role != "reduce" and not node.type.window


def _is_of_matrices(node: Node) -> bool:
    """Whether each matrix of a batch has values of its own."""
    return node.type.extent.level == "array" and node.type.extent.frame == "param" and not node.type.window
