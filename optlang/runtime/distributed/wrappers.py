"""Tools of torch that give optimizers less than the model has: rules that would not take their own steps are refused (`analysis.needs`)."""

from __future__ import annotations

import sys
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
