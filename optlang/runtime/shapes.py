"""The shapes that the states of a parameter have."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from optlang import host, ir
from optlang.types import Extent, needs_matrix, runs

Shape = tuple[int, ...]


def expected_states(program: ir.Program, shape: Shape, facts: Mapping[str, int], hypers: Mapping[str, Any]) -> dict[str, Shape]:
    """Every state that such a parameter has, shared ones included, with its shape."""
    found = {}
    for state in program.states:
        if state.guard is None or _holds(state.guard, facts, hypers):
            inner = shape_of(state.type.extent, shape)
            found[state.name] = (state.type.window, *inner) if state.type.window else inner
    return found


def _holds(guard: ir.Node, facts: Mapping[str, int], hypers: Mapping[str, Any]) -> bool:
    try:
        return bool(host.evaluate(guard, hypers, 1, facts))
    except host.MissingFact:
        return False


def shape_of(extent: Extent, shape: Shape) -> Shape:
    """The shape of one value of an extent: row (…, rows, 1), col (…, 1, cols), matrix (…, 1, 1), run (runs, 1),
    per tensor and coarser ()."""
    if extent.level != "array":
        return ()
    if extent.run:
        return runs(prod(shape), extent.run)[0], 1
    if not needs_matrix(extent) and extent.frame == "param":
        return shape
    if extent.frame == "flat":
        shape = (shape[0], prod(shape[1:]))
    sizes = {"rows": shape[-2], "cols": shape[-1]}
    return (*shape[:-2], *(dim if isinstance(dim, int) else sizes[dim] for dim in (extent.rows, extent.cols)))
