"""All that decides a search, as one value that goes into its store and comes back from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from optlang.search.evolution.population import KINDS, Ageing, Kind
from optlang.search.evolution.rounds import Pace
from optlang.search.programs.space import Space
from optlang.search.training.levels import FUNNEL, Level, plain


class SettingsError(ValueError):
    """Settings that cannot be searched with; the message lists everything that is wrong, and what to do."""


@dataclass(frozen=True)
class Budget:
    """When the search phase ends: at whichever comes first. 0 means no limit of that kind; one of them must be given."""

    children: int = 0
    steps: int = 0  # training steps of evolution; a baseline gets its factor times as many
    minutes: float = 0.0

    def problem(self, endless: bool = False) -> str:
        """What is wrong with it. `endless`: what needs none, for it waits for proposals until it is stopped."""
        if not all(0 <= one < math.inf for one in (self.children, self.steps, self.minutes)):
            return "a budget is negative or no finite number"
        if not (self.children or self.steps or self.minutes or endless):
            return "the budget is zero: give a number of children, of training steps, or of minutes"
        return ""

    def shares(self, children: int, steps: int, minutes: float, factor: float = 1.0) -> dict[str, float]:
        """How much of each limit a branch has used that is given `factor` times as many children and steps."""
        used = {"children": (children, self.children * factor), "steps": (steps, self.steps * factor), "minutes": (minutes, self.minutes)}
        return {kind: spent / limit for kind, (spent, limit) in used.items() if limit}

    def used_up(self, kinds: Iterable[str], store: Path) -> str:
        """That the limits of these kinds are reached, and how to go on."""
        limits = {kind: getattr(self, kind) for kind in kinds}
        told = " and ".join(f"{limit:,g} {'training ' * (kind == 'steps')}{kind}" for kind, limit in limits.items())
        more = " ".join(f"--{kind} {2 * limit:g}" for kind, limit in limits.items())
        return f"the budget of {told} is used up; `optlang search resume {store} {more}` goes on as if it had been larger at first"


@dataclass(frozen=True)
class Plan:
    """One branch: its kind, how many times with other random numbers, and its share of the budget (evolution has 1)."""

    kind: Kind
    repeats: int = 1
    factor: float = 1.0


EVOLUTION = (Plan("evolution"),)
WITH_BASELINES = (Plan("evolution"), Plan("random", factor=4.0), Plan("constants", factor=4.0))


@dataclass(frozen=True)
class Settings:
    """What is searched, where it is judged, how, and for how long. Everything random follows from `seed`."""

    space: Space
    budget: Budget
    plans: tuple[Plan, ...] = EVOLUTION
    funnel: tuple[Level, ...] = FUNNEL
    ageing: Ageing = field(default_factory=Ageing)
    pace: Pace = field(default_factory=Pace)
    seed: int = 0
    validate_every: int = 20  # rounds between two points of the meta-validation curve; 0: never
    until_onset: bool = True  # end where meta-validation says that the search overfits
    finalists: int = 3
    trials: int = 32  # of tuning, for every finalist and every baseline
    rivals: tuple[str, ...] = ("adamw", "lion", "signum", "rmsprop")

    def check(self) -> None:
        """Raises SettingsError."""
        found = [self.budget.problem(endless=not self.pace.own), self.pace.problem(), *self.ageing.problems(), *self._funnel_problems()]
        if not self.pace.own and [plan.kind for plan in self.plans] != ["evolution"]:
            found.append("baselines make children of their own; a search of proposals alone has none beside it")
        if not self.plans:
            found.append("there is no branch to search in")
        found += [f"`{plan.kind}` is no kind of branch; there are {', '.join(KINDS)}" for plan in self.plans if plan.kind not in KINDS]
        found += [f"branch `{plan.kind}` is given no budget" for plan in self.plans if plan.repeats < 1 or plan.factor <= 0]
        if problems := [problem for problem in found if problem]:
            raise SettingsError("; ".join(problems))

    def _funnel_problems(self) -> list[str]:
        found = [] if self.funnel and self.funnel[0].tasks else ["the first level has no task to search on"]
        found += [f"level `{level.name}` needs at least one seed" for level in self.funnel if level.seeds < 1]
        names = [level.name for level in self.funnel]
        return found + [f"two levels are called `{name}`" for name in sorted({n for n in names if names.count(n) > 1})]

    def remark(self) -> str:
        """What makes the later levels tell less than they seem to; empty where nothing does."""
        searched = {plain(name) for name in self.funnel[0].tasks}
        seen = [(name, level.name) for level in self.funnel[1:] for name in level.tasks if plain(name) in searched]
        return "; ".join(f"{name} is searched on and so no task that selection has not seen, as {level} wants" for name, level in seen)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` makes the same settings of them."""
        kept = {name: getattr(self, name) for name in ("seed", "validate_every", "until_onset", "finalists", "trials")}
        parts = {name: asdict(getattr(self, name)) for name in ("budget", "ageing", "pace")}
        lists = {"plans": [asdict(plan) for plan in self.plans], "funnel": [level.to_json() for level in self.funnel]}
        return {"space": self.space.to_json(), "rivals": list(self.rivals), **kept, **parts, **lists}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Settings:
        return cls(**{
            **kept,
            "space": Space.from_json(kept["space"]),
            "budget": Budget(**kept["budget"]),
            "ageing": Ageing(**kept["ageing"]),
            "pace": Pace(**kept["pace"]),
            "plans": tuple(Plan(**plan) for plan in kept["plans"]),
            "funnel": tuple(Level.from_json(level) for level in kept["funnel"]),
            "rivals": tuple(kept["rivals"]),
        })  # fmt: skip

    def with_budget(self, **given: float | None) -> Settings:
        """Other limits, 0 for none, of the kinds for which one is given. Raises SettingsError."""
        limits: dict[str, Any] = {kind: limit for kind, limit in given.items() if limit is not None}
        made = replace(self, budget=replace(self.budget, **limits))
        made.check()
        return made

    def with_task(self, name: str, level: str) -> Settings:
        """A task added to a later level. Raises SettingsError for an unknown one, for the first, and for a task that is there."""
        later = [one.name for one in self.funnel[1:]]
        if level not in later:
            first = f": by `{level}` programs have been selected, so start a new search" if level == self.funnel[0].name else ""
            raise SettingsError(f"a task can be added to {', '.join(later) or 'no level of this search'}, not to `{level}`{first}")
        if name in next(one.tasks for one in self.funnel if one.name == level):
            raise SettingsError(f"`{name}` is a task of the level `{level}` already")
        added = [replace(one, tasks=(*one.tasks, name)) if one.name == level else one for one in self.funnel]
        return replace(self, funnel=tuple(added))
