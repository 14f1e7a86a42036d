"""A miniature AlgoPerf: which rule reaches the targets soonest, over several workloads, when all are tuned alike.

As in the benchmark (Dahl et al. 2023, arXiv:2306.07179): the target of a workload is what the best of a few well-tuned
baselines reaches in three quarters of the steps, in the median over fresh seeds, so that it is no stroke of luck; a rule
gets several studies of a few random trials each, its time in a study is that of its quickest trial, its time on the workload
the median over studies. Unlike there, a rule with more settings than its step size gets as many trials again of the step size
alone: five points in four dimensions say little, and would favour rules that have one setting. A performance profile says for
every factor on which share of the workloads a rule is within that factor of the quickest; its area up to `FACTOR` is the score.
Time is counted in steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optlang.ir import Program
from optlang.search.training.tuning import Range, Settings, columns, ranges

if TYPE_CHECKING:
    from optlang.search.training.tasks import Task

FACTOR = 4.0  # r of the benchmark: who is slower than this does not count
TARGET_STEPS = 0.75  # of a workload's steps, for targets
TARGET_SEEDS, TARGET_SEED = 5, 500_001
POINTS = 20  # of a learning curve: how finely times are told apart
RESAMPLES = 2_000
Times = Mapping[str, Mapping[str, Sequence[float]]]  # rule → workload → time of each study; inf: the target was missed


@dataclass(frozen=True)
class Budget:
    """How much is tried. The benchmark's own numbers are 200 trials for targets, and 5 trials in each of 3 studies."""

    target_trials: int = 64
    trials: int = 5
    studies: int = 3


@dataclass(frozen=True)
class Standing:
    """One rule: its score from 0 to 1 with a 95 % interval, its profile at `factors`, and its median time on each workload."""

    rule: str
    score: float
    low: float
    high: float
    profile: tuple[float, ...]
    times: Mapping[str, float]


def targets(tasks: Sequence[Task], baselines: Mapping[str, Program], trials: int, seed: int = 0) -> dict[str, float]:
    """The loss to reach on each workload: the best of all baselines, each the best of its `trials`."""
    return {task.name: min(_ends(task, program, trials, seed) for program in baselines.values()) for task in tasks}


def _ends(task: Task, program: Program, trials: int, seed: int) -> float:
    from optlang.search.training.trainer import Entry, train

    points, steps = tried(program, trials, seed), max(1, round(task.steps * TARGET_STEPS))
    [outcome] = train(task, [Entry(program, columns(program, points))], [seed], steps)
    best = points[int(np.argmin(outcome.losses[:, 0]))]
    [outcome] = train(task, [Entry(program, columns(program, [best]))], [TARGET_SEED + n for n in range(TARGET_SEEDS)], steps)
    return float(np.median(outcome.losses))


def times(task: Task, program: Program, target: float, budget: Budget, seed: int = 1) -> list[float]:
    """Steps to the target in each study, by its quickest trial; inf where none reaches it. All trials run in one batch."""
    from optlang.search.training.trainer import Entry, train

    found = []
    marks = tuple(sorted({max(1, round(task.steps * n / POINTS)) for n in range(1, POINTS + 1)}))
    for study in range(budget.studies):
        points = tried(program, budget.trials, seed + study)
        [outcome] = train(task, [Entry(program, columns(program, points))], [seed + study], record=marks)
        reached = [step for step in marks if step in outcome.curve and np.nanmin(outcome.curve[step]) <= target]
        found.append(float(reached[0]) if reached else math.inf)
    return found


def tried(program: Program, count: int, seed: int) -> list[Settings]:
    """The trials of a rule: `count` points of all its settings, and as many of its step size alone where it has others."""
    spaces = ranges(program)
    points = scattered(spaces, count, seed)
    return points + scattered({"lr": spaces["lr"]}, count, seed) if "lr" in spaces and len(spaces) > 1 else points


def scattered(spaces: Mapping[str, Range], count: int, seed: int) -> list[Settings]:
    """Points that fill ranges evenly: a scrambled Sobol sequence. The step size is the first dimension of all."""
    from scipy.stats import qmc

    names = sorted(spaces, key=lambda name: (name != "lr", name))
    drawn = qmc.Sobol(len(names), rng=seed).random_base2(max(0, math.ceil(math.log2(count))))[:count]
    return [{name: spaces[name].value(float(place)) for name, place in zip(names, row, strict=True)} for row in drawn]


# ---------------------------------------------------------------------------------------------------------- scores


def standings(found: Times, factor: float = FACTOR, seed: int = 0) -> list[Standing]:
    """All rules, best first. Intervals: studies drawn again with replacement, for every rule and workload alike."""
    medians = {rule: {w: float(np.median(s)) for w, s in workloads.items()} for rule, workloads in found.items()}
    scores = _scores(medians, factor)
    source = np.random.default_rng(seed)
    drawn = [_scores(_resampled(found, source), factor) for _ in range(RESAMPLES)]
    made = [
        Standing(rule, scores[rule], *_interval([one[rule] for one in drawn]), _profile(medians, rule, factors(factor)), medians[rule])
        for rule in found
    ]
    return sorted(made, key=lambda standing: -standing.score)


def factors(factor: float = FACTOR) -> tuple[float, ...]:
    """The factors at which profiles are given: from 1 to the largest."""
    return tuple(np.linspace(1.0, factor, 61).tolist())


def _resampled(found: Times, source: np.random.Generator) -> dict[str, dict[str, float]]:
    return {
        rule: {workload: float(np.median(source.choice(np.asarray(s), len(s)))) for workload, s in workloads.items()}
        for rule, workloads in found.items()
    }


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _ratios(medians: Mapping[str, Mapping[str, float]], rule: str) -> list[float]:
    """How many times the quickest rule's time a rule takes, on each workload."""
    quickest = {w: min(one[w] for one in medians.values()) for w in medians[rule]}
    return [medians[rule][w] / quickest[w] if math.isfinite(medians[rule][w]) else math.inf for w in quickest]


def _scores(medians: Mapping[str, Mapping[str, float]], factor: float) -> dict[str, float]:
    """The area under each profile from 1 to the factor, as a share of the largest possible: exact, for profiles are steps."""
    return {
        rule: float(np.mean([max(0.0, factor - ratio) / (factor - 1) for ratio in _ratios(medians, rule)])) for rule in medians
    }


def _profile(medians: Mapping[str, Mapping[str, float]], rule: str, at: Sequence[float]) -> tuple[float, ...]:
    ratios = _ratios(medians, rule)
    return tuple(sum(ratio <= factor for ratio in ratios) / len(ratios) for factor in at)
