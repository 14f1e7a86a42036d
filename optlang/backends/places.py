"""Where values live: one place per parameter (a cell), per group, and for the model; and the shapes they have there.

Numbers known before the step live wherever they are used, with the hypers and the `t` of that place.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from optlang.backends import arrays
from optlang.backends.base import Cell, Step, StepError
from optlang.ir import Node
from optlang.philox import MODEL_STREAM
from optlang.types import Extent, Level, Type, is_special, runs

Value = Any  # float64 or bool array or scalar of NumPy, or `host.Missing`
Shape = tuple[int, ...]


@dataclass(eq=False, slots=True, repr=False)
class Place:
    """One parameter, one group or the model in one step, and the values computed there so far.

    `at[level]` is the place that holds this place's value of an equal or coarser level, `below[level]` are the places
    that hold all its values of an equal or finer one. `beside[level]`: places of other rules, over which it reduces as well.
    """

    name: str  # for messages
    t: int
    stream: int  # of random draws
    states: MutableMapping[str, Any]
    inputs: Mapping[str, Any]
    group: int | None = None
    cell: Cell | None = None
    shape: Shape = ()
    values: dict[Node, Value] = field(default_factory=dict)
    at: dict[Level, Place] = field(default_factory=dict)
    below: dict[Level, tuple[Place, ...]] = field(default_factory=dict)
    beside: dict[Level, tuple[Place, ...]] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def cells(self) -> tuple[Place, ...]:
        return self.below["tensor"]

    def reached(self, level: Level) -> tuple[Place, ...]:
        """What a reduction goes over."""
        return self.below[level] + self.beside.get(level, ())


def layout(step: Step) -> Place:
    """The place of the model, with those of the groups and cells of a step. The step has at least one cell. Raises StepError."""
    cells = tuple(_cell(cell) for cell in step.cells)
    model = Place("the model", _latest(cells), MODEL_STREAM, step.model, step.inputs)
    groups = _groups(cells, model, step)
    model.at = {"host": model, "model": model}
    model.below = {"host": (model,), "model": (model,), "group": groups, "tensor": cells, "array": cells}
    if step.beside:
        others = tuple(_cell(cell) for cell in step.beside)
        model.beside = {"group": _groups(others, model, step), "tensor": others, "array": others}
    return model


def _latest(cells: Sequence[Place]) -> int:
    """Counts that are on a device are compared there, by those who read them."""
    times = [p.t for p in cells]
    return max(times) if all(isinstance(t, int) for t in times) else times[0]


def _groups(cells: Sequence[Place], model: Place, step: Step) -> tuple[Place, ...]:
    members: dict[int, list[Place]] = {}
    for place in cells:
        assert place.cell is not None
        members.setdefault(place.cell.group, []).append(place)
    return tuple(_group(number, inside, model, step) for number, inside in members.items())


def _group(number: int, cells: Sequence[Place], model: Place, step: Step) -> Place:
    """Connects its cells as well."""
    latest = _latest(cells)
    place = Place(f"group {number}", latest, MODEL_STREAM - number, step.groups.get(number, {}), step.inputs, number)
    place.at = {"host": place, "group": place, "model": model}
    place.below = {"host": (place,), "group": (place,), "tensor": tuple(cells), "array": tuple(cells)}
    for cell in cells:
        cell.at = {"host": cell, "tensor": cell, "array": cell, "group": place, "model": model}
        cell.below = {"host": (cell,), "tensor": (cell,), "array": (cell,)}
    return place


def _cell(cell: Cell) -> Place:
    """Weights and gradients are only read where an expression asks for them."""
    name = _name(cell)
    shape = tuple(cell.weights.shape)
    if cell.gradient is not None and tuple(cell.gradient.shape) != shape:
        raise StepError(f"{name}: its gradient has shape {tuple(cell.gradient.shape)}, the parameter itself {shape}")
    return Place(name, cell.t, cell.index, cell.state, cell.inputs, None, cell, shape)


def _name(cell: Cell) -> str:
    """A name of the model's, or a description by place."""
    if not cell.name:
        return f"parameter {cell.index}"
    return f"parameter `{cell.name}`" if " " not in cell.name else cell.name


def read(x: Any, place: Place) -> Value:
    """Weights or a gradient as float64. Raises StepError."""
    try:
        return arrays.read(x)
    except (ValueError, TypeError) as problem:
        raise StepError(f"{place.name}: {problem}") from problem


# ----------------------------------------------------------------------------------------------------------- shapes


def shape_of(extent: Extent, shape: Shape) -> Shape:
    """The shape of one value of an extent, for a parameter of this shape."""
    if extent.level != "array":
        return ()
    if extent.run:
        return runs(prod(shape), extent.run)[0], 1
    if not is_special(extent):
        return shape
    if len(shape) < 2:
        raise StepError(f"a parameter of shape {shape} has no rows and columns, and a value per {extent} needs them; send it to another "
                        "rule with `route { when rank >= 2 use … otherwise use … }`")  # fmt: skip
    if extent.frame == "flat":
        shape = (shape[0], int(np.prod(shape[1:], dtype=np.int64)))
    sizes = {"rows": shape[-2], "cols": shape[-1]}
    return (*shape[:-2], *(dim if isinstance(dim, int) else sizes[dim] for dim in (extent.rows, extent.cols)))


def full_shape(type_: Type, shape: Shape) -> Shape:
    """With the remembered values of a window as the first dimension."""
    inner = shape_of(type_.extent, shape)
    return (type_.window, *inner) if type_.window else inner


def spread(value: Value, from_: Type, to: Type, shape: Shape) -> Value:
    """A value of one type as one of a coarser or equal type that has its full shape: a view, no copy."""
    wanted = full_shape(to, shape)
    if np.shape(value) == wanted and from_.window == to.window:
        return value
    return np.broadcast_to(pad(value, len(wanted) - 1) if from_.window else value, wanted)


def pad(window: Value, dims: int) -> Value:
    """A window of values of few dimensions as one of values of `dims` dimensions."""
    return window.reshape(window.shape[0], *(1,) * (dims + 1 - window.ndim), *window.shape[1:])
