"""A search from Python: `for progress in optlang.search("adamw", minutes=10): …`.

    import optlang

    run = optlang.search("adamw", store="run.db", minutes=30)
    for progress in run:                       # one round after another; `run.stop()` ends it in good order
        print(progress.round.best.fitness)
    for level, results in run.promote():       # longer tasks, then the hold-out, opened once
        print(level.name, results[0].assessment.fitness)
    print(run.best().rule(run.form))           # a `.opt` file
    print(run.shortened().text)                # without parts that training does as well without; `.trace` says which
    run.finals()                               # the best against AdamW and others, all tuned alike
    Path("report.html").write_text(run.report())

Tasks are names of built-in ones, or Python files with a class as `optlang race` takes it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from optlang.search.evolution.hunt import Hunt, Progress
from optlang.search.evolution.rounds import OVERLAP, Pace, jobs_for
from optlang.search.evolution.settings import EVOLUTION, WITH_BASELINES, Budget, Settings
from optlang.search.programs.genome import SLOTS, Form, GenomeError
from optlang.search.programs.seeds import seed as seed_genome
from optlang.search.programs.space import Space
from optlang.search.shortening import Short, by_training
from optlang.search.store.database import Store
from optlang.search.store.found import Found, find, hall_of_fame, pareto, write_hall
from optlang.search.training.assess import work
from optlang.search.training.funnel import Promoted
from optlang.search.training.levels import FINAL, FUNNEL, HOLDOUT, SEARCH, VALIDATION, Level
from optlang.search.training.loading import task
from optlang.search.training.tasks import TaskError
from optlang.search.workers.executor import Executor, Processes, Serial
from optlang.search.workers.life import said_after

Tell = Callable[[str], None] | None  # hears what is under way
HALL_EVERY = 60.0  # seconds between two hall-of-fame folders
SLOW = 30.0  # seconds after which a task that is tried is named


class Search:
    """A search that is iterated over, round by round. What it has found is in its store at any moment."""

    def __init__(self, store: Store, executor: Executor, tell: Tell = None) -> None:
        self.store, self.executor = store, executor
        self.hunt = Hunt(store, executor, tell=tell)
        self.form: Form = self.hunt.settings.space.form
        self.level = self.hunt.search_level.name
        self.was_stopped = False
        self._hall_due = time.monotonic()

    def __iter__(self) -> Iterator[Progress]:
        for progress in self.hunt.run():
            if time.monotonic() > self._hall_due:
                self.write_hall()
            yield progress
        self.write_hall()

    def stop(self) -> None:
        """Ends the search after the round under way; it can be taken up again with `resume`."""
        self.was_stopped = True
        self.hunt.stop()

    def describe(self) -> str:
        """What is searched, in a line."""
        settings, strands = self.hunt.settings, self.hunt.strands
        seeds = " and ".join(f"{one.assessment.fitness:.4f}" for one in self.hunt.seeds)
        remark = settings.remark()
        jobs, workers = OVERLAP * settings.pace.jobs * len(strands), self.executor.workers
        idle = f", {workers - jobs} of them idle: --jobs {jobs_for(workers)} would have work for all" if workers > jobs else ""
        what = ", ".join(strands) if settings.pace.own else f"what is proposed, by `optlang search propose {self.store.path} FILE.opt`,"
        return (f"{what} on {', '.join(self.hunt.search_level.tasks)}; {len(settings.space.functions)} functions; "
                f"seeds have {seeds}; {workers} workers{idle}{remark and f'; {remark}'}")  # fmt: skip

    def ended(self) -> str:
        """Why there is nothing left to search, and what to do; empty where there is."""
        return self.hunt.ended()

    def promote(self, tell: Tell = None) -> Iterator[tuple[Level, list[Promoted]]]:
        """The best of the search through the levels of the funnel, which takes long: `tell` hears what is under way."""
        return self.hunt.promote(tell)

    def best(self) -> Found:
        """The fittest program so far."""
        return find(self.store, "best", self.level)

    def hall_of_fame(self, count: int = 10) -> list[Found]:
        return hall_of_fame(self.store, self.level, count)

    def pareto(self) -> list[Found]:
        """Programs that no other beats in fitness with no more statements and slots."""
        return pareto(self.store, self.level)

    def write_hall(self) -> list[Path]:
        """The hall of fame as `.opt` files beside the store."""
        self._hall_due = time.monotonic() + HALL_EVERY
        return write_hall(self.store, self.level, self.form, Path(f"{self.store.path}.hall"))

    def shortened(self, name: str = "best", minutes: float = math.inf, tell: Tell = None) -> Short:
        """A rule without the parts that change nothing, by algebra or by training on the tasks of the search (minutes, once)."""
        return by_training(self.store, find(self.store, name, self.level), self.hunt.settings, tell=tell, seconds=60 * minutes)

    def finals(self) -> dict[str, Any]:
        """The best against known rules, all tuned alike, as plain values: see `optlang.search.finals`. Raises SettingsError."""
        from optlang.search.finals import decided

        return decided(self.store, self.hunt.settings)

    def report(self) -> str:
        """One page with everything, as HTML."""
        from optlang.search.report import page

        return page(self.store)

    def close(self) -> None:
        """Ends the workers and frees the store."""
        self.executor.close()
        self.store.close()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def search(
    *seeds: str, store: str | Path = "search.db", minutes: float = 0.0, children: int = 0, steps: int = 0,
    tasks: Sequence[str] | None = None, space: str | Space = "default", baselines: bool = False, workers: int | None = None,
    ray: str | None = None, jobs: int | None = None, seed: int = 0, only_proposals: bool = False, tell: Tell = None, **settings: Any,
) -> Search:  # fmt: skip
    """A new search from some rules (library names, `.opt` files; AdamW if none is given), to be iterated over.

    It ends at `minutes`, `children` or training `steps`, whichever comes first. `tasks` replace those of the first level.
    `space` is "default", "lion", "rich" or a `Space`; `baselines` adds random search and constants-only evolution, each with
    four times the budget; `ray` is the address of a cluster; `jobs` go to workers at once, enough for `workers` if not said
    otherwise: the same search for the same number of jobs, whoever trains; with `only_proposals` it makes no children, but trains
    what others propose, on all tasks, and needs no budget: `stop` ends it; `tell` hears what is under way while it is set up, as
    in `tell=print`. Other settings are those of `Settings`. Raises ValueError with what is wrong, StoreError.
    """
    hands = workers or (1 if ray else os.cpu_count() or 1)
    pace = Pace().with_jobs(jobs_for(hands) if jobs is None else jobs)
    if only_proposals:  # each a job of its own: who proposes one waits for no other
        pace = Pace(jobs=max(Pace.jobs, hands) if jobs is None else jobs, per_job=1, hurdle=0.0, own=False)
        settings = {"validate_every": 0, **settings}
    made = Settings(
        space if isinstance(space, Space) else space_of(space, seeds or ("adamw",)), Budget(children, steps, minutes), seed=seed,
        **{"pace": pace, "funnel": funnel_of(tasks), "plans": WITH_BASELINES if baselines else EVOLUTION, **settings},
    )  # fmt: skip
    made.check()
    _tried([name for level in made.funnel for name in level.tasks], tell)  # a task that is wrong leaves no store behind
    fresh = Store.create(store, made.to_json())
    try:
        return _begun(fresh, workers, ray, tell)
    except Exception:
        fresh.discard()  # what cannot be set up would fail again
        raise
    except BaseException:  # Ctrl-C: `resume` goes on setting it up
        fresh.close()
        raise


def resume(
    store: str | Path, workers: int | None = None, ray: str | None = None, *, tasks: Sequence[str] = (), level: str = "validation",
    jobs: int | None = None, minutes: float | None = None, children: int | None = None, steps: int | None = None, tell: Tell = None,
) -> Search:  # fmt: skip
    """A search that was stopped, cut off, or has ended, to go on with as if nothing had happened; `tasks` are added to a later level,
    other `jobs` make another course of it from here on. `minutes`, `children` and `steps`, all sittings together, replace those that
    it was given, and it goes on as if it had been given them at first."""
    _tried(tasks, tell)
    kept = Store.open_(store)
    try:
        settings = reduce(lambda made, name: made.with_task(name, level), tasks, Settings.from_json(kept.meta("settings")))
        settings = settings.with_budget(minutes=minutes, children=children, steps=steps)
        if jobs is not None:
            settings = replace(settings, pace=settings.pace.with_jobs(jobs))
            settings.check()
        kept.save_meta("settings", settings.to_json())
        return _begun(kept, workers, ray, tell)
    except TaskError as problem:
        kept.close()
        raise TaskError(f"{problem}\n{store} names its tasks as they were named where it was begun; go on in that folder, or on a machine "
                        "that has them there") from problem  # fmt: skip
    except BaseException:
        kept.close()
        raise


def _tried(names: Sequence[str], tell: Tell) -> None:
    """Raises TaskError for a task that nothing can be trained on."""
    for name in dict.fromkeys(names):
        text = f"task {name} is still being tried after {SLOW:g} seconds: its data, its model or its loss takes long; Ctrl-C ends"
        with said_after(SLOW, text, tell):
            task(name)


def _begun(store: Store, workers: int | None, ray: str | None, tell: Tell = None) -> Search:
    """A search on a store; where setting it up fails, the workers are gone again."""
    with ExitStack() as stack:
        executor = team(workers, ray)
        stack.callback(executor.close)
        found = Search(store, executor, tell)
        stack.pop_all()
    return found


def team(workers: int | None, ray: str | None = None) -> Executor:
    """Workers of this machine, one for each core if not said otherwise (1 trains in this process), or a cluster's."""
    if ray is not None:
        from optlang.search.workers.cluster import Cluster

        return Cluster(work, workers, None if ray == "local" else ray)
    count = workers or os.cpu_count() or 1
    return Serial(work) if count == 1 else Processes(work, count)


def space_of(name: str, seeds: Sequence[str], slots: int = 0, **fields: Any) -> Space:
    """A space with a set of functions and some rules to start from; its form has slots enough for them, and for what is asked."""
    for count in range(max(2, slots), len(SLOTS) + 1):
        form = Form(SLOTS[:count])
        try:
            programs = tuple(seed_genome(one, form) for one in seeds)
            break
        except GenomeError as problem:
            if "slots" not in str(problem) or count == len(SLOTS):
                raise
    return Space(form=form, seeds=programs, **fields) if "functions" in fields else Space.preset(name, form=form, seeds=programs, **fields)


def funnel_of(
    tasks: Sequence[str] | None, validation: Sequence[str] | None = None, hold_out: Sequence[str] | None = None,
    final: Sequence[str] | None = None,
) -> tuple[Level, ...]:  # fmt: skip
    """The usual levels, some with tasks of one's own."""
    given = {SEARCH.name: tasks, VALIDATION.name: validation, FINAL.name: final, HOLDOUT.name: hold_out}
    return tuple(replace(level, tasks=tuple(given.get(level.name) or level.tasks)) for level in FUNNEL)
