"""Syntax tree to programs: names are resolved, calls inlined, extents inferred, cycles found.

`lower` gives one rule or route of a file as a `Program` or `Routing`; `check` gives every finding about a file. Both work
on a `frames.Frame` per body, and gather in a `context.Context` per rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from optlang import ir
from optlang.errors import MOST_FINDINGS, Diagnostic, OptError, Span, did_you_mean
from optlang.front import syntax
from optlang.lower import bodies, modules, routes
from optlang.lower.context import IMPLICIT, Context, Spent, TooLarge
from optlang.lower.declarations import Setting
from optlang.lower.frames import Frame
from optlang.lower.modules import Module
from optlang.lower.single_values import without_lone_reductions
from optlang.resources import deep_recursion
from optlang.types import ELEMENT, Type

__all__ = ["Lowered", "check", "choose", "lower"]

Baked = Mapping[str, Setting]
Lowered = dict[str, ir.Program | ir.Routing]


def lower(file: syntax.File, name: str = "", baked: Baked | None = None) -> ir.Program | ir.Routing:
    """The rule or route `name` of a parsed file; the only one where no name is given.

    `baked` are values for `int` and `bool` hypers that shape the program, in a route by `Rule.hyper`. Raises OptError with
    every finding about the rule.
    """
    with deep_recursion():
        module = modules.read(file)
        item = choose(file, name)
        result, found = _lower_item(module, item, baked or {})
    found = [*module.diagnostics, *found]
    if result is None or found:
        raise OptError(_in_order(file, found))
    return result


def choose(file: syntax.File, name: str = "") -> syntax.Rule | syntax.Route:
    """The rule or route of that name, in any case; without a name the only one. Raises OptError."""
    items = [item for item in file.items if isinstance(item, (syntax.Rule, syntax.Route))]
    exact = [item for item in items if item.name == name] or [item for item in items if item.name.lower() == name.lower()]
    if not items:
        raise OptError([_no_rule(file)])
    if name and exact:
        return exact[0]
    if not name and len(items) == 1:
        return items[0]
    names = [item.name for item in items]
    near = did_you_mean(name, names) if name else ""
    message = f"there is no rule `{name[:80]}` in this file" if name else f"this file has {len(items)} rules"
    advice = f"did you mean `{near}`?" if near else f"choose one by name: {', '.join(names)}"
    raise OptError([Diagnostic("R09", message, items[0].name_span, help=advice, source=file.source)])


def check(file: syntax.File, pedantic: bool = False, lowered: Lowered | None = None) -> list[Diagnostic]:
    """Every finding about the rules, functions and routes of a file, in the order of their places. Rules and routes without any
    go into `lowered`."""
    with deep_recursion():
        module = modules.read(file)
        found = list(module.diagnostics)
        if len(found) >= MOST_FINDINGS:
            return found
        if not file.items:
            found.append(_no_rule(file))
        spent = Spent()
        for item in module.own.values():
            if spent.findings >= MOST_FINDINGS or any(d.code == "L01" for d in found):
                break
            if isinstance(item, syntax.Def):
                found.extend(_check_function(module, item, spent))
                continue
            program, about = _lower_item(module, item, {}, spent)
            found.extend(about)
            if lowered is not None and program is not None and not about:
                lowered[item.name] = program
            wrong = any(d.severity == "error" for d in found)  # then the program may lack what could not be read
            if pedantic and isinstance(program, ir.Program) and not (wrong or program.unreadable):
                found.extend(_lints(program, file))
    return _in_order(file, found)


def _no_rule(file: syntax.File) -> Diagnostic:
    empty = "there are only comments: there is no rule in it" if file.comments else "the file is empty: there is no rule in it"
    what = "there is no rule here" if file.items else empty
    return Diagnostic("R11", what, Span(0, 0), help="write `rule Name { … }`", source=file.source)


def _lints(program: ir.Program, file: syntax.File) -> list[Diagnostic]:
    from optlang.lints import lints  # noqa: PLC0415 - only `check --pedantic` pays for it

    return lints(program, file.source)


def _in_order(file: syntax.File, found: Iterable[Diagnostic]) -> list[Diagnostic]:
    unique = {(d.code, d.span, d.source.name): d for d in reversed(list(found))}
    return sorted(unique.values(), key=lambda d: (d.source is not file.source, d.span, d.code))


# ---------------------------------------------------------------------------------------------------------- items


def _lower_item(
    module: Module, item: syntax.Rule | syntax.Route, baked: Baked, spent: Spent | None = None
) -> tuple[ir.Program | ir.Routing | None, list[Diagnostic]]:
    context = Context(baked, module.file.source, spent=spent or Spent())
    try:
        if isinstance(item, syntax.Route):
            frame = Frame(context, module, "")
            result = routes.routing(frame, item, baked, lambda m, rule, given: _case_program(context, m, rule, given))
            return result, context.diagnostics
        return _program(context, module, item), context.diagnostics
    except TooLarge:
        return None, context.diagnostics


def _case_program(outer: Context, module: Module, rule: syntax.Rule, baked: Baked) -> ir.Program | None:
    """A rule of a route, with its findings passed on."""
    context = Context(baked, module.file.source, outer.diagnostics, spent=outer.spent, calling=outer.calling)
    return _program(context, module, rule)


def _program(context: Context, module: Module, rule: syntax.Rule) -> ir.Program | None:
    before = len(context.diagnostics)
    frame = Frame(context, module, "", given={**IMPLICIT}, chain=(id(rule),))
    weights = bodies.rule(frame, rule, {})
    evaluation = None if weights is None else bodies.evaluation(frame, weights)
    if weights is None or len(context.diagnostics) > before:
        return None
    program = ir.Program(
        name=rule.name,
        doc=rule.doc,
        hypers=tuple(h._replace(baked=h.name in context.shaping) for h in context.hypers.values()),
        states=tuple(context.states.values()),
        inputs=tuple(context.inputs.values()),
        updates={name: context.updates[name] for name in context.states},
        weights=weights,
        evaluation=evaluation,
        reports=dict(context.reports),
        inner=tuple((name, node) for node, (_, name) in context.inner.items()),
        spans=dict(context.spans),
    )
    return without_lone_reductions(replace(program, names=_computable(context, program)))


def _computable(context: Context, program: ir.Program) -> tuple[tuple[str, ir.Node], ...]:
    """The named equations in an order in which each may be computed."""
    place = {node: number for number, node in enumerate(ir.walk([*program.roots(), *context.names.values()]))}
    return tuple(sorted(context.names.items(), key=lambda item: place[item[1]]))


def _check_function(module: Module, function: syntax.Def, spent: Spent) -> list[Diagnostic]:
    """The names in a function nobody may call yet. What its arguments are is not known, so types are left alone."""
    context = Context({}, module.file.source, spent=spent)
    unknown = {p.name: ir.input_(p.name, Type("real", ELEMENT)) for p in function.parameters if p.default is None}
    frame = Frame(context, module, "", given={**IMPLICIT, **unknown}, chain=(id(function),), is_def=True)
    try:
        bodies.function(frame, function)
    except TooLarge:
        return context.diagnostics
    return [d for d in context.diagnostics if d.code.startswith("N") or d.code in ("R07", "R08")]
