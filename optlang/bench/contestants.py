"""Who is timed: a rule on our backends, and the optimizers of that name in the packages that are installed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import optlang

Optimizer = torch.optim.Optimizer
PACKAGES: Mapping[str, str] = {  # the module of each peer, by the name it is installed under
    "torch": "torch.optim", "optimi": "optimi", "pytorch_optimizer": "pytorch_optimizer", "lion-pytorch": "lion_pytorch",
    "heavyball": "heavyball", "flashoptim": "flashoptim",
}  # fmt: skip
KINDS: Mapping[str, Mapping[str, Any]] = {"fused": {"fused": True}, "foreach": {"foreach": True}, "compiled": {}}  # of torch's own
COMPILING = {("torch", "compiled"), ("heavyball", "")}  # for minutes, before their first step
CUDA_ONLY = {"flashoptim"}


@dataclass(frozen=True)
class Contestant:
    """One line of a bench, and how it is made again in another process. `kind`: a backend of ours, or a way that torch goes."""

    rule: str
    package: str
    kind: str
    state: str = "fp32"

    @property
    def label(self) -> str:
        """As it stands in tables."""
        kind = f" {self.kind}" if self.kind else ""
        return f"{self.rule} · {self.package}{kind}" + (f", {self.state} state" if self.state != "fp32" else "")

    def build(self, weights: Sequence[torch.nn.Parameter], names: Sequence[str] = ()) -> tuple[Optimizer, Callable[[], Any]]:
        """The optimizer and what takes its step. A rule of ours is told names where there are any. Raises whatever the package raises."""
        if self.package == "optlang":
            state = None if self.state == "fp32" else self.state
            ours: Any = optlang.load(self.rule, backend=self.kind, state=state)
            mine = ours(list(zip(names, weights, strict=True)) if names else list(weights))
            return mine, mine.step
        theirs = _class_of(self.package, _name_of(self.rule))
        assert theirs is not None
        settings: dict[str, Any] = {"lr": 1e-3} if "lr" in inspect.signature(theirs).parameters else {}
        made = theirs(list(weights), **settings, **(KINDS[self.kind] if self.kind else {}))
        return made, torch.compile(made.step) if self.kind == "compiled" else made.step


def contestants(rules: Sequence[str], backends: Sequence[str], states: Sequence[str], peers: str, device: str) -> list[Contestant]:
    """Each rule on each backend with each format of state, then its peers: "none", "quick" or "all". Raises OptError for a rule
    that is wrong."""
    found = []
    for rule in rules:
        found += [Contestant(rule, "optlang", backend, state) for backend in backends for state in states]
        known = _peers(rule, device) if peers != "none" else []
        found += [one for one in known if peers == "all" or (one.package, one.kind) not in COMPILING]
    return found


def _peers(rule: str, device: str) -> list[Contestant]:
    found = []
    for package in PACKAGES:
        theirs = _class_of(package, _name_of(rule)) if device == "cuda" or package not in CUDA_ONLY else None
        if theirs is not None and package == "torch":
            takes = inspect.signature(theirs).parameters
            found += [Contestant(rule, package, kind) for kind, options in KINDS.items() if options.keys() <= takes.keys()]
        elif theirs is not None:
            found.append(Contestant(rule, package, ""))
    return found


def _name_of(rule: str) -> str:
    return optlang.Rule(rule).name


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
