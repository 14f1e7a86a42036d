"""The end of a search: its best rules against known ones, all tuned alike, on workloads that the search has not chosen by.

First they are made short (`shortening`): what is compared is the text that is handed out. Then two comparisons. Tuned with equal
trials on each hold-out task, then trained from fresh seeds: who ends lower. And the miniature AlgoPerf of `profile`: who reaches
the targets soonest with a few random trials, from ranges that are the same on all workloads, around the middle of the step sizes
that are best on the tasks of the search. All is done in pieces, by the workers of the search, and what is done is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from optlang.ir import Program
from optlang.rules import Rule
from optlang.search.evolution.settings import Settings, SettingsError
from optlang.search.final_pieces import End, Entrant, Goal, Piece, Shortening, Times, work
from optlang.search.shortening import Short, by_training
from optlang.search.store.database import Store
from optlang.search.store.found import Found, hall_of_fame
from optlang.search.training.funnel import seeds_of
from optlang.search.training.profile import Budget, standings
from optlang.search.workers.executor import Executor, Serial

WORKLOADS = ("cancer-mlp", "digits-mlp", "photo-autoencoder", "digits-cnn", "chars-mlp", "digits-vit")
MOST = 20  # of a level that are looked at
Tell = Callable[[str], None]


def candidates(store: Store, settings: Settings) -> list[Found]:
    """Who might be in the finals, seeds left out: the best of the deepest level that the funnel has reached, then those of the levels
    before it. The hold-out chooses nobody."""
    found: dict[int, Found] = {}
    for level in reversed(settings.funnel[:-1] or settings.funnel):
        for one in hall_of_fame(store, level.name, MOST):
            if one.change != "seed":
                found.setdefault(one.number, one)
    if not found:
        raise SettingsError(f"{store.path} has no program yet; go on with `optlang search resume {store.path}`")
    return list(found.values())


def finalists(store: Store, settings: Settings, executor: Executor | None = None, tell: Tell | None = None) -> list[Short]:
    """The best as they are handed out: short, no two of them the same rule, with the step size around which they are tuned as default."""
    found: dict[Any, Short] = {}
    for one in candidates(store, settings):
        lr = float(f"{middles(store, settings, [one])[one.name]:.2g}")
        short = by_training(store, replace(one, lr=lr), settings, executor, tell)
        form = _form(short)
        if form in found:
            found[form] = replace(found[form], twins=(*found[form].twins, short.name))
        elif len(found) < settings.finalists:
            found[form] = short
        if len(found) == settings.finalists:
            break
    return list(found.values())


def _form(short: Short) -> Any:
    """What two rules share that differ in the values of settings alone."""
    program = Rule(short.text).program
    assert isinstance(program, Program)
    return program.weights, *program.updates.items()


def middles(store: Store, settings: Settings, found: Sequence[Found] = ()) -> dict[str, float]:
    """For rivals and for some found rules the geometric mean of their best step sizes on the tasks of the search, each from the same
    grid and seeds."""
    from optlang.search.training import fitness, loading

    known = {name: lr for kept in store.events("middles of the finals") for name, lr in kept}
    rules = {name: Entrant(name).program for name in settings.rivals if name not in known}
    rules |= {one.name: one.program(settings.space.form) for one in found if one.name not in known}
    if rules:
        level, seeds = settings.funnel[0], seeds_of(settings.funnel[0], 0, settings.seed)
        tuned = [fitness.tune(list(rules.values()), loading.task(name).longer(level.factor), seeds) for name in level.tasks]
        rates = [[math.log(fitness.rate(each.best)) for each in one] for one in tuned]
        known |= {name: math.exp(float(r)) for name, r in zip(rules, np.mean(rates, 0), strict=True)}
        store.note("middles of the finals", [[name, known[name]] for name in rules])
    return known


def decided(
    store: Store, settings: Settings, workloads: Sequence[str] = WORKLOADS, budget: Budget | None = None,
    executor: Executor | None = None, tell: Tell | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Both comparisons, made once and kept in the store as JSON, each piece as soon as it is done. The hold-out is opened here
    and nowhere else. Raises SettingsError, JobFailed."""
    candidates(store, settings)
    if len(settings.funnel) < 2:
        raise SettingsError(f"{store.path} has one level and so no task that selection has not seen; search with the funnel")
    budget, executor = budget or Budget(), executor or Serial(work)
    short = finalists(store, settings, executor, tell)
    rules = {one.name: one.text for one in short}
    kept = [made for made in store.events("finals") if made.get("rules") == rules]
    return kept[-1] if kept else _made(store, settings, rules, workloads, budget, executor)


