"""The rules of the table of `references` on every backend and in every number type, and how far each is from what it should be.

In float64 a backend goes the whole loop beside the trusted implementation. In float32, and with parameters in bfloat16, loops
part within a few steps whatever one does, so each step is compared with the reference interpreter's from the same stored numbers.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from closed_loop import drive
from references import Row
from stepping import finite
from test_library import RULES, Fed, our_side, rule_class, settings_of, shaping_of
from torch import Tensor

import optlang

BACKENDS = ("reference", "torch", "cpp", "triton", "module")
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
STORED = {torch.bfloat16: 3 * 2.0**-7}  # three places in the last digit, before or after: modules write some weights in parts, each rounded
STEPS = 6  # of a loop in which each step is compared
SHORT, FEW = 8, 3
KERNELS = ("cpp", "triton")


def by_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rows_of(rule: str) -> list[Row]:
    return [row for row in RULES if row.rule == rule]


def error(row: Row, backend: str, dtype: torch.dtype, few: bool = False) -> float:
    """How far a backend is from what it should be, at worst: relative to 1 and the largest number of a tensor. `few`: steps of a
    learned rule in Triton's interpreter, each of which takes seconds; the third has read all that the first two have stored."""
    most = FEW if few and backend == "triton" and any("[" in name for name in row.ours) else row.steps
    if dtype == torch.float64:
        return in_loop(row, backend, most)
    return Stepwise(row, backend, dtype).worst(min(most, STEPS))


def in_loop(row: Row, backend: str, most: int) -> float:
    """Beside the trusted implementation. Triton's interpreter is slow, so that its loops are short."""
    steps = min(most, SHORT) if backend == "triton" else row.steps
    theirs = their_loop(RULES.index(row))
    ours = drive(our_side(row, backend), row.problem, steps, row.closure)
    return ours.distance(replace(theirs, weights=theirs.weights[: steps + 1]))


@cache
def their_loop(place: int) -> Any:
    row = RULES[place]
    return drive(row.theirs, row.problem, row.steps, row.closure)


class Stepwise:
    """Two optimizers of one rule; before each step the second gets the weights and states of the first."""

    def __init__(self, row: Row, backend: str, dtype: torch.dtype) -> None:
        self.row, self.dtype = row, dtype
        self.sides = [self._side(name) for name in (backend, "reference")]

    def _side(self, backend: str) -> tuple[list[Tensor], Any, Any]:
        """Parameters, the optimizer, and the loop that the rule needs around it."""
        row = self.row
        params = {name: p.detach().to(self.dtype).requires_grad_() for name, p in row.problem.start().items()}
        cls = rule_class(row.rule, row.text, backend, shaping_of(row))
        optimizer = cls(list(params.items()), **settings_of(row, backend))
        fed = optimizer if row.inputs is None else Fed(optimizer, row, params)
        return list(params.values()), optimizer, fed if row.loop is None else row.loop(fed)

    def worst(self, steps: int = STEPS) -> float:
        """Of the first steps."""
        (ours, optimizer, loop), (theirs, reference, other) = self.sides
        found = 0.0
        for step in range(min(steps, self.row.steps)):
            if step:
                self._copy(optimizer, reference)
            before = [p.detach().clone() for p in ours]
            with torch.no_grad():
                for q, old in zip(theirs, before, strict=True):
                    q.copy_(old)
            self._take(loop, ours, step)
            self._take(other, theirs, step)
            finite(*theirs)
            found = max(found, *(self._apart(p, q, old, optimizer, reference) for p, q, old in zip(ours, theirs, before, strict=True)))
        return found

    def elsewhere(self, backend: str) -> dict[str, str]:
        """Parameters that something else stepped, each with the reason that the optimizer gives."""
        return {f"{one.parameter} {tuple(one.shape)}": one.reason for one in self.sides[0][1].backends() if one.backend != backend}

    def _copy(self, optimizer: Any, reference: Any) -> None:
        saved = copy.deepcopy(optimizer.state_dict())
        kept = reference.state_dict()["state"]  # a module also keeps what the settings at hand do not need
        saved["param_groups"] = reference.state_dict()["param_groups"]  # a module may call settings otherwise
        saved["state"] = {place: {k: v for k, v in states.items() if k in kept[place]} for place, states in saved["state"].items()}
        reference.load_state_dict(saved)

    def _take(self, loop: Any, params: list[Tensor], step: int) -> None:
        def evaluate() -> Tensor:
            loop.zero_grad()
            loss = self.row.problem.loss([p.double() for p in params], step)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        if self.row.closure:
            loop.step(evaluate)
        else:
            evaluate()
            loop.step()

    def _apart(self, p: Tensor, q: Tensor, old: Tensor, optimizer: Any, reference: Any) -> float:
        """The weights and the states of one parameter."""
        mine, theirs = optimizer.state[p], reference.state[q]
        assert set(mine) >= set(theirs), f"states {set(mine)} and {set(theirs)}"
        pairs = [(mine[name], theirs[name]) for name in theirs if name != "step"]
        return max([apart(p, q, STORED.get(p.dtype, 0.0) * torch.maximum(old.abs(), q.abs())), *(apart(a, b) for a, b in pairs)])


def apart(mine: Tensor, theirs: Tensor, allowed: Tensor | float = 0.0) -> float:
    """The largest difference beyond what is allowed, relative to 1 and the largest number. Two NaN are alike: states that are windows hold
    them until enough has been pushed. Weights are to be `finite`."""
    assert mine.shape == theirs.shape
    a, b = mine.detach().double(), theirs.detach().double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs() - torch.as_tensor(allowed).detach().double()).clamp(min=0)
    size = 1 + (b.abs().nan_to_num(0, 0, 0).max().item() if b.numel() else 0.0)
    return gap.nan_to_num(float("inf")).max().item() / size if gap.numel() else 0.0


# ------------------------------------------------------------------------------------------------- what is not done


def without_module(rule: str) -> str:
    """Why there is no generated module of a rule, in the generator's words; empty where there is one."""
    try:
        optlang.build(rule)
    except ValueError as problem:
        return str(problem)
    return ""


__all__ = ["BACKENDS", "DTYPES", "KERNELS", "Stepwise", "apart", "by_name", "error", "rows_of", "without_module"]
