"""Declarations: hypers with their ranges, inputs, and states with their extents, windows and initial values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.errors import Span
from optlang.front import syntax
from optlang.lower.context import Context, Table, Value
from optlang.lower.expressions import constant
from optlang.lower.extents import extent_of, shape_of, window_length
from optlang.lower.names import may_define
from optlang.types import ELEMENT, Extent, Kind, Type, broadcasts_to

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

OF_CHECKPOINTS = ("step", "weights_in_training")  # every optimizer keeps these beside the states
# and these beside the hypers
OF_GROUPS = ("params", "param_names", "maximize", "foreach", "capturable", "differentiable", "fused", "seed", "betas")
MOST_CELLS = 10_000
Body = Sequence[syntax.Statement]
Setting = float | int | bool


def enter(frame: Frame, body: Body, given: Mapping[str, Value]) -> None:
    """Everything that a body declares. `given` are hypers that the caller sets to expressions."""
    for statement in body:
        if isinstance(statement, syntax.Hyper) and may_define(frame, statement.name, statement.name_span):
            _refuse_taken(frame, "hyper", statement.name, statement.name_span, OF_GROUPS)
            if statement.shape is None:
                _enter_hyper(frame, statement, given)
            else:
                _enter_table(frame, statement, statement.shape, given.get(statement.name))
        elif isinstance(statement, syntax.Input) and may_define(frame, statement.name, statement.name_span):
            _enter_input(frame, statement)
    enter_states(frame, body)


def _refuse_taken(frame: Frame, kind: str, name: str, span: Span, taken: Sequence[str]) -> None:
    """Names that would meet those of the optimizer; below the top level names are dotted and meet nothing."""
    if name in taken and not frame.prefix and not frame.is_def:
        pair = "declare `hyper beta1` and `hyper beta2`; the optimizer then takes `betas = (…, …)`"
        help_ = pair if name == "betas" else "choose another name"
        frame.report("N04", f"a {kind} cannot be called `{name}`", span, "every optimizer has one of its own", help_)


# --------------------------------------------------------------------------------------------------------- hypers


def _enter_hyper(frame: Frame, statement: syntax.Hyper, given: Mapping[str, Value]) -> None:
    frame.places[statement.name] = statement.name_span
    hyper = declared_hyper(frame, statement)
    if statement.name in given:
        frame.given[statement.name] = given[statement.name]
        return
    frame.given[statement.name] = None
    if hyper is not None:
        name = frame.prefix + statement.name
        frame.given[statement.name] = ir.hyper(name, hyper.kind)
        frame.context.hypers[name] = hyper._replace(name=name)
        frame.context.spans[name] = statement.name_span


def _enter_table(frame: Frame, statement: syntax.Hyper, shape: tuple[syntax.Expr, syntax.Expr], given: Value) -> None:
    """Every number of a table is a hyper of its own."""
    if given is not None:
        frame.report("R06", f"the table `{statement.name}` is given in a call", statement.name_span, "its numbers are no value",
                     "leave it out: it stays a setting under the name of the call")  # fmt: skip
    frame.places[statement.name] = statement.name_span
    frame.poisoned.add(statement.name)
    rows, cols = (_count(frame, statement.name, size) for size in shape)
    hyper = declared_hyper(frame, statement)
    if statement.kind != "real":
        frame.report("S20", f"a table has no kind `{statement.kind}`", statement.name_span, "", "its numbers are real: leave the kind out")
    elif rows is not None and cols is not None and rows * cols > MOST_CELLS:
        frame.report("L01", f"a table has at most {MOST_CELLS} numbers", shape[0].span, f"{rows} × {cols}", "")
    elif rows is not None and cols is not None and hyper is not None:
        frame.context.spent.nodes += rows * cols
        frame.context.made(frame.source, shape[0].span)
        frame.poisoned.discard(statement.name)
        table = frame.tables[statement.name] = Table(frame.prefix + statement.name, rows, cols)
        for name in table.cells():
            frame.context.hypers[name] = hyper._replace(name=name)
            frame.context.spans[name] = statement.name_span


def _count(frame: Frame, name: str, expr: syntax.Expr) -> int | None:
    size = setting(frame, expr, "int", f"a size of `{name}`")
    if size is None or size >= 1:
        return None if size is None else int(size)
    frame.report("R05", f"a size of `{name}` is not a whole number from 1", expr.span, "", f"as in `hyper {name}[8, 4] = 0`")
    return None


def declared_hyper(frame: Frame, statement: syntax.Hyper) -> ir.Hyper | None:
    """The hyper of a statement, under its bare name; None where its default or range is wrong, which is reported."""
    default = setting(frame, statement.default, statement.kind, f"the default of `{statement.name}`")
    bounds = None if statement.range is None else _bounds(frame, statement.range)
    if default is None or (statement.range is not None and bounds is None):
        return None
    if bounds is not None and not bounds.allows(statement.name, default):
        frame.report("R02", f"the default of `{statement.name}` lies outside its range", statement.default.span,
                     f"not in {bounds}", "change the default or the range")  # fmt: skip
        return None
    return ir.Hyper(statement.name, statement.kind, default, bounds, statement.doc)


def setting(frame: Frame, expr: syntax.Expr, kind: Kind, what: str) -> Setting | None:
    """A constant of a kind, or None where that has been reported."""
    node = frame.lower(expr)
    if node is None:
        return None
    value = constant(Context({}), node)
    if value is None or node.type.extent.level != "host":
        computed = "; what is computed in a step is an equation, `x = …`" if what.startswith("the default") else ""
        frame.report("R04", f"{what} is not a constant", expr.span, "", f"write a number, `true` or `false`{computed}")
        return None
    return _of_kind(frame, value, kind, what, expr.span)


def _of_kind(frame: Frame, value: Setting, kind: Kind, what: str, span: Span) -> Setting | None:
    if isinstance(value, bool) != (kind == "bool"):
        help = "write `true` or `false`" if kind == "bool" else "write a number, or declare it with `hyper bool`"
    elif kind == "int" and (value != value or abs(value) == float("inf") or value != int(value)):
        help = "write a whole number, or declare it with `hyper` alone"
    elif value != value:
        help = "write a number: no setting is NaN"
    else:
        return int(value) if kind == "int" else value if kind == "bool" else float(value)
    frame.report("R04", f"{what} does not fit its kind `{kind}`", span, "", help)
    return None


def _bounds(frame: Frame, range_: syntax.Range) -> ir.Bounds | None:
    ends = [setting(frame, end, "real", "the end of a range") for end in (range_.low, range_.high)]
    if ends[0] is None or ends[1] is None:
        return None
    low, high = float(ends[0]), float(ends[1])
    if not low <= high or (low == high and (range_.low_open or range_.high_open)):
        frame.report("R03", "the range is empty", range_.span, f"from {low:g} to {high:g}", "the smaller number comes first")
        return None
    return ir.Bounds(low, high, range_.low_open, range_.high_open)


# --------------------------------------------------------------------------------------------------------- inputs


def _enter_input(frame: Frame, statement: syntax.Input) -> None:
    frame.places[statement.name] = statement.name_span
    extent = extent_of(frame, statement.per, statement.span)
    name = frame.prefix + statement.name
    frame.given[statement.name] = None
    if extent is not None:
        input_ = ir.Input(name, Type("real", extent), statement.doc)
        frame.context.inputs[name] = input_
        frame.given[statement.name] = ir.input_(name, input_.type)


# --------------------------------------------------------------------------------------------------------- states


def enter_states(frame: Frame, body: Body) -> None:
    """The names and types of states. Their initial values wait for `finish`: they may read equations of the body."""
    for statement in body:
        if not isinstance(statement, syntax.State) or not may_define(frame, statement.name, statement.name_span):
            continue
        _refuse_taken(frame, "state", statement.name, statement.name_span, OF_CHECKPOINTS)
        frame.places[statement.name] = statement.name_span
        extent = _state_extent(frame, statement)
        window = 0 if statement.window is None else window_length(frame, statement.window)
        if frame.in_loop:
            frame.report("R06", "a state cannot stand in a block inside `repeat`", statement.span, "", "move it out of the block")
        if extent is None or window is None or frame.in_loop:
            frame.given[statement.name] = None
            frame.poisoned.add(statement.name)
            continue
        type_ = Type("bool" if _is_truth(statement.init) else "real", extent, window)
        frame.states[statement.name] = ir.State(frame.prefix + statement.name, type_, ir.const(0))
        frame.declared[statement.name] = statement


def _state_extent(frame: Frame, statement: syntax.State) -> Extent | None:
    if statement.shape is None:
        return extent_of(frame, statement.per, statement.span)
    if statement.per:
        frame.report("T04", "a state with a shape has no `per`", statement.span, "", "leave one of the two out")
        return None
    return shape_of(frame, statement.shape)


def _is_truth(init: syntax.Expr) -> bool:
    match init:
        case syntax.Name(id=name):
            return name in ("true", "false")
        case syntax.Binary(op=op):
            return op in ("and", "or", "<", "<=", ">", ">=", "==", "!=")
        case syntax.Unary(op=op):
            return op == "not"
    return False


def initial(frame: Frame, name: str) -> Value:
    """The value of a state before step 1: of `w`, hypers and facts."""
    statement, type_ = frame.declared[name], frame.states[name].type
    node = frame.lower(statement.init)
    if node is None:
        return None
    late = [n for n in ir.walk([node]) if n.op not in ("const", "hyper", "fact", "w", "eye", "places") and not n.args]
    late += [n for n in ir.walk([node]) if n.op in ops.CALLS]
    if late:
        words = {"g": "the gradient", "t": "the step number", "random": "a random draw", "loss": "the loss"}
        frame.report("T06", f"the initial value of `{name}` needs {words.get(late[0].op, 'a value of the first step')}",
                     statement.init.span, "not known before the first step",
                     "initial values may use `w`, hypers and facts; choose with `where(t == 1, …)` in the equation")  # fmt: skip
        return None
    node = ir.spread(node) if type_.extent == ELEMENT else node
    if not broadcasts_to(node.type.extent, type_.extent) or node.type.window or (node.type.kind == "bool") != (type_.kind == "bool"):
        frame.report("T02", f"the initial value of `{name}` is {node.type}, the state {type_}", statement.init.span, "",
                     "reduce the value, or declare the state finer")  # fmt: skip
        return None
    return node
