"""Calls by name: builtins, reductions and draws become nodes; rules and functions are handed to `inline`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.front import syntax
from optlang.lower import inline, tables
from optlang.lower.context import IMPLICIT, OF_A_DRAW, Value
from optlang.lower.expressions import make
from optlang.lower.extents import extent_of, shape_of
from optlang.lower.modules import advice_about, standard_names
from optlang.macros import MACROS
from optlang.types import TENSOR, Extent, TypeProblem

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

PARAMETERS = {  # how draws with the parameters that other libraries' functions take are written
    "normal": "for another mean and deviation write `mean + deviation*normal()`",
    "uniform": "for other bounds write `low + (high - low)*uniform()`",
    "exponential": "for another mean write `mean*exponential()`",
    "rademacher": "for another size write `size*rademacher()`",
}


def lower(frame: Frame, call: syntax.Call) -> Value:
    """The value of a call; None where an error has been reported."""
    name = call.func
    if name in ops.DRAWS:
        return _draw(frame, call)
    if name in ("eye", "places"):
        return _constant(frame, call)
    if name == "dense":
        return tables.dense(frame, call)
    if name in ops.REDUCTIONS and not (name in ("max", "min") and _positional(call) > 1):
        return _reduction(frame, call)
    if name in ops.BUILTINS:
        return _builtin(frame, call)
    if (found := frame.module.find(name)) is not None:
        return inline.call(frame, call, *found)
    unknown(frame, call)
    return None


def _positional(call: syntax.Call) -> int:
    return sum(not arg.name and arg.value is not None for arg in call.args)


def _values(frame: Frame, call: syntax.Call) -> list[Value]:
    return [frame.lower(arg.value) for arg in call.args if arg.value is not None]


def _counted(frame: Frame, call: syntax.Call, least: int, most: int) -> bool:
    """Whether a builtin is called with so many unnamed arguments; reports where not."""
    named = next((arg for arg in call.args if arg.name), None)
    if named is not None:
        help_ = _without_name(call.func, named.name)
        frame.report("N11", f"`{call.func}` is a builtin: its arguments have no names", named.span, "", help_)
        return False
    count = sum(arg.value is not None for arg in call.args)
    if least <= count <= most:
        return True
    numbers = f"{least}" if least == most else f"{least} to {most}"
    wanted = "no arguments or two sizes" if call.func in ops.DRAWS else f"{numbers} argument{'s' * (numbers != '1')}"
    frame.report("N10", f"`{call.func}` takes {wanted}, not {count}", call.span, "", _signature(call.func))
    return False


def _without_name(func: str, name: str) -> str:
    """What to write where an argument of a builtin was given a name."""
    if func in ops.REDUCTIONS and name in ("dim", "axis", "keepdim", "keepdims"):
        return f"write `{func}(x per row)` or `per col`"
    return _signature(func) if func in ops.DRAWS else f"leave out `{name} =`"


def _signature(name: str) -> str:
    if name in ops.DRAWS:
        return f"{PARAMETERS[name]}; two sizes make a matrix of draws, `{name}(rows, 4)`"
    row = MACROS.get(name) or ops.OPS.get(ops.REDUCTIONS.get(name, name))
    return row.doc if row is not None else ""


def _no_per(frame: Frame, call: syntax.Call) -> bool:
    wrong = next((arg for arg in call.args if arg.per), None)
    if wrong is not None:
        frame.report("T05", f"`per {wrong.per}` in a call of `{call.func}`, which does not reduce", wrong.span, "",
                     f"`per` belongs in a reduction: {', '.join(ops.REDUCTIONS)}")  # fmt: skip
    return wrong is None


# ------------------------------------------------------------------------------------------------------- builtins


def _builtin(frame: Frame, call: syntax.Call) -> Value:
    macro = MACROS.get(call.func)
    row = ops.OPS.get(call.func)
    least, most = macro.operands if macro else (row.operands, row.operands) if row else (0, 0)
    args = _values(frame, call)
    if not _counted(frame, call, least, most) or not _no_per(frame, call):
        return None
    if macro is not None:
        return _expand(frame, call, args, None)
    if args == [ir.W] and call.func in ("grad", "loss_at"):
        return ir.G if call.func == "grad" else ir.LOSS
    return make(frame, call.func, args, call.span, code="T07" if call.func in ("as_matrix", "as_param") else "T01")


def _expand(frame: Frame, call: syntax.Call, args: Sequence[Value], extent: Extent | str | None) -> Value:
    known = [arg for arg in args if arg is not None]
    if len(known) < len(args):
        return None
    frame.context.made(frame.source, call.span)
    try:
        return MACROS[call.func].expand(ir, known, extent)
    except TypeProblem as found:
        frame.report("T01", str(found), call.span)
        return None


def _reduction(frame: Frame, call: syntax.Call) -> Value:
    name = ops.REDUCTIONS[call.func]
    macro = MACROS.get(name)
    args = _values(frame, call)
    operands = macro.operands[0] if macro else ops.OPS[name].operands
    if not _counted(frame, call, operands, operands):
        return None
    extent = _extent_left(frame, call, args[0])
    if extent is None or any(arg is None for arg in args):
        return None
    return _expand(frame, call, args, extent) if macro else make(frame, name, args, call.span, extent)


def _extent_left(frame: Frame, call: syntax.Call, value: Value) -> Extent | str | None:
    """What a reduction leaves: what `per` says, else the remembered values become one, else one per tensor."""
    words = [arg for arg in call.args if arg.per]
    if len(words) > 1:
        frame.report("T05", "`per` is said twice", words[1].span, "", "say it once, after the value that is reduced")
        return None
    if not words:
        return "window" if value is not None and value.type.window else TENSOR
    if words[0].per == "element":
        frame.report("T05", "a reduction `per element` leaves everything as it is", words[0].span, "",
                     "say `row`, `col`, `matrix`, `tensor`, `group`, `model` or how many elements")  # fmt: skip
        return None
    extent = extent_of(frame, words[0].per, words[0].span)
    return extent if extent is None or value is None else _in_the_frame_of(extent, value.type.extent)


def _in_the_frame_of(extent: Extent, whole: Extent) -> Extent:
    """`per row` of any matrix, transposed or not, leaves one value for each of its rows."""
    if extent.level != "array" or whole.level != "array" or extent.run or whole.run:
        return extent
    rows = whole.rows if extent.rows != 1 else 1
    cols = whole.cols if extent.cols != 1 else 1
    return Extent("array", rows, cols, whole.frame)


def _draw(frame: Frame, call: syntax.Call) -> Value:
    words = [arg for arg in call.args if arg.per]
    sizes = [arg.value for arg in call.args if arg.value is not None]
    if not _counted(frame, call, 0, 0 if words or len(sizes) != 2 else 2):
        return None
    extent = shape_of(frame, sizes, _signature(call.func)) if sizes else extent_of(frame, words[0].per if words else "", call.span)
    if extent is None:
        return None
    frame.context.made(frame.source, call.span, OF_A_DRAW)
    count = frame.draws[frame.equation] = frame.draws.get(frame.equation, -1) + 1
    path = f"{frame.path}/{frame.equation}.{count}"
    return ir.random(call.func, frame.context.site(path), extent)


def _constant(frame: Frame, call: syntax.Call) -> Value:
    """`eye` and `places`: matrices that their sizes alone decide."""
    sizes = [arg.value for arg in call.args if arg.value is not None and not arg.name and not arg.per]
    if len(sizes) == len(call.args) and 1 <= len(sizes) <= (2 if call.func == "eye" else 1):
        extent = shape_of(frame, [sizes[0], sizes[-1]])
        if extent is None:
            return None
        return ir.places(extent.rows) if call.func == "places" else ir.eye(extent.rows, cols=extent.cols)
    wanted = "one size, or two" if call.func == "eye" else "one size"
    frame.report("T07", f"`{call.func}` takes {wanted}: `rows`, `cols` or whole numbers", call.span, "", f"as in `{call.func}(rows)`")
    return None


# -------------------------------------------------------------------------------------------------------- unknown


def unknown(frame: Frame, call: syntax.Call) -> None:
    """Says what is wrong with a call of what is not defined."""
    _values(frame, call)
    name = call.func
    if name in ("named", "dtype"):
        frame.report("R06", f"`{name}` belongs in the conditions of a route", call.span, "", "rules see `rank`, `rows`, `cols`, `numel`")
    elif name in (*IMPLICIT, "loss", *ops.CONSTANTS, *ops.FACTS) or frame.holds_anywhere(name):
        elsewhere = {"g": "grad", "loss": "loss_at"}.get(name)
        product = f"for a product write `{name} * (…)`; a bracket after a name is always a call"
        frame.report("N14", f"`{name}` is a value, not a function", call.func_span, "called like a function",
                     f"at another point it is `{elsewhere}(x)`; {product}" if elsewhere else product)  # fmt: skip
    elif name in standard_names():
        frame.report("N15", f"`{name}` is a function of `std` that is not imported", call.func_span, "not imported",
                     f"begin the file with `from std import {name}`")  # fmt: skip
    else:
        rule = name[:1].isupper()
        frame.report("N09" if rule else "N01", f"unknown {'rule' if rule else 'function'} `{name}`", call.func_span,
                     "neither a builtin nor defined or imported here", advice_about(name, frame.module))  # fmt: skip
