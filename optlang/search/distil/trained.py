"""The batched trainer as that of an ablation, on tasks of the search, by whoever is free; what is trained is kept if it is to be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from optlang.ir import Program
from optlang.printing.rule_text import to_opt
from optlang.search.distil.ablation import Asked
from optlang.search.workers.executor import Executor, Serial

Array = Any  # numpy.ndarray
RUNS = 48  # of a job: as many as are trained at once


class Memory(Protocol):
    """Keeps what jobs have shown: see `store.database.Store`."""

    def job(self, digest: str) -> Any: ...

    def save_job(self, digest: str, result: Any) -> None: ...


@dataclass(frozen=True)
class Training:
    """A job: some rules on one task with one step size. `ratios`: losses are compared by their logarithm."""

    task: str
    factor: float
    lr: float
    programs: tuple[Program, ...]
    seeds: tuple[int, ...]
    ratios: bool = True

    @property
    def digest(self) -> str:
        rules = [to_opt(program) for program in self.programs]
        return hashlib.sha256(repr(("ablation", self.task, self.factor, self.lr, rules, self.seeds, self.ratios)).encode()).hexdigest()

    def result(self) -> list[list[float]]:
        """The held-out loss at the end, [programs][seeds]; infinite where a rule diverged or does not fit."""
        from optlang.search.training.loading import task
        from optlang.search.training.trainer import Entry, EntryError, train

        losses, places = np.full((len(self.programs), len(self.seeds)), np.inf), list(range(len(self.programs)))
        while places:
            programs = [self.programs[place] for place in places]
            entries = [Entry(one, {"lr": [self.lr]} if any(h.name == "lr" for h in one.hypers) else {}) for one in programs]
            try:
                for place, outcome in zip(places, train(task(self.task).longer(self.factor), entries, self.seeds), strict=True):
                    losses[place] = outcome.losses[0]
                break
            except EntryError as refused:
                places.pop(refused.index)
        with np.errstate(all="ignore"):
            found: list[list[float]] = (np.log(losses) if self.ratios else losses).tolist()
        return found


class Trained:
    """A `Trainer`. With `ratios`, a difference of 0.03 is 3 % of the loss. `rates`: by task the step size that all are trained with."""

    def __init__(
        self, rates: Mapping[str, float], factor: float = 1.0, ratios: bool = True, executor: Executor | None = None,
        memory: Memory | None = None,
    ) -> None:  # fmt: skip
        self.rates, self.factor, self.ratios = dict(rates), factor, ratios
        self.tasks = tuple(rates)
        self.executor, self.memory = executor or Serial(Training.result), memory
        self.digests: list[str] = []  # of what the memory has because of this ablation

    @classmethod
    def tuned(cls, program: Program, tasks: Sequence[str], factor: float = 1.0, seeds: Sequence[int] = (100_001, 100_002)) -> Trained:
        """With the step size that is best for a rule on each task. Raises EntryError where the rule cannot be trained."""
        from optlang.search.training.fitness import rate, tune
        from optlang.search.training.loading import task

        return cls({name: rate(tune([program], task(name).longer(factor), seeds)[0].best) for name in tasks}, factor)

    def losses(self, asked: Sequence[Asked]) -> list[Array]:
        """Each request in pieces of `RUNS`, whoever trains, so that the sums are the same."""
        jobs = [self._jobs(one) for one in asked]
        results = self._done([job for some in jobs for job in some])
        return [np.concatenate([np.asarray(results[job.digest]) for job in some]) for some in jobs]

    def _jobs(self, asked: Asked) -> list[Training]:
        size = max(1, RUNS // len(asked.seeds))
        parts = [tuple(asked.programs[start : start + size]) for start in range(0, len(asked.programs), size)]
        rate, seeds = self.rates[asked.task], tuple(asked.seeds)
        return [Training(asked.task, self.factor, rate, part, seeds, self.ratios) for part in parts]

    def _done(self, jobs: Sequence[Training]) -> dict[str, Any]:
        """What jobs show, by digest; what the memory has is not done again."""
        kept = {} if self.memory is None else {job.digest: self.memory.job(job.digest) for job in jobs}
        done = {digest: result for digest, result in kept.items() if result is not None}
        going = {self.executor.submit(job): job.digest for job in jobs if job.digest not in done}
        while going:
            ticket = self.executor.first(going)
            digest = going.pop(ticket)
            done[digest] = self.executor.collect(ticket)
            if self.memory is not None:
                self.memory.save_job(digest, done[digest])
        self.digests += done
        return done
