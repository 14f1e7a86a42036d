"""Parameters whose memory overlaps: a step would write one number twice, in whatever order threads come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

Named = tuple[str, Tensor]


def overlap(named: Sequence[Named]) -> str:
    """What is wrong with the memory of some parameters; empty where nothing is. Of those with gaps only their own is looked at."""
    plain = [(name, p) for name, p in named if _has_memory(p)]
    for name, p in plain:
        if torch._debug_has_internal_overlap(p) == 1:
            return f"several elements of {name} are one place in memory, as `expand` makes them; give the optimizer what was expanded"
    spans = sorted(_spans(plain))
    for (device, _, end, name), (place, start, _, other) in pairwise(spans):
        if device == place and start < end:
            return f"{name} and {other} share memory, which would be stepped twice; give the optimizer one of them"
    return ""


def _has_memory(p: Tensor) -> bool:
    return type(p) in (Tensor, torch.nn.Parameter) and p.layout == torch.strided and not p.is_meta and p.numel() > 0


def _spans(named: Sequence[Named]) -> list[tuple[str, int, int, str]]:
    """Device, first and last address of contiguous parameters, each once."""
    distinct = {id(p): (name, p) for name, p in named if p.is_contiguous()}
    return [(str(p.device), p.data_ptr(), p.data_ptr() + p.nbytes, name) for name, p in distinct.values()]
