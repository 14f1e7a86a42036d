"""C++ that opens and closes what is stored in fewer bits: the same numbers as in `formats`, a block at a time.

Levels lie evenly inside a decade, so the place of a magnitude among them is a straight line in each, and each line is flatter than
the one before: the lowest one counts. Borders between levels lie at whole places, but for the first one of a decade of n levels:
the level below it is nearer, so it lies at n + 1/5. What float32 says about a place is wrong by less than 2^-14 of a level, so
only what comes nearer to a border than that is divided and compared. (Processors that permute no bytes go
through all lines for the lowest one.)
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
MARGIN = 2.0**-14  # of a level, as in codes.h
STEPS = 65536  # of a place
LATE = 0.2  # of a level: how far behind a whole place the first border of a decade is
BINS = 16
SHARE = 4 / 9  # of the margin: what `places_of` in codes.h adds to both parts of a place, so that on either line the margin is added


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
    """8 lines of places for multiplied magnitudes, in 65536ths: up to 2 the lowest of the first 7 counts, from there on the last."""
    found = decades(name)
    if is_even(name):
        found *= 8
    else:
        top = (4 * whole(name), len(formats.levels(name)) - 1 - zero(name) + LATE - 8)  # from 2 up: late, and less than a level
        found = [_first_line(name), *found[1:], *found[-1:] * (7 - len(found)), top]
    return [(slope * STEPS / whole(name), STEPS * (height + MARGIN)) for slope, height in found]


def _first_line(name: str) -> tuple[float, float]:
    """That of the lowest decade, with its first border as late as those of others."""
    (slope, height), start = decades(name)[0], max(0, zero(name))
    first, second = formats.borders(name)[start : start + 2].double().tolist()
    place = round(slope * first + height) + LATE
    if name == "uint8":  # it has two levels
        slope = (round(slope * second + height) - place) / (second - first)
    return slope, place - slope * first


def whole(name: str) -> float:
    """What magnitudes are multiplied by, so that those from the last border up are the ones from 2 up, but for rounding."""
    return torch.tensor((2 + 2.0**-20) / formats.borders(name)[-1].item()).item()


def bin_of(power: int) -> int:
    """Where magnitudes from 2^power up to twice that are found: two powers share a bin, so that those from 2 up have one of their own."""
    return (power + 127) // 2 % BINS


def bins(name: str) -> Tensor:
    """Places for multiplied magnitudes, from 2^-29 up to 8, in 65536ths; [2, 16]. Of two neighbouring lines the lower counts. The upper
    one is five times as steep and half as high, so the sum of a fourth of its slope, of its height and of the lesser of its height and
    of four times the lower one's slope says both: 4 * slope, and height. In an even format, slope and height of its one line."""
    scale = STEPS / whole(name)
    if is_even(name):
        [(slope, height)] = decades(name)
        return torch.tensor([[slope * scale] * BINS, [STEPS * (height + MARGIN)] * BINS])
    found = [(0.0, 0.0)] * BINS
    for power in range(-29, 3, 2):
        slope, height = _two_lines(name, 2.0**power / whole(name), 2.0 ** (power + 2) / whole(name))
        found[bin_of(power)] = (4 * slope * scale, STEPS * (height + SHARE * MARGIN))
    return torch.tensor(found).T


def _two_lines(name: str, low: float, high: float) -> tuple[float, float]:
    """For magnitudes between two ends: the slope of the second of two lines and the height of the first, with late borders where all
    others are late. From the last border up, a line that comes to no other one."""
    lines, start = decades(name), max(0, zero(name))
    top, first = len(formats.levels(name)) - 1 - zero(name), formats.borders(name)[start].item()
    if low * whole(name) == 2:
        slope = 0.7 / (1 - low)
        return slope, (top + LATE - 0.0006 - slope * low) / 2
    at = min(range(len(lines) - 1), key=lambda n: lines[n][0] * low + lines[n][1])
    place = lines[at][0] * first + lines[at][1]
    late = round(place) + LATE - place if low <= first < high else 0.0
    return lines[at + 1][0], lines[at][1] + late


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
