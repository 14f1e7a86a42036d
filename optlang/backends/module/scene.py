"""What a stretch of generated code is made of: what is wanted, what may be used, and statements with what decides their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from optlang.backends.module.numbers import Numbers
from optlang.ir import Node

Turn = tuple[Node, bool, Node | int | None]  # a condition, the side, and what tells blocks of one condition apart, where any does
Path = tuple[Turn, ...]
Role = Literal["alone", "in a route", "looking around"]  # the last: needs others of a route, or the model, as they are before the step


class TooDeep(Exception):
    """More nested conditions than Python takes."""


@dataclass(frozen=True, slots=True)
class Want:
    """Something to compute: `leaf` is the state (or `w`) that it is written into, else `template` has a `{}` for it."""

    node: Node
    leaf: Node | None = None
    template: str = ""


@dataclass(frozen=True, slots=True)
class Loop:
    """Equal turns: `result` is `turn(... turn(first))`, `hole` stands for the value before a turn."""

    first: Node
    hole: Node
    turn: Node
    count: str
    outer: tuple[Node, ...]

    @property
    def operands(self) -> tuple[Node, ...]:
        return self.first, *self.outer

    @property
    def computed(self) -> tuple[Node, ...]:
        """What it stands for, in expressions."""
        return self.first, self.turn


@dataclass(frozen=True, slots=True)
class Weighted:
    """A sum of values, each times its number in a column of a table; `weight` is the first of these, `total` the sum written out."""

    weight: Node
    values: tuple[Node, ...]
    total: Node

    @property
    def operands(self) -> tuple[Node, ...]:
        return self.values

    @property
    def computed(self) -> tuple[Node, ...]:
        return (self.total,)


Rolled = Loop | Weighted  # what a graph has written out, and a text in short


@dataclass(frozen=True, slots=True)
class Scene:
    """What a section may use: texts of leaves (with the line that binds each), marks of loops and sums, and what is computed already."""

    leaves: Mapping[Node, tuple[str, str]]  # text, and the line that must come before
    rolled: Mapping[Node, Rolled]
    ready: Mapping[Node, str]
    labels: Mapping[Node, str]
    targets: Mapping[Node, str]  # what is written in place, by state leaf
    numbers: Numbers
    draw: Callable[[Node], str]
    like: str = "w"  # an empty tensor, or another, where the values are, of their type
    guards: Mapping[Node, Node] = field(default_factory=dict)  # states that exist only where a condition holds
    exposed: set[Node] = field(default_factory=set)  # those of them that were read elsewhere, too, when the section was written
    whole: set[Node] = field(default_factory=set)  # branches by numbers of the step that are no states' new values alone
    promised: Mapping[Node, str] = field(default_factory=dict)  # the names of what is asked for
    partial: Mapping[Node, Node] = field(default_factory=dict)  # as `guards`, of states that cannot exist for other parameters
    inner: Mapping[Node, str] = field(default_factory=dict)  # what values without labels are called inside blocks and functions

    def naming(self, absent: Collection[Node]) -> Scene:
        """The same where the names of some states are given while there may be none of them."""
        found = {leaf: (self.leaves[leaf][0], self.leaves[leaf][1].replace("state[", "state.get(").replace("]", ")")) for leaf in absent}
        return replace(self, leaves={leaf: found.get(leaf, text) for leaf, text in self.leaves.items()}) if absent else self

    def operands(self, node: Node) -> tuple[Node, ...]:
        if node in self.ready or node in self.leaves:
            return ()
        rolled = self.rolled.get(node)
        return node.args if rolled is None else rolled.operands

    def is_if(self, node: Node) -> bool:
        """Whether a branch is decided by a number of Python's, or by one on the CPU."""
        if node.op != "branch" or node in self.ready:
            return False
        return node.args[0] in self.numbers or node.args[0].type.extent.level in ("host", "model", "group")


@dataclass(slots=True)
class Line:
    """One statement with what decides its place."""

    path: Path
    text: list[str]
    defines: set[Node]
    needs: set[Node]
    old: set[Node]
    writes: set[Node]
    rank: int
    fills: str = ""  # a variable made before an `if`, which each side of it fills


@dataclass(slots=True)
class If:
    """An `if` with the statements of its two sides; what they read and write decides its place."""

    condition: Node
    sides: tuple[list[Item], list[Item]]
    head: Line
    defines: set[Node] = field(default_factory=set)
    needs: set[Node] = field(default_factory=set)
    old: set[Node] = field(default_factory=set)
    writes: set[Node] = field(default_factory=set)
    rank: int = 0
    fills: list[str] = field(default_factory=list)


Item = Line | If


@dataclass(frozen=True, slots=True)
class Reads:
    """Named expressions and old states that a text depends on."""

    needs: frozenset[Node] = frozenset()
    old: frozenset[Node] = frozenset()

    def __or__(self, other: Reads) -> Reads:
        return Reads(self.needs | other.needs, self.old | other.old)


class Cycle(Exception):
    """Statements that have no order; `writes` are the states that they change in place."""

    def __init__(self, writes: set[Node]) -> None:
        self.writes = writes


def common(a: Path, b: Path) -> Path:
    """The innermost block that holds both; of several blocks of one condition the first, as names outlive a block of Python."""
    turns: list[Turn] = []
    for one, other in zip(a, b, strict=False):
        if one == other:
            turns.append(one)
        elif one[:2] == other[:2] and isinstance(one[2], int) and isinstance(other[2], int):
            turns.append(min(one, other, key=_phase))
            break  # what is deeper stands in another block
        else:
            break
    return tuple(turns)


def _phase(turn: Turn) -> int:
    assert isinstance(turn[2], int)
    return turn[2]
