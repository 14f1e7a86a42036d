"""Frames: the names of one body and what they stand for.

A frame is a rule or function being inlined, one side of a `when`, or one turn of a `repeat`. Equations have no order, so a
name is lowered when it is first asked for; asking for a name that is being lowered is a cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.errors import Source, Span
from optlang.front import syntax
from optlang.front.foreign import WEIGHTS
from optlang.lower import blocks, calls, expressions, unknown
from optlang.lower.context import Context, Table, Value
from optlang.lower.modules import RESERVED, Module, every_part, expressions_of

if TYPE_CHECKING:
    from optlang.lower.blocks import Block, Choice

Key = tuple[str, bool]  # a name and whether it is primed


GIVEN = {  # what to do instead of defining these again
    "w": "for the new weights write `w' = …`",
    "g": "it is the gradient as it comes; name what is made of it, as in `d = …`",
}  # fmt: skip


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
        return {"w": ir.W, "g": ir.G, "t": ir.T}[name]

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
            unknown.primed(self, name)
            return None
        if name.id in ("true", "false"):
            return ir.const(name.id == "true")
        if name.id in ops.CONSTANTS:
            return ir.const(ops.CONSTANTS[name.id])
        if name.id in ops.FACTS:
            return ir.fact(name.id)
        if name.id == "loss":
            return ir.LOSS
        if name.id in ("w", "g", "t"):
            return self.surrounding(name.id)
        unknown.plain(self, name)
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
        """Named equations are kept for the printers."""
        if node is not None and not key[1] and self.parent is None and not self.is_def:
            self.context.names[self.prefix + key[0]] = node

    def _cycle(self, key: Key, span: Span) -> None:
        path = self.open[self.open.index(key) :] + [key]
        shown = " -> ".join(name + "'" * primed for name, primed in path)
        name, primed = key
        help_ = "read an old value (a state without a prime) somewhere on the way"
        if len(path) == 2:
            help_ = f"`{name}` is the old value" if primed else f"what is kept between steps is a state: `state {name} = 0`, `{name}' = …`"
        self.report("N05", f"the equations go in a circle: {shown}", span, "needed for its own value", help_)
        self.values[key] = None

    # ------------------------------------------------------------------------------------------ definitions

    def define(self, body: Sequence[syntax.Statement]) -> None:
        """Enters the equations and blocks of a body; declarations must have been entered before."""
        for statement in body:
            if isinstance(statement, syntax.Equation):
                self._define_equation(statement)
            elif isinstance(statement, (syntax.Every, syntax.When, syntax.Repeat)):
                blocks.define(self, statement)

    def _define_equation(self, equation: syntax.Equation) -> None:
        target = equation.target
        key = (target.id, target.primed)
        if target.primed and not self._may_be_primed(target):
            return
        if not target.primed and not self.may_define(target.id, target.span):
            return
        if self.is_first(key, target.span):
            self.equations[key] = equation
            self.places.setdefault(target.id, target.span)

    def is_first(self, key: Key, span: Span) -> bool:
        """Whether no equation or block of this body defines a name yet; reports where one does."""
        if key in self.equations or key in self.blocks:
            self.report("N03", f"`{key[0]}{chr(39) * key[1]}` is defined twice", span, "second definition",
                        "every name has one equation; use another name for the second value")  # fmt: skip
            return False
        return True

    def _may_be_primed(self, target: syntax.Name) -> bool:
        if target.id == "w":
            if self.is_def:
                self.report("R06", "a function cannot change `w`", target.span, "", "return the value instead")
            return not self.is_def
        if self.owner_of_state(target.id) is not None:
            return True
        if self.is_poisoned(target.id):
            return False
        help_ = f"write `{target.id} = …`, or declare `state {target.id} = 0`"
        if target.id in RESERVED or target.id in ops.BUILTINS:
            help_ = GIVEN.get(target.id, "choose another name")
        elif target.id in WEIGHTS - {"x"}:  # which is rather a value in between
            help_ = f"the parameter is called `w`, so its new value is `w'`; memory is declared, `state {target.id} = 0`"
        self.report("N06", f"`{target.id}'` has no state: `{target.id}` is not declared with `state`", target.span,
                    "a prime means the new value of a state", help_)  # fmt: skip
        self.poisoned.add(target.id)
        return False

    def is_poisoned(self, name: str) -> bool:
        return any(name in frame.poisoned for frame in self.outward())

    def owner_of_state(self, name: str) -> Frame | None:
        return next((frame for frame in self.outward() if name in frame.states), None)

    def may_define(self, name: str, span: Span) -> bool:
        """Whether a new name may be introduced; reports where not."""
        if name in RESERVED or name in ops.BUILTINS:
            if name == "w" or name in ops.BUILTINS:  # `w = …` is what should have been `w'`; `mean` alone is no function then
                self.poisoned.add(name)
            what = "reserved" if name in RESERVED else "the name of a builtin"
            self.report("N04", f"`{name}` is {what} and cannot be defined again", span, "", GIVEN.get(name, "choose another name"))
            return False
        for frame in self.outward():
            declared = any(name in names for names in (frame.given, frame.states, frame.tables))
            if declared or (frame is not self and (name, False) in frame.equations):
                advice = f"for its new value write `{name}' = …`" if name in frame.states else "there is no shadowing; use another name"
                self.report("N03", f"`{name}` is defined twice", span, "already a hyper, state, input or equation", advice)
                return False
        if (found := self.module.find(name)) is not None:
            kind = "rule" if isinstance(found[0], syntax.Rule) else "function" if isinstance(found[0], syntax.Def) else "route"
            self.report("N04", f"`{name}` is already the name of a {kind}", span, "", "choose another name")
            return False
        return True

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
