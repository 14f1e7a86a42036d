"""Slots that can be done without, or hold something simpler. All of it by induction over steps; slots begin at 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from optlang import ir
from optlang.ir import Node, Program, substitute, walk
from optlang.search.distil.collecting import ONE, polynomial, sign_forms, total
from optlang.search.programs.genome import WEIGHTS, constant
from optlang.search.programs.moves import Move, replaced, same
from optlang.types import TypeProblem


def slot_moves(program: Program) -> Iterator[Move]:
    yield from _silent(program)
    for place, kept in enumerate(program.states):
        for other in program.states[place + 1 :]:
            yield from _merged(program, kept, other)
    for state in program.states:
        yield from _averaged(program, state)


def _starts_at_zero(state: ir.State) -> bool:
    return state.init is ir.const(0) and state.type == WEIGHTS and state.guard is None


def _silent(program: Program) -> Iterator[Move]:
    """A slot that begins at 0 and stays there."""
    for state in filter(_starts_at_zero, program.states):
        try:
            nothing = substitute([program.updates[state.name]], {state.node: ir.const(0)})
        except TypeProblem:
            continue
        if not polynomial(nothing[program.updates[state.name]]):
            changed = _without_zeros(replaced(program, {state.node: ir.const(0)}))
            if changed is not None:
                yield Move(f"slot {state.name} stays 0", changed, None, "by induction: it begins at 0, and is 0 after a step where it was")


def _without_zeros(program: Program | None) -> Program | None:
    """With x for x + 0, 0 + x and x - 0, which a slot that goes leaves behind."""
    zero = ir.const(0)

    def rule(node: Node) -> Node | None:
        if node.op == "add" and zero in node.args:
            other = node.args[1 - node.args.index(zero)]
            return other if other.type == node.type else None
        return node.args[0] if node.op == "sub" and node.args[1] is zero and node.args[0].type == node.type else None

    return program and program.replaced(ir.rewrite(program.all_roots(), rule))


def _merged(program: Program, kept: ir.State, other: ir.State) -> Iterator[Move]:
    """Two slots that always hold the same, up to a factor."""
    if not (_starts_at_zero(kept) and _starts_at_zero(other)):
        return
    for factor in _ratios(program, kept, other):
        held = kept.node if factor == 1 else ir.mul(constant(float(factor)), kept.node)
        try:
            claim = substitute([program.updates[other.name]], {other.node: held})[program.updates[other.name]]
        except TypeProblem:
            return
        mine = program.updates[kept.name]
        wanted = mine if factor == 1 else ir.mul(constant(float(factor)), mine)
        if wanted is not claim and not same(program, wanted, claim):
            continue
        changed = replaced(program, {other.node: held})
        if changed is not None:
            law = f"{other.name} = {float(factor):g}·{kept.name}"
            text = f"by induction: both begin at 0, and {law} holds after a step where it held before"
            yield Move(f"slots {kept.name} and {other.name} merged", changed, None, text)


def _ratios(program: Program, kept: ir.State, other: ir.State) -> list[Fraction]:
    """What could be the factor: 1, or the ratio of what enters the slots."""
    silent = {kept.node: ir.const(0), other.node: ir.const(0)}
    try:
        entering = [polynomial(substitute([program.updates[s.name]], silent)[program.updates[s.name]]) for s in (kept, other)]
    except TypeProblem:
        return [Fraction(1)]
    shared = set(entering[0]) & set(entering[1])
    return list(dict.fromkeys([Fraction(1), *(entering[1][m] / entering[0][m] for m in list(shared)[:1])]))


def _averaged(program: Program, state: ir.State) -> Iterator[Move]:
    """A decaying sum, m' = bm + ax, is an average times a/(1 - b): the slot then holds the average."""
    if not _starts_at_zero(state):
        return
    terms = polynomial(program.updates[state.name])
    own = frozenset([(state.node, 1)])
    others = [m for m in terms if m != own]
    if own not in terms or len(others) != 1 or not 0 < terms[own] < 1 or others[0] == ONE:
        return
    factor = terms[others[0]] / (1 - terms[own])
    if factor == 1 or any(state.node in walk([n]) for n, _ in others[0]):
        return
    by, new = constant(float(factor)), total({own: terms[own], others[0]: 1 - terms[own]})
    changed = replaced(program, {state.node: ir.mul(by, state.node), program.updates[state.name]: ir.mul(by, new)})
    if changed is None or state.name not in changed.updates:
        return
    changed = replace(changed, updates={**changed.updates, state.name: new})
    text = f"by a change of variable: what {state.name} held is {float(factor):g} times what it holds now"
    yield Move(f"slot {state.name} holds an average", changed, None, text)
    signs = {n: next(sign_forms(n), n) for n in walk(changed.roots()) if n.op == "sign"}
    without = replaced(changed, {old: new for old, new in signs.items() if new is not old})
    if without is not None:
        yield Move(f"slot {state.name} holds an average", without, None, f"{text}; a positive factor does not change a sign")
