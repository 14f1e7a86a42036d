"""Whether a program is worth training: it must be new, and it must descend. Most children are neither.

The levels, the cheapest first: what the program is without dead statements, its structural and its algebraic key, then its
behaviour (`fingerprint`). A child that equals an earlier one on any level has its fitness. Rejected is what cannot run, does
not read the gradient, computes nothing finite or nothing at all, climbs, or breaks a constraint on behaviour.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from optlang.search.programs.constraints import BEHAVIOURAL
from optlang.search.programs.genome import Form, Genome, live
from optlang.search.programs.space import Space
from optlang.search.screening import fingerprint as behaviour
from optlang.search.screening.canonical import algebraic_key, structural_key

LEVELS = ("dead", "canonical", "algebra", "fingerprint")
DESCENT = 0.05  # least mean cosine of updates with gradients
SCALES = (1e-2, 1e2)  # of the loss, which some constraints forbid to matter


Outcome = Literal["merged", "rejected", "passed"]


@dataclass
class Counter:
    """What one level has done. `merged`: equal to an earlier program; `passed`: left to the next level."""

    seen: int = 0
    merged: int = 0
    rejected: int = 0
    passed: int = 0
    seconds: float = 0.0

    def note(self, outcome: Outcome, started: float) -> float:
        """One program more, looked at since `started`; returns the time that it is now."""
        now = time.perf_counter()
        self.seen += 1
        setattr(self, outcome, getattr(self, outcome) + 1)
        self.seconds += now - started
        return now


class Verdict(NamedTuple):
    """`level` is "" for a new program, the level on which it was found to be an earlier one, or "rejected", for a `reason`, which is
    the end of "it …".

    `fingerprint` names its behaviour, unless it was rejected; `genome` is the program without dead statements.
    """

    level: str
    fingerprint: str
    reason: str
    genome: Genome


@dataclass(frozen=True)
class Looks:
    """A kind of job: what programs without dead statements do, which takes longer than all else about them. Nothing else decides it."""

    genomes: tuple[Genome, ...]
    form: Form
    descent: float | None
    scales: tuple[float, ...]  # of the loss that may not matter

    def done(self) -> list[str]:
        """For each its fingerprint, or "!" and the reason why it is not worth training, as the end of "it …"."""
        return [self._one(genome) for genome in self.genomes]

    def _one(self, genome: Genome) -> str:
        step = behaviour.ready(genome, self.form)
        found = behaviour.updates(genome, self.form, step=step)
        reason = self._trouble(found, genome, step)
        return f"!{reason}" if reason else behaviour.fingerprint(genome, self.form, found, step)

    def _trouble(self, found: Any, genome: Genome, step: Any) -> str:
        if not np.isfinite(found).all():
            return "has updates that are not finite"
        if not found.any():
            return "has updates of zero"
        if self.descent is not None and behaviour.descends(found) < self.descent:
            return "has updates that climb"
        if self.scales and not behaviour.ignores_scale(genome, self.form, found, self.scales, step):
            return "depends on the scale of the loss"
        return ""


class Screen:
    """Looks at programs and remembers them. `known` maps keys to fingerprints, or to "!" and the reason of a rejection; `seen` has the
    same of programs that others have looked at beforehand."""

    def __init__(self, space: Space, known: MutableMapping[Any, str] | None = None, descent: float | None = DESCENT) -> None:
        self.space, self.descent = space, descent
        self.known: MutableMapping[Any, str] = {} if known is None else known
        self.counters = {level: Counter() for level in LEVELS}
        self.scales = SCALES if any(text in BEHAVIOURAL for text in space.constraints) else ()
        self.seen: dict[Genome, str] = {}

    def check(self, genome: Genome) -> Verdict:
        """What a program is. Programs that have passed are known from then on."""
        form = self.space.form
        started = time.perf_counter()
        genome = live(genome, form)
        if not _reads_gradient(genome):
            return self._rejected("dead", started, "does not read the gradient", genome)
        started = self.counters["dead"].note("passed", started)
        keys = []
        for level, key_of in (("canonical", structural_key), ("algebra", algebraic_key)):
            keys.append((level, key_of(genome, form)))
            found = self.known.get(keys[-1])
            if found is not None:
                return self._merged(level, started, found, keys, genome)
            started = self.counters[level].note("passed", started)
        return self._behaved(started, keys, genome)

    def _behaved(self, started: float, keys: list[Any], genome: Genome) -> Verdict:
        name = self.seen.get(genome) or self.looks([genome]).done()[0]
        if name.startswith("!"):
            self._remember(keys, name)
            return self._rejected("fingerprint", started, name[1:], genome)
        is_known = name in self.known
        self._remember([*keys, name], name)
        if is_known:
            return self._merged("fingerprint", started, name, [], genome)
        self.counters["fingerprint"].note("passed", started)
        return Verdict("", name, "", genome)

    def looks(self, genomes: Sequence[Genome]) -> Looks:
        """The job of looking at programs."""
        return Looks(tuple(genomes), self.space.form, self.descent, self.scales)

    def unseen(self, genomes: Iterable[Genome]) -> list[Genome]:
        """Those of some programs that are to be looked at, without dead statements; some of them may turn out to be known."""
        found: dict[int, Genome] = {}
        for genome in genomes:
            alive = live(genome, self.space.form)
            if _reads_gradient(alive) and ("canonical", key := structural_key(alive, self.space.form)) not in self.known:
                found.setdefault(key, alive)
        return list(found.values())

    # ------------------------------------------------------------------------------------------------- verdicts

    def _merged(self, level: str, started: float, found: str, keys: list[Any], genome: Genome) -> Verdict:
        self._remember(keys, found)
        if found.startswith("!"):
            return self._rejected(level, started, found[1:], genome)
        self.counters[level].note("merged", started)
        return Verdict(level, found, "", genome)

    def _rejected(self, level: str, started: float, reason: str, genome: Genome) -> Verdict:
        self.counters[level].note("rejected", started)
        return Verdict("rejected", "", reason, genome)

    def _remember(self, keys: list[Any], name: str) -> None:
        for key in keys:
            self.known.setdefault(key, name)

    def summary(self) -> list[tuple[str, Counter]]:
        """The levels in order, for tables."""
        return list(self.counters.items())


def _reads_gradient(genome: Genome) -> bool:
    return any("g" in statement[2] for statement in genome)
