"""Rows of the table of `references` for rules that ask for losses alone, and for learned ones."""

from __future__ import annotations

from typing import Any

import by_hand_learned as hand
import numpy as np
import torch
from by_hand import Array, by_hand
from by_hand_reductions import Batch, all_by_hand
from closed_loop import AT_REST, EVERYTHING, STILL, Params, Problem
from references import Row, Setting

import optlang
from optlang import philox
from optlang.ir import Program, cell, walk


def draws(rule: str, **shaping: int) -> Any:
    """All draws of one kind that a rule makes in a step, each as long as all parameters together, in any order."""
    program = optlang.Rule(rule).lowered(shaping)
    assert isinstance(program, Program)
    kinds = sorted({node.value for node in walk(program.roots()) if node.op == "random"})

    def drawn(batch: Batch, t: int) -> list[Array]:
        return [batch.whole([philox.draw(kind, tuple(p.shape), t, site, 0, i) for i, p in enumerate(batch.params)]) for kind, site in kinds]

    return drawn


MEZO: dict[str, Any] = {"lr": 0.01, "eps": 0.2, "weight_decay": 0.1}
COORDINATES: dict[str, Setting] = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.1, "mu": 0.2, "k": 3}
RANKS: dict[str, Any] = {"lr": 0.05, "mu": 1.0, "k": 1}  # where a little more changes the order of some points
CODED: dict[str, Any] = {**RANKS, "mu": 1.2}
TRIAL: dict[str, Any] = {"lr": 0.5, "eta": 0.7, "c": 0.1538}  # where a little more refuses one trial more

def network(problem: Problem, step: int) -> dict[str, Params]:
    """Step sizes and momenta from 0 to 2, as a network might say."""
    source = torch.Generator().manual_seed(step)
    return {name: [2 * torch.rand(p.shape, generator=source) for p in problem.start().values()] for name in ("p", "a")}


PENALIZED: dict[str, Any] = {"lr": 0.05, "penalty": 0.5}

SMALL: dict[str, Any] = {
    "lr": 0.05, "stretch": 0.5, "beta1": 0.8, "beta2": 0.95, "beta3": 0.9, "beta4": 0.85, "beta5": 0.7, "beta6": 0.8, "beta7": 0.97,
}  # fmt: skip
TABLES = {name: 0.4 * np.random.default_rng([4, len(name)]).normal(size=shape)  # with which every unit is on for some, off for others
          for name, shape in {"first": (40, 4), "second": (5, 4), "third": (5, 2)}.items()}  # fmt: skip
CELLS = {cell(name, i + 1, j + 1): float(x) for name, table in TABLES.items() for (i, j), x in np.ndenumerate(table)}

RULES: tuple[Row, ...] = (
    Row("mezo", MEZO, all_by_hand(hand.two_points, draw=draws("mezo"), **MEZO), closure=True),
    Row("zocoordinates", COORDINATES, all_by_hand(hand.coordinates, draw=draws("zocoordinates", k=3), **COORDINATES), closure=True),
    Row("zoranksgd", RANKS, all_by_hand(hand.ranks, draw=draws("zoranksgd"), coded=False, **RANKS), "paper", closure=True),
    Row("zoranksgd", {**CODED, "coded": True}, all_by_hand(hand.ranks, draw=draws("zoranksgd"), coded=True, **CODED), "coded",
        closure=True),
    Row("l2opa", PENALIZED, all_by_hand(hand.proximal, network=network, **PENALIZED), inputs=network),
    Row("perparametermlp", {**SMALL, **CELLS}, by_hand(hand.per_parameter_mlp, **SMALL, **TABLES),
        shapes=("matrix", "vector", "one", "wide", *AT_REST)),
    Row("smb", TRIAL, all_by_hand(hand.model_building, **TRIAL), closure=True, shapes=(*EVERYTHING, *STILL)),
)  # fmt: skip
