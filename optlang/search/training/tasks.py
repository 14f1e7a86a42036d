"""What rules are trained on: small models in many copies at once, on real data that needs no download.

A task holds one model, its data and its loss. Parameters come as a dict of tensors whose first dimension counts the runs, and
the loss is one number per run, so that one backward pass gives every run its own gradient. Starts depend on the seed alone and
batches on (seed, step) alone: runs with one seed, whatever their rules, see the same.

The built-in ones are in `workloads`, written for many copies. A task of one's own is the class that `optlang race` takes, in a
file of its own; it is run by `torch.func`, which takes several times as long:

    class MyTask:
        steps, batch_size = 200, 64                     # how long one training is
        def data(self):                                 # tensors with one entry per example, or an optlang.race.Split
            return x, y
        def model(self):                                # a torch.nn.Module; torch's random generator has been seeded
            return nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
        def loss(self, model, x, y):                    # the mean over a batch
            return ((model(x) - y) ** 2).mean()

    evaluator_task = task("my_task.py")

Batch normalisation in such a model needs `track_running_stats=False`: copies share no buffers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from optlang.errors import did_you_mean
from optlang.race import loading
from optlang.race.errors import RaceError
from optlang.race.tasks import Part, Problem, Split

Params = dict[str, Tensor]  # [runs, *shape]
Batch = tuple[Tensor, ...]  # [runs, examples, …]
HeldOut = Literal["validation", "test"]
NAMES = ("cancer-mlp", "digits-mlp", "photo-autoencoder", "digits-cnn", "chars-mlp", "digits-vit", "chars-transformer")


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
        other = object.__new__(type(self))
        other.__dict__ |= self.__dict__  # with the data, where they are loaded
        other.steps, other.factor = max(1, round(self.steps * factor)), self.factor * factor
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self.name, self.factor)


def like(batch: Batch, dtype: torch.dtype) -> Batch:
    """Real numbers of a batch in the precision of the parameters."""
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)


def _remade(name: str, factor: float) -> Task:
    return task(name) if factor == 1 else task(name).longer(factor)


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


# ----------------------------------------------------------------------------------------------------- users' tasks


class ModuleTask(Task):
    """A user's task, a `torch.nn.Module` with data and loss, in many copies by `torch.func`."""

    schedule = "linear"

    def __init__(self, name: str, problem: Problem) -> None:
        self.name, self.about, self.problem = name, problem.about, problem
        self.steps, self.batch_size = problem.steps, problem.batch_size
        self.loaded = _WithLoss(problem, problem.model(0))

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(p.shape) for name, p in self.loaded.named_parameters() if p.requires_grad}

    def parts(self) -> Split:
        return self.problem.data

    def start(self, seed: int) -> Params:
        with torch.random.fork_rng(devices=[]):
            model = _WithLoss(self.problem, self.problem.model(seed))
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def loss(self, params: Params, batch: Batch) -> Tensor:
        def one(params: Params, batch: Batch) -> Tensor:
            found: Tensor = torch.func.functional_call(self.loaded, params, batch)
            return found

        return torch.func.vmap(one, randomness="different")(params, batch)


class _WithLoss(nn.Module):
    """A model whose output is its loss."""

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        super().__init__()
        self.problem, self.model = problem, model

    def forward(self, *batch: Tensor) -> Tensor:
        return self.problem.loss(self.model, batch)


# ----------------------------------------------------------------------------------------------- finding and checking


@lru_cache(maxsize=32)
def task(name: str) -> Task:
    """A built-in task by its name, or the one in a Python file. Raises TaskError where there is none or it is wrong."""
    if name in NAMES or name.startswith("planted-"):
        return _built_in(name)
    if Path(name).suffix != ".py":
        raise _unknown(name, NAMES)
    try:
        found = ModuleTask(name, loading.load(Path(name)))
    except RaceError as problem:
        raise TaskError(str(problem)) from problem
    verify(found)
    return found


def _built_in(name: str) -> Task:
    try:
        from optlang.search.training import planted, workloads
    except ModuleNotFoundError as missing:
        raise TaskError(f"the built-in tasks need {missing.name}: pip install 'optlang-rules[race]'") from missing
    known = {**workloads.TASKS, **planted.TASKS}
    if name not in known:
        raise _unknown(name, list(known))
    return known[name]()


def _unknown(name: str, known: Sequence[str]) -> TaskError:
    near = did_you_mean(name, known)
    advice = f"did you mean {near!r}? " if near else ""
    return TaskError(f"there is no task {name!r}: {advice}There are {', '.join(known)}, or a path that ends in .py")


def verify(checked: Task) -> None:
    """Raises TaskError for a task whose loss raises, is not finite, is constant, or is not the same twice."""
    try:
        losses, gradients = _first_losses(checked), _first_gradients(checked)
    except TaskError:
        raise
    except Exception as problem:  # whatever the loss of a user raises
        raise TaskError(f"task {checked.name}: its loss raises {type(problem).__name__}: {problem}") from problem
    if not all(map(math.isfinite, losses)):
        raise TaskError(f"task {checked.name}: its loss is {losses[0]} before the first step; look for NaN in the data, log(0), 0/0")
    if not any(bool(g.count_nonzero()) for g in gradients):
        raise TaskError(f"task {checked.name}: its loss is constant: no parameter changes it. Compute it from the model's output")
    if losses != _first_losses(checked):
        raise TaskError(f"task {checked.name}: its loss differs between two evaluations of the same; take randomness out of it")


def digest(known: Task) -> str:
    """Names what a task asks for: its size, how long and on what it is trained, and the losses at the start, to four digits."""
    batch = known.batch([0, 1], 1)
    losses = [f"{loss:.3e}" for loss in known.loss(known.init([0, 1]), batch).tolist()]
    made = hashlib.sha256(repr((known.shapes, known.steps, known.batch_size, known.schedule, losses)).encode())
    for part in batch:
        made.update(part.contiguous().numpy().tobytes())
    return made.hexdigest()[:16]


def _first_losses(checked: Task) -> list[float]:
    """Two runs on a batch and on the held-out data."""
    params = checked.init([0, 1])
    training = checked.loss(params, checked.batch([0, 1], 1))
    if training.shape != (2,):
        raise TaskError(f"task {checked.name}: its loss has shape {tuple(training.shape)} for 2 runs; give one number per run")
    return [*training.tolist(), *checked.evaluate(params).tolist(), *checked.evaluate(params, "test").tolist()]


def _first_gradients(checked: Task) -> list[Tensor]:
    params = {name: p.requires_grad_() for name, p in checked.init([0, 1]).items()}
    loss = checked.loss(params, checked.batch([0, 1], 1)).sum()
    if not loss.requires_grad:
        return []
    found = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    return [g for g in found if g is not None]
