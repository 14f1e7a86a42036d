"""What a generated function of any backend computes, and whether it is handed a value as a tensor or as a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from optlang import ir
from optlang.ir import Node
from optlang.types import Type

TENSORS = frozenset(["w", "g", "state", "input"])
HANDED = "handed out"  # no input is called so


class Output(NamedTuple):
    """One result: written in place into `target` (the node of `w` or of a state), or returned."""

    node: Node
    target: Node | None = None


def is_slot(node: Node, known: Mapping[Node, bool]) -> bool:
    """Whether a value is one number that is known before the stage."""
    return known[node] or (node.type.extent.level in ("group", "model") and not node.type.window)


def handed_out(place: int, type_: Type) -> Node:
    """What stands for the tensor that a kernel writes for the output at that place, which has none of its own."""
    return ir.input_(f"{HANDED} {place}", type_)


def is_handed_out(node: Node) -> bool:
    return node.op == "input" and str(node.value).startswith(HANDED)
