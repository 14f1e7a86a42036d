"""Rounds of a branch: how much goes into one, what is in flight, and what it brought. All but what is in flight is plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from optlang.search.evolution.population import Proposal
from optlang.search.programs.genome import Genome, from_text, to_text
from optlang.search.training.assess import Assessment

OVERLAP = 2  # rounds in flight for each branch: one that is trained, one that waits for its workers


class Known(NamedTuple):
    """A behaviour that has been trained: the program that showed it first, and its fitness."""

    number: int
    fitness: float


@dataclass(frozen=True)
class Pace:
    """How much goes into one round. `jobs` go to workers at once: no more than OVERLAP times as many workers have something to do, and
    what a search finds depends on it, not on the workers. `proposals`: children after which a round is over, though it has found
    less. `hurdle`: the share of recent programs that a program must beat on a task to be trained on the next one; 0 for no hurdles.
    `trial`: the same for a trial before all, one seed and three step sizes on the first task. `own`: whether the branch makes children;
    else a round is what has been proposed from outside."""

    jobs: int = 2
    per_job: int = 8
    proposals: int = 4_000
    hurdle: float = 0.5
    trial: float = 0.0
    own: bool = True

    @property
    def trained(self) -> int:
        return self.jobs * self.per_job

    def problem(self) -> str:
        return "" if self.jobs >= 1 and self.per_job >= 1 and self.proposals >= 1 else "a round needs at least one job, with one program"

    def with_jobs(self, jobs: int) -> Pace:
        """As much for each job."""
        return replace(self, jobs=jobs, proposals=self.proposals * jobs // self.jobs)


def jobs_for(workers: int) -> int:
    """As many jobs as keep these workers busy."""
    return max(Pace.jobs, math.ceil(workers / OVERLAP))


@dataclass(frozen=True)
class Birth:
    """A new program of a round, as it goes to the store."""

    number: int
    fingerprint: str
    genome: Genome
    slots: int
    parent: int | None
    change: str
    born: int  # how many children the branch had made before it
    assessment: Assessment


class Candidate(NamedTuple):
    """A proposal that was not rejected. `number`: its own if it is new, else 0."""

    proposal: Proposal
    fingerprint: str
    number: int


@dataclass
class Pending:
    """A round in flight."""

    candidates: list[Candidate]
    live: dict[int, Genome]  # what is trained, by number: without dead statements
    children: int
    hurdles: tuple[float, ...]
    tickets: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """What one round brought. `best` is the branch's best fitness after it, `spent` the training steps of the branch, `answered` the
    names of proposals from outside with the numbers of the programs that behave so."""

    branch: str
    births: tuple[Birth, ...]
    children: int  # of the branch so far
    spent: int
    best: Known
    improved: bool
    answered: tuple[tuple[str, int], ...] = ()


def pending_out(pending: Pending) -> dict[str, Any]:
    """Plain values; `pending_in` makes the same round of them, to be sent again."""
    candidates = [
        [to_text(c.proposal.genome), *c.proposal[1:], c.fingerprint, c.number]
        for c in pending.candidates
    ]
    live = {str(number): to_text(genome) for number, genome in pending.live.items()}
    return {"candidates": candidates, "live": live, "children": pending.children, "hurdles": pending.hurdles}


def pending_in(kept: Mapping[str, Any]) -> Pending:
    candidates = [
        Candidate(Proposal(from_text(text), *rest), fingerprint, number) for text, *rest, fingerprint, number in kept["candidates"]
    ]
    live = {int(number): from_text(text) for number, text in kept["live"].items()}
    return Pending(candidates, live, kept["children"], tuple(kept["hurdles"]))
