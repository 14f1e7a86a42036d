"""What generated kernels call to read and write what is stored in fewer bits: the same numbers as in `formats`, in one block.

`low` is the first element of the block, `size` that of the tensor; where `whole`, all of the block lies inside. `levels` and `bins`
are tables: see `packed`. Imported only where a kernel is made.
"""

from __future__ import annotations

import triton
import triton.language as tl

from optlang.backends.triton.prelude import libdevice, to_bf16

# ------------------------------------------------------------------------------------------------------------- blocks


@triton.jit
def bits_of(x: tl.tensor) -> tl.tensor:
    return x.to(tl.int32, bitcast=True)


@triton.jit
def float_of(bits: tl.tensor) -> tl.tensor:
    return bits.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def scale_of(x: tl.tensor, block: tl.constexpr, share: tl.constexpr) -> tl.tensor:
    """The largest magnitude of each `share` elements; NaN if there is one, since its bits are the largest."""
    largest = tl.max(tl.reshape(bits_of(x) & 0x7FFFFFFF, [block // share, share]), 1)
    found = float_of(largest)
    return tl.where(found < 1e-12, tl.full((), 1e-12, tl.float32), found)


@triton.jit
def spread(scales: tl.tensor, block: tl.constexpr, share: tl.constexpr) -> tl.tensor:
    """One number for each `share` elements as one for each."""
    return tl.reshape(tl.broadcast_to(tl.expand_dims(scales, 1), [block // share, share]), [block])


@triton.jit
def load_scales(scales: tl.tensor, low: tl.tensor, size: tl.tensor, block: tl.constexpr, share: tl.constexpr) -> tl.tensor:
    i = tl.arange(0, block // share)
    return spread(tl.load(scales + low // share + i, mask=low + i * share < size, other=1.0), block, share)


@triton.jit
def store_scales(
    scales: tl.tensor, values: tl.tensor, low: tl.tensor, size: tl.tensor, block: tl.constexpr, share: tl.constexpr
) -> None:
    i = tl.arange(0, block // share)
    tl.store(scales + low // share + i, values, mask=low + i * share < size)


@triton.jit
def load_codes(codes: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr) -> tl.tensor:
    i = low + tl.arange(0, block)
    if whole:
        return tl.load(codes + i)
    return tl.load(codes + i, mask=i < size, other=0)


@triton.jit
def store_codes(
    codes: tl.tensor, values: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> None:
    i = low + tl.arange(0, block)
    if whole:
        tl.store(codes + i, values)
    else:
        tl.store(codes + i, values, mask=i < size)


@triton.jit
def inner(x: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr) -> tl.tensor:
    """The values of a block, zeros behind the end."""
    if whole:
        return x
    return tl.where(low + tl.arange(0, block) < size, x, 0.0)


@triton.jit
def quotients(x: tl.tensor, scale: tl.tensor, block: tl.constexpr, share: tl.constexpr) -> tl.tensor:
    """Values by the scale of their block, as a division rounds them: a product, and what is left of it by another, twice (Markstein 1990).
    That takes half as long, as only the scale is divided by. The last bit may be another where the scale is above 2^126."""
    infinite = scale == float("inf")
    divisor = spread(tl.where(infinite, 1.0, scale), block, share)
    factor = spread(libdevice.rcp_rn(scale), block, share)
    found = x * factor
    for _ in tl.static_range(2):
        found = libdevice.fma_rn(libdevice.fma_rn(-found, divisor, x), factor, found)
    return found


# ------------------------------------------------------------------------------------------------------------- 8 bits


@triton.jit
def open_int8(
    codes: tl.tensor, scales: tl.tensor, levels: tl.tensor, low: tl.tensor, size: tl.tensor,
    whole: tl.constexpr, block: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    found = tl.load(levels + load_codes(codes, low, size, whole, block).to(tl.int32))
    return found * load_scales(scales, low, size, block, 256)


@triton.jit
def code_of(y: tl.tensor, bins: tl.tensor, signed: tl.constexpr) -> tl.tensor:
    """What a bin has added to bits in the order of numbers is the code in the upper half."""
    bits = bits_of(y)
    if signed:
        bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    place = bits.to(tl.uint32, bitcast=True)
    return (tl.load(bins + (place >> 16)).to(tl.uint32, bitcast=True) + place) >> 16


@triton.jit
def close_int8(
    codes: tl.tensor, scales: tl.tensor, x: tl.tensor, bins: tl.tensor, signed: tl.constexpr, low: tl.tensor, size: tl.tensor,
    whole: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    x = inner(x, low, size, whole, block)
    scale = scale_of(x, block, 256)
    store_scales(scales, scale, low, size, block, 256)
    code = code_of(quotients(x, scale, block, 256), bins, signed)
    store_codes(codes, code.to(tl.uint8), low, size, whole, block)


@triton.jit
def open_fp8(
    codes: tl.tensor, scales: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> tl.tensor:
    """e4m3, which not every GPU has: float32 with fewer bits, but for a factor of 2^120 and what is no number, which would be 480."""
    code = load_codes(codes, low, size, whole, block).to(tl.int8, bitcast=True).to(tl.int32)
    found = float_of(code << 20 & tl.full((), 0x87F00000 - (1 << 32), tl.int32)) * tl.full((), 2.0**120, tl.float32)
    return tl.where(tl.abs(found) == 480.0, float("nan"), found) * load_scales(scales, low, size, block, 256)


@triton.jit
def close_fp8(
    codes: tl.tensor, scales: tl.tensor, x: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> None:
    """To nearest, halves to even."""
    x = inner(x, low, size, whole, block)
    scale = libdevice.div_rn(scale_of(x, block, 256), tl.full((), 448.0, tl.float32))
    store_scales(scales, scale, low, size, block, 256)
    magnitude = bits_of(quotients(x, scale, block, 256)) & 0x7FFFFFFF
    small = bits_of(float_of(magnitude) + 16384.0) - (141 << 23)  # below 2^-6 the sum has the right last bit
    normal = (magnitude - (120 << 23) + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20
    found = tl.minimum(tl.where(magnitude < (121 << 23), small, normal), 0x7F)  # what is no number comes last
    store_codes(codes, (((bits_of(x) >> 24) & 0x80) | found).to(tl.uint8), low, size, whole, block)


# ------------------------------------------------------------------------------------------------------------- 4 bits


@triton.jit
def open_int4(
    codes: tl.tensor, scales: tl.tensor, levels: tl.tensor, low: tl.tensor, size: tl.tensor,
    whole: tl.constexpr, block: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Two codes a byte, the first in its upper half."""
    pairs = load_codes(codes, low // 2, (size + 1) // 2, whole, block // 2).to(tl.int32)
    found = tl.load(levels + tl.interleave(pairs >> 4, pairs & 15))
    return found * load_scales(scales, low, size, block, 128)


@triton.jit
def close_int4(
    codes: tl.tensor, scales: tl.tensor, x: tl.tensor, bins: tl.tensor, signed: tl.constexpr, low: tl.tensor, size: tl.tensor,
    whole: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    x = inner(x, low, size, whole, block)
    scale = scale_of(x, block, 128)
    store_scales(scales, scale, low, size, block, 128)
    code = code_of(quotients(x, scale, block, 128), bins, signed)
    store_pairs(codes, code, low, size, whole, block)


@triton.jit
def close_uint4(
    codes: tl.tensor, scales: tl.tensor, x: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> None:
    """Sixteenths: a border lies half of one above each, and all of this is exact."""
    x = inner(x, low, size, whole, block)
    scale = scale_of(x, block, 128)
    store_scales(scales, scale, low, size, block, 128)
    place = quotients(x, scale, block, 128) * 16.0 - 0.5
    code = tl.where(place < 15.0, tl.maximum(place, 0.0), 15.0).to(tl.int32)  # what is no number comes last
    store_pairs(codes, code, low, size, whole, block)


@triton.jit
def store_pairs(codes: tl.tensor, code: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr) -> None:
    """Two codes a byte, the first in its upper half."""
    if not whole:
        code = tl.where(low + tl.arange(0, block) < size, code, 0)
    upper, lower = tl.split(tl.reshape(code, [block // 2, 2]))
    store_codes(codes, ((upper << 4) | lower).to(tl.uint8), low // 2, (size + 1) // 2, whole, block // 2)


# ------------------------------------------------------------------------------------------------------------ 16 bits


@triton.jit
def open_bf16(kept: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr) -> tl.tensor:
    return load_codes(kept, low, size, whole, block).to(tl.float32)


@triton.jit
def half_of(i: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor) -> tl.tensor:
    """The half word that an element takes of the draw that eight share."""
    place = (i & 7).to(tl.uint32)
    word = tl.where(place < 2, a, tl.where(place < 4, b, tl.where(place < 6, c, d)))
    return (word >> (16 * (place & 1))) & 0xFFFF


@triton.jit
def close_bf16(
    kept: tl.tensor, x: tl.tensor, half: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> None:
    """The upper half of a float32, up or down by a draw of 16 bits."""
    bits = x.to(tl.uint32, bitcast=True)
    cut = ((bits + half) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    finite = (bits & 0x7FFFFFFF) < 0x7F800000
    store_codes(kept, tl.where(finite, cut, to_bf16(x)), low, size, whole, block)


@triton.jit
def open_compensated(
    kept: tl.tensor, rest: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> tl.tensor:
    return open_bf16(kept, low, size, whole, block) + open_bf16(rest, low, size, whole, block)


@triton.jit
def close_compensated(
    kept: tl.tensor, rest: tl.tensor, x: tl.tensor, low: tl.tensor, size: tl.tensor, whole: tl.constexpr, block: tl.constexpr
) -> None:
    """A weight, and what rounding took away."""
    near = to_bf16(x)
    left = x - near.to(tl.float32)
    store_codes(kept, near, low, size, whole, block)
    store_codes(rest, to_bf16(tl.where((left - left) == 0, left, 0.0)), low, size, whole, block)
