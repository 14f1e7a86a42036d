"""What a program does, as a short text: programs that behave alike have the same, however they are written.

A program is run in NumPy float64 for a few steps on fixed gradients of several sizes, for a matrix and a vector at once, its
slots filling up. The updates, rounded so that the order of additions does not show, are the fingerprint; where the form
scales updates by a tuned step size, only their direction counts. Values lie side by side in one flat last axis. Few probes show
whether a program descends; its fingerprint takes many more, for two masks may differ in one element of a thousand.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from optlang import ir
from optlang.backends.base import Cell, StepError
from optlang.backends.base import Step as Stepped
from optlang.backends.reference import BACKEND
from optlang.search.distil.flat import Layout, facts_of
from optlang.search.distil.steps import Step, genome_function
from optlang.search.programs.genome import Form, Genome, GenomeError, to_program
from optlang.types import TypeProblem

Array = Any  # numpy.ndarray, or a number
SHAPES: tuple[tuple[int, ...], ...] = ((4, 3), (5,))
LAYOUT = Layout(SHAPES)
SIZE = LAYOUT.size
LOUDNESS = (1.0, 30.0, 0.1, 3.0, 0.3, 10.0, 0.03, 1.7, 0.6, 5.0)  # of the probes, again and again
STEPS, PROBES, MORE = 5, 10, 100
LOUD = slice(PROBES, None, 20)  # some of those in a fingerprint are a thousand times as loud: there exp(g) is 0 or infinite
SCALE_RTOL = 1e-2  # an epsilon of 1e-8 beside the smallest gradient is no dependence on the scale
HUGE = 1e100  # infinite: factors that do not count shall not decide what overflows
NOTHING = 1e-12  # of the largest value of a step: below this, all is rounding
DROPPED = 29  # bits of a float64: 7 decimal digits are left
HALF_CELL = 199_004_321  # short binary fractions and whole numbers shall not lie at the edge of what is rounded to one


@dataclass(frozen=True)
class Probe:
    """Fixed gradients and weights, [steps, probes, elements]: a slow direction with noise, over four decades of sizes."""

    gradients: Array
    weights: Array
    sizes: Array  # of the gradients, squared, [steps, probes]


@cache
def probe(seed: int = 2302_06675, count: int = PROBES) -> Probe:
    source = np.random.default_rng(seed)
    loudness = np.resize(LOUDNESS, count)
    loudness[LOUD] *= 1e3
    sizes = 10.0 ** source.uniform(-2, 1, size=(1, count, SIZE)) * loudness.reshape(1, count, 1)
    slow = source.normal(size=(1, count, SIZE))
    gradients = sizes * (slow + 0.7 * source.normal(size=(STEPS, count, SIZE)))
    return Probe(gradients, source.normal(size=(STEPS, count, SIZE)), (gradients**2).sum(-1))


def ready(genome: Genome, form: Form) -> Step | None:
    """A program made ready for the probes; None if it needs the interpreter."""
    return genome_function(genome, form, LAYOUT)


def updates(genome: Genome, form: Form, scale: float = 1.0, data: Probe | None = None, step: Step | None = None) -> Array:
    """What a program computes in each step, [steps, probes, elements], of gradients times `scale`; NaN where it cannot run.

    `step`: the program, if it is `ready` already.
    """
    data, step = data or probe(), step or ready(genome, form)
    with np.errstate(all="ignore"):
        return _by_interpreter(genome, form, scale, data) if step is None else _quick(step, form, scale, data)


def fingerprint(genome: Genome, form: Form, found: Array, step: Step | None = None) -> str:
    """The short text for a program whose updates are `found`. Of programs that need the interpreter it tells no more than these."""
    step = step or ready(genome, form)
    with np.errstate(all="ignore"):
        seen = [found] if step is None else [found, _quick(step, form, 1.0, probe(MORE, MORE))]
        size = _size(found) if form.scaled else 1.0
        sums = [_keys(one.size) @ _rounded(one / size).ravel() for one in seen]
    return hashlib.blake2b(b"".join([one.tobytes() for one in sums]), digest_size=12).hexdigest()


@cache
def _keys(size: int) -> Array:
    """Sums with these, modulo 2^64, stand for so many numbers: to hash all of them takes longer than the program did."""
    return np.random.default_rng(size).integers(-(2**63), 2**63, size=(2, size), dtype=np.int64) | 1


def _size(found: Array) -> float:
    """Root mean square of finite updates, which may be too large to be squared."""
    largest = np.abs(found).max()
    values = found / largest
    return float(largest * math.sqrt(np.vdot(values, values) / values.size))


def _rounded(values: Array) -> Array:
    """Updates as whole numbers that are alike where only the order of additions differs. The values are changed."""
    sizes = np.abs(values)
    largest = sizes.max()
    lost = None if largest < HUGE else ~(sizes < HUGE)
    if lost is not None:
        sizes[lost] = values[lost] = 0.0
        largest = sizes.max()
    if sizes.min() <= NOTHING * largest:  # else no element is nothing beside the others of its step
        values[sizes <= NOTHING * sizes.max(-1, keepdims=True)] = 0.0  # beside one step that explodes the others still count
    if lost is not None:
        values[lost] = np.inf
    whole = values.view(np.int64)
    whole += HALF_CELL
    whole >>= DROPPED
    return whole


def descends(found: Array) -> float:
    """The mean cosine between updates and gradients: above 0, a small step lowers the loss."""
    g = probe().gradients
    with np.errstate(all="ignore"):
        product = np.add.reduce(found * g, -1)
        size = np.add.reduce(found * found, -1)
        cosines = product / np.sqrt(size * probe().sizes)
    return float(np.add.reduce(cosines[size > 0]) / cosines.size)


def ignores_scale(genome: Genome, form: Form, found: Array, scales: Sequence[float], step: Step | None = None) -> bool:
    """Whether updates stay the same when the loss, and with it every gradient, is multiplied."""
    close = {"rtol": SCALE_RTOL, "atol": 1e-6 * np.abs(found).max()}
    return all(np.allclose(updates(genome, form, scale, step=step), found, **close) for scale in scales)


# ------------------------------------------------------------------------------------------------- two ways to run


def _quick(step: Step, form: Form, scale: float, data: Probe) -> Array:
    slots: dict[str, Array] = dict.fromkeys(form.slots, np.zeros(data.weights.shape[1:]))
    found = np.empty(data.weights.shape)
    for number in range(STEPS):
        found[number], slots = step(data.weights[number], scale * data.gradients[number], slots, number + 1.0)
    return found


def _by_interpreter(genome: Genome, form: Form, scale: float, data: Probe) -> Array:
    """By the reference interpreter: for what treats parameters as matrices of other shapes."""
    nothing = np.full((STEPS, PROBES, SIZE), np.nan)
    try:
        program = to_program(genome, form)
        return np.stack([_one_probe(program, number, scale, data) for number in range(data.weights.shape[1])], 1)
    except (StepError, GenomeError, TypeProblem):
        return nothing


def _one_probe(program: ir.Program, number: int, scale: float, data: Probe) -> Array:
    executable = BACKEND.compile(program, "safe")
    cells = [Cell(np.zeros(shape), None, {}, {"lr": 1.0}, 0, facts_of(shape), n, 0) for n, shape in enumerate(SHAPES)]
    step, found = Stepped(cells, {}, {0: {}}), np.empty((STEPS, SIZE))
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
