"""Trials: programs trained on the levels of the funnel. What is finished goes into the store at once and is not done again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from optlang.search.evolution.kept_jobs import KeptJobs
from optlang.search.evolution.settings import Settings
from optlang.search.programs.genome import Genome
from optlang.search.store.database import Store
from optlang.search.training.assess import Curve, Regime
from optlang.search.training.funnel import Promoted, judge, seeds_of
from optlang.search.training.levels import Level
from optlang.search.workers.executor import Executor, JobFailed
from optlang.search.workers.life import said_after

SLOW = 300.0  # seconds after which it is said on what AdamW is still tuned


class Trials:
    """What a search trains, and what AdamW does on the same tasks. `tell` hears what is under way."""

    def __init__(self, store: Store, executor: Executor, settings: Settings, tell: Callable[[str], None] | None = None) -> None:
        self.store, self.executor, self.settings = store, executor, settings
        self.jobs = KeptJobs(store, executor)
        self.baselines: dict[str, Any] = store.meta("baselines") if store.has_meta("baselines") else {}
        self.tell = tell

    def prepare(self, place: int) -> None:
        """Before a level is first used: its tasks are those that the store knows, and AdamW has a tuned curve where one is needed.

        Curves are made once and kept.
        """
        level = self.settings.funnel[place]
        self.store.check_tasks({name: _digest(name) for name in level.tasks})
        wanted = [name for name in level.tasks if level.key(name) not in self.baselines] if level.measure == "speed" else []
        seeds = seeds_of(level, place, self.settings.seed)
        tickets = {self.executor.submit(Curve(name, level, seeds)): name for name in wanted}
        if wanted:
            longer = f", {level.factor:g} times as long" if level.factor != 1 else ""
            self._say(f"{level.name}: AdamW is tuned on {' and '.join(wanted)}{longer}")
        while tickets:
            text = f"{level.name}: AdamW is still being tuned on {' and '.join(tickets.values())}, for {SLOW:g} seconds now"
            with said_after(SLOW, text, self.tell):
                ticket = self.executor.first(tickets)
                made = self._curve(tickets[ticket], ticket)
            self._keep_curve(tickets.pop(ticket), level, made)

    def _curve(self, name: str, ticket: int) -> Any:
        """What AdamW did on a task. Raises TaskError."""
        from optlang.search.training.tasks import TaskError

        try:
            return self.executor.collect(ticket)
        except JobFailed as problem:
            raise TaskError(f"task {name}: AdamW cannot be trained on it: {problem}") from problem

    def _keep_curve(self, name: str, level: Level, made: Any) -> None:
        """Keeps it as soon as it is known. Raises TaskError."""
        from optlang.search.training.fitness import Baseline
        from optlang.search.training.tasks import TaskError

        if not Baseline.from_json(made).learns:
            raise TaskError(f"task {name}: tuned AdamW ends no lower than it began, so that nothing can be measured by it: "
                            "look for NaN, or give the task more steps")  # fmt: skip
        self.baselines[level.key(name)] = made
        self.store.save_meta("baselines", self.baselines)
        self._say(f"{level.name}: AdamW has been tuned on {name}")

    def at_level(self, branch: str, programs: Mapping[int, Genome], place: int) -> list[Promoted]:
        """Programs of a branch trained on a level of the funnel. What the store has is not trained again."""
        level = self.settings.funnel[place]
        seeds = seeds_of(level, place, self.settings.seed)
        self.prepare(place)
        kept = self.store.assessments(branch, level, seeds)
        new = self.judged({n: genome for n, genome in programs.items() if n not in kept}, level, seeds)
        self.store.save_assessments(branch, level, seeds, {one.number: one.assessment for one in new})
        found = [*new, *(Promoted(n, genome, kept[n]) for n, genome in programs.items() if n in kept)]
        return sorted(found, key=lambda one: (-one.assessment.fitness, one.number))

    def judged(self, programs: Mapping[int, Genome], level: Level, seeds: Sequence[int]) -> list[Promoted]:
        """Programs trained on a level with these seeds, the fittest first."""
        # a program of a later level takes minutes: each is a job of its own, so that all workers have some
        per_job = self.settings.pace.per_job if level == self.settings.funnel[0] else 1
        run = partial(self.jobs.all, say=self._say)
        return judge(programs, self.regime(level, seeds), run, per_job)

    def regime(self, level: Level, seeds: Sequence[int]) -> Regime:
        """How programs are trained on a level."""
        return Regime(self.settings.space.form, level, self.baselines, tuple(seeds))

    def _say(self, text: str) -> None:
        if self.tell is not None:
            self.tell(text)


def _digest(name: str) -> str:
    from optlang.search.training import loading

    return loading.digest(loading.task(name))