def _made(
    store: Store, settings: Settings, rules: Mapping[str, str], workloads: Sequence[str], budget: Budget, executor: Executor
) -> dict[str, Any]:  # fmt: skip
    level, rates = settings.funnel[-1], middles(store, settings)
    rivals = [Entrant(name, lr=rates[name]) for name in settings.rivals]
    entrants = {one.name: one for one in (*(Entrant(name, text) for name, text in rules.items()), *rivals)}
    ends = [End(task, level.factor, one, settings.trials) for task in level.tasks for one in entrants.values()]
    goals = [Goal(task, tuple(rivals), budget.target_trials) for task in workloads]
    first = _done(store, [*ends, *goals], executor)
    endings = [first[end.key] for end in ends]
    times = {(name, goal.task): Times(goal.task, one, first[goal.key], budget) for name, one in entrants.items() for goal in goals}
    beside = _beside(store, settings, entrants, endings)
    last = _done(store, [*times.values(), *beside], executor)
    reached: dict[str, dict[str, list[float]]] = {}
    for (name, task), piece in times.items():
        reached.setdefault(name, {})[task] = [np.inf if t is None else t for t in last[piece.key]]
    made = {
        "rules": dict(rules), "endings": endings, "standings": _finite([asdict(one) for one in standings(reached)]),
        "shortened": [last[piece.key] for piece in beside], "workloads": list(workloads), "trials": settings.trials,
        "budget": asdict(budget),
    }  # fmt: skip
    store.note("finals", made)
    found: dict[str, Any] = store.events("finals")[-1]
    return found


def _beside(
    store: Store, settings: Settings, entrants: Mapping[str, Entrant], endings: Sequence[Mapping[str, Any]]
) -> list[Shortening]:  # fmt: skip
    """Each rule that was made short beside the rule as found, on the hold-out."""
    found = {one.name: one for one in candidates(store, settings)}
    rates, factor, made = middles(store, settings), settings.funnel[-1].factor, []
    for end in endings:
        short = entrants[end["rule"]]
        if short.text:
            long = Entrant(short.name, replace(found[short.name], lr=float(f"{rates[short.name]:.2g}")).rule(settings.space.form))
            made.append(Shortening(end["task"], factor, long, short, end["settings"]["lr"]))
    return made


def _done(store: Store, wanted: Sequence[Piece], executor: Executor) -> dict[str, Any]:
    """What every piece shows, by its key."""
    done: dict[str, Any] = dict(store.events("piece of the finals"))
    going = {executor.submit(piece): piece.key for piece in wanted if piece.key not in done}
    while going:
        ticket = executor.first(going)
        key = going.pop(ticket)
        done[key] = json.loads(json.dumps(executor.collect(ticket)))
        store.note("piece of the finals", [key, done[key]])
    return done


def _finite(places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times that were missed as None: JSON has no infinity."""
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
    if made["shortened"]:
        lines += ["", "rule             how much higher it ends there than as it was found, over paired seeds (95 % interval)"]
        lines += [f"{one['rule']:<16} {one['task']:<20} {one['mean']:+.4f} ({one['low']:+.4f} to {one['high']:+.4f})"
                  for one in made["shortened"]]  # fmt: skip
    return "\n".join(lines)
