"""Programs that did well on short tasks go on to longer ones, and the best of those are tuned and meet the rivals.

Every level is trained with paired seeds that no other level uses. What a level has shown is in the store, so a funnel that
was cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optlang.search.programs.genome import Genome
from optlang.search.training.assess import Assessment, Job, Regime
from optlang.search.training.levels import Level

Run = Callable[[Sequence[Job]], list[Sequence[Assessment]]]
SEEDS_APART = 1_000  # between the seeds of two levels


@dataclass(frozen=True)
class Promoted:
    """A program with what it showed on one level, best first in a list of them."""

    number: int
    genome: Genome
    assessment: Assessment


def seeds_of(level: Level, place: int, seed: int) -> tuple[int, ...]:
    """The paired seeds of a level: its own, so that luck on one level does not carry over to the next."""
    first = 100_000 * seed + SEEDS_APART * place
    return tuple(range(first, first + level.seeds))


def judge(programs: Mapping[int, Genome], regime: Regime, run: Run, per_job: int) -> list[Promoted]:
    """All programs trained on one level, best first; those that tie keep their order."""
    numbers = list(programs)
    parts = [numbers[start : start + per_job] for start in range(0, len(numbers), per_job)]
    jobs = [regime.job(programs[n] for n in part) for part in parts]
    found = [assessment for part in run(jobs) for assessment in part]
    made = [Promoted(n, programs[n], assessment) for n, assessment in zip(numbers, found, strict=True)]
    return sorted(made, key=lambda one: -one.assessment.fitness)
