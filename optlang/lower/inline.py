"""Called rules and functions are written out where they are called, each call with its own memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from optlang.errors import Span, did_you_mean
from optlang.front import syntax
from optlang.lower import bodies
from optlang.lower.call_graph import any_memory, is_pure
from optlang.lower.context import IMPLICIT, MOST_NESTED_CALLS, TooLarge, Value
from optlang.lower.declarations import declared_hyper
from optlang.lower.modules import Definition, Module

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

Arguments = dict[str, Value]


def call(frame: Frame, call: syntax.Call, item: Definition, module: Module) -> Value:
    """The new `w` of a rule, the returned value of a function; None where an error has been reported."""
    if isinstance(item, syntax.Route):
        frame.report("N09", f"`{item.name}` is a route, which sends parameters to rules", call.func_span, "cannot be called",
                     "call one of its rules")  # fmt: skip
        return None
    given = _bind_rule(frame, call, item) if isinstance(item, syntax.Rule) else _bind_function(frame, call, item)
    if given is None or not may_go_in(frame, call, item, module):
        return None
    key = _key(frame, item, given) if is_pure(item, module) else None
    if key in frame.context.inlined:
        return frame.context.inlined[key]
    with frame.context.inside(item.name, frame.source, call.func_span):
        inner = _frame(frame, call, item, module, given)
        value = bodies.rule(inner, item, given) if isinstance(item, syntax.Rule) else bodies.function(inner, item)
    if value is not None and isinstance(item, syntax.Def):
        frame.context.call(value, item.name, 0)
    if key is not None:
        frame.context.inlined[key] = value
    return value


def _key(frame: Frame, item: Definition, given: Arguments) -> tuple[object, ...]:
    """A function without memory and draws gives the same for the same arguments, so functions that double stay small."""
    return (id(item), tuple(sorted(given.items(), key=lambda pair: pair[0])), *(frame.surrounding(name) for name in IMPLICIT))


def may_go_in(frame: Frame, call: syntax.Call, item: syntax.Rule | syntax.Def, module: Module) -> bool:
    """Whether the body of a definition may stand for a call; reports where not."""
    frame.context.entered(frame.source, call.func_span)
    if id(item) in frame.chain:
        frame.report("N12", f"`{item.name}` calls itself", call.func_span, "on the way from its own body",
                     "definitions cannot be recursive; use `repeat`")  # fmt: skip
        return False
    if frame.in_loop and any_memory(item, module):
        frame.report("R06", f"`{item.name}` keeps state and cannot be called inside `repeat`", call.func_span, "",
                     "call it outside the loop")  # fmt: skip
        return False
    if len(frame.chain) >= MOST_NESTED_CALLS:
        frame.report("L01", f"calls are nested more than {MOST_NESTED_CALLS} deep", call.func_span, "stopped here",
                     "use fewer functions that call functions")  # fmt: skip
        raise TooLarge
    return True


def _frame(frame: Frame, call: syntax.Call, item: syntax.Rule | syntax.Def, module: Module, given: Arguments) -> Frame:
    instance = frame.instances.get(call.func_span, "")
    count = frame.draws[item.name] = frame.draws.get(item.name, -1) + 1
    names = given if isinstance(item, syntax.Def) else {name: given[name] for name in IMPLICIT}
    path = f"{frame.path}/{frame.equation}/{instance or item.name}.{count}"
    return frame.of_call(item, module, f"{instance}." if instance else "", names, path)


# ------------------------------------------------------------------------------------------------------ arguments


def _bind_rule(frame: Frame, call: syntax.Call, rule: syntax.Rule) -> Arguments | None:
    """`w`, `g`, `t` and hypers by name; what is not given is the caller's, or stays tunable."""
    hypers = {s.name: s for s in rule.body if isinstance(s, syntax.Hyper)}
    given: Arguments = {name: frame.surrounding(name) for name in IMPLICIT}
    good = True
    for arg in call.args:
        value = None if arg.value is None else frame.lower(arg.value)
        if not _is_named(frame, call, arg) or not _is_known(frame, call, arg, [*given, *hypers]):
            good = False
        elif arg.name in hypers:
            given[arg.name] = value if _fits(frame, arg, value, hypers[arg.name]) else None
        else:
            given[arg.name] = value
    return given if good and not _twice(frame, call) else None


