"""What generated kernels call: the operators that Triton lacks, and random draws. Imported only where a kernel is made."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from optlang.backends.triton.interpreted import INTERPRETED, Libdevice

if INTERPRETED:
    libdevice: Any = Libdevice()
else:
    from triton.language.extra import libdevice  # type: ignore[no-redef]


if INTERPRETED:  # it would cut bits off

    @triton.jit
    def to_bf16(x: tl.tensor) -> tl.tensor:
        bits = x.to(tl.uint32, bitcast=True)
        found = tl.where(x != x, 0x7FC00000, bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return found.to(tl.uint16).to(tl.bfloat16, bitcast=True)
else:

    @triton.jit
    def to_bf16(x: tl.tensor) -> tl.tensor:
        return x.to(tl.bfloat16)


@triton.jit
def sign(x: tl.tensor) -> tl.tensor:
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.where(a != a, a, tl.where(a > b, a, b))


@triton.jit
def smaller(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.where(a != a, a, tl.where(a < b, a, b))


@triton.jit
def total(x: tl.tensor, axis: tl.constexpr, keeps: tl.constexpr) -> tl.tensor:
    return tl.sum(x, axis, keep_dims=keeps)


@triton.jit
def largest(x: tl.tensor, axis: tl.constexpr, keeps: tl.constexpr) -> tl.tensor:
    """NaN if there is one."""
    bad = tl.sum((x != x).to(tl.int32), axis, keep_dims=keeps)
    return tl.where(bad > 0, float("nan"), tl.max(tl.where(x != x, float("-inf"), x), axis, keep_dims=keeps))


@triton.jit
def smallest(x: tl.tensor, axis: tl.constexpr, keeps: tl.constexpr) -> tl.tensor:
    return -largest(-x, axis, keeps)


@triton.jit
def is_finite(x: tl.tensor) -> tl.tensor:
    return (x - x) == 0


@triton.jit
def modulo(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    r = libdevice.fmod(a, b)
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


@triton.jit
def whole_power(x: tl.tensor, exponent: tl.constexpr) -> tl.tensor:
    result = x
    for _ in tl.static_range(exponent - 1):
        result = result * x
    return result


@triton.jit
def philox(
    index: tl.tensor, t: tl.tensor, site: tl.tensor, seed: tl.tensor, stream: tl.tensor, rounds: tl.constexpr = 10
) -> tl.tensor:
    """Philox4x32 (Salmon et al. 2011): the same words as everywhere in optlang."""
    a = index.to(tl.uint32)
    b = (index >> 32).to(tl.uint32)
    c = tl.zeros_like(a) + t
    d = tl.zeros_like(a) + site
    k = tl.zeros_like(a) + seed
    m = tl.zeros_like(a) + stream
    first = tl.zeros_like(a) + tl.full((), 0xD2511F53, tl.uint32)
    second = tl.zeros_like(a) + tl.full((), 0xCD9E8D57, tl.uint32)
    for _ in tl.static_range(rounds):
        upper = tl.umulhi(a, first)
        lower = a * first
        a = tl.umulhi(c, second) ^ b ^ k
        b = c * second
        c = upper ^ d ^ m
        d = lower
        k = k + tl.full((), 0x9E3779B9, tl.uint32)
        m = m + tl.full((), 0xBB67AE85, tl.uint32)
    return a, b, c, d


@triton.jit
def unit(word: tl.tensor) -> tl.tensor:
    return ((word >> 8).to(tl.float64) + 0.5) * tl.full((), 5.9604644775390625e-08, tl.float64)


@triton.jit
def draw_uniform(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    return unit(a)


@triton.jit
def draw_rademacher(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    return 1.0 - 2.0 * (a >> 31).to(tl.float64)


@triton.jit
def draw_exponential(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    return -libdevice.log(unit(a))


@triton.jit
def draw_normal(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    angle = unit(b) * tl.full((), 6.283185307179586, tl.float64)
    return libdevice.sqrt_rn(libdevice.log(unit(a)) * -2.0) * libdevice.cos(angle)


@triton.jit
def fetch(shared: tl.tensor, target: tl.tensor, count: int, block: tl.constexpr) -> None:
    """A kernel of its own: whole numbers from memory of the host that the device can read."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(target + i, tl.load(shared + i, mask=i < count, other=0), mask=i < count)
