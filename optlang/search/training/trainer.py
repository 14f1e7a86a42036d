"""Training many runs at once: rules × settings × seeds on one task, runs that diverge left out as soon as they show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang.backends.base import StepError
from optlang.ir import Program
from optlang.search.batched.layout import Layout
from optlang.search.batched.rule import BatchedRule, Bound, Refused, compile_batched
from optlang.search.training.tasks import HeldOut, Task, like
from optlang.search.workers import life

Array = Any  # numpy.ndarray
LOOK = 10  # steps between two looks for runs that are lost


@dataclass(frozen=True)
class Entry:
    """A rule with its settings: one value of each hyper for each setting, `{"lr": [1e-3, 1e-2]}`. Others have their defaults."""

    program: Program
    hypers: Mapping[str, Sequence[float]]

    @property
    def settings(self) -> int:
        lengths = {len(values) for values in self.hypers.values()}
        if len(lengths) > 1:
            raise ValueError(f"rule `{self.program.name}`: hypers with {sorted(lengths)} values; give each as many as there are settings")
        return lengths.pop() if lengths else 1


@dataclass(eq=False)
class Outcome:
    """What became of an entry: float64 arrays of shape [settings, seeds].

    `losses`: held-out loss at the end, infinite if the run diverged. `curve`: held-out loss after some steps, infinite where a run
    did not get there. `steps`: taken.
    """

    losses: Array
    steps: Array
    curve: dict[int, Array] = field(default_factory=dict)


class EntryError(ValueError):
    """An entry that cannot be trained on this task: its place in the list, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.reason = index, reason

    def __reduce__(self) -> tuple[type[EntryError], tuple[int, str]]:
        return EntryError, (self.index, self.reason)


def train(
    task: Task,
    entries: Sequence[Entry],
    seeds: Sequence[int],
    steps: int | None = None,
    *,
    record: Sequence[int] = (),
    part: HeldOut = "validation",
    dtype: torch.dtype = torch.float32,
) -> list[Outcome]:
    """Trains every setting of every entry from every seed; one outcome for each entry.

    `steps`: the task's own by default. Held-out loss is measured at the end and after the steps of `record`.
    Raises EntryError for a rule that does not fit the task, before anything is trained.
    """
    steps = task.steps if steps is None else steps
    rules = _checked(task, entries)
    outcomes = [_empty(entry.settings, len(seeds), record) for entry in entries]
    runs = [
        _Run(number, setting, place)
        for number, entry in enumerate(entries)
        for setting in range(entry.settings)
        for place in range(len(seeds))
    ]
    for start in range(0, len(runs), task.at_once):
        batch = _Batch(task, rules, entries, seeds, runs[start : start + task.at_once], outcomes, dtype)
        batch.train(steps, set(record), part)
    return outcomes


def _checked(task: Task, entries: Sequence[Entry]) -> list[BatchedRule]:
    rules = []
    layout = Layout(task.shapes)
    for number, entry in enumerate(entries):
        try:
            rules.append(compile_batched(entry.program))
            one = torch.zeros(1, layout.numel)
            rules[-1].bind(layout, one, one, {name: values[0] for name, values in entry.hypers.items()} if entry.settings else {})
        except (Refused, StepError, ValueError) as problem:
            raise EntryError(number, str(problem)) from problem
    return rules


def _empty(settings: int, seeds: int, marks: Sequence[int]) -> Outcome:
    shape = (settings, seeds)
    curve = {mark: np.full(shape, np.inf) for mark in sorted(set(marks))}
    return Outcome(np.full(shape, np.inf), np.zeros(shape, int), curve)


@dataclass(frozen=True)
class _Run:
    entry: int
    setting: int
    place: int  # of its seed

    @property
    def at(self) -> tuple[int, int]:
        return self.setting, self.place


