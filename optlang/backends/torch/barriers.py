"""Crossing barriers: partial results of all parameters become values per group and model; the model is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from optlang import meaning
from optlang.backends.arrays import read
from optlang.backends.base import Spread, StepError
from optlang.backends.places import Place, shape_of
from optlang.backends.torch.shared import SharedRun, together
from optlang.backends.torch.views import seen_like
from optlang.backends.torch.work import TorchStep, Work, computing
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import PARTIAL, Barrier
from optlang.types import ELEMENT, Type

if TYPE_CHECKING:
    from optlang.backends.torch.executable import TorchExecutable

WEIGHTS = Type("real", ELEMENT)
Partials = dict[int, Any]  # of one barrier, by the place of the parameter in the step


def cross(executable: TorchExecutable, now: TorchStep, number: int, level: Sequence[Barrier]) -> None:
    """Computes what the barriers of one level need from every parameter, and gives their marks values."""
    partials: dict[Node, Partials] = {b.mark: {} for b in level}
    _partial(executable, now, number, level, now.works, partials)
    _partial(executable, now, number, [b for b in level if b.mark in executable.plan.common], now.beside, partials)
    _reduce_parts([b for b in level if b.asked is not None and b.op not in CALLS], partials, [*now.works, *now.beside])
    products = [b for b in level if b.op == "hvp"]
    with now.step.one_graph() if len(products) > 1 else nullcontext():
        for barrier in products:
            _ask(barrier, partials.pop(barrier.mark), now)  # points are as large as the model: each goes once it has been asked
    for barrier in [b for b in level if b.op != "hvp"]:
        if barrier.op in CALLS:
            _ask(barrier, partials.pop(barrier.mark), now)
        else:
            _gather(executable, barrier, partials[barrier.mark], now)


def _partial(
    executable: TorchExecutable, now: TorchStep, number: int, level: Sequence[Barrier], works: Sequence[Work],
    partials: dict[Node, Partials],
) -> None:  # fmt: skip
    """What some parameters contribute."""
    first = 0 if works is now.works else len(now.works)
    alike: dict[frozenset[Node], list[tuple[int, Work]]] = {}
    for place, work in enumerate(works, first):
        alike.setdefault(executable.takes_part(work), []).append((place, work))
    together: dict[tuple[Barrier, ...], list[tuple[int, Work]]] = {}
    for marks, some in alike.items():
        together.setdefault(tuple(b for b in level if b.asked is not None and b.mark in marks), []).extend(some)
    for asked, some in together.items() if any(together) else ():
        answers = executable.answers(*question(number, asked), [work for _, work in some], now) if asked else []
        for (place, work), (code, values) in zip(some, answers, strict=False):
            for barrier, value in zip(asked, values, strict=True):
                found = seen_like(work.cell.weights, value, WEIGHTS, code.shaped) if barrier.op in CALLS else value
                partials[barrier.mark][place] = found


def question(number: int, asked: Sequence[Barrier]) -> tuple[Any, list[Node]]:
    """What some barriers of a level ask of a parameter: the key of the function that computes it, and the expressions."""
    return ("level", number, tuple(b.mark for b in asked)), [b.asked for b in asked if b.asked is not None]


def _reduce_parts(level: Sequence[Barrier], partials: dict[Node, Partials], works: Sequence[Work]) -> None:
    """What parts contribute becomes what their parameters do: all values of a kind through the processes at once."""
    waiting: dict[Any, list[tuple[Barrier, int, Spread]]] = {}
    for barrier in level:
        for place in partials[barrier.mark]:
            if (spread := works[place].cell.spread) is not None:
                waiting.setdefault((*spread.key, PARTIAL[barrier.op]), []).append((barrier, place, spread))
    for (*_, op), some in waiting.items():
        values = torch.stack([partials[barrier.mark][place].detach().double().reshape(()) for barrier, place, _ in some])
        for (barrier, place, _), value in zip(some, some[0][2].reduced(op, values), strict=True):
            partials[barrier.mark][place] = value


def _ask(barrier: Barrier, points: Partials, now: TorchStep) -> None:
    """Gradients or the loss at other points, or products with the Hessian, of all parameters at once."""
    call = now.step.asked(barrier.op)
    if call is None:
        raise StepError(f"the rule needs {CALLS[barrier.op]}; call `optimizer.step(closure)` with a closure that returns the loss")
    if barrier.asked is None:  # the same number for all parameters of a group
        points = {i: _filled(work, barrier.args[0], now) for i, work in enumerate(now.works)}
    answers = call([points.pop(i) for i in range(len(now.works))])
    if barrier.op == "loss_at":
        assert now.run is not None
        now.run.model.values[barrier.mark] = read(answers).reshape(())
        return
    for work, answer in zip(now.works, answers, strict=True):
        work.marks[barrier.mark] = answer.detach()


def _filled(work: Work, node: Node, now: TorchStep) -> Tensor:
    assert now.run is not None and work.place is not None
    return torch.full_like(work.cell.weights, float(now.run([(node, work.place)])[0]))


def _gather(executable: TorchExecutable, barrier: Barrier, partials: Partials, now: TorchStep) -> None:
    """One value per group or model; parameters on several devices meet in float64 on the host."""
    assert now.run is not None and barrier.value is not None
    partials = partials if isinstance(now.run, SharedRun) else _on_host(partials)
    others = now.run.model.beside.get(barrier.value.level, ()) if barrier.mark in executable.plan.common else ()
    for place in (*now.run.model.below[barrier.value.level], *others):
        if barrier.value.level == "tensor" and barrier.mark not in executable.takes_part(now.work_at(place)):
            continue
        share = [now.run([(arg, place)])[0] for arg in barrier.args[1:]]
        value = place.values[barrier.mark] = _reduced(barrier, place, partials, share, now)
        if barrier.value.level == "tensor":
            work = now.work_at(place)
            weights = work.cell.weights
            work.marks[barrier.mark] = torch.as_tensor(value, dtype=computing(weights.dtype), device=weights.device)


def _on_host(partials: Partials) -> Partials:
    """All partial results in one transfer for each device."""
    single = {i: x.device for i, x in partials.items() if isinstance(x, Tensor) and x.ndim == 0}
    moved: Partials = {i: np.asarray(x.detach().double().cpu()) for i, x in partials.items() if i not in single}
    for device in set(single.values()):
        places = [i for i in single if single[i] == device]
        stacked = torch.stack([partials[i] for i in places]).double().cpu().numpy()
        moved.update(zip(places, stacked, strict=True))
    return moved


def _reduced(barrier: Barrier, place: Place, partials: Partials, share: list[Any], now: TorchStep) -> Any:
    arg = barrier.args[0]
    assert now.run is not None
    if isinstance(now.run, SharedRun):
        return _reduced_there(now.run, barrier, place, partials, share, now)
    if arg.type.extent.level == "group":
        groups = [now.run([(arg, group)])[0] for group in place.reached("group")]
        return meaning.OVER_VALUES[barrier.op](np.array(groups), 0, *share)[0]
    inside = inside_of(place, now)
    if barrier.op == "count":
        return np.float64(count_of(inside, arg, now))
    values = [partials[i] for i in inside]
    together = np.array(values).reshape(-1) if barrier.op in PARTIAL else np.concatenate(list(map(np.ravel, values)))
    if barrier.op == "mean":
        return meaning.OVER_VALUES["sum"](together, 0)[0] / np.float64(count_of(inside, arg, now))
    return meaning.OVER_VALUES[barrier.op](together, 0, *share)[0]


def _reduced_there(run: SharedRun, barrier: Barrier, place: Place, partials: Partials, share: list[Any], now: TorchStep) -> Tensor:
    """The same on the device."""
    arg = barrier.args[0]
    if arg.type.extent.level == "group":
        groups = place.reached("group")
        return together(barrier.op, [run([(arg, group)])[0] for group in groups], len(groups), share, run.device)
    inside = inside_of(place, now)
    count = count_of(inside, arg, now) if barrier.op in ("count", "mean") else 0
    return together(barrier.op, [partials[i] for i in inside if i in partials], count, share, run.device)


def inside_of(place: Place, now: TorchStep) -> list[int]:
    """The parameters that a reduction goes over."""
    cells = set(place.reached("tensor"))
    return [i for i, work in enumerate([*now.works, *now.beside]) if work.place in cells]


def count_of(inside: Sequence[int], arg: Node, now: TorchStep) -> int:
    """How many values they bring."""
    works = [*now.works, *now.beside]
    shapes = [tuple(cell.weights.shape) if cell.spread is None else cell.spread.shape for cell in (works[i].cell for i in inside)]
    return sum(prod(shape_of(arg.type.extent, shape)) for shape in shapes)
