"""`python tests/accuracy.py docs/accuracy.json`: errors of the float32 step in ulp, as written and simplified, for every rule of the
library, those that only a route uses included; of rules that the file has as they are no more is asked.

Three steps are taken from the same numbers as float64 takes them, in two ways: with each operation rounded to float32 (what
correctly rounded single precision gives; numbers known before the step stay in float64), and by the torch backend, eager. Gradients
and weights are of all sizes from 1e-30 to 1e30, denormal, zero, infinite or NaN; of rules that decompose matrices, whose bases are
chance where columns are hardly apart, normal. A model that is asked again answers in float64, and such rules are not run by torch.
docs/trust.md says what was found. A row has the mark of the program, as written and simplified, and of its settings; rules that have
changed since are asked again.
"""

from __future__ import annotations

import datetime
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.chance import Dice
from fuzz.grow import grow
from fuzz.noise import Noisy
from stepping import cell, is_ambiguous, program, step_of

from optlang import library
from optlang.analysis.live_states import without_dead
from optlang.backends.base import Cell, Executable, Step, StepError
from optlang.backends.places import shape_of
from optlang.backends.reference.executable import Reference
from optlang.backends.torch import TorchExecutable
from optlang.errors import OptError
from optlang.ir import Hyper, Program
from optlang.printing.fingerprint import fingerprint_of
from optlang.rules import Rule
from optlang.simplify import simplify

Array = Any
SCALES = (1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e30)
STRANGE = (0.0, -0.0, 1e-45, -1e-40, np.inf, -np.inf, np.nan, 3e38)
SHAPE = (8, 6)
SMALLER = {name: {"r": 4} for name in ("dion", "dctadamw", "trion")}  # fewer directions than that shape has
ASKED = ("grad", "hvp", "loss", "loss_at", "input")  # random programs that do are left out
NAMES = ("written", "simplified")
FEW = 24  # draws; where simplified steps seem to err more in these, nine times as many others
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
        smaller: dict[str, Any] = SMALLER.get(name, {})
        made = Rule(name).lowered(smaller)
        cases = [(made, smaller)] if isinstance(made, Program) else [(case.program, dict(case.settings)) for case in made.cases]
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
        return cls(1 * weights, weights, {name: 0.5 + source.random(shape) for name, shape in shapes.items()})

    def step(self, one: Cell) -> Step:
        one.inputs = self.inputs
        return step_of(one, inputs=self.inputs, loss=np.float64(0.7), grad=self._gradients, hvp=lambda vectors: [0.3 * v for v in vectors],
                       loss_at=lambda points: np.float64(0.7 + 0.1 * np.nanmean(np.tanh(points[0]))))  # fmt: skip

    def _gradients(self, points: list[Array]) -> list[Array]:
        return [self.gradient + 0.3 * (point - self.start) for point in points]


Way = Callable[[Program, Program, Array, list[Array], dict[str, Any]], Array]


def stepped(executable: Executable, made: Program, weights: Array, gradients: list[Array], settings: dict[str, Any]) -> Array:
    """Everything stored after the steps, end to end."""
    one, model = cell(1 * weights, gradients[0], **settings), Model.of(made, weights)
    step = model.step(one)
    for t, gradient in enumerate(gradients, 1):
        one.t, one.gradient = t, gradient
        model.gradient = gradient
        executable.prepare(step)
        executable.step(step)
    kept = [holder[name] for holder in (one.state, step.groups[0], step.model) for name in sorted(holder)]
    return np.concatenate([np.asarray(x, dtype=np.float64).ravel() for x in (one.weights, *kept)])


def rounded(form: Program, made: Program, weights: Array, gradients: list[Array], settings: dict[str, Any]) -> Array:
    return stepped(Noisy(form, 0.0, True, 0), made, weights, gradients, settings)


def by_torch(form: Program, made: Program, weights: Array, gradients: list[Array], settings: dict[str, Any]) -> Array:
    weights, *gradients = (torch.tensor(x, dtype=torch.float32) for x in (weights, *gradients))
    return stepped(TorchExecutable(form, compile_from=1 << 62), made, weights, gradients, settings)


def forms_of(made: Program) -> dict[str, Program]:
    return {"written": made, "simplified": simplify(made, "safe")}


