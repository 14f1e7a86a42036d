"""One program, run in every way there is, beside the reference.

How far results may part is not guessed: the reference runs again with rounding errors put into every operation, and what that
moves by 1 may differ by 30. Programs that amplify rounding without bound are compared for crashes alone.
"""

from __future__ import annotations

import copy
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from optlang import backends, lower, rules
from optlang.backends.torch import TorchBackend
from optlang.errors import OptError, Source
from optlang.front.format import format_file
from optlang.front.parser import parse
from optlang.ir import Program, Routing
from optlang.runtime import cases, make_optimizer
from optlang.search.batched.rule import refuses
from optlang.simplify import simplify

from . import batched
from .grow import Grown
from .noise import NoisyBackend, Simplified
from .shapes import drawn, shapes_of

STEPS = 4
PLAIN = ("strict", "safe", "fast", "torch", "module", "search")  # `cpp` takes a compiler, others may come
MATHS = ("strict", "safe", "fast")
OWN: dict[str, Any] = {m: Simplified(m) for m in MATHS} | {
    "torch": TorchBackend(compile_from=1 << 62), "compiled": TorchBackend(compile_from=0),
}  # fmt: skip
SIZES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3}
FEW, MORE = 3, 24  # noisy runs; after so many a difference is believed


class Found(AssertionError):
    """Something that should not be."""


@dataclass(frozen=True)
class Way:
    """How the optimizers are run: number type, groups with settings of their own, missing gradients, a halt half-way."""

    dtype: torch.dtype = torch.float64
    groups: bool = False
    missing: bool = False
    halfway: bool = False
    steps: int = STEPS


@contextmanager
def known(extra: dict[str, Any]) -> Iterator[None]:
    """Backends by name, for this run alone."""
    own = OWN | extra

    def find(name: str) -> Any:
        return own[name] if name in own else backends.backend(name)

    with mock.patch.object(cases, "backend", find), mock.patch.object(cases, "WHAT", {**backends.WHAT, **dict.fromkeys(own, "")}):
        yield


Maker = Callable[[], Any]
Stored = list[tuple[str, Tensor]]


def optimizer(make: Any, params: list[Tensor], way: Way, text: str) -> Any:
    cut = 2 if way.groups else len(params)
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    made = make([{"params": named[:cut]}, {"params": named[cut:], "lr": 0.1}] if way.groups else named)
    if "input c" in text and hasattr(made, "inputs"):
        made.inputs["c"] = {p: p.detach().to(p.dtype) ** 2 + 0.5 for p in params}
    return made


def run(make: Any, grown: Grown, way: Way) -> list[Stored]:
    """What is stored after each step: weights, and states of optimizers that have them by the rule's names."""
    params = [drawn(s, i).to(way.dtype).requires_grad_() for i, s in enumerate(shapes_of(grown.matrices))]
    made = optimizer(make, params, way, grown.text)
    rows: list[Stored] = []
    for step in range(way.steps):
        if way.halfway and step == 2:
            saved = copy.deepcopy(made.state_dict())
            params = [p.detach().clone().requires_grad_() for p in params]
            made = optimizer(make, params, way, grown.text)
            made.load_state_dict(saved)
        lost = 1 if way.missing and step == 1 else -1

        def closure(step: int = step, lost: int = lost, made: Any = made, params: list[Tensor] = params) -> Tensor:
            made.zero_grad()
            parts = [((p.double() - drawn(p.shape, 99 + 10 * step + i)) ** 2 / 2 + torch.sin(3 * p.double())).sum()
                     for i, p in enumerate(params) if i != lost]  # fmt: skip
            loss = torch.stack(parts).sum() / 3
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        made.step(closure)
        rows.append(stored(made, params))
    return rows


def stored(made: Any, params: list[Tensor]) -> Stored:
    found = [(f"p{i}", p.detach().clone()) for i, p in enumerate(params)]
    if hasattr(made, "cases"):
        for i, p in enumerate(params):
            found += [(f"p{i}.{name}", torch.as_tensor(x).clone()) for name, x in sorted(made.state[p].items()) if name != "step"]
    return found + [(f"report {k}", torch.as_tensor(v)) for k, v in sorted(getattr(made, "reports", {}).items())]


