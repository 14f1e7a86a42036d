"""Where children come from: regularised evolution, and the two baselines that it must beat.

Evolution is that of Real et al. 2019 (arXiv:1802.01548), as Lion's search used it: a tournament among random members of the
population chooses a parent, its mutant enters, the oldest leaves. Populations may be split into islands; an island that has
not improved for long starts again, from the seeds and from the best program in turn, without the children of the old
population that are still being trained. Everything a branch needs to go on where it was is in `state()`, which is JSON.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple, Protocol

from optlang.search.programs.genome import Genome, from_text, to_text

Kind = Literal["evolution", "random", "constants"]
KINDS: tuple[Kind, ...] = ("evolution", "random", "constants")


class Proposal(NamedTuple):
    """A program to be looked at. `parent` is the store's number of the program that it came from, None for a new one; `era` counts
    how often its island had started again; `source` is the name of one that came from outside."""

    genome: Genome
    parent: int | None
    change: str
    island: int = 0
    era: int = 0
    source: str = ""


class Member(NamedTuple):
    """A program of a population. Higher `fitness` is better."""

    number: int
    genome: Genome
    fitness: float


_fitness = attrgetter("fitness")
Change = Callable[[Genome, random.Random], tuple[Genome, str]]
Make = Callable[[random.Random], Genome]


class Branch(Protocol):
    """One way of proposing programs, with all that it has learnt."""

    restarts: int

    def propose(self) -> Proposal: ...

    def mark(self) -> Any:
        """Where it is with its random numbers, to go back to with `rewind` before anything is learnt."""

    def rewind(self, mark: Any) -> None: ...

    def add(self, proposal: Proposal, number: int, fitness: float) -> bool:
        """The fitness of what was proposed, in the order of the proposals. False for a child of a population that was given up."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Ageing:
    """How a population evolves. `patience`: proposals without an improvement after which an island starts again, 0 for never."""

    population: int = 200
    tournament: int = 2
    islands: int = 1
    migrate_every: int = 2_000
    patience: int = 0

    def problems(self) -> list[str]:
        """What is wrong with these numbers."""
        found = []
        if self.population < 2:
            found.append(f"a population of {self.population} cannot evolve; give at least 2")
        if not 1 <= self.tournament <= max(self.population, 1):
            found.append(f"a tournament of {self.tournament} does not fit a population of {self.population}")
        if self.islands < 1 or self.population < 2 * self.islands:
            found.append(f"{self.islands} islands need a population of at least {2 * max(self.islands, 1)}")
        return found


class Island:
    """One population, oldest first."""

    def __init__(self, size: int, seeds: Sequence[Member]) -> None:
        self.members: deque[Member] = deque(maxlen=size)
        self.era = -1
        self.restart(seeds)

    def restart(self, seeds: Sequence[Member]) -> None:
        """The whole population becomes the seeds, as Lion's search began with copies of AdamW."""
        self.members.clear()
        self.members.extend(seeds[place % len(seeds)] for place in range(self.members.maxlen or len(seeds)))
        self.best = max(seeds, key=_fitness)
        self.stale = 0
        self.era += 1

    def add(self, member: Member) -> None:
        self.members.append(member)
        if member.fitness > self.best.fitness:
            self.best, self.stale = member, 0
        else:
            self.stale += 1

    def state(self) -> dict[str, Any]:
        members = list(map(_member_out, self.members))
        return {"members": members, "best": _member_out(self.best), "stale": self.stale, "era": self.era}

    def take_up(self, state: Mapping[str, Any]) -> None:
        self.members.clear()
        self.members.extend(map(_member_in, state["members"]))
        self.best, self.stale, self.era = _member_in(state["best"]), state["stale"], state["era"]


class Evolution:
    """Regularised evolution by a mutation. `seeds` are evaluated programs."""

    def __init__(self, seeds: Sequence[Member], change: Change, ageing: Ageing, seed: int) -> None:
        self.seeds, self.change, self.ageing = list(seeds), change, ageing
        self.random = random.Random(seed)
        self.islands = [Island(ageing.population // ageing.islands, self.seeds) for _ in range(ageing.islands)]
        self.best = max(self.seeds, key=_fitness)
        self.proposed = self.added = self.restarts = 0

    def propose(self) -> Proposal:
        number = self.proposed % len(self.islands)
        self.proposed += 1
        island = self.islands[number]
        parent = self._parent(island)
        genome, change = self.change(parent.genome, self.random)
        return Proposal(genome, parent.number, change, number, island.era)

    def mark(self) -> Any:
        return self.random.getstate(), self.proposed

    def rewind(self, mark: Any) -> None:
        state, self.proposed = mark
        self.random.setstate(state)

    def _parent(self, island: Island) -> Member:
        """The best of a few, drawn with replacement."""
        choice, members = self.random.choice, island.members
        return max([choice(members) for _ in range(self.ageing.tournament)], key=_fitness)

    def add(self, proposal: Proposal, number: int, fitness: float) -> bool:
        member = Member(number, proposal.genome, fitness)
        island = self.islands[proposal.island]
        self.best = max(self.best, member, key=_fitness)
        self.added += 1
        belongs = proposal.era == island.era or bool(proposal.source)
        if belongs:
            island.add(member)
        if self.ageing.patience and island.stale >= self.ageing.patience:
            self._restart(island)
        if len(self.islands) > 1 and self.added % self.ageing.migrate_every == 0:
            self._migrate()
        return belongs

    def _restart(self, island: Island) -> None:
        """From the seeds and from the best of all, in turn."""
        self.restarts += 1
        island.restart(self.seeds if self.restarts % 2 else [self.best])

    def _migrate(self) -> None:
        """The best of each island joins the next one."""
        best = [island.best for island in self.islands]
        for number, island in enumerate(self.islands):
            island.members.append(best[number - 1])

    def state(self) -> dict[str, Any]:
        return {
            "random": _random_out(self.random),
            "islands": [island.state() for island in self.islands],
            "best": _member_out(self.best),
            "counts": [self.proposed, self.added, self.restarts],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.random.setstate(_random_in(state["random"]))
        for island, kept in zip(self.islands, state["islands"], strict=True):
            island.take_up(kept)
        self.best = _member_in(state["best"])
        self.proposed, self.added, self.restarts = state["counts"]


class RandomSearch:
    """Programs drawn anew each time: what a search has to beat to have found anything."""

    restarts = 0

    def __init__(self, make: Make, seed: int) -> None:
        self.make = make
        self.random = random.Random(seed)

    def propose(self) -> Proposal:
        return Proposal(self.make(self.random), None, "drawn at random")

    def mark(self) -> Any:
        return self.random.getstate()

    def rewind(self, mark: Any) -> None:
        self.random.setstate(mark)

    def add(self, proposal: Proposal, number: int, fitness: float) -> bool:
        """Nothing is learnt."""
        return True

    def state(self) -> dict[str, Any]:
        return {"random": _random_out(self.random)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.random.setstate(_random_in(state["random"]))


def _member_out(member: Member) -> list[Any]:
    return [member.number, to_text(member.genome), member.fitness]


def _member_in(kept: Sequence[Any]) -> Member:
    number, text, fitness = kept
    return Member(number, from_text(text), float(fitness))


def _random_out(source: random.Random) -> list[Any]:
    version, numbers, last = source.getstate()
    return [version, list(numbers), last]


def _random_in(kept: Sequence[Any]) -> tuple[Any, ...]:
    version, numbers, last = kept
    return version, tuple(numbers), last
