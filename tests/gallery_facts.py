"""What the machine finds out about every rule of the library: its costs, what its steps do not depend on, and its relatives.

Found once for each text of a rule: `docs/library.json` keeps it, so that the page is made anew in seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from stepping import Loop, shapes_for

from optlang import ir, library
from optlang.analysis.costs import stages
from optlang.analysis.degrees import degrees
from optlang.analysis.units import Degrees
from optlang.backends.base import StepError
from optlang.bench.footprint import STEPS, Footprint
from optlang.compare.comparison import difference
from optlang.ir import Program, Routing
from optlang.plan import plan
from optlang.printing.rule_text import to_opt
from optlang.rules import Rule
from optlang.simplify import simplify

STORE = Path(__file__).resolve().parent.parent / "docs" / "library.json"
MATRIX, VECTOR = (1024, 1024), (1024,)
SHAPES = ((4, 6), (5, 3), (7,))
LARGER = ((10, 13), *SHAPES)  # of the first, 64 elements are a part
LOSS = 4.0  # times the loss; a power of two, so that rounding stays the same
CLOSE = 1e-5  # of the way: what is smaller is rounding, and numbers like 1e-12 that keep others from zero
NEAREST = 4  # rules that are compared with one in full
Array = Any
Facts = dict[str, Any]
Change = Callable[[Array], Array]


@cache
def rule_of(name: str) -> Rule:
    """A rule of the library, read once."""
    return Rule(name)


@cache
def programs(rule: str) -> tuple[Program, ...]:
    """That of a rule, or those of a route."""
    made = rule_of(rule).program
    return tuple({case.program.name: case.program for case in made.cases}.values()) if isinstance(made, Routing) else (made,)


@cache
def is_route(rule: str) -> bool:
    return isinstance(rule_of(rule).program, Routing)


@cache
def mark(rule: str) -> str:
    """Twelve digits of what a rule says."""
    return sha256("\n".join(to_opt(program) for program in programs(rule)).encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------------------- costs


def costs(program: Program) -> Facts:
    """Bytes per element that are kept and moved, for a matrix of float32; gradients, Hessian products
    and losses elsewhere that a step asks for."""
    made = plan(simplify(program, "safe"))
    found = Footprint(made, MATRIX)
    try:
        kept = found.kept
    except StepError:
        found = Footprint(made, VECTOR)
        kept = found.kept
    refused = found.refused
    asked = dict.fromkeys(("grad", "hvp", "loss_at"), 0.0)
    for truth, count in found.truths.items():
        for barrier in (b for stage in stages(made, truth) for b in stage.barriers if b.op in asked):
            asked[barrier.op] += count / STEPS
    return {
        "kept": round(kept, 3), "moved": round(found.floor if refused else found.moved, 3), "passes": None if refused else found.passes,
        "kernels": refused or "yes", "gradients": round(program.uses("g") + asked["grad"], 3), "products": round(asked["hvp"], 3),
        "losses": round(asked["loss_at"], 3),
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- invariances


class World:
    """A smooth loss that is a little different in every step, seen through a change of coordinates or units."""

    def __init__(self, shapes: Iterable[tuple[int, ...]], there: Change, back: Change, loss: float) -> None:
        self.there, self.back, self.scale = there, back, loss
        random = np.random.default_rng(5)
        self.start = [random.normal(size=shape) for shape in shapes]
        self.bowls = [[(0.5 + random.random(x.shape), random.normal(size=x.shape)) for x in self.start] for _ in range(6)]

    def run(self, program: Program, without: Iterable[str], degree: Degrees) -> list[Array]:
        """The weights after some steps, in the coordinates of the loss."""
        loop = Loop(program, *map(self.there, self.start), **{name.replace(".", "__"): 0.0 for name in without})
        for number in range(len(self.bowls)):
            points = loop.weights
            for one, g in zip(loop.cells, self.gradients(number, points), strict=True):
                powers = {i.name: (degree.inputs.get(i.name) or (2, 0))[0] for i in program.inputs}
                one.inputs = {name: 0.3 * np.tanh(g / self.scale) ** 2 * self.scale ** float(power) for name, power in powers.items()}
            loop.step(
                *self.gradients(number, points), loss=self.loss(number, points), loss_at=lambda at, number=number: self.loss(number, at),
                grad=lambda at, number=number: self.gradients(number, at),
                hvp=lambda vectors, number=number: [
                    self.scale * self.there(h * self.back(v)) for v, (h, _) in zip(vectors, self.bowls[number], strict=True)
                ],
            )  # fmt: skip
        return [self.back(x) for x in loop.weights]

    def loss(self, number: int, points: list[Array]) -> Array:
        heights = [float(np.sum(h * (self.back(x) - c) ** 2)) for x, (h, c) in zip(points, self.bowls[number], strict=True)]
        return np.float64(self.scale * (0.7 + sum(heights) / 2))

    def gradients(self, number: int, points: list[Array]) -> list[Array]:
        return [self.scale * self.there(h * (self.back(x) - c)) for x, (h, c) in zip(points, self.bowls[number], strict=True)]


def same(x: Array) -> Array:
    return x


def shuffled(x: Array) -> Array:
    """All elements in another order."""
    return x.reshape(-1)[np.random.default_rng(x.size).permutation(x.size)].reshape(x.shape)


def put_back(x: Array) -> Array:
    order = np.argsort(np.random.default_rng(x.size).permutation(x.size))
    return x.reshape(-1)[order].reshape(x.shape)


def turned(x: Array) -> Array:
    """Rows and columns in another order: the last of each comes first."""
    return np.roll(x, (1,) * x.ndim, range(x.ndim))


def turned_back(x: Array) -> Array:
    return np.roll(x, (-1,) * x.ndim, range(x.ndim))


def invariances(program: Program) -> Facts:
    """Whether the steps depend on the scale of the loss, and commute with flipped signs and with another order of the elements.

    All by running it. `apart` are settings that are only added to keep something from zero, and are left out for this; `with`
    those that would have to follow the scale of the loss, by their degrees, where the steps depend on it.
    """
    found = degrees(program)
    small = [name for name in found.with_loss if name in found.added and (b := program.hyper(name).bounds) is not None and b.holds(0.0)]
    runs = any(node.type.extent.run for node in ir.walk(program.roots()))
    shapes = shapes_for(program, LARGER if runs else SHAPES)
    plain = World(shapes, same, same, 1.0).run(program, small, found)

    def stays(there: Callable[[Array], Array], back: Callable[[Array], Array], loss: float = 1.0) -> bool:
        start, other = World(shapes, same, same, 1.0).start, World(shapes, there, back, loss).run(program, small, found)
        way = max(float(np.abs(x - w).max()) for x, w in zip(plain, start, strict=True))
        return way > 0 and all(float(np.abs(x - y).max()) <= CLOSE * way for x, y in zip(plain, other, strict=True))

    draws = program.uses("random")
    order = "draws" if draws else "elements" if stays(shuffled, put_back) else "rows and columns" if stays(turned, turned_back) else "no"
    scale = stays(same, same, LOSS)
    follow = [] if scale or found.conflicts else [name for name in found.with_loss if name not in small]
    return {
        "scale": scale, "apart": small if scale else [], "with": follow,
        "sign": "draws" if draws else stays(np.negative, np.negative), "order": order,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- relatives


@cache
def age(rule: str) -> tuple[int, int, str]:
    """The last year that its source names, and its size: of the same year the smaller rule comes first."""
    [program] = programs(rule)
    years = re.findall(r"\b(?:19|20)\d\d\b(?!\.)", rule_of(rule).doc)
    return max(map(int, years), default=9999), len(ir.walk(program.roots())), rule


@cache
def features(rule: str) -> frozenset[str]:
    """Expressions of up to three operators, whatever their states are called."""
    [program] = programs(rule)
    table = ir.fold(program.roots(), _shape)
    return frozenset(text for shapes in table.values() for text in shapes)


def _shape(node: ir.Node, args: tuple[list[str], ...]) -> list[str]:
    """An expression to the depth of 0, 1 and 2 operators."""
    name = node.op if node.value is None or node.op in ("state", "random") else f"{node.op} {node.value}"
    found = [name]
    for depth in range(2):
        inner = [arg[min(depth, len(arg) - 1)] for arg in args]
        found.append(f"{name}({', '.join(sorted(inner))})" if inner else name)
    return found


def candidates(rule: str) -> list[str]:
    """Older rules that share the most with one."""
    mine = features(rule)
    older = [name for name in library.names() if not is_route(name) and age(name) < age(rule)]
    return sorted(older, key=lambda name: (-len(mine & features(name)) / len(mine | features(name)), name))[:NEAREST]


def relative(rule: str, known: dict[str, Facts]) -> Facts | None:
    """The nearest of the older rules, with what makes this one of it; None where nothing older has half of it in common."""
    [program] = programs(rule)
    best: Facts | None = None
    for name in candidates(rule):
        key = f"{mark(name)} {mark(rule)}"
        if key not in known:
            found = difference(programs(name)[0], program)
            known[key] = {"distance": found.distance, "common": round(found.common, 3), "sentence": found.sentence(4)}
        if best is None or known[key]["distance"] < best["distance"]:
            best = {"of": name, **known[key]}
    return best if best is not None and best["common"] >= 0.5 else None


# ----------------------------------------------------------------------------------------------------------------- store


def stored() -> tuple[dict[str, Facts], dict[str, Facts]]:
    """Facts by rule, and differences by the marks of two rules."""
    kept = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    return kept.get("rules", {}), kept.get("differences", {})


def found_for(rule: str) -> Facts:
    """What is asked of one rule, anew."""
    return {"mark": mark(rule), "programs": {p.name: {**costs(p), **invariances(p)} for p in programs(rule)}}


def gathered(store: bool = False) -> dict[str, Facts]:
    """Facts and the nearest relative of every rule, what is known from the store, the rest anew. `store`: it is brought up to date."""
    kept, known = stored()
    rules = {name: kept[name] if kept.get(name, {}).get("mark") == mark(name) else found_for(name) for name in library.names()}
    found = {name: {**facts, "relative": None if is_route(name) else relative(name, known)} for name, facts in rules.items()}
    if store:
        marks = {mark(name) for name in library.names()}
        _write({"rules": rules, "differences": {key: value for key, value in sorted(known.items()) if set(key.split()) <= marks}})
    return found


def _write(kept: dict[str, dict[str, Facts]]) -> None:
    parts = []
    for part, values in kept.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
        parts.append(f"  {json.dumps(part)}: {{\n{lines}\n  }}")
    STORE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
