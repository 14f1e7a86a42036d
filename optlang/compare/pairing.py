"""Which state, setting and equation of one rule plays the part of which of another, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, product

from optlang import ir
from optlang.compare.alignment import Aligner, Changes
from optlang.ir import Node, Program, State
from optlang.printing.equations import definitions

MOST_TRIALS = 40  # other ways to pair the states

Names = Mapping[str, str]


@dataclass(frozen=True)
class Side:
    """A rule as equations that read each other by name: a new state is a leaf `m'` to all but its own equation.

    `states` and `hypers` give names other than the rule's own; `points` the named expressions that have equations as well.
    """

    program: Program
    states: Names = field(default_factory=dict)
    hypers: Names = field(default_factory=dict)
    points: Names = field(default_factory=dict)

    @cached_property
    def equations(self) -> dict[str, Node]:
        """What is computed, by name: `m'`, `w'`, `eval`, `report x`, the points, and how states start and where they exist."""
        return self._cut[0]

    @property
    def cut(self) -> Mapping[Node, Node]:
        """Each expression of the program as the equations have it."""
        return self._cut[1]

    @cached_property
    def _cut(self) -> tuple[dict[str, Node], dict[Node, Node]]:
        leaves = self.leaves()
        primed = self._primed()
        found: dict[str, Node] = {}

        def combine(node: Node, args: tuple[Node, ...]) -> Node:
            if node in leaves:
                return leaves[node]
            fresh = ir.rebuild(node, args)
            if node not in primed:
                return fresh
            found[primed[node]] = fresh
            return ir.state(primed[node], node.type)

        table = ir.fold(self.program.all_roots(), combine)
        found |= {name: table[node] for name, node in self._roots() if name not in found}
        return found | self._evaluation(), table

    def _evaluation(self) -> dict[str, Node]:
        """The weights to evaluate with, which read what is stored after the step: all with a prime."""
        p = self.program
        if p.evaluation is None:
            return {}
        after = {s.node: ir.state(f"{self.states.get(s.name, s.name)}'", s.type) for s in p.states} | {ir.W: ir.state("w'", ir.W.type)}
        leaves = {**self.leaves(), **after}

        def combine(node: Node, args: tuple[Node, ...]) -> Node:
            return leaves[node] if node in leaves else ir.rebuild(node, args)

        return {"eval": ir.fold([p.evaluation], combine)[p.evaluation]}

    def leaves(self) -> dict[Node, Node]:
        """What states, settings and draws are to the other side."""
        p = self.program
        found = {s.node: ir.state(self.states.get(s.name, s.name), s.type) for s in p.states}
        found |= {(n := ir.hyper(h.name, h.kind)): ir.hyper(self.hypers.get(h.name, h.name), n.type.kind) for h in p.hypers}
        draws = [node for node in ir.walk(p.roots()) if node.op == "random"]  # told apart by their order, not by their place in a file
        return found | {n: ir.random(n.value[0], i, n.type.extent) for i, n in enumerate(draws)}

    def _primed(self) -> dict[Node, str]:
        found = {node: f"{self.states.get(name, name)}'" for name, node in reversed(list(self.program.updates.items())) if node.args}
        return {node: self.points[name] for name, node in named(self.program).items() if name in self.points} | found

    def _roots(self) -> list[tuple[str, Node]]:
        p = self.program
        found = [(f"{self.states.get(name, name)}'", node) for name, node in p.updates.items()]
        found += [("w'", p.weights), *((f"report {name}", node) for name, node in (p.reports or {}).items())]
        for s in p.states:
            name = self.states.get(s.name, s.name)
            found += [(f"{name} at first", s.init)] + ([(f"{name} where", s.guard)] if s.guard is not None else [])
        return found


def compared(aligner: Aligner, a: Side, b: Side) -> dict[str, Changes]:
    """What every equation takes to become the other side's. An equation that only one side has costs its size."""
    found = {}
    for name, old in a.equations.items():
        new = b.equations.get(name)
        found[name] = Changes(aligner.size(old)) if new is None else aligner.align(old, new)
    found |= {name: Changes(aligner.size(new)) for name, new in b.equations.items() if name not in found}
    return found | {f"{name} per": Changes(1) for name, _, _ in extents(a, b)}


def extents(a: Side, b: Side) -> list[tuple[str, State, State]]:
    """States that play the same part, but are one of something else."""
    partners = {b.states[s.name]: s for s in b.program.states}
    return [(s.name, s, partners[s.name]) for s in a.program.states if s.name in partners and s.type != partners[s.name].type]


def distance(aligner: Aligner, a: Side, b: Side) -> int:
    """How much of both rules differs, in nodes: a change that shows in several places once."""
    changes = compared(aligner, a, b)
    seen = {part: one for one in changes.values() for part in one.parts}
    repeated = sum(len(one.parts) for one in changes.values()) - len(seen)
    return sum(one.cost for one in changes.values()) - repeated


# ------------------------------------------------------------------------------------------------------------- states


