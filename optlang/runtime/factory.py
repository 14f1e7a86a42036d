"""Programs to classes: name, documentation and signature are those of the rule."""

from __future__ import annotations

import copyreg
import inspect
from keyword import iskeyword
from typing import Any, cast

from optlang import ir
from optlang.ops import ASKING, CALLS
from optlang.runtime.cases import Case, CompileOptions, Relower, cases_of
from optlang.runtime.groups.options import ABOUT, OPTIONS
from optlang.runtime.optimizer import RuleOptimizer


def make_optimizer(what: ir.Program | ir.Routing, relower: Relower, options: CompileOptions) -> type[RuleOptimizer]:
    """A subclass of `torch.optim.Optimizer` named like the rule, with its hypers as keyword arguments.

    `relower(baked)` gives the program for other values of the hypers that shape it. Raises ValueError for an unknown word in `options`,
    and for a program that its backend cannot run.
    """
    for program in [case.program for case in what.cases] if isinstance(what, ir.Routing) else [what]:
        if taken := [hyper.name for hyper in program.hypers if hyper.name in OPTIONS]:
            raise ValueError(f"{program.name}: a hyper cannot be called `{taken[0]}`, which is an option of every optimizer; rename it")
    cases = cases_of(what, relower, options)
    evaluates = any(case.program.evaluation is not None for case in cases)
    base = _evaluating() if evaluates else RuleOptimizer
    signature = _signature(what, cases)
    members: dict[str, Any] = {
        "__init__": _constructor(base, signature, cases),
        "__doc__": _documentation(what, cases),
        "__module__": "optlang",
        "__signature__": signature,
        "cases": cases,
        "rule": what,
        "asks_again": any(case.program.uses(op) for case in cases for op in ASKING),
        "calls_model": any(case.asks & CALLS.keys() for case in cases),
        "reads_inputs": frozenset(i.name for case in cases for i in case.program.inputs),
    }
    return cast(type[RuleOptimizer], RuleClass(what.name, (base,), members))


def _evaluating() -> type[RuleOptimizer]:
    from optlang.runtime.evaluating import Evaluating  # noqa: PLC0415 - few rules have other weights to evaluate with

    return Evaluating


class RuleClass(type):
    """The metaclass of all classes made from rules: pickle, told by it, writes how the rule was loaded."""


def _reduce(cls: type) -> Any:
    origin = getattr(cls, "_origin", None)
    return cls.__qualname__ if origin is None else origin


copyreg.pickle(RuleClass, _reduce)


def _constructor(base: type[RuleOptimizer], signature: inspect.Signature, cases: list[Case]) -> Any:
    """`__init__` of a class. Tools that make optimizers from files, as LightningCLI, look there for settings, and give each of them."""

    def __init__(self: Any, /, *args: Any, **settings: Any) -> None:
        base.__init__(self, *args, **settings)

    twice = () if cases[0].label else cases[0].settings.naming.pair
    name = "self" if "self" not in signature.parameters else "_self"  # a setting may be called that
    first = inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
    others = [p for p in signature.parameters.values() if p.name not in twice]
    __init__.__signature__ = signature.replace(parameters=[first, *others])  # type: ignore[attr-defined]
    return __init__


def _signature(what: ir.Program | ir.Routing, cases: list[Case]) -> inspect.Signature:
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    if isinstance(what, ir.Routing):
        parameters += [inspect.Parameter(case.label, kind, default={}) for case in cases]
    else:
        naming, defaults = cases[0].settings.naming, cases[0].settings.defaults
        places = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters += [inspect.Parameter(name, places, default=defaults[name]) for name in naming.by_place]
        called = {short: defaults[name] for short, name in naming.short.items() if short.isidentifier() and not iskeyword(short)}
        called |= {"betas": tuple(defaults[name] for name in naming.pair)} if naming.pair else {}
        tables = cases[0].settings.tables
        called |= {short: defaults[tables.numbers[name][0]] for short, name in tables.short.items()}
        parameters += [inspect.Parameter(name, kind, default=value) for name, value in called.items()]
    parameters += [inspect.Parameter(name, kind, default=value) for name, value in OPTIONS.items()]
    if any(case.program.uses("random") for case in cases):
        parameters.append(inspect.Parameter("seed", kind, default=0))
    return inspect.Signature(parameters)


def _tables(case: Case) -> list[str]:
    """A line for each table of a rule."""
    tables, lines = case.settings.tables, []
    for name, numbers in tables.numbers.items():
        first = case.settings.hypers[numbers[0]]
        sizes = " × ".join(map(str, tables.shape(name)))
        lines.append(f"{name} (table of {sizes} numbers; default {first.default:g}){f': {first.doc}' if first.doc else ''}")
    return lines


def _documentation(what: ir.Program | ir.Routing, cases: list[Case]) -> str:
    lines = [what.doc or what.name]
    for case in cases:
        if case.label:
            lines += ["", f"{case.label}:"]
        elif case.settings.hypers:
            lines.append("")
        lines += _tables(case)
        for hyper in [hyper for hyper in case.settings.hypers.values() if not hyper.table]:
            bounds = f", in {hyper.bounds}" if hyper.bounds is not None else ""
            about = f": {hyper.doc}" if hyper.doc else ""
            lines.append(f"{hyper.name} ({hyper.kind}{bounds}; default {case.settings.defaults[hyper.name]}){about}")
    lines += ["", *(f"{name} (default {value}): {ABOUT[name]}" for name, value in OPTIONS.items())]
    if any(case.program.uses("random") for case in cases):
        lines.append("seed (default 0): of the random draws")
    return "\n".join(lines)
