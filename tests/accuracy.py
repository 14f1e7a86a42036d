"""`python tests/accuracy.py`: errors of the float32 step in ulp, as written and simplified, for every rule of the library.

Each operation is rounded to float32 (what correctly rounded single precision gives), numbers known before the step stay in
float64, and three steps are taken from the same stored numbers as float64 takes them. Gradients and weights are of all sizes from
1e-30 to 1e30, denormal, zero, infinite or NaN. Prints a line of JSON for each rule; docs/trust.md shows the table.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fuzz.chance import Dice
from fuzz.grow import grow
from fuzz.noise import Noisy
from stepping import cell, is_ambiguous, program, step_of

from optlang import library
from optlang.analysis.live import without_dead
from optlang.backends.base import StepError
from optlang.backends.reference import Reference
from optlang.errors import OptError
from optlang.ir import Hyper, Program
from optlang.rules import Rule
from optlang.simplify import simplify

Array = Any
SCALES = (1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30)
STRANGE = (0.0, -0.0, 1e-45, -1e-40, np.inf, -np.inf, np.nan, 3e38)
SHAPE = (8, 6)
ASKED = ("grad", "hvp", "loss", "loss_at", "input")
FORMS_OF = ("written", "simplified")
SINGLE = float(np.finfo(np.float32).max)
ROOTS = """rule Roots {{ hyper beta = {beta} in [0, 1) w' = {form} }}"""
FORMS = ("g/(1 - beta^t)", "sqrt(g^2/(1 - beta^t))", "sqrt(g^2)/sqrt(1 - beta^t)", "sqrt(1 - beta^t)*g", "g*sqrt(1 - beta^t)/(1 - 0.9^t)")


def rules() -> Iterator[Program]:
    for name in sorted(library.index().keys() - {"std"}):
        made = Rule(name).program
        if isinstance(made, Program) and not any(map(made.uses, ASKED)) and not is_ambiguous(made):
            yield made


def given(seed: int, strange: bool, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    """Weights and a gradient."""
    source = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        x = source.standard_normal(shape) * source.choice(SCALES if strange else SCALES[2:7], shape)
        x = np.where(source.random(shape) < 0.2 * strange, source.choice(STRANGE, shape), x)
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


def errors(
    made: Program, seeds: Sequence[int] = range(3), settings: dict[str, Any] | None = None, shape: tuple[int, ...] = SHAPE
) -> dict[str, float]:
    """Mean and largest hundredth of the errors as written and simplified, and at how many places only one of them is right."""
    settings = settings or {h.name: h.default for h in made.hypers}
    forms = {"written": made, "simplified": simplify(made, "safe")}
    all_: dict[str, list[Array]] = {name: [] for name in forms}
    wrong: dict[str, list[Array]] = {name: [] for name in forms}
    for seed in seeds:
        weights, _ = given(seed, seed > 0, shape)
        gradients = [given(100 + 10 * seed + k, seed > 0, shape)[1] for k in range(3)]
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


def elsewhere(made: Program, draws: int = 30) -> dict[str, float]:
    """Mean errors over shapes and settings near the defaults: how a single constant is rounded is chance."""
    dice, found = random.Random(made.name), []
    for _ in range(draws):
        settings = {h.name: _near(h, dice) for h in made.hypers}
        told = errors(made, [0], settings, (dice.randint(2, 16), dice.randint(2, 16)))
        found.append((told["mean written"], told["mean simplified"]))
    sums = zip(FORMS_OF, zip(*found, strict=True), strict=True)
    return {f"mean {name} over {draws} settings": round(sum(x) / draws, 3) for name, x in sums}


def _near(hyper: Hyper, dice: random.Random) -> Any:
    value = hyper.default if hyper.kind != "real" or hyper.baked else hyper.default * dice.uniform(0.7, 1.05)
    return value if hyper.bounds is None or hyper.bounds.holds(value) else hyper.default


def drawn(count: int) -> Iterator[dict[str, Any]]:
    """Random programs (see `fuzz`): how many were measured, and what simplification did to them."""
    told: Counter[str] = Counter()
    means: dict[str, list[float]] = {name: [] for name in FORMS_OF}
    for seed in range(count):
        grown = grow(Dice(f"accuracy {seed}"))
        try:
            made = Rule(grown.text, grown.name).program
        except OptError:
            continue
        if not isinstance(made, Program) or any(map(made.uses, (*ASKED, "random"))) or is_ambiguous(made):
            continue
        told["measured"] += 1
        made = without_dead(made)
        if simplify(made, "safe").roots() == made.roots():
            told["nothing to simplify"] += 1
            continue
        try:
            found = errors(made, range(2))
        except StepError:
            told["of no such parameters"] += 1
            continue
        for name in FORMS_OF:
            told[f"only {name} wrong, values"] += int(found[f"only {name} wrong"])
            told[f"only {name} wrong, programs"] += found[f"only {name} wrong"] > 0
            means[name].append(found[f"mean {name}"])
        told["simplified errs more, by over 3 %"] += found["mean simplified"] > 1.03 * found["mean written"] + 0.01
        told["simplified errs less, by over 3 %"] += found["mean written"] > 1.03 * found["mean simplified"] + 0.01
        if found["only simplified wrong"]:
            yield {"seed": seed, **found}
    yield {"random programs": count, **told, **{f"mean {name}": round(float(np.mean(x)), 3) for name, x in means.items()}}


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
    """With a number behind it: so many random programs instead."""
    if sys.argv[1:]:
        for line in drawn(int(sys.argv[1])):
            print(json.dumps(line), flush=True)
        return
    for line in roots():
        print(json.dumps(line), flush=True)
    for made in rules():
        try:
            found = errors(made)
            worse = found["mean simplified"] > 1.03 * found["mean written"]
            print(json.dumps({"rule": made.name, **found, **(elsewhere(made) if worse else {})}), flush=True)
        except Exception as problem:  # a rule that takes other parameters
            print(json.dumps({"rule": made.name, "not measured": str(problem)[:80]}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
