"""Gradients that are set aside while the model is asked for others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import Parameter

from optlang.backends.repeated.library import is_loaded
from optlang.backends.repeated.watch import Room

PLAIN = {Tensor, Parameter}


class Gradients:
    """Those of some parameters, which are set aside whenever the model is asked: what is known of the parameters is found out once."""

    def __init__(self, parameters: list[Tensor]) -> None:
        self._parameters, self._at_once = parameters, False

    def room(self) -> SavedGradients:
        """Room for them."""
        self._at_once = self._at_once or (is_loaded() and self._are_plain)
        return SavedGradients(self._parameters, self._at_once)

    @cached_property
    def _are_plain(self) -> bool:
        return PLAIN.issuperset(map(type, self._parameters))


class SavedGradients:
    """What is kept for some parameters, at first nothing, and keeps it as long as it lives."""

    def __init__(self, parameters: list[Tensor], at_once: bool) -> None:
        self._parameters = parameters
        self._room = Room(len(parameters)) if at_once else None
        self._kept: list[Tensor | None] = [] if self._room else [None] * len(parameters)

    def exchange(self) -> None:
        """It and the gradients that parameters have change places: to ask each of them takes longer than small models."""
        if self._room is not None:
            self._room.exchange(self._parameters)
            return
        kept, self._kept = self._kept, [p.grad for p in self._parameters]
        for p, gradient in zip(self._parameters, kept, strict=True):
            p.grad = gradient

    def drop(self) -> None:
        """Parameters have none from now on: what a closure has left is not there for the next."""
        if self._room is not None:
            self._room.drop(self._parameters)
            return
        for p in self._parameters:
            p.grad = None


def gradients_of(weights: Sequence[Tensor]) -> list[Tensor]:
    """Those that they have, and zeros where they have none."""
    found = [p.grad for p in weights]
    return [torch.zeros_like(p) if g is None else g.detach() if g.requires_grad else g for p, g in zip(weights, found, strict=True)]