class Agreement:
    """Runs programs, and counts what was done."""

    def __init__(self, names: Sequence[str] = PLAIN) -> None:
        self.names = tuple(names)
        self.counts: Counter[str] = Counter()

    def __call__(self, grown: Grown, way: Way, only: Sequence[str] = ()) -> None:
        """Raises Found where something disagrees, or anything that was not caught."""
        self.counts["programs"] += 1
        try:
            rule = rules.Rule(grown.text, grown.name)
        except OptError:
            self.counts["refused by the language"] += 1
            return
        printed(rule)
        with warnings.catch_warnings(), known({}):
            warnings.simplefilter("ignore")
            chosen = self.expected(rule, grown, way)
            if chosen is None:
                self.counts["not runnable"] += 1
                return
            expected, way = chosen
            noise = Noise(lambda seed: self.noisy(rule, grown, way, seed))
            seen: set[Any] = set()
            for name in only or self.names:
                if name in MATHS and self.is_known(rule.program, name, seen):
                    self.counts[f"{name}, as before"] += 1
                elif name == "search":
                    self.search(rule.program, grown, way, expected, noise)
                else:
                    self.compare(name, rule, grown, way, expected, noise)
            self.counts["agree"] += 1

    def is_known(self, program: Any, math: str, seen: set[Any]) -> bool:
        """Whether `math` makes of it what has been run already, or nothing new."""
        if isinstance(program, Routing):
            return False
        seen.add(meaning_of(program))
        made = meaning_of(simplify(program, math))  # type: ignore[arg-type]
        return made in seen or seen.add(made) is not None

    def expected(self, rule: Any, grown: Grown, way: Way) -> tuple[list[Stored], Way] | None:
        """The reference's, without groups and missing gradients where the rule does not allow them."""
        for tried in (way, Way(way.dtype, False, False, way.halfway, way.steps)):
            try:
                return run(made(rule, "reference"), grown, tried), tried
            except (ValueError, RuntimeError) as problem:
                reason = problem
        if type(reason) not in (ValueError, RuntimeError):
            raise reason
        return None

    def noisy(self, rule: Any, grown: Grown, way: Way, seed: int) -> list[Stored]:
        with known({"noisy": NoisyBackend(SIZES[way.dtype], way.dtype != torch.float64, seed)}):
            return run(made(rule, "noisy"), grown, Way(way.dtype, way.groups, way.missing, False, way.steps))

    def compare(self, name: str, rule: Any, grown: Grown, way: Way, expected: list[Stored], noise: Noise) -> None:
        try:
            make = module(rule) if name == "module" else made(rule, name)
        except ValueError as problem:
            self.counts[f"{name} refuses: {str(problem).split('`')[0][:40]}"] += 1
            return
        self.judge(name, run(make, grown, way), way, expected, noise)

    def search(self, program: Any, grown: Grown, way: Way, expected: list[Stored], noise: Noise) -> None:
        """Weights alone, for one group in float64; halts are nothing to it."""
        if isinstance(program, Routing) or way.groups or way.missing or way.dtype != torch.float64 or refuses(program):
            self.counts["search: not for it"] += 1
            return
        rows = batched.weights(program, grown.matrices, way.steps)
        self.judge("search", [list(row.items()) for row in rows], way, expected, noise)

    def judge(self, name: str, found: list[Stored], way: Way, expected: list[Stored], noise: Noise) -> None:
        self.counts[name] += 1
        for runs in (0, FEW, MORE):  # most results agree so well that nobody need know how far they might part
            where = differs(found, expected, noise.first(runs), way.dtype, name)
            if not where:
                return
        raise Found(f"{name} parts from the reference ({way}): {where}")


class Noise:
    """Runs of the reference with rounding errors, made when they are asked for."""

    def __init__(self, make: Callable[[int], list[Stored]]) -> None:
        self.make, self.made = make, list[list[Stored]]()

    def first(self, count: int) -> list[list[Stored]]:
        self.made += [self.make(seed) for seed in range(len(self.made), count)]
        return self.made[:count]


def made(rule: Any, name: str) -> Any:
    return make_optimizer(rule.program, relower=rule.lowered, backend=name, math="safe")


def module(rule: Any) -> Any:
    source = rule.module()
    loaded = types.ModuleType("generated")
    exec(compile(source, "generated.py", "exec"), loaded.__dict__)
    return getattr(loaded, rule.name)


def meaning_of(program: Program) -> Any:
    reports = tuple((program.reports or {}).items())
    states = tuple((s.name, s.init, program.updates[s.name]) for s in program.states)
    return program.weights, program.evaluation, states, reports


def printed(rule: Any) -> None:
    """The canonical text has the same programs."""
    file = rule._file
    again = format_file(file)
    reread, wrong = parse(Source(again))
    if wrong or format_file(reread) != again:
        raise Found(f"the formatted text is formatted differently:\n{again}")
    for name in (item.name for item in file.items if type(item).__name__ in ("Rule", "Route")):
        one, two = lower.lower(file, name, {}), lower.lower(reread, name, {})
        if isinstance(one, Program) and isinstance(two, Program) and meaning_of(one) != meaning_of(two):
            raise Found(f"the formatted text means something else:\n{again}")


def differs(found: list[Stored], expected: list[Stored], noise: list[list[Stored]], dtype: torch.dtype, name: str) -> str:
    """Where results part further than rounding explains; empty where they agree."""
    for step, rows in enumerate(zip(found, expected, *noise, strict=True)):
        tables = [dict(row) for row in rows]
        mine, theirs = tables[:2]
        if name not in ("module", "search") and mine.keys() != theirs.keys():
            return f"step {step + 1}: {sorted(mine.keys() ^ theirs.keys())} on one side alone"
        for key in mine.keys() & theirs.keys():
            place = where_apart(mine[key], theirs[key], [table[key] for table in tables[2:]], dtype, name)
            if place:
                return f"step {step + 1}, {key}: {place}"
    return ""


def where_apart(mine: Tensor, theirs: Tensor, noisy: list[Tensor], dtype: torch.dtype, name: str) -> str:
    if mine.shape != theirs.shape:
        return f"shape {tuple(mine.shape)} and not {tuple(theirs.shape)}"
    a, b, *others = (x.detach().double() for x in (mine, theirs, *noisy))
    stack = torch.stack(others or [b])
    known = (stack.isnan() == b.isnan()).all(0) & ((stack == b) | stack.isfinite() & b.isfinite() | stack.isnan() & b.isnan()).all(0)
    if name == "fast":
        known &= b.isfinite()
    size = SIZES[dtype]
    apart = (stack - b).abs().amax(0) if b.numel() else b
    room = torch.where(b.isfinite() & apart.isfinite(), 30 * apart + 10 * size * (1 + b.abs()), 0)
    largest = room.max() if room.numel() else room  # a value that noise missed by chance has neighbours that it met
    room = torch.maximum(room, 0.01 * largest)
    agree = (a == b) | (a.isnan() & b.isnan()) | ((a - b).abs() <= room)
    wrong = known & ~agree
    if not bool(wrong.any()):
        return ""
    return f"{a[wrong][:4].tolist()} is not {b[wrong][:4].tolist()} (room {room[wrong][:4].tolist()})"
