"""Programs made of nodes by hand, and values of expressions in the reference interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stepping import cell, step_of, take

from optlang import ir
from optlang.backends.base import Step
from optlang.ir import Node, Program, State, make
from optlang.types import COL, ELEMENT, MATRIX, ROW, TENSOR, Extent, Kind, Type

LR = ir.hyper("lr")
X = np.array([[1.0, 2, 3], [4, 5, 7]])
numbers = st.floats(-10, 10)
many_shapes = hnp.array_shapes(min_dims=2, max_dims=4, max_side=4)
SHAPES = {ELEMENT: (2, 4, 3), ROW: (2, 4, 1), COL: (2, 1, 3), MATRIX: (2, 1, 1), TENSOR: ()}


def rule(weights: Node, evaluation: Node | None = None, reports: dict[str, Node] | None = None, **states: tuple[Any, ...]) -> Program:
    """A program; each state is (extent, initial value, new value) and may go on with a window and a guard."""
    kept, updates = [], {}
    for name, (extent, start, new, *more) in states.items():
        kind: Kind = "bool" if new.type.kind == "bool" else "real"
        window, guard = (*more, None)[:2] if more else (0, None)
        kept.append(State(name, Type(kind, extent, window), start, guard))
        updates[name] = new
    return Program("Test", "", (), tuple(kept), (), updates, weights, evaluation, reports)


def value(node: Node, weights: Any = X, gradient: Any = None, **hypers: Any) -> Any:
    """What an expression is, spread over one parameter."""
    one = cell(weights, gradient, **hypers)
    return take(rule(node), step_of(one)).cells[0].weights


def reduce(op: str, x: Node, extent: Extent | str, *more: Node) -> Node:
    return make(op, (x, *more), extent)


def stored(extent: Extent, name: str = "s", kind: Kind = "real", window: int = 0) -> Node:
    return ir.state(name, Type(kind, extent, window))


def norm(x: Node, extent: Extent) -> Node:
    return make("sqrt", (reduce("sum", ir.square(x), extent),))


def first_weights(node: Node, step: Step) -> list[float]:
    return [float(c.weights.ravel()[0]) for c in take(rule(node), step).cells]


def two_groups(**hypers: Any) -> Step:
    return step_of(
        cell([1.0, 2.0], [3.0, 4.0], index=0, group=0, **hypers),
        cell([[5.0, 5.0]], [[12.0, 0.0]], index=1, group=1, **hypers),
        cell([7.0], [84.0], index=2, group=1, **hypers),
    )


class Recorder:
    """A training loop that writes down at which points it was asked."""

    def __init__(self, factor: float = 2.0) -> None:
        self.points: list[list[Any]] = []
        self.factor = factor

    def __call__(self, points: list[Any]) -> list[Any]:
        self.points.append(points)
        return [self.factor * x for x in points]
