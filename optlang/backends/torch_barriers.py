"""Crossing barriers: partial results of all parameters become values per group and model; the model is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from optlang import meaning
from optlang.backends.arrays import read
from optlang.backends.base import StepError
from optlang.backends.places import Place, shape_of
from optlang.backends.torch_views import like
from optlang.backends.torch_work import Pass, Work
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import Barrier
from optlang.types import ELEMENT, Type

if TYPE_CHECKING:
    from optlang.backends.torch import TorchExecutable

WEIGHTS = Type("real", ELEMENT)
Partials = dict[int, Any]  # of one barrier, by the place of the parameter in the step


def cross(executable: TorchExecutable, now: Pass, number: int, level: Sequence[Barrier]) -> None:
    """Computes what the barriers of one level need from every parameter, and gives their marks values."""
    partials: dict[Node, Partials] = {b.mark: {} for b in level}
    _partial(executable, now, number, level, now.works, partials)
    _partial(executable, now, number, [b for b in level if b.mark in executable.plan.common], now.beside, partials)
    for barrier in level:
        if barrier.op in CALLS:
            _ask(barrier, partials[barrier.mark], now)
        else:
            _gather(executable, barrier, partials[barrier.mark], now)


def _partial(
    executable: TorchExecutable, now: Pass, number: int, level: Sequence[Barrier], works: Sequence[Work], partials: dict[Node, Partials]
) -> None:
    """What some parameters contribute."""
    asked = [(b, b.asked) for b in level if b.asked is not None]
    key = ("level", number, tuple(b.mark for b in level))
    answers = executable.answers(key, [node for _, node in asked], works, now) if asked else []
    first = 0 if works is now.works else len(now.works)
    for place, (work, (code, values)) in enumerate(zip(works, answers, strict=False), first):
        for (barrier, _), value in zip(asked, values, strict=True):
            if barrier.op in CALLS:
                value = like(work.cell.weights, value, WEIGHTS, code.shaped)
            partials[barrier.mark][place] = value


def _ask(barrier: Barrier, points: Partials, now: Pass) -> None:
    """Gradients or the loss at other points, or products with the Hessian, of all parameters at once."""
    call = now.step.asked(barrier.op)
    if call is None:
        raise StepError(f"the rule needs {CALLS[barrier.op]}; call `optimizer.step(closure)` with a closure that returns the loss")
    if barrier.asked is None:  # the same number for all parameters of a group
        points = {i: _filled(work, barrier.args[0], now) for i, work in enumerate(now.works)}
    answers = call([points[i] for i in range(len(now.works))])
    if barrier.op == "loss_at":
        assert now.run is not None
        now.run.model.values[barrier.mark] = read(answers).reshape(())
        return
    for work, answer in zip(now.works, answers, strict=True):
        work.marks[barrier.mark] = answer.detach()


def _filled(work: Work, node: Node, now: Pass) -> Tensor:
    assert now.run is not None and work.place is not None
    return torch.full_like(work.cell.weights, float(now.run([(node, work.place)])[0]))


def _gather(executable: TorchExecutable, barrier: Barrier, partials: Partials, now: Pass) -> None:
    """One value per group or model; parameters on several devices meet in float64 on the host."""
    assert now.run is not None and barrier.value is not None
    partials = _on_host(partials)
    others = now.run.model.beside.get(barrier.value.level, ()) if barrier.mark in executable.plan.common else ()
    for place in (*now.run.model.below[barrier.value.level], *others):
        share = [now.run([(arg, place)])[0] for arg in barrier.args[1:]]
        place.values[barrier.mark] = _reduced(barrier, place, partials, share, now)


def _on_host(partials: Partials) -> Partials:
    """All partial results in one transfer for each device."""
    single = {i: x.device for i, x in partials.items() if isinstance(x, Tensor) and x.ndim == 0}
    moved: Partials = {i: np.asarray(x.detach().double().cpu()) for i, x in partials.items() if i not in single}
    for device in set(single.values()):
        places = [i for i in single if single[i] == device]
        stacked = torch.stack([partials[i].double() for i in places]).cpu().numpy()
        moved.update(zip(places, stacked, strict=True))
    return moved


def _reduced(barrier: Barrier, place: Place, partials: Partials, share: list[Any], now: Pass) -> Any:
    arg = barrier.args[0]
    assert now.run is not None
    if arg.type.extent.level == "group":
        groups = [now.run([(arg, group)])[0] for group in place.reached("group")]
        return meaning.OVER_VALUES[barrier.op](np.array(groups), 0, *share)[0]
    cells = set(place.reached("tensor"))
    works = dict(enumerate([*now.works, *now.beside]))
    inside = [i for i, work in works.items() if work.place in cells]
    counts = sum(_count(works[i], arg) for i in inside)
    if barrier.op == "count":
        return np.float64(counts)
    values = [np.ravel(partials[i]) for i in inside]
    together = np.concatenate(values)
    if barrier.op == "mean":
        return meaning.OVER_VALUES["sum"](together, 0)[0] / np.float64(counts)
    return meaning.OVER_VALUES[barrier.op](together, 0, *share)[0]


def _count(work: Work, arg: Node) -> int:
    return prod(shape_of(arg.type.extent, tuple(work.cell.weights.shape)))