class _Batch:
    """Runs that are trained in the same tensors: one row of weights each, those of an entry side by side."""

    def __init__(
        self,
        task: Task,
        rules: Sequence[BatchedRule],
        entries: Sequence[Entry],
        seeds: Sequence[int],
        runs: list[_Run],
        outcomes: Sequence[Outcome],
        dtype: torch.dtype,
    ) -> None:
        self.task, self.seeds, self.runs, self.outcomes = task, seeds, runs, outcomes
        self.layout = Layout(task.shapes)
        start = task.init([seeds[run.place] for run in runs])
        self._hold(self.layout.flat(start).to(dtype))
        self.bounds: list[Bound] = []
        for number, first, last in self._slices():
            hypers = {name: [values[run.setting] for run in runs[first:last]] for name, values in entries[number].hypers.items()}
            self.bounds.append(rules[number].bind(self.layout, self.weights[first:last], self.slopes[first:last], hypers))

    def _slices(self) -> Iterator[tuple[int, int, int]]:
        """Each entry with its first row and the row after its last."""
        first = 0
        for number, some in groupby(self.runs, lambda run: run.entry):
            last = first + len(list(some))
            yield number, first, last
            first = last

    def _hold(self, weights: Tensor) -> None:
        """Takes these weights, [runs, numel], as the ones to train."""
        self.weights, self.slopes = weights, torch.zeros_like(weights)
        self.params = self.layout.views(weights)
        self.leaves = {name: view.detach().requires_grad_() for name, view in self.params.items()}
        self.places = list(self.layout.views(self.slopes).values())  # of the leaves' gradients

    def train(self, steps: int, record: set[int], part: HeldOut) -> None:
        for step in range(1, steps + 1):
            life.sign()
            losses = self._step(step, self.task.scale(step, steps))
            if step % LOOK == 0:
                self._leave_out(self._lost(losses), step)
            if self.runs and step in record:
                self._look(step, part)
            if not self.runs:
                return
        self._finish(steps, part)

    def _step(self, step: int, scale: float) -> Tensor:
        """One step of all runs; their losses on its batch."""
        batch = like(self.task.batch([self.seeds[run.place] for run in self.runs], step), self.weights.dtype)
        losses = self.task.loss(self.leaves, batch)
        found = torch.autograd.grad(losses.sum(), list(self.leaves.values()), materialize_grads=True)
        torch._foreach_copy_(self.places, found)
        for bound in self.bounds:
            bound.step(scale)
        return losses.detach()

    def _lost(self, losses: Tensor) -> Array:
        """Which runs will never come back: not finite, or with a loss beyond the task's ceiling."""
        return ~(losses.isfinite() & (losses <= self.task.ceiling)).numpy()

    def _look(self, step: int, part: HeldOut) -> None:
        """Measures the held-out loss on the way."""
        values = self._held_out(part)
        for run, value in zip(self.runs, values, strict=True):
            self.outcomes[run.entry].curve[step][run.at] = value
        self._leave_out(~np.isfinite(values), step)

    def _held_out(self, part: HeldOut) -> Array:
        """The held-out loss of each run, infinite where it is no number."""
        values = self.task.evaluate(self.params, part).double().numpy()
        return np.where(np.isfinite(values), values, np.inf)

    def _leave_out(self, lost: Array, step: int) -> None:
        """Goes on without some of the runs, whose losses stay infinite."""
        if not lost.any():
            return
        for number in np.flatnonzero(lost):
            self._end(self.runs[number], step)
        slices = list(self._slices())
        kept = np.flatnonzero(~lost)
        old = self.bounds
        self.runs = [self.runs[number] for number in kept]
        self._hold(self.weights[torch.as_tensor(kept)])
        self.bounds = []
        at = 0
        for bound, (_, first, last) in zip(old, slices, strict=True):
            rows = torch.as_tensor([number - first for number in kept if first <= number < last])
            if len(rows):
                new = slice(at, at + len(rows))
                self.bounds.append(bound.kept(rows, self.weights[new], self.slopes[new]))
                at += len(rows)

    def _end(self, run: _Run, step: int) -> None:
        self.outcomes[run.entry].steps[run.at] = step

    def _finish(self, steps: int, part: HeldOut) -> None:
        for run, value in zip(self.runs, self._held_out(part), strict=True):
            self.outcomes[run.entry].losses[run.at] = value
            self._end(run, steps)
