"""The funnel: from short tasks, where thousands of programs are trained, to longer and other ones, where few are.

The best of a short task are often the best *for* that task (Chen et al. 2023, arXiv:2302.06675, call it meta-overfitting). So
while a search goes on, its best program is judged now and then on tasks that selection never sees. When that
meta-validation has stopped rising though the search's own fitness rises, the search has begun to overfit, and ends.
Hold-out tasks are opened once, at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Measure = Literal["speed", "loss"]
TOLERANCE = 0.005  # of fitness: less than the standard error of two seeds
PATIENCE = 3
LONGER = re.compile(r"(?P<plain>.+):(?P<factor>\d+(\.\d+)?)")  # NAME:14, a task that is trained for 14 times its steps


@dataclass(frozen=True)
class Level:
    """One stage of the funnel. `factor` stretches the horizon of its tasks, but of those whose name says theirs; `enter` programs come
    in from the stage before.

    Measured is "speed", the share of its steps in which tuned AdamW gets as far, or "loss", how far below 0 the loss ends.
    """

    name: str
    tasks: tuple[str, ...]
    factor: float = 1.0
    seeds: int = 2
    enter: int = 0
    measure: Measure = "speed"

    @property
    def worst(self) -> float:
        """What a program gets that cannot be trained: no progress at all, or a loss that nothing real has."""
        return 0.0 if self.measure == "speed" else -100.0

    def key(self, task: str) -> str:
        """Names what AdamW did on a task at this level's horizon."""
        return f"{task} x{1 if LONGER.fullmatch(task) else self.factor:g}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Level:
        return cls(**{**kept, "tasks": tuple(kept["tasks"])})


# Three tasks with two seeds rank six known rules alike in every rerun (Kendall's tau 1); one task does not. The cheapest
# comes first: who is slow there need not be trained on the next. What the levels after it take for each
# program is in docs/bench-search.json: ten and a hundred times as long are wanted. One has a long horizon, since ranks change with it.
SEARCH = Level("search", ("cancer-mlp", "digits-mlp", "photo-autoencoder"), seeds=2)
VALIDATION = Level("validation", ("digits-cnn", "chars-mlp"), factor=1.6, seeds=4, enter=12)
FINAL = Level("final", ("chars-mlp", "digits-vit"), factor=14.0, seeds=4, enter=4)
HOLDOUT = Level("hold-out", ("chars-transformer",), seeds=2, enter=2)
FUNNEL: tuple[Level, ...] = (SEARCH, VALIDATION, FINAL, HOLDOUT)


def plain(name: str) -> str:
    """The name of a task whatever the length of its training."""
    stretched = LONGER.fullmatch(name)
    return stretched["plain"] if stretched else name


class Point(NamedTuple):
    """The best program of a search at one moment: what it has cost, its fitness in the search, and on the validation tasks."""

    spent: int
    search: float
    validation: float


def validated(events: Sequence[Sequence[Any]], tasks: Sequence[str]) -> list[Point]:
    """The curve from a store's events, on these tasks: one with a task more is another curve."""
    return [Point(*numbers) for *numbers, on in events if on == list(tasks)]


def onset(points: Sequence[Point]) -> int | None:
    """The place of the last point before overfitting began; None where it has not.

    It has begun when validation has not risen above its best for PATIENCE points in which the search's fitness has risen.
    """
    best = 0
    for place, point in enumerate(points):
        if point.validation > points[best].validation + (TOLERANCE if place else 0.0):
            best = place
        rises = sum(b.search > a.search + TOLERANCE for a, b in zip(points[best:place], points[best + 1 : place + 1], strict=True))
        if rises >= PATIENCE:
            return best
    return None
