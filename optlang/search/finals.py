"""The end of a search: its best rules against known ones, all tuned alike, on workloads that the search has not chosen by.

Two comparisons. Tuned with equal trials on each hold-out task, then trained from fresh seeds: who ends lower. And the miniature
AlgoPerf of `profile`: who reaches the targets soonest with a few random trials, from ranges that are the same on all workloads,
around the middle of the step sizes that are best on the tasks of the search. Both are done in pieces, by the workers of the
search, and what is done is not done again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from optlang.ir import Program
from optlang.rules import Rule
from optlang.search.evolution.settings import Settings, SettingsError
from optlang.search.programs.genome import Form
from optlang.search.store.database import Store
from optlang.search.store.found import Found, hall_of_fame
from optlang.search.training import profile
from optlang.search.training.funnel import seeds_of
from optlang.search.training.profile import Budget, standings
from optlang.search.training.tuning import columns, tune
from optlang.search.workers.executor import LONG, Executor, Serial

if TYPE_CHECKING:
    from optlang.search.training.tasks import Task

WORKLOADS = ("cancer-mlp", "digits-mlp", "photo-autoencoder", "digits-cnn", "chars-mlp", "digits-vit")
TUNING_SEEDS = (900_001, 900_002)
FRESH_SEEDS = tuple(range(910_001, 910_009))


@dataclass(frozen=True)
class Ending:
    """A tuned rule on one task: mean loss over fresh seeds with its standard error, and the settings it was tuned to."""

    rule: str
    task: str
    loss: float
    error: float
    settings: Mapping[str, float]


def finalists(store: Store, settings: Settings) -> list[Found]:
    """The best of the deepest level that the funnel has reached, seeds left out. The hold-out chooses nobody."""
    for level in reversed(settings.funnel[:-1] or settings.funnel):
        found = [one for one in hall_of_fame(store, level.name, settings.finalists + len(settings.space.seeds)) if one.change != "seed"]
        if found:
            return found[: settings.finalists]
    raise SettingsError(f"{store.path} has no program yet; go on with `optlang search resume {store.path}`")


def centred_finalists(store: Store, settings: Settings) -> list[Found]:
    """The finalists with the step sizes around which they were tuned."""
    rates = dict(middles(store, settings))
    return [replace(one, lr=rates[one.name]) for one in finalists(store, settings)]


@dataclass(frozen=True)
class Piece:
    """One part of the comparison, done by whoever is free: a rule's end on a task, or the times of all rules on a workload."""

    task: str
    factor: float
    rule: str  # "" for the times of all
    found: tuple[Found, ...]
    form: Form
    rivals: tuple[str, ...]
    trials: int
    budget: Budget
    middles: tuple[tuple[str, float], ...] = ()  # step sizes around which rules are tuned, by rule

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def programs(self) -> dict[str, Program]:
        """Finalists and rivals by name. Rivals are library rules without routes."""
        rules = {one.name: one.program(self.form) for one in self.found} | {name: _rival(name) for name in self.rivals}
        return rules | {name: centred(rules[name], lr) for name, lr in self.middles}


def _rival(name: str) -> Program:
    program = Rule(name).program
    if not isinstance(program, Program):
        raise SettingsError(f"the rival `{name}` is a route; name one rule")
    return program


def centred(program: Program, lr: float) -> Program:
    """A rule with another default of its step size; one without a step size as it is."""
    return replace(program, hypers=tuple(replace(h, default=lr) if h.name == "lr" else h for h in program.hypers))


def middles(store: Store, settings: Settings) -> list[tuple[str, float]]:
    """For each rule the geometric mean of its best step sizes on the tasks of the search, each from the same grid and seeds."""
    from optlang.search.training import fitness, tasks

    kept = store.events("middles of the finals")
    if not kept:
        level, seeds = settings.funnel[0], seeds_of(settings.funnel[0], 0, settings.seed)
        rules = {one.name: one.program(settings.space.form) for one in finalists(store, settings)} | {n: _rival(n) for n in settings.rivals}
        found = [fitness.tune(list(rules.values()), tasks.task(name).longer(level.factor), seeds) for name in level.tasks]
        rates = [[math.log(fitness.rate(each.best)) for each in one] for one in found]
        store.note("middles of the finals", [[n, math.exp(float(r))] for n, r in zip(rules, np.mean(rates, 0), strict=True)])
    return [(name, lr) for name, lr in store.events("middles of the finals")[-1]]


def pieces(store: Store, settings: Settings, workloads: Sequence[str], budget: Budget) -> list[Piece]:
    """All parts: every rule on every task of the last level, then every workload."""
    found = tuple(finalists(store, settings))
    if len(settings.funnel) < 2:
        raise SettingsError(f"{store.path} has one level and so no task that selection has not seen; search with the funnel")
    level, rivals = settings.funnel[-1], tuple(settings.rivals)
    common = (found, settings.space.form, rivals, settings.trials, budget, tuple(middles(store, settings)))
    names = [*(one.name for one in found), *rivals]
    ends = [Piece(task, level.factor, name, *common) for task in level.tasks for name in names]
    return [*ends, *(Piece(task, 1.0, "", *common) for task in workloads)]


