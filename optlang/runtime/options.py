"""The options that every optimizer has, in torch's terms: what they mean here, and which of them are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

OPTIONS: dict[str, Any] = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
OF_THE_MACHINE = ("foreach", "capturable", "differentiable", "fused")  # how steps are taken: no part of a checkpoint
ABOUT = {
    "maximize": "go up instead of down; may differ between groups",
    "foreach": "taken as in torch; every step goes over all parameters together, so it changes nothing",
    "capturable": "must stay False: rates are computed on the host, where a captured graph would freeze them",
    "differentiable": "autograd goes through the step: parameters are no leaves, and states are new tensors",
    "fused": "taken as in torch; with True, `GradScaler` leaves unscaling and skipping to the step",
}
TRUTHS = ("maximize", "capturable", "differentiable")


def check_options(what: str, group: Mapping[str, Any]) -> None:
    """Raises TypeError for options of a wrong kind, RuntimeError and ValueError for those that cannot be had."""
    for name in OPTIONS:
        value = group.get(name, OPTIONS[name])
        if not isinstance(value, bool) and (value is not None or name in TRUTHS):
            wanted = "True or False" if name in TRUTHS else "True, False or None"
            raise TypeError(f"{what}: {name} must be {wanted}, not {value!r}")
    seed = group.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"{what}: seed must be a whole number, not {seed!r}")
    _check_together(what, group)


def refuse_capture(what: str) -> None:
    """Raises RuntimeError while a CUDA graph is recorded: replayed, the step would use the rates of this one for ever."""
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():  # type: ignore[no-untyped-call]
        raise RuntimeError(f"{what}.step() cannot be captured in a CUDA graph, for the rates of a rule are computed on the host in every "
                           "step: capture forward and backward, and step after the replay")  # fmt: skip


def _check_together(what: str, group: Mapping[str, Any]) -> None:
    if group.get("capturable"):
        raise ValueError(f"{what} cannot be capturable: the rates of a rule are computed on the host in every step, and a captured "
                         "graph would keep those of one step. Leave capturable=False and step outside of captured graphs")  # fmt: skip
    if group.get("fused") and group.get("foreach"):
        raise RuntimeError(f"{what}: `fused` and `foreach` cannot be `True` together.")
    if group.get("fused") and group.get("differentiable"):
        raise RuntimeError(f"{what}: `fused` does not support `differentiable`")
