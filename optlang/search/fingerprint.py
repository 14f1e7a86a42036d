"""What a program does, as a short text: programs that behave alike have the same, however they are written.

A program is run in NumPy float64 for a few steps on fixed gradients of several sizes, for a matrix and a vector at once, its
slots filling up. The updates, rounded so that the order of additions does not show, are the fingerprint; where the form
scales updates by a tuned step size, only their direction counts. Values lie side by side in one flat last axis.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from optlang import ir, meaning
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import Node
from optlang.ops import FACTS
from optlang.search.functions import FUNCTIONS
from optlang.search.genome import NUMBER, UPDATE, Form, Genome, GenomeError, input_codes, result_code, to_program, type_of
from optlang.types import ELEMENT, HOST, Extent, TypeProblem

Array = Any  # numpy.ndarray, or a number
SHAPES: tuple[tuple[int, ...], ...] = ((4, 3), (5,))
SIZE = 17  # elements of all shapes
STEPS, PROBES = 4, 2
DIGITS = 7
NOTHING = 1e-12  # of the largest value: below this, all is rounding
MAPS = meaning.maps()


@dataclass(frozen=True)
class Probe:
    """Fixed gradients and weights, [steps, probes, elements]: a slow direction with noise, over four decades of sizes."""

    gradients: Array
    weights: Array


@cache
def probe() -> Probe:
    source = np.random.default_rng(2302_06675)
    sizes = 10.0 ** source.uniform(-2, 1, size=(1, PROBES, SIZE)) * np.array([1.0, 30.0]).reshape(1, PROBES, 1)
    slow = source.normal(size=(1, PROBES, SIZE))
    gradients = sizes * (slow + 0.7 * source.normal(size=(STEPS, PROBES, SIZE)))
    return Probe(gradients, source.normal(size=(STEPS, PROBES, SIZE)))


def updates(genome: Genome, form: Form, scale: float = 1.0) -> Array:
    """What a program computes in each step, [steps, probes, elements], of gradients times `scale`; NaN where it cannot run."""
    known = _plain(genome, form)
    with np.errstate(all="ignore"):
        return _by_interpreter(genome, form, scale) if known is None else _quick(known, form, scale)


def fingerprint(found: Array, form: Form) -> str:
    """The short text for some updates."""
    with np.errstate(all="ignore"):
        size = np.abs(found).max()
        values = np.where(np.abs(found) <= NOTHING * size, 0.0, found)
        if form.scaled:
            values = values / np.sqrt(np.mean(values**2))
        mantissas, exponents = np.frexp(values)
        rounded = np.round(mantissas * 10**DIGITS).astype(np.int64)
    full = np.abs(rounded) == 10**DIGITS  # 0.9999999…: the next power of two begins
    rounded, exponents = np.where(full, rounded // 2, rounded), exponents + full
    return hashlib.blake2b(rounded.tobytes() + exponents.astype(np.int32).tobytes(), digest_size=12).hexdigest()


def descends(found: Array) -> float:
    """The mean cosine between updates and gradients: above 0, a small step lowers the loss."""
    g = probe().gradients
    with np.errstate(all="ignore"):
        size = np.sqrt((found**2).sum(-1) * (g**2).sum(-1))
        return float(np.nan_to_num((found * g).sum(-1) / size).mean())


def ignores_scale(genome: Genome, form: Form, found: Array, scales: Sequence[float]) -> bool:
    """Whether updates stay the same when the loss, and with it every gradient, is multiplied."""
    return all(np.allclose(updates(genome, form, scale), found, rtol=1e-3, atol=1e-6 * np.abs(found).max()) for scale in scales)


# ------------------------------------------------------------------------------------------------- the quick way


Line = tuple[Callable[..., Array], str, tuple[Any, ...]]
Call = Callable[..., Array]  # (t, *operands) -> [probes, elements], or a number
SHAPED = ("rows", "cols", "fan_in", "fan_out")  # vectors lack some of them
MATRICES = ("matmul", "transpose", "as_matrix", "as_param")
UNUSUAL = ("quantile", "eye", "random", "push", "count")


def _quick(lines: Sequence[Line], form: Form, scale: float) -> Array:
    data = probe()
    slots = dict.fromkeys(form.slots, np.zeros((PROBES, SIZE)))
    found = np.empty((STEPS, PROBES, SIZE))
    for step in range(STEPS):
        t = step + 1.0
        values: dict[str, Array] = {**_facts(), **slots, "w": data.weights[step], "g": scale * data.gradients[step], "t": t, "lr": 1.0}
        for function, target, args in lines:
            values[target] = function(t, *[values[arg] if type(arg) is str else arg for arg in args])
        for slot in slots:
            slots[slot] = np.broadcast_to(values[slot], (PROBES, SIZE))  # a slot may be given one number
        found[step] = values[UPDATE]
    return found


@cache
def _facts() -> dict[str, Array]:
    """Facts of each element's parameter."""
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    return {name: np.repeat([float(facts_of(shape).get(name, 0)) for shape in SHAPES], sizes) for name in FACTS}


