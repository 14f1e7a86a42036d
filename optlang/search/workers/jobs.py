"""Jobs between those who give them and those who do them: waiting, under way, back, or lost with a worker and tried again."""

from __future__ import annotations

import os
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optlang.search.workers import life

Work = Callable[[Any], Any]
RETRIES = 2


class JobFailed(Exception):
    """A job that no worker could finish; the message says what happened."""


@dataclass
class Desk:
    """The jobs of a team: what waits, what is under way, and what has come back."""

    _jobs: dict[int, Any] = field(default_factory=dict)
    _tries: dict[int, int] = field(default_factory=dict)
    _waiting: deque[int] = field(default_factory=deque)
    _results: dict[int, tuple[Any, str]] = field(default_factory=dict)
    _count: int = 0

    def add(self, job: Any, first: bool = False) -> int:
        """A new job's ticket. `first`: before all that wait."""
        self._count += 1
        self._jobs[self._count] = job
        (self._waiting.appendleft if first else self._waiting.append)(self._count)
        return self._count

    def next(self) -> int | None:
        """The ticket of a job that waits, which is then under way; None where none waits."""
        return self._waiting.popleft() if self._waiting else None

    def job(self, ticket: int) -> Any:
        return self._jobs[ticket]

    def is_suspect(self, ticket: int) -> bool:
        """Whether a worker was lost with it before."""
        return ticket in self._tries

    def back(self, ticket: int) -> None:
        """A job that was not begun waits again, before all others."""
        self._waiting.appendleft(ticket)

    def done(self, ticket: int, value: Any, problem: str = "") -> None:
        self._results[ticket] = (value, problem)
        del self._jobs[ticket]
        self._tries.pop(ticket, None)

    def lost(self, ticket: int, reason: str) -> None:
        """Whoever had this job is no more: it waits again or is given up."""
        self._tries[ticket] = tries = self._tries.get(ticket, 0) + 1
        if tries > RETRIES:
            self.done(ticket, None, f"{reason}, {tries} times")
        else:
            self.back(ticket)

    def has(self, ticket: int) -> bool:
        """Whether its result has come. Raises KeyError for a job that nobody gave, or whose result was taken before."""
        if ticket not in self._results and ticket not in self._jobs:
            raise KeyError(f"there is no job {ticket}, or its result was collected before")
        return ticket in self._results

    def take(self, ticket: int) -> Any:
        """The result that has come, once. Raises JobFailed."""
        value, problem = self._results.pop(ticket)
        if problem:
            raise JobFailed(problem)
        return value


class Team(ABC):
    """Workers around one desk. A subclass hands out what waits, and takes what comes back. Who has been at a job for `timeout` seconds
    is taken to hang, though it gives signs of life."""

    def __init__(self, timeout: float) -> None:
        self._desk, self.timeout = Desk(), timeout

    def submit(self, job: Any, first: bool = False) -> int:
        """The ticket of a job that is now waiting or under way. `first`: before all that wait."""
        ticket = self._desk.add(job, first)
        self._hand_out()
        return ticket

    def collect(self, ticket: int) -> Any:
        """The result of a job, once. Raises JobFailed."""
        return self._desk.take(self.first([ticket]))

    def first(self, tickets: Collection[int]) -> int:
        """Of some jobs one whose result has come, as soon as there is one."""
        while not (come := [ticket for ticket in tickets if self._desk.has(ticket)]):
            self._attend(1.0)
        return come[0]

    def _overdue(self, since: float) -> str:
        """Why to give up who has been at a job since then; empty while it may go on."""
        return f"took more than {self.timeout:g} seconds" if time.monotonic() - since > self.timeout else ""

    @abstractmethod
    def _hand_out(self) -> None:
        """Jobs that wait go to workers that are free."""

    @abstractmethod
    def _attend(self, patience: float) -> None:
        """Takes what has come within so many seconds, replaces who died or hangs, and hands out what waits."""


def attempt(work: Work, job: Any) -> tuple[Any, str]:
    """The result, or what went wrong. Raises MemoryError: who has run out of memory is better replaced."""
    life.begin()
    try:
        return work(job), ""
    except MemoryError:
        raise
    except Exception as problem:  # whatever the work raises: the others go on
        return None, described(problem)
    finally:
        life.end()


def one_thread() -> None:
    """Workers share the cores among themselves; and the sums of one thread are the same on every machine."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # for torch, where it is still to be imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """For work in a process that is not a worker: its sums are those of workers in here."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def described(problem: BaseException) -> str:
    """What went wrong and where, in one line."""
    frame = traceback.extract_tb(problem.__traceback__)[-1:]
    where = f" ({frame[0].filename.rsplit('/', 1)[-1]}, line {frame[0].lineno})" if frame else ""
    return f"{type(problem).__name__}: {problem}{where}"
