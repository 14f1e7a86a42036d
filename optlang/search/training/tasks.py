"""What rules are trained on: small models in many copies at once, on real data that needs no download.

A task holds one model, its data and its loss. Parameters come as a dict of tensors whose first dimension counts the runs, and
the loss is one number per run, so that one backward pass gives every run its own gradient. Starts depend on the seed alone and
batches on (seed, step) alone: runs with one seed, whatever their rules, see the same.

The built-in ones are in `workloads` and `planted`, written for many copies; `loading` finds all of them. A task of one's own is
the class that `optlang race` takes, in a file of its own; it is run by `torch.func`, which takes several times as long:

    class MyTask:
        steps, batch_size = 200, 64                     # how long one training is
        def data(self):                                 # tensors with one entry per example, or an optlang.race.Split
            return x, y
        def model(self):                                # a torch.nn.Module; torch's random generator has been seeded
            return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
        def loss(self, model, x, y):                    # the mean over a batch
            return ((model(x) - y) ** 2).mean()

    evaluator_task = loading.task("my_task.py")

Batch normalisation in such a model needs `track_running_stats=False`: copies share no buffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from optlang.race.tasks import Part, Split

Params = dict[str, Tensor]  # [runs, *shape]
Batch = tuple[Tensor, ...]  # [runs, examples, …]
HeldOut = Literal["validation", "test"]


class TaskError(ValueError):
    """A task that nothing can be trained on; the message says why and what to do."""


class Weight(NamedTuple):
    """A parameter at its start: uniform in `middle` ± `bound`."""

    shape: tuple[int, ...]
    bound: float
    middle: float = 0.0


class Task:
    """One model with data and loss. Subclasses give `weights`, `parts` and `loss`."""

    name = ""
    about = ""
    steps = 200  # of one training
    batch_size = 64
    evaluated = 512  # held-out examples at a time
    at_once = 48  # runs in one batch
    ceiling = math.inf  # a loss from which no run comes back
    schedule: Literal["constant", "linear"] = "constant"  # of the step size: linear falls to 0 at the end of training
    factor = 1.0
    stretches = True  # on levels that are longer; not where its name says how long it is

    def weights(self) -> Mapping[str, Weight]:
        """The parameters of one model."""
        raise TypeError(f"{type(self).__name__} does not say what its parameters are")

    def parts(self) -> Split:
        """Examples to train on, to choose rules by, and to report."""
        raise TypeError(f"{type(self).__name__} has no data")

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """The mean loss of each run: [runs]."""
        raise TypeError(f"{type(self).__name__} has no loss")

    @cached_property
    def split(self) -> Split:
        """The data in memory."""
        return self.parts()

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one model's parameters."""
        return {name: weight.shape for name, weight in self.weights().items()}

    def start(self, seed: int) -> Params:
        """The parameters of one model before the first step, by its seed."""
        generator = torch.Generator().manual_seed(seed)
        return {name: _drawn(weight, generator) for name, weight in self.weights().items()}

    def init(self, seeds: Sequence[int]) -> Params:
        """The parameters of many models: [runs, *shape], one run for each seed."""
        made = {seed: self.start(seed) for seed in dict.fromkeys(seeds)}
        return {name: torch.stack([made[seed][name] for seed in seeds]) for name in self.shapes}

    def batch(self, seeds: Sequence[int], step: int) -> Batch:
        """The batches of a step (from 1): [runs, examples, …], by seed and step alone."""
        count = len(self.split.train[0])
        chosen = {seed: _chosen(count, self.batch_size, seed, step) for seed in dict.fromkeys(seeds)}
        index = torch.cat([chosen[seed] for seed in seeds])
        return tuple(t.index_select(0, index).view(len(seeds), -1, *t.shape[1:]) for t in self.split.train)

    @torch.no_grad()
    def evaluate(self, params: Params, part: HeldOut = "validation") -> Tensor:
        """The mean loss of each run over the held-out examples: [runs]."""
        held: Part = getattr(self.split, part)
        runs = len(next(iter(params.values())))
        total = torch.zeros(runs, dtype=next(iter(params.values())).dtype)
        for pieces in zip(*(torch.split(t, self.evaluated) for t in held), strict=True):
            batch = tuple(piece.expand(runs, *piece.shape) for piece in pieces)
            total += len(pieces[0]) * self.loss(params, like(batch, total.dtype))
        return total / len(held[0])

    def scale(self, step: int, steps: int) -> float:
        """What the step size is multiplied with in a step (from 1) of a training of `steps`."""
        return 1.0 if self.schedule == "constant" else 1 - (step - 1) / steps

    def longer(self, factor: float) -> Task:
        """The same task, trained for so many times its steps."""
        if not self.stretches:
            return self
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__  # with the data, where they are loaded
        other.steps, other.factor = max(1, round(self.steps * factor)), self.factor * factor
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        from optlang.search.training.loading import remade

        return remade, (self.name, self.factor)


def like(batch: Batch, dtype: torch.dtype) -> Batch:
    """Real numbers of a batch in the precision of the parameters."""
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)


def _drawn(weight: Weight, generator: torch.Generator) -> Tensor:
    return weight.middle + weight.bound * (2 * torch.rand(weight.shape, generator=generator) - 1)


def _chosen(count: int, size: int, seed: int, step: int) -> Tensor:
    """The examples of a step. Each epoch is a fresh order; a short last batch is left out."""
    size = min(size, count)
    epoch, place = divmod(step - 1, count // size)
    return _order(count, seed, epoch)[place * size : (place + 1) * size]


@lru_cache(maxsize=128)
def _order(count: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(count, generator=generator)
