"""Loops rolled up again: `repeat` is unrolled in the graph, and a reader wants to see five equal turns as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from optlang import ir
from optlang.backends.module.scene import Loop
from optlang.ir import Node, Program, Routing
from optlang.ops import CALLS
from optlang.plan import is_gathering

Relower = Callable[[dict[str, Any]], "Program | Routing"]
MOST_NODES, FEWEST_TURNS, FEWEST_NODES, MOST_CANDIDATES = 3000, 3, 4, 12


def rolled(program: Program, relower: Relower | None) -> tuple[Program, dict[Node, Loop], dict[str, str]]:
    """The program with marks in place of unrolled loops, the loops, and the hypers that are their lengths."""
    nodes = ir.walk(program.all_roots())
    if len(nodes) > MOST_NODES:
        return program, {}, {}
    chains = _chains(nodes)
    if not chains:
        return program, {}, {}
    counts = {h.name: h.name for h in program.hypers if h.baked and _is_length(program, chains, h, relower)}
    count = next(iter(counts), "")
    table: dict[Node, Node] = {}
    loops: dict[Node, Loop] = {}
    turned: dict[Node, Node] = {}  # what the last turn computes, as the loop has it
    for number, (last, (hole, turn, turns, first)) in enumerate(chains.items()):
        mark = ir.input_(f"loop {number}", last.type)
        inside = _inside(turn, hole)
        outer = dict.fromkeys(arg for n in inside for arg in n.args if arg not in inside and arg is not hole and arg.op != "const")
        loops[mark] = Loop(first, hole, turn, count or str(turns), tuple(outer))
        table[last] = mark
        turned |= {node: pattern for pattern, node in _pairs(turn, hole, last).items() if pattern is not node and pattern is not turn}
    found = ir.rewrite_top(program.all_roots(), table.get)
    inner = tuple((name, turned.get(node, node)) for name, node in program.inner)
    return replace(program, inner=inner).replaced(found), loops, counts


def of_case(relower: Relower | None, place: int, prefix: str) -> Relower | None:
    """The programs of one case, for values of what shapes it; what the route sets is in them already."""
    if relower is None:
        return None

    def found(baked: dict[str, Any]) -> Program | Routing:
        other = relower({prefix + name: value for name, value in baked.items()})
        return other.cases[place].program if isinstance(other, Routing) else other

    return found


def _waits(last: Node) -> bool:
    """Whether a loop needs what all parameters, or the model, must be asked for: then its turns are written out."""
    return any(n.op in CALLS or is_gathering(n) for n in ir.walk([last]))


Chain = tuple[Node, Node, int, Node]  # hole, one turn over the hole, number of turns, first value


def _chains(nodes: list[Node]) -> dict[Node, Chain]:
    """The longest chains of equal turns, by their last value."""
    users: dict[Node, set[Node]] = {}
    for node in nodes:
        for arg in node.args:
            users.setdefault(arg, set()).add(node)
    found: dict[Node, Chain] = {}
    taken: set[Node] = set()
    for node in reversed(nodes):
        if node in taken or not node.args:
            continue
        chain = _chain_from(node, users)
        if chain is not None and not _waits(node):
            found[node] = chain
            taken |= set(ir.walk([node])) - set(ir.walk([chain[3]]))
    return found


def _chain_from(last: Node, users: Mapping[Node, set[Node]]) -> Chain | None:
    """`last` as turns over turns over a first value."""
    candidates = [n for n in reversed(ir.walk([last])) if n is not last and n.op == last.op and n.type == last.type and n.args]
    for before in candidates[:MOST_CANDIDATES]:
        if _match(last, before, before) is None:  # not even two turns
            continue
        hole = ir.input_("turn", before.type)
        turn = ir.substitute([last], {before: hole})[last]
        if len(_inside(turn, hole)) < FEWEST_NODES:
            continue
        turns, value = 1, before
        while (earlier := _match(turn, hole, value)) is not None:
            turns, value = turns + 1, earlier
        if turns >= FEWEST_TURNS and _is_closed(last, value, users):
            return hole, turn, turns, value
    return None


def _is_closed(last: Node, first: Node, users: Mapping[Node, set[Node]]) -> bool:
    """Whether nothing outside the loop reads what is computed inside."""
    below = set(ir.walk([first]))
    depends: set[Node] = set()
    for node in ir.walk([last]):
        if node is first or any(arg in depends for arg in node.args):
            depends.add(node)
    inside = depends - below
    return all(user in depends for node in inside if node is not last for user in users.get(node, ()))


def _inside(turn: Node, hole: Node) -> set[Node]:
    """The expressions of a turn that depend on the value before it."""
    found = ir.fold([turn], lambda node, args: node is hole or any(args))
    return {node for node, inside in found.items() if inside and node is not hole}


def _match(turn: Node, hole: Node, value: Node) -> Node | None:
    """What the hole must be for the turn to be the value; None: nothing makes it so."""
    bound: Node | None = None
    stack, seen = [(turn, value)], set()
    while stack:
        pattern, node = stack.pop()
        if (pattern, node) in seen:
            continue
        seen.add((pattern, node))
        if pattern is hole:
            if bound is not None and bound is not node:
                return None
            bound = node
        elif pattern is node:
            continue
        elif not pattern.args or pattern.op != node.op or pattern.value != node.value or len(pattern.args) != len(node.args):
            return None
        else:
            stack.extend(zip(pattern.args, node.args, strict=True))
    return bound if bound is not None and bound.type == hole.type else None


def _pairs(turn: Node, hole: Node, value: Node) -> dict[Node, Node]:
    """The expressions of a turn, and what they stand for in the turn that gives a value."""
    pairs, stack = {turn: value}, [turn]
    while stack:
        pattern = stack.pop()
        for arg, node in zip(pattern.args, pairs[pattern].args, strict=True):
            if arg is not hole and arg not in pairs:
                pairs[arg] = node
                stack.append(arg)
    return pairs


def _is_length(program: Program, chains: Mapping[Node, Chain], h: ir.Hyper, relower: Relower | None) -> bool:
    """Whether one more for the hyper is one more turn for every loop, and nothing else."""
    if relower is None or h.kind != "int" or any(chain[2] != h.default for chain in chains.values()):
        return False
    value = int(h.default) + 1
    if h.bounds is not None and not h.bounds.holds(value):
        return False
    other = relower({h.name: value})
    assert isinstance(other, Program)
    longer = {last: ir.substitute([turn], {hole: last})[turn] for last, (hole, turn, _, _) in chains.items()}
    table = ir.rewrite_top(program.all_roots(), longer.get)
    mine = program.replaced(table)
    return mine.weights is other.weights and all(other.updates.get(name) is node for name, node in mine.updates.items())
