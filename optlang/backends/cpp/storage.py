"""C++ that opens and closes what is stored in fewer bits: the same numbers as in `formats`, a block at a time.

Levels lie evenly inside a decade, so the place of a magnitude among them is a straight line in each, with borders between levels at whole
places, but for the first one of a decade of n levels: the level below it is nearer, so it lies at n + 1/5. There another line counts,
which is steeper and has it at n. The bits of a magnitude say roughly its logarithm, and that which lines count: eight bins of them,
as many as the smaller of vectors hold, end where decades do, but a little before. What float32 says about a place is wrong by less than
2^-14 of a level, so only what comes nearer to a border than that is divided and compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from optlang.backends import formats
from optlang.backends.formats import FORMATS

TABLES = {name for name, form in FORMATS.items() if form.has_levels}
MARGIN = 2.0**-14  # of a level, as in codes.h
STEPS = 65536  # of a place
BIN, FIRST_BIN = 28_060_000, 33  # steps of the bits of float32, as in codes.h; eight bins are told apart, the first of which is here
FAR = 1000.0  # of places


def storage(names: Set[str]) -> list[str]:
    """The text for some formats; nothing if there are none."""
    parts = {
        "storage.h": True, "levels.h": any(FORMATS[name].block for name in names), "codes.h": not names.isdisjoint(TABLES),
        "fp8.h": "fp8" in names, "bf16.h": any(not FORMATS[name].block for name in names),
    }  # fmt: skip
    headers = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name, is_used in parts.items() if is_used]
    return [*headers, *(_tables(name) + _calls(name) for name in sorted(names) if FORMATS[name].block)] if names else []


@cache
def _tables(name: str) -> str:
    if name == "fp8":
        codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
        return _levels(name, codes.view(torch.float8_e4m3fn).float())
    borders, rows = formats.borders(name).tolist(), ", ".join(_numbers(row * 2) for row in bins(name).tolist())
    return f"""{_levels(name, formats.levels(name))}
static const Codes codes_{name} = {{{len(borders)}, {_numbers(borders)}, {whole(name)!r}f, {{{rows}}}}};
"""


def _levels(name: str, levels: Tensor) -> str:
    """What codes of a format stand for, as `Table` or, where those are each other's negatives, as `Mirrored`."""
    halves = {"fp8": ("Mirrored<true>", levels[:128]), "int8": ("Mirrored<false>", levels[128:].roll(1))}
    kind, kept = halves.get(name, ("Table", levels))
    planes = kept.contiguous().view(torch.uint8).reshape(-1, 4).T.tolist()
    rows = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in planes)
    return f"static const {kind} levels_{name} = {{{_numbers(levels.tolist())}, {{{rows}}}}};"


def zero(name: str) -> int:
    """The code of 0 in a format with levels below it; else -1."""
    return -1 if name.startswith("u") else len(formats.levels(name)) // 2 - 1


def is_even(name: str) -> bool:
    """Whether all levels of a format are evenly spaced."""
    return name == "uint4"


def whole(name: str) -> float:
    """What magnitudes are multiplied by: those from the last border up fill the last bin, and what rounding may add to them, too."""
    return torch.tensor(ends()[-1] * (1 + 2.0**-14) / formats.borders(name)[-1].item()).item()


def ends() -> list[float]:
    """Where bins of multiplied magnitudes begin, but for rounding. They are of equal length by the bits of float32."""
    bits = torch.tensor([(number - 0.5) * BIN for number in range(FIRST_BIN, FIRST_BIN + 8)], dtype=torch.float64)
    return bits.to(torch.int32).view(torch.float32).tolist()


def bins(name: str) -> Tensor:
    """For each bin a line that says where magnitudes in it are, as slope and height, in 65536ths of a place; [3, 8]. The lesser of it and
    of another one counts, which is twice as steep: how far that is from its double comes third."""
    above = [border * whole(name) for border in formats.borders(name).double()[max(0, zero(name)) :].tolist()]
    starts, found = [*ends(), whole(name)], torch.zeros(3, 8)
    for number in range(8):
        ends_of_bin = (0.0, above[-1] * 2) if is_even(name) else (starts[number], starts[number + 1])
        slope, height, other = _lines(above, *ends_of_bin)
        found[:, (FIRST_BIN + number) % 8] = torch.tensor([slope, height + MARGIN, other - MARGIN]) * STEPS
    return found


def _lines(borders: Sequence[float], low: float, high: float) -> tuple[float, float, float]:
    """The lines of one bin, whose borders lie at whole places: the first at the steeper line, all others at the flatter one."""
    inside = [place for place, border in enumerate(borders, 1) if low <= border < high]
    if not inside:
        return 0.0, sum(border < low for border in borders) + 0.5, FAR
    first, last = inside[0], inside[-1]
    at, end = borders[first - 1], borders[last - 1]
    if first == last:  # it needs no other line, and nothing in the bin comes to the next place
        slope = 0.25 / max(at - low, high - at)
        return slope, first - slope * at, FAR
    second = borders[first]
    slope = (last - first - 1) / (end - second) if last > first + 1 else 0.85 / (end - at)
    height = last - slope * end
    late = slope * at + height - first  # how far the first border lies behind where the flatter line has it
    return slope, height, -first - 2 * late if late > MARGIN else FAR


def _numbers(values: Sequence[float]) -> str:
    return "{" + ", ".join("NAN" if x != x else "INFINITY" if math.isinf(x) else f"{float(x)!r}f" for x in values) + "}"


def _calls(name: str) -> str:
    """`open_NAME` and `close_NAME`, as passes call them, of what differs from other formats in its tables alone."""
    way = "Halves" if FORMATS[name].bits == 4 else "Bytes"
    opening = f"""template <class Size> static inline void open_{name}(char* const* at, i64 low, i64 part, Size size, float* to) {{
  open_{way.lower()}(at, low, part, size, to, levels_{name});
}}
"""
    if name == "fp8":
        return opening
    return f"""{opening}template <class Size>
static inline auto close_{name}(char* const* at, i64 low, Size size, const float* from, const Largest& largest) {{
  return Close{way}<{zero(name)}, {str(is_even(name)).lower()}, Size>(at, low, size, from, largest, codes_{name});
}}"""
