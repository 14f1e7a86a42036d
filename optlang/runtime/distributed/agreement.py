"""Copies of a model whose gradients are averaged, as under DistributedDataParallel: do all processes step them by one rule?

Nothing fails where they do not: the copies drift apart. So in a few early steps each process leaves in the store of the default
process group, under a digest of some of its gradients, by which rule it steps and where its weights are; who comes later compares.
That is one request to the store, and nobody waits for anybody: stages of a pipeline leave other digests, and a process without
an optimizer leaves none. Equal gradients at weights that differ by more than rounding can only be averages, so models that are
trained apart are let alone.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from optlang.backends.device_scalars import is_capturing
from optlang.printing.fingerprint import differences
from optlang.runtime.groups.parameters import real
from optlang.runtime.groups.settings import plain

if TYPE_CHECKING:
    from optlang.runtime.groups.grouped import Grouped

LOOKS = (2, 4, 8, 16, 32)  # in the first step all weights may still be equal
PARAMETERS, EACH = 4, 16  # how many are looked at, and how many elements of each
ENOUGH = 8  # different gradients, to tell one model from another
ROUNDING, MOST = 64, 0.02  # units in the last place of the largest weight that gradients may not show, at most this share of it
_seen: Counter[str] = Counter()  # of digests: optimizers that are given the same gradients are told apart by their order


def check(optimizer: Grouped, settings: Sequence[Mapping[str, Any]], taken: int) -> None:
    """Looks in some of the first steps, of which `taken` are over. Raises RuntimeError where another process steps the same gradients
    by another rule. Other settings may be meant, so they are worth a warning."""
    if taken + 1 not in LOOKS or is_capturing() or (company := _company()) is None:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if (sample := _sample(parameters)) is None:
        return
    gradients, weights = sample
    digest = sha256(repr((taken, gradients)).encode()).hexdigest()
    place = f"optlang/{digest}/{_seen[digest]}"
    _seen[digest] += 1
    rank, store = company
    mine = {"rank": rank, "weights": weights, "rules": _rules(optimizer), "settings": _settings(optimizer, settings)}
    found = _first(store, place, mine)
    eps = max(torch.finfo(p.dtype).eps for p in parameters if p.grad is not None)
    if found["rank"] != rank and _are_apart(found["weights"], weights, eps):
        _compare(type(optimizer).__name__, found, mine, taken)


def _company() -> tuple[int, Any] | None:
    """The rank of this process, and the store that all of them share; None where it is alone, or torch has put the store elsewhere."""
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() < 2:
        return None
    try:
        return distributed.get_rank(), distributed.distributed_c10d._get_default_store()
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return None


def _first(store: Any, place: str, mine: dict[str, Any]) -> dict[str, Any]:
    """What the first process has left in a place, which may be this one."""
    try:
        found: dict[str, Any] = json.loads(store.compare_set(place, "", json.dumps(mine)))
    except (AttributeError, TypeError, ValueError, RuntimeError):  # it cannot do this, or went with the process that had it
        return mine
    return found


def _sample(parameters: Sequence[Tensor]) -> tuple[list[float], list[float]] | None:
    """Some gradients and their weights, in one transfer; None where they say nothing."""
    there = [p for p in parameters if type(p.grad) is Tensor and p.grad.layout == torch.strided and not p.is_meta and p.numel()]
    there = [p for p in there if p.device == there[0].device]
    chosen = [there[i] for i in sorted({len(there) * k // PARAMETERS for k in range(PARAMETERS)})] if there else []
    parts: list[list[Tensor]] = [[], []]
    for p in chosen:
        for side, x in zip(parts, (p.grad, p.detach()), strict=True):
            assert x is not None
            numbers = real(x)
            step = max(1, numbers.numel() // EACH)
            side.append(torch.take(numbers, torch.arange(0, numbers.numel(), step, device=x.device)[:EACH]))
    together = torch.cat(parts[0] + parts[1]).cpu().tolist() if chosen else []
    gradients, weights = together[: len(together) // 2], together[len(together) // 2 :]
    told = {x for x in gradients if x - x == 0 and x != 0}
    return (gradients, weights) if len(told) >= ENOUGH else None


def _are_apart(there: Sequence[float], here: Sequence[float], eps: float) -> bool:
    """Whether weights differ by more than what rounding makes of like rules: so little may not show in gradients."""
    size = max((abs(x) for x in (*there, *here)), default=0.0)
    return len(there) == len(here) and any(abs(a - b) > min(ROUNDING * eps, MOST) * size for a, b in zip(there, here, strict=True))


def _rules(optimizer: Grouped) -> dict[str, str]:
    """The equations by their fingerprints."""
    return dict(optimizer.case_of(group).identity(group) for group in optimizer.param_groups)


def _settings(optimizer: Grouped, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The hypers of each group, with what else decides about a step."""
    others = [{"maximize": group.get("maximize", False), "seed": group.get("seed", 0)} for group in optimizer.param_groups]
    return [{name: plain(value) for name, value in {**hypers, **more}.items()} for hypers, more in zip(settings, others, strict=True)]


def _compare(name: str, there: Mapping[str, Any], here: Mapping[str, Any], taken: int) -> None:
    what, where = f"{name}: rank {there['rank']} steps the same gradients", f"as on rank {there['rank']}"
    drift = f"so the copies of the model drift apart, which was found after {taken} step{'s' * (taken > 1)}"
    if list(there["rules"]) != list(here["rules"]):
        theirs, ours = ("\n".join(one["rules"].values()) for one in (there, here))
        raise RuntimeError(f"{what} by another rule, {drift}: give all processes the same rule, and start again\n"
                           f"{differences(theirs, ours, where)}")  # fmt: skip
    if others := _others(there["settings"], here["settings"]):
        warnings.warn(f"{what} with {', '.join(others[:4])}{', …' * (len(others) > 4)}, {drift}", stacklevel=2)


def _others(there: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]) -> list[str]:
    """The settings in which two processes differ."""
    if len(there) != len(here):
        return [f"{len(there)} parameter groups (here {len(here)})"]
    pairs = [(i, key, _said(a.get(key)), _said(b[key])) for i, (a, b) in enumerate(zip(there, here, strict=True)) for key in b]
    return [f"{key} = {one} in group {i} (here {other})" for i, key, one, other in pairs if one != other]


def _said(value: Any) -> str:
    """A number as precisely as a tensor of 32 bits has it."""
    return f"{value:g}" if isinstance(value, float) else repr(value)
