"""The values that expressions start from: parameters, gradients, hypers, states, inputs, facts, draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optlang import meaning, philox
from optlang.backends import arrays
from optlang.backends.base import Step, StepError
from optlang.backends.places import Place, Value, full_shape, read, shape_of
from optlang.host import Missing
from optlang.ir import Node

Leaf = Callable[[Node, Place, Step, str], Value]  # the last: the rule's name, for messages


def leaf(node: Node, place: Place, step: Step, rule: str) -> Value:
    """The value of a node without operands at a place. Raises StepError."""
    return _LEAVES[node.op](node, place, step, rule)


def _gradient(node: Node, place: Place, step: Step, rule: str) -> Value:
    assert place.cell is not None
    if place.cell.gradient is None:
        raise StepError(f"{place.name} has no gradient; call `backward()` first, or leave the parameter out of the step")
    return read(place.cell.gradient, place)


def _hyper(node: Node, place: Place, step: Step, rule: str) -> Value:
    """That of the first cell concerned; all that are concerned must agree."""
    value = _setting(node.value, place.cells[0], rule)
    for other in place.cells[1:]:
        if (found := _setting(node.value, other, rule)) != value and not (found != found and value != value):
            raise StepError(
                f"rule `{rule}` uses the hyper `{node.value}` in a value of {place.name}, but it is {value:g} for "
                f"{place.cells[0].name} and {found:g} for {other.name}; give it the same value in these parameter groups"
            )
    return np.bool_(value) if node.type.kind == "bool" else meaning.number(value)


def _setting(name: str, place: Place, rule: str) -> float:
    assert place.cell is not None
    if name not in place.cell.hypers:
        raise StepError(f"{place.name}: the hyper `{name}` of rule `{rule}` has no value; set it in the parameter group")
    return float(meaning.number(place.cell.hypers[name]))  # a whole number may be beyond float64


def _fact(node: Node, place: Place, step: Step, rule: str) -> Value:
    assert place.cell is not None
    fact = place.cell.facts.get(node.value)
    return Missing(node.value) if fact is None else np.float64(fact)


def _state(node: Node, place: Place, step: Step, rule: str) -> Value:
    if node.value not in place.states:
        raise StepError(f"{place.name}: the state `{node.value}` of rule `{rule}` is not there; call `prepare` before the step")
    return _given(place.states[node.value], f"the state `{node.value}`", node, place)


def _input(node: Node, place: Place, step: Step, rule: str) -> Value:
    given = place.inputs.get(node.value)
    if isinstance(given, Mapping) and place.group is not None:
        given = given.get(place.group)
    if given is None:
        raise StepError(f"{place.name}: rule `{rule}` needs the input `{node.value}`; supply it before each step")
    return _given(given, f"the input `{node.value}`", node, place)


def _given(raw: Any, what: str, node: Node, place: Place) -> Value:
    """A value from outside, which must have its declared shape; one number may be given for any input."""
    try:
        value = arrays.read(raw)
    except (ValueError, TypeError) as problem:
        raise StepError(f"{place.name}: {what}: {problem}") from problem
    shape = full_shape(node.type, place.shape)
    if value.shape == shape:
        return value
    if node.op == "input" and value.ndim == 0:
        return np.broadcast_to(value, shape)
    raise StepError(f"{place.name}: {what} has shape {value.shape} where {shape} is needed ({node.type})")


def _loss(node: Node, place: Place, step: Step, rule: str) -> Value:
    if step.loss is None:
        raise StepError(f"rule `{rule}` reads the loss; call `optimizer.step(closure)` with a closure that returns it")
    return arrays.read(step.loss).reshape(())


def _eye(node: Node, place: Place, step: Step, rule: str) -> Value:
    shape = shape_of(node.type.extent, place.shape)
    return np.broadcast_to(np.eye(shape[-2], shape[-1]), shape)


def _places(node: Node, place: Place, step: Step, rule: str) -> Value:
    shape = shape_of(node.type.extent, place.shape)
    return np.broadcast_to(np.arange(shape[-2], dtype=np.float64)[:, None], shape)


def _weights(node: Node, place: Place, step: Step, rule: str) -> Value:
    assert place.cell is not None  # weights are one of a parameter
    return read(place.cell.weights, place)


def _random(node: Node, place: Place, step: Step, rule: str) -> Value:
    distribution, site = node.value
    shape = shape_of(node.type.extent, place.shape)
    return philox.draw(distribution, shape, place.t, site, step.seed, place.stream)


_LEAVES: dict[str, Leaf] = {
    "const": lambda node, place, step, rule: meaning.number(node.value),
    "w": _weights,
    "t": lambda node, place, step, rule: np.float64(place.t),
    "g": _gradient, "hyper": _hyper, "fact": _fact, "state": _state, "input": _input, "loss": _loss, "eye": _eye,
    "places": _places,
    "random": _random,
}  # fmt: skip
