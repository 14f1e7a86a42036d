"""Random draws that depend only on seed, parameter, element, step and call site: Philox4x32-10.

Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3". A draw is a function of its counter, so a
resumed run, another backend and another order of evaluation all draw the same. The rounds are written with `*`, `^`, `&`
and `>>` on int64, which wrap alike in NumPy and torch: both are served by the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Words = Any  # int64 array or tensor of words of 32 bits, or a Python int that broadcasts

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS, FEWEST = 10, 7  # those of all draws; the fewest with which the paper's authors saw it pass every test, enough to round by
MASK = 0xFFFFFFFF
MODEL_STREAM = 0xFFFFFFFF  # key word of draws per model; group k has this minus k


def block(
    counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words], rounds: int = ROUNDS
) -> tuple[Words, Words, Words, Words]:
    """Four random words for each counter. Every word is from 0 to 2^32 - 1; arrays are int64 of at least one dimension."""
    a, b, c, d = counter
    k, m = key
    for _ in range(rounds):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = _high(second) ^ b ^ k, second & MASK, _high(first) ^ d ^ m, first & MASK
        k, m = (k + KEY_STEPS[0]) & MASK, (m + KEY_STEPS[1]) & MASK
    return a, b, c, d


def _high(product: Words) -> Words:
    return (product >> 32) & MASK  # the mask undoes the sign that a wrapped product carries down


def words(
    index: Words, t: Words, site: int, seed: Words, stream: Words, rounds: int = ROUNDS
) -> tuple[Words, Words, Words, Words]:
    """The block of each element. `index`: place in row-major order; `stream`: the parameter's place in the optimizer."""
    return block((index & MASK, _high(index), t & MASK, site & MASK), (seed & MASK, stream & MASK), rounds)


def sample(distribution: str, x: tuple[Words, ...], xp: Any, real: Callable[[Any], Any]) -> Any:
    """Words to draws. `xp` is numpy or torch; `real` casts to the floating type to compute in."""
    if distribution == "rademacher":
        return real(1 - 2 * ((x[0] >> 31) & 1))
    u = unit(x[0], real)
    if distribution == "uniform":
        return u
    if distribution == "exponential":
        return -xp.log(u)
    if distribution == "normal":  # Box & Muller 1958
        return xp.sqrt(-2 * xp.log(u)) * xp.cos(2 * math.pi * unit(x[1], real))
    raise ValueError(f"no distribution is called `{distribution}`")


def unit(x: Words, real: Callable[[Any], Any]) -> Any:
    """A word as a number inside (0, 1): the middle of one of 2^24 equal parts."""
    return (real(x >> 8) + 0.5) * 2.0**-24


def draw(distribution: str, shape: tuple[int, ...], t: int, site: int, seed: int, stream: int) -> np.ndarray[Any, Any]:
    """Draws of a shape, as NumPy float64. One alone is computed as generated C++ does, with the functions of C's library."""
    if not shape:
        return np.asarray(sample(distribution, words(0, t, site, seed, stream), math, float))
    index = np.arange(math.prod(shape), dtype=np.int64)
    return np.asarray(sample(distribution, words(index, t, site, seed, stream), np, np.float64)).reshape(shape)
