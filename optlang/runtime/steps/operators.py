"""What `traced` puts into the graphs of torch's compiler: operators of torch that take a step. Registered when a first step is traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from optlang.runtime.steps.traced import optimizer_of

_HOST = [tag for tag in [getattr(torch.Tag, "cudagraph_unsafe", None)] if tag is not None]  # counts on the host would stand still


def _take(weights: Sequence[Tensor], gradients: Sequence[Tensor], places: Sequence[int], number: int) -> None:
    optimizer = optimizer_of(number)
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
