"""Who trains: this process or processes of this machine; `cluster` adds the actors of a Ray cluster. Results do not depend on who.

A job is given with `submit`, which returns its number; `collect` waits for its result. A worker that dies, or that hangs (see
`life`), is replaced and the job given to another, `RETRIES` times; then the job is reported as failed and the others go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from optlang.search.workers import life
from optlang.search.workers.jobs import JobFailed, Team, Work, attempt, described, in_one_thread, one_thread

__all__ = ["Executor", "JobFailed", "Processes", "Serial"]

OUT_OF_MEMORY = 77  # the exit code of a worker that noticed it itself
START = 120.0  # seconds that a new worker may take to load what it needs, which are no part of its job's
TIMEOUT = 7_200.0  # seconds for a job: minutes for a program on a later level, and more where others use the cores, too


class Executor(Protocol):
    """Runs one function on many jobs."""

    workers: int

    def submit(self, job: Any, first: bool = False) -> int:
        """The ticket of a job. `first`: before all that wait."""

    def collect(self, ticket: int) -> Any:
        """The result of a job, once. Raises JobFailed."""

    def first(self, tickets: Collection[int]) -> int:
        """Of some jobs one whose result has come, as soon as there is one."""

    def close(self) -> None: ...


class Serial:
    """In this process, when the result is asked for."""

    workers = 1

    def __init__(self, work: Work) -> None:
        self.work = work
        self.jobs: dict[int, Any] = {}
        self.count = 0

    def submit(self, job: Any, first: bool = False) -> int:
        self.count += 1
        self.jobs[self.count] = job
        return self.count

    def first(self, tickets: Collection[int]) -> int:
        return next(iter(tickets))

    def collect(self, ticket: int) -> Any:
        try:
            with in_one_thread():
                return self.work(self.jobs.pop(ticket))
        except Exception as problem:  # whatever the work raises
            raise JobFailed(described(problem)) from problem

    def close(self) -> None:
        self.jobs.clear()


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    ticket: int = 0  # 0: idle
    since: float = 0.0
    ready: bool = False


class Processes(Team):
    """Fresh processes of this machine, started once. `work` must be a function that can be imported."""

    def __init__(self, work: Work, workers: int = 2, timeout: float = TIMEOUT) -> None:
        super().__init__(timeout)
        if workers < 1:
            raise ValueError(f"{workers} workers cannot work; give at least 1")
        self.work, self.workers = work, workers
        self._team = [self._hired() for _ in range(workers)]

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
        with _interrupts_wait(), _without_the_script():
            process.start()
        there.close()
        return _Worker(process, here)

    def _hand_out(self) -> None:
        for place, worker in enumerate(self._team):
            if worker.ticket or (ticket := self._desk.next()) is None:
                continue
            worker.ticket, worker.since = ticket, time.monotonic() + (0 if worker.ready else START)
            try:
                worker.pipe.send(self._desk.job(ticket))
            except OSError:
                self._lost(place, "a worker died")
            except Exception as problem:  # a job that cannot be sent; nothing of it has left
                self._done(place, None, f"the job cannot be sent to a worker: {problem}")

    def _attend(self, patience: float) -> None:
        busy: dict[Any, int] = {worker.pipe: place for place, worker in enumerate(self._team) if worker.ticket}
        for pipe in wait(list(busy), patience):
            place = busy[pipe]
            try:
                self._heard(place, self._team[place].pipe.recv())
            except (EOFError, OSError):
                self._lost(place, _epitaph(self._team[place]))
        for place, worker in enumerate(self._team):
            if worker.ticket and (reason := self._overdue(worker.since)):
                self._lost(place, reason)
        self._hand_out()

    def _heard(self, place: int, answer: tuple[Any, str] | None) -> None:
        """None: a new worker has loaded what it needs, and begins."""
        if answer is not None:
            self._done(place, *answer)
            return
        worker = self._team[place]
        worker.ready, worker.since = True, time.monotonic()

    def _done(self, place: int, value: Any, problem: str) -> None:
        worker = self._team[place]
        self._desk.done(worker.ticket, value, problem)
        worker.ticket = 0

    def _lost(self, place: int, reason: str) -> None:
        """A worker that is no use any more: another takes its place."""
        worker = self._team[place]
        self._desk.lost(worker.ticket, reason)
        _dismiss(worker)
        self._team[place] = self._hired()


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life. Ctrl-C is for the process that leads: it ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # see `_interrupts_wait`; what has come is ignored, too
    threading.Thread(target=_end_with_leader, daemon=True).start()
    with contextlib.suppress(OSError):  # where memory ends, as of a task that leaks, a worker goes, which is replaced, not its leader
        Path("/proc/self/oom_score_adj").write_text("500")
    one_thread()
    life.watch()
    with contextlib.suppress(EOFError, OSError):  # whoever leads is gone
        pipe.send(None)
        while True:
            job = pipe.recv()
            try:
                answer = attempt(work, job)
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            try:
                pipe.send(answer)
            except (EOFError, OSError):
                raise
            except Exception as problem:  # pickling a result may raise anything
                pipe.send((None, f"the result cannot be sent: {problem}"))


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """A worker that starts here takes no notice of Ctrl-C before it can say so itself; here it comes a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which lets interrupts through when it has started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _without_the_script() -> Iterator[None]:
    """A worker that starts here does not run the script that leads, which would begin a search of its own in each."""
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _end_with_leader() -> None:
    """A leader that was killed cannot end its workers; and a job that hangs would never notice."""
    leader = mp.parent_process()
    if leader is not None:
        wait([leader.sentinel])
        os._exit(1)


def _dismiss(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join(5)


def _epitaph(worker: _Worker) -> str:
    worker.process.join(10)
    code = worker.process.exitcode
    if code == OUT_OF_MEMORY:
        return "a worker ran out of memory"
    if code == life.HANGS:
        return f"a worker took no step for {life.SILENT:g} seconds"
    if code == -signal.SIGKILL:
        return "a worker was killed, perhaps for its memory"
    return f"a worker ended with exit code {code}"
