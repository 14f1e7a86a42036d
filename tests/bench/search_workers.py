"""What workers cost: `python tests/bench/search_workers.py [processes|ray] [JOBS]`.

A job trains sign-momentum on a small task, a few tenths of a second. For 1 and 2 workers, in turn and three times: jobs a
second; the share of the workers' time that went into jobs; and processor seconds of a job. The last two say what efficiency is
lost to the team, whatever else the machine does meanwhile; jobs a second tell only on a machine that is idle.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

RATES = (1e-4, 1e-3, 1e-2, 1e-1)


def work(seeds: tuple[int, ...]) -> tuple[float, float, float]:
    """The lowest mean loss, the seconds that this took, and those of the processor."""
    from optlang.rules import Rule
    from optlang.search.training.loading import task
    from optlang.search.training.trainer import Entry, train

    started, worked = time.perf_counter(), time.process_time()
    [found] = train(task("cancer-mlp"), [Entry(Rule("signum").program, {"lr": list(RATES)})], seeds)
    return float(found.losses.mean(axis=1).min()), time.perf_counter() - started, time.process_time() - worked


def team(kind: str, workers: int) -> Any:
    from search_workers import work as importable  # under the name by which workers find it

    if kind == "ray":
        from optlang.search.workers.cluster import Cluster

        return Cluster(importable, workers)
    from optlang.search.workers.executor import Processes

    return Processes(importable, workers)


@dataclass(frozen=True)
class Measured:
    """`rate`: jobs a second. `busy`: share of the workers' time. `cost`: processor seconds of a job, median."""

    rate: float
    busy: float
    cost: float
    losses: list[float]


def measure(kind: str, workers: int, jobs: int) -> Measured:
    some = team(kind, workers)
    try:
        for ticket in [some.submit((n,)) for n in range(4 * workers)]:
            some.collect(ticket)  # torch is imported, data are there
        started = time.perf_counter()
        found = [some.collect(ticket) for ticket in [some.submit(tuple(range(n, n + 10))) for n in range(jobs)]]
        elapsed = time.perf_counter() - started
    finally:
        some.close()
    losses, seconds, worked = zip(*found, strict=True)
    return Measured(jobs / elapsed, sum(seconds) / (workers * elapsed), statistics.median(worked), list(losses))


def compared(kind: str, jobs: int) -> dict[str, Any]:
    """Efficiency from 1 to 2 workers, medians of three."""
    os.environ["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")])
    by_clock, by_work = [], []
    for _ in range(3):
        one, two = measure(kind, 1, jobs), measure(kind, 2, jobs)
        assert one.losses == two.losses, "results depend on the number of workers"
        for n, found in enumerate((one, two), 1):
            print(f"{n} workers: {found.rate:.2f} jobs/s, busy {found.busy:.1%}, {found.cost:.3f} processor seconds a job")
        by_clock.append(two.rate / (2 * one.rate))
        by_work.append(two.busy * one.cost / (one.busy * two.cost))
    found = {"by the clock": by_clock, "by busy share and processor seconds": by_work}
    return {"team": kind, "jobs": jobs, **{name: round(statistics.median(values), 3) for name, values in found.items()}}


def main(kind: str = "processes", jobs: str = "60") -> None:
    print(f"efficiency from 1 to 2 workers: {compared(kind, int(jobs))}; results alike")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(*sys.argv[1:])
