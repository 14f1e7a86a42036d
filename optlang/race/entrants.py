"""Who races: library rules, rule files, and torch's own optimizers as yardsticks."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang.errors import did_you_mean
from optlang.ir import Program, Routing
from optlang.library import parted
from optlang.ops import ASKING
from optlang.race.errors import RaceError

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from optlang.backends.base import Math

YARDSTICK = "torch:"
Named = list[tuple[str, "Parameter"]]
Make = Callable[[Named, float], "Optimizer"]


@dataclass(frozen=True)
class Entrant:
    """A rule in the race.

    `make(named_parameters, step_size)` builds a fresh optimizer for every run. `needs_closure`: the rule asks for
    gradients itself, through `optimizer.step(closure)`. A rule without a step size has `tuned=False`; `make` then gets
    1.0. If the optimizer has `eval()` and `train()`, they are called around evaluations."""

    name: str
    make: Make
    needs_closure: bool = False
    tuned: bool = True


def entrant(what: Any, backend: str = "auto", math: Math = "safe") -> Entrant:
    """`adamw`, `my.opt`, `my.opt:Rule` or `torch:AdamW`; in Python also the text of a rule, a Rule, or a class of optimizers.

    Raises OptError for a wrong rule, RaceError for a wrong word, TypeError for what is none of these."""
    from optlang.rules import Rule

    if isinstance(what, Entrant):
        return what
    if isinstance(what, type):
        return _of_class(what)
    if isinstance(what, Rule):
        return _of(what.name, what.optimizer(backend, math), what.program)
    word = os.fspath(what)
    if any(mark in word for mark in "{\n"):
        return entrant(Rule(word), backend, math)
    if word.startswith(YARDSTICK):
        return Entrant(word, _stepped_by(_torch_optimizer(word.removeprefix(YARDSTICK))))
    path, name = parted(word)
    rule = Rule(Path(path), name)
    shown = f"{Path(path).stem}:{name}" if name else Path(path).stem if path.endswith(".opt") else word
    return _of(shown, rule.optimizer(backend, math), rule.program)


def _of(name: str, cls: Any, what: Program | Routing) -> Entrant:
    return Entrant(name, partial(_made, cls, what), _asks_again(what), _tuned(what))


def _of_class(cls: Any) -> Entrant:
    """A class that `optlang.load` has made, or another one of optimizers, which is given `params` and `lr`."""
    from torch.optim import Optimizer

    if not issubclass(cls, Optimizer):
        raise TypeError(f"a rule, its text or a class of optimizers is wanted, not {cls.__name__}")
    rule = getattr(cls, "rule", None)
    return _of(cls.__name__, cls, rule) if isinstance(rule, Program | Routing) else Entrant(cls.__name__, _stepped_by(cls))


def _stepped_by(cls: Any) -> Make:
    return lambda named, lr: cls([p for _, p in named], lr=lr)


def _programs(what: Program | Routing) -> list[Program]:
    return [case.program for case in what.cases] if isinstance(what, Routing) else [what]


def _asks_again(what: Program | Routing) -> bool:
    return any(program.uses(op) for program in _programs(what) for op in ASKING)


def _tuned(what: Program | Routing) -> bool:
    """Whether there is one step size: `lr`, or that of the only called rule; in a route, one for each rule."""
    return all(sum(h.name.rpartition(".")[2] == "lr" for h in p.hypers) == 1 or _has_lr(p) for p in _programs(what))


def _has_lr(program: Program) -> bool:
    return any(h.name == "lr" for h in program.hypers)


def _made(cls: Any, what: Program | Routing, named: Named, step_size: float) -> Optimizer:
    made: Optimizer = cls(named, **_settings(cls, what, step_size) if _tuned(what) else {})
    return made


def _settings(cls: Any, what: Program | Routing, step_size: float) -> dict[str, Any]:
    """In a route the step size is that of its first rule; the others keep their ratio to it."""
    if not isinstance(what, Routing):
        return {"lr": step_size}
    lrs = {case.label: case.settings.defaults["lr"] for case in cls.cases}
    first = next(iter(lrs.values()))
    return {label: {"lr": lr * step_size / first} for label, lr in lrs.items()}


def _torch_optimizer(name: str) -> Any:
    import torch

    known = [n for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)]
    if name not in known or name in ("Optimizer", "LBFGS", "SparseAdam"):
        near = did_you_mean(name, known)
        raise RaceError(
            f"{YARDSTICK}{name}", "torch.optim has no such optimizer to race", f"did you mean `{near}`?" if near else "try torch:AdamW"
        )
    return getattr(torch.optim, name)
