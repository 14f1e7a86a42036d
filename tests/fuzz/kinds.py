"""What a campaign tries: programs in the cheap ways and in the dear ones, and hostile texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from optlang import ir, rules
from optlang.errors import OptError

from . import hostile, together, touched
from .agree import PLAIN, Agreement
from .campaign import Kind
from .chance import Dice
from .grow import Grown, grow
from .training import Way, asks

DTYPES = (torch.float64, torch.float64, torch.float32, torch.bfloat16)
TYPES = tuple(dict.fromkeys(DTYPES))
MATHS = ("strict", "safe", "safe", "fast")
SHAPES = (0, 0, 1, 1, 1, 2, 2, 3)
MORE = {"text": 3, "simplified": 8, "reference": 8}  # ways for one program of so many


@dataclass(frozen=True)
class Program:
    """A text and how it is run."""

    grown: Grown
    way: Way
    more: tuple[str, ...]

    def __str__(self) -> str:
        return str(self.way)


def program(dice: Dice) -> Program:
    """Half of them run in one group in float64 with all gradients, which is the search's way; more of those it takes."""
    grown = grow(dice)
    more = tuple(name for name, of in MORE.items() if dice.number(1, of) == 1)
    way = Way(halfway=dice.one([True, False]), steps=dice.one([2, 3, 4, 6]), math=dice.one(MATHS), shapes=dice.one(SHAPES))
    if dice.number(1, 6) > 3 + grown.alone:
        dtype = dice.one(DTYPES)
        way = replace(way, dtype=dtype, groups=dice.one([True, False]), missing=dice.one([True, False]), rates=dice.one([True, False]),
                      steps=2 if dtype == torch.bfloat16 else way.steps)  # fmt: skip
    return Program(grown, way, more)


def few_steps(dice: Dice) -> Program:
    """Two steps, or five with a halt among them or the last from kept tables; for what is slow or costly to set up."""
    made, steps = program(dice), dice.one([2, 5])
    return Program(made.grown, replace(made.way, halfway=made.way.halfway and steps > 2, steps=steps), ())


def _programs(name: str, ways: Sequence[str], made: Callable[[Dice], Program] = program, **more: Any) -> Kind:
    agreement = Agreement(ways)
    return Kind(
        name, agreement.counts, made, lambda one: agreement(one.grown, one.way, one.more), lambda one: one.grown.text,
        lambda one, text: replace(one, grown=replace(one.grown, text=text)), **more,
    )  # fmt: skip


def _cpp() -> Kind:
    kind = _programs("cpp", ["cpp"], few_steps, bout=40)

    def before(some: list[Program]) -> Callable[[], Any]:
        texts: dict[str, None] = {}
        silent = Agreement(["cpp"])
        with together.noted(texts):
            for one in some:
                with suppress(Exception):  # it comes again
                    silent(one.grown, one.way)
        kind.counted["cpp kernels"] += len(texts)
        around = ExitStack()
        around.enter_context(together.compiled(list(texts)))
        return around.close

    return replace(kind, before=before)


def _texts() -> Kind:
    counts: Counter[str] = Counter()

    def tried(text: str) -> None:
        counts["texts"] += 1
        counts[hostile.read(text, printers=counts["texts"] % 4 == 0)] += 1

    return Kind("texts", counts, hostile.text, tried, lambda text: text, lambda _, text: text, bout=1000, seconds=5)


def _sm_90() -> Kind:
    """Triton kernels in each number type, compiled down to machine code of a GPU that need not be here. Wants `tests` on the path."""
    counts: Counter[str] = Counter()

    def tried(one: Program) -> None:
        import compiled_kernels

        counts["programs"] += 1
        what = _ruled(one.grown)
        if what is None or not isinstance(what, ir.Program) or what.inputs or asks(what):
            counts["not for it"] += 1
            return
        for dtype in TYPES:
            loaded = compiled_kernels.kernels_of(one.grown.text, dtype, rule=one.grown.name)
            kind = str(dtype).removeprefix("torch.")
            for one_of in loaded:
                for found in compiled_kernels.codes(one_of, 90, dtype == torch.float64):
                    counts[f"kernels of {kind}"] += 1
                    counts["bytes spilled"] += found["spilled"]
            counts[f"compiled in {kind}" if loaded else f"without kernels in {kind}"] += 1

    text, like = (lambda one: one.grown.text), (lambda one, text: replace(one, grown=replace(one.grown, text=text)))
    return Kind("sm_90", counts, few_steps, tried, text, like, bout=2, seconds=600)


def _touched() -> Kind:
    """One step of one parameter in float32, by C++ kernels that count."""
    counts: Counter[str] = Counter()
    read: list[Callable[[], touched.Touched | None]] = []

    def tried(one: Program) -> None:
        counts["programs"] += 1
        try:
            rule = rules.Rule(one.grown.text, one.grown.name)
        except OptError:
            counts["refused by the language"] += 1
            return
        counts[touched.compared(rule, one.way.math, one.grown.matrices, read[0])] += 1

    def before(some: list[Program]) -> Callable[[], Any]:
        texts: dict[str, None] = {}
        read[:] = [lambda: None]
        with together.noted(texts):
            for one in some:
                with suppress(Exception):  # it comes again
                    tried(one)
        counts.clear()
        around = ExitStack()
        read[:] = [touched.counters(around.enter_context(together.compiled(list(texts), touched.counting, touched.COUNTERS)))]
        return around.close

    text, like = (lambda one: one.grown.text), (lambda one, text: replace(one, grown=replace(one.grown, text=text)))
    return Kind("touched", counts, few_steps, tried, text, like, before, bout=40)


def _ruled(grown: Grown) -> ir.Program | ir.Routing | None:
    try:
        return rules.Rule(grown.text, grown.name).program
    except OptError:
        return None


KINDS: dict[str, Callable[[], Kind]] = {
    "programs": lambda: _programs("programs", PLAIN),
    "texts": _texts,
    "cpp": _cpp,
    "triton": lambda: _programs("triton", ["triton"], few_steps, bout=5),
    "touched": _touched,
    "sm_90": _sm_90,
    "compiled": lambda: _programs("compiled", ["compiled"], few_steps, bout=2, seconds=600),
}
