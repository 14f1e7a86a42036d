"""`optlang show`: the forms in which it prints a rule, and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from optlang import lower
from optlang.commands.files import read, refused
from optlang.errors import OptError, Source
from optlang.front import parser as front
from optlang.front.format import canonical
from optlang.ir import Program, Routing
from optlang.rules import Rule

if TYPE_CHECKING:
    from optlang.backends.base import Math

ABOUT = """\
Prints a rule in another form.

optlang show lion --as latex

text      the file in canonical style        latex     the equations, for a paper
markdown  a card with equations and hypers   ir        the graph that is compiled, node by node
plan      stages, bytes, operations, scaling graph     Graphviz: optlang show lion --as graph | dot -Tsvg
cost      memory that a step keeps and moves, for each format of state, with passes, launches and operations"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang show`."""
    parser.add_argument("file", metavar="FILE", help="a file, a library name, or - for standard input")
    parser.add_argument("--as", dest="form", default="text", choices=["text", *FORMS], help="default: text")
    parser.add_argument("--rule", help="which rule, where the file has several")
    parser.add_argument("--math", default="safe", choices=["safe", "strict", "fast"], help="for --as plan and cost; default: safe")


def run(arguments: argparse.Namespace) -> int:
    """Prints the form; 1 where the rule cannot be had in it."""
    source = read(arguments.file)
    if arguments.form == "text":
        text = canonical(source if arguments.rule is None else _alone(source, arguments.rule))
    else:
        try:
            rule = Rule.from_source(source, arguments.rule)
            _check_readable(rule)
            text = FORMS[arguments.form](rule, arguments.math)
        except ValueError as refusal:
            return refused(refusal)
    print(text.rstrip("\n"))
    return 0


def _alone(source: Source, rule: str) -> Source:
    """The text of one rule of a file. Raises OptError where there is none of that name."""
    file, found = front.parse(source)
    if found:
        raise OptError(found)
    item = lower.choose(file, rule)
    return Source(source.text[item.span.start : item.span.end], source.name)


def _ir(rule: Rule, _math: Math) -> str:
    from optlang.printing.render import listing  # noqa: PLC0415

    return listing(rule.program)


def _graph(rule: Rule, _math: Math) -> str:
    from optlang.printing.render import graph  # noqa: PLC0415

    return graph(rule.program)


def _plan(rule: Rule, math: Math) -> str:
    """What a step does: stages, operations and bytes, and how it scales; of a route, for each of its rules."""
    if isinstance(rule.program, Routing):
        return "\n\n".join(f"# {program.name}\n{_planned(program, math)}" for program in _programs(rule))
    return _planned(rule.program, math)


def _cost(rule: Rule, math: Math) -> str:
    """Memory kept and moved by a step, for each format of state; of a route, for each of its rules."""
    from optlang.bench.footprint_table import table  # noqa: PLC0415
    from optlang.plan import plan  # noqa: PLC0415
    from optlang.simplify import report, simplify  # noqa: PLC0415

    pairs = [(program, simplify(program, math)) for program in _programs(rule)]
    return "\n\n".join(f"{report(program, simple, math).to_text()}\n\n{table(plan(simple))}" for program, simple in pairs)


def _programs(rule: Rule) -> list[Program]:
    """The program of a rule, or those of a route."""
    return [case.program for case in rule.program.cases] if isinstance(rule.program, Routing) else [rule.program]


def _check_readable(rule: Rule) -> None:
    """Raises ValueError for a program that is too large to be read."""
    for program in _programs(rule):
        if program.unreadable:
            raise ValueError(f"{program.name}: {program.unreadable}; `--as text` prints the file, `optlang.load` trains with it")


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
