"""Searched programs: assignments in a row, a later one overwriting an earlier name, and what they mean as a rule.

    m = interp(g, m, 0.9)
    u = sign(m)

Names are the inputs `w g t lr`, facts of the parameter, the slots of the space (memory between steps: what they hold at the
end is kept) and temporaries. The update is what `u` holds at the end. Genomes are plain tuples, for a search handles
thousands a second; they become programs of the one IR by `to_program`, and text by `to_text`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from optlang import ir
from optlang.ir import Bounds, Hyper, Node, Program, State
from optlang.ops import FACTS
from optlang.search.programs.functions import FUNCTIONS
from optlang.types import ELEMENT, Type, TypeProblem

Argument = str | float  # a name, or a constant
WEIGHTS = Type("real", ELEMENT)
UPDATE = "u"
SLOTS = ("m", "v", "n", "o")  # of a form that is given as many as its programs need
LR = Hyper("lr", "real", 1e-3, Bounds(0.0, math.inf, low_open=True, high_open=True), "step size")


class GenomeError(ValueError):
    """A program that cannot be; the message names the statement and what is wrong with it."""


class Statement(NamedTuple):
    """`target = function(args)`. A frozen one is left alone by mutation."""

    function: str
    target: str
    args: tuple[Argument, ...]
    frozen: bool = False


Genome = tuple[Statement, ...]


@dataclass(frozen=True)
class Form:
    """What surrounds the statements. Slots hold 0 before the first step.

    `scaled`: the rule is w' = w - lr·u, so every program has a step size to tune. Otherwise, as in Lion's search, w' = w - u
    and `lr` is an input like others.
    """

    slots: tuple[str, ...] = ("m", "v")
    temporaries: tuple[str, ...] = ("a", "b", "c", "d", UPDATE)
    scaled: bool = True

    def inputs(self) -> dict[str, Node]:
        """Every name that has a value before the first statement."""
        values = {"w": ir.W, "g": ir.G, "t": ir.T, **({} if self.scaled else {"lr": ir.hyper("lr")})}
        values |= {name: ir.fact(name) for name in FACTS}
        return values | {slot: ir.state(slot, WEIGHTS) for slot in self.slots}


def constant(value: float) -> Node:
    """A number of a genome, which prints whole where it is whole."""
    return ir.const(int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value))


# ------------------------------------------------------------------------------------------------- what is needed


def live(genome: Genome, form: Form) -> Genome:
    """The genome without statements that neither the update nor a slot that reaches the update depends on."""
    return _needed(genome, form)[0]


def slots_used(genome: Genome, form: Form) -> tuple[str, ...]:
    """The slots that the update depends on, now or in a later step."""
    needed = _needed(genome, form)[1]
    return tuple(slot for slot in form.slots if slot in needed)


def _needed(genome: Genome, form: Form) -> tuple[Genome, set[str]]:
    slots: set[str] = set()
    while True:
        kept, wanted = backwards(genome, {UPDATE, *slots})
        more = wanted.intersection(form.slots) - slots
        if not more:
            return kept, slots
        slots |= more


def backwards(genome: Genome, needed: Iterable[str]) -> tuple[Genome, set[str]]:
    """The statements that names at the end depend on, and the names that these read from before the first."""
    wanted: set[Argument] = set(needed)
    kept = []
    for statement in reversed(genome):
        if statement[1] in wanted:
            wanted.discard(statement[1])
            wanted.update(statement[2])
            kept.append(statement)
    kept.reverse()
    return tuple(kept), {name for name in wanted if type(name) is str}


# ---------------------------------------------------------------------------------------------------------- meaning


def run(genome: Genome, form: Form) -> dict[str, Node]:
    """The expressions that all names hold at the end. Raises GenomeError where a statement does not fit."""
    values = form.inputs()
    for number, statement in enumerate(genome, 1):
        try:
            args = [values[arg] if isinstance(arg, str) else constant(arg) for arg in statement.args]
            values[statement.target] = FUNCTIONS[statement.function].build(*args)
        except KeyError as missing:
            where = "here" if statement.function in FUNCTIONS else "among the functions of a search"
            raise GenomeError(f"statement {number}, `{line(statement)}`: there is no {missing.args[0]!r} {where}") from None
        except (TypeProblem, TypeError) as problem:
            raise GenomeError(f"statement {number}, `{line(statement)}`: {problem}") from None
    return values


def to_program(genome: Genome, form: Form, name: str = "Found", doc: str = "", lr: float = LR.default) -> Program:
    """The rule that a genome is; slots that never reach the update are left out. Raises GenomeError."""
    ends = run(genome, form)
    if UPDATE not in ends:
        raise GenomeError(f"nothing is assigned to `{UPDATE}`, the update")
    kept = slots_used(genome, form)
    update = ir.mul(ir.hyper("lr"), ends[UPDATE]) if form.scaled else ends[UPDATE]
    states = tuple(State(slot, WEIGHTS, ir.const(0)) for slot in kept)
    hyper = Hyper(LR.name, LR.kind, lr, LR.bounds, LR.doc)
    return Program(name, doc, (hyper,), states, (), {slot: ends[slot] for slot in kept}, ir.sub(ir.W, update))


# ------------------------------------------------------------------------------------------------------------ text

_LINE = re.compile(r"\s*(\w+)\s*=\s*(\w+)\s*\(([^()]*)\)\s*(!?)\s*")


def line(statement: Statement) -> str:
    """One statement as text; `!` at its end says that it is frozen."""
    args = ", ".join(arg if isinstance(arg, str) else repr(arg) for arg in statement.args)
    return f"{statement.target} = {statement.function}({args})" + (" !" if statement.frozen else "")


def to_text(genome: Genome) -> str:
    """One statement on each line."""
    return "\n".join(map(line, genome))


def from_text(text: str) -> Genome:
    """The genome of a text made by `to_text`. Raises GenomeError that names the line."""
    lines = enumerate(text.splitlines(), 1)
    return tuple(_statement(number, text.split("#")[0]) for number, text in lines if text.split("#")[0].strip())


def _statement(number: int, text: str) -> Statement:
    found = _LINE.fullmatch(text)
    if found is None:
        raise GenomeError(f"line {number}, `{text.strip()}`: write `name = function(arguments)`")
    target, function, args, mark = found.groups()
    if function not in FUNCTIONS:
        raise GenomeError(f"line {number}: there is no function `{function}`")
    given = tuple(_argument(number, arg.strip()) for arg in args.split(",")) if args.strip() else ()
    if len(given) != FUNCTIONS[function].operands:
        raise GenomeError(f"line {number}: `{function}` takes {FUNCTIONS[function].operands} arguments, not {len(given)}")
    return Statement(function, target, given, bool(mark))


def _argument(number: int, text: str) -> Argument:
    if re.fullmatch(r"[^\W\d]\w*", text) and text not in ("inf", "nan", "infinity"):
        return text
    try:
        return float(text)
    except ValueError:
        raise GenomeError(f"line {number}: `{text}` is neither a name nor a number") from None