def work(piece: Piece) -> dict[str, Any]:
    """What a piece shows, as plain values."""
    from optlang.search.training.tasks import task

    one, programs = task(piece.task).longer(piece.factor), piece.programs
    if piece.rule:
        return asdict(ending(one, piece.rule, programs[piece.rule], piece.trials))
    goal = profile.targets([one], {name: programs[name] for name in piece.rivals}, piece.budget.target_trials)[piece.task]
    return {rule: _plain(profile.times(one, program, goal, piece.budget)) for rule, program in programs.items()}


def ending(one: Task, rule: str, program: Program, trials: int) -> Ending:
    """A rule tuned on a task, then trained from fresh seeds."""
    from optlang.search.training.trainer import Entry, train

    settings = _tuned(one, program, trials)
    [outcome] = train(one, [Entry(program, columns(program, [settings]))], FRESH_SEEDS, part="test")
    losses = outcome.losses[0]
    finite = bool(np.isfinite(losses).all())
    error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if finite else 0.0
    return Ending(rule, one.name, float(losses.mean()) if finite else 1e30, error, settings)


def _tuned(one: Task, program: Program, trials: int) -> Mapping[str, float]:
    """The best settings on a task: of the step size alone, over the grid that is extended while the best lies at its edge, and of
    `trials` of all settings around it. Trials alone would favour rules with few settings: one is found where four are missed."""
    from optlang.search.training import fitness

    [grid] = fitness.tune([program], one, TUNING_SEEDS)
    alone = {"lr": fitness.rate(grid.best)} if any(h.name == "lr" for h in program.hypers) else {}
    trial = tune(one, centred(program, alone.get("lr", 1.0)), trials, TUNING_SEEDS).best
    return trial.settings if trial.loss < float(grid.losses[grid.best].mean()) else alone


def decided(
    store: Store, settings: Settings, workloads: Sequence[str] = WORKLOADS, budget: Budget | None = None, executor: Executor | None = None
) -> dict[str, Any]:  # fmt: skip
    """Both comparisons, made once and kept in the store as JSON, each piece as soon as it is done. The hold-out is opened here
    and nowhere else. Raises SettingsError, JobFailed."""
    kept = store.events("finals")
    if kept:
        found: dict[str, Any] = kept[-1]
        return found
    wanted = pieces(store, settings, workloads, budget or Budget())
    done = _done(store, wanted, executor or Serial(work))
    times: dict[str, dict[str, list[float]]] = {}
    for piece in wanted:
        for rule, each in done[piece.key].items() if not piece.rule else ():
            times.setdefault(rule, {})[piece.task] = [np.inf if t is None else t for t in each]
    made: dict[str, Any] = {
        "endings": [done[piece.key] for piece in wanted if piece.rule], "standings": _finite([asdict(one) for one in standings(times)]),
        "workloads": list(workloads), "trials": settings.trials, "budget": asdict(budget or Budget()),
    }  # fmt: skip
    store.note("finals", made)
    return store.events("finals")[-1]  # type: ignore[no-any-return]


def _done(store: Store, wanted: Sequence[Piece], executor: Executor) -> dict[str, Any]:
    """What every piece shows, by its key."""
    done: dict[str, Any] = dict(store.events("piece of the finals"))
    going = {executor.submit(piece, LONG): piece.key for piece in wanted if piece.key not in done}
    while going:
        ticket = executor.first(going)
        key = going.pop(ticket)
        done[key] = json.loads(json.dumps(executor.collect(ticket)))
        store.note("piece of the finals", [key, done[key]])
    return done


def _plain(times: Sequence[float]) -> list[float | None]:
    """Times that were missed as None: JSON has no infinity."""
    return [t if np.isfinite(t) else None for t in times]


def _finite(places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**one, "times": {w: t if np.isfinite(t) else None for w, t in one["times"].items()}} for one in places]


def table(made: Mapping[str, Any]) -> str:
    """Both comparisons for a terminal."""
    budget = made["budget"]
    tried = f"{budget['trials']} random trials, as many of the step size alone, {budget['studies']} studies"
    lines = [f"rule             score (95 % interval)   reached soonest with {tried}; 1 is best"]
    for one in made["standings"]:
        missed = sum(t is None for t in one["times"].values())
        text = f" ({missed} of {len(one['times'])} targets missed)" if missed else ""
        lines.append(f"{one['rule']:<16} {one['score']:.3f} ({one['low']:.3f} to {one['high']:.3f}){text}")
    lines += ["", f"rule             held-out loss at the end, tuned with {made['trials']} trials each around the best step size of a grid"]
    lines += [f"{one['rule']:<16} {one['task']:<20} {one['loss']:.4f} ± {one['error']:.4f}" for one in made["endings"]]
    return "\n".join(lines)
