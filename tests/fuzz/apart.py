"""Where results part further than rounding explains. How far they may part is not guessed: see `noise`."""

from __future__ import annotations

import torch
from torch import Tensor

from .training import Stored

SIZES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3}


def differs(found: list[Stored], expected: list[Stored], noise: list[list[Stored]], dtype: torch.dtype, every: bool, fast: bool) -> str:
    """The first place, empty where there is none. `every`: both must have stored the same things; `fast`: what is infinite or
    NaN may be anything."""
    for step, rows in enumerate(zip(found, expected, *noise, strict=True)):
        tables = [dict(row) for row in rows]
        mine, theirs = tables[:2]
        if every and mine.keys() != theirs.keys():
            return f"step {step + 1}: {sorted(mine.keys() ^ theirs.keys())} on one side alone"
        for key in mine.keys() & theirs.keys():
            if place := _apart(mine[key], theirs[key], [table[key] for table in tables[2:]], dtype, fast):
                return f"step {step + 1}, {key}: {place}"
    return ""


def _apart(mine: Tensor, theirs: Tensor, noisy: list[Tensor], dtype: torch.dtype, fast: bool) -> str:
    if mine.shape != theirs.shape:
        return f"shape {tuple(mine.shape)} and not {tuple(theirs.shape)}"
    if torch.equal(mine, theirs):
        return ""
    a, b, *others = (x.detach().double() for x in (mine, theirs, *noisy))
    stack = torch.stack(others or [b])
    known = (stack.isnan() == b.isnan()).all(0) & ((stack == b) | stack.isfinite() & b.isfinite() | stack.isnan() & b.isnan()).all(0)
    if fast:
        known &= b.isfinite()
    apart = (stack - b).abs().amax(0)
    room = torch.where(b.isfinite() & apart.isfinite(), 30 * apart + 10 * SIZES[dtype] * (1 + b.abs()), 0)
    room = torch.maximum(room, 0.01 * room.max())  # a value that noise missed by chance has neighbours that it met
    wrong = known & ~((a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= room))
    if not bool(wrong.any()):
        return ""
    return f"{a[wrong][:4].tolist()} is not {b[wrong][:4].tolist()} (room {room[wrong][:4].tolist()})"
