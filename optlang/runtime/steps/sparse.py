"""Sparse gradients: where a rule leaves an element without gradient as it is, only the elements that have one are stepped."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optlang.runtime.facts import facts_of, mixes_elements

if TYPE_CHECKING:
    from optlang.runtime.cases import Case


def is_sparse(parameter: Tensor) -> bool:
    return parameter.grad is not None and parameter.grad.layout == torch.sparse_coo


def refuses(case: Case, parameter: Tensor, group: Mapping[str, Any]) -> str:
    """Why only the elements of a parameter that have a gradient cannot be stepped; empty where they can."""
    hypers = case.settings.read(dict(group), "")
    program = case.shaped(hypers)
    if parameter.is_complex() or parameter.layout != torch.strided:
        return "complex and sparse parameters take dense ones"
    if group.get("differentiable") or group.get("capturable") or not case.keeps_float32:
        return "differentiable and capturable steps and states of fewer bits take dense ones"
    if why := mixes_elements(program, facts_of(parameter), hypers):
        return f"{program.name} {why}"
    if program.uses("random") or program.inputs:
        return f"{program.name} has {'a draw' if program.uses('random') else 'an input'} for every element"
    what = case.moved(hypers)
    return f"{program.name} changes {what} also where the gradient is 0" if what else ""


class Touched:
    """The elements of a parameter that have a gradient, with their states, as a parameter of their own for one step."""

    def __init__(self, parameter: Tensor, kept: MutableMapping[str, Any]) -> None:
        assert parameter.grad is not None
        self.parameter, self.kept = parameter, kept
        self._sparse = parameter.grad.coalesce()
        self._at = tuple(self._sparse.indices())
        self.weights = parameter.detach()[self._at]
        self.states = {name: value[self._at] if self._has_each(value) else value for name, value in kept.items()}

    def gradient(self) -> Tensor:
        return self._sparse.values()

    def put_back(self) -> None:
        """Writes what was stepped to where it was taken from."""
        self.parameter.index_put_(self._at, self.weights)
        for name, value in self.states.items():
            if self._has_each(self.kept[name]):
                self.kept[name].index_put_(self._at, value)
            else:
                self.kept[name] = value

    def _has_each(self, value: Any) -> bool:
        """Whether a state has a number for each element."""
        return isinstance(value, Tensor) and value.ndim > 0 and value.shape == self.parameter.shape
