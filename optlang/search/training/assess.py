"""One job of a search: some programs trained on the tasks of a level. It travels to workers and back as plain values."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from optlang.search.programs.genome import Form, Genome, GenomeError, from_text, to_program, to_text
from optlang.search.training.levels import Level
from optlang.types import TypeProblem

if TYPE_CHECKING:
    from optlang.search.screening.sieve import Looks
    from optlang.search.training.fitness import Grid, Tuned
    from optlang.search.training.tasks import Task


TRIED = "stopped at the trial"


@dataclass(frozen=True)
class Regime:
    """Under which programs of one form are trained, so that their fitness can be compared. `baselines` and `seeds` as in `Job`."""

    form: Form
    level: Level
    baselines: Mapping[str, Any]
    seeds: tuple[int, ...]

    def job(self, genomes: Iterable[Genome], **more: Any) -> Job:
        """`more`: what else a job has."""
        return Job(tuple(map(to_text, genomes)), self.form, self.level, self.baselines, self.seeds, **more)


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
    hurdles: tuple[float, ...] = ()  # by task: who is below this there is not trained on the tasks after it
    starts: tuple[Mapping[str, float], ...] = ()
    trial: float | None = None  # who is below this in a trial, one seed on the first task, is trained no further


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


@dataclass(frozen=True)
class Curve:
    """Another kind of job: AdamW's curve on a task at the horizon of a level. What comes back is `Baseline.to_json`."""

    task: str
    level: Level
    seeds: tuple[int, ...]


def work(job: Job | Curve | Looks) -> Any:
    """What a worker of a search does."""
    if isinstance(job, Job):
        return assess(job)
    return curve(job) if isinstance(job, Curve) else job.done()


def curve(job: Curve) -> dict[str, Any]:
    from optlang.search.training import fitness, loading

    return fitness.baseline(loading.task(job.task).longer(job.level.factor), job.seeds).to_json()


def assess(job: Job) -> list[Assessment]:
    """One assessment for each genome. A program that cannot be trained gets the worst, and says why in `status`."""
    from optlang.search.training import loading

    started = time.perf_counter()
    starts = job.starts or ({},) * len(job.genomes)
    found = [_Candidate(text, job.form, job.level, start) for text, start in zip(job.genomes, starts, strict=True)]
    going = found if job.trial is None else _tried(found, job, job.trial)
    for name, hurdle in zip_longest(job.level.tasks, job.hurdles, fillvalue=-math.inf):
        task = loading.task(name).longer(job.level.factor)
        for candidate, tuned in _tuned(going, task, job.seeds):
            candidate.judge(task, tuned, job)
        going = [c for c in going if name in c.scores and c.scores[name]["value"] >= hurdle]
    share = (time.perf_counter() - started) / max(len(found), 1)
    return [c.assessment(share) for c in found]


def _tried(found: Sequence[_Candidate], job: Job, least: float) -> list[_Candidate]:
    """Those that pass the trial: few step sizes, one seed, the first task. Their tuning goes on from the best."""
    from optlang.search.training import loading
    from optlang.search.training.fitness import Grid

    name, less, passed = job.level.tasks[0], replace(job, seeds=job.seeds[:1]), []
    task = loading.task(name).longer(job.level.factor)
    for candidate, tuned in _tuned(found, task, less.seeds, Grid(extensions=0, refined=False)):
        candidate.judge(task, tuned, less)
        candidate.tried = candidate.scores[name]["trial"] = candidate.scores[name]["value"]
        candidate.starts = {**candidate.starts, name: candidate.scores[name]["lr"]}
        if candidate.tried >= least:
            passed.append(candidate)
        else:
            candidate.ended = TRIED
    return passed


class _Candidate:
    def __init__(self, text: str, form: Form, level: Level, starts: Mapping[str, float]) -> None:
        self.level, self.status, self.ended, self.starts = level, "", "", starts
        self.scores: dict[str, dict[str, Any]] = {}
        self.tried: float | None = None  # what the trial has shown
        self.steps = 0
        try:
            self.program = to_program(from_text(text), form)
        except (GenomeError, TypeProblem) as problem:
            self.status = f"failed: {problem}"

    def judge(self, task: Task, tuned: Tuned, job: Job) -> None:
        """Keeps what a task has shown."""
        from optlang.search.training import fitness

        losses = tuned.losses[tuned.best]
        if self.level.measure == "loss":
            value, error = -float(losses.mean()), _standard_error(losses)
        else:
            base = fitness.Baseline.from_json(job.baselines[self.level.key(task.name)])
            value, error = fitness.score(tuned, base, job.seeds)
        value = value if math.isfinite(value) else self.level.worst
        lr, loss = fitness.rate(tuned.best), float(losses.mean())
        self.scores[task.name] = {"value": value, "error": _finite(error), "lr": lr, "loss": _finite(loss), "runs": tuned.runs}
        if self.tried is not None and task.name == self.level.tasks[0]:
            self.scores[task.name]["trial"] = self.tried
        self.steps += tuned.steps

    def assessment(self, seconds: float) -> Assessment:
        """A task that was not reached counts as the worst."""
        missing = len(self.level.tasks) - len(self.scores)
        values = [score["value"] for score in self.scores.values()] + [self.level.worst] * missing
        error = sum(score["error"] ** 2 for score in self.scores.values()) ** 0.5 / len(values)
        status = self.status or self.ended or ("stopped at a hurdle" if missing else "ok")
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


def _tuned(found: Sequence[_Candidate], task: Task, seeds: Sequence[int], grid: Grid | None = None) -> list[tuple[_Candidate, Tuned]]:
    """All candidates in one batch; one that cannot run is left out, and the others go again."""
    from optlang.search.training.fitness import point, tune
    from optlang.search.training.trainer import EntryError

    going = [c for c in found if not c.status]
    while going:
        try:
            starts = [point(c.starts[task.name]) if task.name in c.starts else None for c in going]
            return list(zip(going, tune([c.program for c in going], task, seeds, grid, starts=starts), strict=True))
        except EntryError as problem:
            going.pop(problem.index).status = f"failed: {problem.reason}"
    return []
