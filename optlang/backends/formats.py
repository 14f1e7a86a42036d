"""How states and weights are stored in fewer bits than they are computed with. Arithmetic is float32 always.

Blocks of 256 elements share one scale, the largest magnitude in them; small tensors stay float32, where a block format saves
nothing and rounds the parameters that matter most.

    int8, uint8   dynamic: linear inside each of seven decades (Dettmers et al. 2021, arXiv:2110.02861); uint8 where nothing is below 0
    int4, uint4   blocks of 128, two codes a byte (Li et al. 2023, arXiv:2309.01507)
    fp8           float8 e4m3, the largest of a block as 448
    bf16          the upper half of a float32, rounded up or down at random so that small changes add up
    compensated   weights: a bf16 weight and beside it, in bf16, what rounding took away (Zamirai et al. 2020, arXiv:2010.06192)

Decoding uses the stored scale; what a step computes with is what is stored, so a resumed run goes on identically.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from optlang import philox

SMALLEST_SCALE = 1e-12
LEAST = 4096  # elements of a parameter whose states are stored in blocks
SITE = 1 << 31  # of the draws that rounding takes: rules have small numbers
HALVES = 8  # draws of 16 bits in one block of random words


class Format(NamedTuple):
    """One way to store a tensor of float32. `beside`: what its second tensor is called behind the state's name; none if empty.

    `bits`: of an element, without the scales.
    """

    name: str
    bits: int
    block: int = 0  # elements that share a scale; 0 for no scales
    draws: bool = False
    signed: str = ""  # the format for values below 0, if this one has none
    unsigned: str = ""  # the format for values that are never below 0, if there is a better one

    @property
    def beside(self) -> str:
        return "rest" if self.name == "compensated" else self.name if self.block else ""

    @property
    def has_levels(self) -> bool:
        """Whether codes say which of its `levels` is meant, and are no numbers themselves."""
        return bool(self.block) and self.name != "fp8"

    def bytes_of(self, count: int) -> int:
        """The memory of so many elements."""
        return sum(self.bytes_of_parts(count))

    def bytes_of_parts(self, count: int) -> tuple[int, ...]:
        """That of each tensor that stores them."""
        if self.name == "compensated":
            return count * 2, count * 2
        codes = -(-count * self.bits // 8)
        return (codes, -(-count // self.block) * 4) if self.block else (codes,)


FORMATS: Mapping[str, Format] = {
    one.name: one
    for one in (
        Format("bf16", 16, draws=True),
        Format("fp8", 8, 256),
        Format("int8", 8, 256, unsigned="uint8"),
        Format("uint8", 8, 256, signed="int8"),
        Format("int4", 4, 128, unsigned="uint4"),
        Format("uint4", 4, 128, signed="int4"),
        Format("stochastic", 16, draws=True),
        Format("compensated", 32),
    )
}
STATE_FORMATS = ("fp32", "bf16", "fp8", "int8", "int4")
WEIGHT_FORMATS = ("nearest", "stochastic", "compensated")
PRODUCT_FORMATS = ("fp32", "bf16")  # of the factors of products of matrices


# ------------------------------------------------------------------------------------------------------------- tables


@cache
def levels(name: str) -> Tensor:
    """What the codes of a table format stand for, in rising order, as float32 [16 or 256]."""
    if name == "uint4":
        return torch.arange(1, 17, dtype=torch.float32) / 16
    decades, doubled = (3, False) if name == "int4" else (7, name == "uint8")
    found = []
    for decade in range(decades):
        edges = torch.linspace(0.1, 1, 2 ** (decade + doubled) + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (decade - decades + 1)
        found += [middles] if doubled else [middles, -middles]
    return torch.cat([*found, torch.tensor([0.0, 1.0])]).sort().values


@cache
def borders(name: str) -> Tensor:
    """The middles between neighbouring levels; a value on one goes up."""
    found = levels(name)
    return (found[1:] + found[:-1]) / 2


@cache
def _there(name: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Levels and borders on a device, sent once: a graph that is captured cannot fetch them, and goes on reading them."""
    return levels(name).to(device), borders(name).to(device)


# ------------------------------------------------------------------------------------------------------ to and from


def encoded(x: Tensor, form: Format, counter: Tensor | None = None, place: int = 0) -> tuple[Tensor, ...]:
    """The tensors that store float32 values. `counter` is (t, seed, stream) and `place` the state's number, for formats that draw."""
    if form.name in ("bf16", "stochastic"):
        return (rounded(x, counter, place),)
    if form.name == "compensated":
        kept = x.to(torch.bfloat16)
        return kept, (x - kept.float()).nan_to_num(0.0, 0.0, 0.0).to(torch.bfloat16)
    blocks = _blocks(x.reshape(-1), form.block)
    largest = blocks.abs().amax(1) if blocks.numel() else blocks.new_zeros(0)
    if form.name == "fp8":
        scale = largest.clamp(min=SMALLEST_SCALE) / 448
        codes = (blocks / scale[:, None]).to(torch.float8_e4m3fn)
    else:
        scale = largest.clamp(min=SMALLEST_SCALE)
        codes = torch.bucketize(blocks / scale[:, None], _there(form.name, x.device)[1], right=True).to(torch.uint8)
    codes = codes.reshape(-1)[: x.numel()]
    return (_paired(codes) if form.bits == 4 else codes.reshape(x.shape)), scale


