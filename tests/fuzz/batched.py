"""The evaluator of the search beside the reference: two runs at once, of which the first starts where the optimizers do."""

from __future__ import annotations

import torch
from torch import Tensor

from optlang.ir import Program
from optlang.search.batched.layout import Layout
from optlang.search.batched.rule import compile_batched

from .shapes import drawn, first_values, shapes_of, slope
from .training import Way


def weights(program: Program, matrices: bool, way: Way) -> list[dict[str, Tensor]]:
    """The weights after each step, by name. Raises Refused for what a batch cannot run."""
    shapes = shapes_of(matrices, way.shapes)
    rule, layout = compile_batched(program), Layout({f"p{i}": shape for i, shape in enumerate(shapes)})
    starts = first_values(shapes)
    flat = layout.flat({f"p{i}": torch.stack([x, x + drawn(tuple(x.shape), 50 + i)]) for i, x in enumerate(starts)})
    slopes = torch.zeros_like(flat)
    bound = rule.bind(layout, flat, slopes)
    rows: list[dict[str, Tensor]] = []
    for step in range(way.steps):
        now = layout.views(flat)
        slopes.copy_(layout.flat({f"p{i}": slope(now[f"p{i}"], shape, step, i) for i, shape in enumerate(shapes)}))
        bound.step()
        rows.append({name: x[0].clone() for name, x in layout.views(flat).items()})
    return rows
