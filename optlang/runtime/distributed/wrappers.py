"""Tools of torch that give optimizers less than the model has, and do not say so: some of its parameters, or numbers without shapes.

Most rules could not step these, and nothing would fail: a norm per model would be of a few parameters, a matrix a row of numbers that
belong to several. So rules that would not take their own steps are refused.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from torch import Tensor

from optlang import ir
from optlang.ir import Program
from optlang.ops import ASKING, OPS
from optlang.runtime.facts import mixing

_PLACE = "torch.distributed.optim"
DIVIDING = {  # the modules of tools that make an optimizer of some parameters, or several
    f"{_PLACE}.zero_redundancy_optimizer": "ZeroRedundancyOptimizer, which gives each process some of the parameters",
    f"{_PLACE}.apply_optimizer_in_backward": "_apply_optimizer_in_backward, which makes an optimizer for each parameter",
    f"{_PLACE}.optimizer": "DistributedOptimizer, which makes an optimizer on each worker for the parameters there",
}
INSTEAD = "make one optimizer for all of them, under DistributedDataParallel or FSDP2 (`fully_shard`)"


def dividing_tool() -> str:
    """Which tool is making this optimizer of some of a model's parameters; empty where none is. Only those who call can tell."""
    frame: FrameType | None = sys._getframe(1) if DIVIDING.keys() & sys.modules.keys() else None
    while frame is not None:
        if (module := frame.f_globals.get("__name__")) in DIVIDING:
            alone = getattr(frame.f_locals.get("self"), "world_size", 0) == 1
            return "" if alone else DIVIDING[module]
        frame = frame.f_back
    return ""


def why_all(program: Program, label: str) -> str:
    """Why a rule needs all parameters of a model; empty where some will do. `label`: it is that of a route."""
    if label:
        return "is in a route, whose groups the tool does not know"
    nodes = ir.walk(program.all_roots())
    if any(node.op in ASKING for node in nodes):
        return "asks the model, which steps all of them"
    if any(OPS[node.op].role == "reduce" and node.type.extent.level in ("model", "group") for node in nodes):
        return "has values per model or group, which are of all of them"
    drawn = any(node.op == "random" and node.type.extent.level not in ("host", "model") for node in nodes)
    return "draws numbers by the place of a parameter among all of them" if drawn else ""


def check_all_there(program: Program, label: str) -> None:
    """Raises ValueError for a rule that needs all parameters of a model, where a tool gives it some."""
    if (tool := dividing_tool()) and (why := why_all(program, label)):
        raise ValueError(f"{program.name} cannot step in torch's {tool}: it {why}; {INSTEAD}")


def is_flattened(parameter: Any) -> bool:
    """Whether it is of FSDP1: numbers of one parameter or several in a row, of which other processes hold the rest."""
    return getattr(parameter, "_fsdp_flattened", False)


def check_flattened(program: Program, label: str, parameter: Tensor, name: str) -> None:
    """Raises ValueError for a rule that does not go element by element, where FSDP1 has taken the shape away."""
    if not is_flattened(parameter):
        return
    nodes = ir.walk(program.all_roots())
    drawn = "draws numbers by their places" if any(node.op == "random" for node in nodes) else ""
    if why := ("is in a route, which looks at shapes" if label else mixing(nodes) or drawn):
        raise ValueError(f"{program.name} cannot step {name}, whose shape FullyShardedDataParallel has taken away: it {why}; take FSDP2 "
                         "(`torch.distributed.fsdp.fully_shard`), which keeps shapes, or a rule that goes element by element")  # fmt: skip
