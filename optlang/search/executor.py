"""Who trains: this process, processes of this machine, or the actors of a Ray cluster. Results do not depend on who.

A job is given with `submit`, which returns its number; `collect` waits for its result. A worker that dies, or that takes too
long, is replaced and the job given to another, `RETRIES` times; then the job is reported as failed and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

Work = Callable[[Any], Any]
RETRIES = 2
TIMEOUT = 600.0  # seconds for one job: a hundred times what a batch of programs takes


class JobFailed(Exception):
    """A job that no worker could finish; the message says what happened."""


class Executor(Protocol):
    """Runs one function on many jobs."""

    workers: int

    def submit(self, job: Any) -> int: ...

    def collect(self, ticket: int) -> Any:
        """The result of a job, once. Raises JobFailed."""

    def close(self) -> None: ...


class Serial:
    """In this process, when the result is asked for."""

    workers = 1

    def __init__(self, work: Work) -> None:
        self.work = work
        self.jobs: dict[int, Any] = {}
        self.count = 0

    def submit(self, job: Any) -> int:
        self.count += 1
        self.jobs[self.count] = job
        return self.count

    def collect(self, ticket: int) -> Any:
        try:
            return self.work(self.jobs.pop(ticket))
        except Exception as problem:
            raise JobFailed(_told(problem)) from problem

    def close(self) -> None:
        self.jobs.clear()


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ticket: int = 0  # 0: idle
    since: float = 0.0


@dataclass
class _Job:
    job: Any
    tries: int = 0
    problem: str = ""


@dataclass
class _Result:
    value: Any = None
    problem: str = ""


@dataclass
class Processes:
    """Fresh processes of this machine, started once. `work` must be a function that can be imported."""

    work: Work
    workers: int = 2
    timeout: float = TIMEOUT
    _team: list[_Worker] = field(default_factory=list)
    _waiting: deque[int] = field(default_factory=deque)
    _jobs: dict[int, _Job] = field(default_factory=dict)
    _results: dict[int, _Result] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"{self.workers} workers cannot work; give at least 1")
        self._team = [self._hired() for _ in range(self.workers)]

    def submit(self, job: Any) -> int:
        self._count += 1
        self._jobs[self._count] = _Job(job)
        self._waiting.append(self._count)
        self._hand_out()
        return self._count

    def collect(self, ticket: int) -> Any:
        while ticket not in self._results:
            self._attend(1.0)
        found = self._results.pop(ticket)
        if found.problem:
            raise JobFailed(found.problem)
        return found.value

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        for worker in self._team:
            _dismiss(worker)
        self._team.clear()

    # ------------------------------------------------------------------------------------------------- inside

    def _hired(self) -> _Worker:
        context = mp.get_context("spawn")  # torch does not survive a fork
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self.work), daemon=True, name="optlang-worker")
        process.start()
        there.close()
        return _Worker(process, here)

    def _hand_out(self) -> None:
        for place, worker in enumerate(self._team):
            if not worker.ticket and self._waiting:
                worker.ticket, worker.since = self._waiting.popleft(), time.monotonic()
                try:
                    worker.pipe.send(self._jobs[worker.ticket].job)
                except OSError:
                    self._lost(place, "a worker died")

    def _attend(self, patience: float) -> None:
        """Takes what has come, replaces who died or hangs, and hands out what waits."""
        busy = {worker.pipe: place for place, worker in enumerate(self._team) if worker.ticket}
        for pipe in wait(list(busy), patience):
            place = busy[pipe]  # type: ignore[index]
            try:
                self._done(place, *self._team[place].pipe.recv())
            except (EOFError, OSError):
                self._lost(place, _epitaph(self._team[place]))
        for place, worker in enumerate(self._team):
            if worker.ticket and time.monotonic() - worker.since > self.timeout:
                self._lost(place, f"took more than {self.timeout:g} seconds")
        self._hand_out()

    def _done(self, place: int, value: Any, problem: str) -> None:
        worker = self._team[place]
        self._results[worker.ticket] = _Result(value, problem)
        del self._jobs[worker.ticket]
        worker.ticket = 0

    def _lost(self, place: int, reason: str) -> None:
        """A worker that is no use any more: another takes its place, and its job waits again or is given up."""
        worker = self._team[place]
        job = self._jobs[worker.ticket]
        job.tries += 1
        if job.tries > RETRIES:
            self._results[worker.ticket] = _Result(problem=f"{reason}, {job.tries} times")
            del self._jobs[worker.ticket]
        else:
            self._waiting.appendleft(worker.ticket)
        _dismiss(worker)
        self._team[place] = self._hired()


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life. Ctrl-C is for the process that leads: it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _one_thread()
    with contextlib.suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                answer = (work(job), "")
            except Exception as problem:
                answer = (None, _told(problem))
            pipe.send(answer)


def _one_thread() -> None:
    """Workers share the cores among themselves; and the sums of one thread are the same on every machine."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # for torch, where it is still to be imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _dismiss(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(5)


def _epitaph(worker: _Worker) -> str:
    worker.process.join(1)
    code = worker.process.exitcode
    if code == -signal.SIGKILL:
        return "a worker was killed, perhaps for its memory"
    return f"a worker ended with exit code {code}"


def _told(problem: BaseException) -> str:
    """What went wrong and where, in one line."""
    frame = traceback.extract_tb(problem.__traceback__)[-1:]
    where = f" ({frame[0].filename.rsplit('/', 1)[-1]}, line {frame[0].lineno})" if frame else ""
    return f"{type(problem).__name__}: {problem}{where}"
