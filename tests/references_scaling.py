"""Rows of the table of `references` for rules that scale with the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from by_hand import by_hand
from by_hand_learned import per_parameter_mlp
from closed_loop import AT_REST, SHAPES, Maker
from mup.infshape import InfDim, InfShape  # type: ignore[import-untyped]
from mup.optim import MuAdam, MuSGD  # type: ignore[import-untyped]
from references import ADAM, BETAS, SGD, TORCH, Both, Row, Setting, of
from references_learned import CELLS, SMALL, TABLES
from torch import Tensor

LARGE = ("matrix", "vector", "zero", "embed", "head")
BASES: dict[str, tuple[int | None, ...]] = {  # sizes in the tuned model; None does not grow
    "matrix": (2, 8), "zero": (2, 8), "vector": (2,), "embed": (2, None), "head": (None, 8),
}  # fmt: skip


def by_mup(make: Callable[..., Any], **settings: Any) -> Maker:
    """An optimizer of the package mup, told the shapes of the tuned model."""

    def made(params: dict[str, Tensor], problem: Any) -> Any:
        for name, p in params.items():
            both: Any = [InfDim(base, size) for base, size in zip(BASES[name], p.shape, strict=True)]
            p.infshape = InfShape(both)  # type: ignore[attr-defined]
        return make(list(params.values()), **settings)

    return made


Group = Mapping[str, float]


def in_groups(settings: Callable[[str], Group]) -> Maker:
    """torch's AdamW, the settings of each parameter by its name."""
    return lambda params, _: torch.optim.AdamW([{"params": [p], **settings(name)} for name, p in params.items()], betas=BETAS)


def unit(name: str) -> Group:
    """u-muP's lr of a parameter, with a decay that does not depend on it."""
    shape = SHAPES[name]
    share = {"embed": shape[-1] ** -0.5, "head": 1.0}.get(name, 5**-0.5 * (shape[1] ** -0.5 if len(shape) > 1 else 1.0))
    return {"lr": 0.03 * share, "eps": 1e-2, "weight_decay": 0.003 / (0.03 * share)}


def complete(name: str) -> Group:
    """CompleteP's, for a model twice as deep and three times as wide as the tuned one."""
    if name in ("embed", "head"):
        return {"lr": 0.03, "eps": 1e-2, "weight_decay": 0.1}
    branch, shape = 2.0 ** (0.7 - 1), SHAPES[name]
    if len(shape) < 2:
        return {"lr": 0.03 * branch, "eps": 1e-2 / 3 / 2**0.7, "weight_decay": 0.2}
    wider = shape[1] / 2
    return {"lr": 0.03 / wider * branch, "eps": 1e-2 / wider / 2**0.7, "weight_decay": 0.1 * wider}


UNIT: dict[str, Setting] = {**ADAM, "weight_decay": 0.003}
COMPLETE: dict[str, Setting] = {**ADAM, "depth": 2.0, "alpha": 0.7}

def scaled_network(params: dict[str, Tensor], problem: Any) -> Both:
    """The steps of hidden matrices over a third of their inputs."""
    sizes = {name: 0.05 * 3 / math.prod(p.shape[1:]) if p.ndim >= 2 and name != "head" else 0.05 for name, p in params.items()}
    made = {name: by_hand(per_parameter_mlp, **{**SMALL, "lr": size}, **TABLES) for name, size in sizes.items()}
    return Both(*(make({name: params[name]}, problem) for name, make in made.items()))


def prefixed(prefix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in settings.items()}


NETWORK = {**SMALL, **CELLS}
INNER = {name: value for name, value in NETWORK.items() if name != "lr"}

RULES: tuple[Row, ...] = (
    Row("mulo", {"HiddenMLP.lr": 0.05, "HiddenMLP.hidden": 3.0, **prefixed("HiddenMLP.PerParameterMLP", INNER),
                 **prefixed("PerParameterMLP", NETWORK)}, scaled_network, shapes=("matrix", "vector", "head", *AT_REST)),
    Row("muadamw", {**of("HiddenAdamW", {**ADAM, "base_in": 8}), **of("AdamW", ADAM)}, by_mup(MuAdam, impl=torch.optim.AdamW, **TORCH),
        shapes=LARGE),
    Row("musgd", {**of("HiddenSGD", {**SGD, "base_in": 8, "base_out": 2}), **of("OutputSGD", {**SGD, "base_in": 8}),
                  **of("InputSGD", {**SGD, "base_out": 2})}, by_mup(MuSGD, **SGD), shapes=LARGE),
    Row("unitadamw", {**of("UnitHiddenAdamW", {**UNIT, "depth": 5}), **of("UnitVectorAdamW", {**UNIT, "depth": 5}),
                      **of("UnitEmbeddingAdamW", UNIT), **of("UnitOutputAdamW", UNIT)}, in_groups(unit), shapes=LARGE),
    Row("completepadamw", {**of("BlockAdamW", {**COMPLETE, "base_in": 2}),
                           **of("VectorAdamW", {**COMPLETE, "weight_decay": 0.2, "width": 3.0}), **of("AdamW", ADAM)},
        in_groups(complete), shapes=LARGE),
)  # fmt: skip
