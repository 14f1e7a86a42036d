"""The evaluator of the search beside the reference: two runs at once, of which the first starts where the optimizers do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optlang.ir import Program
from optlang.search.batched.layout import Layout
from optlang.search.batched.rule import compile_batched

from .shapes import drawn, shapes_of


def weights(program: Program, matrices: bool, steps: int) -> list[dict[str, Tensor]]:
    """The weights after each step, by name. Raises Refused for what a batch cannot run."""
    shapes = shapes_of(matrices)
    rule, layout = compile_batched(program), Layout({f"p{i}": shape for i, shape in enumerate(shapes)})
    starts = [drawn(shape, i) for i, shape in enumerate(shapes)]
    flat = layout.flat({f"p{i}": torch.stack([x, x + drawn(x.shape, 50 + i)]) for i, x in enumerate(starts)})
    slopes = torch.zeros_like(flat)
    bound = rule.bind(layout, flat, slopes)
    rows: list[dict[str, Tensor]] = []
    for step in range(steps):
        now = layout.views(flat)
        slopes.copy_(layout.flat({name: slope(now[name], step, int(name[1:])) for name in now}))
        bound.step()
        rows.append({name: x[0].clone() for name, x in layout.views(flat).items()})
    return rows


def slope(values: Tensor, step: int, place: int) -> Any:
    """The gradient of the loss that `agree` trains on."""
    return ((values - drawn(values.shape[1:], 99 + 10 * step + place)) + 3 * torch.cos(3 * values)) / 3
