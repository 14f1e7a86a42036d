"""Steps by hand: cells with their facts, programs from text, one step of the reference interpreter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang import lower
from optlang.backends.base import Cell, Step
from optlang.backends.reference import BACKEND
from optlang.errors import Source
from optlang.front import parser
from optlang.ir import Program, Routing, walk
from optlang.runtime.facts import lacks_rank

Array = Any
READS_SIZES = {  # a number of inputs, without treating a parameter as a matrix
    "ScionSign", "HiddenAdamW", "HiddenSGD", "OutputSGD", "UnitHiddenAdamW", "UnitEmbeddingAdamW", "BlockAdamW", "HiddenMLP",
}  # fmt: skip


def facts(shape: Sequence[int]) -> dict[str, int]:
    """The facts of a parameter of a shape, those that its rank gives it."""
    known = {"rank": len(shape), "numel": math.prod(shape)}
    if len(shape) >= 2:
        field = math.prod(shape[2:])
        known |= {"rows": shape[-2], "cols": shape[-1], "fan_in": shape[1] * field, "fan_out": shape[0] * field}
    return known


def cell(weights: Array, gradient: Array = None, *, t: int = 1, index: int = 0, group: int = 0, **hypers: Any) -> Cell:
    """A parameter; what is not a tensor becomes float64, and a missing gradient zeros."""
    if not hasattr(weights, "detach"):
        weights = np.array(weights, dtype=np.float64)
    if gradient is None:
        gradient = weights * 0
    elif not hasattr(gradient, "detach"):
        gradient = np.array(gradient, dtype=np.float64)
    return Cell(weights, gradient, {}, hypers, t, facts(tuple(weights.shape)), index, group, f"p{index}")


def step_of(*cells: Cell, **more: Any) -> Step:
    groups: dict[int, dict[str, Array]] = {c.group: {} for c in cells}
    return Step(list(cells), {}, groups, **more)


def take(program: Program, step: Step) -> Step:
    """One step from whatever states there are."""
    executable = BACKEND.compile(program, "safe")
    executable.prepare(step)
    executable.step(step)
    return step


def program(text: str, name: str = "", **baked: int | bool) -> Program:
    """The rule of a text, which must be right."""
    file, found = parser.parse(Source(text))
    assert not found, found[0].to_text()
    made = lower.lower(file, name, baked)
    assert isinstance(made, Program)
    return made


class Loop:
    """A rule on some parameters, step after step: gradients come in, `t` and everything stored moves on."""

    def __init__(self, rule: Program, *weights: Array, groups: Sequence[int] | None = None, seed: int = 0, **hypers: Any) -> None:
        self.rule = rule
        settings = {h.name: h.default for h in rule.hypers} | {name.replace("__", "."): v for name, v in hypers.items()}
        numbers = groups or [0] * len(weights)
        self.cells = [cell(w, index=i, group=k) for i, (w, k) in enumerate(zip(weights, numbers, strict=True))]
        for c in self.cells:
            c.hypers, c.t = dict(settings), 0
        self.taken = step_of(*self.cells, seed=seed)
        self.executable = BACKEND.compile(rule, "safe")

    def step(self, *gradients: Array, **more: Any) -> list[Array]:
        """The new weights. `more` are fields of the step (`loss`, `grad`, …)."""
        for c, g in zip(self.cells, gradients or [np.zeros_like(c.weights) for c in self.cells], strict=True):
            c.gradient = np.broadcast_to(np.array(g, dtype=np.float64), c.weights.shape)
            c.t += 1
        for name, value in more.items():
            setattr(self.taken, name, value)
        self.executable.prepare(self.taken)
        self.executable.step(self.taken)
        return self.weights

    @property
    def weights(self) -> list[Array]:
        return [c.weights.copy() for c in self.cells]

    def state(self, name: str, index: int = 0) -> Array:
        """A copy of a state of a parameter, or of one that is shared."""
        for holder in (self.cells[index].state, self.taken.groups[self.cells[index].group], self.taken.model):
            if name in holder:
                return np.array(holder[name])
        raise KeyError(name)


def shapes_for(made: Program | Routing, shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those of some shapes that a rule can step: for one that wants matrices, those with rows, columns and elements.

    A route sends each to a rule that takes it.
    """
    if isinstance(made, Routing):
        return list(shapes)
    settings = {h.name: h.default for h in made.hypers}
    needs_matrices = lacks_rank(made, dict(facts(())), settings) or made.name in READS_SIZES
    return [shape for shape in shapes if len(shape) >= 2 and 0 not in shape] if needs_matrices else list(shapes)


def is_ambiguous(made: Program | Routing) -> bool:
    """Whether rounding decides what a rule does: eigenvectors of equal eigenvalues, and bases of spaces that are too small, are
    anybody's choice, and losses at points that are near each other are nearly equal. Steps of such rules are compared in the tests
    of the library, where that does not matter."""
    programs = [case.program for case in made.cases] if isinstance(made, Routing) else [made]
    return any(node.op in ("eigenvectors", "orthonormal", "descending", "loss_at") for p in programs for node in walk(p.all_roots()))


def finite(*weights: Any) -> None:
    """What two sides are compared by must be numbers: where both have run away, nothing can tell them apart."""
    for w in weights:
        assert bool((abs(w) < math.inf).all()), "the numbers run away, so nothing can be told apart"


def two_steps(cls: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    """Of those of the shapes that a rule takes, for what is made of the rule on the way."""
    some_steps(cls, shapes, 2)


def some_steps(
    cls: Any, shapes: Sequence[tuple[int, ...]], count: int, dtype: torch.dtype = torch.float32,
    before: Callable[[Any], None] = lambda optimizer: None,
) -> list[Tensor]:  # fmt: skip
    """The weights after so many steps, with drawn inputs; `before`: what is done to the optimizer before each."""
    params = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes_for(cls.rule, shapes)]
    optimizer = cls([(f"p{i}", p) for i, p in enumerate(params)])
    for wanted in (i.name for case in cls.cases for i in case.program.inputs):
        optimizer.inputs[wanted] = {p: torch.rand_like(p) for p in params}

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([((p - 1) ** 3).sum() for p in params]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    for _ in range(count):
        before(optimizer)
        closure()
        optimizer.step(*([closure] if cls.asks_again else []))
    finite(*params)
    return [p.detach() for p in params]
