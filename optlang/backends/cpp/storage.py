"""C++ that opens and closes what is stored in fewer bits: the same numbers as in `formats`, a block at a time.

Levels lie evenly inside a decade, so how many borders lie below a magnitude is nearly a straight line in each, and each is
flatter than the one before: the lowest line at a place is the one that counts. It says the code, or the one before it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from optlang.backends import formats
from optlang.backends.formats import FORMATS

BINADES = 23  # from 2^-23, below which everything is 0, to 1
SHORT = 0.25  # of a level: lines lie so far below the count that they never exceed it, and by less than one border


def storage(names: Collection[str]) -> list[str]:
    """The text for some formats; nothing if there are none."""
    if not names:
        return []
    tables = [_tables(name) + _calls(name) for name in sorted(names) if FORMATS[name].block]
    return [(Path(__file__).parent / "storage.h").read_text(encoding="utf-8"), *tables]


@cache
def _tables(name: str) -> str:
    if name == "fp8":
        codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
        return f"static const Table levels_fp8 = {_numbers(codes.view(torch.float8_e4m3fn).float().tolist())};\n"
    borders = _numbers(with_end(formats.borders(name)).tolist())
    near = ", ".join(_numbers(column) for column in zip(*lines(name), strict=True))
    steps = ", ".join("{" + ", ".join(map(str, row)) + "}" for row in bins(name))
    return f"""static const Table levels_{name} = {_numbers(formats.levels(name).tolist())};
static const Codes codes_{name} = {{{borders}, {{{near}}}, {{{steps}}}}};
"""


def with_end(borders: Tensor) -> Tensor:
    """Borders with one behind the last level, which nothing reaches."""
    return torch.cat([borders, torch.tensor([torch.inf])])


def zero(name: str) -> int:
    """The code of 0 in a format with levels below it; else -1."""
    return -1 if name.startswith("u") else len(formats.levels(name)) // 2 - 1


def lines(name: str) -> list[tuple[float, float]]:
    """(slope, height at 0) of 8 lines for the levels of a format from 0 up; the last ones of slope 0 at the last border."""
    last = len(formats.levels(name)) - 2 - max(0, zero(name))
    found = [(16.0, -0.5 - SHORT)] if name == "uint4" else []
    decades, doubled = {"uint4": (0, 0), "int4": (3, 0), "int8": (7, 0), "uint8": (7, 1)}[name]
    for decade in range(decades):
        count = 2 ** (decade + doubled)  # levels in 9/10 of 10^(decade - decades + 1)
        found.append((10 ** (decades - 1 - decade) * count / 0.9, count - doubled - count / 9 - SHORT))
    return found + [(0.0, float(last))] * (8 - len(found))


def bins(name: str) -> list[list[int]]:
    """What the lines say for magnitudes from 2^(k - 23) up to twice that, in 256ths: height at the start and what the line rises,
    for the line that is lowest at the start and the one that is at the end; [4, 32]."""
    found = []
    for k in range(BINADES + 1):
        start = 2.0 ** (k - BINADES)
        near = [min(lines(name), key=lambda line: line[0] * x + line[1]) for x in (start, 2 * start)]
        found.append([max(0, int(256 * part)) for a, b in near for part in (a * start + b, a * start)])
    return [list(row) + [0] * (31 - BINADES) for row in zip(*found, strict=True)]


def _numbers(values: Sequence[float]) -> str:
    return "{" + ", ".join("NAN" if x != x else "INFINITY" if math.isinf(x) else f"{float(x)!r}f" for x in values) + "}"


def _calls(name: str) -> str:
    """`open_NAME` and `close_NAME`, as passes call them, of what differs from other formats in its tables alone."""
    way = "halves" if FORMATS[name].bits == 4 else "bytes"
    opening = f"""static inline void open_{name}(char* const* at, i64 low, i64 high, float* to) {{
  open_{way}(at, low, high, to, levels_{name});
}}
"""
    if name == "fp8":
        return opening
    return f"""{opening}static inline void close_{name}(char* const* at, i64 low, i64 high, float* from, const u32*, u32) {{
  close_{way}<{zero(name)}>(at, low, high, from, codes_{name});
}}"""
