"""What a task is: a class with `data`, `model` and `loss`, built in (`builtin`) or a user's own (`loading`)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Part = tuple[Tensor, ...]  # tensors whose first dimension counts the examples


class Task(Protocol):
    """What is trained. A class may also have `steps` (300), `batch_size` (64), `threads` (torch's own) and a method
    `accuracy(model, *batch)`, the fraction of right answers in a batch."""

    def data(self) -> Part | Split:
        """Tensors with one entry per example, to be split at random, or a `Split` made by hand."""

    def model(self) -> nn.Module:
        """A fresh model. Torch's random generator has been seeded."""

    def loss(self, model: nn.Module, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, a tensor with one number."""


@dataclass(frozen=True)
class Split:
    """Examples to train on, to tune the step size with, and to report, which nothing was tuned on."""

    train: Part
    validation: Part
    test: Part


@dataclass(frozen=True)
class Score:
    """Mean loss (infinite after divergence) and fraction of right answers (None where the task has none)."""

    loss: float
    accuracy: float | None = None


def split(*tensors: Tensor) -> Split:
    """60 % of the examples to train on, 20 % for validation and 20 % for the test, the same in every race."""
    count = len(tensors[0])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    fifth = count // 5
    parts = torch.split(order, [count - 2 * fifth, fifth, fifth])
    return Split(*(tuple(tensor[part] for tensor in tensors) for part in parts))


@dataclass(frozen=True)
class Problem:
    """A task that passed the check, with its data in memory."""

    name: str
    about: str
    task: Any  # a Task; optional methods make it untyped
    data: Split
    steps: int
    batch_size: int
    threads: int | None
    notes: list[str] = field(default_factory=list)

    def model(self, seed: int) -> nn.Module:
        """The start of a run: the same weights for the same seed."""
        torch.manual_seed(seed)
        model: nn.Module = self.task.model()
        return model

    def loss(self, model: nn.Module, batch: Part) -> Tensor:
        loss: Tensor = self.task.loss(model, *batch)
        return loss

    def batches(self, seed: int) -> Iterator[Part]:
        """Training batches without end, reshuffled every epoch; their order depends on the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        count = len(self.data.train[0])
        whole = count - count % self.batch_size or count  # a short last batch is left out
        while True:
            order = torch.randperm(count, generator=generator)[:whole]
            for chosen in torch.split(order, self.batch_size):
                yield tuple(tensor[chosen] for tensor in self.data.train)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> Score:
        """Mean loss and accuracy over all examples of a part."""
        model.eval()
        loss = correct = 0.0
        accuracy = getattr(self.task, "accuracy", None)
        for batch in zip(*(torch.split(tensor, 512) for tensor in part), strict=True):
            loss += len(batch[0]) * float(self.loss(model, batch))
            correct += len(batch[0]) * float(accuracy(model, *batch)) if accuracy else 0.0
        model.train()
        count = len(part[0])
        mean = loss / count
        return Score(mean, correct / count if accuracy else None) if math.isfinite(mean) else Score(math.inf)
