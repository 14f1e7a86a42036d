"""The parts of the finals, each done by whoever is free: a rule's end on a task, a workload's target, a rule's times to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from optlang.ir import Program, const, hyper, substitute
from optlang.rules import Rule
from optlang.search.evolution.settings import SettingsError
from optlang.search.training import profile
from optlang.search.training.profile import Budget
from optlang.search.training.tuning import columns, tune

if TYPE_CHECKING:
    from optlang.search.training.tasks import Task

TUNING_SEEDS = (900_001, 900_002)
FRESH_SEEDS = tuple(range(910_001, 910_009))


class Piece(Protocol):
    """One part. It travels to workers and back as plain values."""

    @property
    def key(self) -> str:
        """Names what is done: the same is not done again."""

    def result(self) -> Any: ...


def work(piece: Any) -> Any:
    """What a worker of the finals does: pieces, and the trainings of an ablation."""
    return piece.result()


class Keyed:
    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Entrant:
    """A rule in the finals: one of the library, or the text of a found one, whose step size alone is tuned. `lr`: tuned around it."""

    name: str
    text: str = ""
    lr: float = 0.0

    @property
    def program(self) -> Program:
        found = Rule(self.text or self.name).program
        if not isinstance(found, Program):
            raise SettingsError(f"the rival `{self.name}` is a route; name one rule")
        found = fixed(found) if self.text else found
        return centred(found, self.lr) if self.lr else found


def fixed(program: Program) -> Program:
    """With all settings but the step size at their defaults for good."""
    table = substitute(program.all_roots(), {hyper(h.name, h.kind): const(h.default) for h in program.hypers if h.name != "lr"})
    made = program.replaced(table)
    return replace(made, hypers=tuple(h for h in made.hypers if h.name == "lr"))


def centred(program: Program, lr: float) -> Program:
    """A rule with another default of its step size; one without a step size as it is."""
    return replace(program, hypers=tuple(h._replace(default=lr) if h.name == "lr" else h for h in program.hypers))


# --------------------------------------------------------------------------------------------------- ends on the hold-out


@dataclass(frozen=True)
class Ending:
    """A tuned rule on one task: mean loss over fresh seeds with its standard error, the settings it was tuned to, and the loss from each
    seed, so that two rules can be compared seed by seed; none where a run diverged."""

    rule: str
    task: str
    loss: float
    error: float
    settings: Mapping[str, float]
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class End(Keyed):
    """A rule tuned on a task, then trained from fresh seeds."""

    task: str
    factor: float
    rule: Entrant
    trials: int

    def result(self) -> dict[str, Any]:
        from optlang.search.training.loading import task

        return asdict(ending(task(self.task).longer(self.factor), self.rule.name, self.rule.program, self.trials))


def ending(one: Task, rule: str, program: Program, trials: int) -> Ending:
    """A rule tuned on a task, then trained from fresh seeds."""
    settings = _tuned(one, program, trials)
    losses = _fresh(one, program, settings)
    finite = bool(np.isfinite(losses).all())
    error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if finite else 0.0
    return Ending(rule, one.name, float(losses.mean()) if finite else 1e30, error, settings, tuple(losses.tolist()) if finite else ())


def _fresh(one: Task, program: Program, settings: Mapping[str, float]) -> Any:
    """Losses on the sealed part of a task, from seeds that nothing has seen."""
    from optlang.search.training.trainer import Entry, train

    [outcome] = train(one, [Entry(program, columns(program, [settings]))], FRESH_SEEDS, part="test")
    return outcome.losses[0]


def _tuned(one: Task, program: Program, trials: int) -> Mapping[str, float]:
    """The best settings on a task: of the step size alone, over the grid that is extended while the best lies at its edge, and of
    `trials` of all settings around it. Trials alone would favour rules with few settings: one is found where four are missed."""
    from optlang.search.training import fitness

    [grid] = fitness.tune([program], one, TUNING_SEEDS)
    alone = {"lr": fitness.rate(grid.best)} if any(h.name == "lr" for h in program.hypers) else {}
    trial = tune(one, centred(program, alone.get("lr", 1.0)), trials, TUNING_SEEDS).best
    return trial.settings if trial.loss < float(grid.losses[grid.best].mean()) else alone


@dataclass(frozen=True)
class Shortening(Keyed):
    """A rule as found beside the shorter one, with the step size of that, on a task that did not decide what went."""

    task: str
    factor: float
    long: Entrant
    short: Entrant
    lr: float  # of the shorter rule; that of the other differs by the factor that the shorter one's has taken up

    def result(self) -> dict[str, Any]:
        from optlang.search.distil.ablation import paired
        from optlang.search.training.loading import task

        programs, one = [rule.program for rule in (self.long, self.short)], task(self.task).longer(self.factor)
        share = self.lr / programs[1].hyper("lr").default
        losses = [_fresh(one, program, {"lr": share * program.hyper("lr").default}) for program in programs]
        return {"rule": self.short.name, "task": self.task, **asdict(paired(*losses))}


# ------------------------------------------------------------------------------------------------ the miniature AlgoPerf


@dataclass(frozen=True)
class Goal(Keyed):
    """The target of a workload, set by the rivals."""

    task: str
    rivals: tuple[Entrant, ...]
    trials: int

    def result(self) -> float:
        from optlang.search.training.loading import task

        return profile.targets([task(self.task)], {one.name: one.program for one in self.rivals}, self.trials)[self.task]


@dataclass(frozen=True)
class Times(Keyed):
    """How soon a rule reaches the target of a workload, by study."""

    task: str
    rule: Entrant
    goal: float
    budget: Budget

    def result(self) -> list[float | None]:
        """Times that were missed as None: JSON has no infinity."""
        from optlang.search.training.loading import task

        found = profile.times(task(self.task), self.rule.program, self.goal, self.budget)
        return [t if np.isfinite(t) else None for t in found]