def errors(forms: dict[str, Program], settings: dict[str, Any], sizes: Sequence[str], shape: tuple[int, ...] = SHAPE, first: int = 0,
           way: Way = rounded) -> dict[str, float]:  # fmt: skip
    """Mean and largest hundredth of the errors as written and simplified, and at how many places only one of them is right.
    Numbers are drawn from the seed `first` on."""
    made = forms["written"]
    all_: dict[str, list[Array]] = {name: [] for name in forms}
    wrong: dict[str, list[Array]] = {name: [] for name in forms}
    for seed, size in enumerate(sizes, first):
        weights, _ = given(seed, size, shape)
        gradients = [given(100 + 10 * seed + k, size, shape)[1] for k in range(3)]
        with np.errstate(all="ignore"):
            truth = stepped(Reference(made), made, weights, gradients, settings)
            usual = np.isfinite(truth) & (np.abs(truth) > 1e-37) & (np.abs(truth) < SINGLE)
            for name, form in forms.items():
                found = way(form, made, weights, gradients, settings)
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
    once, again = np.concatenate(wrong["written"]), np.concatenate(wrong["simplified"])
    return told | {"only written wrong": int((once & ~again).sum()), "only simplified wrong": int((again & ~once).sum())}


def elsewhere(one: Measured, forms: dict[str, Program], way: Way, draws: range) -> list[float]:
    """The natural logarithm of how many times more the simplified step errs, over numbers, shapes and settings near its own: its
    mean and 95 % interval. How a single constant is rounded is chance in one place alone."""
    found = [0.0]
    for draw in draws:
        dice = random.Random(f"{one.program.name} {draw}")
        settings = {h.name: _near(h, one.settings[h.name], dice) for h in one.program.hypers}
        try:
            told = errors(forms, settings, one.sizes[:1], (dice.randint(2, 16), dice.randint(2, 16)), 1000 * draw, way)
        except (StepError, ValueError):  # no such parameters, or nothing is a number
            continue
        if told["mean written"] and told["mean simplified"]:
            found.append(np.log(told["mean simplified"] / told["mean written"]))
    mean, room = np.mean(found), 1.96 * np.std(found) / len(found) ** 0.5
    return [round(float(x), 4) for x in (mean, mean - room, mean + room)]


def _near(hyper: Hyper, usual: Any, dice: random.Random) -> Any:
    value = usual if hyper.kind != "real" or hyper.baked else usual * dice.uniform(0.7, 1.05)
    return value if hyper.bounds is None or hyper.bounds.holds(value) else usual


def drawn(count: int) -> Iterator[dict[str, Any]]:
    """Random programs (see `fuzz`): how many were measured, and what simplification did to them."""
    told: Counter[str] = Counter()
    means: dict[str, list[float]] = {name: [] for name in NAMES}
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
        forms = forms_of(made)
        if forms["simplified"].roots() == made.roots():
            told["nothing to simplify"] += 1
            continue
        try:
            found = errors(forms, {h.name: h.default for h in made.hypers}, ("usual", "all"))
        except (StepError, ValueError):
            told["of no such parameters or numbers"] += 1
            continue
        for name in NAMES:
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


def mark(one: Measured) -> str:
    """Eight digits that stand for what was measured."""
    said = [*map(fingerprint_of, forms_of(one.program).values()), sorted(one.settings.items())]
    return sha256(repr(said).encode()).hexdigest()[:8]


def measured(one: Measured) -> dict[str, Any]:
    numbers = {"numbers": "normal"} if one.sizes[0] == "normal" else {}
    forms = forms_of(one.program)
    told = {"rule": one.name, "mark": mark(one), **numbers, **_beside(one, forms, rounded)}
    asks = one.program.inputs or any(map(one.program.uses, ASKED))
    return told if asks or "not measured" in told else {**told, "by torch": _beside(one, forms, by_torch)}


def _beside(one: Measured, forms: dict[str, Program], way: Way) -> dict[str, Any]:
    try:
        found: dict[str, Any] = errors(forms, one.settings, one.sizes, way=way)
    except (StepError, ValueError) as problem:  # a rule that takes other parameters
        return {"not measured": str(problem)[:80]}
    found["elsewhere"] = elsewhere(one, forms, way, range(FEW))
    return found | ({"elsewhere again": elsewhere(one, forms, way, range(FEW, 10 * FEW))} if found["elsewhere"][1] > 0 else {})


def main() -> None:
    """What the file does not have yet; with a number in place of it, so many random programs."""
    if sys.argv[1].isdecimal():
        for line in drawn(int(sys.argv[1])):
            print(json.dumps(line), flush=True)
        return
    out = Path(sys.argv[1])
    kept = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"rules": []}
    known = {row["rule"]: row for row in kept["rules"]}
    rows = [row if (row := known.get(one.name, {})).get("mark") == mark(one) else measured(one) for one in rules()]
    record = {"date": datetime.date.today().isoformat(), "roots": kept.get("roots") or list(roots()), "rules": rows}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
