"""What users hand over: parameters with their names and gradients, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from optlang import ir, library
from optlang.runtime.facts import facts_of, lacks_rank, mixes_elements, too_wide
from optlang.runtime.steps.scaling import unscaled
from optlang.runtime.tensor_subclasses import numbers


def listed(params: Any, names: Any) -> tuple[list[Any], list[str] | None]:
    """Tensors and their names, from a tensor, an iterable of tensors or of pairs."""
    if isinstance(params, Tensor):
        params = [params]
    if isinstance(params, set):
        raise TypeError("parameters in a set have no order: give a list")
    found, called = list(params), None if names is None else list(names)
    if any(isinstance(pair, tuple) for pair in found):
        if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in found):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        found, called = [p for _, p in found], [str(name) for name, _ in found]
    for place, parameter in enumerate(found):
        if isinstance(parameter, torch.nn.UninitializedParameter):
            raise ValueError(f"{called[place] if called else f'parameter {place}'} has no shape yet, as lazy modules make them: "
                             "run a batch through the model before you make the optimizer")  # fmt: skip
        if isinstance(parameter, Tensor) and parameter.is_nested:
            raise ValueError(f"{called[place] if called else f'parameter {place}'} is a nested tensor, which has no single shape: "
                             "give the tensors that it was made of")  # fmt: skip
    return found, called


def check_parameters(program: ir.Program, named: Iterable[tuple[str, Any]], hypers: Mapping[str, Any]) -> None:
    """Raises ValueError for the first that the program cannot take. Those of one shape are looked at once."""
    known: set[tuple[torch.Size, bool]] = set()
    for name, parameter in named:
        if not isinstance(parameter, Tensor):
            continue  # torch says so in its own words
        kind = parameter.shape, parameter.is_complex()
        if kind not in known:
            _check(program, parameter, name, hypers)
            known.add(kind)


def _check(program: ir.Program, parameter: Tensor, name: str, hypers: Mapping[str, Any]) -> None:
    facts, shape = facts_of(parameter), tuple(parameter.shape)
    if parameter.is_complex() and (why := mixes_elements(program, facts_of(real(parameter)), hypers)):
        raise ValueError(f"{name} is complex, but {program.name} {why}: only rules that go element by element take real and "
                         "imaginary parts as numbers of their own; send it to one with a `route`")  # fmt: skip
    if lacks_rank(program, facts, hypers):
        raise ValueError(
            f"{program.name} treats parameters as matrices, but {name} has shape {shape}: "
            f"send it to another rule with a `route`, {_as_in(program.name)}"
        )
    if sides := too_wide(program, shape, facts, hypers):
        raise ValueError(
            f"{program.name} makes the columns of a {sides[0]}×{sides[1]} matrix orthonormal for {name}, of shape {shape}: of more "
            "columns than rows they cannot be; take fewer, or send it to another rule with a `route`"
        )


def _as_in(rule: str) -> str:
    """A route that steps whole models by a rule for matrices and AdamW: the library's, or its text."""
    route = f"{rule}WithAdamW"
    if rule.lower() not in library.index() or route.lower() in library.index():
        return f"as {route if route.lower() in library.index() else 'MuonWithAdamW'} does"
    return (f"as in optlang.loads(\"from std import is_hidden from {rule.lower()} import {rule} from adamw import AdamW "
            f"route {route} {{ when is_hidden() use {rule}() otherwise use AdamW() }}\")")  # fmt: skip


def is_hollow(parameters: Sequence[Tensor]) -> bool:
    """Whether no parameter has numbers: all are on the meta device, or of a FakeTensorMode, in which tools see what memory is asked for."""
    return bool(parameters) and all(p.is_meta or isinstance(p, FakeTensor) for p in parameters)


def real(parameter: Tensor, differentiable: bool = False) -> Tensor:
    """The numbers of a parameter: those of a complex one are its parts, (…, 2), in the same memory."""
    if not parameter.is_complex():
        return parameter
    with torch.set_grad_enabled(differentiable):
        return torch.view_as_real(parameter if differentiable else parameter.detach())


def gradient_of(parameter: Tensor, group: Mapping[str, Any], name: str, scale: Any = None, part: Tensor | None = None) -> Tensor:
    """The gradient to descend along, `scale` times smaller than the one given, which may be that of a part of the parameter.

    Raises RuntimeError where no rule could take it.
    """
    gradient = numbers(parameter.grad) if part is None else part
    assert gradient is not None
    if parameter.is_meta:
        words = "`fused=True` requires all the params to be floating point Tensors of supported devices: " if group.get("fused") else ""
        raise RuntimeError(f"{words}{name} is on the meta device, where there are no numbers to step")
    if gradient.layout != torch.strided:
        raise RuntimeError(
            f"{name} has a gradient of layout {gradient.layout}, which rules do not take: use a dense one, or `torch.sparse_coo`"
        )
    if scale is None and not gradient.is_complex() and not gradient.is_neg() and not group.get("maximize", False):
        return gradient
    with torch.set_grad_enabled(group.get("differentiable", False)):
        return _turned(gradient if scale is None else unscaled(gradient, scale), group)


def _turned(gradient: Tensor, group: Mapping[str, Any]) -> Tensor:
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    gradient = gradient.resolve_neg()
    return -gradient if group.get("maximize", False) else gradient
