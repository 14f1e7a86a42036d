"""One run: a model trained by one rule with one step size from one seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optlang.race.entrants import Entrant
from optlang.race.results import Point, Run
from optlang.race.tasks import Part, Problem, Score

POINTS = 20  # on a learning curve
# what matrix rules raise on weights that have run away counts as divergence, not as a mistake of the rule
RAN_AWAY = (ArithmeticError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]


@dataclass
class Trainer:
    """A model, its optimizer and the batches of one seed."""

    problem: Problem
    model: nn.Module
    optimizer: Optimizer
    needs_closure: bool
    batches: Iterator[Part]
    losses: list[float] = field(default_factory=list)  # of the steps since the last point
    seconds: list[float] = field(default_factory=list)  # of every step

    def step(self) -> None:
        """One training step on the next batch."""
        batch = next(self.batches)
        seen: list[float] = []  # losses at every point where the rule asked for a gradient; the first is at the weights

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self.problem.loss(self.model, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            seen.append(float(loss.detach()))
            return loss

        start = time.perf_counter()
        try:
            if self.needs_closure:
                self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's stub wants a float, its code a tensor
            else:
                closure()
                self.optimizer.step()
        finally:
            self.seconds.append(time.perf_counter() - start)
        self.losses.append(seen[0] if seen else math.nan)

    def point(self, step: int) -> Point:
        """The learning curve here, on the validation data."""
        score = self.score(self.problem.data.validation)
        trained = mean(self.losses) if self.losses else None
        self.losses.clear()
        return Point(step, trained, score.loss, score.accuracy)

    def score(self, part: Part) -> Score:
        """Loss and accuracy at the weights that the rule wants to be judged by (Schedule-Free has others to train at)."""
        _switch(self.optimizer, "eval")
        score = self.problem.evaluate(self.model, part)
        _switch(self.optimizer, "train")
        return score


def train(
    problem: Problem,
    entrant: Entrant,
    step_size: float,
    seed: int,
    steps: int,
    *,
    points: int = POINTS,
    test: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Run:
    """Trains for `steps` steps, or until the loss is no longer finite, with at most `points` evaluations besides the start.

    `test`: the end is measured on the test data, too. `tick` is called after every step. The caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        model = problem.model(seed)
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        optimizer = entrant.make(named, step_size)
        torch.manual_seed(seed)  # whatever the rule drew while it was made, dropout masks are the same for all
        _switch(optimizer, "train")
        trainer = Trainer(problem, model, optimizer, entrant.needs_closure, problem.batches(seed))
        curve, done, diverged = _follow(trainer, steps, min(points, steps), tick)
        score = trainer.score(problem.data.test) if test and not diverged else Score(math.inf)
    return Run(
        step_size=step_size,
        seed=seed,
        steps=done,
        diverged=diverged,
        curve=curve,
        test_loss=score.loss if test else None,
        test_accuracy=score.accuracy if test else None,
        seconds_per_step=median(trainer.seconds),
        state_bytes=state_bytes(optimizer),
        parameters=sum(p.numel() for _, p in named),
    )


def _follow(trainer: Trainer, steps: int, points: int, tick: Callable[[], None]) -> tuple[list[Point], int, bool]:
    """The learning curve, the number of steps done, and whether the run diverged."""
    curve = [trainer.point(0)]
    stops = {round(steps * k / points) for k in range(1, points + 1)}
    for step in range(1, steps + 1):
        try:
            trainer.step()
            if not math.isfinite(trainer.losses[-1]):
                raise FloatingPointError("the training loss is not finite")
            if step in stops:
                curve.append(trainer.point(step))
        except RAN_AWAY:
            return [*curve, Point(step, math.inf, math.inf, None)], step, True
        tick()
        if not math.isfinite(curve[-1].loss):
            return curve, step, True
    return curve, steps, False


def _switch(optimizer: Optimizer, mode: str) -> None:
    method = getattr(optimizer, mode, None)
    if callable(method):
        method()


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors that the optimizer would write to a checkpoint, settings aside."""
    written = optimizer.state_dict()
    return sum(_bytes(value) for key, value in written.items() if key != "param_groups")


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return sum(map(_bytes, value))
    return 0