def _is_named(frame: Frame, call: syntax.Call, arg: syntax.Arg) -> bool:
    if arg.per:
        frame.report("T05", f"`per {arg.per}` in a call of a rule", arg.span, "", "`per` belongs in a reduction or a draw")
    elif not arg.name:
        frame.report("N10", f"the arguments of the rule `{call.func}` need names", arg.span, "",
                     f"as in `{call.func}(g = …, lr = …)`")  # fmt: skip
    return bool(arg.name) and not arg.per


def _is_known(frame: Frame, call: syntax.Call, arg: syntax.Arg, known: list[str]) -> bool:
    if arg.name in known:
        return True
    near = did_you_mean(arg.name, known)
    frame.report("N11", f"`{call.func}` has no `{arg.name}`", arg.span, "",
                 f"did you mean `{near}`?" if near else f"it takes {', '.join(known)}")  # fmt: skip
    return False


def _fits(frame: Frame, arg: syntax.Arg, value: Value, hyper: syntax.Hyper) -> bool:
    """Whether a given value is of the hyper's kind and, where it is a number, inside its range."""
    if value is None:
        return False
    if (value.type.kind == "bool") != (hyper.kind == "bool") or (hyper.kind == "int" and value.type.kind != "int"):
        frame.report("T01", f"`{hyper.name}` is of kind {hyper.kind}, this is {value.type.said}", arg.span)
        return False
    declared = None if value.op != "const" else declared_hyper(frame.alone(), hyper)
    if declared is not None and declared.bounds is not None and not declared.bounds.allows(hyper.name, value.value):
        frame.report("R02", f"`{hyper.name} = {value.value:g}` lies outside its range", arg.span, f"not in {declared.bounds}",
                     "change the value")  # fmt: skip
        return False
    return True


def _bind_function(frame: Frame, call: syntax.Call, function: syntax.Def) -> Arguments | None:
    """Arguments by place, then by name. Defaults are left for the function's own frame."""
    parameters = [p.name for p in function.parameters]
    given: Arguments = {}
    place = 0
    for arg in call.args:
        value = None if arg.value is None else frame.lower(arg.value)
        if arg.per:
            frame.report("T05", f"`per {arg.per}` in a call of `{call.func}`, which is not a reduction", arg.span)
            return None
        name = arg.name
        if not name:
            if place >= len(parameters):
                _miscounted(frame, call, function)
                return None
            name, place = parameters[place], place + 1
        if not _is_known(frame, call, arg if arg.name else syntax.Arg(arg.span, arg.value, name), parameters):
            return None
        if name in given:
            frame.report("N11", f"`{name}` is given twice", arg.span, "", "leave one of them out")
            return None
        given[name] = value
    return _with_all(frame, call, function, given)


def _with_all(frame: Frame, call: syntax.Call, function: syntax.Def, given: Arguments) -> Arguments | None:
    missing = [p.name for p in function.parameters if p.default is None and p.name not in given]
    if missing:
        _miscounted(frame, call, function, missing)
    return None if missing else given


def _miscounted(frame: Frame, call: syntax.Call, function: syntax.Def, missing: list[str] | None = None) -> None:
    shown = ", ".join(p.name if p.default is None else f"{p.name} = …" for p in function.parameters)
    what = f"does not get {' and '.join(f'`{name}`' for name in missing)}" if missing else "gets too many arguments"
    frame.report("N10", f"`{function.name}` {what}", call.span, "", f"it is defined as `{function.name}({shown})`")


def _twice(frame: Frame, call: syntax.Call) -> bool:
    seen: Mapping[str, Span] = {}
    for arg in call.args:
        if arg.name in seen:
            frame.report("N11", f"`{arg.name}` is given twice", arg.span, "", "leave one of them out")
            return True
        seen = {**seen, arg.name: arg.span}
    return False


