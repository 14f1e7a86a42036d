"""What the accuracy guard looks at: values for the leaves of two forms, and the values of the forms on them.

Samples come in blocks. In `usual` tensors are ordinary numbers; in `alike` they are of one size, so that what can cancel does; in
the last, every three of them meet once at all levels from zero to infinity and NaN, and all meet at the edges of the range, where
a sum or a product of two leaves it. Numbers known before the step are near their defaults, or anywhere within their bounds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from optlang.host import MAPS
from optlang.ir import Bounds, Node, walk
from optlang.meaning import number
from optlang.simplify.matching import above

Array = Any
Setting = tuple[str, Any, Bounds | None, str]  # name, default, bounds, kind
SEED = 20140612
USUAL, ALIKE = 2560, 1536  # samples
ROWS_AT_EDGES = 64
VALUES = 8  # elements of an array under the same settings, where something is summed up
SMALLEST, LARGEST = 2.0**-126, float(np.finfo(np.float32).max)
SIZES = (-37.9, -35, -32, -20, -8, 0, 8, 20, 32, 35, 38.5)  # powers of ten; a level lies between two that follow each other
LOW, WIDTH = np.array([*SIZES[:-1], -np.inf, np.inf, np.nan]), np.array([*np.diff(SIZES), 0, 0, 0])
LEVELS = len(LOW)  # a prime number
STEPS = np.array([1, 2, 3, 5, 10, 100, 1000, 100_000], dtype=np.float64)
REDUCTIONS: dict[str, Callable[..., Array]] = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min}
SUMS = ("add", "sub", "sum")
SAMPLED = frozenset([*MAPS, *REDUCTIONS, "branch"])


class Samples:
    """[rows, elements] for each leaf of two forms, and the values of the forms on them. `blocks`: rows to be judged by themselves."""

    def __init__(
        self, before: Node, after: Node, leaves: frozenset[Node], settings: Iterable[Setting], nonnegative: frozenset[Node]
    ) -> None:
        order = walk([before, after], lambda node: () if node in leaves and not node.host else node.args)
        tensors = [node for node in order if node in leaves and not node.host]
        values = VALUES if any(node.op in REDUCTIONS for node in order if node not in tensors) else 1
        named = {setting[0]: setting for setting in settings}
        self.leaves: dict[Node, Array] = {}
        for place, node in enumerate(tensors):
            many = values if node.type.extent.level == "array" else 1
            self.leaves[node] = _tensor(SEED, place, values, many, node.type.kind == "bool", node in nonnegative)
        for node in order:
            if node.host and not node.args:
                self.leaves[node] = number(node.value) if node.op == "const" else _known(node, named, values)
        usual, alike = USUAL // values, ALIKE // values
        self.blocks = slice(0, usual), slice(usual, usual + alike)

    def values(self, root: Node, dtype: Any) -> Array:
        """The root at every sample, tensors in `dtype`, numbers known before the step in float64 and rounded once.

        In float32, what is too small for a normal number becomes zero, as on devices that flush it. Elsewhere it loses digits, how
        many is chance; a sum does not even there, and is left as it is.
        """
        found: dict[Node, Array] = dict(self.leaves)
        for node in above(root, frozenset(self.leaves)):
            args = [found[arg] if node.host else _as(found[arg], dtype) for arg in node.args]
            value = _apply(node, args)
            found[node] = value if node.host else _as(value, dtype) if node.op in SUMS else _flushed(_as(value, dtype))
        return _as(found[root], dtype)


def rows(values: int) -> int:
    return USUAL // values + ALIKE // values + LEVELS**3 + ROWS_AT_EDGES


@lru_cache(64)
def _tensor(seed: int, place: int, values: int, many: int, is_bool: bool, nonnegative: bool) -> Array:
    """[rows, many]: elements of the tensor with this place among all. `values`: of those that have most."""
    chance = np.random.default_rng([seed, place])
    if is_bool:
        return chance.random((rows(values), many)) < 0.5
    sizes = [chance.uniform(-6, 4, (USUAL // values, many)), _alike(seed, chance, ALIKE // values, many), _levels(chance, place, many)]
    x = np.concatenate([10.0 ** np.concatenate(sizes), _at_edges(chance, many)])
    signed = x if nonnegative else np.where(chance.random(x.shape) < 0.5, -x, x)
    return signed.astype(np.float32)


def _alike(seed: int, chance: np.random.Generator, count: int, many: int) -> Array:
    """Powers of ten of numbers that differ from those of other tensors between the last digit and as much as they are."""
    same = np.random.default_rng(seed).uniform(-3, 3, (count, 1))
    return same + np.log10(1 + 10.0 ** chance.uniform(-7, 0, (count, many)))


def _levels(chance: np.random.Generator, place: int, many: int) -> Array:
    """Powers of ten: three polynomials of the second degree at three places have any three values for one choice of coefficients."""
    digits = [np.arange(LEVELS**3) // LEVELS**k for k in range(3)]
    level = (digits[0] + digits[1] * place + digits[2] * place * place) % LEVELS
    return LOW[level, None] + WIDTH[level, None] * chance.random((LEVELS**3, many))


def _at_edges(chance: np.random.Generator, many: int) -> Array:
    edge = np.repeat([LARGEST / 3, SMALLEST], ROWS_AT_EDGES // 2)
    return edge[:, None] * chance.uniform(1, 3, (ROWS_AT_EDGES, many))


def _known(node: Node, settings: dict[str, Setting], values: int) -> Array:
    name, default, bounds, kind = settings.get(str(node.value), (str(node.value), 1.0, None, "real"))
    return _setting(SEED, rows(values), node.op if node.op in ("t", "fact") else kind, name, float(default), bounds)


@lru_cache(256)
def _setting(seed: int, count: int, kind: str, name: str, default: float, bounds: Bounds | None) -> Array:
    """[count, 1]: the value of a number that is known before the step in each row."""
    chance, shape = np.random.default_rng([seed, zlib.crc32(name.encode())]), (count, 1)
    if kind == "bool":
        return chance.random(shape) < 0.5
    if kind == "t":
        return chance.choice(STEPS, shape)
    if kind == "fact":
        return np.floor(2.0 ** chance.uniform(0, 12, shape))
    near = (default or 0.01) * 10.0 ** chance.uniform(-2, 2, shape)
    if bounds is not None and bounds.high <= 1 and bounds.low >= 0:
        near = 1 - 10.0 ** chance.uniform(-4, 0, shape)
    chosen = np.where(chance.random(shape) < 0.3, default, np.rint(near) if kind == "int" else near)
    if bounds is None:
        return chosen
    return np.where((chosen >= bounds.low) & (chosen <= bounds.high), chosen, default)


def _as(value: Array, dtype: Any) -> Array:
    return value if value.dtype == bool else value.astype(dtype, copy=False)


def _flushed(x: Array) -> Array:
    return x * (np.abs(x) >= SMALLEST) if x.dtype == np.float32 else x


def _apply(node: Node, args: list[Array]) -> Array:
    if node.op in REDUCTIONS:
        return REDUCTIONS[node.op](args[0], axis=-1, keepdims=True)
    if node.op == "pow" and node.args[1].op == "const" and node.args[1].value == 2:
        return args[0] * args[0]
    if node.op == "branch":
        return np.where(args[0], args[1], args[2])
    return MAPS[node.op](*args)
