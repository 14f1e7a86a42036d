"""Rules applied until none lowers the cost any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optlang.analysis.nonnegative import nonnegative
from optlang.host import MAPS
from optlang.ir import Node, Program, const, fold, make, rebuild, shaped, walk
from optlang.ops import OPS
from optlang.simplify import guard
from optlang.simplify.cost import cost, operation
from optlang.simplify.matching import Match, above, instance, matches, users
from optlang.simplify.rules import Rule, by_root
from optlang.types import Type, TypeProblem, broadcasts_to

PASSES = 30
MOST_JUDGED = 1000  # forms that the guard looks at
LARGE = 2000  # operations and leaves; above, exact rewrites only, whatever the mathematics


@dataclass(frozen=True, slots=True)
class Change:
    """One accepted rewrite of a node."""

    rule: Rule
    match: Match


def rewritten(program: Program, judge: Judge) -> Program:
    """The program after as many passes as lower its cost."""
    best = cost(program.roots())
    for _ in range(PASSES):
        program = _folded(program, judge.math == "strict")
        candidate = _pass(program, judge)
        lower = cost(candidate.roots())
        if lower >= best and candidate is not program:
            lower, candidate = best, program
        if candidate is program:
            break
        program, best = candidate, lower
    return program


class Judge:
    """Whether a rewrite is allowed: all in `fast`, exact ones in `strict`, in `safe` those that the guard accepts too."""

    def __init__(self, program: Program, math: str) -> None:
        self.math = math
        self.hypers = {h.name: h for h in program.hypers}
        self.nonnegative = nonnegative(program)
        self.large = len(walk(program.roots())) > LARGE
        self.left = MOST_JUDGED
        self._fits: dict[Node, list[tuple[Rule, Match]]] = {}

    @property
    def judges(self) -> bool:
        """Whether any but exact rules have a chance."""
        return not self.large and (self.math == "fast" or (self.math == "safe" and self.left > 0))

    def candidates(self, node: Node) -> Sequence[tuple[Rule, Match]]:
        """Every rule that fits a node, and how. Most nodes are as they were one pass before."""
        found = self._fits.get(node)
        if found is None:
            ops = {arg.op for arg in node.args}
            real = self.judges and not node.host
            tried = [rule for rule in by_root().get(node.op, ()) if rule.below <= ops and (real or rule.meaning == "exact")]
            found = self._fits[node] = [(rule, match) for rule in tried for match in matches(rule.left, node)]
        return found

    def allows(self, rule: Rule, before: Node, after: Node, match: Match) -> bool:
        return rule.meaning == "exact" or self.accepts(before, after, frozenset(match.letters.values()))

    def accepts(self, before: Node, after: Node, leaves: frozenset[Node]) -> bool:
        """Whether a form that is equal for real numbers may be taken."""
        if self.math == "fast" or not self.judges:
            return self.judges
        self.left -= 1
        return guard.accepts(before, after, leaves, self.hypers, self.nonnegative)


# ----------------------------------------------------------------------------------------------------- one pass over it


def _pass(program: Program, judge: Judge) -> Program:
    """Accepts rewrites that do not overlap, larger expressions first, and makes them all."""
    view = View([*program.roots(), *starts(program)])
    chosen: dict[Node, Change] = {}
    touched: set[Node] = set()
    for node in reversed(view.order):
        if node not in touched and (change := _change(node, view, judge, touched)) is not None:
            chosen[node] = change
            touched.update(change.match.inside)
    if not chosen:
        return program
    table = _carried_out(program, chosen)
    return program if table is None else program.replaced(table)


def starts(program: Program) -> list[Node]:
    return [s.init for s in program.states] + [s.guard for s in program.states if s.guard is not None]


class View:
    """What one pass needs to know of the program."""

    def __init__(self, roots: Sequence[Node]) -> None:
        self.order = walk(roots)
        self.live = set(self.order)
        self.users = users(roots)
        shared = any(node.type.extent.level in ("group", "model") for node in self.order)
        self.shaped = frozenset(self.order) if shared else shaped(roots)  # beside shared values a literal would be one of them


def _change(node: Node, view: View, judge: Judge, touched: set[Node]) -> Change | None:
    for rule, match in judge.candidates(node):
        if rule.meaning == "real" and not judge.judges:
            continue
        if touched.isdisjoint(match.inside) and _helps(rule, node, match, view, judge):
            return Change(rule, match)
    return None


def _helps(rule: Rule, node: Node, match: Match, view: View, judge: Judge) -> bool:
    try:
        after = instance(rule.right, match)
    except TypeProblem:
        return False
    if not fits(after, node.type, node in view.shaped) or not same_place(node, after, match):
        return False
    if judge.math == "strict" and after.host and not node.host:
        return False  # what is made of it would then be computed in float64, and rounded elsewhere
    return gain(node, after, match, view) > 0 and judge.allows(rule, node, after, match)


def fits(after: Node, old: Type, shaped: bool) -> bool:
    """Whether a node may stand for a value of a type. A literal may for an array, where nobody looks at the shape."""
    new = after.type
    if new.window != old.window or not (new.kind == old.kind or (new.kind, old.kind) == ("int", "real")):
        return False
    return new.extent == old.extent or (not shaped and after.op == "const" and broadcasts_to(new.extent, old.extent))


def same_place(before: Node, after: Node, match: Match) -> bool:
    """Whether numbers known before the step are still read where they were.

    `t`, hypers and facts belong to the parameter, group or model at which they meet a tensor value, and may differ there.
    """
    leaves = frozenset(match.letters.values())
    known = {leaf for leaf in leaves if leaf.host}
    if all(leaf.op == "const" for leaf in known):
        return True
    places = {_place(n) for root in (before, after) for n in above(root, leaves) if n.type.extent.level != "host"}
    return len(places) <= 1


def _place(node: Node) -> str:
    return node.type.extent.level if node.type.extent.level in ("model", "group") else "parameter"


def gain(node: Node, after: Node, match: Match, view: View) -> float:
    """The cost of what nobody reads any more, less that of what is new."""
    kept = frozenset(match.letters.values())
    freed: set[Node] = {node}
    for inner in match.inside[1:]:
        if inner not in kept and view.users[inner] <= freed:
            freed.add(inner)
    made = [n for n in above(after, kept) if n not in view.live]
    still = freed & set(above(after, kept))
    return sum(operation(n) for n in freed - still) - sum(operation(n) for n in made)


def _carried_out(program: Program, chosen: Mapping[Node, Change]) -> dict[Node, Node] | None:
    """Every node with its new form; None where the forms do not fit together."""

    def step(node: Node, args: tuple[Node, ...]) -> Node:
        change = chosen.get(node)
        if change is None:
            return rebuild(node, args)
        letters = {letter: table[old] for letter, old in change.match.letters.items()}
        return instance(change.rule.right, replace(change.match, letters=letters))

    table: dict[Node, Node] = {}
    try:
        for node in walk(program.all_roots()):
            table[node] = step(node, tuple(table[arg] for arg in node.args))
    except TypeProblem:
        return None
    return table


# ---------------------------------------------------------------------------------------------------- constants, mirrors


def _folded(program: Program, strict: bool) -> Program:
    """Operations on literals are carried out in float64, and `a*b` and `b*a` become one.

    The larger of 0 and -0 is either of them, by order, so in `strict` these stay apart.
    """
    ordered = ("maximum", "minimum") if strict else ()
    seen: dict[tuple[object, ...], Node] = {}

    def step(node: Node, args: tuple[Node, ...]) -> Node:
        fresh = _constant(rebuild(node, args))
        if OPS[fresh.op].commutes and fresh.op not in ordered:
            return seen.setdefault((fresh.op, frozenset(fresh.args)), fresh)
        return fresh

    try:
        return program.replaced(fold(program.all_roots(), step))
    except TypeProblem:
        return program


def _constant(node: Node) -> Node:
    if not node.args or node.op not in MAPS or any(arg.op != "const" for arg in node.args):
        return node
    with np.errstate(all="ignore"):
        value = MAPS[node.op](*(_number(arg) for arg in node.args))
    if node.type.kind == "bool":
        return const(bool(value))
    if node.type.kind == "int":
        return const(int(value)) if abs(value) < 2**53 and not (value == 0 and np.signbit(value)) else node  # no -0 among ints
    return make("const", (), float(value), node.type)


def _number(node: Node) -> np.bool_ | np.float64:
    return np.bool_(node.value) if isinstance(node.value, bool) else np.float64(node.value)
