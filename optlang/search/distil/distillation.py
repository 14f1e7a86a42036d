"""A found program made into a rule: dead statements and parts that training does as well without are left out, the rest gets names.

    found = distil(genome, form, name="Lion")           # algebra alone, about a second
    found = distil(genome, form, trainer=Trained(…))    # also leaves out parts without which training from the same seeds goes the same way
    print(found.trace.to_text(), found.opt())
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optlang.algebra import Algebra
from optlang.ir import Program
from optlang.search.distil.ablation import Ablation, Paired, Trainer
from optlang.search.distil.listing import calls, listing
from optlang.search.distil.naming import absorbed, named
from optlang.search.distil.proof import begun, exact, step
from optlang.search.distil.protections import bounded
from optlang.search.distil.trace import Step, Trace
from optlang.search.distil.wording import written
from optlang.search.programs.genome import UPDATE, Form, Genome, backwards, line, live, slots_used, to_program
from optlang.search.programs.moves import Move

MOST_ROUNDS = 40


@dataclass(frozen=True)
class Distilled:
    """A rule with the way it was come by. `plain` is the program before its literals became settings."""

    program: Program
    plain: Program
    trace: Trace

    def opt(self) -> str:
        """The text of a `.opt` file, in canonical style."""
        return written(self.program)

    def module(self) -> str:
        """A Python module that needs torch alone."""
        from optlang.rules import build

        return build(self.opt())

    def latex(self) -> str:
        """The equations."""
        from optlang.printing.render import latex

        return latex(self.program)

    def sympy(self) -> dict[str, Any]:
        """The new weights and slots as SymPy expressions in the symbols w, g, t, the settings and the slots before the step."""
        from optlang.search.distil.sympy_forms import expressions

        return expressions(self.program)


def distil(
    genome: Genome,
    form: Form,
    *,
    name: str = "Found",
    doc: str = "",
    trainer: Trainer | None = None,
    seeds: Sequence[int] = tuple(range(256)),
    lr: float = 1e-3,
    seconds: float = math.inf,
    tell: Callable[[str], None] = lambda _: None,
) -> Distilled:
    """Simplifies a program with proof. Without `trainer` nothing is trained: only exact and bounded steps are taken.

    How far the losses of a shorter rule may lie apart is `Ablation.tolerance`. After `seconds` of training nothing
    more is tried, and the rule is as short as it has become. `tell` hears what is under way. Raises GenomeError, and ValueError
    where the program as found diverges.
    """
    Algebra({})  # loads SymPy before the clock starts
    found, deadline = to_program(genome, form, name, doc, lr), time.monotonic() + seconds
    ablation = None if trainer is None else Ablation(found, trainer, seeds, scaled=form.scaled, deadline=deadline, tell=tell)
    work = _Work(found, form, ablation)
    work.dead(genome)
    if work.ablation is not None:
        work.measured()
    else:
        work.algebra()
        work.protections()
    work.finished()
    rule = named(work.program, name, doc)
    trace = Trace(name, "\n".join(map(line, genome)), "\n".join(listing(work.program, form.scaled)), tuple(work.steps), work.seconds)
    return Distilled(rule, work.program, trace)


class _Work:
    """A simplification under way."""

    def __init__(self, program: Program, form: Form, ablation: Ablation | None) -> None:
        self.program, self.scaled, self.form, self.ablation = begun(program, form.scaled), form.scaled, form, ablation
        self.steps: list[Step] = []
        self.seconds = 0.0

    def dead(self, genome: Genome) -> None:
        """Statements that nothing depends on: first within one step, with what slots hold at its end, then over all steps."""
        start = time.process_time()
        within, slots = backwards(genome, {UPDATE, *self.form.slots})[0], len(self.form.slots)
        kept = live(genome, self.form)
        used = len(slots_used(genome, self.form))
        if within != genome:
            text = (f"overwritten or never read: neither the update nor what a slot holds at the end of the step depends on them; counting "
                    f"one step alone, as if all that slots hold were read later, {len(within)} statements remain")  # fmt: skip
            self.steps.append(_dropped("statements without effect on the step", genome, within, text, (slots, slots)))
        if kept != within or used != slots:
            gone = ", ".join(s for s in self.form.slots if s not in slots_used(genome, self.form))
            text = (f"what slot {gone} holds at the end of a step reaches no later update, so it and what only it needs can go: over all "
                    f"steps, {len(kept)} statements remain")  # fmt: skip
            self.steps.append(_dropped(f"slots that no update depends on: {gone}", within, kept, text, (slots, used)))
        length = len(calls(self.program, self.scaled))
        if length < len(kept):
            text = "the same expression is computed once, and what is made of literals alone is a literal"
            change = ("", "\n".join(listing(self.program, self.scaled)))
            self.steps.append(Step("expressions computed once", "exact", *change, text, (len(kept), length), (used, used)))
        self.seconds += time.process_time() - start

    def algebra(self) -> bool:
        """Exact steps until there are none."""
        start = time.process_time()
        self.program, found = exact(self.program, self.scaled)
        self.steps += found
        self.seconds += time.process_time() - start
        return bool(found)

    def protections(self) -> None:
        """Steps exact but for a protection; where there is an evaluator, it has to find them harmless too."""
        for _ in range(MOST_ROUNDS):
            start = time.process_time()
            moves = bounded(self.program, self.scaled)
            self.seconds += time.process_time() - start
            for move in moves:
                evidence = move.evidence
                if self.ablation is not None:
                    result = self.ablation.compared(move.program)
                    if not self.ablation.passes(result):
                        continue
                    evidence = f"{evidence}; {self.ablation.words(result)}"
                self._take(step(move.name, "bounded", self.program, move.program, evidence, self.scaled), move.program)
                self.algebra()
                break
            else:
                return

    def measured(self) -> None:
        """Algebra, then parts left out one after another, each followed by algebra, then literals rounded."""
        assert self.ablation is not None
        self.algebra()
        self.protections()
        for _ in range(MOST_ROUNDS):
            option = self.ablation.next(self.program)
            if option is None:
                break
            self._measured_step(*option)
            self.protections()
        rounding = self.ablation.rounded(self.program)
        if rounding is not None:
            self._measured_step(*rounding)

    def _measured_step(self, move: Move, results: list[Paired]) -> None:
        assert self.ablation is not None
        self._take(step(move.name, "measured", self.program, move.program, self.ablation.words(results), self.scaled), move.program)
        self.algebra()
        self.ablation.tell(f"{move.name}: {self.steps[-1].statements[1]} statements are left")

    def finished(self) -> None:
        """The step size takes up what is left of constant factors."""
        start = time.process_time()
        move = absorbed(self.program, self.scaled)
        if move is not None:
            self._take(step(move.name, "exact", self.program, move.program, move.evidence, self.scaled), move.program)
        self.seconds += time.process_time() - start
        if move is not None:
            self.algebra()

    def _take(self, taken: Step, program: Program) -> None:
        self.steps.append(taken)
        self.program = program


def _dropped(name: str, before: Genome, after: Genome, evidence: str, slots: tuple[int, int]) -> Step:
    """A step that drops statements; those that stay keep their order."""
    kept = iter(after)
    waiting = next(kept, None)
    gone = []
    for statement in before:
        if statement is waiting:
            waiting = next(kept, None)
        else:
            gone.append(line(statement))
    return Step(name, "exact", "\n".join(gone), "", evidence, (len(before), len(after)), slots)



