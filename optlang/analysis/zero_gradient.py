"""Whether a step changes anything where the gradient is 0. If not, elements without gradient need not be stepped."""

from __future__ import annotations

from collections.abc import Mapping

from optlang import host, ir
from optlang.ir import Node, Program
from optlang.ops import OPS

ZERO = ir.const(0.0)


def moved(program: Program, decided: Mapping[str, float | int | bool]) -> str:
    """What changes where the gradient is 0, for these values of hypers and any of the others; empty where nothing does.

    A sum of products is looked at as it is written: what is 0 only by cancelling counts as change. `0/x` is 0, whatever `x` is.
    """

    def at_zero(node: Node, args: tuple[Node, ...]) -> Node:
        if node.op == "hyper" and node.value in decided:
            return ir.const(decided[node.value])
        return ZERO if node.op == "g" else _folded(node, args)

    found = ir.fold([program.weights, *program.updates.values()], at_zero)
    changed = next((s.name for s in program.states if found[program.updates[s.name]] is not s.node), "")
    return f"the state `{changed}`" if changed else "the weights" if found[program.weights] is not ir.W else ""


def still_without(program: Program) -> list[str] | None:
    """The settings that have to be 0 for nothing to change where the gradient is 0, whatever the step size; None: something always does."""
    real = [h for h in program.hypers if h.kind == "real" and h.name.rpartition(".")[2] != "lr"]
    zeros = [h.name for h in real if h.bounds is None or h.bounds.holds(0)]
    if moved(program, dict.fromkeys(zeros, 0.0)):
        return None
    for name in zeros:
        others = [other for other in zeros if other != name]
        zeros = zeros if moved(program, dict.fromkeys(others, 0.0)) else others
    return zeros


def _folded(node: Node, args: tuple[Node, ...]) -> Node:
    if OPS[node.op].role not in ("map", "select"):
        return node
    zeros = tuple(_is_zero(arg) for arg in args)
    match node.op, zeros:
        case ("mul", (True, _) | (_, True)) | ("div", (True, _)):
            return ZERO
        case ("add" | "sub", (_, True)):
            return args[0]
        case "add", (True, _):
            return args[1]
        case ("where" | "branch"), _ if args[0].op == "const":
            return args[1] if args[0].value else args[2]
        case ("where" | "branch"), _ if args[1] is args[2]:
            return args[1]
    made = ir.rebuild(node, args)
    if any(arg.op != "const" for arg in args):
        return made
    value = ir.const(host.evaluate(made, {}, 1, {}))
    return ZERO if _is_zero(value) else value  # the sign of a zero moves nothing


def _is_zero(node: Node) -> bool:
    return node.op == "const" and not isinstance(node.value, bool) and node.value == 0
