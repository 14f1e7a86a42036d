"""Steps inside of functions that users compile: one operator, into which torch's compiler does not look.

So a training step that is compiled whole has no break at `optimizer.step()`, and nothing in it depends on hypers: these are
read from the groups when the operator runs, as in any other step, and may change at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from optlang.runtime.sharded import is_sharded

if TYPE_CHECKING:
    from optlang.runtime.optimizer import RuleOptimizer

NUMBERS = count()
_optimizers: WeakValueDictionary[int, RuleOptimizer] = WeakValueDictionary()
_HOST = [tag for tag in [getattr(torch.Tag, "cudagraph_unsafe", None)] if tag is not None]  # counts on the host would stand still


def numbered(optimizer: RuleOptimizer) -> int:
    """A number by which the operator finds an optimizer as long as it lives."""
    number = next(NUMBERS)
    _optimizers[number] = optimizer
    return number


def takes(parameter: Any, differentiable: bool) -> bool:
    """Whether the operator can step such a parameter."""
    return isinstance(parameter, Tensor) and not (is_sharded(parameter) or parameter.is_complex() or differentiable)


def step(parameters: list[Tensor], number: int, capturable: bool) -> None:
    """One update of an optimizer with these parameters, as Dynamo traces it.

    Nothing is switched off for it in the graph: after an error in there it would stay off.
    """
    weights = [p.detach() for p in parameters if p.grad is not None]
    gradients = [p.grad.detach() for p in parameters if p.grad is not None]
    places = [place for place, p in enumerate(parameters) if p.grad is not None]
    if capturable:
        torch.ops.optlang.capturable_step(weights, gradients, places, number)
    else:
        torch.ops.optlang.step(weights, gradients, places, number)


def _take(weights: Sequence[Tensor], gradients: Sequence[Tensor], places: Sequence[int], number: int) -> None:
    optimizer = _optimizers[number]
    parameters = [optimizer.stepped[place] for place in places]
    moved = [(p, w) for p, w in zip(parameters, weights, strict=True) if p.data_ptr() != w.data_ptr()]
    with torch.no_grad(), _gradients(optimizer.stepped, dict(zip(places, gradients, strict=True))):
        for p, w in moved:
            p.copy_(w)
        optimizer.take()
        for p, w in moved:
            w.copy_(p)


@contextmanager
def _gradients(parameters: Sequence[Tensor], given: dict[int, Tensor]) -> Iterator[None]:
    """Parameters with the gradients that the operator was given: those of the graph may not be theirs yet."""
    kept = [p.grad for p in parameters]
    try:
        for place, p in enumerate(parameters):
            p.grad = given.get(place)
        yield
    finally:
        for p, gradient in zip(parameters, kept, strict=True):
            p.grad = gradient


@torch.library.custom_op("optlang::step", mutates_args=("weights",), tags=_HOST)
def _of_the_host(weights: list[Tensor], gradients: list[Tensor], places: list[int], number: int) -> None:
    _take(weights, gradients, places, number)


@torch.library.custom_op("optlang::capturable_step", mutates_args=("weights",))
def _of_the_device(weights: list[Tensor], gradients: list[Tensor], places: list[int], number: int) -> None:
    _take(weights, gradients, places, number)


@_of_the_host.register_fake
@_of_the_device.register_fake
def _(weights: list[Tensor], gradients: list[Tensor], places: list[int], number: int) -> None:
    return None
