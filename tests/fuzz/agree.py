"""One program, run in every way there is, beside the reference, which does not halt half-way.

How far results may part is not guessed: the reference runs again with rounding errors put into every operation, and what that
moves by 1 may differ by 30. Programs that amplify rounding without bound are compared for crashes alone.
"""

from __future__ import annotations

import types
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest import mock

import torch

from optlang import backends, rules
from optlang.backends.torch import TorchBackend
from optlang.errors import OptError, Source, Span
from optlang.front.format import format_file
from optlang.front.parser import parse
from optlang.ir import Routing
from optlang.runtime import cases, make_optimizer
from optlang.search.batched.rule import refuses

from . import batched
from .apart import SIZES, differs
from .grow import Grown
from .noise import NoisyBackend, Simplified
from .shapes import shapes_of
from .training import Stored, Way, asks, run

PLAIN = ("torch", "module", "search")
OWN: dict[str, Any] = {"torch": TorchBackend(compile_from=1 << 62), "compiled": TorchBackend(compile_from=0), "simplified": Simplified()}
FEW, MORE = 3, 24  # noisy runs; after so many a difference is believed


class Found(AssertionError):
    """Something that should not be."""


@contextmanager
def known(extra: dict[str, Any]) -> Iterator[None]:
    """Backends by name, for this run alone."""
    own = OWN | extra

    def find(name: str) -> Any:
        return own[name] if name in own else backends.backend(name)

    with mock.patch.object(cases, "backend", find), mock.patch.object(cases, "NAMES", (*backends.NAMES, *own)):
        yield


class Agreement:
    """Runs programs, and counts what was done."""

    def __init__(self, names: Sequence[str] = PLAIN) -> None:
        self.names = tuple(names)
        self.counts: Counter[str] = Counter()

    def __call__(self, grown: Grown, way: Way, more: Sequence[str] = ()) -> None:
        """Raises Found where something disagrees, or anything that was not caught. `more`: ways for this program alone, of
        which `text` writes it and reads it back."""
        self.counts["programs"] += 1
        try:
            rule = rules.Rule(grown.text, grown.name)
        except OptError:
            self.counts["refused by the language"] += 1
            return
        with warnings.catch_warnings(), known({}):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="torch.compile does not work here")
            trial = Trial.of(rule, grown, way)
            if trial is None:
                self.counts["not runnable"] += 1
                return
            for name in (*self.names, *more):
                self.counts[trial(name)] += 1
        self.counts.update(aspects(trial.way))
        self.counts["agree"] += 1


def aspects(way: Way) -> list[str]:
    """What is said about a run in the record."""
    asked = [name for name in ("groups", "missing", "rates", "halfway") if getattr(way, name)]
    return [f"with {name}" for name in (str(way.dtype).removeprefix("torch."), *asked, f"{way.math} math")]


class Trial:
    """One program beside what the reference gives."""

    def __init__(self, rule: Any, grown: Grown, way: Way, expected: list[Stored]) -> None:
        self.rule, self.grown, self.way, self.expected = rule, grown, way, expected
        self.noise: list[list[Stored]] = []

    @classmethod
    def of(cls, rule: Any, grown: Grown, way: Way) -> Trial | None:
        """Without groups and missing gradients where the rule does not allow them; None where it cannot be run at all."""
        for tried in (way, replace(way, groups=False, missing=False)):
            try:
                straight = replace(tried, halfway=False)
                return cls(rule, grown, tried, run(made(rule, "reference"), grown, straight, asks(rule.program)))
            except (ValueError, RuntimeError) as problem:
                if type(problem) not in (ValueError, RuntimeError):
                    raise
        return None

    def __call__(self, name: str) -> str:
        """What was done, to be counted."""
        if name == "text":
            written(self.rule)
            return name
        if name == "search":
            return self.search()
        try:
            if name == "module" and self.is_empty and "cells = []" in self.rule.module():
                return "module: not with values of several parameters and one without elements"
            make = module(self.rule) if name == "module" else made(self.rule, name, self.way.math)
        except ValueError as problem:
            return f"{name} refuses: {str(problem).split('`')[0][:40]}"
        return self.judge(name, run(make, self.grown, self.way, asks(self.rule.program)))

    @property
    def is_empty(self) -> bool:
        """Whether a parameter has no elements."""
        return any(0 in shape for shape in shapes_of(self.grown.matrices, self.way.shapes))

    def search(self) -> str:
        """Weights alone, for one group in float64; halts are nothing to it."""
        program, way = self.rule.program, self.way
        if isinstance(program, Routing) or way.groups or way.missing or way.rates or way.dtype != torch.float64 or refuses(program):
            return "search: not for it"
        if self.is_empty:
            return "search: not with parameters without elements"
        rows = batched.weights(program, self.grown.matrices, way)
        return self.judge("search", [list(row.items()) for row in rows])

    def judge(self, name: str, found: list[Stored]) -> str:
        every, fast = name not in ("module", "search"), self.way.math == "fast" and name not in ("module", "search", "reference")
        for runs in (0, FEW, MORE):  # most results agree so well that nobody need know how far they might part
            where = differs(found, self.expected, self.noisy(runs), self.way.dtype, every, fast)
            if not where:
                return name
        raise Found(f"{name} parts from the reference ({self.way}): {where}")

    def noisy(self, count: int) -> list[list[Stored]]:
        """So many runs of the reference with rounding errors, made when they are asked for."""
        dtype, straight = self.way.dtype, replace(self.way, halfway=False)
        for seed in range(len(self.noise), count):
            with known({"noisy": NoisyBackend(SIZES[dtype], dtype != torch.float64, seed, self.way.math != "strict")}):
                self.noise.append(run(made(self.rule, "noisy"), self.grown, straight, asks(self.rule.program)))
        return self.noise[:count]


def made(rule: Any, name: str, math: Any = "safe") -> Any:
    return make_optimizer(rule.program, rule.lowered, cases.CompileOptions(name, math))


def module(rule: Any) -> Any:
    source = rule.module()
    loaded = types.ModuleType("generated")
    exec(compile(source, "generated.py", "exec"), loaded.__dict__)
    return getattr(loaded, rule.name)


def written(rule: Any) -> None:
    """The canonical text is read as the same tree."""
    file = rule._file
    again = format_file(file)
    reread, wrong = parse(Source(again))
    if wrong or format_file(reread) != again:
        raise Found(f"the formatted text is formatted differently:\n{again}")
    if _bare(file.items) != _bare(reread.items):
        raise Found(f"the formatted text is read as something else:\n{again}")


def _bare(tree: Any) -> Any:
    """A syntax tree without its places."""
    if isinstance(tree, Span):
        return None
    if isinstance(tree, tuple | list):
        return tuple(map(_bare, tree))
    if not is_dataclass(tree):
        return tree
    return type(tree), *(_bare(getattr(tree, field.name)) for field in fields(tree))
