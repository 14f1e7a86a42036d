"""Learned optimizers of Google's learned_optimization, in JAX and double precision, with a network that is given."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from clones import classes
from closed_loop import Problem
from played import Held
from references import gradient
from references_learned import SMALL, TABLES
from torch import Tensor

GOOGLE = "google/learned_optimization"
FOLDER = "learned_optimization/learned_optimizers"
NETWORK = {f"{kind}{i}": part for i, name in enumerate(("first", "second", "third"))
           for kind, part in (("w", TABLES[name][:-1]), ("b", TABLES[name][-1]))}  # fmt: skip


def _frozen(cls: type) -> type:
    made = dataclasses.dataclass(frozen=True)(cls)
    names = [part.name for part in dataclasses.fields(made)]
    return jax.tree_util.register_dataclass(made, data_fields=names, meta_fields=[])


def _transformed(function: Callable[..., Any]) -> tuple[None, Callable[..., Any]]:
    """A function of haiku's, given the network beside its arguments."""
    return None, lambda network, *arguments: function(*arguments)


def _around() -> dict[str, Any]:
    """What the files would import: JAX with double precision for single, and what they need of flax, haiku and gin."""
    fields = {"MomAccumulator": ["m", "t"], "RMSAccumulator": ["rms", "t"], "_InitUpdate": ["init", "update"]}
    parameter = SimpleNamespace(
        get_parameter=lambda name, **form: jnp.asarray(NETWORK[name]), transform=lambda f: f, without_apply_rng=_transformed,
        initializers=SimpleNamespace(TruncatedNormal=lambda **form: None))  # fmt: skip
    return {
        "jax": jax, "lax": jax.lax, "onp": np, "functools": functools, "hk": parameter,
        "jnp": SimpleNamespace(**{**vars(jnp), "float32": jnp.float64}),
        "flax": SimpleNamespace(struct=SimpleNamespace(dataclass=_frozen)), "gin": SimpleNamespace(configurable=lambda cls: cls),
        "summary": SimpleNamespace(summary=lambda *told, **how: None), "tree_utils": SimpleNamespace(match_type=lambda new, old: new),
        "lopt_base": SimpleNamespace(LearnedOptimizer=object), "opt_base": SimpleNamespace(Optimizer=object),
        **{name: collections.namedtuple(name, parts) for name, parts in fields.items()},
    }  # fmt: skip


class Learned(Held):
    """`MuAdafacMLPLOpt` where a share of the step is given for each parameter, else `AdafacMLPLOpt`."""

    def __init__(self, place: tuple[str, str, str], params: dict[str, Tensor], problem: Problem, shares: Any = None) -> None:
        super().__init__(params, problem)
        jax.config.update("jax_enable_x64", True)
        around = _around()
        around["common"] = classes(GOOGLE, [f"{FOLDER}/common.py"], more=around)
        repository, file, name = place
        s, zeros = SMALL, {f"{kind}_decays": jnp.zeros(n) for kind, n in (("momentum", 3), ("rms", 1), ("adafactor", 3))}
        self.base = getattr(classes(repository, [file], more=around), name)(
            exp_mult=s["stretch"], step_mult=s["lr"], initial_momentum_decays=(s["beta1"], s["beta2"], s["beta3"]),
            initial_rms_decays=(s["beta4"],), initial_adafactor_decays=(s["beta5"], s["beta6"], s["beta7"]),
        ).opt_fn({**zeros, "nn": None})  # fmt: skip
        self.told = {"model_state": {"mup_lrs_to_use": shares}} if shares else {}
        self.state = self.base.init([jnp.asarray(p.detach().numpy()) for p in self.params], num_steps=1, **self.told)

    def move(self) -> None:
        self.state = self.base.update(self.state, [jnp.asarray(gradient(p).numpy()) for p in self.params], None, **self.told)
        for p, new in zip(self.params, self.state.params, strict=True):
            p.copy_(torch.from_numpy(np.array(new)))


def per_parameter(known: Any, params: dict[str, Tensor], problem: Problem) -> Learned:
    return Learned((GOOGLE, f"{FOLDER}/adafac_mlp_lopt.py", "AdafacMLPLOpt"), params, problem)


def by_width(known: Any, params: dict[str, Tensor], problem: Problem) -> Learned:
    """Steps of hidden matrices over a third of their inputs."""
    shares = [3.0 / p.shape[1] if p.ndim == 2 and name != "head" else 1.0 for name, p in params.items()]
    return Learned(("bentherien/mu_learned_optimization", "src/mup_adafac_mlp_lopt.py", "MuAdafacMLPLOpt"), params, problem, shares)
