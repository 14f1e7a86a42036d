"""States of one side of a block that are read outside of it, where an expression stands that several blocks share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from optlang.backends.module.scene import Line, Path, Reads
from optlang.ir import Node, Program

Sides = tuple[tuple[Node, bool], ...]


def exposed(made: Sequence[Line], guards: Mapping[Node, Node], reads: Mapping[Node, Reads]) -> set[Node]:
    """The states whose name is bound where their guard need not hold: in the innermost block around all lines that read them."""
    blocks: dict[Node, Sides] = {}
    for line in made if guards else ():
        for leaf, path in _uses(line, reads):
            if leaf in guards:
                sides = tuple((condition, side) for condition, side, _ in path)
                blocks[leaf] = _common(blocks.get(leaf, sides), sides)
    return {leaf for leaf, sides in blocks.items() if not _holds(guards[leaf], sides)}


def _uses(line: Line, reads: Mapping[Node, Reads]) -> Iterator[tuple[Node, Path]]:
    """What a line reads, and the conditions of the blocks around it, each where it is read."""
    yield from ((node, line.path) for node in line.needs)
    for depth, (condition, _, _) in enumerate(line.path):
        yield from ((node, line.path[:depth]) for node in reads[condition].needs)


def _common(a: Sides, b: Sides) -> Sides:
    same = next((i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b)))
    return a[:same]


def _holds(guard: Node, sides: Sides) -> bool:
    if guard.op == "and":
        return all(_holds(part, sides) for part in guard.args)
    return (guard, True) in sides or (guard.op == "not" and (guard.args[0], False) in sides)


def with_states(program: Program, names: frozenset[str]) -> Program:
    """The program where some states exist whatever their guards say."""
    return replace(program, states=tuple(s._replace(guard=None) if s.name in names else s for s in program.states))
