"""Two rules side by side in the reference interpreter: a few steps on made-up losses, until their weights differ.

The losses are smooth and a little different in every step; some elements have a gradient of exactly zero for a while, some
a large one. Settings are drawn from their ranges. In the later runs they change between steps, as schedulers change them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import Bounds, Hyper, Program

Array = Any
STEPS = 8
FIXED_RUNS, CHANGING_RUNS = 5, 2
SECONDS = 2  # of this thread's processor time, after which no further run begins; rules of thousands of operations need it
SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (((4, 3), (5,)), ((4, 3), (3, 4)))  # the second where matrices are needed
RELATIVE, NUDGE = 1e-7, 1e-12
LARGEST = 1e30  # of a weight: beyond, powers and products overflow, in an order that algebra does not know


@dataclass(frozen=True, slots=True)
class Counterexample:
    """The first place at which two rules part: step (from 1), parameter and element, its gradient, both new weights."""

    names: tuple[str, str]
    step: int
    shape: tuple[int, ...]
    element: tuple[int, ...]
    gradient: float
    values: tuple[float, float]
    settings: Mapping[str, float | int | bool]
    changing: bool
    what: str = "weight"

    @property
    def is_finite(self) -> bool:
        """Whether both values are numbers, so that rounding might explain the difference."""
        return bool(np.all(np.isfinite(self.values)))

    def summary(self) -> str:
        """Where they part, in half a sentence."""
        later = " when settings change between steps; with fixed settings no difference was found" if self.changing else ""
        return f"they part at step {self.step}{later}"

    def to_text(self) -> str:
        """The place, both values and the settings."""
        settings = ", ".join(f"{name} = {value:g}" for name, value in self.settings.items())
        where = ", ".join(map(str, self.element))
        width = max(len(name) for name in self.names)
        return "\n".join([
            f"  step {self.step}, element [{where}] of a parameter of shape {self.shape}, gradient {self.gradient:.9g}",
            *(f"  {name.ljust(width)}  {self.what} {value:.12g}" for name, value in zip(self.names, self.values, strict=True)),
            f"  with {settings or 'no settings'}",
        ])  # fmt: skip


def refute(a: Program, b: Program) -> tuple[Counterexample | None, str]:
    """A counterexample, or None and why the rules could not be run, or not as often as others (empty where they could)."""
    problem = ""
    for shapes in SHAPES:
        try:
            with np.errstate(all="ignore"):
                return _search(a, b, shapes)
        except StepError as error:
            problem = f"they could not be run: {error}"
    return None, problem


def _search(a: Program, b: Program, shapes: Sequence[tuple[int, ...]]) -> tuple[Counterexample | None, str]:
    runs, end = FIXED_RUNS + CHANGING_RUNS, time.thread_time() + SECONDS
    for seed in range(runs):
        if seed and time.thread_time() > end:
            return None, f"they are long: no difference was found in {seed} of {runs} runs, which took {SECONDS} s"
        found = _run(a, b, shapes, seed, changing=seed >= FIXED_RUNS)
        if found is not None:
            return found, ""
    return None, ""


class World:
    """One run's losses, settings and inputs, the same for every rule that is put in it."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], hypers: Mapping[str, Hyper], seed: int, changing: bool) -> None:
        self.shapes, self.hypers, self.changing, self.seed = shapes, hypers, changing, seed
        self.random = np.random.default_rng(seed)
        self.start = [self.random.normal(size=shape) * (self.random.random(shape) < 0.9) for shape in shapes]  # some are zero
        self.steps = [self._loss() for _ in range(STEPS)]
        first = self._settings(seed == 0)
        self.settings = [self._settings(False) if changing and i % 3 == 2 else first for i in range(STEPS)]
        if changing:
            for i in range(1, STEPS):
                self.settings[i] = self.settings[i] if i % 3 == 2 else self.settings[i - 1]

    def _loss(self) -> list[tuple[Array, Array, Array]]:
        """Per parameter: slope, centre and mask of a loss; slopes span some orders of magnitude."""
        return [
            (10.0 ** self.random.uniform(-3, 2, shape), self.random.normal(size=shape), self.random.random(shape) < 0.85)
            for shape in self.shapes
        ]

    def _settings(self, defaults: bool) -> dict[str, Any]:
        return {name: h.default if defaults else _drawn(h, self.random) for name, h in self.hypers.items()}

    def gradients(self, step: int, points: Sequence[Array]) -> list[Array]:
        return [m * (s * (x - c) + 0.1 * np.sin(3 * x)) for x, (s, c, m) in zip(points, self.steps[step], strict=True)]

    def products(self, step: int, weights: Sequence[Array], vectors: Sequence[Array]) -> list[Array]:
        rows = zip(weights, vectors, self.steps[step], strict=True)
        return [m * (s + 0.3 * np.cos(3 * x)) * v for x, v, (s, c, m) in rows]


