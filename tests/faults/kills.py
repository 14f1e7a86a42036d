"""`kill -9` at random moments of searches and races, in children of a process that has everything loaded.

A child writes down what it was told is finished; what is found after its death must hold at least that, unchanged. It is killed
where it has got so far, and not after so long: that would miss it where the machine is quicker or slower than before.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import optlang
from optlang.race.contest import Contest, race
from optlang.race.entrants import Entrant
from optlang.race.results import Results
from optlang.search.api import Search, resume
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.rounds import Pace
from optlang.search.store.database import Store, StoreError
from optlang.search.training.levels import Level

LEVEL = Level("search", ("planted-momentum",), factor=0.1, seeds=2, measure="loss")
MOST = 4  # times that one search is killed; then it may end
Rows = list[tuple[Any, ...]]


def killed(work: Callable[[], None], log: Path, progress: float, delay: float) -> bool:
    """Runs it in a child, which is killed so many seconds after it has got so far; False where it ends without, as it is to get
    farther than there is. Raises where it fails."""
    child = os.fork()
    if child == 0:
        status = _status(work)
        if status == 0 and math.isfinite(progress):
            signal.pause()  # it was quicker than who kills it, which may wait for a processor
        os._exit(status)
    while said(log) < progress:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert status == 0, f"the child ended with {status}"
            return False
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status != 0


def _status(work: Callable[[], None]) -> int:
    try:
        work()
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0


def said(log: Path, number: int | None = None) -> int:
    """The last number that a child wrote down; with a number, writes it."""
    if number is not None:
        with log.open("a") as file:
            file.write(f"{number}\n")
    numbers = log.read_text().split() if log.exists() else []
    return int(numbers[-1]) if numbers else 0


# ---------------------------------------------------------------------------------------------------------- searches


def started(store: Path) -> Search:
    return optlang.search("sgd-bare", store=store, children=1200, funnel=(LEVEL,), workers=1, seed=5, ageing=Ageing(population=20),
                          pace=Pace(jobs=2, per_job=3, proposals=400, hurdle=0.0))  # fmt: skip


def evaluated(store: Path) -> Rows:
    """Every program with its result, in order; none where there is no store yet."""
    try:
        with Store.read(store) as kept:
            return kept.query("SELECT branch, number, text, parent, change, fitness, steps FROM genomes JOIN assessments "
                              "USING (branch, number) ORDER BY branch, number")  # fmt: skip
    except StoreError:
        return []


def searched(store: Path, log: Path) -> None:
    """Starts a search, or goes on with it, to its end."""
    with resume(store, workers=1) if store.exists() else started(store) as run:
        for _ in run:
            said(log, len(evaluated(store)))


def searches(folder: Path, runs: int, dice: random.Random) -> Counter[str]:
    """Each is killed up to four times and taken up again: it ends as one that was never killed."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    searched(folder / "whole.db", folder / "whole.log")
    whole, steps = evaluated(folder / "whole.db"), (folder / "whole.log").read_text().split()
    pause, middle, last = (time.monotonic() - began) / len(steps), int(steps[len(steps) // 2]), int(steps[-4])
    assert len(whole) > 10
    for number in range(runs):
        store, log, kills = folder / f"{number}.db", folder / f"{number}.log", 0
        while True:
            latest = last if kills else middle  # so that none ends before it has been killed once
            target = dice.randint(said(log), latest) if kills < MOST and said(log) <= latest else math.inf
            if not killed(lambda store=store, log=log: searched(store, log), log, target, dice.uniform(0, pause)):  # type: ignore[misc]
                break
            kills += 1
            rows = evaluated(store)
            assert rows == whole[: len(rows)] and len(rows) >= said(log), f"search {number}: something finished is lost"
        assert evaluated(store) == whole, f"search {number} did not end as one never killed"
        counts.update({"searches": 1, "searches killed": kills > 0, "kills of searches": kills})
    return counts


# ------------------------------------------------------------------------------------------------------------- races


def entrant(name: str) -> Entrant:
    return Entrant(name, lambda named, lr: optlang.load(name, backend="torch")(named, lr=lr))  # type: ignore[call-arg]


def raced(folder: Path, log: Path) -> None:
    save = Contest.save

    def saved(self: Contest) -> None:
        save(self)
        said(log, trained(self.results))

    with mock.patch.object(Contest, "save", saved):
        race([entrant("lion"), entrant("adamw")], seeds=2, steps=12, grid=(1e-3, 1e-2, 1e-1), out=folder, quiet=True)


def trained(results: Results) -> int:
    return sum(len(entry.tuning) + len(entry.finals) for entry in results.entries)


def is_beginning(part: Results, whole: Results) -> bool:
    """Whether a race got so far with the same runs."""
    pairs = [(a.tuning, b.tuning) for a, b in zip(part.entries, whole.entries, strict=True)]
    pairs += [(a.finals, b.finals) for a, b in zip(part.entries, whole.entries, strict=True)]
    return all(_untimed(mine) == _untimed(theirs)[: len(mine)] for mine, theirs in pairs)


def _untimed(runs: Any) -> list[Any]:
    return [(run.step_size, run.seed, run.steps, run.diverged, repr(run.curve), run.test_loss, run.test_accuracy) for run in runs]


def races(folder: Path, runs: int, dice: random.Random) -> Counter[str]:
    """What was saved is there, and results of earlier races stay as they were."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    raced(folder / "whole", folder / "whole.log")
    steps = (folder / "whole.log").read_text().split()
    pause, last = (time.monotonic() - began) / len(steps), int(steps[-3])
    [path] = (folder / "whole").glob("*.json")
    whole, known = Results.from_json(path.read_text()), dict[Path, bytes]()
    for number in range(runs):
        log = folder / f"{number}.log"
        target, delay = dice.randint(0, last), dice.uniform(0, pause)
        is_killed = killed(lambda log=log: raced(folder / "all", log), log, target, delay)  # type: ignore[misc]
        here = {path: path.read_bytes() for path in sorted((folder / "all").glob("*.json"))}
        assert known.items() <= here.items(), f"race {number} changed what was there"
        fresh = [Results.from_json(here[path].decode()) for path in here.keys() - known.keys()]
        assert len(fresh) <= 1 and sum(map(trained, fresh)) >= said(log), f"race {number}: something finished is lost"
        assert all(is_beginning(part, whole) for part in fresh), f"race {number}: other results"
        known = here
        counts.update({"races": 1, "races killed": is_killed})
    return counts

