"""What a report shows, as plain values, and how it is read from a store."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from optlang.rules import Rule
from optlang.search.evolution.hunt import MAIN, SEED_NUMBERS
from optlang.search.evolution.settings import Settings
from optlang.search.proposals import KIND as PROPOSAL
from optlang.search.store.database import Store
from optlang.search.store.found import Found, hall_of_fame, pareto
from optlang.search.training.levels import Level, Point, onset, validated

SHOWN = 10  # rules in the hall of fame


class CurvePoint(NamedTuple):
    """The best fitness of a branch after so many training steps."""

    spent: int
    fitness: float


class Ancestor(NamedTuple):
    """One step of a lineage: the program's number, what changed, and the lines that went and came."""

    number: int
    change: str
    fitness: float
    gone: tuple[str, ...]
    came: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """A rule of the hall of fame."""

    found: Found
    rule: str
    equations: str


@dataclass(frozen=True)
class LevelRow:
    """One level of the funnel: how many were trained there, and the fitness and error of the best of them, which has the name `leader`,
    of the program that was best in the search, and of the seed; None where that was not trained here."""

    level: Level
    entered: int
    leader: str
    best: tuple[float, float]
    winner: tuple[float, float] | None = None
    seed: tuple[float, float] | None = None


@dataclass(frozen=True)
class ReportData:
    """All that the page shows."""

    name: str
    level: Level
    children: int
    trained: int
    spent: int
    seconds: float
    curves: dict[str, tuple[CurvePoint, ...]]
    screening: dict[str, dict[str, float]]
    funnel: tuple[LevelRow, ...] = ()
    points: tuple[Point, ...] = ()
    overfits_from: int | None = None
    front: tuple[Found, ...] = ()
    hall: tuple[Ranked, ...] = ()
    lineage: tuple[Ancestor, ...] = ()
    finals: dict[str, Any] = field(default_factory=dict)  # see `optlang.search.finals`
    proposals: tuple[dict[str, Any], ...] = ()  # see `optlang.search.proposals`; the fittest first, then those that were not taken
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def from_store(store: Store) -> ReportData:
    """Reads a store, also one that a search writes to."""
    settings = Settings.from_json(store.meta("settings"))
    level, form = settings.funnel[0], settings.space.form
    states = {name: store.state(name) or {} for name in store.branches()}
    counts = {name: state.get("counts", [0, 0, 0]) for name, state in states.items()}
    best = hall_of_fame(store, level.name, SHOWN)
    trained = counts.get(MAIN, [0, 0, 0])[1]
    points = validated(store.events("validation"), settings.funnel[1].tasks) if len(settings.funnel) > 1 else []
    return ReportData(
        name=Path(store.path).name, level=level,
        children=sum(c[0] for c in counts.values()), trained=sum(c[1] for c in counts.values()), spent=sum(c[2] for c in counts.values()),
        seconds=store.meta("seconds") if store.has_meta("seconds") else 0.0,
        curves={name: _curve(store, name) for name in states},
        screening=states.get(MAIN, {}).get("screen", {}),
        funnel=tuple(row for one in settings.funnel if (row := _level(store, one, best, trained if one == level else 0)) is not None),
        points=tuple(points), overfits_from=onset(points),
        front=tuple(pareto(store, level.name)),
        hall=tuple(Ranked(one, text := one.written(form) if place == 0 else one.rule(form), Rule(text).latex())
                   for place, one in enumerate(best)),
        lineage=_lineage(store, best[0], level) if best else (),
        proposals=tuple(sorted(store.events(PROPOSAL), key=lambda one: math.inf if one["fitness"] is None else -one["fitness"])),
        finals=(store.events("finals") or [{}])[-1], settings=store.meta("settings"), versions=store.meta("versions"),
    )  # fmt: skip


def _curve(store: Store, branch: str) -> tuple[CurvePoint, ...]:
    rows = store.query("SELECT spent, fitness FROM curve WHERE branch = ? ORDER BY spent, children", branch)
    state = store.state(branch) or {}
    ends = state.get("counts", [0, 0, 0])[2]
    points = [CurvePoint(*row) for row in rows]
    return tuple([*points, CurvePoint(max(ends, points[-1].spent), points[-1].fitness)] if points else ())


def _level(store: Store, level: Level, hall: Sequence[Found], trained: int) -> LevelRow | None:
    """`trained`: how many there were, where only the best of them may have been kept."""
    rows = store.query(
        "SELECT number, fitness, error FROM assessments JOIN genomes USING (branch, number) WHERE branch = ? AND level = ? AND tasks = ? "
        "ORDER BY fitness DESC, change <> 'seed', statements, number", MAIN, level.name, json.dumps(level.tasks))  # fmt: skip
    if not rows:
        return None
    known = {number: (fitness, error) for number, fitness, error in rows}
    leader = "the seed rule" if rows[0][0] == SEED_NUMBERS else f"Found{rows[0][0]}"
    winner = known.get(hall[0].number) if hall else None
    return LevelRow(level, max(len(rows), trained), leader, rows[0][1:], winner, known.get(SEED_NUMBERS))


def _lineage(store: Store, winner: Found, level: Level) -> tuple[Ancestor, ...]:
    """From the seed to the winner, with the lines that each step changed."""
    fitness = dict(store.query("SELECT number, fitness FROM assessments WHERE branch = ? AND level = ?", winner.branch, level.name))
    steps: list[Ancestor] = []
    before: Sequence[str] = ()
    for number, change, text in store.lineage(winner.branch, winner.number):
        lines = text.splitlines()
        gone, came = tuple(x for x in before if x not in lines), tuple(x for x in lines if x not in before)
        steps.append(Ancestor(number, change, fitness.get(number, float("nan")), gone, came))
        before = lines
    return tuple(steps)
