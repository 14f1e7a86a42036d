"""A rule on torch tensors beside the reference interpreter: both take each step from the very same stored numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from stepping import facts, finite
from tensors import threads
from torch import Tensor

from optlang.backends.base import Cell, Executable, Step
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch import TorchBackend
from optlang.ir import Program

NEVER = 1 << 62
EAGER = TorchBackend(compile_from=NEVER)
COMPILED = TorchBackend(compile_from=0)
EPSILON = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 3e-6, torch.float16: 3e-6}  # of what is computed


class Pair:
    """Parameters of given tensors, stepped by a torch backend; `step` compares each step with the reference's."""

    def __init__(
        self,
        rule: Program,
        tensors: Sequence[Tensor],
        groups: Sequence[int] = (),
        backend: TorchBackend = EAGER,
        executable: Executable | None = None,
        seed: int = 3,
        **hypers: Any,
    ) -> None:
        self.inputs = rule.inputs
        self.ours = executable or backend.compile(rule, "safe")
        self.reference: Executable = REFERENCE.compile(rule, "safe")
        settings = {h.name: h.default for h in rule.hypers} | {name.replace("__", "."): v for name, v in hypers.items()}
        numbers = list(groups) or [0] * len(tensors)
        cells = [Cell(w, None, {}, dict(settings), 0, facts(w.shape), i, numbers[i], f"p{i}") for i, w in enumerate(tensors)]
        self.taken = Step(cells, {}, {n: {} for n in numbers}, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.threads = 1
        self.in_numbers = True  # whether weights have to be numbers
        self.tolerance = max((EPSILON[w.dtype] for w in tensors), default=1e-12)

    def gradient(self, like: Tensor) -> Tensor:
        drawn = torch.randn(like.shape, generator=self.generator, dtype=torch.float64)
        return torch.empty_like(like).copy_(drawn)

    def step(self, **more: Any) -> None:
        """One step with fresh gradients, compared."""
        for cell in self.taken.cells:
            cell.t += 1
            cell.gradient = self.gradient(cell.weights)
            cell.inputs = {i.name: self.gradient(cell.weights) ** 2 for i in self.inputs}
        self.taken.loss = torch.tensor(0.5 + 1 / self.taken.cells[0].t)
        self.taken.grad, self.taken.hvp, self.taken.loss_at = self._gradient_at, self._curvature, self._loss_at
        for name, value in more.items():
            setattr(self.taken, name, value)
        self.ours.prepare(self.taken)
        other = copied(self.taken)
        with threads(self.threads):
            self.ours.step(self.taken)
        self.reference.prepare(other)
        self.reference.step(other)
        self.compare(other)

    def _gradient_at(self, points: list[Tensor]) -> list[Tensor]:
        """Of a loss whose curvature differs from element to element."""
        return [(torch.sin(1.5 * torch.as_tensor(x).double()) + 0.3).to(torch.as_tensor(x).dtype) for x in points]

    def _curvature(self, vectors: list[Tensor]) -> list[Tensor]:
        return [0.7 * torch.as_tensor(v) for v in vectors]

    def _loss_at(self, points: list[Tensor]) -> Tensor:
        return sum((torch.cos(torch.as_tensor(x).double()).sum() for x in points), torch.zeros((), dtype=torch.float64))

    def compare(self, other: Step) -> None:
        for mine, theirs in zip(self.taken.cells, other.cells, strict=True):
            if self.in_numbers:
                finite(theirs.weights)
            near(mine.weights, theirs.weights, self.tolerance, f"{mine.name} w")
            for name in theirs.state:
                assert name in mine.state, f"{mine.name} has no {name}"
                near(mine.state[name], theirs.state[name], self.tolerance, f"{mine.name} {name}")
        for shared, expected in [(self.taken.model, other.model), *((self.taken.groups[n], other.groups[n]) for n in other.groups)]:
            for name in expected:
                near(torch.as_tensor(shared[name]), torch.as_tensor(expected[name]), self.tolerance, name)
        assert self.taken.reports.keys() == other.reports.keys()
        for name, value in other.reports.items():
            assert math.isclose(self.taken.reports[name], value, rel_tol=1e-5), name
        for mine_e, theirs_e in zip(self.ours.evaluation(self.taken), self.reference.evaluation(copied(self.taken)), strict=True):
            near(mine_e, theirs_e, self.tolerance, "evaluation")

    @property
    def weights(self) -> list[Tensor]:
        return [cell.weights for cell in self.taken.cells]


def copied(step: Step) -> Step:
    """A step of its own, with all tensors copied and nothing asked of the model yet."""
    cells = []
    for cell in step.cells:
        state = {name: value.detach().clone() for name, value in cell.state.items()}
        cells.append(replace(cell, weights=cell.weights.detach().clone(), state=state))
    groups = {n: copy.deepcopy(dict(values)) for n, values in step.groups.items()}
    return Step(cells, copy.deepcopy(dict(step.model)), groups, step.seed, step.loss, step.grad, step.hvp, step.loss_at, step.inputs)


def near(mine: Tensor, theirs: Tensor, tolerance: float, what: str) -> None:
    """The same shape and type, and numbers that differ by rounding: of arithmetic, and once to the stored type. NaN is NaN: windows
    hold it where nothing has been pushed."""
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), what
    if mine.dtype == torch.bool or not mine.is_floating_point():
        assert torch.equal(mine, theirs), what
        return
    stored = torch.finfo(mine.dtype).eps if mine.dtype in (torch.float16, torch.bfloat16) else 0.0
    size = theirs.detach().double().abs()
    room = tolerance * (1 + size.nan_to_num(0).max() if size.numel() else 0) + stored * size + 1e-7 * (stored > 0)
    a, b = mine.detach().double(), theirs.detach().double()
    close = ((a - b).abs() <= room) | (a == b) | (a.isnan() & b.isnan())
    assert bool(close.all()), f"{what}: {a[~close][:5].tolist()} is not {b[~close][:5].tolist()}"


def tensors(shapes: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
