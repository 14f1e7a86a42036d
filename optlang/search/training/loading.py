"""Tasks by their names: the built-in ones, those of a user's file, and the check that something can be trained on them."""

from __future__ import annotations

import hashlib
import math
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from optlang.errors import did_you_mean
from optlang.race import loading as race
from optlang.race import names
from optlang.race.errors import RaceError
from optlang.race.tasks import Problem, Split
from optlang.search.training.levels import LONGER
from optlang.search.training.tasks import Batch, Params, Task, TaskError

MOST_STEPS = 10_000_000  # of one training: whoever asks for more has mistyped it


class ModuleTask(Task):
    """A task of the race or of a user, a `torch.nn.Module` with data and loss, in many copies by `torch.func`."""

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


@lru_cache(maxsize=32)
def task(name: str) -> Task:
    """A built-in task by its name, also one of the race, or the one in a Python file; `NAME:14` is trained for 14 times its steps. Raises
    TaskError where there is none or it is wrong."""
    if stretched := LONGER.fullmatch(name):
        return _stretched(name, task(stretched["plain"]), float(stretched["factor"]))
    if name in names.SEARCH:
        return _built_in(name)
    if name not in names.RACE and Path(name).suffix != ".py":
        raise _unknown(name)
    try:
        found = ModuleTask(name, race.load(name))
    except RaceError as problem:
        raise TaskError(str(problem)) from problem
    verify(found)
    return found


def _stretched(name: str, known: Task, factor: float) -> Task:
    """A task that is another one for a search: its AdamW is tuned for that length, on all levels."""
    if not 0 < known.steps*factor <= MOST_STEPS:
        many = f"more than {MOST_STEPS:,}" if factor else "no"
        raise TaskError(f"task {name} would be trained for {many} steps; {known.name}:2 is trained for twice its {known.steps}")
    made = known.longer(factor)
    made.name, made.factor, made.stretches = name, 1.0, False
    return made


def remade(name: str, factor: float) -> Task:
    """A task as it was pickled."""
    return task(name) if factor == 1 else task(name).longer(factor)


def _built_in(name: str) -> Task:
    try:
        from optlang.search.training import planted, workloads
    except ModuleNotFoundError as missing:
        raise TaskError(f"the built-in tasks need {missing.name}: pip install 'optlang-rules[race]'") from missing
    return {**workloads.TASKS, **planted.TASKS}[name]()


def _unknown(name: str) -> TaskError:
    known = [*names.SEARCH, *(one for one in names.RACE if one not in names.SEARCH)]
    near = did_you_mean(name, known)
    advice = f"did you mean {near!r}? " if near else ""
    return TaskError(f"there is no task {name!r}: {advice}There are {', '.join(known)}, or a path that ends in .py; "
                     "NAME:14 is trained for 14 times its steps")


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
