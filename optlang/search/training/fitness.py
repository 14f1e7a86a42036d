"""How good a rule is: what part of the steps tuned AdamW would need for the loss that the rule ends with. Higher is better.

Rule and baseline are tuned alike, over a log grid of step sizes that is extended while the best lies at its edge, and then
refined around it. They see the same starts and batches (paired seeds). What counts is held-out loss at the end of training.

AdamW's curve on a task is C(k), the loss that it ends with when it is trained for k steps in all: tuned for each of some k, the
mean over seeds, made to fall by isotonic regression; C(0) is the loss at the start. A rule that is trained for h steps and ends
with loss L has the fraction C⁻¹(L)/h, linear between measured points. 1 is tuned AdamW, 1.3 says that AdamW needs 1.3 times
the steps. It is 0 for a loss not below the start. Where AdamW does not get there with `HORIZONS[-1]` times the steps, it is
that number and the part of AdamW's whole fall by which the rule falls further, so that the best still differ. Its error is the
jackknife's over seeds, each left out of both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from optlang.ir import Program
from optlang.search.training.tasks import Task
from optlang.search.training.trainer import Entry, Outcome, train

Array = Any  # numpy.ndarray
HORIZONS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of AdamW's curve, in units of the task's steps
AROUND = 2  # half steps of the grid to either side of the best at horizon 1 that are tried at the others


@dataclass(frozen=True)
class Grid:
    """Step sizes to tune over: `low` to `high` by factors of ten, further while the best lies at an edge, then a half step
    (√10) to either side of the best."""

    low: float = 1e-4
    high: float = 1.0
    extensions: int = 3  # each by two points
    refined: bool = True

    def first(self) -> list[int]:
        """Step sizes are named by whole numbers, twice their decade, so that none is trained twice."""
        return list(range(2 * round(math.log10(self.low)), 2 * round(math.log10(self.high)) + 1, 2))


def rate(number: int) -> float:
    """The step size of a point of the grid."""
    return float(f"{10 ** (number / 2):.3g}")


def point(lr: float) -> int:
    """The point of the grid that is nearest to a step size."""
    return round(2 * math.log10(lr))


# ------------------------------------------------------------------------------------------------------------ tuning


@dataclass(eq=False)
class Tuned:
    """A rule after tuning. `losses` by grid point; `runs` and `steps`: everything that was trained for it. `start`: a point near
    which the best is expected, as for a child that of its parent; half steps around it are then tried, further while the best lies
    at an edge, instead of the whole grid."""

    start: int | None = None
    losses: dict[int, Array] = field(default_factory=dict)  # [seeds]
    runs: int = 0
    steps: int = 0
    extensions: int = 0
    refined: bool = False

    @property
    def best(self) -> int:
        """The grid point with the lowest mean loss; among equals the smallest step size."""
        return min(sorted(self.losses), key=lambda point: float(self.losses[point].mean()))

    def wanted(self, grid: Grid) -> list[int]:
        """What is to be trained next; an empty list at the end."""
        if not self.losses:
            return grid.first() if self.start is None else [self.start - 1, self.start, self.start + 1]
        tried, best = sorted(self.losses), self.best
        if not math.isfinite(float(self.losses[best].mean())):
            best = tried[0]  # everything diverged
        if self.extensions < grid.extensions and best in (tried[0], tried[-1]):
            self.extensions += 1
            step = 2 if self.start is None else 1
            return [best - 2 * step, best - step] if best == tried[0] else [best + step, best + 2 * step]
        if grid.refined and not self.refined:
            self.refined = True
            return [point for point in (best - 1, best + 1) if point not in self.losses]
        return []

    def add(self, points: Sequence[int], outcome: Outcome) -> None:
        for place, point in enumerate(points):
            self.losses[point] = outcome.losses[place]
        self.runs += outcome.steps.size
        self.steps += int(outcome.steps.sum())


def tune(
    programs: Sequence[Program],
    task: Task,
    seeds: Sequence[int],
    grid: Grid | None = None,
    *,
    starts: Sequence[int | None] = (),
) -> list[Tuned]:
    """Tunes the `lr` of rules, all of them in the same batches. A rule without `lr` is trained once. Raises EntryError."""
    grid = grid or Grid()
    found = [Tuned(start) for start in starts or [None] * len(programs)]
    while True:
        wanted = [_wanted(one, program, grid) for one, program in zip(found, programs, strict=True)]
        if not any(wanted):
            return found
        entries = [_entry(program, points) for program, points in zip(programs, wanted, strict=True)]
        outcomes = train(task, entries, seeds)
        for one, points, outcome in zip(found, wanted, outcomes, strict=True):
            one.add(points, outcome)


def _wanted(tuned: Tuned, program: Program, grid: Grid) -> list[int]:
    if any(h.name == "lr" for h in program.hypers):
        return tuned.wanted(grid)
    return [] if tuned.losses else [0]


def _entry(program: Program, points: Sequence[int]) -> Entry:
    tunable = any(h.name == "lr" for h in program.hypers)
    return Entry(program, {"lr": [rate(point) for point in points]} if tunable or not points else {})


# ---------------------------------------------------------------------------------------------------------- baseline


@dataclass(frozen=True, eq=False)
class Baseline:
    """AdamW's curve on a task: held-out losses [points, step sizes, seeds] of trainings of `marks` steps, the first of them 0."""

    task: str
    horizon: int
    seeds: tuple[int, ...]
    marks: tuple[int, ...]
    losses: Array
    lr: float  # the best at the horizon
    runs: int
    steps: int

    @property
    def learns(self) -> bool:
        """Whether AdamW ends below the loss at the start with any number of steps."""
        curve = self.curve(self.seeds)
        return bool(curve[-1] < curve[0])

    def curve(self, seeds: Sequence[int]) -> Array:
        """C at the marks, from the mean over some seeds. Raises ValueError for seeds it was not measured with."""
        missing = sorted(set(seeds) - set(self.seeds))
        if missing:
            raise ValueError(f"AdamW's curve on {self.task} has seeds {list(self.seeds)}, not {missing[0]}: measure it with the same seeds")
        columns = [self.seeds.index(seed) for seed in seeds]
        best = self.losses[:, :, columns].mean(2).min(1)
        return falling(np.minimum(best, best[0]))  # standing still is open to AdamW, too

    def fraction(self, losses: Sequence[float], seeds: Sequence[int]) -> float:
        """The part of the horizon that AdamW needs for the mean of these losses, one for each seed."""
        curve, value = self.curve(seeds), float(np.mean(losses))
        below = np.flatnonzero(curve <= value)
        if not np.isfinite(value) or (below.size and below[0] == 0):
            return 0.0
        if not below.size:
            return self.marks[-1] / self.horizon + float((curve[-1] - value) / ((curve[0] - curve[-1]) or 1.0))
        at = int(below[0])
        share = (curve[at - 1] - value) / (curve[at - 1] - curve[at])
        return float(self.marks[at - 1] + share * (self.marks[at] - self.marks[at - 1])) / self.horizon

    def to_json(self) -> dict[str, Any]:
        """Plain values; what diverged is None."""
        losses = [[[x if math.isfinite(x) else None for x in row] for row in rows] for rows in self.losses.tolist()]
        return {**asdict(self), "losses": losses, "seeds": list(self.seeds), "marks": list(self.marks)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Baseline:
        losses = np.array([[[math.inf if x is None else x for x in row] for row in rows] for rows in values["losses"]])
        return cls(**{**values, "losses": losses, "seeds": tuple(values["seeds"]), "marks": tuple(values["marks"])})


def falling(values: Array) -> Array:
    """The nearest sequence that never rises (isotonic regression, by its min-max formula)."""
    means = [[float(np.mean(values[a : b + 1])) if a <= b else math.inf for a in range(len(values))] for b in range(len(values))]
    return np.array([max(min(means[b][: i + 1]) for b in range(i, len(values))) for i in range(len(values))])


def baseline(task: Task, seeds: Sequence[int]) -> Baseline:
    """AdamW tuned for the task's steps, and near that step size for shorter and longer trainings."""
    rule = adamw()
    [tuned] = tune([rule], task, seeds)
    points = [tuned.best + offset for offset in range(-AROUND, AROUND + 1)]
    start = task.evaluate(task.init(list(seeds))).double().numpy()
    rows, runs, steps = [np.tile(start, (len(points), 1))], tuned.runs, tuned.steps
    marks = sorted({max(1, round(horizon * task.steps)) for horizon in HORIZONS})
    for mark in marks:
        [outcome] = train(task, [_entry(rule, points)], seeds, mark)
        rows.append(outcome.losses)
        runs, steps = runs + outcome.steps.size, steps + int(outcome.steps.sum())
    return Baseline(task.name, task.steps, tuple(seeds), (0, *marks), np.array(rows), rate(tuned.best), runs, steps)


@lru_cache(maxsize=1)
def adamw() -> Program:
    """The baseline's rule."""
    from optlang.rules import Rule

    program = Rule("adamw").program
    assert isinstance(program, Program)
    return program


# ----------------------------------------------------------------------------------------------------------- fitness


class Score(NamedTuple):
    """A rule on one task. `fraction`: see above; `error`: its standard error over paired seeds (nan with one seed)."""

    fraction: float
    error: float


def score(tuned: Tuned, base: Baseline, seeds: Sequence[int]) -> Score:
    """A tuned rule against AdamW's curve. Raises ValueError for seeds that the curve was not measured with."""
    losses = tuned.losses[tuned.best]
    error = jackknife(lambda kept: base.fraction(losses[kept], [seeds[k] for k in kept]), len(seeds))
    return Score(base.fraction(losses, seeds), error)


def jackknife(statistic: Callable[[list[int]], float], count: int) -> float:
    """The standard error of a statistic of `count` things, from leaving out each of them in turn; nan where there is one."""
    if count < 2:
        return math.nan
    values = np.array([statistic([k for k in range(count) if k != left]) for left in range(count)])
    return float(np.sqrt((count - 1) / count * np.sum((values - values.mean()) ** 2)))
