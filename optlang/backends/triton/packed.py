"""How kernels read and write tensors in fewer bits: calls of the functions in `storage`, and the tables that these look into."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from optlang import philox
from optlang.backends import formats
from optlang.backends.formats import FORMATS, HALVES, SITE, Packed

POINTERS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}  # what is stored, else bytes
IN_TABLES = {name for name, form in FORMATS.items() if form.has_levels}
HALF, UPPER = 16, 1 << 16  # bits of half a float32, and what they can be
FUNCTIONS = {"uint8": "int8", "uint4": "int4", "stochastic": "bf16"}  # those of other formats that serve a format
EVEN = "uint4"  # whose levels are told by arithmetic, so that it is closed by a function of its own


@dataclass(frozen=True, eq=False)
class LevelTables:
    """Levels and bins of some formats end to end. `at`: where both begin."""

    levels: Tensor
    bins: Tensor
    at: dict[str, tuple[int, int]]


@cache
def tables(names: tuple[str, ...]) -> LevelTables:
    """The tables of some formats, on the host."""
    kept: list[Tensor] = []
    found: list[Tensor] = []
    at = {}
    for name in names:
        at[name] = sum(map(len, kept)), sum(map(len, found))
        kept.append(formats.levels(name))
        found += [bins(name)] if name != EVEN else []
    return LevelTables(torch.cat([*kept, torch.zeros(1)]), torch.cat([*found, torch.zeros(1, dtype=torch.int32)]), at)


def bins(name: str) -> Tensor:
    """What to add to the bits of a number so that their upper half is its code: one for each upper half that they have before.
    Where numbers have signs, bits are turned first, so that they rise as these do.

    No bin has two borders. The lower half of what is added carries into the upper one for numbers above the border alone."""
    first, borders = torch.arange(UPPER, dtype=torch.int64) << HALF, formats.borders(name)
    turn = _turned if has_sign(name) else torch.clone
    ends = (turn(bits.to(torch.int32)).view(torch.float32) for bits in (first, first + UPPER - 1))
    low, high = (torch.bucketize(end, borders, right=True) for end in ends)
    border = turn(borders.view(torch.int32))[low.clamp(max=len(borders) - 1)] & (UPPER - 1)
    return ((low << HALF) + torch.where(high == low + 1, UPPER - border, 0) - first).to(torch.int32)  # modulo 2^32


def _turned(bits: Tensor) -> Tensor:
    """Bits of float32 in the order of the numbers, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def has_sign(name: str) -> bool:
    """Whether a format with levels has some below 0."""
    return not name.startswith("u")


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
    more = [f"bins + {found.at[name][1]}", str(has_sign(name))] if name in found.at and name != EVEN else []
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
