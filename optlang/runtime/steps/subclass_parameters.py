"""Parameters of classes that keep other tensors in their place: see `tensor_subclasses`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from torch import Tensor

from optlang.runtime.distributed.sharded import Part
from optlang.runtime.tensor_subclasses import numbers


class Opened(Part):
    """The numbers of such a parameter, stepped in its place: kernels could not reach into it, and views of it may be copies. All that
    its class must know is how to be copied from and into."""

    def __init__(self, parameter: Tensor) -> None:
        self.parameter, self.whole, self.spread_over = parameter, True, None
        self.weights = numbers(parameter)

    def gradient(self, given: Any = None) -> Tensor:
        found: Tensor = numbers(self.parameter.grad if given is None else given)
        return found

    def point(self, value: Tensor) -> Any:
        return value

    def of(self, value: Any) -> Any:
        return value

    def states(self, kept: dict[str, Any]) -> MutableMapping[str, Any]:
        return kept

    def put_back(self) -> None:
        self.parameter.copy_(self.weights)
