"""Which states matter: those that the new weights, the weights to evaluate with, a report or another such state read."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from optlang.ir import Node, Program, W, add, const, make, walk
from optlang.types import TENSOR


def outputs(program: Program) -> list[Node]:
    """The expressions for whose sake a step is taken: new weights, weights to evaluate with, reports."""
    evaluation = [] if program.evaluation is None else [program.evaluation]
    return [program.weights, *evaluation, *(program.reports or {}).values()]


def live_states(program: Program) -> frozenset[str]:
    """The names of the states that some output depends on, now or in a later step."""
    found: set[str] = set()
    waiting = outputs(program)
    while waiting:
        read = {node.value for node in walk(waiting) if node.op == "state"} - found
        found |= read
        waiting = [program.updates[name] for name in read if name in program.updates]
    return frozenset(found)


def without_dead(program: Program) -> Program:
    """The program without the states that nothing depends on."""
    live = live_states(program)
    return replace(
        program,
        states=tuple(s for s in program.states if s.name in live),
        updates={name: node for name, node in program.updates.items() if name in live},
    )


def keeping_all(program: Program) -> Program:
    """The program with weights to evaluate with that read every state: whatever the new weights read, no state is dead."""
    numbers = [make("where", (s.node, const(1.0), const(0.0))) if s.type.kind == "bool" else s.node for s in program.states]
    small = [make("mean", (x,), TENSOR) if x.type.extent.level == "array" else x for x in numbers]
    return replace(program, evaluation=reduce(add, small, W))
