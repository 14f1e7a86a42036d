"""Every rule of the library trains the digits of `optlang race` with its defaults: `make digits`, or this file with names of rules.

One run each from the same start on the same batches, judged on data that nothing was tuned on. Entries of `docs/digits.json` are
kept where the equations and settings are those of the entry, so that a run that was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import optlang
from optlang import library
from optlang.ir import Program, Routing
from optlang.race.tasks import Problem, load
from optlang.runtime.facts import lacks_rank
from optlang.runtime.fingerprint import fingerprint_of

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "digits.json"
SEED = 1
ENOUGH = 0.5  # the test loss that every rule must go below; at the start it is that of a guess, 2.30
# Where the default is for another scale: of a larger model, of a few steps of many, or of a convex problem. Tried in half decades.
OTHER_SCALE: dict[str, dict[str, Any]] = {
    "adamwsubsetnorm": {"lr": 0.01}, "adamwsubsetnormlines": {"lr": 0.01}, "adagradsubsetnorm": {"lr": 0.1},
    "adagradsubsetnormlines": {"lr": 0.1}, "adadagradnorm": {"lr": 1.0}, "sophiag": {"lr": 0.001},
    "sophiah": {"lr": 0.001}, "lamb": {"lr": 0.01}, "lars": {"lr": 3.0}, "alig": {"lr": 0.3}, "inducedmetric": {"lr": 0.2},
    "inducedmetriclog": {"lr": 0.3}, "sps": {"lr": 1.0}, "saniaadagrad": {"eps": 1.0}, "saniaadam": {"eps": 1.0}, "sgd": {"lr": 0.3},
    "sgdhd": {"lr": 0.3}, "sgdp": {"lr": 0.3}, "momentum": {"lr": 0.032}, "nesterov": {"lr": 0.032}, "sgdw": {"lr": 0.032},
    "randomscaledmomentum": {"lr": 0.32}, "xgradmomentum": {"lr": 0.032}, "fedhyperg": {"lr": 3.0},
    "fedhypercl": {"lr": 0.1}, "cdowg": {"first": 1e-06},
    "adalomo": {"lr": 0.01}, "shampoo": {"Shampoo": {"lr": 0.32}}, "gravity": {"lr": 0.1}, "cautiouslion": {"lr": 0.001},
    "lion": {"lr": 0.001}, "liondeadzone": {"lr": 0.001}, "lionhuber": {"lr": 0.001}, "lionp": {"lr": 0.032},
    "liontopk": {"lr": 0.001}, "ranger21": {"lr": 0.01}, "dctadamw": {"DCTAdamW": {"r": 8, "lr": 0.003}},
    "trion": {"Trion": {"r": 8}}, "psgdkron": {"lr": 0.001}, "scion": {"lr": 0.01, "radius": 10.0},
    "scionsign": {"ScionSign": {"lr": 0.01, "radius": 30.0}},
    "scioncolumns": {"ScionColumns": {"lr": 0.01, "radius": 30.0}}, "scionrows": {"ScionRows": {"lr": 0.003, "radius": 50.0}},
    "entropysgd": {"inner_lr": 0.3}, "adog": {"reps_rel": 3.2e-4}, "udog": {"reps_rel": 1e-4},
}  # fmt: skip
SHORT = {  # what does not get there in these steps, and why
    "rprop": "the signs of gradients of small batches change by chance",
    "dowg": "its estimate of the distance outgrows what this model stands",
    "dadaptsgd": "its estimate of the distance outgrows what this model stands",
    "mezo": "two losses a step say too little about 10,000 weights",
    "zocoordinates": "ten losses a step say too little about 10,000 weights",
    "zoranksgd": "four losses a step say too little about 10,000 weights",
    "unitadamw": "it is for weights that start at variance 1, which is the model's business",
    "perparametermlp": "its network is all zero until one is given that somebody has trained",
    "mulo": "its network is all zero until one is given that somebody has trained",
    "loraggpo": "it shakes a matrix that is frozen; what learns are factors beside it",
    "l2opa": "its inputs are the outputs of a trained network",
}

Closure = Callable[[], Tensor]


@cache
def digits() -> Problem:
    return load("digits")


@cache
def programs(rule: str) -> list[Program]:
    """Those of a rule, or of the rules of a route."""
    made = optlang.Rule(rule).program
    return [case.program for case in made.cases] if isinstance(made, Routing) else [made]


@cache
def optimizer_class(rule: str) -> Any:
    """The rule's own; of one for matrices alone a route that sends all else to AdamW."""
    [program, *more] = programs(rule)
    defaults = {h.name: h.default for h in program.hypers}
    if more or not (rule == "scionsign" or lacks_rank(program, {"rank": 1, "numel": 128}, defaults)):
        return optlang.load(rule)
    name = program.name
    route = f"route With{name} {{ when rank == 2 use {name}()  otherwise use AdamW() }}"
    return optlang.loads(f"from {rule} import {name}  from adamw import AdamW  {route}", f"With{name}")


