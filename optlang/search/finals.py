"""The end of a search: its best rules against known ones, all tuned alike, on workloads that the search has not chosen by.

Two comparisons. Tuned by Optuna with equal trials on each hold-out task, then trained from fresh seeds: who ends lower. And
the miniature AlgoPerf of `profile`: who reaches the targets soonest with a few random trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optlang.ir import Program
from optlang.rules import Rule
from optlang.search import profile
from optlang.search.found import Found, hall_of_fame
from optlang.search.levels import Level
from optlang.search.profile import Budget, Standing, standings
from optlang.search.settings import Settings, SettingsError
from optlang.search.store import Store
from optlang.search.tuning import columns, tune

WORKLOADS = ("digits-mlp", "photo-autoencoder", "digits-cnn", "chars-mlp", "digits-vit", "chars-transformer")
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
    """The best of the deepest level that the funnel has reached, seeds left out."""
    for level in reversed(settings.funnel):
        found = [one for one in hall_of_fame(store, level.name, settings.finalists + len(settings.space.seeds)) if one.change != "seed"]
        if found:
            return found[: settings.finalists]
    raise SettingsError(f"{store.path} has no program yet; go on with `optlang search resume {store.path}`")


def contenders(store: Store, settings: Settings) -> dict[str, Program]:
    """Finalists and rivals by name. Rivals are library rules without routes."""
    named = {one.name: one.program(settings.space.form) for one in finalists(store, settings)}
    for name in settings.rivals:
        program = Rule(name).program
        if not isinstance(program, Program):
            raise SettingsError(f"the rival `{name}` is a route; name one rule")
        named[name] = program
    return named


def endings(programs: Mapping[str, Program], level: Level, trials: int) -> Iterator[Ending]:
    """Every rule tuned on every task of a level, with the same number of trials, then trained from fresh seeds."""
    from optlang.search.tasks import task
    from optlang.search.trainer import Entry, train

    for name in level.tasks:
        one = task(name).longer(level.factor)
        for rule, program in programs.items():
            best = tune(one, program, trials, TUNING_SEEDS).best
            [outcome] = train(one, [Entry(program, columns(program, [best.settings]))], FRESH_SEEDS, part="test")
            losses = outcome.losses[0]
            finite = bool(np.isfinite(losses).all())
            error = float(losses.std(ddof=1) / np.sqrt(len(losses))) if finite else 0.0
            yield Ending(rule, name, float(losses.mean()) if finite else 1e30, error, best.settings)


def race_to_targets(programs: Mapping[str, Program], rivals: Sequence[str], workloads: Sequence[str], budget: Budget) -> list[Standing]:
    """The miniature AlgoPerf. Targets are set by the rivals alone."""
    from optlang.search.tasks import task

    tasks = [task(name) for name in workloads]
    goals = profile.targets(tasks, {name: programs[name] for name in rivals}, budget.target_trials)
    times = {rule: {t.name: profile.times(t, program, goals[t.name], budget) for t in tasks} for rule, program in programs.items()}
    return standings(times)


def decided(store: Store, settings: Settings, workloads: Sequence[str] = WORKLOADS, budget: Budget | None = None) -> dict[str, Any]:
    """Both comparisons, made once and kept in the store as JSON. The hold-out is opened here and nowhere else."""
    kept = store.events("finals")
    if kept:
        found: dict[str, Any] = kept[-1]
        return found
    programs = contenders(store, settings)
    ends = [asdict(one) for one in endings(programs, settings.funnel[-1], settings.trials)]
    places = [asdict(one) for one in race_to_targets(programs, settings.rivals, workloads, budget or Budget())]
    made: dict[str, Any] = json.loads(
        json.dumps({"endings": ends, "standings": _finite(places), "workloads": workloads, "trials": settings.trials})
    )
    store.note("finals", made)
    return made


def _finite(places: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times that were missed as None: JSON has no infinity."""
    return [{**one, "times": {w: t if np.isfinite(t) else None for w, t in one["times"].items()}} for one in places]


def table(made: Mapping[str, Any]) -> str:
    """Both comparisons for a terminal."""
    lines = ["rule             score (95 % interval)   reached soonest with 5 random trials, 3 studies; 1 is best"]
    for one in made["standings"]:
        missed = sum(t is None for t in one["times"].values())
        text = f" ({missed} of {len(one['times'])} targets missed)" if missed else ""
        lines.append(f"{one['rule']:<16} {one['score']:.3f} ({one['low']:.3f} to {one['high']:.3f}){text}")
    lines += ["", f"rule             held-out loss at the end, tuned with {made['trials']} trials each"]
    lines += [f"{one['rule']:<16} {one['task']:<20} {one['loss']:.4f} ± {one['error']:.4f}" for one in made["endings"]]
    return "\n".join(lines)
