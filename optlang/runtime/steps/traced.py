"""Steps inside of functions that users compile: one operator, into which torch's compiler does not look.

So a training step that is compiled whole has no break at `optimizer.step()`, and nothing in it depends on hypers: these are
read from the groups when the operator runs, as in any other step, and may change at any time.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from optlang.runtime.distributed.sharded import is_sharded
from optlang.runtime.tensor_subclasses import is_wrapped

if TYPE_CHECKING:
    from optlang.runtime.optimizer import RuleOptimizer

NUMBERS = count()
_optimizers: WeakValueDictionary[int, RuleOptimizer] = WeakValueDictionary()


def numbered(optimizer: RuleOptimizer) -> int:
    """A number by which the operator finds an optimizer as long as it lives."""
    number: int | None = optimizer.__dict__.get("number")  # a copy has that of another one
    if number is None or _optimizers.get(number) is not optimizer:
        number = next(NUMBERS)
        _optimizers[number] = optimizer
    return number


def optimizer_of(number: int) -> RuleOptimizer:
    return _optimizers[number]


def takes(parameter: Any, differentiable: bool) -> bool:
    """Whether the operator can step such a parameter."""
    if not isinstance(parameter, Tensor) or differentiable:
        return False
    return not (is_sharded(parameter) or is_wrapped(parameter) or parameter.is_complex())


def step(parameters: list[Tensor], number: int, capturable: bool) -> None:
    """One update of an optimizer with these parameters, as Dynamo traces it.

    Nothing is switched off for it in the graph: after an error in there it would stay off.
    """
    from optlang.runtime.steps import operators  # noqa: F401, PLC0415 - registering them takes longer than a first step

    weights = [p.detach() for p in parameters if p.grad is not None]
    gradients = [p.grad.detach() for p in parameters if p.grad is not None]
    places = [place for place, p in enumerate(parameters) if p.grad is not None]
    if capturable:
        torch.ops.optlang.capturable_step(weights, gradients, places, number)
    else:
        torch.ops.optlang.step(weights, gradients, places, number)
