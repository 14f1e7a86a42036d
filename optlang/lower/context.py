"""What one lowering gathers: findings, declarations and budgets."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from optlang import ir
from optlang.errors import MOST_FINDINGS, Diagnostic, Label, Source, Span

MOST_CALLS = 5_000  # inlined calls and turns of loops: functions that double would otherwise fill the machine
MOST_NODES = 10_000
OF_A_DRAW, OF_A_PASS = 3, 6  # operations as which a draw and a pass over the model count: they take longer
MOST_NESTED_CALLS = 40
MOST_REPEATS = 1_000

Value = ir.Node | None  # None: poisoned by an error that has been reported
IMPLICIT = {"w": ir.W, "g": ir.G, "t": ir.T}  # what every body sees; a call may give it others


@dataclass(frozen=True, slots=True)
class Table:
    """A setting of many numbers. Its name is dotted for one of a called rule."""

    name: str
    rows: int
    cols: int

    def cells(self) -> Iterator[str]:
        """The names of its numbers, row by row."""
        return (ir.cell(self.name, row, col) for row in range(1, self.rows + 1) for col in range(1, self.cols + 1))


class TooLarge(Exception):
    """A budget is spent; the finding has been reported."""


@dataclass
class Spent:
    """What the lowering of a whole file has used of the budgets."""

    calls: int = 0
    nodes: int = 0
    findings: int = 0


@dataclass
class Context:
    """Everything that the lowering of one rule collects."""

    baked: Mapping[str, float | int | bool]
    source: Source | None = None  # of the rule being lowered, not of what it calls
    diagnostics: list[Diagnostic] = field(default_factory=list)
    hypers: dict[str, ir.Hyper] = field(default_factory=dict)
    states: dict[str, ir.State] = field(default_factory=dict)
    updates: dict[str, ir.Node] = field(default_factory=dict)
    inputs: dict[str, ir.Input] = field(default_factory=dict)
    reports: dict[str, ir.Node] = field(default_factory=dict)
    names: dict[str, ir.Node] = field(default_factory=dict)
    inner: dict[ir.Node, tuple[int, str]] = field(default_factory=dict)  # what is called something inside a body, and how much that says
    spans: dict[str, Span] = field(default_factory=dict)
    evaluations: list[tuple[ir.Node, ir.Node, Source, Span]] = field(default_factory=list)  # new weights, `eval`, its place
    shaping: set[str] = field(default_factory=set)  # hypers whose value shaped the program
    spent: Spent = field(default_factory=Spent)
    inlined: dict[tuple[object, ...], Value] = field(default_factory=dict)  # pure functions by their arguments
    sites: set[int] = field(default_factory=set)
    calling: list[tuple[str, Source, Span]] = field(default_factory=list)  # what is being inlined, and where it is called

    def report(
        self, source: Source, code: str, message: str, span: Span, pointer: str = "", help: str = ""
    ) -> None:
        """Adds a finding, once for each place and code. One in an inlined body says where the call stands. After MOST_FINDINGS
        it is enough."""
        if any(d.code == code and d.span == span and d.source is source for d in self.diagnostics):
            return
        labels: tuple[Label, ...] = ()
        if self.calling:
            name, caller, place = self.calling[0]
            if caller is source:
                labels = (Label(place, f"`{name}` is called here"),)
            else:
                line, column = caller.position(place.start)
                message += f" (in `{name}`, called at {caller.name}:{line}:{column})"
        self.diagnostics.append(Diagnostic(code, message, span, pointer, help, labels=labels, source=source))
        self.spent.findings += 1
        if self.spent.findings >= MOST_FINDINGS:
            raise TooLarge

    def call(self, node: ir.Node, name: str, weight: int) -> None:
        """Notes what an expression is called: by an equation (2), as the new value of a state (1), or by the function that gives it (0)."""
        if node.args and weight >= self.inner.get(node, (0, ""))[0]:
            self.inner[node] = weight, name

    @contextmanager
    def inside(self, name: str, caller: Source, place: Span) -> Iterator[None]:
        """While the body of a called rule or function is lowered."""
        self.calling.append((name, caller, place))
        try:
            yield
        finally:
            self.calling.pop()

    def site(self, path: str) -> int:
        """A number for a written draw that does not change when other equations do."""
        number = zlib.crc32(path.encode())
        while number in self.sites:
            number = (number + 1) & 0xFFFFFFFF
        self.sites.add(number)
        return number

    def entered(self, source: Source, span: Span) -> None:
        """Counts one inlined call or one turn of a loop."""
        self.spent.calls += 1
        if self.spent.calls > MOST_CALLS:
            self.report(source, "L01", f"there are more than {MOST_CALLS} calls and turns of loops after inlining", span,
                        "stopped here", "fewer repeats, or fewer functions that call functions")  # fmt: skip
            raise TooLarge

    def made(self, source: Source, span: Span, operations: int = 1) -> None:
        """Counts one operator, or what it is worth; a program that explodes is stopped here."""
        self.spent.nodes += operations
        if self.spent.nodes > MOST_NODES:
            advice = f"fewer repeats, or functions that call functions; a draw counts as {OF_A_DRAW}, a pass over the model as {OF_A_PASS}"
            self.report(source, "L01", f"there are more than {MOST_NODES} operations after inlining", span, "stopped here", advice)
            raise TooLarge
