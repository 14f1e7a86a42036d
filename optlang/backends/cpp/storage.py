"""C++ that opens and closes what is stored in fewer bits: the same numbers as in `formats`, a block at a time.

Codes of 8 bits are found with two looks into tables: the upper bits of a value say which level lies below it, or the one
after that; a comparison with the border between these two decides.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from optlang.backends import formats

BINADES, PARTS = 23, 7  # of magnitudes from 2^-23 to 1; bits of the mantissa


def storage(names: Collection[str]) -> list[str]:
    """The text for some formats; nothing if there are none."""
    if not names:
        return []
    tables = [_tables(name) for name in sorted(names) if name in ("int8", "uint8", "int4", "uint4", "fp8")]
    fp8 = ["#define OPTLANG_FP8"] if "fp8" in names else []
    return [*tables, *fp8, (Path(__file__).parent / "storage.h").read_text(encoding="utf-8"), *(_calls(name) for name in sorted(names))]


@cache
def _tables(name: str) -> str:
    if name == "fp8":
        codes = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn).float()
        return _array("levels_fp8", codes)
    text = _array(f"levels_{name}", formats.levels(name)) + _array(f"borders_{name}", with_end(formats.borders(name)))
    return text + _array(f"below_{name}", below(name)) if name.endswith("int8") else text


def with_end(borders: Tensor) -> Tensor:
    """Borders with one behind the last level, which nothing reaches."""
    return torch.cat([borders, torch.tensor([torch.inf])])


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


def _array(name: str, values: Tensor) -> str:
    kind = "int32_t" if values.dtype == torch.int32 else "float"
    shown = ", ".join(str(x) if kind == "int32_t" else _literal(x) for x in values.tolist())
    return f"static const {kind} {name}[{len(values)}] = {{{shown}}};\n"


def _literal(value: float) -> str:
    return "NAN" if value != value else "INFINITY" if value == float("inf") else f"{value!r}f"


def _calls(name: str) -> str:
    """`open_NAME` and `close_NAME`, as passes call them, of the formats that differ in their tables alone."""
    kind = name.removeprefix("u")
    if kind not in ("int8", "int4"):
        return ""
    tables = f"borders_{name}, below_{name}" if kind == "int8" else f"borders_{name}"
    return f"""static inline void open_{name}(char* const* at, i64 low, i64 high, float* to) {{
  open_table_{kind}(at, low, high, to, levels_{name});
}}
static inline void close_{name}(char* const* at, i64 low, i64 high, const float* from, const u32*, u32) {{
  close_table_{kind}(at, low, high, from, {tables});
}}"""
