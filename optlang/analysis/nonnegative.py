"""Which expressions are never below zero, whatever the gradients are."""

from __future__ import annotations

from collections.abc import Iterable

from optlang.ir import Node, Program, walk


def nonnegative(program: Program, more: Iterable[Node] = ()) -> frozenset[Node]:
    """The nodes that are never below zero whatever the gradients are: squares, roots, and states made of such only. `more`: other
    expressions of its states, which are looked at, too.

    All real states are taken to be so, and those whose first or next value is not are taken out until none is left.
    """
    ranges = {h.name: h.bounds.low if h.bounds is not None else float("-inf") for h in program.hypers}
    below_one = frozenset(h.name for h in program.hypers if h.bounds is not None and h.bounds.high <= 1 and ranges[h.name] >= 0)
    candidates = {s.name for s in program.states if s.type.kind != "bool"}
    order = walk([*program.all_roots(), *more])
    while True:
        known = _signs(order, ranges, below_one, candidates)
        wrong = {
            s.name
            for s in program.states
            if s.name in candidates and not (s.init in known and program.updates[s.name] in known)
        }
        if not wrong:
            return frozenset(known)
        candidates -= wrong


def _signs(order: list[Node], ranges: dict[str, float], below_one: frozenset[str], states: set[str]) -> set[Node]:
    known: set[Node] = set()
    for node in order:
        if _is_nonnegative(node, known, ranges, below_one, states):
            known.add(node)
    return known


def _is_nonnegative(
    node: Node, known: set[Node], ranges: dict[str, float], below_one: frozenset[str], states: set[str]
) -> bool:
    args = node.args
    match node.op:
        case "const":
            return not isinstance(node.value, bool) and (node.value > 0 or repr(node.value) in ("0", "0.0"))
        case "hyper":
            return node.type.kind != "bool" and ranges.get(node.value, -1.0) >= 0
        case "t" | "fact" | "abs" | "sqrt" | "exp" | "exp2" | "count":
            return True
        case "state":
            return node.value in states
        case "pow":
            return args[0] in known or _is_even(args[1])
        case "sub":
            return args[0].op == "const" and args[0].value == 1 and _below_one(args[1], below_one)
        case "mul":
            return args[0] is args[1] or all(a in known for a in args)
        case "add" | "div" | "minimum":
            return all(a in known for a in args)
        case "maximum":
            return any(a in known for a in args)
        case "where" | "branch":
            return all(a in known for a in args[1:])
        case "sum" | "mean" | "amax" | "amin" | "quantile" | "as_matrix" | "as_param" | "spread" | "transpose":
            return args[0] in known
    return False


def _is_even(node: Node) -> bool:
    return node.op == "const" and not isinstance(node.value, bool) and node.value % 2 == 0


def _below_one(node: Node, below_one: frozenset[str]) -> bool:
    """Whether a node is a hyper from [0, 1), or a power of one with the step count."""
    base = node.args[0] if node.op == "pow" and node.args[1].op == "t" else node
    return base.op == "hyper" and base.value in below_one
