"""What the states of a parameter have to be: which there are, of which shapes and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.runtime import precision
from optlang.runtime.facts import facts_of
from optlang.runtime.groups.parameters import real
from optlang.runtime.shapes import expected_states

COUNT = "step"  # updates of a parameter, as in torch
MOST = 1 << 53  # updates that can be counted
TRAINING = "weights_in_training"  # while the model holds the weights to evaluate with


def parameter_problems(
    program: ir.Program, parameter: Tensor, state: Any, hypers: Mapping[str, Any], beside: set[str] | None
) -> list[str]:
    """`beside`: what may lie there that the program does not keep; None: anything, for this rule saved it, and the rest is of tools."""
    if not isinstance(state, Mapping):
        return [f"its state is {type(state).__name__}, not a dictionary"]
    expected = {COUNT: (), **_expected(program, parameter, hypers)}
    state, problems = precision.opened(state, real(parameter).shape)
    if problems:
        return problems
    if missing := sorted(set(expected) - set(state)):
        problems.append(f"lacks {', '.join(missing)}")
    if program.evaluation is not None:
        expected[TRAINING] = tuple(real(parameter).shape)
    own = {TRAINING, *(kept.name for kept in program.states)}
    if extra := sorted(str(key) for key in set(state) - set(expected) if key in own or (beside is not None and key not in beside)):
        problems.append(f"has {', '.join(extra)}, which {program.name} does not keep")
    for name, shape in expected.items():
        if name in state:
            problems += _kind_problems(name, state[name], parameter) or _value_problems(name, state[name], shape)
    return problems


def _kind_problems(name: str, value: Any, parameter: Tensor) -> list[str]:
    """Tensors that are no rows of real numbers."""
    if not isinstance(value, Tensor):
        return []
    if value.is_complex() or value.is_quantized or value.layout != torch.strided:
        return [f"{name} has numbers of {value.dtype} in the layout {value.layout}, not real ones one behind the other"]
    if value.is_meta and (name == COUNT or not parameter.is_meta):
        return [f"{name} is on the meta device, where there are no numbers"]
    return []


def shape_problems(program: ir.Program, parameter: Tensor, state: Mapping[str, Any], hypers: Mapping[str, Any]) -> list[str]:
    """In what the states of a parameter differ from those that a program keeps; no states are no problem."""
    expected = _expected(program, parameter, hypers)
    state, _ = precision.opened(state, real(parameter).shape)
    return [problem for name, shape in expected.items() if name in state for problem in _value_problems(name, state[name], shape)]


def _expected(program: ir.Program, parameter: Tensor, hypers: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    numbers = real(parameter)
    return expected_states(program, tuple(numbers.shape), facts_of(numbers), hypers)


def _value_problems(name: str, value: Any, shape: tuple[int, ...]) -> list[str]:
    if not isinstance(value, Tensor | int | float):
        return [f"{name} is {type(value).__name__}, not a tensor"]
    found = tuple(value.shape) if isinstance(value, Tensor) else ()
    if found != shape:
        return [f"{name} has shape {found}, not {shape}"]
    if name == COUNT and not (0 <= value < MOST and float(value).is_integer()):
        shown = float(value) if isinstance(value, Tensor) else value
        return [f"{name} is {shown}, not a number of updates"]
    return []
