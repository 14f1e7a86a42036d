"""The jobs of a search: what comes back is kept in the store, so that a search that was cut off has nothing trained twice."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from optlang.search.store.database import Store
from optlang.search.training.assess import Assessment, Job
from optlang.search.workers.executor import Executor, JobFailed

Ticket = tuple[str, Job, int | None]  # the job's digest, and its number with the executor where it is under way


class KeptJobs:
    """Jobs for an executor. `finished`: digests, until they are dropped."""

    def __init__(self, store: Store, executor: Executor) -> None:
        self.store, self.executor = store, executor
        self.finished: list[str] = []

    def submit(self, job: Job) -> Ticket:
        """A job on its way. One that was finished before the search was cut off is not done again."""
        digest = hashlib.sha256(pickle.dumps((job.genomes, job.form, job.level, job.seeds, job.hurdles, job.starts, job.trial))).hexdigest()
        return digest, job, None if self.store.job(digest) is not None else self.executor.submit(job)

    def collect(self, ticket: Ticket) -> Sequence[Assessment]:
        """What a job has found. Where its worker failed, all programs have the worst fitness and say why."""
        digest, job, number = ticket
        self.finished.append(digest)
        if number is None:
            return [Assessment(**one) for one in self.store.job(digest)]
        try:
            found: Sequence[Assessment] = self.executor.collect(number)
        except JobFailed as problem:
            found = [Assessment(job.level.worst, status=f"failed: {problem}") for _ in job.genomes]
        self.store.save_job(digest, [asdict(one) for one in found])
        return found

    def all(self, jobs: Sequence[Job], say: Callable[[str], None]) -> list[Sequence[Assessment]]:
        """The results of jobs in their order, each kept as soon as it is there. `say` hears how many programs are trained."""
        tickets, programs = [self.submit(job) for job in jobs], sum(len(job.genomes) for job in jobs)
        found: dict[int, Sequence[Assessment]] = {}
        for place in self._as_they_come(tickets):
            found[place] = self.collect(tickets[place])
            say(f"{jobs[place].level.name}: {sum(map(len, found.values()))} of {programs} programs trained")
        return [found[place] for place in range(len(jobs))]

    def _as_they_come(self, tickets: Sequence[Ticket]) -> Iterator[int]:
        """The places of jobs in the order in which they are finished: none waits for a slower one to be kept."""
        numbers = [number for _, _, number in tickets]
        yield from (place for place, number in enumerate(numbers) if number is None)
        going = {number: place for place, number in enumerate(numbers) if number is not None}
        while going:
            yield going.pop(self.executor.first(going))
