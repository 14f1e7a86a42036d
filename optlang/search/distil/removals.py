"""The shorter rules that an ablation tries: an operation left out, or literals with fewer digits."""

from __future__ import annotations

import math
from collections.abc import Iterator

from optlang import ir
from optlang.ir import Node, Program, on_host, walk
from optlang.search.distil.listing import call_of, measure, targets
from optlang.search.distil.naming import LR
from optlang.search.programs.genome import constant
from optlang.search.programs.moves import Move, is_share, replaced

DIGITS = 6  # literals with more are rounded, to as few as do


def removals(program: Program, scaled: bool = False) -> Iterator[Move]:
    """Shorter programs: an operation with one of its operands in its place, or a value for the whole tensor with 1.

    The `claim` of a move says what went, and what is there now.
    """
    now = measure(program, scaled)
    seen = set()
    host = on_host(program.roots())
    for node in dict.fromkeys(n for _, root in targets(program, scaled) for n in walk([root])):
        if not node.args or host[node] or is_share(node):
            continue
        for after in _instead(node):
            changed = replaced(program, {node: after})
            if changed is None or measure(changed, scaled)[:2] >= now[:2]:
                continue
            key = (changed.weights, *changed.updates.values())
            if key not in seen and _learns(changed):
                seen.add(key)
                yield Move(f"`{call_of(node).function}` left out", changed, (node, after, frozenset()))


def _instead(node: Node) -> Iterator[Node]:
    for arg in dict.fromkeys((*node.args, *call_of(node).args)):
        if arg.type == node.type:
            yield arg
    if node.type.extent.level in ("tensor", "group", "model") and node.type.kind != "bool":
        yield ir.const(1.0)


def _learns(program: Program) -> bool:
    """Whether the gradient still reaches the weights."""
    return any(n is ir.G for n in walk(program.roots()))


def rounded(program: Program, digits: int) -> Program | None:
    """Literals with many digits cut to fewer; of a share b near 1, those of 1 - b."""
    order = walk(program.roots())
    beside_lr = {a for n in order if n.op == "mul" and LR in n.args for a in n.args}  # goes into the step size anyway
    literals = [
        n for n in order if n.op == "const" and isinstance(n.value, float) and n not in beside_lr and len(_digits(n.value)) > digits
    ]
    return replaced(program, {n: constant(_short(float(n.value), digits)) for n in literals}) if literals else None


def _digits(value: float) -> str:
    mantissa = repr(abs(value)).split("e")[0]
    return mantissa.replace(".", "").strip("0")


def _short(value: float, digits: int) -> float:
    if 0.5 < value < 1:
        rest = float(f"{1 - value:.{digits - 1}e}")
        places = max(0, digits - 1 - math.floor(math.log10(rest)))
        return round(1 - rest, places)
    return float(f"{value:.{digits - 1}e}")
