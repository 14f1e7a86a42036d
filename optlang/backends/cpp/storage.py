"""C++ that opens and closes what is stored in fewer bits: the same numbers as in `formats`, a block at a time.

Levels lie evenly inside a decade, so the place of a magnitude among them is a straight line in each, and each line is flatter than
the one before: the lowest one counts. Borders between levels lie at whole places, but for the first one of a decade of n levels:
the level below it is nearer, so it lies at n + 1/5. What float32 says about a place is wrong by less than 2^-13 of a level, so
only what comes nearer to a border than that is divided and compared. (Processors that permute no bytes look borders up instead.)
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

TABLES = {"int8", "uint8", "int4", "uint4"}
SHORT = 0.25  # of a level: lines lie so far below the count that they never exceed it, and by less than one border
MARGIN = 2.0**-13  # of a level, as in codes.h
STEPS = 65536  # of a place
LATE = 0.2  # of a level: how far behind a whole place the first border of a decade is
STEEP = 4096.0  # levels for a magnitude: what differs by rounding alone is unsure, and nothing else
BINS = 16
OFFSET = 2.0**-25  # what codes.h adds to magnitudes, so that there is none below 2^-25


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
    borders, near = formats.borders(name), (_numbers(column) for column in zip(*lines(name), strict=True))
    rows = ", ".join(_numbers(row) for row in bins(name).tolist())
    return f"""{_levels(name, formats.levels(name))}
static const Codes codes_{name} = {{{len(borders)}, {_numbers(borders.tolist())}, {{{", ".join(near)}}}, {whole(name)!r}f, {{{rows}}}}};
"""


def _levels(name: str, levels: Tensor) -> str:
    """What codes of a format stand for, as `Table` or, where those are each other's negatives, as `Mirrored`."""
    halves = {"fp8": ("Mirrored<true>", levels[:128]), "int8": ("Mirrored<false>", levels[128:].roll(1))}
    kind, kept = halves.get(name, ("Table", levels))
    planes = kept.contiguous().view(torch.uint8).reshape(-1, 4).T.tolist()
    rows = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in planes)
    return f"static const {kind} levels_{name} = {{{_numbers(levels.tolist())}, {{{rows}}}}};"


def with_end(borders: Tensor) -> Tensor:
    """Borders with one behind the last level, which nothing reaches."""
    return torch.cat([borders, torch.tensor([torch.inf])])


def zero(name: str) -> int:
    """The code of 0 in a format with levels below it; else -1."""
    return -1 if name.startswith("u") else len(formats.levels(name)) // 2 - 1


def is_even(name: str) -> bool:
    """Whether all levels of a format are evenly spaced."""
    return name == "uint4"


def decades(name: str) -> list[tuple[float, float]]:
    """(slope, height at 0) of the places of magnitudes, decade by decade. Codes are places, less 1 in formats without a sign."""
    if is_even(name):
        return [(16.0, 0.5)]
    count, doubled = {"int4": (3, 0), "int8": (7, 0), "uint8": (7, 1)}[name]
    levels = [2 ** (decade + doubled) for decade in range(count)]
    return [(n * 10 ** (count - decade) / 9, n * 8 / 9) for decade, n in enumerate(levels)]


def lines(name: str) -> list[tuple[float, float]]:
    """8 lines that say how many borders from 0 up lie below a magnitude, or one less; the last ones of slope 0 at the last border."""
    last = len(formats.levels(name)) - 2 - max(0, zero(name))
    found = [(slope, height - name.startswith("u") - SHORT) for slope, height in decades(name)]
    return found + [(0.0, float(last))] * (8 - len(found))


def whole(name: str) -> float:
    """What magnitudes are multiplied by, so that those from the last border up are the ones from 2 up, but for rounding."""
    return torch.tensor((2 + 2.0**-20) / formats.borders(name)[-1].item()).item()


def bin_of(power: int) -> int:
    """Where magnitudes from 2^power up to twice that are found: two powers share a bin, so that those from 2 up have one of their own."""
    return (power + 127) // 2 % BINS


def bins(name: str) -> Tensor:
    """Places for multiplied magnitudes, from 2^-29 up to 8, in 65536ths: slopes and heights of two lines, of which the lower counts;
    [4, 16]."""
    found = [[0.0] * 4] * BINS
    for power in range(-29, 3, 2):
        ends = [2.0**power / whole(name), 2.0 ** (power + 2) / whole(name)]
        slopes, heights = zip(*_two_lines(name, ends), strict=True)
        steep = [STEPS * slope / whole(name) for slope in slopes]
        high = [STEPS * (height + MARGIN) - slope * OFFSET for height, slope in zip(heights, steep, strict=True)]
        found[bin_of(power)] = [steep[0], high[0], steep[1], high[1]]
    return torch.tensor(found).T


def _two_lines(name: str, ends: Sequence[float]) -> list[tuple[float, float]]:
    """For magnitudes between two ends: those of decades, where borders are late as others are or there are none."""
    pair = [min(decades(name), key=lambda line: line[0] * x + line[1]) for x in ends]
    if is_even(name):
        return pair if pair[1][0] * ends[1] + pair[1][1] >= 2 else [(0.0, 1.5)] * 2  # 0 has the code of the first level
    top, first = len(formats.levels(name)) - 1 - zero(name), formats.borders(name)[max(0, zero(name))].item()
    if ends[0] * whole(name) == 2:
        return [(STEEP * whole(name) / 2, top + LATE - 0.0006 - STEEP), (0.0, top + 0.5)]
    if ends[0] <= first < ends[1]:
        place = pair[0][0] * first + pair[0][1]
        return [(slope, height + round(place) + LATE - place) for slope, height in pair]
    return pair


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