def begun(x: Tensor, form: Format) -> tuple[Tensor, ...]:
    """The tensors that store new states: on the CPU, zeros are not put in order with all levels one by one."""
    if not form.block or x.device.type != "cpu" or bool(x.any()):
        return encoded(x, form)
    codes, scale = encoded(x.new_zeros(form.block), form)
    shape = (-(-x.numel() // 2),) if form.bits == 4 else x.shape
    found = codes[0].expand(shape).clone()
    if form.bits == 4 and x.numel() % 2:
        found[-1] &= 0xF0  # the last one is alone in its byte
    return found, scale.expand(-(-x.numel() // form.block)).clone()


def decoded(parts: tuple[Tensor, ...], form: Format, shape: torch.Size) -> Tensor:
    """The stored values as float32 of a shape."""
    if form.name in ("bf16", "stochastic"):
        return parts[0].float()
    if form.name == "compensated":
        return parts[0].float() + parts[1].float()
    codes, scale = parts
    flat = _single(codes, shape.numel()) if form.bits == 4 else codes.reshape(-1)
    values = flat.float() if form.name == "fp8" else _there(form.name, codes.device)[0][flat.long()]
    return (_blocks(values, form.block) * scale[:, None]).reshape(-1)[: shape.numel()].reshape(shape)


def _blocks(flat: Tensor, size: int) -> Tensor:
    """[blocks, size], the last one filled with zeros."""
    return torch.nn.functional.pad(flat, (0, -flat.numel() % size)).reshape(-1, size)


def _paired(codes: Tensor) -> Tensor:
    """Two codes of 4 bits in each byte, the first in its upper half."""
    pairs = torch.nn.functional.pad(codes, (0, codes.numel() % 2)).reshape(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1]


def _single(bytes_: Tensor, count: int) -> Tensor:
    return torch.stack([bytes_ >> 4, bytes_ & 15], 1).reshape(-1)[:count]


def rounded(x: Tensor, counter: Tensor | None, place: int) -> Tensor:
    """float32 to bf16, up or down with the probability that keeps the mean; to nearest without a counter."""
    if counter is None:
        return x.to(torch.bfloat16)
    index = torch.arange(-(-x.numel() // HALVES), dtype=torch.int64, device=x.device)
    words = philox.words(index, counter[0], SITE + place, counter[1], counter[2], philox.FEWEST)
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16 & 0xFFFF)]
    drawn = torch.stack([torch.as_tensor(half) for half in halves], -1).reshape(-1)[: x.numel()]
    bits = (x.contiguous().view(torch.int32).to(torch.int64).reshape(-1) & 0xFFFFFFFF) + drawn
    cut = ((bits >> 16) & 0xFFFF).to(torch.int32)
    found = (cut << 16).view(torch.float32).to(torch.bfloat16).reshape(x.shape)
    return torch.where(x.isfinite(), found, x.to(torch.bfloat16))


# ------------------------------------------------------------------------------------------------------ what is where


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Packed:
    """A stored tensor, where a step expects one of numbers. `shape`: of what it stands for."""

    form: Format
    parts: tuple[Tensor, ...]
    shape: torch.Size
    place: int

    @property
    def key(self) -> Any:
        """What a kernel for it depends on."""
        return self.form.name, self.place

    def fits(self) -> bool:
        """Whether each part has the memory that so many elements take."""
        return tuple(part.nbytes for part in self.parts) == self.form.bytes_of_parts(self.shape.numel())

    def open(self) -> Tensor:
        return decoded(self.parts, self.form, self.shape)

    def closed(self, value: Tensor, counter: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """The tensors it lies in, each with what is to be written there for new values."""
        return list(zip(self.parts, encoded(value, self.form, counter, self.place), strict=True))


REST = "w.rest"  # beside a compensated weight


class Storage(NamedTuple):
    """How an optimizer stores its states, by name, and its weights of 16 bits; what is not named is float32, rounded to nearest.

    `products`: what factors of products of matrices are rounded to.
    """

    states: Mapping[str, Format] = {}
    weights: Format | None = None
    products: str = "fp32"

    def new(self, states: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
        """States that have just been made, as they are stored."""
        made = dict(states)
        for name, form in self.states.items():
            if name in states and applies(form, weights):
                made |= zip((name, f"{name}.{form.beside}"), begun(states[name], form), strict=False)
        return made

    def state(self, name: str, states: Mapping[str, Tensor], weights: Tensor) -> Tensor | Packed:
        """A state for a step, packed if it is stored in another format than float32."""
        form, found = self.states.get(name), states[name]
        if form is None or found.dtype == torch.float32 or not applies(form, weights):
            return found
        parts = (found, states[f"{name}.{form.beside}"]) if form.block else (found,)
        return Packed(form, parts, weights.shape, list(self.states).index(name) + 1)

    def weight(self, states: MutableMapping[str, Tensor], weights: Tensor) -> Tensor | Packed:
        """The weights for a step."""
        kept = weights.detach()
        if self.weights is None or kept.dtype != torch.bfloat16:
            return kept
        return Packed(self.weights, (kept, states[REST]) if self.is_compensated(weights) else (kept,), kept.shape, 0)

    def is_compensated(self, weights: Tensor) -> bool:
        """Whether a parameter has a rest beside it."""
        return self.weights is not None and self.weights.name == "compensated" and weights.dtype == torch.bfloat16


PLAIN = Storage()


def applies(form: Format, weights: Tensor) -> bool:
    """Whether a parameter has its states in a format: not where it saves little, nor in float64."""
    return weights.dtype != torch.float64 and (not form.block or weights.numel() >= LEAST)