def facts_of(shape: tuple[int, ...]) -> dict[str, int]:
    """Facts of a matrix or a vector."""
    size = int(np.prod(shape))
    found = {"rank": len(shape), "numel": size, "fan_in": size // shape[0], "fan_out": shape[0]}
    return found | ({"rows": shape[0], "cols": shape[1]} if len(shape) == 2 else {})


def _plain(genome: Genome, form: Form) -> list[Line] | None:
    """The statements as NumPy calls; None where one is not to be had on flat values."""
    known = dict(input_codes(form))
    lines: list[Line] = []
    for function, target, args, _ in genome:
        given = tuple([known[arg] if isinstance(arg, str) else NUMBER for arg in args])
        call = _function(function, given)
        if call is None or any(arg in SHAPED for arg in args):
            return None
        lines.append((call, target, args))
        known[target] = result_code((function, *given))
    return lines


@cache
def _function(name: str, given: tuple[int, ...]) -> Call | None:
    """A function of the search on flat values; None where it needs other shapes, or reduces what is not one value per element."""
    row = FUNCTIONS[name]
    marks = tuple(ir.input_(f"operand {n}", type_of(code)) for n, code in enumerate(given))
    try:
        root = row.build(*marks)
    except TypeProblem:
        return None
    nodes = ir.walk([root])
    levels = {node.value.level for node in nodes if isinstance(node.value, Extent) and node.args}
    if any(node.type.window or node.op in UNUSUAL for node in nodes) or (levels and levels & {"model", "group"} and len(levels) > 1):
        return None
    if not levels and not any(node.op in MATRICES for node in nodes):
        return _elementwise(nodes, marks)
    extent = root.type.extent
    if any(type_of(code).extent not in (ELEMENT, HOST) for code in given) or (extent.level == "array" and extent != ELEMENT):
        return None
    shapes = ((SIZE,),) if levels == {"model"} else SHAPES
    return lambda t, *args: _by_shape(root, marks, shapes, t, args)


def _elementwise(nodes: Sequence[Node], marks: Sequence[Node]) -> Call:
    """One Python function of NumPy calls, made once for each function of the search; its text is made of our own names."""
    words: dict[Node, str] = {mark: f"a{n}" for n, mark in enumerate(marks)}
    space: dict[str, Any] = {"inf": math.inf, "nan": math.nan}
    for node in nodes:
        if node.op == "const":
            words[node] = repr(node.value if isinstance(node.value, bool) else float(node.value))
        elif node.op == "t":
            words[node] = "t"
        elif node not in words:
            space[f"f_{node.op}"] = MAPS.get(node.op, np.where)
            words[node] = f"f_{node.op}({', '.join(words[arg] for arg in node.args)})"
    text = f"lambda {', '.join(['t', *(f'a{n}' for n in range(len(marks)))])}: {words[nodes[-1]]}"
    return eval(text, space)  # type: ignore[no-any-return]


def _by_shape(root: Node, marks: Sequence[Node], shapes: Sequence[tuple[int, ...]], t: float, args: Sequence[Array]) -> Array:
    """A function of each parameter, in its own shape, side by side again."""
    parts, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        inside = {mark: _cut(arg, start, size, shape) for mark, arg in zip(marks, args, strict=True)}
        value = _value(root, {**inside}, shape, t)
        parts.append(np.broadcast_to(value, (PROBES, *shape)).reshape(PROBES, size))
        start += size
    return np.concatenate(parts, 1) if len(parts) > 1 else parts[0]


def _cut(arg: Array, start: int, size: int, shape: tuple[int, ...]) -> Array:
    if np.ndim(arg) == 0:
        return arg
    return np.broadcast_to(arg, (PROBES, SIZE))[:, start : start + size].reshape(PROBES, *shape)


def _value(node: Node, known: dict[Node, Array], shape: tuple[int, ...], t: float) -> Array:
    """One expression for one parameter; of a block only the side that is taken, for a vector has no rows."""
    if node in known:
        return known[node]
    if node.op == "branch":
        known[node] = _value(node.args[1 if _value(node.args[0], known, shape, t) else 2], known, shape, t)
        return known[node]
    args = [_value(arg, known, shape, t) for arg in node.args]
    known[node] = _applied(node, args, shape, t)
    return known[node]


def _applied(node: Node, args: list[Array], shape: tuple[int, ...], t: float) -> Array:
    match node.op:
        case "const":
            return node.value if isinstance(node.value, bool) else float(node.value)
        case "t":
            return t
        case "fact":
            return float(facts_of(shape)[node.value])
        case "matmul":
            return np.matmul(*args)
        case "transpose":
            return np.swapaxes(args[0], -1, -2)
        case "as_matrix" | "as_param":
            return args[0]
        case _ if node.op in meaning.OVER_VALUES:
            return meaning.OVER_VALUES[node.op](args[0], _axes(node.value, args[0].ndim))
        case _:
            return MAPS[node.op](*args)


def _axes(left: Extent, dims: int) -> tuple[int, ...]:
    """What a reduction goes over: not the probes, which are runs of their own."""
    if left.level != "array":
        return tuple(range(1, dims))
    return tuple(axis for axis, size in ((-2, left.rows), (-1, left.cols)) if size == 1)


# ---------------------------------------------------------------------------------------------------- the slow way


def _by_interpreter(genome: Genome, form: Form, scale: float) -> Array:
    """By the reference interpreter: for what treats parameters as matrices of other shapes."""
    nothing = np.full((STEPS, PROBES, SIZE), np.nan)
    try:
        program = to_program(genome, form)
        return np.stack([_one_probe(program, number, scale) for number in range(PROBES)], 1)
    except (StepError, GenomeError, TypeProblem):
        return nothing


def _one_probe(program: ir.Program, number: int, scale: float) -> Array:
    executable, data = BACKEND.compile(program, "safe"), probe()
    cells = [Cell(np.zeros(shape), None, {}, {"lr": 1.0}, 0, facts_of(shape), n, 0) for n, shape in enumerate(SHAPES)]
    step, found = Step(cells, {}, {0: {}}), np.empty((STEPS, SIZE))
    edges = np.cumsum([0, *(int(np.prod(shape)) for shape in SHAPES)])
    for t in range(STEPS):
        for cell, low, high in zip(cells, edges, edges[1:], strict=False):
            cell.t, cell.gradient = t + 1, scale * data.gradients[t, number, low:high].reshape(cell.weights.shape)
            cell.weights[...] = data.weights[t, number, low:high].reshape(cell.weights.shape)
        executable.prepare(step)
        before = [cell.weights.copy() for cell in cells]
        executable.step(step)
        found[t] = np.concatenate([(a - cell.weights).ravel() for a, cell in zip(before, cells, strict=True)])
    return found
