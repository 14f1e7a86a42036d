"""Settings of the library's rules are called as torch calls them: `lr`, `beta1`, `beta2`, `eps`, `weight_decay`, `momentum`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import optlang
from optlang import ir, library

WITHOUT_LR = {
    "dowg": "the distance gone decides the step; the paper has no other size of it, and none to scale it by",
    "cdowg": "the same for each coordinate",
    "saniaadam": "the loss decides the step: Polyak's, whose equation has no factor",
    "saniaadagrad": "the same",
    "loraggpo": "adds noise to the weights for one pass; steps are those of the rule that is used with it",
}
SYNONYMS = re.compile(r"learning_?rate|step_?size|betas|b_?[12]|beta_[12]|epsilon|wd|l2|weightdecay|mom|momentum_?[12]|lambda_?", re.I)
MEANINGS = {  # what is said of a setting, and what it may be called
    r"^decoupled decay, times lr|^L2 penalty": {"weight_decay"},
    r"^added to (the|its) denominators?\b": {"eps", "subspace_eps"},
    r"^step size$": {"lr"},
    r"^decay of the velocity$": {"momentum"},
    r"^decay of the gradient mean$": {"beta1", "beta2", "beta", "momentum"},
    r"^decay of the squared-gradient mean$": {"beta2", "beta3", "beta4", "alpha", "sigma"},
}
OTHERWISE = {  # settings whose name is another, with the reason
    ("tiger", "beta"): "there is one decay, and the paper calls it so",
    ("powersign", "beta"): "there is one decay, and the paper calls it so",
    ("addsign", "beta"): "there is one decay, and the paper calls it so",
    ("bcos", "beta"): "beta2 follows from it in the paper, and is no decay of a second state",
    ("rmsprop", "alpha"): "as in torch",
    ("rmsproptf", "alpha"): "as in torch's RMSprop",
    ("innaprop", "sigma"): "alpha and beta are of its other equation, and the paper calls it so",
}
CALLED = {  # where torch gives a setting another name, or has one that a rule here does not need
    "Adagrad": {"initial_accumulator_value": "initial"},
    "Rprop": {"etas": "eta_minus", "step_sizes": "step_min"},
    "Adafactor": {"eps": "eps1"},
    "Muon": {"ns_coefficients": "", "ns_steps": "steps", "adjust_lr_fn": "match_rms", "eps": ""},
    "SGD": {"momentum": "", "dampening": "", "weight_decay": "", "nesterov": ""},  # `momentum` and `nesterov` are rules of their own
    "RAdam": {"decoupled_weight_decay": "decoupled"},
    "NAdam": {"decoupled_weight_decay": "decoupled"},
    "Adam": {"weight_decay": "", "amsgrad": "", "decoupled_weight_decay": ""},  # AdamW and AMSGrad are rules of their own
    "AdamW": {"amsgrad": ""},
}
EVERY = ("params", "foreach", "maximize", "capturable", "differentiable", "fused")


def programs(name: str) -> list[ir.Program]:
    found = optlang.Rule(name).program
    return [case.program for case in found.cases] if isinstance(found, ir.Routing) else [found]


def settings() -> Iterator[tuple[str, ir.Hyper]]:
    for name in library.names():
        for program in programs(name):
            yield from ((name, hyper) for hyper in program.hypers if not hyper.table)


@pytest.mark.parametrize("name", library.names())
def test_groups_have_lr_where_schedulers_write_it(name: str) -> None:
    cls: Any = optlang.load(name, backend="reference")
    given = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3, 4))]
    groups = cls([(f"p{place}", p) for place, p in enumerate(given)]).param_groups
    assert {"lr" in group for group in groups} == {name not in WITHOUT_LR}


def test_no_setting_has_another_name_for_one_of_torchs() -> None:
    assert not [(name, hyper.name) for name, hyper in settings() if SYNONYMS.fullmatch(hyper.name.rpartition(".")[2])]


def test_settings_that_mean_the_same_are_called_alike() -> None:
    used = set()
    for name, hyper in settings():
        short = hyper.name.rpartition(".")[2]
        for meaning, names in MEANINGS.items():
            if re.search(meaning, hyper.doc):
                assert short in names, f"{name}: {hyper.name}, {hyper.doc}"
                if short in ("beta", "alpha", "sigma"):
                    used.add((name, short))
    assert used == set(OTHERWISE)


OF_TORCH = ("SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "Adafactor", "Muon")


@pytest.mark.parametrize("name", [name for name in OF_TORCH if hasattr(torch.optim, name)])
def test_rules_that_torch_has_take_its_keywords(name: str) -> None:
    theirs = [word for word in inspect.signature(getattr(torch.optim, name)).parameters if word not in EVERY]
    ours = inspect.signature(optlang.load(name.lower())).parameters
    called = CALLED.get(name, {})
    for word in theirs:
        wanted = called.get(word, word)
        names = ("beta1", "beta2") if wanted == "betas" else (wanted,) if wanted else ()
        assert set(names) <= ours.keys(), f"{name}: {word}"
