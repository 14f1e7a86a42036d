"""The forms in which `show` prints a rule, its text apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from optlang.ir import Program, Routing

if TYPE_CHECKING:
    from optlang.backends.base import Math
    from optlang.rules import Rule


def _ir(rule: Rule, _math: Math) -> str:
    from optlang.printing.render import listing  # noqa: PLC0415

    return listing(rule.program)


def _graph(rule: Rule, _math: Math) -> str:
    from optlang.printing.render import graph  # noqa: PLC0415

    return graph(rule.program)


def _plan(rule: Rule, math: Math) -> str:
    """What a step does: stages, operations and bytes, and how it scales; of a route, for each of its rules."""
    if isinstance(rule.program, Routing):
        return "\n\n".join(f"# {program.name}\n{_planned(program, math)}" for program in _readable(rule))
    [program] = _readable(rule)
    return _planned(program, math)


def _cost(rule: Rule, math: Math) -> str:
    """Memory kept and moved by a step, for each format of state; of a route, for each of its rules."""
    from optlang.analysis.footprint import table  # noqa: PLC0415
    from optlang.plan import plan  # noqa: PLC0415
    from optlang.simplify import report, simplify  # noqa: PLC0415

    pairs = [(program, simplify(program, math)) for program in _readable(rule)]
    return "\n\n".join(f"{report(program, simple, math).to_text()}\n\n{table(plan(simple))}" for program, simple in pairs)


def _readable(rule: Rule) -> list[Program]:
    """The program of a rule, or those of a route. Raises ValueError for one that is too large to be read."""
    programs = [case.program for case in rule.program.cases] if isinstance(rule.program, Routing) else [rule.program]
    for program in programs:
        if program.unreadable:
            raise ValueError(f"{program.name}: {program.unreadable}; `--as ir` prints it")
    return programs


def _planned(program: Program, math: Math) -> str:
    from optlang.analysis.costs import describe  # noqa: PLC0415
    from optlang.analysis.degrees import TooManyTerms, degrees  # noqa: PLC0415
    from optlang.plan import plan  # noqa: PLC0415
    from optlang.simplify import report, simplify  # noqa: PLC0415

    try:
        scaling = degrees(program).to_text()
    except TooManyTerms:
        scaling = f"scaling of {program.name}: too many settings and states to say"
    simple = simplify(program, math)
    return "\n\n".join([describe(plan(simple)), report(program, simple, math).to_text(), scaling])


FORMS: dict[str, Callable[[Rule, Math], str]] = {
    "latex": lambda rule, _math: rule.latex(),
    "markdown": lambda rule, _math: rule.markdown(),
    "ir": _ir,
    "plan": _plan,
    "cost": _cost,
    "graph": _graph,
}
