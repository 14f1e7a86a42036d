"""Frames: the names of one body and what they stand for.

A frame is a rule or function being inlined, one side of a `when`, or one turn of a `repeat`. Equations have no order, so a
name is lowered when it is first asked for; asking for a name that is being lowered is a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.errors import Source, Span
from optlang.front import syntax
from optlang.front.walk import every_part, expressions_of
from optlang.lower import calls, expressions, unknown_names
from optlang.lower.context import IMPLICIT, Context, Table, Value
from optlang.lower.modules import Module

if TYPE_CHECKING:
    from optlang.lower.blocks import Block, Choice

Key = tuple[str, bool]  # a name and whether it is primed


@dataclass
class Frame:
    """One body. `given` are names with a value from outside; `parent` is the frame around a side or a turn."""

    context: Context
    module: Module
    prefix: str  # of the keys of states and hypers: "" or "fast."
    given: dict[str, Value] = field(default_factory=dict)
    parent: Frame | None = None
    chain: tuple[int, ...] = ()  # the definitions being inlined, outermost first
    path: str = ""  # where this frame is, for the streams of draws
    is_def: bool = False
    in_loop: bool = False
    around: tuple[tuple[Choice, Frame, bool], ...] = ()  # the blocks it stands in, callers' included: where, and whether in the `else`
    equations: dict[Key, syntax.Equation] = field(default_factory=dict)
    refused: list[syntax.Equation] = field(default_factory=list)  # those whose names may not be defined, or are already
    blocks: dict[Key, Block] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    states: dict[str, ir.State] = field(default_factory=dict)
    declared: dict[str, syntax.State] = field(default_factory=dict)  # the statements of `states`
    places: dict[str, Span] = field(default_factory=dict)  # where each name was first defined
    instances: dict[Span, str] = field(default_factory=dict)  # names of the calls with memory
    values: dict[Key, Value] = field(default_factory=dict)
    open: list[Key] = field(default_factory=list)
    equation: str = ""  # the equation being lowered
    draws: dict[str, int] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    poisoned: set[str] = field(default_factory=set)  # names whose declaration is wrong: what follows from that stays silent

    @property
    def source(self) -> Source:
        return self.module.file.source

    def report(self, code: str, message: str, span: Span, pointer: str = "", help: str = "") -> None:
        self.context.report(self.source, code, message, span, pointer, help)

    def lower(self, expr: syntax.Expr) -> Value:
        return expressions.lower(self, expr)

    def call(self, call: syntax.Call) -> Value:
        return calls.lower(self, call)

    # ----------------------------------------------------------------------------------------- frames from frames

    def side(self, number: int, in_loop: bool = False) -> Frame:
        """For one side of a block, or one turn of a loop: it sees the names of this one."""
        return Frame(self.context, self.module, self.prefix, parent=self, chain=self.chain, is_def=self.is_def,
                     path=f"{self.path}/{len(self.blocks)}.{number}", instances=self.instances,
                     in_loop=in_loop or self.in_loop, around=self.around)  # fmt: skip

    def of_call(self, item: syntax.Rule | syntax.Def, module: Module, prefix: str, given: dict[str, Value], path: str) -> Frame:
        """For the body of what is called here. `given`: its arguments; it sees no names of this frame, and `w`, `g`, `t` as they are."""
        names = {name: self.surrounding(name) for name in IMPLICIT} | given
        return Frame(self.context, module, self.prefix + prefix, given=names, chain=(*self.chain, id(item)), path=path,
                     is_def=isinstance(item, syntax.Def), in_loop=self.in_loop, around=self.around)  # fmt: skip

    def alone(self) -> Frame:
        """Without names, to read a declaration whose findings are reported where it is entered."""
        return Frame(Context({}), self.module, "")

    def outward(self) -> Iterator[Frame]:
        """This frame and those around it."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent

    def surrounding(self, name: str) -> Value:
        """What `w`, `g` or `t` stands for here."""
        for frame in self.outward():
            if name in frame.given:
                return frame.given[name]
        return IMPLICIT[name]

    # ------------------------------------------------------------------------------------------------ names

    def lookup(self, name: syntax.Name) -> Value:
        """The value of a name here, in a frame around, or everywhere."""
        for frame in self.outward():
            if frame.holds(name.id, name.primed):
                return frame.value((name.id, name.primed), name.span)
        return self._elsewhere(name)

    def holds(self, name: str, primed: bool) -> bool:
        key = (name, primed)
        return key in self.equations or key in self.blocks or (not primed and (name in self.given or name in self.states))

    def _elsewhere(self, name: syntax.Name) -> Value:
        if name.primed:
            unknown_names.primed(self, name)
            return None
        if name.id in ("true", "false"):
            return ir.const(name.id == "true")
        if name.id in ops.CONSTANTS:
            return ir.const(ops.CONSTANTS[name.id])
        if name.id in ops.FACTS:
            return ir.fact(name.id)
        if name.id == "loss":
            return ir.LOSS
        if name.id in IMPLICIT:
            return self.surrounding(name.id)
        unknown_names.plain(self, name)
        return None

    def holds_anywhere(self, name: str) -> bool:
        return any(frame.holds(name, False) for frame in self.outward())

    # ----------------------------------------------------------------------------------------------- values

    def value(self, key: Key, span: Span) -> Value:
        """The value of a name of this frame, lowered on the first demand."""
        if key not in self.values:
            if key in self.open:
                self._cycle(key, span)
                return None
            self.open.append(key)
            before, self.equation = self.equation, key[0]
            self.values[key] = self._lower(key)
            self.equation = before
            self.open.pop()
        return self.values[key]

    def _lower(self, key: Key) -> Value:
        if key in self.equations:
            node = self.lower(self.equations[key].value)
            self._note(key, node)
            return node
        if key in self.blocks:
            node = self.blocks[key].value(self, key)
            self._note(key, node)
            return node
        return self.given[key[0]] if key[0] in self.given else self.states[key[0]].node

    def _note(self, key: Key, node: Value) -> None:
        """Named equations are kept for the printers; those of blocks and functions only tell what a value may be called."""
        name, primed = key
        if node is None:
            return
        if not primed and self.parent is None and not self.is_def:
            self.context.names[self.prefix + name] = node
        elif primed and not self.in_loop:
            self.context.call(node, f"{name}_new", 1)
        else:
            self.context.call(node, name, 2)

    def _cycle(self, key: Key, span: Span) -> None:
        path = self.open[self.open.index(key) :] + [key]
        shown = " -> ".join(name + "'" * primed for name, primed in path)
        name, primed = key
        help_ = "read an old value (a state without a prime) somewhere on the way"
        if len(path) == 2:
            help_ = f"`{name}` is the old value" if primed else f"what is kept between steps is a state: `state {name} = 0`, `{name}' = …`"
        self.report("N05", f"the equations go in a circle: {shown}", span, "needed for its own value", help_)
        self.values[key] = None

    def is_poisoned(self, name: str) -> bool:
        return any(name in frame.poisoned for frame in self.outward())

    def owner_of_state(self, name: str) -> Frame | None:
        return next((frame for frame in self.outward() if name in frame.states), None)

    def in_order(self) -> list[Key]:
        """The names of this frame so that, cycles apart, each comes after those it reads: keeps lowering shallow."""
        return _order(self.equations)


def _order(equations: dict[Key, syntax.Equation]) -> list[Key]:
    order: list[Key] = []
    done: set[Key] = set()
    for start in equations:
        stack: list[tuple[Key, bool]] = [(start, False)]
        while stack:
            key, ready = stack.pop()
            if ready:
                order.append(key)
            elif key not in done:
                done.add(key)
                stack.append((key, True))
                stack.extend((k, False) for k in _reads(equations[key]) if k in equations and k not in done)
    return order


def _reads(statement: syntax.Statement) -> Iterable[Key]:
    return [(e.id, e.primed) for e in every_part(expressions_of(statement)) if isinstance(e, syntax.Name)]
