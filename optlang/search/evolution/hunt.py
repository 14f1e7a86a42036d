"""A whole search: seeds, rounds of every branch, meta-validation, the funnel. Everything finished goes into the store at once.

A hunt is taken up from its store as it was left there, so starting and going on are the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from optlang.printing import as_printed
from optlang.search.evolution import ahead
from optlang.search.evolution.population import Branch, Evolution, Member, RandomSearch
from optlang.search.evolution.rounds import Birth, Round
from optlang.search.evolution.settings import Plan, Settings, SettingsError
from optlang.search.evolution.strand import Strand, rates
from optlang.search.evolution.trials import Trials
from optlang.search.programs.genome import Genome, from_text, slots_used
from optlang.search.programs.mutation import Mutator, RandomPrograms
from optlang.search.proposals import LOOK, Inbox
from optlang.search.screening.sieve import Screen
from optlang.search.store.database import Store
from optlang.search.store.found import hall_of_fame
from optlang.search.training.funnel import Promoted, seeds_of
from optlang.search.training.levels import Level, Point, onset, validated
from optlang.search.workers.executor import Executor

SEED_NUMBERS = 1  # seeds have the first numbers of every branch, from 1
MAIN = "evolution"  # the branch whose best go into the funnel
HOPELESS = 3  # rounds in a row in which nothing could be trained


class NothingTrains(ValueError):
    """A search in which no program can be trained any more; the message says why. What was finished is in the store."""


@dataclass(frozen=True)
class Progress:
    """What a search says after every round."""

    round: Round
    seconds: float
    done: float  # share of the branch's budget, 0 to 1
    point: Point | None = None  # of the meta-validation curve, where one was made
    overfits: bool = False
    dry: bool = False

    _repr_pretty_ = as_printed

    def __str__(self) -> str:
        """A round in a line."""
        done, best = self.round, self.round.best
        spent = f"{done.children} children, {done.spent} steps"
        text = f"{self.done:4.0%}  {done.branch}: {spent}, best {best.fitness:.4f} (program {best.number})"
        if done.answered:
            text += "; " + ", ".join(f"{name} is program {number}" for name, number in done.answered)
        if self.point is not None:
            text += f"; on validation tasks {self.point.validation:.4f}"
        if self.dry:
            text += "; hardly any child is new any more: the branch ends before its budget"
        if self.overfits:
            text += "; the best no longer get better on tasks that selection does not see: the search ends"
        return text


class Hunt:
    """A search under way. `run` searches until the budget is spent; `promote` then takes the best through the funnel."""

    def __init__(
        self, store: Store, executor: Executor, settings: Settings | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.store, self.executor = store, executor
        self.settings = settings or Settings.from_json(store.meta("settings"))
        self.settings.check()
        self.trials = Trials(store, executor, self.settings, tell)
        self._failed = 0  # rounds in a row
        self.before = store.meta("seconds") if store.has_meta("seconds") else 0.0
        self.trials.prepare(0)
        self.seeds = self._seeds()
        self.strands = {name: self._strand(name, plan, place) for place, (name, plan) in enumerate(self._plans())}
        self.budgets = {name: plan.factor for name, plan in self._plans()}
        self.points = self._points()
        self.inbox = Inbox(store, self.settings.space, self.search_level, self.search_seeds)
        self.ending = self.overfits
        self.started = time.monotonic()  # setting up does not count

    # ------------------------------------------------------------------------------------------------- setting up

    def _plans(self) -> list[tuple[str, Plan]]:
        """Every branch with its name: `evolution`, `evolution 2`, …"""
        return [
            (plan.kind if repeat == 1 else f"{plan.kind} {repeat}", plan)
            for plan in self.settings.plans
            for repeat in range(1, plan.repeats + 1)
        ]

    @property
    def search_level(self) -> Level:
        return self.settings.funnel[0]

    @property
    def search_seeds(self) -> tuple[int, ...]:
        return seeds_of(self.search_level, 0, self.settings.seed)

    def _seeds(self) -> list[Birth]:
        """The programs that evolution starts from, trained. Raises SettingsError where one cannot be."""
        screen = Screen(self.settings.space)
        verdicts = [(genome, screen.check(genome)) for genome in self.settings.space.seeds]
        for genome, verdict in verdicts:
            if verdict.level == "rejected":
                raise SettingsError(f"a seed is no rule that could train anything, for it {verdict.reason}:\n{_text(genome)}")
        programs = {n: genome for n, (genome, verdict) in enumerate(verdicts, SEED_NUMBERS) if verdict.level == ""}
        fingerprints = {n: verdict.fingerprint for n, (_, verdict) in enumerate(verdicts, SEED_NUMBERS)}
        found = {one.number: one.assessment for one in self.trials.judged(programs, self.search_level, self.search_seeds)}
        for number, assessment in found.items():
            if assessment.status.startswith("failed"):
                raise SettingsError(f"a seed cannot be trained: {assessment.status}\n{_text(programs[number])}")
        form = self.settings.space.form
        return [
            Birth(n, fingerprints[n], genome, len(slots_used(genome, form)), None, "seed", 0, found[n]) for n, genome in programs.items()
        ]

    def _strand(self, name: str, plan: Plan, place: int) -> Strand:
        """A branch as the store has it, or new."""
        regime = self.trials.regime(self.search_level, self.search_seeds)
        made = Strand(name, self._branch(plan, place), self.settings.space, regime, self.settings.pace, self.seeds)
        state = self.store.state(name)
        if state is not None:
            details = self.store.details(name, self.search_level.name)
            made.restore(state, self.store.known(name, self.search_level.name), {n: rates(one) for n, one in details.items()})
        else:
            spent = sum(birth.assessment.steps for birth in self.seeds)
            first = Round(name, tuple(self.seeds), 0, spent, made.best, True)
            made.spent = spent
            self.store.save_round(first, made.state(), self.search_level, self.search_seeds, ())
        if self.executor.workers >= ahead.LEAST:
            made.looked_at_by(self.executor)
        return made

    def _branch(self, plan: Plan, place: int) -> Branch:
        space, seed = self.settings.space, self.settings.seed * 1_000 + place
        if plan.kind == "random":
            return RandomSearch(RandomPrograms(space), seed)
        members = [Member(birth.number, birth.genome, birth.assessment.fitness) for birth in self.seeds]
        change = Mutator(space) if plan.kind == "evolution" else Mutator(space, only=("constant",))
        return Evolution(members, change, self.settings.ageing, seed)

    # --------------------------------------------------------------------------------------------------- searching

    def run(self) -> Iterator[Progress]:
        """Rounds of all branches in turn, those that have used least of their budget first."""
        while not self.ending and (name := self._next()) is not None:
            strand = self.strands[name]
            if name == MAIN:
                self.inbox.take(strand)
            if strand.idle:
                time.sleep(LOOK)
                continue
            done = strand.round(self.trials.jobs.submit, self.trials.jobs.collect)
            self.store.save_round(done, strand.state(), self.search_level, self.search_seeds, self.trials.jobs.finished)
            self.trials.jobs.finished = []
            self.store.save_meta("seconds", self.seconds)
            self.inbox.answer(done)
            self._watch(done)
            yield self._progress(done)

    def _watch(self, done: Round) -> None:
        """Raises NothingTrains where it is not the programs that fail."""
        reasons = [birth.assessment.status for birth in done.births]
        if reasons:
            self._failed = self._failed + 1 if all(reason.startswith("failed") for reason in reasons) else 0
        if self._failed >= HOPELESS:
            raise NothingTrains(f"no program of the last {HOPELESS} rounds could be trained: {reasons[-1]}. "
                                f"Mend that, then `optlang search resume {self.store.path}`")  # fmt: skip

    @property
    def seconds(self) -> float:
        """Of searching, in all processes that have worked on this store."""
        return float(self.before) + time.monotonic() - self.started

    def stop(self) -> None:
        """Ends the search after the round that is under way."""
        self.ending = True

    def _next(self) -> str | None:
        shares = {name: self._share(name) for name in self.strands}
        name = min(shares, key=lambda one: shares[one])
        return name if shares[name] < 1 else None

    def _share(self, name: str) -> float:
        """How much of its budget a branch has used; all of it where it has run dry."""
        return 1.0 if self.strands[name].dry else max(self._shares(name).values(), default=0.0)

    def _shares(self, name: str) -> dict[str, float]:
        strand = self.strands[name]
        return self.settings.budget.shares(strand.children, strand.spent, self.seconds / 60, self.budgets[name])

    def ended(self) -> str:
        """Why there is nothing left to search, and what to do; empty where there is."""
        if self.overfits:
            return ("the search has ended, for its best no longer got better on tasks that selection does not see; "
                    f"with one more of them, `optlang search resume {self.store.path} --tasks TASK`, it goes on")  # fmt: skip
        if self._next() is not None:
            return ""
        used = dict.fromkeys(kind for name in self.strands for kind, share in self._shares(name).items() if share >= 1)
        return self.settings.budget.used_up(used, self.store.path) if used else "the search has ended, for hardly any child is new any more"

    @property
    def overfits(self) -> bool:
        """Whether the search ends because the best are no longer better where selection does not see."""
        return self.settings.until_onset and onset(self.points) is not None

    def _progress(self, done: Round) -> Progress:
        point, overfits = None, False
        every = self.settings.validate_every
        if done.branch == MAIN and every and self.strands[MAIN].rounds % every == 0 and len(self.settings.funnel) > 1:
            point = self._validated()
            overfits = onset(self.points) is not None
            self.ending |= overfits and self.settings.until_onset
        return Progress(done, self.seconds, min(self._share(done.branch), 1.0), point, overfits, self.strands[done.branch].dry)

    def _validated(self) -> Point:
        """The best program so far, on tasks that selection does not see."""
        level, strand = self.settings.funnel[1], self.strands[MAIN]
        [found] = self.trials.at_level(MAIN, {strand.best.number: self._genome(MAIN, strand.best.number)}, 1)
        point = Point(strand.spent, strand.best.fitness, found.assessment.fitness)
        self.points.append(point)
        self.store.note("validation", [*point, level.tasks])
        return point

    def _points(self) -> list[Point]:
        """The meta-validation curve so far, on the tasks that the level has now."""
        return validated(self.store.events("validation"), self.settings.funnel[1].tasks) if len(self.settings.funnel) > 1 else []

    # ------------------------------------------------------------------------------------------------- the funnel

    def promote(self, tell: Callable[[str], None] | None = None) -> Iterator[tuple[Level, list[Promoted]]]:
        """The best of the search through the levels after the first, each with its results. `tell` hears what is under way."""
        self.trials.tell = tell
        most = self.settings.funnel[1].enter if len(self.settings.funnel) > 1 else 0
        numbers = [one.number for one in hall_of_fame(self.store, self.search_level.name, most)]
        for place, level in enumerate(self.settings.funnel[1:], 1):
            seeds = [birth.number for birth in self.seeds]
            chosen = dict.fromkeys([*seeds, *numbers[: level.enter]])  # the seeds go along, to be compared with
            found = self.trials.at_level(MAIN, {n: self._genome(MAIN, n) for n in chosen}, place)
            self.store.note("level", [level.name, [one.number for one in found]])
            numbers = [one.number for one in found if one.number not in seeds]
            yield level, found

    def _genome(self, branch: str, number: int) -> Genome:
        return from_text(self.store.text(branch, number))

def _text(genome: Genome) -> str:
    from optlang.search.programs.genome import to_text

    return to_text(genome)
