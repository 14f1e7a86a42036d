"""How kernels read and write tensors in fewer bits: calls of the functions in `storage`, and the tables that these look into."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from optlang import philox
from optlang.backends import formats
from optlang.backends.cpp.storage import with_end
from optlang.backends.formats import FORMATS, HALVES, SITE, Packed

POINTERS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # what is stored, else bytes
IN_TABLES = {name for name, form in FORMATS.items() if form.has_levels}
BINADES, PARTS = 23, 7  # of magnitudes from 2^-23 to 1; bits of the mantissa
FUNCTIONS = {"uint8": "int8", "uint4": "int4", "stochastic": "bf16"}  # those of other formats that serve a format
EVEN = "uint4"  # whose levels are told by arithmetic, so that it is closed by a function of its own


@dataclass(frozen=True, eq=False)
class LevelTables:
    """Levels and borders of some formats end to end, and how many borders lie below a bin. `at`: where these three begin."""

    numbers: Tensor
    below: Tensor
    at: dict[str, tuple[int, int, int]]


@cache
def tables(names: tuple[str, ...]) -> LevelTables:
    """The tables of some formats, on the host."""
    numbers: list[Tensor] = []
    bins: list[Tensor] = []
    at = {}
    for name in names:
        start = sum(x.numel() for x in numbers)
        levels, borders = formats.levels(name), with_end(formats.borders(name))
        at[name] = start, start + levels.numel(), sum(x.numel() for x in bins)
        numbers += [levels, borders]
        bins += [below(name).to(torch.uint8)] if name.endswith("int8") else []
    return LevelTables(torch.cat([*numbers, torch.zeros(1)]), torch.cat([*bins, torch.zeros(1, dtype=torch.uint8)]), at)


def below(name: str) -> Tensor:
    """For each bin of magnitudes, positive ones first: how many borders lie below everything in it."""
    bins = torch.arange(BINADES << PARTS | 1, dtype=torch.int64) + (127 - BINADES << PARTS)
    edges = (bins << 23 - PARTS).to(torch.int32).view(torch.float32)
    uppers = (bins + 1 << 23 - PARTS).to(torch.int32).view(torch.float32)
    edges[0] = 0.0
    borders = formats.borders(name)
    positive = torch.bucketize(edges, borders, right=True)
    negative = torch.bucketize(-uppers, borders, right=True)
    return torch.cat([positive, negative]).int()


def names(kinds: Collection[str | Packed]) -> tuple[str, ...]:
    """The formats among the types of a kernel's tensors that have tables."""
    return tuple(sorted({kind.form.name for kind in kinds if isinstance(kind, Packed)} & IN_TABLES))


def pointer(kind: Packed, part: int) -> str:
    """Triton's name for the elements of a part."""
    return POINTERS.get(kind.parts[part].dtype, "uint8")


def opened(kind: Packed, place: int, found: LevelTables, where: str) -> str:
    """The values of a block of a tensor whose first column is `place`; `where` are the last arguments, which say which block."""
    name = kind.form.name
    levels = [f"levels + {found.at[name][0]}"] if name in found.at else []
    return f"open_{FUNCTIONS.get(name, name)}({', '.join([*_parts(kind, place), *levels, where])})"


def closed(kind: Packed, place: int, found: LevelTables, where: str, value: str) -> str:
    """Stores the values of a block."""
    name = kind.form.name
    more = [f"levels + {found.at[name][1]}"] if name in found.at and name != EVEN else []
    more += [f"below + {found.at[name][2]}"] if name.endswith("int8") else []
    more += [f"r{kind.place}"] if kind.form.draws else []
    function = name if name == EVEN else FUNCTIONS.get(name, name)
    return f"close_{function}({', '.join([*_parts(kind, place), value, *more, where])})"


def drawn(kind: str | Packed) -> list[str]:
    """The random half words that closing a tensor needs, if any; eight elements share a draw."""
    if isinstance(kind, str) or not kind.form.draws:
        return []
    site = f"tl.full((), {SITE + kind.place}, tl.uint32)"
    return [f"r{kind.place} = half_of(i, *philox(i // {HALVES}, t, {site}, seed, stream, {philox.FEWEST}))"]


def _parts(kind: Packed, place: int) -> list[str]:
    return [f"p{place + part}" for part in range(len(kind.parts))]
