"""What kernels in any language know of rows, columns and matrices: what reductions to and from these go over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from optlang.backends.kernels.passes import is_lined, kind
from optlang.ir import Node
from optlang.types import Frame, runs

LINES = ("row", "col", "matrix")
DIMENSIONS = {"element": ("batch", "rows", "cols"), "row": ("batch", "rows"), "col": ("batch", "cols"), "matrix": ("batch",), "tensor": ()}


def way(node: Node) -> tuple[str, str]:
    """From which extent to which a reduction goes."""
    return kind(node.args[0].type.extent), kind(node.value)


def over(node: Node) -> Sequence[str]:
    """The dimensions that a reduction goes over."""
    whole, left = way(node)
    return [name for name in DIMENSIONS[whole] if name not in DIMENSIONS[left]]


def frame_of(nodes: Iterable[Node]) -> Frame:
    """What rows are: those of trailing matrices, slices along the first dimension as `as_matrix` has them, or runs of such a length.
    All that one kernel computes agrees on it."""
    return next(n.type.extent.frame for n in nodes if is_lined(n.type.extent))


def matrices(frame: Frame, shape: Sequence[int]) -> tuple[int, int, int]:
    """How many matrices a parameter is, and their rows and columns."""
    if frame == "param":
        return prod(shape[:-2]), shape[-2], shape[-1]
    return (1, shape[0], prod(shape[1:])) if frame == "flat" else (1, *runs(prod(shape), frame))
