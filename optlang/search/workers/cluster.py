"""Who trains, on many machines: the actors of a Ray cluster, or of a Ray that is started on this machine alone.

Ray Core does no more here than run one function in actors that stay; what is waited for, lost and tried again is ours, as for
processes. Every actor has one job under way and one in line, so that none idles while results travel. All machines need the
same environment (optlang and what it needs, the files of tasks); `ray start --head` on one and `ray start --address=HOST:6379`
on the others make a cluster, whose address is then `HOST:6379`, or `auto` on a machine of the cluster.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from optlang.search.workers import life
from optlang.search.workers.executor import TIMEOUT
from optlang.search.workers.jobs import Team, Work, attempt, one_thread

WINDOW = 2  # jobs that an actor has at once, so that about twice as many are under way as there are actors
START = 120.0  # seconds until the first actor must be there
MEMORY = 128 * 2**20  # bytes for results of a Ray that is started here: they are small


class ClusterError(Exception):
    """A cluster that cannot be worked with; the message says why, and what to do."""


@dataclass
class _Actor:
    handle: Any
    hello: Any  # comes when it has started; until then it is given nothing
    ready: bool = False
    line: deque[tuple[int, Any]] = field(default_factory=deque)  # ticket and reference, in the order of the work
    since: float = 0.0  # when the first of the line began

    @property
    def awaited(self) -> Any:
        """The reference to wait for next; None where there is none."""
        return (self.line[0][1] if self.line else None) if self.ready else self.hello


class Cluster(Team):
    """Actors with one core each. `work` must be a function that can be imported on every machine.

    `workers` None: as many as the cluster has cores. `address` None: a Ray of this machine, started if there is none. Raises
    ClusterError where Ray is not installed or cannot be reached.
    """

    def __init__(self, work: Work, workers: int | None = None, address: str | None = None, timeout: float = TIMEOUT) -> None:
        super().__init__(timeout)
        if workers is not None and workers < 1:
            raise ValueError(f"{workers} workers cannot work; give at least 1")
        self.work = work
        self.ray = _imported()
        self._ours = _joined(self.ray, workers, address)  # a Ray that somebody else has started is left running
        self.workers = workers or int(self.ray.cluster_resources().get("CPU", 1))
        self._remote = self.ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._team = [self._hired() for _ in range(self.workers)]
        self._started = time.monotonic()

    def close(self) -> None:
        """Ends the actors, whatever they are doing, and the Ray that was started for them."""
        if self.ray.is_initialized():
            for actor in self._team:
                self.ray.kill(actor.handle)
            if self._ours:
                self.ray.shutdown()
        self._team.clear()

    # ------------------------------------------------------------------------------------------------- inside

    def _hired(self) -> _Actor:
        handle = self._remote.remote(self.work)
        return _Actor(handle, handle.hello.remote())

    def _hand_out(self) -> None:
        # first one job for each, then one in line for each
        for length in range(WINDOW):
            for actor in self._team:
                if self._has_room(actor, length) and (ticket := self._desk.next()) is not None:
                    self._give(actor, ticket)

    def _has_room(self, actor: _Actor, length: int) -> bool:
        """Nothing waits behind a job that was lost: who dies while its result is on the way may have been killed by the next one."""
        return actor.ready and len(actor.line) == length and not any(self._desk.is_suspect(ticket) for ticket, _ in actor.line)

    def _give(self, actor: _Actor, ticket: int) -> None:
        try:
            reference = actor.handle.attempt.remote(self._desk.job(ticket))
        except Exception as problem:  # Ray raises many things where a job cannot be pickled
            self._desk.done(ticket, None, f"the job cannot be sent to a worker: {problem}")
            return
        if not actor.line:
            actor.since = time.monotonic()
        actor.line.append((ticket, reference))

    def _attend(self, patience: float) -> None:
        """Raises ClusterError where no actor can be started."""
        awaited = {actor.awaited: place for place, actor in enumerate(self._team) if actor.awaited is not None}
        come, _ = self.ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        if not come:
            come, _ = self.ray.wait(list(awaited), num_returns=1, timeout=patience)
        for reference in come:
            self._take(awaited[reference], reference)
        self._watch()
        self._hand_out()

    def _take(self, place: int, reference: Any) -> None:
        actor = self._team[place]
        try:
            value, problem = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # the actor lives: what it made could not be sent
            value, problem = None, f"the result cannot be sent: {str(error).strip().splitlines()[-1]}"
        except self.ray.exceptions.RayError as error:
            self._lost(place, _reason(error))
            return
        if not actor.ready:
            actor.ready = True
            return
        self._desk.done(actor.line.popleft()[0], value, problem)
        actor.since = time.monotonic()

    def _watch(self) -> None:
        for place, actor in enumerate(self._team):
            if actor.line and (reason := self._overdue(actor.since)):
                self._lost(place, reason)
        if not any(actor.ready for actor in self._team) and time.monotonic() - self._started > START:
            raise ClusterError(
                f"no actor could be started within {START:g} seconds: has the cluster free cores, and has every machine the same "
                "environment? `ray status` tells"
            )

    def _lost(self, place: int, reason: str) -> None:
        """An actor that is no use any more: another takes its place. What it had not begun waits again."""
        actor = self._team[place]
        self.ray.kill(actor.handle)
        if not any(other.ready for other in self._team if other is not actor):
            self._started = time.monotonic()
        tickets = [ticket for ticket, _ in actor.line]
        for ticket in tickets[:0:-1]:
            self._desk.back(ticket)
        if tickets:
            self._desk.lost(tickets[0], reason)
        self._team[place] = self._hired()


class _Worker:
    """What runs on the machines of the cluster."""

    def __init__(self, work: Work) -> None:
        one_thread()
        life.watch()
        self.work = work

    def hello(self) -> tuple[None, str]:
        return None, ""

    def attempt(self, job: Any) -> tuple[Any, str]:
        try:
            return attempt(self.work, job)
        except MemoryError:
            os._exit(1)


def _imported() -> Any:
    """Ray, which is told to send nobody statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as problem:
        raise ClusterError("Ray is not installed: `pip install 'optlang-rules[ray]'`, or leave out `--ray`") from problem
    return ray


def _joined(ray: Any, workers: int | None, address: str | None) -> bool:
    """Whether Ray was started or joined here, and so is to be left again at the end."""
    if ray.is_initialized():
        return False
    local = {"num_cpus": workers, "object_store_memory": MEMORY, "include_dashboard": False} if address is None else {}
    try:
        _knock(address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings of its own
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **local)
    except (OSError, RuntimeError, ValueError) as problem:
        what = f"the cluster at {address}" if address else "a Ray of this machine"
        raise ClusterError(f"{what} cannot be reached: {problem}. Is it running (`ray status`)?") from problem
    return True


def _knock(address: str | None) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes, and then end the process."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _reason(error: Exception) -> str:
    """Why an actor was lost, in a few words."""
    if "OutOfMemory" in type(error).__name__:
        return "a worker was killed for its memory"
    return f"a worker or its machine died, or took no step for {life.SILENT:g} seconds"