def _drawn(hyper: Hyper, random: Any) -> Any:
    if hyper.kind == "bool":
        return bool(random.random() < 0.5)
    bounds = hyper.bounds or Bounds(float("-inf"), float("inf"))
    scale = abs(hyper.default) or 0.1
    for _ in range(50):
        value = random.uniform(0.05, 0.95) if bounds.low >= 0 and bounds.high <= 1 else scale * 10.0 ** random.uniform(-1, 1)
        value = round(value) if hyper.kind == "int" else value
        value = -value if bounds.high <= 0 or hyper.default < 0 else value
        if bounds.holds(value):
            return value
    return hyper.default


class Walk:
    """One rule in a world."""

    def __init__(self, program: Program, world: World, nudge: float = 0.0) -> None:
        self.world, self.nudge = world, nudge
        self.executable: Executable = BACKEND.compile(program, "safe")
        cells = [
            Cell(w.copy(), np.zeros_like(w), {}, {}, 0, _facts(w.shape), i, 0, f"p{i}") for i, w in enumerate(world.start)
        ]
        self.step = Step(cells, {}, {0: {}}, seed=world.seed)
        self.inputs = program.inputs

    def go(self, number: int) -> list[Array]:
        """One step; gives copies of the new weights and of those to evaluate with."""
        step, world = self.step, self.world
        weights = [cell.weights.copy() for cell in step.cells]
        for cell, gradient in zip(step.cells, self._gradients(number, weights), strict=True):
            cell.gradient, cell.t, cell.hypers = gradient, number + 1, world.settings[number]
            cell.inputs = {i.name: np.float64(1.5) for i in self.inputs}
        step.inputs = {i.name: np.float64(1.5) for i in self.inputs}
        step.loss = _height(weights)
        step.loss_at = _height
        step.grad = lambda points: self._gradients(number, points)
        step.hvp = lambda vectors: world.products(number, weights, vectors)
        self.executable.prepare(step)
        self.executable.step(step)
        return [cell.weights.copy() for cell in step.cells] + [np.array(x) for x in self.executable.evaluation(step)]

    def _gradients(self, number: int, points: Sequence[Array]) -> list[Array]:
        """Nudged each by another share: what only rounding keeps away from zero must not keep its sign."""
        found = self.world.gradients(number, points)
        return [g * (1 + self.nudge * np.cos(np.arange(g.size).reshape(g.shape))) for g in found] if self.nudge else found


def _height(weights: Sequence[Array]) -> np.float64:
    return np.float64(1.0 + sum(float(np.sum(w * w)) for w in weights))


def _facts(shape: tuple[int, ...]) -> dict[str, int]:
    known = {"rank": len(shape), "numel": int(np.prod(shape))}
    if len(shape) >= 2:
        known |= {"rows": shape[-2], "cols": shape[-1], "fan_in": shape[1], "fan_out": shape[0]}
    return known


def _run(a: Program, b: Program, shapes: Sequence[tuple[int, ...]], seed: int, changing: bool) -> Counterexample | None:
    world = World(shapes, {h.name: h for p in (b, a) for h in p.hypers}, seed, changing)
    first, second, nudged = Walk(a, world), Walk(b, world), Walk(a, world, NUDGE)
    for number in range(STEPS):
        before = [cell.weights.copy() for cell in first.step.cells]
        if any(np.any(np.isfinite(w) & (np.abs(w) > LARGEST)) for w in before):
            return None
        left, right, near = first.go(number), second.go(number), nudged.go(number)
        for index, (x, y, z) in enumerate(zip(left, right, near, strict=True)):
            place = _parted(x, y, z, before[index % len(shapes)])
            if place is not None:
                gradient = float(first.step.cells[index % len(shapes)].gradient[place])
                what = "weight" if index < len(shapes) else "weight to evaluate with"
                values = (float(x[place]), float(y[place]))
                settings = world.settings[number]
                return Counterexample((a.name, b.name), number + 1, x.shape, place, gradient, values, settings, changing, what)
    return None


def _parted(x: Array, y: Array, near: Array, before: Array) -> tuple[int, ...] | None:
    """The element at which two results differ most; None where rounding explains every difference.

    Rounding explains what is small beside the step, and what a nudge of the gradients by 1e-12 brings about as well.
    """
    with np.errstate(all="ignore"):
        apart = np.where(x == y, 0.0, np.abs(x - y))
        apart = np.where(np.isnan(x) != np.isnan(y), np.inf, np.where(np.isnan(x), 0.0, apart))
        moved = np.abs(x - before)
        noise = np.nan_to_num(1e3 * np.abs(near - x), nan=np.inf, posinf=np.inf) + 1e-12 * np.abs(before)
        allowed = RELATIVE * np.minimum(np.nan_to_num(moved, nan=np.inf, posinf=np.inf), np.abs(before) + moved) + noise
        allowed = np.where(np.isnan(x) != np.isnan(y), 0.0, np.nan_to_num(allowed, nan=0.0))
        wrong = apart > allowed
    if not wrong.any():
        return None
    place = np.unravel_index(int(np.argmax(np.where(wrong, apart, -1.0))), x.shape)
    return tuple(int(i) for i in place)