def settings_of(rule: str) -> dict[str, Any]:
    """What differs from the rule's defaults, which were made for models of another size."""
    return OTHER_SCALE.get(rule, {})


def fingerprint(rule: str) -> str:
    return " ".join(fingerprint_of(program) for program in programs(rule))


def train(rule: str) -> dict[str, Any]:
    """The entry of a rule: losses before and after, accuracy, what it was trained with, and when."""
    problem = digits()
    with torch.random.fork_rng(devices=[]):
        model = problem.model(SEED)
        optimizer = optimizer_class(rule)(list(model.named_parameters()), **settings_of(rule))
        before = problem.evaluate(model, problem.data.test).loss
        start = time.process_time()
        for _, batch in zip(range(problem.steps), problem.batches(SEED), strict=False):
            step(rule, model, optimizer, batch)
        seconds = time.process_time() - start
        if hasattr(optimizer, "eval"):
            optimizer.eval()
        after = problem.evaluate(model, problem.data.test)
    return {
        "loss": round(after.loss, 4), "accuracy": round(after.accuracy or 0.0, 4), "start": round(before, 4), "steps": problem.steps,
        "lr": lr_of(rule, optimizer), "settings": settings_of(rule), "seconds": round(seconds, 1), "date": date.today().isoformat(),
        "fingerprint": fingerprint(rule),
    }  # fmt: skip


def lr_of(rule: str, optimizer: Any) -> Any:
    """The step size, of a route one for each rule; None where a rule has none."""
    found = {group.get("rule", ""): group.get("lr") for group in optimizer.param_groups}
    return found if len(found) > 1 else next(iter(found.values()))


def step(rule: str, model: nn.Module, optimizer: Any, batch: tuple[Tensor, ...]) -> None:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = digits().loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for wanted in {i.name for program in programs(rule) for i in program.inputs}:
        optimizer.inputs[wanted] = INPUTS[wanted](model, *batch)
    if optimizer.asks_again:
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


# -------------------------------------------------------------------------------------------- what rules ask the loop for

Inputs = dict[Tensor, Tensor]


def of_samples(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The gradient of every sample."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights, (x[None],)), y[None])

    found: dict[str, Tensor] = vmap(grad(loss), (None, 0, 0))(weights, x, y)
    return found


def variance(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    return {p: found.var(0) for p, found in zip(model.parameters(), of_samples(model, x, y).values(), strict=True)}


def curvature(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    """Gauss-Newton-Bartlett: labels are drawn from the model."""
    drawn = torch.distributions.Categorical(logits=model(x).detach()).sample()
    mean = torch.autograd.grad(nn.functional.cross_entropy(model(x), drawn), list(model.parameters()))
    return {p: len(x) * g**2 for p, g in zip(model.parameters(), mean, strict=True)}


def nothing(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    """A first round, before which the server's weights did not change; factors that add nothing yet."""
    return {p: torch.zeros_like(p) for p in model.parameters()}


INPUTS: dict[str, Callable[..., Inputs]] = {
    "variance": variance, "curvature": curvature, "drift": nothing, "product": nothing, "slope": nothing,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- results


def entries() -> dict[str, dict[str, Any]]:
    """What was measured, by rule."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["rules"] if RESULTS.exists() else {}
    return found


def is_of_today(rule: str, entry: dict[str, Any] | None) -> bool:
    """Whether an entry is about the rule as it is."""
    return entry is not None and entry["fingerprint"] == fingerprint(rule) and entry["settings"] == settings_of(rule)


def save(found: dict[str, dict[str, Any]]) -> None:
    lines = ",\n".join(f"    {json.dumps(rule)}: {json.dumps(found[rule])}" for rule in library.names() if rule in found)
    head = {"task": "digits", "about": digits().about, "enough": ENOUGH, "seed": SEED, "torch": torch.__version__, "short": SHORT}
    text = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    RESULTS.write_text(f"{{\n{text},\n  \"rules\": {{\n{lines}\n  }}\n}}\n", encoding="utf-8")


def main(names: Iterable[str]) -> int:
    """Trains what is named, or all that has no entry yet; 1 where a rule did not get there."""
    torch.set_num_threads(1)
    found, short = entries(), 0
    wanted = list(names)
    for rule in wanted or [name for name in library.names() if name not in SHORT and not is_of_today(name, found.get(name))]:
        found[rule] = train(rule)
        short += not found[rule]["loss"] < ENOUGH
        print(f"{rule:<22} loss {found[rule]['loss']:<8} accuracy {found[rule]['accuracy']:<8} {found[rule]['seconds']} s", flush=True)
        save(found)
    print(f"{len(found)} rules, {short} of those trained now not below {ENOUGH}")
    return int(short > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="library names; default: all that have no entry for their equations")
    raise SystemExit(main(parser.parse_args().rules))
