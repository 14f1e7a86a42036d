"""Who is timed: a rule on our backends, and the optimizers of that name in the packages that are installed."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

import optlang
from optlang.bench.rivals import RIVALS, Optimizer, Rival
from optlang.ir import Routing
from optlang.library import parted
from optlang.ops import ASKING

PACKAGES: Mapping[str, str] = {  # the module of each peer, by the name it is installed under
    "torch": "torch.optim", "optimi": "optimi", "pytorch_optimizer": "pytorch_optimizer", "lion-pytorch": "lion_pytorch",
    "heavyball": "heavyball", "flashoptim": "flashoptim",
}  # fmt: skip
KINDS: Mapping[str, Mapping[str, Any]] = {"fused": {"fused": True}, "foreach": {"foreach": True}}  # for classes that take these
COMPILED = "compiled"  # a step of torch's own, by its compiler
COMPILING = {("torch", COMPILED), ("heavyball", "")}  # for minutes, before their first step
CUDA_ONLY = {"flashoptim"}
DEPRECATED = {("optimi", "foreach")}


@dataclass(frozen=True)
class Contestant:
    """One line of a bench, and how it is made again in another process. `kind`: a backend of ours, or a way that others go. `state` and
    `products`: the formats of our states, and of our products of matrices."""

    rule: str
    package: str
    kind: str
    state: str = "fp32"
    products: str = "fp32"

    @property
    def label(self) -> str:
        """As it stands in tables."""
        kind = f" {self.kind}" if self.kind else ""
        formats = {"state": self.state, "products": self.products}
        return f"{self.rule} · {self.package}{kind}" + "".join(f", {name} {what}" for what, name in formats.items() if name != "fp32")

    def build(self, weights: Sequence[torch.nn.Parameter], names: Sequence[str] = ()) -> tuple[Optimizer, Callable[[], Any]]:
        """The optimizer and what takes its step. A rule of ours is told names where there are any. Raises whatever the package raises."""
        if self.package == "optlang":
            state = None if self.state == "fp32" else self.state
            ours: Any = optlang.load(*parted(self.rule), backend=self.kind, state=state, products=self.products)
            mine = ours(list(zip(names, weights, strict=True)) if names else list(weights))
            return mine, mine.step
        theirs, rival = _theirs(self.rule)[self.package]
        settings: dict[str, Any] = {"lr": 1e-3} if "lr" in inspect.signature(theirs).parameters else {}
        given: Any = [{"params": list(weights), **rival.group}] if rival.group else list(weights)
        if rival.around:
            given = torch.optim.AdamW(given, lr=1e-3, fused=True)
        made = theirs(given, **{**settings, **rival.settings, **KINDS.get(self.kind, {})})
        if hasattr(made, "train"):
            made.train()  # some are told which weights are wanted
        return made, torch.compile(made.step) if self.kind == COMPILED else made.step


def contestants(
    rules: Sequence[str], backends: Sequence[str], states: Sequence[str], peers: str, device: str, products: Sequence[str] = ("fp32",)
) -> list[Contestant]:
    """Each rule on each backend with each format of state and products, then its peers: "none", "quick" or "all". Raises OptError for a
    rule that is wrong."""
    found = []
    for rule in rules:
        rule_of(rule)  # one that is wrong says so before others are measured
        found += [Contestant(rule, "optlang", *way) for way in itertools.product(backends, states, products)]
        known = _peers(rule, device) if peers != "none" else []
        found += [one for one in known if peers == "all" or (one.package, one.kind) not in COMPILING]
    return found


@cache
def rule_of(word: str) -> optlang.Rule:
    """A library name, `my.opt` or `my.opt:Rule`. Raises OptError."""
    return optlang.Rule(*parted(word))


def asks(rule: str) -> bool:
    """Whether a step of the rule needs a closure."""
    made = rule_of(rule).program
    programs = [case.program for case in made.cases] if isinstance(made, Routing) else [made]
    return any(program.uses(op) for program in programs for op in ASKING)


def _peers(rule: str, device: str) -> list[Contestant]:
    """A class in each way that it takes; torch's own as it comes only where it takes none."""
    found = []
    for package, (theirs, rival) in _theirs(rule).items():
        if device != "cuda" and package in CUDA_ONLY:
            continue
        takes: Mapping[str, Any] = {} if KINDS.keys() & rival.settings.keys() else inspect.signature(theirs).parameters  # is told
        kinds = [kind for kind, options in KINDS.items() if options.keys() <= takes.keys() and (package == "torch" or kind == "foreach")]
        kinds = [kind for kind in kinds if (package, kind) not in DEPRECATED]
        more = [COMPILED] if package == "torch" else []
        found += [Contestant(rule, package, kind) for kind in ([] if package == "torch" and kinds else [""]) + kinds + more]
    return found


@cache
def _theirs(rule: str) -> Mapping[str, tuple[type[Optimizer], Rival]]:
    """By package: those of `rivals`, and of other packages the class that is named like the rule."""
    name = rule_of(rule).name
    told = {one.package: (found, one) for one in RIVALS.get(name, ()) if (found := one.found()) is not None}
    like = {package: (found, Rival(package, "")) for package in PACKAGES if (found := _class_of(package, name)) is not None}
    return like | told


def _class_of(package: str, name: str) -> type[Optimizer] | None:
    """The optimizer of a package that is named like a rule, in whatever case; None where there is none of its own."""
    try:
        module = importlib.import_module(PACKAGES[package])
    except ImportError:
        return None
    wanted = (name.lower(), f"flash{name.lower()}")
    for known in dir(module):
        found = getattr(module, known) if known.lower() in wanted else None
        if isinstance(found, type) and issubclass(found, Optimizer) and found.__module__.startswith(PACKAGES[package].split(".")[0]):
            return found
    return None
