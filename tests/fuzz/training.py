"""A few steps of an optimizer on small parameters, and what is stored after each."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optlang.ir import Program, Routing
from optlang.ops import ASKING

from .grow import Grown
from .shapes import first_values, loss, shapes_of, slope

Stored = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Way:
    """How the optimizers are run: number type, groups with settings of their own, missing gradients, a halt half-way, how
    freely they are simplified, the number of the set of shapes, and step sizes that change after every other step."""

    dtype: torch.dtype = torch.float64
    groups: bool = False
    missing: bool = False
    halfway: bool = False
    steps: int = 4
    math: str = "safe"
    shapes: int = 0
    rates: bool = False


def asks(what: Program | Routing) -> bool:
    """Whether a step needs a closure."""
    programs = [case.program for case in what.cases] if isinstance(what, Routing) else [what]
    return any(program.uses(op) for program in programs for op in (*ASKING, "loss"))


def run(make: Any, grown: Grown, way: Way, closures: bool) -> list[Stored]:
    """What is stored after each step: weights, and states of optimizers that have them by the rule's names; at last the
    weights to evaluate with, where there are such."""
    params = [x.to(way.dtype).requires_grad_() for x in first_values(shapes_of(grown.matrices, way.shapes))]
    made = _optimizer(make, params, way, grown.text)
    rows: list[Stored] = []
    for step in range(way.steps):
        if way.halfway and step == way.steps // 2:
            saved = copy.deepcopy(made.state_dict())
            params = [p.detach().clone().requires_grad_() for p in params]
            made = _optimizer(make, params, way, grown.text)
            made.load_state_dict(saved)
        taking = {i: p for i, p in enumerate(params) if not (way.missing and step == 1 == i)}
        (_step_of_a_model if closures else _step)(made, taking, step)
        rows.append(_stored(made, params))
        for group in made.param_groups if way.rates and step % 2 else ():
            group["lr"] *= 0.7
    return [*rows, _evaluated(made, params)] if hasattr(made, "train") else rows


def _optimizer(make: Any, params: list[Tensor], way: Way, text: str) -> Any:
    cut = len(params) // 2 if way.groups else len(params)
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    made = make([{"params": named[:cut]}, {"params": named[cut:], "lr": 0.1}] if way.groups else named)
    if "input " in text and hasattr(made, "inputs"):
        first = first_values([p.shape for p in params])
        made.inputs |= {"c": {p: (x**2 + 0.5).to(p.dtype) for p, x in zip(params, first, strict=True)}, "n": 0.7}
    return made


def _evaluated(made: Any, params: list[Tensor]) -> Stored:
    made.eval()
    found = [(f"p{i} evaluated", p.detach().clone()) for i, p in enumerate(params)]
    made.train()
    return found + [(f"p{i} again", p.detach().clone()) for i, p in enumerate(params)]


def _step(made: Any, taking: dict[int, Tensor], step: int) -> None:
    made.zero_grad()
    for place, p in taking.items():
        p.grad = slope(p.detach().double(), tuple(p.shape), step, place).to(p.dtype)
    made.step()


def _step_of_a_model(made: Any, taking: dict[int, Tensor], step: int) -> None:
    def closure() -> Tensor:
        made.zero_grad()
        total = torch.stack([loss(p.double(), step, place) for place, p in taking.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    made.step(closure)


def _stored(made: Any, params: list[Tensor]) -> Stored:
    found = [(f"p{i}", p.detach().clone()) for i, p in enumerate(params)]
    if hasattr(made, "cases"):
        for i, p in enumerate(params):
            found += [(f"p{i}.{name}", torch.as_tensor(x).clone()) for name, x in sorted(made.state[p].items()) if name != "step"]
    return found + [(f"report {k}", torch.as_tensor(v)) for k, v in sorted(getattr(made, "reports", {}).items())]
