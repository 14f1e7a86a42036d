"""The functions of the search on flat values: NumPy float64, quick enough to look at thousands of programs a second.

The parameters of a model lie side by side in one flat last axis; what stands before it are independent runs. Each function
of the search becomes one Python function of NumPy calls, made from the expression that it builds, the first time it is met
with operands of some types. What cannot be said on flat values (products of matrices that leave the parameter's shape) has
no such function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from optlang import ir, meaning
from optlang.host import MissingFact, evaluate
from optlang.ir import Node
from optlang.ops import FACTS
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.type_codes import type_of
from optlang.types import ELEMENT, Extent, TypeProblem

Array = Any  # numpy.ndarray, or a number
Call = Callable[..., Array]  # (t, *operands)

MAPS = meaning.maps()
LEVELS = ("host", "model", "tensor")  # of operands that are one number for each parameter, or fewer
_SIGNS = {"add": "+", "sub": "-", "mul": "*"}  # of numbers, a tenth of the time that NumPy's functions take
_UFUNCS = {"sum": np.add, "mean": np.add, "amax": np.maximum, "amin": np.minimum}


class Layout:
    """The parameters of a model side by side. `shapes` are of matrices and vectors."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = tuple(shapes)
        sizes = [math.prod(shape) for shape in self.shapes]
        self.starts = tuple(accumulate(sizes, initial=0))
        self.size = self.starts[-1]
        self._calls: dict[tuple[str, tuple[int, ...]], Call | None] = {}

    @cached_property
    def facts(self) -> dict[str, Array]:
        """Facts of each element's parameter, 0 where it has none."""
        sizes = [math.prod(shape) for shape in self.shapes]
        return {name: np.repeat([float(facts_of(shape).get(name, 0)) for shape in self.shapes], sizes) for name in FACTS}

    def call(self, function: str, given: tuple[int, ...]) -> Call | None:
        """A function on flat operands whose types have these codes; None where there is none."""
        key = (function, given)
        try:
            return self._calls[key]
        except KeyError:
            return self._calls.setdefault(key, _made(self, function, given))


