"""Parameters whose memory overlaps: a step would write one number twice, in whatever order threads come."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

Named = tuple[str, Tensor]
UNKNOWN = 2  # what torch says of strides that it does not follow


def overlap(named: Sequence[Named]) -> str:
    """What is wrong with the memory of some parameters; empty where nothing is. Those with gaps are not compared with others."""
    plain = [(name, p) for name, p in named if _has_memory(p)]
    for name, p in plain:
        if _overlaps(p):
            return (f"several elements of {name} are one place in memory, as `expand` and `as_strided` make them; give the optimizer"
                    " what they were made of")  # fmt: skip
    spans = sorted(_spans(plain))
    for (device, _, end, name), (place, start, _, other) in pairwise(spans):
        if device == place and start < end:
            return f"{name} and {other} share memory, which would be stepped twice; give the optimizer one of them"
    return ""


def _has_memory(p: Tensor) -> bool:
    return type(p) in (Tensor, torch.nn.Parameter) and p.layout == torch.strided and not p.is_meta and p.numel() > 0


def _overlaps(p: Tensor) -> bool:
    """Whether several elements are one place."""
    found = torch._debug_has_internal_overlap(p)
    if found != UNKNOWN:
        return bool(found)
    reach = 0
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size > 1 and stride <= reach:  # rows that reach into the next ones, but may miss their elements
            return len(torch.unique(_offsets(p))) < p.numel()
        reach += stride * (size - 1)
    return False


def _reach(p: Tensor) -> int:
    """How far the last element is from the first one."""
    return sum(stride * (size - 1) for stride, size in zip(p.stride(), p.shape, strict=True))


def _offsets(p: Tensor) -> Tensor:
    """Of all elements from the first one."""
    found = torch.zeros((), dtype=torch.int64)
    for stride, size in zip(p.stride(), p.shape, strict=True):
        found = found[..., None] + stride * torch.arange(size)
    return found


def _spans(named: Sequence[Named]) -> list[tuple[str, int, int, str]]:
    """Device, first and last address of parameters without gaps, in whatever order their elements are, each once."""
    distinct = {id(p): (name, p) for name, p in named if p.is_contiguous() or _reach(p) + 1 == p.numel()}
    return [(str(p.device), p.data_ptr(), p.data_ptr() + p.nbytes, name) for name, p in distinct.values()]
