"""Two optimizers on the same noisy problem, each taking gradients at its own weights.

A closed loop is the sharpest comparison there is: a difference in any term feeds back through the
weights, and the loss couples all tensors, so nothing stays local. A step's batch is drawn from (seed,
step) alone, the same for both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Params = list[Tensor]
SHAPES: dict[str, tuple[int, ...]] = {
    "matrix": (6, 4), "vector": (5,), "conv": (4, 3, 3, 3), "one": (1,), "zero": (2, 3), "embed": (5, 3),
    "square": (4, 4), "patch": (3, 3), "wide": (3, 7), "head": (3, 4), "tall": (5, 3), "tower": (5, 2, 2, 1),
    "narrow": (5, 2), "broad": (4, 6),
    "still": (3, 2), "level": (2, 3), "calm": (4,), "pillar": (3, 2, 2, 1), "slab": (2, 3, 1, 1),
}  # fmt: skip
AT_REST = ("still", "level", "calm", "pillar", "slab")  # zero, without gradients: where norms of these vanish, too
STILL = AT_REST[:2]
EVERYTHING = ("matrix", "vector", "conv", "one", "zero")  # "zero" starts at 0, where norms of weights vanish


@dataclass(frozen=True)
class Problem:
    """A noisy loss of several tensors. It never sees the first weight of a tensor that has more than six, nor anything of `AT_REST`.

    `idle`: steps, from 0, in which it sees no weight at all; `offset` is added to it.
    """

    shapes: tuple[str, ...] = EVERYTHING
    seed: int = 0
    coupled: bool = True
    idle: tuple[int, ...] = ()
    offset: float = 0

    def start(self) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(self.seed)
        scale = {name: 0.0 if name in ("zero", *AT_REST) else 0.5 for name in self.shapes}
        return {
            name: (scale[name] * torch.randn(SHAPES[name], generator=source)).requires_grad_()
            for name in self.shapes
        }

    def seen(self, step: int) -> Tensor:
        """1 where the loss depends on the weight."""
        marks = [torch.full(SHAPES[name], float(name not in AT_REST)).flatten() for name in self.shapes]
        for mark in marks:
            mark[0] *= float(mark.numel() <= 6)
        return torch.cat(marks) * float(step not in self.idle)

    def loss(self, params: Sequence[Tensor], step: int) -> Tensor:
        x = torch.cat([p.flatten() for p in params])
        return self.offset + (self._forms(x, step) if self.coupled else self._bowls(x, step))

    def _source(self, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(1_000_003 * self.seed + step + 1)

    def _forms(self, x: Tensor, step: int) -> Tensor:
        """Least squares and log-cosh of a fresh batch of linear forms in all weights."""
        source = self._source(step)
        forms = torch.randn((8, len(x)), generator=source) * self.seen(step)
        residual = forms @ x / 3 - torch.randn(8, generator=source)
        return (residual**2 / 2 + torch.log(torch.cosh(residual))).mean()

    def _bowls(self, x: Tensor, step: int) -> Tensor:
        """A quadratic with a diagonal Hessian H, some of it negative: z * (H z) is H for every z of ±1."""
        slope = torch.randn(len(x), generator=self._source(-step - 2))
        return (self._diagonal(step) * (x - slope) ** 2 / 2).sum()

    def _diagonal(self, step: int) -> Tensor:
        seen = self.seen(step)
        return seen * (1 + torch.randn(len(seen), generator=self._source(step)))

    def hessian(self, step: int) -> Params:
        """The diagonal of the Hessian of the loss that is not coupled, shaped like the parameters."""
        sizes = [torch.Size(SHAPES[name]) for name in self.shapes]
        parts = self._diagonal(step).split([size.numel() for size in sizes])  # type: ignore[no-untyped-call]
        return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]


Maker = Callable[[dict[str, Tensor], Problem], Any]  # something with `step`, `zero_grad`
Reader = Callable[[Any], Params]


@dataclass(frozen=True)
class Trace:
    """The weights before the first step and after each, a row a step; the evaluation weights at the end."""

    weights: Tensor
    average: Tensor | None = None

    def distance(self, other: Trace) -> float:
        """NaN where a side is no number, which is below nothing."""
        gap = (self.weights - other.weights).abs().max()
        if self.average is not None and other.average is not None:
            gap = torch.maximum(gap, (self.average - other.average).abs().max())
        return gap.item()

    @property
    def travel(self) -> float:
        return (self.weights[-1] - self.weights[0]).abs().max().item()


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().clone().flatten() for tensor in tensors])


def drive(
    make: Maker, problem: Problem, steps: int, closure: bool = False, average: Reader | None = None
) -> Trace:
    """`closure`: the optimizer evaluates the batch itself, as often as it likes."""
    params = problem.start()
    optimizer = make(params, problem)
    rows = [flat(list(params.values()))]
    for step in range(steps):

        def evaluate(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = problem.loss(list(params.values()), step)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        if closure:
            optimizer.step(evaluate)
        else:
            evaluate()
            optimizer.step()
        rows.append(flat(list(params.values())))
    return Trace(torch.stack(rows), flat(average(optimizer)) if average else None)
