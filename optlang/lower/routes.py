"""Routes: which parameter goes to which rule, decided by static facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from optlang import ir, ops
from optlang.errors import did_you_mean
from optlang.front import syntax
from optlang.front.walk import every_part
from optlang.lower.calls import unknown
from optlang.lower.declarations import Setting, declared_hyper, setting
from optlang.lower.expressions import COMPARISONS, OPERATORS
from optlang.lower.inline import may_go_in
from optlang.lower.modules import advice_about

if TYPE_CHECKING:
    from optlang.lower.frames import Frame
    from optlang.lower.modules import Module

Settings = dict[str, Setting]
Lowered = Callable[["Module", syntax.Rule, Mapping[str, Setting]], ir.Program | None]
DTYPES = ("float64", "float32", "bfloat16", "float16", "complex64", "complex128")
TRUTHS = frozenset(["eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not", "named"])
ARITHMETIC = frozenset(["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
MOST_BRANCHES, MOST_PARTS, LONGEST_PATTERN = 100, 400, 100
MOST_POWER = 8  # sizes are whole numbers of any length here, and nobody waits for the digits of a power


def routing(frame: Frame, route: syntax.Route, baked: Mapping[str, Setting], program: Lowered) -> ir.Routing | None:
    """The cases of a route; None where an error has been reported. `baked` has keys `Rule.hyper`."""
    if len(route.branches) > MOST_BRANCHES:
        frame.report("L01", f"the route `{route.name}` has more than {MOST_BRANCHES} branches", route.branches[MOST_BRANCHES].span,
                     "stopped here", "join branches that use the same rule with `or`")  # fmt: skip
        return None
    cases = [_case(frame, branch, baked, program) for branch in route.branches]
    _check_order(frame, route)
    if not route.branches or any(case is None for case in cases):
        return None
    return ir.Routing(route.name, route.doc, tuple(case for case in cases if case is not None))


def _check_order(frame: Frame, route: syntax.Route) -> None:
    if not route.branches:
        frame.report("R06", f"the route `{route.name}` has no branches", route.name_span, "", "write `otherwise use RULE()`")
    for branch in route.branches[:-1]:
        if branch.condition is None:
            frame.report("R06", "nothing after `otherwise` is ever used", branch.span, "takes every parameter",
                         "make it the last branch")  # fmt: skip


def _case(frame: Frame, branch: syntax.Branch, baked: Mapping[str, Setting], program: Lowered) -> ir.Case | None:
    if branch.condition is not None and len(every_part([branch.condition])) > MOST_PARTS:
        frame.report("L01", f"the condition has more than {MOST_PARTS} names, numbers and signs", branch.condition.span, "",
                     "compare with ranges, or split it over several branches")  # fmt: skip
        return None
    condition = None if branch.condition is None else _truth(frame, branch.condition)
    if not isinstance(branch.call, syntax.Call):  # it could not be read
        return None
    found = frame.module.find(branch.call.func)
    if found is not None and isinstance(found[0], syntax.Route):
        frame.report("N09", f"`{branch.call.func}` is a route, which sends parameters to rules", branch.call.func_span,
                     "cannot be used in another route", "write its branches here")  # fmt: skip
        return None
    if found is None or not isinstance(found[0], syntax.Rule):
        frame.report("N09", f"unknown rule `{branch.call.func}`", branch.call.func_span, "not a rule that is defined or imported here",
                     advice_about(branch.call.func, frame.module))  # fmt: skip
        return None
    settings = _settings(frame, branch.call, found[0])
    if settings is None or (branch.condition is not None and condition is None):
        return None
    own = {name.removeprefix(f"{found[0].name}."): value for name, value in baked.items() if name.startswith(f"{found[0].name}.")}
    with frame.context.inside(found[0].name, frame.source, branch.call.func_span):
        lowered = program(found[1], found[0], {**settings, **own})
    return None if lowered is None else ir.Case(condition, lowered, settings)


def _settings(frame: Frame, call: syntax.Call, rule: syntax.Rule) -> Settings | None:
    hypers = {s.name: s for s in rule.body if isinstance(s, syntax.Hyper)}
    settings: Settings = {}
    for arg in call.args:
        if arg.name not in hypers or arg.value is None:
            _report_setting(frame, arg, rule.name, hypers)
            return None
        hyper = declared_hyper(frame, hypers[arg.name])
        value = setting(frame, arg.value, hypers[arg.name].kind, f"`{arg.name}`")
        if value is None or hyper is None:
            return None
        if hyper.bounds is not None and not hyper.bounds.allows(hyper.name, value):
            frame.report("R02", f"`{arg.name} = {value:g}` lies outside its range", arg.span, f"not in {hyper.bounds}")
            return None
        settings[arg.name] = value
    return settings


def _report_setting(frame: Frame, arg: syntax.Arg, rule: str, hypers: Mapping[str, syntax.Hyper]) -> None:
    known = f"it has {', '.join(hypers)}" if hypers else "it has none; leave the brackets empty"
    if not arg.name:
        frame.report("N11", f"a setting of `{rule}` has no name", arg.span, "", f"write `name = value`; {known}")
        return
    near = did_you_mean(arg.name, hypers)
    frame.report("N11", f"`{rule}` has no hyper `{arg.name}`", arg.span, "", f"did you mean `{near}`?" if near else known)


# ----------------------------------------------------------------------------------------------------- conditions


def _truth(frame: Frame, expr: syntax.Expr) -> ir.Predicate | None:
    """A static condition that holds or does not; None where an error has been reported."""
    found = predicate(frame, expr)
    if found is None or _is_truth(found):
        return found
    frame.report("T01", "the condition of a branch is no truth value", expr.span, "", "compare it, as in `rank >= 2`")
    return None


def _is_truth(p: ir.Predicate) -> bool:
    return isinstance(p.value, bool) or p.op in TRUTHS


def predicate(frame: Frame, expr: syntax.Expr) -> ir.Predicate | None:
    """A static condition; None where an error has been reported."""
    match expr:
        case syntax.Binary(op=op, left=left, right=right):
            return _both(frame, expr, OPERATORS[op], left, right)
        case syntax.Unary(op=op, value=value):
            inner = predicate(frame, value) if op == "-" else _truth(frame, value)
            return None if inner is None else ir.Predicate("neg" if op == "-" else "not", (inner,))
        case syntax.Number(text=text):
            return ir.Predicate("const", value=int(text) if text.isdigit() else float(text))
        case syntax.Text(value=value):
            return ir.Predicate("const", value=value)
        case syntax.Name(id=name, primed=False) if name in ops.FACTS:
            return ir.Predicate("fact", value=name)
        case syntax.Name(id="dtype", primed=False):
            return ir.Predicate("dtype")
        case syntax.Name(id=name, primed=False) if name in ("true", "false"):
            return ir.Predicate("const", value=name == "true")
        case syntax.Call(func="named"):
            return _named(frame, expr)
        case syntax.Call(func=func) if (found := frame.module.find(func)) is not None and isinstance(found[0], syntax.Def):
            return _defined(frame, expr, found[0], found[1])
        case syntax.Call(func=func) if func not in ops.BUILTINS and frame.module.find(func) is None:
            unknown(frame, expr)
            return None
        case syntax.Call(func="min" | "max" as func, args=(syntax.Arg(value=left), syntax.Arg(value=right))) if left and right:
            return _both(frame, expr, "minimum" if func == "min" else "maximum", left, right)
    frame.report("R06", "a route decides by static facts alone", expr.span, "not known when the parameter is given",
                 f"use {', '.join(ops.FACTS)}, `dtype` and `named(\"pattern\")`")  # fmt: skip
    return None


def _both(frame: Frame, expr: syntax.Expr, op: str, left: syntax.Expr, right: syntax.Expr) -> ir.Predicate | None:
    if all(isinstance(side, syntax.Binary) and side.op in COMPARISONS for side in (expr, left)):
        frame.report("R08", "comparisons cannot be chained", expr.span, "", "write `a < b and b < c`")
        return None
    if op not in TRUTHS and op not in ARITHMETIC:
        frame.report("R06", "matrices are not multiplied in a route", expr.span, "its facts are single numbers", "write `*`")
        return None
    read = _truth if op in ("and", "or") else predicate
    sides = read(frame, left), read(frame, right)
    if sides[0] is None or sides[1] is None:
        return None
    both = (sides[0], sides[1])
    if read is predicate and any(map(_is_truth, both)):
        frame.report("T01", "a truth value stands where a number is needed", expr.span, "", "combine conditions with `and`, `or` and `not`")
        return None
    if op == "pow" and not (both[0].op in ("const", "fact") and both[1].op == "const" and both[1].value in range(MOST_POWER + 1)):
        frame.report("R06", f"a power in a route is of one fact, with a whole exponent of at most {MOST_POWER}", expr.span, "",
                     "multiply, as in `rows*rows`")  # fmt: skip
        return None
    texts = [s.value for s in both if s.op == "const" and isinstance(s.value, str)]
    has_dtype = any(s.op == "dtype" for s in both)
    if has_dtype != bool(texts) or (has_dtype and (op not in ("eq", "ne") or texts[0] not in DTYPES)):
        near = did_you_mean(texts[0], DTYPES) if texts else ""
        frame.report("R06", "`dtype` is compared with the name of a type", expr.span, "",
                     f"did you mean \"{near}\"?" if near else 'as in `dtype == "bfloat16"`')  # fmt: skip
        return None
    if op == "or" and all(side.op == "named" for side in both):  # one question, whoever wrote it down in two
        return ir.Predicate("named", value=(*both[0].value, *both[1].value))
    return ir.Predicate(op, both)


def _defined(frame: Frame, call: syntax.Call, function: syntax.Def, module: Module) -> ir.Predicate | None:
    """The condition that a function stands for, which routes may share."""
    if call.args or function.parameters or not function.short or not isinstance(function.body[0], syntax.Return):
        frame.report("R06", f"`{call.func}` is no condition on static facts", call.span, "is called in a route",
                     f"a function in a route takes nothing and is one condition, as in `def {call.func}() = rank >= 2`")  # fmt: skip
        return None
    if not may_go_in(frame, call, function, module):
        return None
    condition = function.body[0].value
    frame.context.made(frame.source, call.span, len(every_part([condition])))
    with frame.context.inside(call.func, frame.source, call.func_span):
        return predicate(replace(frame, module=module, chain=(*frame.chain, id(function))), condition)


def _named(frame: Frame, call: syntax.Call) -> ir.Predicate | None:
    patterns = [arg.value.value for arg in call.args if isinstance(arg.value, syntax.Text) and not arg.name]
    if not patterns or len(patterns) < len(call.args):
        frame.report("R06", "`named` takes patterns in quotes", call.span, "", 'as in `named("*embed*", "*head*")`')
        return None
    if any(len(pattern) > LONGEST_PATTERN for pattern in patterns):
        frame.report("L01", f"a pattern has more than {LONGEST_PATTERN} characters", call.span, "", "`*` stands for whatever is between")
        return None
    return ir.Predicate("named", value=tuple(patterns))
