"""Settings of a rule tuned by Optuna, many trials in one batch of runs, with the same number of trials for every rule.

What is tuned is read off the rule: its step size within a factor of ten of its default, which is to be one that fits tasks of
this kind (`optlang.search.finals.centred`), what decays an average so too, by how far it is from 1, and weight decay over decades.
All else stays at its default.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from optlang.ir import Hyper, Program

if TYPE_CHECKING:
    import optuna

    from optlang.search.training.tasks import Task

Settings = dict[str, float]
BATCH = 16  # trials that are run together: Optuna learns between batches, and small batches waste the machine
LARGEST = float(np.finfo(np.float32).max)  # what Optuna is told of a run that diverged


@dataclass(frozen=True, slots=True)
class Range:
    """Where a setting is looked for, evenly in the logarithm of its value, or of its distance from 1."""

    low: float
    high: float
    below_one: bool = False

    def value(self, place: float) -> float:
        """The setting at a place from 0 to 1."""
        found = math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low)))
        return 1 - found if self.below_one else found


AROUND = 10.0  # the factor to either side of a default
SMALL = Range(1e-4, 1.0)


def ranges(program: Program) -> dict[str, Range]:
    """The settings of a rule that are tuned. Source of the ranges: AlgoPerf's self-tuning spaces (arXiv:2306.07179), widened."""
    return {h.name: found for h in program.hypers if (found := _range(h)) is not None}


def _range(hyper: Hyper) -> Range | None:
    if hyper.baked or hyper.kind != "real":
        return None
    if hyper.name == "lr":
        return Range(hyper.default / AROUND, hyper.default * AROUND)
    if hyper.bounds is not None and (hyper.bounds.low, hyper.bounds.high) == (0, 1) and hyper.default > 0:
        return Range((1 - hyper.default) / AROUND, min(0.5, (1 - hyper.default) * AROUND), below_one=True)
    return SMALL if hyper.name == "weight_decay" else None


@dataclass(frozen=True)
class Trial:
    """One point: its settings, the mean loss over seeds, and the steps that it took."""

    settings: Settings
    loss: float
    steps: int


@dataclass(frozen=True)
class Tuned:
    """All trials of one rule on one task, in order."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.loss)

    @property
    def steps(self) -> int:
        return sum(trial.steps for trial in self.trials)


def tune(task: Task, program: Program, trials: int, seeds: Sequence[int], *, seed: int = 0) -> Tuned:
    """`trials` points by Optuna's TPE, judged by validation loss at the end of the task's horizon. Raises ValueError below 1."""
    if trials < 1:
        raise ValueError(f"{trials} trials cannot tune anything; give at least 1")
    spaces, study = ranges(program), _study(seed)
    done: list[Trial] = []
    while len(done) < trials:
        asked = [study.ask() for _ in range(min(BATCH, trials - len(done)))]
        points = [{name: space.value(one.suggest_float(name, 0.0, 1.0)) for name, space in spaces.items()} for one in asked]
        for one, trial in zip(asked, run(task, program, points, seeds), strict=True):
            study.tell(one, min(trial.loss, LARGEST))
            done.append(trial)
    return Tuned(tuple(done))


def run(task: Task, program: Program, points: Sequence[Settings], seeds: Sequence[int]) -> list[Trial]:
    """Points of one rule, all in one batch. A run that diverges has an infinite loss."""
    from optlang.search.training.trainer import Entry, train

    [outcome] = train(task, [Entry(program, columns(program, points))], seeds)
    means, steps = outcome.losses.mean(axis=1), outcome.steps.sum(axis=1)
    return [Trial(dict(p), float(loss), int(n)) for p, loss, n in zip(points, means, steps, strict=True)]


def columns(program: Program, points: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Settings by name instead of by point. What a point does not say is the default."""
    names = dict.fromkeys(name for point in points for name in point)
    return {name: [float(point.get(name, program.hyper(name).default)) for point in points] for name in names or ["lr"]}


def _study(seed: int) -> optuna.Study:
    """A study that says nothing and repeats itself for the same seed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: Any = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=BATCH)
    return optuna.create_study(sampler=sampler)
