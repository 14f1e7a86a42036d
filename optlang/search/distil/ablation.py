"""What a rule can do without: parts are left out where training from the same seeds goes measurably the same way.

Every shorter rule is trained from the same starts on the same batches as the rule as found, with that rule's best step size. A
part goes where on every task the interval of the mean difference (Student's t, 95 %) lies within the tolerance on both sides:
two one-sided tests of equivalence. What makes training better is not left out either, for short tasks are no judge of that, and
a simplification should not change what a rule does. Seeds are added, twice as many each time, until it is decided. Differences
are always taken to the rule as found, so that small ones cannot add up.

Some parts are clearly needed, which a seed or four on the first task show. They are not tried again before nothing else is left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from optlang.ir import Node, Program
from optlang.search.distil.listing import measure
from optlang.search.distil.removals import DIGITS, removals, rounded
from optlang.search.programs.moves import Move

Array = Any  # numpy.ndarray
LEVEL = 0.95
LOOKS = (1, 4)  # seeds of the first task that all shorter rules are tried with, before they are measured one by one
FIRST, LEAST = 4, 16  # seeds after which a measurement may find a difference, and that there is none
FAR = 10.0  # tolerances: who is so far away with one seed is not trained with a second


class Asked(NamedTuple):
    """Some rules to be trained on a task from some seeds."""

    task: str
    programs: Sequence[Program]
    seeds: Sequence[int]


class Trainer(Protocol):
    """Trains rules on its tasks, the cheapest first."""

    @property
    def tasks(self) -> Sequence[str]: ...

    def losses(self, asked: Sequence[Asked]) -> list[Array]:
        """For each request the losses [programs, seeds], on a scale on which `Ablation.tolerance` makes sense."""


@dataclass(frozen=True)
class Paired:
    """A mean difference over paired seeds with its standard error and interval, on one task; positive is worse."""

    mean: float
    error: float
    low: float
    high: float
    seeds: int

    def within(self, tolerance: float) -> bool:
        return -tolerance <= self.low and self.high <= tolerance

    def beyond(self, tolerance: float) -> bool:
        """Whether more seeds are of no use."""
        return self.low > tolerance or self.high < -tolerance or math.isinf(self.mean)


def paired(losses: Array, others: Array, level: float = LEVEL) -> Paired:
    """`others` minus `losses`, seed by seed. A run that diverged makes the mean and the interval infinite."""
    from scipy.stats import t

    count = len(losses)
    with np.errstate(invalid="ignore"):
        apart = np.asarray(others, dtype=float) - np.asarray(losses, dtype=float)
    if count < 2 or not np.isfinite(apart).all():
        return Paired(math.inf, math.inf, -math.inf, math.inf, count)
    error = float(apart.std(ddof=1) / math.sqrt(count))
    half = float(t.ppf(0.5 + level / 2, count - 1)) * error
    return Paired(float(apart.mean()), error, float(apart.mean()) - half, float(apart.mean()) + half, count)


@dataclass
class Ablation:
    """Trains shorter rules beside the rule as found. `tolerance` is on the scale of the trainer, by default 3 % of the loss.

    `seeds` are as many as are used at most. After `deadline`, on the clock of `time.monotonic`, nothing more is tried.
    """

    found: Program
    trainer: Trainer
    seeds: Sequence[int] = tuple(range(256))
    tolerance: float = 0.03
    scaled: bool = False
    deadline: float = math.inf
    tell: Callable[[str], None] = lambda _: None
    trained: int = 0  # trainings so far
    _reference: dict[str, Array] = field(default_factory=dict)  # what the rule as found does, by task, as far as was asked
    _far: set[tuple[Node, Node]] = field(default_factory=set)  # replacements that a look has ruled out
    _failed: set[tuple[Node, Node]] = field(default_factory=set)  # that a measurement has

    def __post_init__(self) -> None:
        self._extend(self.trainer.tasks, min(LEAST, len(self.seeds)))

    def _losses(self, asked: Sequence[Asked]) -> list[Array]:
        """[programs, seeds] for each request; what is not a number counts as infinite."""
        found = [np.asarray(losses, dtype=float) for losses in self.trainer.losses(asked)]
        self.trained += sum(losses.size for losses in found)
        return [np.where(np.isnan(losses), np.inf, losses) for losses in found]

    def _extend(self, tasks: Sequence[str], count: int) -> None:
        """So many seeds of the rule as found, on some tasks. Raises ValueError where it diverges."""
        known = {task: self._reference.get(task, np.empty(0)) for task in tasks}
        asked = [Asked(task, [self.found], self.seeds[len(known[task]) : count]) for task in tasks if len(known[task]) < count]
        for one, losses in zip(asked, self._losses(asked), strict=True):
            self._reference[one.task] = values = np.concatenate([known[one.task], losses[0]])
            if not np.isfinite(values).all():
                raise ValueError(f"rule `{self.found.name}` diverges on {int((~np.isfinite(values)).sum())} of {values.size} "
                                 f"runs of {one.task}; there is nothing to compare shorter rules with")  # fmt: skip

    # ---------------------------------------------------------------------------------------------- comparing one

    def compared(self, program: Program) -> list[Paired]:
        """A rule against the rule as found, on every task, over as many seeds as decide."""
        count, unclear = len(self.seeds), list(self.trainer.tasks)
        losses, results = {task: np.empty(0) for task in unclear}, dict[str, Paired]()
        for look in _looks(count):
            self._extend(unclear, look)
            more = self._losses([Asked(task, [program], self.seeds[len(losses[task]) : look]) for task in unclear])
            losses |= {task: np.concatenate([losses[task], new[0]]) for task, new in zip(unclear, more, strict=True)}
            results |= {task: paired(self._reference[task][:look], losses[task]) for task in unclear}
            if any(result.beyond(self.tolerance) for result in results.values()):
                break
            if look >= min(LEAST, count):
                unclear = [task for task in unclear if not results[task].within(self.tolerance)]
            if not unclear:
                break
        return [results[task] for task in self.trainer.tasks]

    def passes(self, results: Sequence[Paired]) -> bool:
        return all(result.within(self.tolerance) for result in results)

    def words(self, results: Sequence[Paired]) -> str:
        """A comparison as evidence."""
        parts = [f"{r.mean:+.2%} ± {r.error:.2%} ({r.low:+.2%} to {r.high:+.2%}) on {name} over {r.seeds} seeds"
                 for name, r in zip(self.trainer.tasks, results, strict=True)]  # fmt: skip
        return (f"loss at the end against the program as found: {', '.join(parts)}; mean, standard error and {LEVEL:.0%} interval of "
                f"paired differences, all within the tolerance of ±{self.tolerance:.2%}")  # fmt: skip

    # ------------------------------------------------------------------------------------------- choosing among many

    def next(self, program: Program) -> tuple[Move, list[Paired]] | None:
        """The shortest of the shorter rules that trains alike; None where none does."""
        options = sorted(removals(program, self.scaled), key=lambda move: measure(move.program, self.scaled))
        options = [move for move in options if _key(move) not in self._failed]
        fresh = [move for move in options if _key(move) not in self._far]
        again = [move for move in options if _key(move) in self._far]
        return self._first_alike(program, fresh) or self._first_alike(program, again)

    def _first_alike(self, program: Program, options: Sequence[Move]) -> tuple[Move, list[Paired]] | None:
        for move in self._near(program, options):
            if time.monotonic() > self.deadline:
                return None
            results = self.compared(move.program)
            if self.passes(results):
                return move, results
            self._failed.add(_key(move))
        return None

    def _near(self, program: Program, options: Sequence[Move]) -> list[Move]:
        """Those that a few seeds of the first task do not rule out."""
        near, task = list(options), self.trainer.tasks[0]
        for count in LOOKS:
            if not near or time.monotonic() > self.deadline:
                return []
            size = measure(program, self.scaled)[1]
            self.tell(f"{size} statements; {len(near)} shorter rules on {task}, {count} {'seeds' if count > 1 else 'seed'}")
            seeds = self.seeds[:count]
            [losses] = self._losses([Asked(task, [move.program for move in near], seeds)])
            kept = self._unclear(losses - self._reference[task][: len(seeds)])
            self._far |= {_key(move) for move, stays in zip(near, kept, strict=True) if not stays}
            near = [move for move, stays in zip(near, kept, strict=True) if stays]
        return near

    def _unclear(self, apart: Array) -> Array:
        """Which differences, [programs, seeds], might be those of rules that train alike."""
        apart = np.where(np.isfinite(apart), apart, 1e9)
        if apart.shape[1] == 1:
            return np.abs(apart[:, 0]) <= FAR * self.tolerance
        return np.abs(apart.mean(1)) <= 3 * np.maximum(self.tolerance, np.minimum(apart.std(1), 1.0))

    def rounded(self, program: Program) -> tuple[Move, list[Paired]] | None:
        """The program with all its long literals rounded to as few digits as do."""
        for digits in range(2, DIGITS):
            changed = rounded(program, digits)
            if changed is not None and changed.roots() != program.roots() and time.monotonic() <= self.deadline:
                results = self.compared(changed)
                if self.passes(results):
                    return Move(f"literals rounded to {digits} digits", changed), results
        return None


def _looks(count: int) -> list[int]:
    """Numbers of seeds at which a comparison may end: a few, then twice as many each time."""
    return sorted({min(FIRST, count), *(min(LEAST << n, count) for n in range(count.bit_length()))})


def _key(move: Move) -> tuple[Node, Node]:
    """What a shorter rule has in the place of what."""
    assert move.claim is not None
    return move.claim[0], move.claim[1]
