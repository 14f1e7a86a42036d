"""Tools that give optimizers less than the model has: rules that would not take their own steps are refused (`analysis.needs`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from torch import Tensor

from optlang.analysis.needs import DIVIDING, why_all, why_shapes
from optlang.ir import Program


def dividing_tool() -> str:
    """Which tool is making this optimizer of some of a model's parameters; empty where none is. Only those who call can tell."""
    frame: FrameType | None = sys._getframe(1) if DIVIDING.keys() & sys.modules.keys() else None
    while frame is not None:
        if (module := frame.f_globals.get("__name__")) in DIVIDING:
            alone = getattr(frame.f_locals.get("self"), "world_size", 0) == 1
            return "" if alone else DIVIDING[module]
        frame = frame.f_back
    return ""


def check_all_there(program: Program, label: str) -> None:
    """Raises ValueError for a rule that needs all parameters of a model, where a tool gives it some. `label`: it is that of a route."""
    if (tool := dividing_tool()) and (why := why_all(program, bool(label))):
        raise ValueError(f"{program.name} cannot step in torch's {tool}: it {why}; make one optimizer for all of them, under "
                         "DistributedDataParallel or FSDP2 (`fully_shard`)")  # fmt: skip


def is_flattened(parameter: Any) -> bool:
    """Whether it is of FSDP1: numbers of one parameter or several in a row, of which other processes hold the rest."""
    return getattr(parameter, "_fsdp_flattened", False)


def check_flattened(program: Program, label: str, parameter: Tensor, name: str) -> None:
    """Raises ValueError for a rule that does not go element by element, where FSDP1 has taken the shape away."""
    if is_flattened(parameter) and (why := why_shapes(program, bool(label))):
        raise ValueError(f"{program.name} cannot step {name}, whose shape FullyShardedDataParallel has taken away: it {why}; take FSDP2 "
                         "(`torch.distributed.fsdp.fully_shard`), which keeps shapes, or a rule that goes element by element")  # fmt: skip


def are_rows(known: Sequence[Tensor], now: Sequence[Tensor]) -> bool:
    """Whether somebody has put rows of numbers in the place of parameters: fewer than there were, or where there were matrices."""
    come, gone = _without(now, known), _without(known, now)
    return bool(come) and all(p.dim() == 1 for p in come) and (len(come) < len(gone) or any(p.dim() > 1 for p in gone))


def _without(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    there = {id(p) for p in others}
    return [p for p in some if id(p) not in there]


def check_rows(program: Program, label: str) -> None:
    """Raises ValueError for a rule that does not go element by element, where rows of numbers came in the place of parameters."""
    if why := why_shapes(program, bool(label)):
        raise ValueError(f"{program.name} cannot step the rows of numbers that were put in the place of parameters, as DeepSpeed's ZeRO "
                         f"does: it {why}; take ZeRO's stage 0 or FSDP2 (`fully_shard`), which keep shapes, or a rule that goes element "
                         "by element")  # fmt: skip
