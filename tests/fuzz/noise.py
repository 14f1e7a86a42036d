"""The reference with rounding errors: every result is moved a little, so that what rounding may change shows by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from optlang.backends.base import Executable, Step
from optlang.backends.places import Value
from optlang.backends.reference.executable import Reference
from optlang.backends.reference.interpreter import Run
from optlang.host import Missing
from optlang.ir import Node, Program
from optlang.ops import OPS
from optlang.simplify import simplify

EXACT = frozenset([
    "neg", "abs", "sign", "where", "branch", "floor", "ceil", "round", "maximum", "minimum", "amax", "amin", "transpose", "as_matrix",
    "as_param", "spread", "push", "count", "descending", "eye", "places", "fact", "t", "w", "g", "state", "input", "isnan", "isfinite",
])  # fmt: skip

AMPLIFYING = frozenset(["orthonormal", "eigenvectors", "inverse"])  # of exact values, too: those of a matrix without full rank are chance


class NoisyRun(Run):
    """`size` is the largest relative error of one operation; `single`: results are rounded to float32, with its range; `signs`: a
    zero may have either, as only `strict` mathematics keeps them."""

    size = 0.0
    single = False
    signs = False
    random: np.random.Generator

    def _value(self, node: Node, place: Any, needed: Any) -> Value:
        value = super()._value(node, place, self._moved(needed) if node.op in AMPLIFYING else needed)
        if isinstance(value, Missing) or node.type.kind != "real" or (OPS[node.op].role == "leaf" and node.op == "const"):
            return value
        if node.type.extent.level == "host":
            return value * (1 + 1e-15 * self.random.uniform(-1, 1)) if self.size and node.op not in EXACT else value
        value = np.asarray(value, dtype=np.float64)
        if node.op not in EXACT:
            value = self._noisy(value)
        return value.astype(np.float32).astype(np.float64) if self.single else value

    def _noisy(self, value: Value) -> Value:
        moved = value * (1 + self.size * self.random.uniform(-1, 1, value.shape))
        return np.where(moved == 0, np.copysign(0.0, self.random.uniform(-1, 1, value.shape)), moved) if self.signs else moved

    def _moved(self, needed: Any) -> Any:
        """Operands at places of their own, each value moved a little."""
        return [(node, SimpleNamespace(values={node: self._noisy(np.asarray(place.values[node]))})) for node, place in needed]


class Noisy(Reference):
    def __init__(self, program: Program, size: float, single: bool, seed: int, signs: bool = False) -> None:
        super().__init__(program)
        self.size, self.single, self.random, self.signs = size, single, np.random.default_rng(seed), signs

    def _run(self, step: Step) -> Run:
        run = NoisyRun(self.program.name, self.code, step)
        run.size, run.single, run.random, run.signs = self.size, self.single, self.random, self.signs
        return run


class NoisyBackend:
    def __init__(self, size: float, single: bool, seed: int, signs: bool) -> None:
        self.way = size, single, seed, signs

    def refuses(self, program: Program) -> str:
        return ""

    def compile(self, program: Program, math: Any, storage: Any = None) -> Executable:
        return Noisy(program, *self.way)


class Simplified:
    """The reference on the program that is made of it."""

    def refuses(self, program: Program) -> str:
        return ""

    def compile(self, program: Program, math: Any, storage: Any = None) -> Executable:
        return Reference(simplify(program, math))
