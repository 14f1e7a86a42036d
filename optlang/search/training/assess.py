"""One job of a search: some programs trained on the tasks of a level. It travels to workers and back as plain values."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from optlang.search.programs.genome import Form, GenomeError, from_text, to_program
from optlang.search.training.levels import Level
from optlang.types import TypeProblem

if TYPE_CHECKING:
    from optlang.search.training.fitness import Tuned
    from optlang.search.training.tasks import Task


@dataclass(frozen=True)
class Job:
    """Genomes as text, all of one form, to be trained on one level. `baselines` are AdamW's tuned curves, by `Level.key`.

    `starts`: for each genome the step sizes, by task, near which its own are looked for. Those of a child's parent make tuning
    it half as dear; a task that is not named is tuned over the whole grid.
    """

    genomes: tuple[str, ...]
    form: Form
    level: Level
    baselines: Mapping[str, Any]
    seeds: tuple[int, ...]
    hurdle: float = -math.inf  # who is below this on the first task is not trained on the others
    starts: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Assessment:
    """What training one program showed. Higher fitness is better; `detail` is JSON: by task its value, error, step size, loss."""

    fitness: float
    error: float = 0.0
    worst: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    status: str = "ok"
    detail: Mapping[str, Any] = field(default_factory=dict)


def assess(job: Job) -> list[Assessment]:
    """One assessment for each genome. A program that cannot be trained gets the worst, and says why in `status`."""
    from optlang.search.training import tasks

    started = time.perf_counter()
    starts = job.starts or ({},) * len(job.genomes)
    found = [_Candidate(text, job.form, job.level, start) for text, start in zip(job.genomes, starts, strict=True)]
    for place, name in enumerate(job.level.tasks):
        going = [c for c in found if not c.status and (place == 0 or c.first >= job.hurdle)]
        task = tasks.task(name).longer(job.level.factor)
        for candidate, tuned in _tuned(going, task, job.seeds):
            candidate.judge(task, tuned, job)
    share = (time.perf_counter() - started) / max(len(found), 1)
    return [c.assessment(share) for c in found]


class _Candidate:
    def __init__(self, text: str, form: Form, level: Level, starts: Mapping[str, float]) -> None:
        self.level, self.status, self.starts = level, "", starts
        self.scores: dict[str, dict[str, Any]] = {}
        self.steps = 0
        try:
            self.program = to_program(from_text(text), form)
        except (GenomeError, TypeProblem) as problem:
            self.status = f"failed: {problem}"

    @property
    def first(self) -> float:
        """The value on the first task."""
        return next((float(score["value"]) for score in self.scores.values()), self.level.worst)

    def judge(self, task: Task, tuned: Tuned, job: Job) -> None:
        """Keeps what a task has shown."""
        from optlang.search.training import fitness

        losses = tuned.losses[tuned.best]
        if self.level.measure == "loss":
            value, error = -float(losses.mean()), _standard_error(losses)
        else:
            base = fitness.Baseline.from_json(job.baselines[self.level.key(task.name)])
            score = fitness.score(tuned, base, job.seeds)
            value, error = score.fraction, score.error
        value = value if math.isfinite(value) else self.level.worst
        lr, loss = fitness.rate(tuned.best), float(losses.mean())
        self.scores[task.name] = {"value": value, "error": _finite(error), "lr": lr, "loss": _finite(loss), "runs": tuned.runs}
        self.steps += tuned.steps

    def assessment(self, seconds: float) -> Assessment:
        """A task that was not reached counts as the worst."""
        missing = len(self.level.tasks) - len(self.scores)
        values = [score["value"] for score in self.scores.values()] + [self.level.worst] * missing
        error = sum(score["error"] ** 2 for score in self.scores.values()) ** 0.5 / len(values)
        status = self.status or ("stopped at the hurdle" if missing else "ok")
        if self.status:
            values = [self.level.worst]
        return Assessment(sum(values) / len(values), error, min(values), self.steps, seconds, status, self.scores)


def _standard_error(losses: Any) -> float:
    """Of the mean over seeds; 0 where it cannot be known: for one seed, or where a run diverged."""
    known = len(losses) > 1 and bool(np.isfinite(losses).all())
    return float(losses.std(ddof=1) / np.sqrt(len(losses))) if known else 0.0


def _finite(value: float) -> float:
    """What a store can hold: the error of a single seed is not known, the loss of a diverged run has no bound."""
    return value if math.isfinite(value) else (0.0 if math.isnan(value) else math.copysign(1e30, value))


def _tuned(going: Sequence[_Candidate], task: Task, seeds: Sequence[int]) -> list[tuple[_Candidate, Tuned]]:
    """All candidates in one batch; one that cannot run is left out, and the others go again."""
    from optlang.search.training.fitness import point, tune
    from optlang.search.training.trainer import EntryError

    going = list(going)
    while going:
        try:
            starts = [point(c.starts[task.name]) if task.name in c.starts else None for c in going]
            return list(zip(going, tune([c.program for c in going], task, seeds, starts=starts), strict=True))
        except EntryError as problem:
            going.pop(problem.index).status = f"failed: {problem.reason}"
    return []