def facts_of(shape: tuple[int, ...]) -> dict[str, int]:
    """Facts of a matrix or a vector."""
    size = math.prod(shape)
    found = {"rank": len(shape), "numel": size, "fan_in": size // shape[0], "fan_out": shape[0]}
    return found | ({"rows": shape[0], "cols": shape[1]} if len(shape) == 2 else {})


def _made(layout: Layout, function: str, given: tuple[int, ...]) -> Call | None:
    types = [type_of(code) for code in given]
    marks = tuple(ir.input_(f"operand {n}", type_) for n, type_ in enumerate(types))
    try:
        root = FUNCTIONS[function].build(*marks)
    except TypeProblem:
        return None
    nodes = ir.walk([root])
    reductions = [node for node in nodes if isinstance(node.value, Extent) and node.args]
    levels = {node.value.level for node in reductions}
    plain = all(type_.extent == ELEMENT or type_.extent.level in LEVELS for type_ in types)
    if not plain or any(type_.window for type_ in types) or not _may_stand(root):
        return None
    if levels == {"model"} and all(node.args[0].type.extent == ELEMENT for node in reductions):
        return _written(nodes, {}, marks, (layout.size,))
    if not levels and all((node.op in MAPS if node.args else node.op != "fact") for node in nodes):
        return _written(nodes, {}, marks, (layout.size,))
    if "model" in levels or "group" in levels:
        return None
    return _by_shape(layout, root, marks)


def _may_stand(root: Node) -> bool:
    """Whether a result can lie in the flat axis."""
    extent = root.type.extent
    return extent == ELEMENT or extent.level in LEVELS


def _by_shape(layout: Layout, root: Node, marks: Sequence[Node]) -> Call | None:
    """Each parameter in its own shape, then side by side again."""
    parts = []
    for start, shape in zip(layout.starts, layout.shapes, strict=False):
        try:
            call = _written(*_taken(root, shape), marks, shape)
        except (MissingFact, KeyError, ValueError):  # a block that is not decided by the shape
            return None
        if call is None:
            return None
        parts.append((slice(start, start + math.prod(shape)), shape, call))
    cuts = [_cut(mark) for mark in marks]

    def combined(t: float, *args: Array) -> Array:
        runs = max((np.shape(arg)[:-1] for arg in args), key=len)
        whole = np.empty((*runs, layout.size))
        for place, shape, call in parts:
            given = [cut(arg, place, shape) for cut, arg in zip(cuts, args, strict=True)]
            whole[..., place].reshape(*runs, *shape)[...] = call(t, *given)
        return whole

    return combined


def _cut(mark: Node) -> Callable[[Array, slice, tuple[int, ...]], Array]:
    """How the part of one parameter is taken out of an operand: of what is one number for a parameter, that number alone."""
    alone = mark.type.extent != ELEMENT

    def cut(arg: Array, place: slice, shape: tuple[int, ...]) -> Array:
        runs = np.shape(arg)[:-1]
        if not runs and np.ndim(arg) == 0:
            return arg
        if alone:
            part = arg if arg.shape[-1] == 1 else arg[..., place.start : place.start + 1]
            return part.reshape(*runs, *(1 for _ in shape))
        return arg[..., place].reshape(*runs, *shape) if arg.shape[-1] > 1 else arg.reshape(*runs, *(1 for _ in shape))

    return cut


def _taken(root: Node, shape: tuple[int, ...]) -> tuple[list[Node], dict[Node, Node]]:
    """What is computed for a parameter of a shape, operands first, and the side that each block takes."""
    facts = facts_of(shape)
    sides: dict[Node, Node] = {}
    order: dict[Node, None] = {}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order[node] = None
        elif node not in order:
            if node.op == "branch":
                sides[node] = node.args[1 if evaluate(node.args[0], {}, facts=facts) else 2]
            stack.append((node, True))
            stack += [(arg, False) for arg in ([sides[node]] if node in sides else node.args)]
    return list(order), sides


def _written(nodes: Iterable[Node], sides: Mapping[Node, Node], marks: Sequence[Node], shape: tuple[int, ...]) -> Call | None:
    """One Python function of NumPy calls; its text is made of our own names alone. None where an operator has no such call."""
    space: dict[str, Any] = {"inf": math.inf, "nan": math.nan}
    words: dict[Node, str] = {mark: f"a{n}" for n, mark in enumerate(marks)}
    lines: list[str] = []
    last = ""
    for node in nodes:
        if node in sides:
            words[node] = words[sides[node]]
        elif node not in words:
            text = _text(node, words, shape, space)
            if text is None:
                return None
            words[node] = f"v{len(lines)}" if node.args else text
            lines += [f"    v{len(lines)} = {text}"] if node.args else []
        last = words[node]
    head = f"def call({', '.join(['t', *(f'a{n}' for n in range(len(marks)))])}):"
    exec("\n".join([head, *lines, f"    return {last}"]), space)
    call: Call = space["call"]
    return call


def _text(node: Node, words: Mapping[Node, str], shape: tuple[int, ...], space: dict[str, Any]) -> str | None:
    """One operator as a call."""
    if node.op == "const":
        return repr(node.value if isinstance(node.value, bool) else float(node.value))
    if node.op == "t":
        return "t"
    if node.op == "fact":
        found = facts_of(shape).get(node.value)
        return None if found is None else repr(float(found))
    if node.op in _SIGNS:
        return f" {_SIGNS[node.op]} ".join(words[arg] for arg in node.args)
    args = ", ".join(words[arg] for arg in node.args)
    if node.op in _UFUNCS and isinstance(node.value, Extent):
        space[f"f_{node.op}"] = _mean if node.op == "mean" else _reduced(_UFUNCS[node.op])
        return f"f_{node.op}({args}, {_axes(node.value, len(shape))})"
    call = _STRUCTURAL.get(node.op) or MAPS.get(node.op)
    if call is None:
        return None
    space[f"f_{node.op}"] = call
    return f"f_{node.op}({args})"


def _axes(left: Extent, rank: int) -> tuple[int, ...]:
    """What a reduction goes over: not the runs."""
    if left.level != "array":
        return tuple(range(-rank, 0))
    return tuple(axis for axis, size in ((-2, left.rows), (-1, left.cols)) if size == 1)


@cache
def _reduced(ufunc: Any) -> Callable[[Array, tuple[int, ...]], Array]:
    return lambda x, axes: ufunc.reduce(x, axis=axes, keepdims=True)


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    return np.add.reduce(x, axis=axes, keepdims=True) / math.prod(x.shape[axis] for axis in axes)


_STRUCTURAL: Mapping[str, Callable[..., Array]] = {
    "matmul": np.matmul, "transpose": meaning.transposed, "as_matrix": lambda x: x, "as_param": lambda x: x, "where": np.where,
}  # fmt: skip
