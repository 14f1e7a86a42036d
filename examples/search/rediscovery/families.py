"""Whether a found rule behaves like a known one, up to scale: by what it does with gradients, not by how it is written.

A rule is given sequences of gradients and its updates are compared, over a family of the known rule's settings, by the
cosine of the angle between the two whole sequences; 1 is the same rule at another step size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optlang.backends.base import Cell, Step, StepError
from optlang.backends.reference import BACKEND
from optlang.ir import Program

Array = Any  # numpy.ndarray
STEPS, SIZE = 40, 48
SKIPPED = 5  # first steps, in which averages that began at zero are still small
ALIKE = 0.95
DECAYS = (0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)  # less is hardly a memory
SCALES = (1e-3, 1e3)


@dataclass(frozen=True)
class Match:
    """How like its nearest relative a rule is: `cosine` from -1 to 1, and which settings that has."""

    family: str
    cosine: float
    settings: str

    @property
    def is_found(self) -> bool:
        return self.cosine >= ALIKE


def updates(program: Program, gradients: Array) -> Array:
    """What a rule takes away from the weights in each step, for gradients [steps, elements]. NaN where it cannot run."""
    executable = BACKEND.compile(program, "safe")
    hypers = {h.name: h.default for h in program.hypers} | {"lr": 1.0}
    source = np.random.default_rng(7)
    cell = Cell(source.normal(size=gradients.shape[1]), None, {}, hypers, 0, {"rank": 1, "numel": gradients.shape[1]}, 0, 0)
    step, found = Step([cell], {}, {0: {}}), []
    try:
        for number, gradient in enumerate(gradients, 1):
            before = cell.weights.copy()
            cell.t, cell.gradient = number, gradient
            executable.prepare(step)
            executable.step(step)
            found.append(before - cell.weights)
            cell.weights[:] = before  # weights stay, so that what the rule does with gradients is seen alone
    except StepError:
        return np.full(gradients.shape, np.nan)
    return np.array(found)


def cosine(one: Array, other: Array) -> float:
    """Of two sequences as wholes, without the first steps; -1 where one is not finite or zero."""
    a, b = one[SKIPPED:].ravel(), other[SKIPPED:].ravel()
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / size) if np.isfinite(size) and size > 0 else -1.0


# ------------------------------------------------------------------------------------------------ families of rules


def average(values: Array, decay: float) -> Array:
    """Of each step's values with those before, from zero."""
    kept, found = np.zeros_like(values[0]), []
    for value in values:
        kept = decay * kept + (1 - decay) * value
        found.append(kept)
    return np.array(found)


def _momentum(gradients: Array) -> dict[str, Array]:
    """Momentum with any decay that remembers, plain or with Nesterov's step ahead."""
    plain = {f"decay {d:g}": average(gradients, d) for d in DECAYS}
    return plain | {f"decay {d:g}, Nesterov": (1 - d) * gradients + d * average(gradients, d) for d in DECAYS}


def _signs(gradients: Array) -> dict[str, Array]:
    """Signs with memory: of an average, the average of signs, or signs of an average averaged once more."""
    signs = np.sign(gradients)
    return {
        **{f"sign of an average, decay {d:g}": np.sign(average(gradients, d)) for d in DECAYS},
        **{f"average of signs, decay {d:g}": average(signs, d) for d in DECAYS},
        **{f"average of signs, decay {d:g}, Nesterov": (1 - d) * signs + d * average(signs, d) for d in DECAYS},
    }


FAMILIES: Mapping[str, Callable[[Array], dict[str, Array]]] = {"momentum": _momentum, "sign-momentum": _signs}


def matches(program: Program, family: str) -> Match:
    """The nearest member of a family. Raises KeyError for an unknown one."""
    if family == "normalized":
        return _normalized(program)
    gradients = _gradients(heavy=family == "sign-momentum")
    mine = updates(program, gradients)
    settings, best = max(
        ((name, cosine(mine, theirs)) for name, theirs in FAMILIES[family](gradients).items()), key=lambda found: found[1]
    )
    return Match(family, best, settings)


def _normalized(program: Program) -> Match:
    """The class of rules whose update does not grow with the gradients: compared with themselves on scaled gradients."""
    gradients = _gradients(heavy=False)
    mine = updates(program, gradients)
    size = np.linalg.norm(mine[SKIPPED:])
    worst: float = 1.0
    for scale in SCALES:
        other = updates(program, scale * gradients)
        ratio = np.linalg.norm(other[SKIPPED:]) / size if size > 0 else np.nan
        close = min(ratio, 1 / ratio) if np.isfinite(ratio) and ratio > 0 else -1.0
        worst = min(worst, cosine(mine, other), float(close))
    return Match("normalized", worst, f"gradients times {' and '.join(f'{scale:g}' for scale in SCALES)}")


def _gradients(heavy: bool) -> Array:
    """A slowly turning direction with noise; `heavy`: an element in 50 is hit by something far larger."""
    source = np.random.default_rng(11)
    slow = average(source.normal(size=(STEPS, SIZE)), 0.9) + 0.2 * source.normal(size=SIZE)
    found = slow + source.normal(size=(STEPS, SIZE))
    return np.where(source.random((STEPS, SIZE)) < 0.02, 100 * source.standard_cauchy((STEPS, SIZE)), found) if heavy else found
