"""Limits and constraints of a search space: what a program may have, and how far it may look.

A check takes a genome and its form and says why not, as the end of "it …", or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import NamedTuple

from optlang import ir
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import UPDATE, Form, Genome, line, live, slots_used
from optlang.search.programs.template import names_read
from optlang.types import ELEMENT, Extent, Type, TypeProblem

BEHAVIOURAL = ("loss scale",)  # constraints that only a run can tell; the screening looks at them


@dataclass(frozen=True)
class Limits:
    """Most statements, most slots that reach the update, longest chain of calls, most uses of a function. None: no limit."""

    statements: int = 30
    slots: int | None = None
    depth: int | None = None
    functions: Mapping[str, int] = field(default_factory=dict)


Check = Callable[[Genome, Form], str]  # why not, or an empty string


def limit_checks(limits: Limits) -> list[Check]:
    checks = [_at_most(name, most) for name, most in limits.functions.items()]
    if limits.slots is not None:
        checks.append(_few_slots(limits.slots))
    if limits.depth is not None:
        checks.append(_shallow(limits.depth))
    return checks


def _at_most(name: str, most: int) -> Check:
    def check(genome: Genome, form: Form) -> str:
        count = sum(statement[0] == name for statement in genome)
        return f"calls `{name}` {count} times; at most {most} are allowed" if count > most else ""

    return check


def _few_slots(most: int) -> Check:
    def check(genome: Genome, form: Form) -> str:
        used = slots_used(genome, form)
        return f"uses the slots {', '.join(used)}; at most {most} are allowed" if len(used) > most else ""

    return check


def _shallow(most: int) -> Check:
    def check(genome: Genome, form: Form) -> str:
        depth = depth_of(genome)
        return f"is {depth} calls deep; at most {most} are allowed" if depth > most else ""

    return check


def depth_of(genome: Genome) -> int:
    """The longest chain of calls that ends in the update or a slot, within one step."""
    depths: dict[str, int] = {}
    for _, target, args, _ in genome:
        depths[target] = 1 + max((depths.get(arg, 0) for arg in args if isinstance(arg, str)), default=0)
    return max(depths.values(), default=0)


class Reach(NamedTuple):
    """How far a function looks beyond an element."""

    elementwise: bool
    over_model: bool


@cache
def reach(function: str) -> Reach:
    """Found from what the function builds."""
    row = FUNCTIONS[function]
    kinds = (Type("real", ELEMENT), Type("bool", ELEMENT), Type("real", Extent("array", "rows", "cols", "flat")))
    for types in product(kinds, repeat=row.operands):
        try:
            nodes = ir.walk([row.build(*(ir.input_(f"operand {n}", type_) for n, type_ in enumerate(types)))])
        except TypeProblem:
            continue
        reductions = [node for node in nodes if isinstance(node.value, Extent) and node.args]
        matrices = any(node.op in ("matmul", "transpose", "as_matrix", "as_param") for node in nodes)
        return Reach(not reductions and not matrices, any(node.value.level in ("model", "group") for node in reductions))
    return Reach(False, False)


def structural(text: str) -> Check:
    word, _, name = text.partition(" ")
    if text == "elementwise":
        return _without(lambda function: not reach(function).elementwise, "which looks beyond the element")
    if text == "no model values":
        return _without(lambda function: reach(function).over_model, "which looks at the whole model")
    return {"once": lambda name: _at_most(name, 1), "reads": _reads, "never": _never}[word](name)


def _without(banned: Callable[[str], bool], why: str) -> Check:
    def check(genome: Genome, form: Form) -> str:
        return next((f"calls `{statement[0]}`, {why}" for statement in genome if banned(statement[0])), "")

    return check


def _reads(name: str) -> Check:
    return lambda genome, form: "" if name in names_read(live(genome, form)) else f"does not read `{name}`"


def _never(name: str) -> Check:
    return lambda genome, form: f"reads `{name}`" if name in names_read(live(genome, form)) else ""


def untyped(genome: Genome, form: Form) -> str:
    """Which statement does not fit, or what the program lacks at its end."""
    assigned = {statement.target for statement in genome}
    if UPDATE not in assigned:
        return f"never assigns `{UPDATE}`, the update"
    known = set(form.inputs())
    for number, statement in enumerate(genome, 1):
        missing = [arg for arg in statement.args if isinstance(arg, str) and arg not in known]
        if missing:
            return f"reads `{missing[0]}` in statement {number}, `{line(statement)}`, where it has no value"
        known.add(statement.target)
    fitting = "every call takes values that broadcast, and what ends as update or slot is a number for each element"
    return f"has operands that do not fit: {fitting}"
