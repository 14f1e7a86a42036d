"""Programs: a rule as settings, memory and expressions, ready to be analysed, printed or compiled; and routes to several."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from optlang.errors import Span
from optlang.ir.nodes import Node, state, walk
from optlang.types import Kind, Type

MOST_TO_READ = 2_000  # the longest rule of the library has 1,200


class Bounds(NamedTuple):
    """A legal range of a hyper."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not math.isnan(value)

    def allows(self, name: str, value: float) -> bool:
        """Whether a hyper may have a value. A step size may be 0 even where the rule excludes it: schedules end there."""
        return self.holds(value) or (name == "lr" and value == 0 and self.low == 0)

    def __str__(self) -> str:
        return f"{'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


class Hyper(NamedTuple):
    """A setting. `name` is dotted for one of a called rule (`fast.lr`); `baked` ones shape the program itself."""

    name: str
    kind: Kind
    default: float | int | bool
    bounds: Bounds | None = None
    doc: str = ""
    baked: bool = False

    @property
    def table(self) -> str:
        """The table that it is a number of, or nothing."""
        return self.name.partition("[")[0] if "[" in self.name else ""


def cell(table: str, row: int, col: int) -> str:
    """The name of the hyper that is one number of a table, counted from 1."""
    return f"{table}[{row},{col}]"


class State(NamedTuple):
    """Memory between steps. `init` may read `w`, hypers and facts. `guard`: exists only where this static condition holds."""

    name: str
    type: Type
    init: Node
    guard: Node | None = None

    @property
    def node(self) -> Node:
        return state(self.name, self.type)


class Input(NamedTuple):
    name: str
    type: Type
    doc: str = ""


@dataclass(frozen=True)
class Program:
    """A rule, ready to be analysed, printed or compiled.

    `updates` gives each state's value after the step, `weights` the new parameter, `evaluation` the weights to evaluate
    with where the rule has such. `names` are the named equations as written, in an order in which each may be computed;
    they only help printers. `inner` are what expressions are called inside blocks and functions, for those who need a name
    for one; it does not keep them. A state's entry in `updates` for a step in which it holds is the state itself.
    """

    name: str
    doc: str
    hypers: tuple[Hyper, ...]
    states: tuple[State, ...]
    inputs: tuple[Input, ...]
    updates: Mapping[str, Node]
    weights: Node
    evaluation: Node | None = None
    reports: Mapping[str, Node] | None = None
    names: tuple[tuple[str, Node], ...] = ()
    inner: tuple[tuple[str, Node], ...] = ()
    spans: Mapping[str, Span] | None = None

    def roots(self) -> list[Node]:
        """Every expression that the program computes, initial values and guards left out."""
        extra = [self.evaluation] if self.evaluation is not None else []
        return [self.weights, *self.updates.values(), *extra, *(self.reports or {}).values()]

    def all_roots(self) -> list[Node]:
        """`roots` with the states' initial values and guards, and the named equations."""
        starts = [s.init for s in self.states] + [s.guard for s in self.states if s.guard is not None]
        return [*self.roots(), *starts, *(node for _, node in self.names)]

    @property
    def unreadable(self) -> str:
        """Why nobody reads a text about the program, operation by operation; else empty. What reads it takes longer than it grows."""
        count = len(walk(self.all_roots())) + len(self.hypers) + len(self.states)
        return f"it has {count} operations, settings and states, more than anybody reads" if count > MOST_TO_READ else ""

    def replaced(self, table: Mapping[Node, Node]) -> Program:
        """The program with every root looked up in a table made by `rewrite` or `substitute` over `all_roots()`."""

        def new(node: Node) -> Node:
            return table.get(node, node)

        return replace(
            self,
            updates={name: new(node) for name, node in self.updates.items()},
            weights=new(self.weights),
            evaluation=None if self.evaluation is None else new(self.evaluation),
            reports=None if self.reports is None else {k: new(v) for k, v in self.reports.items()},
            states=tuple(
                s._replace(init=new(s.init), guard=None if s.guard is None else new(s.guard)) for s in self.states
            ),
            names=tuple((name, new(node)) for name, node in self.names),
            inner=tuple((name, new(node)) for name, node in self.inner),
        )

    def hyper(self, name: str) -> Hyper:
        return next(h for h in self.hypers if h.name == name)

    def uses(self, op: str) -> bool:
        """Whether any expression contains the operator (`grad`, `hvp`, `loss`, `random`, …)."""
        return any(node.op == op for node in walk(self.roots()))


class Case(NamedTuple):
    """One branch of a route. `condition` None: `otherwise`. `settings` override the program's defaults."""

    condition: Predicate | None
    program: Program
    settings: Mapping[str, float | int | bool]


class Routing(NamedTuple):
    name: str
    doc: str
    cases: tuple[Case, ...]


class Predicate(NamedTuple):
    """A static condition over facts, names and dtypes, evaluated for each parameter when it is given to the optimizer."""

    op: str  # and, or, not, a comparison, fact, const, named, dtype
    args: tuple[Predicate, ...] = ()
    value: Any = None
