"""One branch of a search under way: it proposes programs, screens them, has the new ones trained, and learns from the results.

Rounds overlap: the next one is proposed and sent to the workers before the results of this one are waited for, so that no
worker idles. Results are used in the order of the proposals, so a search gives the same for any number of workers. What a
strand is after a round is plain data (`state`), and with it goes on identically.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from optlang.search.evolution.ahead import PER_JOB, Ahead
from optlang.search.evolution.population import Branch, Proposal
from optlang.search.evolution.rounds import OVERLAP, Birth, Candidate, Known, Pace, Pending, Round, pending_in, pending_out
from optlang.search.programs.genome import slots_used
from optlang.search.programs.space import Space
from optlang.search.screening.sieve import Screen
from optlang.search.training.assess import TRIED, Assessment, Job, Regime
from optlang.search.workers.executor import Executor

TRIAL = "trial"
MEMORY = 256  # values on a task that its hurdle is computed from
DRY = 10  # rounds in a row in which all proposals together brought less than an eighth of what a round trains

Submit = Callable[[Job], Any]  # gives a ticket
Collect = Callable[[Any], Sequence[Assessment]]  # waits for a ticket


class Strand:
    """A branch with its screen, its knowledge and its costs."""

    def __init__(self, name: str, branch: Branch, space: Space, regime: Regime, pace: Pace, seeds: Sequence[Birth]) -> None:
        self.name, self.branch, self.regime, self.pace = name, branch, regime, pace
        self.screen = Screen(space)
        self.known = {birth.fingerprint: Known(birth.number, birth.assessment.fitness) for birth in seeds}
        self.rates = {birth.number: rates(birth.assessment.detail) for birth in seeds}  # the best step sizes of a program, by task
        self.best = max(self.known.values(), key=lambda known: known.fitness)
        self.reached: dict[str, deque[float]] = {task: deque(maxlen=MEMORY) for task in (TRIAL, *regime.level.tasks)}
        self.pending: deque[Pending] = deque()
        self.ahead: Ahead | None = None  # where workers look at what is proposed
        self.guests: deque[Proposal] = deque()  # from outside, for the next round that is proposed
        self.children = self.trained = self.spent = self.rounds = self.lean = 0
        self.next_number = 1 + max(known.number for known in self.known.values())

    # -------------------------------------------------------------------------------------------------- rounds

    @property
    def dry(self) -> bool:
        """Whether hardly anything new is within reach: going on would be proposing what is known, for ever."""
        return self.lean >= DRY

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do before somebody proposes something."""
        return not (self.pace.own or self.guests or self.pending)

    def looked_at_by(self, executor: Executor) -> None:
        """From now on its workers look at what programs do, before these have their turn."""
        self.ahead = Ahead(self.branch, self.screen, executor, PER_JOB * self.pace.jobs)

    def round(self, submit: Submit, collect: Collect) -> Round:
        """Sends what is to be sent, waits for the oldest round, and learns from it."""
        self.send(submit)
        pending = self.pending.popleft()
        found = [assessment for ticket in pending.tickets for assessment in collect(ticket)]
        return self._settled(pending, dict(zip(pending.live, found, strict=True)))

    def send(self, submit: Submit) -> None:
        """Fills the line of rounds in flight. What was in flight when a search was cut off is sent again."""
        while len(self.pending) < OVERLAP and (self.pace.own or self.guests):
            self.pending.append(self._proposed())
        for pending in self.pending:
            if pending.live and not pending.tickets:
                pending.tickets = [submit(job) for job in self._jobs(pending)]

    def welcome(self, guest: Proposal) -> str:
        """Takes a program from outside into the next round, or says why not, as the end of "it …"."""
        verdict = self.screen.check(guest.genome)
        if verdict.level == "rejected":
            return f"could train nothing, for it {verdict.reason}"
        self.guests.append(guest)
        return ""

    @property
    def guests_named(self) -> set[str]:
        """The names of all programs from outside that have no answer yet."""
        under_way = [c.proposal for pending in self.pending for c in pending.candidates]
        return {one.source for one in (*self.guests, *under_way) if one.source}

    def _proposed(self) -> Pending:
        """Who comes from outside, then children until enough of them are new, or until this takes too long."""
        pending = Pending([], {}, 0, self._hurdles())
        waiting = {c.fingerprint for p in self.pending for c in p.candidates}
        source = self.ahead or self.branch
        while self.guests or (self.pace.own and len(pending.live) < self.pace.trained and pending.children < self.pace.proposals):
            proposal = self.guests.popleft() if self.guests else source.propose()
            verdict = self.screen.check(proposal.genome)
            pending.children += 1
            if verdict.level == "rejected":
                continue
            number = 0
            if verdict.fingerprint not in self.known and verdict.fingerprint not in waiting:
                number, self.next_number = self.next_number, self.next_number + 1
                pending.live[number] = verdict.genome
                waiting.add(verdict.fingerprint)
            pending.candidates.append(Candidate(proposal, verdict.fingerprint, number))
        if self.ahead is not None:
            self.ahead.back()
        return pending

    def _hurdles(self) -> tuple[float, ...]:
        """Of the trial, then by task; none after the last."""
        shares = {TRIAL: self.pace.trial, **dict.fromkeys(self.regime.level.tasks[:-1], self.pace.hurdle)}
        return tuple(self._least(self.reached[task], share) for task, share in shares.items())

    def _least(self, values: Sequence[float], share: float) -> float:
        """What so many of the last programs are below; at first that is nothing."""
        return float(np.quantile(values, share)) if share and len(values) >= MEMORY // 4 else self.regime.level.worst

    def _jobs(self, pending: Pending) -> list[Job]:
        parents = {c.number: c.proposal.parent for c in pending.candidates}
        numbers, size = list(pending.live), self.pace.per_job
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        trial, *hurdles = pending.hurdles
        return [
            self.regime.job(
                (pending.live[n] for n in part), hurdles=tuple(hurdles), trial=trial if self.pace.trial else None,
                starts=tuple(self.rates.get(parents[n] or 0, {}) for n in part),
            )
            for part in parts
        ]  # fmt: skip

    def _settled(self, pending: Pending, found: Mapping[int, Assessment]) -> Round:
        births, before = [], self.best
        for candidate in pending.candidates:
            if candidate.number:
                births.append(self._born(candidate, pending, found[candidate.number]))
            self._learn(candidate, found.get(candidate.number))
        self.children += pending.children
        self.rounds += 1
        self.lean = self.lean + 1 if pending.children >= self.pace.proposals and 8 * len(pending.live) < self.pace.trained else 0
        answered = tuple((c.proposal.source, self.known[c.fingerprint].number) for c in pending.candidates if c.proposal.source)
        return Round(self.name, tuple(births), self.children, self.spent, self.best, self.best is not before, answered)

    def _learn(self, candidate: Candidate, assessment: Assessment | None) -> None:
        """For the branch and the hurdles, which a population that starts again does not take over from the one before."""
        known, restarts = self.known[candidate.fingerprint], self.branch.restarts
        belongs = self.branch.add(candidate.proposal, known.number, known.fitness)
        if self.branch.restarts > restarts:
            for values in self.reached.values():
                values.clear()
        elif belongs and assessment is not None:
            for task, value in reached(assessment):
                self.reached[task].append(value)

    def _born(self, candidate: Candidate, pending: Pending, assessment: Assessment) -> Birth:
        number, proposal = candidate.number, candidate.proposal
        known = self.known[candidate.fingerprint] = Known(number, assessment.fitness)
        self.rates[number] = rates(assessment.detail)
        self.best = max(self.best, known, key=lambda one: one.fitness)
        self.trained += 1
        self.spent += assessment.steps
        genome = pending.live[number]
        slots = len(slots_used(genome, self.regime.form))
        return Birth(number, candidate.fingerprint, genome, slots, proposal.parent, proposal.change, self.children, assessment)

    # --------------------------------------------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """All but `known`, `rates` and the space, which the store has anyway."""
        return {
            "branch": self.branch.state(),
            "reached": {task: list(values) for task, values in self.reached.items()},
            "pending": [pending_out(pending) for pending in self.pending],
            "counts": [self.children, self.trained, self.spent, self.rounds, self.next_number, self.lean],
            "screen": {level: asdict(counter) for level, counter in self.screen.counters.items()},
        }

    def restore(self, state: Mapping[str, Any], known: Mapping[str, Known], rates: Mapping[int, dict[str, float]]) -> None:
        self.branch.restore(state["branch"])
        self.known = dict(known)
        self.rates = dict(rates)
        self.best = max(known.values(), key=lambda one: (one.fitness, -one.number))
        for task, values in state["reached"].items():
            self.reached[task].extend(values)
        self.pending.extend(pending_in(kept) for kept in state["pending"])
        self.children, self.trained, self.spent, self.rounds, self.next_number, *lean = state["counts"]
        self.lean = lean[0] if lean else 0
        for level, kept in state["screen"].items():
            for name, value in kept.items():
                setattr(self.screen.counters[level], name, value)


def rates(detail: Mapping[str, Any]) -> dict[str, float]:
    """The best step sizes by task, from the details of an assessment."""
    return {task: score["lr"] for task, score in detail.items()}


def reached(assessment: Assessment) -> Iterator[tuple[str, float]]:
    """What an assessment adds to the hurdles: by task its value, without those that were only tried there."""
    for task, score in assessment.detail.items():
        if "trial" in score:
            yield TRIAL, float(score["trial"])
        if assessment.status != TRIED:
            yield task, float(score["value"])
