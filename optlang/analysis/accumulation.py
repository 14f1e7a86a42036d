"""Rules that can take a gradient in parts: what each part adds to the states, and how the weights move when all have come.

A rule takes a sum of gradients in parts where its states are linear in `g`, by factors that neither states nor weights change, and
the new weights read `g` through the new states alone. The first part then updates the states as a gradient would, every further
one adds what it contributes, and the weights move at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from optlang import host, ir
from optlang.analysis.live_states import keeping_all
from optlang.ir import Node, Program

ZERO = ir.const(0.0)


class NotLinear(Exception):
    """Why a rule cannot take a gradient in parts."""


@dataclass(frozen=True)
class Parts:
    """The states after the first part of a gradient, after a further one, and the weights after the last."""

    first: Program
    more: Program
    move: Program


def parts(program: Program, hypers: Mapping[str, Any]) -> Parts:
    """A step in parts, for these values of whole-number and truth hypers. Raises NotLinear."""
    program = _decided(program, hypers)
    holding = {s.name: s.node for s in program.states}
    adding = {s.name: _with_more(s.name, s.node, program.updates[s.name]) for s in program.states}
    gathering = replace(keeping_all(program), weights=ir.W, reports=None, names=())
    return Parts(gathering, replace(gathering, updates=adding), replace(gathering, weights=_moved(program), updates=holding))


def _decided(program: Program, hypers: Mapping[str, Any]) -> Program:
    def side(node: Node, args: tuple[Node, ...]) -> Node:
        leaves = [n for n in ir.walk([node.args[0]]) if not n.args] if node.op == "branch" else []
        known = leaves and all(n.op == "const" or (n.op == "hyper" and n.type.kind != "real") for n in leaves)
        return (args[1] if host.evaluate(node.args[0], hypers, 1, {}) else args[2]) if known else ir.rebuild(node, args)

    return program.replaced(ir.fold(program.all_roots(), side))


def _with_more(name: str, state: Node, update: Node) -> Node:
    """A state that has already taken a part of the gradient, with another one."""
    try:
        part = ir.fold([update], _linear)[update]
    except NotLinear as problem:
        raise NotLinear(f"its state `{name}` is not linear in the gradient: {problem}") from None
    if part is None:
        return state
    if changing := [n for n in ir.walk([part]) if n.op in ("state", "w", "input")]:
        raise NotLinear(f"what a gradient adds to its state `{name}` depends on {_words(changing[0])}")
    return ir.add(state, part)


def _linear(node: Node, args: tuple[Node | None, ...]) -> Node | None:
    """What is linear in `g` in an expression, which is a sum of that and of what does not read `g`; None where nothing is."""
    if not node.args:
        return node if node.op == "g" else None
    if not any(args):
        return None
    match node.op, args:
        case "add", (a, b):
            return ir.add(a, b) if a and b else a or b
        case "sub", (a, b):
            return ir.sub(a, b) if a and b else a or (b and ir.neg(b))
        case ("neg" | "sum" | "mean" | "transpose" | "as_matrix" | "as_param" | "spread"), (Node() as a,):
            return ir.rebuild(node, (a,))
        case ("mul" | "matmul"), (Node() as a, None):
            return ir.rebuild(node, (a, node.args[1]))
        case ("mul" | "matmul"), (None, Node() as b):
            return ir.rebuild(node, (node.args[0], b))
        case "div", (Node() as a, None):
            return ir.div(a, node.args[1])
        case ("where" | "branch"), (None, a, b):
            return ir.rebuild(node, (node.args[0], a or ZERO, b or ZERO))
    raise NotLinear(f"it takes `{node.op}` of it")


def _moved(program: Program) -> Node:
    """The new weights, read from states that are new already."""
    marks = {program.updates[s.name]: ir.input_(f"new {s.name}", s.type) for s in program.states}
    weights = ir.fold([program.weights], lambda node, args: marks.get(node) or ir.rebuild(node, args))[program.weights]
    left = [n for n in ir.walk([weights]) if n.op in ("g", "state")]
    if left:
        raise NotLinear(f"its new weights read {_words(left[0])} itself, not through new states alone")
    found = {marks[program.updates[s.name]]: s.node for s in program.states}
    return ir.substitute([weights], found)[weights]


def _words(node: Node) -> str:
    return {"g": "the gradient", "w": "the weights"}.get(node.op, f"the {node.op} `{node.value}`")
