"""Every rule of the library trains the digits of `optlang race` with its defaults: `make digits`, or this file with names of rules.

One run each, judged on held-out data: on which model, how long and with what is in `digits_runs.py`. Entries of
`docs/digits.json` are kept where the equations and the run are those of the entry, so that what was cut short goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import optlang
from optlang import library
from optlang.ir import Case, Program, Routing
from optlang.printing.fingerprint import fingerprint_of
from optlang.race.loading import load
from optlang.race.tasks import Problem
from optlang.runtime.facts import lacks_rank

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from digits_runs import MODELS, Adapted, Run, named_in, run_of  # noqa: E402

RESULTS = ROOT / "docs" / "digits.json"
SEED, SECOND = 1, 2
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
def optimizer_class(rule: str, route: str = "") -> Any:
    """The rule's own; of one for matrices alone a route that sends all else to AdamW."""
    [program, *more] = programs(rule)
    if route:
        return routed("Run", route)
    defaults = {h.name: h.default for h in program.hypers}
    if more or not (rule == "scionsign" or lacks_rank(program, {"rank": 1, "numel": 128}, defaults)):
        return optlang.load(rule)
    return routed(f"With{program.name}", f"when rank == 2 use {program.name}()  otherwise use AdamW()")


def routed(name: str, cases: str) -> Any:
    imports = " ".join(f"from {rule.lower()} import {rule} " for rule in named_in(cases))
    return optlang.loads(f"{imports} route {name} {{ {cases} }}", name)


def fingerprint(rule: str) -> str:
    return " ".join(fingerprint_of(program) for program in programs(rule))


def train(rule: str) -> dict[str, Any]:
    """The entry of a rule: losses before and after, accuracy, what it was trained with, when, and what another start and other
    settings reach."""
    run = run_of(rule)
    second = {key: value for key, value in trained(rule, run, SECOND).items() if key in ("loss", "accuracy", "start")}
    entry = {**trained(rule, run), **told(rule), "date": date.today().isoformat(), "second": second}
    return {**entry, "beside_reached": trained(rule, run.beside)} if run.beside else entry


def trained(rule: str, run: Run, seed: int = SEED) -> dict[str, Any]:
    """What one run of a rule reaches."""
    problem = replace(digits(), batch_size=run.batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[run.model](problem.data.train)
        optimizer = optimizer_class(rule, run.route)(list(model.named_parameters()), **run.settings)
        before = problem.evaluate(model, problem.data.test).loss
        start = time.process_time()
        for _, batch in zip(range(run.steps), problem.batches(seed), strict=False):
            step(rule, model, optimizer, batch)
        seconds = time.process_time() - start
        if hasattr(optimizer, "eval"):
            optimizer.eval()
        after = problem.evaluate(model, problem.data.test)
    return {
        "loss": round(after.loss, 4), "accuracy": round(after.accuracy or 0.0, 4), "start": round(before, 4),
        "lr": lr_of(rule, optimizer), "seconds": round(seconds, 1),
    }  # fmt: skip


def told(rule: str) -> dict[str, Any]:
    """What a run is, as its entry says it; `fingerprint` stands for the equations."""
    run = run_of(rule)
    beside = {"beside": said(run.beside)} if run.beside else {}
    return {**said(run), "inputs": run.inputs, "fingerprint": fingerprint(rule), "defaults": defaults(rule), **beside}


def said(run: Run) -> dict[str, Any]:
    route = {"route": run.route} if run.route else {}
    return {"below": run.below, "steps": run.steps, "batch": run.batch, "model": run.model, "settings": run.settings, **route}


def defaults(rule: str) -> dict[str, Any]:
    """Of its settings, by the rule where there are several; tables, which are networks, are left out."""
    program = optlang.Rule(rule).program
    cases = program.cases if isinstance(program, Routing) else (Case(None, program, {}),)
    return {
        (f"{case.program.name}." if len(cases) > 1 else "") + hyper.name: case.settings.get(hyper.name, hyper.default)
        for case in cases for hyper in case.program.hypers if not hyper.table
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
        constant = run_of(rule).inputs.get(wanted)
        optimizer.inputs[wanted] = INPUTS[wanted](model, *batch) if constant is None else everywhere(model, constant)
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


def everywhere(model: nn.Module, value: float) -> Inputs:
    return {p: torch.full_like(p, value) for p in model.parameters()}


def first_round(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    """Before it the server's weights did not change."""
    return everywhere(model, 0.0)


def products(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    return {layer.base: layer.product() for layer in model.modules() if isinstance(layer, Adapted)}


def slopes(model: nn.Module, x: Tensor, y: Tensor) -> Inputs:
    return {layer.base: layer.slope() for layer in model.modules() if isinstance(layer, Adapted)}


INPUTS: dict[str, Callable[..., Inputs]] = {
    "variance": variance, "curvature": curvature, "drift": first_round, "product": products, "slope": slopes,
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- results


def entries() -> dict[str, dict[str, Any]]:
    """What was measured, by rule."""
    found: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text())["rules"] if RESULTS.exists() else {}
    return found


def is_of_today(rule: str, entry: dict[str, Any] | None) -> bool:
    """Whether an entry is about the rule and the run as they are."""
    return entry is not None and {key: entry.get(key) for key in told(rule)} == told(rule)


def save(found: dict[str, dict[str, Any]]) -> None:
    lines = ",\n".join(f"    {json.dumps(rule)}: {json.dumps(found[rule])}" for rule in library.names() if rule in found)
    head = {"task": "digits", "about": digits().about, "seeds": [SEED, SECOND], "torch": torch.__version__}
    text = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    RESULTS.write_text(f"{{\n{text},\n  \"rules\": {{\n{lines}\n  }}\n}}\n", encoding="utf-8")


def main(names: Iterable[str]) -> int:
    """Trains what is named, or all that has no entry yet, or none of a second start; 1 where a rule did not get there."""
    torch.set_num_threads(1)
    found, short = entries(), 0
    wanted = list(names)
    missing = [name for name in library.names() if not is_of_today(name, found.get(name)) or "second" not in found[name]]
    for rule in wanted or missing:
        found[rule] = train(rule)
        losses = found[rule]["loss"], found[rule]["second"]["loss"]
        short += not max(losses) < found[rule]["below"]
        print(f"{rule:<22} losses {losses} accuracy {found[rule]['accuracy']:<8} {found[rule]['seconds']} s", flush=True)
        save(found)
    print(f"{len(found)} rules, {short} of those trained now not below what is stated")
    return int(short > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="library names; default: all that have no entry for their equations")
    raise SystemExit(main(parser.parse_args().rules))
