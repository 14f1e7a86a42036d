"""Who races: library rules, rule files, and torch's own optimizers as yardsticks."""

from __future__ import annotations

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


def entrant(word: str, backend: str = "auto", math: Math = "safe") -> Entrant:
    """`adamw`, `my.opt`, `my.opt:Rule` or `torch:AdamW`. Raises OptError for a wrong rule, RaceError for a wrong word."""
    if word.startswith(YARDSTICK):
        return Entrant(word, _torch_optimizer(word.removeprefix(YARDSTICK)))
    from optlang.rules import Rule

    path, name = parted(word)
    rule = Rule(Path(path), name)
    cls = rule.optimizer(backend, math)
    shown = f"{Path(path).stem}:{name}" if name else Path(path).stem if path.endswith(".opt") else word
    return Entrant(shown, partial(_made, cls, rule.program), _asks_again(rule.program), _tuned(rule.program))


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
    cls = getattr(torch.optim, name)
    return lambda named, lr: cls([p for _, p in named], lr=lr)
