"""States in fewer bits: which of a rule's states are stored how, and checkpoints that go from one format to another.

A state stored in blocks has a second tensor beside it, named after state and format, as `m.int8`. So a state dict says by
itself how it is to be read, and loads into an optimizer that stores its states otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from optlang.analysis.nonnegative import nonnegative
from optlang.backends.formats import (
    FORMATS,
    PRODUCT_FORMATS,
    REST,
    STATE_FORMATS,
    WEIGHT_FORMATS,
    Format,
    Storage,
    applies,
    decoded,
    encoded,
)
from optlang.errors import did_you_mean
from optlang.ir import Program
from optlang.types import ELEMENT

Asked = str | Mapping[str, str] | None


def check(rule: str, programs: list[Program], asked: Asked, weights: str, products: str, backend: str) -> None:
    """Raises ValueError for formats and states that there are not, and for a backend that stores float64 alone."""
    if weights not in WEIGHT_FORMATS:
        raise ValueError(f"there are no weights {weights!r}: choose one of {', '.join(WEIGHT_FORMATS)}")
    if products not in PRODUCT_FORMATS:
        raise ValueError(f"there are no products {products!r}: choose one of {', '.join(PRODUCT_FORMATS)}")
    names = sorted({name for program in programs for name in _eligible(program)}) if asked else []
    wanted = {"": asked} if isinstance(asked, str) else dict(asked or {})
    for name, form in wanted.items():
        if form not in STATE_FORMATS:
            near = did_you_mean(str(form), STATE_FORMATS)
            advice = f"did you mean {near!r}?" if near else f"choose one of {', '.join(STATE_FORMATS)}"
            raise ValueError(f"there is no state format {form!r}: {advice}")
        if name and name not in names:
            there = f"states with a number for each element: {', '.join(names) or 'none'}"
            raise ValueError(f"{rule} has no state {name!r} to be stored as {form}: {there}")
    if backend == "reference" and (wanted or weights != "nearest" or products != "fp32"):
        raise ValueError("the backend 'reference' keeps float64 alone: choose another one for states and products in fewer bits")


def check_weights(weights: str, named: Iterable[tuple[str, Any]]) -> None:
    """Raises ValueError for a parameter that would be rounded to nearest whatever `weights` says."""
    for name, parameter in named if weights != "nearest" else ():
        if isinstance(parameter, Tensor) and parameter.dtype in (torch.float16, torch.complex32):
            raise ValueError(f"weights={weights!r} are for parameters of bfloat16, and {name} is {parameter.dtype}: give bfloat16 ones, "
                             "or leave weights='nearest' and keep masters of float32 in the training loop")  # fmt: skip


def storage(program: Program, asked: Asked, weights: str, products: str = "fp32") -> Storage:
    """How the states of one program are stored: unsigned where they are never below 0."""
    eligible = _eligible(program) if asked else {}
    wanted = dict.fromkeys(eligible, asked) if isinstance(asked, str) else dict(asked or {})
    forms = {name: FORMATS[form] for name, form in wanted.items() if name in eligible and form != "fp32"}
    best = {name: FORMATS[form.unsigned] if form.unsigned and eligible[name] else form for name, form in forms.items()}
    return Storage(best, FORMATS.get(weights), products)


def _eligible(program: Program) -> dict[str, bool]:
    """The states with a real number for each element, and whether these are never below 0."""
    positive = nonnegative(program)
    plain = [s for s in program.states if s.type.extent == ELEMENT and s.type.kind == "real" and not s.type.window]
    return {s.name: s.node in positive for s in plain}


# -------------------------------------------------------------------------------------------------------- checkpoints


def opened(state: Mapping[str, Any], shape: torch.Size) -> tuple[dict[str, Any], list[str]]:
    """A parameter's saved states with those in blocks as float32, and what is wrong with them."""
    found: dict[str, Any] = {key: value for key, value in state.items() if key != REST}
    problems = []
    for name, form in _stored(state).items():
        beside = found.pop(f"{name}.{form.beside}")
        problem = _trouble(name, form, found[name], beside, shape.numel())
        if problem:
            problems.append(problem)
            del found[name]
        else:
            found[name] = decoded((found[name], beside), form, shape)
    return found, problems


def _stored(state: Mapping[str, Any]) -> dict[str, Format]:
    """The states of a mapping that are stored in blocks."""
    parts = [str(key).rpartition(".") for key in state]
    return {name: FORMATS[form] for name, _, form in parts if name in state and form in FORMATS and FORMATS[form].block}


def _trouble(name: str, form: Format, codes: Any, scale: Any, count: int) -> str:
    if not isinstance(codes, Tensor) or not isinstance(scale, Tensor):
        return f"{name} and {name}.{form.name} must both be tensors"
    wanted = (count * form.bits + 7) // 8, -(-count // form.block)
    got = codes.numel() * codes.element_size(), scale.numel()
    return "" if wanted == got else f"{name} in {form.name} has {got[0]} bytes and {got[1]} scales, not {wanted[0]} and {wanted[1]}"


def closed(state: Mapping[str, Any], plain: Mapping[str, Tensor], own: Storage, weights: Tensor) -> dict[str, Tensor]:
    """States as they are stored here. `state` is what was saved, `plain` the same opened; where formats agree, nothing is rounded."""
    made = dict(plain)
    for name, form in own.states.items():
        if name not in plain or not applies(form, weights):
            continue
        beside = f"{name}.{form.beside}"
        if form.block and beside in state:
            made |= {key: state[key].detach().to(weights.device, copy=True) for key in (name, beside)}
        else:
            made |= zip((name, beside), encoded(plain[name].float(), form), strict=False)
    if own.is_compensated(weights):
        rest = state.get(REST)
        made[REST] = torch.zeros_like(weights)
        if isinstance(rest, Tensor) and rest.shape == weights.shape:
            made[REST].copy_(rest)
    return made
