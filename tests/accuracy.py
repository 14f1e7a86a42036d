"""`python tests/accuracy.py`: errors of the float32 step in ulp, as written and simplified, for every rule of the library.

Each operation is rounded to float32 (what correctly rounded single precision gives), numbers known before the step stay in
float64, and three steps are taken from the same stored numbers as float64 takes them. Gradients and weights are of all sizes from
1e-30 to 1e30, denormal, zero, infinite or NaN. Prints a line of JSON for each rule; docs/trust.md shows the table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from fuzz.noise import Noisy
from stepping import cell, is_ambiguous, program, step_of

from optlang import library
from optlang.backends.reference import Reference
from optlang.ir import Program
from optlang.rules import Rule
from optlang.simplify import simplify

Array = Any
SCALES = (1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30)
STRANGE = (0.0, -0.0, 1e-45, -1e-40, np.inf, -np.inf, np.nan, 3e38)
SHAPE = (8, 6)
SINGLE = float(np.finfo(np.float32).max)
ROOTS = """rule Roots {{ hyper beta = {beta} in [0, 1) w' = {form} }}"""
FORMS = ("g/(1 - beta^t)", "sqrt(g^2/(1 - beta^t))", "sqrt(g^2)/sqrt(1 - beta^t)", "sqrt(1 - beta^t)*g", "g*sqrt(1 - beta^t)/(1 - 0.9^t)")


def rules() -> Iterator[Program]:
    for name in sorted(library.index().keys() - {"std"}):
        made = Rule(name).program
        if isinstance(made, Program) and not any(map(made.uses, ("grad", "hvp", "loss", "loss_at", "input"))) and not is_ambiguous(made):
            yield made


def given(seed: int, strange: bool) -> tuple[Array, Array]:
    """Weights and a gradient."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        x = random.standard_normal(SHAPE) * random.choice(SCALES if strange else SCALES[2:7], SHAPE)
        x = np.where(random.random(SHAPE) < 0.2 * strange, random.choice(STRANGE, SHAPE), x)
        found.append(x.astype(np.float32).astype(np.float64))
    return found[0], found[1]


def stepped(executable: Reference, weights: Array, gradients: list[Array], settings: dict[str, Any]) -> Array:
    """Everything stored after the steps, end to end."""
    one = cell(weights.copy(), gradients[0], **settings)
    step = step_of(one)
    for t, gradient in enumerate(gradients, 1):
        one.t, one.gradient = t, gradient
        executable.prepare(step)
        executable.step(step)
    kept = [x for holder in (one.state, step.groups[0], step.model) for x in holder.values()]
    return np.concatenate([np.ravel(x).astype(np.float64) for x in (one.weights, *kept)])


def errors(made: Program, seeds: int = 3) -> dict[str, float]:
    """Mean and largest hundredth of the errors as written and simplified, and at how many places only one of them is right."""
    settings = {h.name: h.default for h in made.hypers}
    forms = {"written": made, "simplified": simplify(made, "safe")}
    all_: dict[str, list[Array]] = {name: [] for name in forms}
    wrong: dict[str, list[Array]] = {name: [] for name in forms}
    for seed in range(seeds):
        weights, _ = given(seed, seed > 0)
        gradients = [given(100 + 10 * seed + k, seed > 0)[1] for k in range(3)]
        with np.errstate(all="ignore"):
            truth = stepped(Reference(made), weights, gradients, settings)
            usual = np.isfinite(truth) & (np.abs(truth) > 1e-37) & (np.abs(truth) < SINGLE)
            for name, form in forms.items():
                found = stepped(Noisy(form, 0.0, True, 0), weights, gradients, settings)
                ulps = np.abs(found - truth) / (np.abs(truth) * 2.0**-24)
                bad = ~(ulps < 2.0**13) & usual  # half of the digits are gone
                all_[name].append(np.where(usual & ~bad, ulps, np.nan))
                wrong[name].append(bad)
    both = ~np.isnan(np.concatenate(all_["written"]) + np.concatenate(all_["simplified"]))
    told: dict[str, float] = {}
    for name in forms:
        kept = np.concatenate(all_[name])[both]
        told[f"mean {name}"] = round(float(kept.mean()), 3) if kept.size else 0.0
        told[f"99 % {name}"] = round(float(np.quantile(kept, 0.99)), 2) if kept.size else 0.0
    first, second = np.concatenate(wrong["written"]), np.concatenate(wrong["simplified"])
    return told | {"only written wrong": int((first & ~second).sum()), "only simplified wrong": int((second & ~first).sum())}


def roots() -> Iterator[dict[str, Any]]:
    """Bias corrections and roots at small `t`: the largest error of a float32 step in ulp."""
    for form in FORMS:
        for beta in (0.9, 0.999, 0.999999):
            made = program(ROOTS.format(beta=beta, form=form))
            _, gradient = given(7, False)
            worst = []
            for t in (1, 2, 3, 10, 1000):
                both = []
                for executable in (Reference(made), Noisy(simplify(made, "safe"), 0.0, True, 0)):
                    one = cell(np.ones(SHAPE), gradient, t=t, beta=beta)
                    executable.step(step_of(one))
                    both.append(one.weights)
                worst.append(round(float((np.abs(both[1] - both[0]) / (np.abs(both[0]) * 2.0**-24)).max()), 2))
            yield {"form": form, "beta": beta, "largest error at t = 1, 2, 3, 10, 1000": worst}


def main() -> None:
    for line in roots():
        print(json.dumps(line), flush=True)
    for made in rules():
        try:
            print(json.dumps({"rule": made.name, **errors(made)}), flush=True)
        except Exception as problem:  # a rule that takes other parameters
            print(json.dumps({"rule": made.name, "not measured": str(problem)[:80]}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
