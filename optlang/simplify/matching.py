"""Where a rule's left side fits an expression, and what its right side makes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from optlang.ir import Node, const, make, walk
from optlang.ops import OPS
from optlang.simplify.rules import Pattern
from optlang.types import Extent

HOST_LETTERS = frozenset("abc")
TRUTH_LETTERS = frozenset("pqr")


@dataclass(frozen=True, slots=True)
class Match:
    """What the letters stand for, the nodes between them and the root, and what reductions reduce to."""

    letters: Mapping[str, Node] = field(default_factory=dict)
    inside: tuple[Node, ...] = ()
    remaining: Extent | str | None = None


def matches(pattern: Pattern, node: Node) -> Iterator[Match]:
    """Every way in which a pattern fits a node."""
    return _fit(pattern, node, Match()) if _may_fit(pattern, node) else iter(())


def _may_fit(pattern: Pattern, node: Node) -> bool:
    """Whether it fits but for letters that occur twice, which is soon known, and of most nodes that it does not."""
    if pattern.op == "var":
        return _may_be(str(pattern.value), node)
    if pattern.op == "const":
        return _same_number(pattern, node)
    if node.op != pattern.op or len(node.args) != len(pattern.args):
        return False
    return all(map(_may_fit, pattern.args, node.args)) or (OPS[node.op].commutes and all(map(_may_fit, pattern.args, node.args[::-1])))


def _fit(pattern: Pattern, node: Node, so_far: Match) -> Iterator[Match]:
    if pattern.op == "const":
        if _same_number(pattern, node):
            yield so_far
    elif pattern.op == "var":
        yield from _bind(str(pattern.value), node, so_far)
    elif node.op == pattern.op:
        remaining = node.value if OPS[node.op].role == "reduce" else so_far.remaining
        if so_far.remaining is None or remaining == so_far.remaining:
            inner = Match(so_far.letters, (*so_far.inside, node), remaining)
            orders = [node.args, node.args[::-1]] if OPS[node.op].commutes else [node.args]
            for order in orders:
                yield from _fit_all(pattern.args, order, inner)


def _fit_all(patterns: Sequence[Pattern], nodes: Sequence[Node], so_far: Match) -> Iterator[Match]:
    if len(patterns) != len(nodes):
        return
    if not patterns:
        yield so_far
        return
    for found in _fit(patterns[0], nodes[0], so_far):
        yield from _fit_all(patterns[1:], nodes[1:], found)


def _bind(letter: str, node: Node, so_far: Match) -> Iterator[Match]:
    known = so_far.letters.get(letter)
    if known is node:
        yield so_far
    elif known is None and _may_be(letter, node):
        yield Match({**so_far.letters, letter: node}, so_far.inside, so_far.remaining)


def _may_be(letter: str, node: Node) -> bool:
    if letter == "k":
        return is_power_of_two(node)
    if letter in HOST_LETTERS:
        return node.host and node.type.kind != "bool"
    return node.type.kind == "bool" if letter in TRUTH_LETTERS else True


def is_power_of_two(node: Node) -> bool:
    """A literal ±2^n whose reciprocal is a normal float32, so that dividing by it and multiplying give the same bits."""
    if node.op != "const" or isinstance(node.value, bool) or not math.isfinite(node.value):
        return False
    fraction, exponent = math.frexp(node.value)
    return abs(fraction) == 0.5 and abs(exponent) <= 100


def _same_number(pattern: Pattern, node: Node) -> bool:
    if node.op != "const" or isinstance(node.value, bool) != isinstance(pattern.value, bool):
        return False
    if pattern.value == 0 and not isinstance(pattern.value, bool):
        return node.value == 0 and math.copysign(1.0, node.value) > 0
    return bool(node.value == pattern.value)


def instance(pattern: Pattern, match: Match) -> Node:
    """The expression that a pattern stands for. Raises TypeProblem where it has no type."""
    if pattern.op == "var":
        return match.letters[str(pattern.value)]
    if pattern.op == "const":
        assert isinstance(pattern.value, (bool, int, float))
        return const(pattern.value)
    args = [instance(arg, match) for arg in pattern.args]
    return make(pattern.op, args, match.remaining if OPS[pattern.op].role == "reduce" else None)


def above(node: Node, leaves: frozenset[Node]) -> list[Node]:
    """The nodes of an expression down to some nodes, these left out; operands first."""
    return [n for n in walk([node], lambda n: () if n in leaves else n.args) if n not in leaves]


def users(roots: Sequence[Node]) -> dict[Node, set[Node | None]]:
    """Who reads each node; None stands for the program itself."""
    found: dict[Node, set[Node | None]] = {root: {None} for root in roots}
    for node in walk(roots):
        for arg in node.args:
            found.setdefault(arg, set()).add(node)
    return found
