"""`every`, `when` and `repeat`: equations that hold at some steps only, and loops that are unrolled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from optlang import ir
from optlang.front import syntax
from optlang.lower import declarations
from optlang.lower.context import MOST_REPEATS, Value
from optlang.lower.expressions import make, whole
from optlang.lower.names import enter_equation, is_first, may_define
from optlang.types import BOOL_HOST

if TYPE_CHECKING:
    from optlang.lower.frames import Frame, Key


class Block:
    """What a `when`, `every` or `repeat` defines for the frame around it."""

    def value(self, frame: Frame, key: Key) -> Value:
        raise AssertionError


def define(frame: Frame, body: Sequence[syntax.Statement]) -> None:
    """Enters the names that the equations and blocks of a body define; declarations must have been entered before."""
    for statement in body:
        if isinstance(statement, syntax.Equation):
            enter_equation(frame, statement)
        elif isinstance(statement, syntax.Repeat):
            _define_repeat(frame, statement)
        elif isinstance(statement, (syntax.Every, syntax.When)):
            _define_choice(frame, statement)


# ------------------------------------------------------------------------------------------------ when and every


@dataclass
class Choice(Block):
    """The two sides of a `when` or `every`."""

    statement: syntax.Every | syntax.When
    then: Frame
    otherwise: Frame
    condition: Value = None
    lowered: bool = False

    def test(self, frame: Frame) -> Value:
        """The condition, lowered once."""
        if not self.lowered:
            self.lowered = True
            written = self.statement
            self.condition = _period(frame, written) if isinstance(written, syntax.Every) else _condition(frame, written)
        return self.condition

    def value(self, frame: Frame, key: Key) -> Value:
        sides = [self._side(side, key) for side in (self.then, self.otherwise)]
        condition = self.test(frame)
        if condition is None or sides[0] is None or sides[1] is None:
            return None
        if sides[0] is sides[1]:
            return sides[0]
        if condition.type.extent.level == "array":
            return make(frame, "branch", [condition, *sides], self.statement.span, code="T03")
        written = next((side.equations[key] for side in (self.then, self.otherwise) if key in side.equations), self.statement)
        return make(frame, "branch", [condition, *sides], written.span)

    def _side(self, side: Frame, key: Key) -> Value:
        """A state that a side does not mention keeps its value; so does `w`."""
        if key in side.equations or key in side.blocks:
            return side.value(key, side.places.get(key[0], self.statement.span))
        return side.lookup(syntax.Name(self.statement.span, key[0]))


def _define_choice(frame: Frame, statement: syntax.Every | syntax.When) -> None:
    sides = frame.side(0), frame.side(1)
    choice = Choice(statement, *sides)
    frame.choices.append(choice)
    for side, negated in zip(sides, (False, True), strict=True):
        side.around = (*frame.around, (choice, frame, negated))
    for side, body in ((sides[0], statement.body), (sides[1], statement.otherwise)):
        declarations.enter_states(side, body)
        define(side, body)
        _refuse_others(side, body)
    for key in _visible(choice):
        if key in frame.equations or key in frame.blocks:
            frame.report("N03", f"`{key[0]}{chr(39) * key[1]}` is defined twice", statement.span, "also defined outside this block",
                         "every name has one equation, or one on each side of one block")  # fmt: skip
        else:
            frame.blocks[key] = choice
    for side in sides:
        for name, span in side.places.items():
            frame.places.setdefault(name, span)


def _visible(choice: Choice) -> list[Key]:
    """New values of outer states are visible from either side; plain names only when both sides define them."""
    then, other = ({*side.equations, *side.blocks} for side in (choice.then, choice.otherwise))
    keys = [k for k in [*choice.then.equations, *choice.then.blocks, *choice.otherwise.equations, *choice.otherwise.blocks]
            if (k in then and k in other) or (k[1] and k[0] not in choice.then.states and k[0] not in choice.otherwise.states)]  # fmt: skip
    return list(dict.fromkeys(keys))


def _refuse_others(side: Frame, body: Sequence[syntax.Statement]) -> None:
    for statement in body:
        if isinstance(statement, (syntax.Hyper, syntax.Input, syntax.Eval, syntax.Report, syntax.Return)):
            word = type(statement).__name__.lower()
            side.report("R06", f"`{word}` cannot stand inside a block", statement.span, "", "move it out of the block")


def _condition(frame: Frame, statement: syntax.When) -> Value:
    node = frame.lower(statement.condition)
    if node is None:
        return None
    if node.type.kind != "bool":
        frame.report("T01", "the condition of `when` is a number, not a truth value", statement.condition.span, "",
                     "compare it, as in `x > 0`")  # fmt: skip
        return None
    if node.type.extent.level == "array":
        frame.report("T03", f"the condition of `when` is per {node.type.extent}", statement.condition.span, "",
                     "use `where(c, a, b)` to choose element by element, or reduce it")  # fmt: skip
        return None
    return node


def _period(frame: Frame, statement: syntax.Every) -> Value:
    """`every k` fires at k, 2k, …; `every k from s` at s, s + k, …"""
    period = frame.lower(statement.period)
    start = None if statement.start is None else frame.lower(statement.start)
    if period is None or (statement.start is not None and start is None):
        return None
    for node, expr in ((period, statement.period), (start, statement.start)):
        if node is not None and expr is not None and not _counts(node, least=1 if node is period else 0):
            frame.report("R05", "`every` counts steps: it needs a whole number of at least 1", expr.span,
                         f"this is {node.type.said}" if node.op != "const" else "", _whole(node))  # fmt: skip
            return None
    if start is None:
        return ir.make("eq", (ir.make("mod", (ir.T, period)), ir.const(0)))
    aligned = ir.make("eq", (ir.make("mod", (ir.sub(ir.T, start), period)), ir.const(0)))
    return ir.make("and", (ir.make("ge", (ir.T, start)), aligned))


def _whole(node: ir.Node) -> str:
    if node.op == "hyper":
        return f"declare it as a whole number: `hyper int {node.value} = 10`"
    return "use an `int` hyper or a number"


def _counts(node: ir.Node, least: int) -> bool:
    if node.type.kind != "int" or node.type.extent.level != "host":
        return False
    return node.op != "const" or node.value >= least


def guard_of(frame: Frame, choice: Choice, negated: bool, outer: Value) -> Value:
    """A state inside a `when` on facts and whole-number or truth hypers exists only where that holds."""
    condition = choice.test(frame)
    if condition is None or not _is_static(condition):
        return outer
    guard = ir.make("not", (condition,)) if negated else condition
    return guard if outer is None else ir.make("and", (outer, guard))


def _is_static(condition: ir.Node) -> bool:
    leaves = [n for n in ir.walk([condition]) if not n.args]
    return all(n.op in ("const", "fact") or (n.op == "hyper" and n.type.kind != "real") for n in leaves)


# -------------------------------------------------------------------------------------------------------- repeat


@dataclass
class Loop(Block):
    """A `repeat`: its states are loop variables, known outside by their last value."""

    statement: syntax.Repeat
    results: dict[str, Value] = field(default_factory=dict)
    ran: bool = False

    def value(self, frame: Frame, key: Key) -> Value:
        if not self.ran:
            self.ran = True
            self.results = self._run(frame)
        return self.results.get(key[0])

    def _run(self, frame: Frame) -> dict[str, Value]:
        loops = [s for s in self.statement.body if isinstance(s, syntax.State)]
        current = {s.name: frame.lower(s.init) for s in loops}
        count = self._count(frame)
        for turn in range(count or 0):
            frame.context.entered(frame.source, self.statement.span)
            current = self._turn(frame, current, turn)
        return current

    def _count(self, frame: Frame) -> int | None:
        node = frame.lower(self.statement.count)
        if node is None:
            return None
        count = whole(frame, node)
        if count is None or count < 0 or count > MOST_REPEATS:
            frame.report("R05", "`repeat` needs a whole number that is known when the rule is built", self.statement.count.span,
                         f"from 0 to {MOST_REPEATS}", "use a number or an `int` hyper")  # fmt: skip
            return None
        return count

    def _turn(self, frame: Frame, current: dict[str, Value], turn: int) -> dict[str, Value]:
        inside = frame.side(turn, in_loop=True)
        for name, value in current.items():
            kind = value.type if value is not None else BOOL_HOST
            inside.states[name] = ir.State(name, kind, ir.const(0))
            inside.values[name, False] = value
            inside.places[name] = self.statement.span
        define(inside, self.statement.body)
        for key in inside.equations if turn == 0 else ():
            inside.value(key, inside.places[key[0]])
        after: dict[str, Value] = {}
        for name in current:
            key = (name, True)
            if key in inside.equations or key in inside.blocks:
                after[name] = inside.value(key, self.statement.span)
            else:
                inside.report("N07", f"the loop variable `{name}` has no equation `{name}' = …`", self.statement.span)
                after[name] = None
        return after


def _define_repeat(frame: Frame, statement: syntax.Repeat) -> None:
    loop = Loop(statement)
    own = {s.name for s in statement.body if isinstance(s, syntax.State)}
    for inner in statement.body:
        if isinstance(inner, (syntax.Hyper, syntax.Input, syntax.Eval, syntax.Report, syntax.Return)):
            frame.report("R06", f"`{type(inner).__name__.lower()}` cannot stand inside `repeat`", inner.span)
        if isinstance(inner, syntax.State):
            if inner.window is not None or inner.per:
                help_ = f"its first value decides its shape: `state {inner.name} = 1 + 0*mean(w per col)` is 1 for each column"
                frame.report("R06", "a loop variable has neither a window nor `per`", inner.span, "", help_)
            if may_define(frame, inner.name, inner.name_span) and is_first(frame, (inner.name, False), inner.name_span):
                frame.blocks[inner.name, False] = loop
                frame.places[inner.name] = inner.name_span
        if isinstance(inner, syntax.Equation) and inner.target.primed and inner.target.id not in own:
            frame.report("R06", f"`{inner.target.id}'` cannot be set inside `repeat`", inner.target.span,
                         "only loop variables change in a loop", f"declare `state {inner.target.id} = …` inside the loop")  # fmt: skip
