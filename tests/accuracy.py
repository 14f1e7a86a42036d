"""`python tests/accuracy.py docs/accuracy.json`: errors of the float32 step in ulp, as written and simplified, for every rule of the
library, those that only a route uses included.

Each operation is rounded to float32 (what correctly rounded single precision gives), numbers known before the step stay in
float64, and three steps are taken from the same stored numbers as float64 takes them. Gradients and weights are of all sizes from
1e-30 to 1e30, denormal, zero, infinite or NaN; of rules that decompose matrices, whose bases are chance where columns are hardly
apart, normal. A model that is asked again answers in float64. docs/trust.md says what was found.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.chance import Dice
from fuzz.grow import grow
from fuzz.noise import Noisy
from stepping import cell, is_ambiguous, program, step_of

from optlang import library
from optlang.analysis.live import without_dead
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.places import shape_of
from optlang.backends.reference import Reference
from optlang.errors import OptError
from optlang.ir import Hyper, Program
from optlang.rules import Rule
from optlang.simplify import simplify

Array = Any
SCALES = (1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30)
STRANGE = (0.0, -0.0, 1e-45, -1e-40, np.inf, -np.inf, np.nan, 3e38)
SHAPE = (8, 6)
SMALLER = {"dion": {"r": 4}}  # what does not fit that shape
ASKED = ("grad", "hvp", "loss", "loss_at", "input")  # random programs that do are left out
FORMS_OF = ("written", "simplified")
SINGLE = float(np.finfo(np.float32).max)
ROOTS = """rule Roots {{ hyper beta = {beta} in [0, 1) w' = {form} }}"""
FORMS = ("g/(1 - beta^t)", "sqrt(g^2/(1 - beta^t))", "sqrt(g^2)/sqrt(1 - beta^t)", "sqrt(1 - beta^t)*g", "g*sqrt(1 - beta^t)/(1 - 0.9^t)")


@dataclass(frozen=True)
class Measured:
    """A rule by its name, or that of the route that uses it; `sizes` of its numbers: "normal", "usual" or "all" there are."""

    name: str
    program: Program
    settings: dict[str, Any]
    sizes: tuple[str, ...] = ("usual", "all", "all")


def rules() -> Iterator[Measured]:
    """Each program of the library once."""
    known: set[str] = set()
    for name in sorted(library.index().keys() - {"std"}):
        made = Rule(name).lowered(SMALLER.get(name, {}))
        cases = [(made, {})] if isinstance(made, Program) else [(case.program, dict(case.settings)) for case in made.cases]
        for each, settings in cases:
            if each.name not in known:
                known.add(each.name)
                full = {h.name: h.default for h in each.hypers} | settings
                label = each.name if each is made else f"{made.name}: {each.name}"
                yield Measured(label, each, full, ("normal",) * 3) if is_ambiguous(each) else Measured(label, each, full)


def given(seed: int, sizes: str, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    """Weights and a gradient."""
    source = np.random.default_rng(seed)
    found = []
    for _ in range(2):
        scales = {"normal": SCALES[4:5], "usual": SCALES[2:7], "all": SCALES}[sizes]
        x = source.standard_normal(shape) * source.choice(scales, shape)
        x = np.where(source.random(shape) < 0.2 * (sizes == "all"), source.choice(STRANGE, shape), x)
        found.append(x.astype(np.float32).astype(np.float64))
    return found[0], found[1]


@dataclass
class Model:
    """What a rule may ask for besides a gradient: answers of a smooth loss, and numbers of the training loop."""

    start: Array
    gradient: Array
    inputs: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, made: Program, weights: Array) -> Model:
        source = np.random.default_rng(7)
        shapes = {i.name: shape_of(i.type.extent, weights.shape) for i in made.inputs}
        return cls(weights.copy(), weights, {name: 0.5 + source.random(shape) for name, shape in shapes.items()})

    def step(self, one: Cell) -> Step:
        one.inputs = self.inputs
        return step_of(one, inputs=self.inputs, loss=np.float64(0.7), grad=self._gradients, hvp=lambda vectors: [0.3 * v for v in vectors],
                       loss_at=lambda points: np.float64(0.7 + 0.1 * np.nanmean(np.tanh(points[0]))))  # fmt: skip

    def _gradients(self, points: list[Array]) -> list[Array]:
        return [self.gradient + 0.3 * (point - self.start) for point in points]


def stepped(executable: Reference, made: Program, weights: Array, gradients: list[Array], settings: dict[str, Any]) -> Array:
    """Everything stored after the steps, end to end."""
    one, model = cell(weights.copy(), gradients[0], **settings), Model.of(made, weights)
    step = model.step(one)
    for t, gradient in enumerate(gradients, 1):
        one.t, one.gradient = t, gradient
        model.gradient = gradient
        executable.prepare(step)
        executable.step(step)
    kept = [x for holder in (one.state, step.groups[0], step.model) for x in holder.values()]
    return np.concatenate([np.ravel(x).astype(np.float64) for x in (one.weights, *kept)])


def errors(made: Program, settings: dict[str, Any], sizes: Sequence[str], shape: tuple[int, ...] = SHAPE) -> dict[str, float]:
    """Mean and largest hundredth of the errors as written and simplified, and at how many places only one of them is right."""
    forms = {"written": made, "simplified": simplify(made, "safe")}
    all_: dict[str, list[Array]] = {name: [] for name in forms}
    wrong: dict[str, list[Array]] = {name: [] for name in forms}
    for seed, size in enumerate(sizes):
        weights, _ = given(seed, size, shape)
        gradients = [given(100 + 10 * seed + k, size, shape)[1] for k in range(3)]
        with np.errstate(all="ignore"):
            truth = stepped(Reference(made), made, weights, gradients, settings)
            usual = np.isfinite(truth) & (np.abs(truth) > 1e-37) & (np.abs(truth) < SINGLE)
            for name, form in forms.items():
                found = stepped(Noisy(form, 0.0, True, 0), made, weights, gradients, settings)
                ulps = np.abs(found - truth) / (np.abs(truth) * 2.0**-24)
                bad = ~(ulps < 2.0**13) & usual  # half of the digits are gone
                all_[name].append(np.where(usual & ~bad, ulps, np.nan))
                wrong[name].append(bad)
    both = ~np.isnan(np.concatenate(all_["written"]) + np.concatenate(all_["simplified"]))
    if not both.any():
        raise ValueError("nothing that it stores is a number here")
    told: dict[str, float] = {}
    for name in forms:
        kept = np.concatenate(all_[name])[both]
        told[f"mean {name}"] = round(float(kept.mean()), 3)
        told[f"99 % {name}"] = round(float(np.quantile(kept, 0.99)), 2)
    first, second = np.concatenate(wrong["written"]), np.concatenate(wrong["simplified"])
    return told | {"only written wrong": int((first & ~second).sum()), "only simplified wrong": int((second & ~first).sum())}


def elsewhere(one: Measured, draws: int = 30) -> dict[str, float]:
    """Mean errors over shapes and settings near its own: how a single constant is rounded is chance."""
    dice, found, hypers = random.Random(one.program.name), [], one.program.hypers
    for _ in range(draws):
        settings = {h.name: _near(h, one.settings[h.name], dice) for h in hypers}
        told = errors(one.program, settings, one.sizes[:1], (dice.randint(2, 16), dice.randint(2, 16)))
        found.append((told["mean written"], told["mean simplified"]))
    sums = zip(FORMS_OF, zip(*found, strict=True), strict=True)
    return {f"mean {name} over {draws} settings": round(sum(x) / draws, 3) for name, x in sums}


def _near(hyper: Hyper, usual: Any, dice: random.Random) -> Any:
    value = usual if hyper.kind != "real" or hyper.baked else usual * dice.uniform(0.7, 1.05)
    return value if hyper.bounds is None or hyper.bounds.holds(value) else usual


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
            found = errors(made, {h.name: h.default for h in made.hypers}, ("usual", "all"))
        except (StepError, ValueError):
            told["of no such parameters or numbers"] += 1
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
            _, gradient = given(7, "usual")
            worst = []
            for t in (1, 2, 3, 10, 1000):
                both = []
                for executable in (Reference(made), Noisy(simplify(made, "safe"), 0.0, True, 0)):
                    one = cell(np.ones(SHAPE), gradient, t=t, beta=beta)
                    executable.step(step_of(one))
                    both.append(one.weights)
                worst.append(round(float((np.abs(both[1] - both[0]) / (np.abs(both[0]) * 2.0**-24)).max()), 2))
            yield {"form": form, "beta": beta, "largest error at t = 1, 2, 3, 10, 1000": worst}


def measured(one: Measured) -> dict[str, Any]:
    try:
        found = errors(one.program, one.settings, one.sizes)
        worse = found["mean simplified"] > 1.03 * found["mean written"]
        numbers = {"numbers": "normal"} if one.sizes[0] == "normal" else {}
        return {"rule": one.name, **numbers, **found, **(elsewhere(one) if worse else {})}
    except (StepError, ValueError) as problem:  # a rule that takes other parameters
        return {"rule": one.name, "not measured": str(problem)[:80]}


def main() -> None:
    """With a number in place of the file: so many random programs."""
    if sys.argv[1].isdecimal():
        for line in drawn(int(sys.argv[1])):
            print(json.dumps(line), flush=True)
        return
    record = {"date": datetime.date.today().isoformat(), "roots": list(roots()), "rules": list(map(measured, rules()))}
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