def pair(aligner: Aligner, a: Program, b: Program) -> tuple[Side, Side]:
    """Both rules, the second with the first one's names for states and settings that play the same part."""
    mine = Side(a)
    states = _improved(aligner, mine, b, _alike(aligner, a, b))
    other = Side(b, _names(b, states))
    hypers = _settings(compared(aligner, mine, other).values(), a, b)
    if hypers:
        states = _improved(aligner, mine, b, states, hypers)
    return mine, Side(b, _names(b, states), hypers)


def in_common_names(side: Side) -> Program:
    """The rule with its settings named, and its draws numbered, as the side has it."""
    table = {old: new for old, new in side.leaves().items() if old.op != "state"}
    made = side.program.replaced(ir.substitute(side.program.all_roots(), table))
    return replace(made, hypers=tuple(h._replace(name=side.hypers.get(h.name, h.name)) for h in made.hypers))


def _names(b: Program, states: Names) -> dict[str, str]:
    """A state without a partner keeps its name with a mark, so that it meets none of the other side."""
    return {s.name: states.get(s.name, f"+{s.name}") for s in b.states}


def _alike(aligner: Aligner, a: Program, b: Program) -> dict[str, str]:
    """States that are computed alike when one does not look at which states they read; names break ties."""
    updates = [ir.substitute(p.updates.values(), {s.node: ir.state("?", s.type) for s in p.states}) for p in (a, b)]
    found = []
    for x, y in product(a.states, b.states):
        if aligner.is_done:
            break
        if _may_be_one(x, y):
            old, new = updates[0][a.updates[x.name]], updates[1][b.updates[y.name]]
            gain = aligner.size(old) + aligner.size(new) - aligner.align(old, new).cost
            found.append((-gain, x.name != y.name, x.type != y.type, x.name, y.name))
    chosen: dict[str, str] = {}
    for gain, _, _, mine, other in sorted(found):
        if gain < 0 and other not in chosen and mine not in chosen.values():
            chosen[other] = mine
    return chosen


def _may_be_one(x: State, y: State) -> bool:
    return (x.type.kind, x.type.window) == (y.type.kind, y.type.window)


def _improved(aligner: Aligner, mine: Side, b: Program, states: dict[str, str], hypers: Names | None = None) -> dict[str, str]:
    """Other partners for one state at a time, as long as that brings the rules closer."""

    def apart(trial: dict[str, str]) -> int:
        return distance(aligner, mine, Side(b, _names(b, trial), hypers or {}))

    best = apart(states)
    for x, y in islice(product(mine.program.states, b.states), MOST_TRIALS):
        if states.get(y.name) != x.name and _may_be_one(x, y):
            trial = _exchanged(states, x.name, y.name)
            length = apart(trial)
            if length < best:
                best, states = length, trial
    return states


def _exchanged(states: dict[str, str], mine: str, other: str) -> dict[str, str]:
    """With the two as partners; those that they leave become partners."""
    trial = dict(states)
    left = trial.pop(other, None)
    for name, partner in states.items():
        if partner == mine:
            del trial[name]
            if left is not None:
                trial[name] = left
    return trial | {other: mine}


def _settings(changes: Iterable[Changes], a: Program, b: Program) -> dict[str, str]:
    """Settings that only one rule has, and that stand wherever one that only the other has stands."""
    mine, other = ({h.name for h in p.hypers} for p in (a, b))
    partners: dict[str, set[str]] = {}
    for part in (part for one in changes for part in one.parts):
        if part.old is not None and part.new is not None and part.old.op == part.new.op == "hyper" and part.old.type == part.new.type:
            partners.setdefault(part.new.value, set()).add(part.old.value)
    single = {new: old for new, olds in partners.items() if new not in mine and len(olds) == 1 and (old := next(iter(olds))) not in other}
    return {new: old for new, old in single.items() if list(single.values()).count(old) == 1}


# ---------------------------------------------------------------------------------------------------------- equations


def named(program: Program) -> dict[str, Node]:
    """Expressions with a name that are no new state, each once."""
    found = {node: name for name, node in reversed(definitions(program)) if node.args and not name.endswith("'")}
    return {name: node for node, name in reversed(found.items()) if node not in program.updates.values()}


def with_points(aligner: Aligner, a: Side, b: Side) -> tuple[Side, Side]:
    """Both sides with equations of their own for named expressions that correspond: half of them is the same."""
    found = []
    for (mine, x), (other, y) in product(*(named(side.program).items() for side in (a, b))):
        if aligner.is_done:
            break
        old, new = a.cut[x], b.cut[y]
        both = aligner.size(old) + aligner.size(new)
        found.append((2 * aligner.align(old, new).cost - both, mine != other, mine, other))
    chosen: dict[str, str] = {}
    for cost, _, mine, other in sorted(found):
        if cost <= 0 and other not in chosen and mine not in chosen.values():
            chosen[other] = mine
    names = {other: f"{mine}:" for other, mine in chosen.items()}
    return replace(a, points={mine: f"{mine}:" for mine in chosen.values()}), replace(b, points=names)


__all__ = ["Side", "compared", "distance", "extents", "in_common_names", "named", "pair", "with_points"]
