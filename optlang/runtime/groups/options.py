"""The options that every optimizer has, in torch's terms: what they mean here, and which of them are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPTIONS: dict[str, Any] = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
OF_THE_MACHINE = ("foreach", "capturable", "differentiable", "fused")  # how steps are taken: no part of a checkpoint
ABOUT = {
    "maximize": "go up instead of down; may differ between groups",
    "foreach": "taken as in torch; every step goes over all parameters together, so it changes nothing",
    "capturable": "counts, and hypers that are tensors, are read on the device: a CUDA graph may hold the step",
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


def _check_together(what: str, group: Mapping[str, Any]) -> None:
    if group.get("capturable") and group.get("differentiable"):
        raise RuntimeError(f"{what}: `capturable` does not support `differentiable`")
    if group.get("fused") and group.get("foreach"):
        raise RuntimeError(f"{what}: `fused` and `foreach` cannot be `True` together.")
    if group.get("fused") and group.get("differentiable"):
        raise RuntimeError(f"{what}: `fused` does not support `differentiable`")
