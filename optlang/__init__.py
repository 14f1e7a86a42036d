"""Write optimizers as equations: `.opt` files, compiled to `torch.optim.Optimizer` classes.

    import optlang
    Lion = optlang.load("lion")                      # or a path
    optimizer = Lion(model.parameters(), lr=1e-4)

`load`, `loads`: an optimizer class from a library name, file or text. `Rule`: its equations, LaTeX, generated module.
`check`: findings about a text. `build`: generated source. `equivalent`: whether two rules are the same. `diff`: what
differs between them. `release_gradients`: steps inside `backward`. `torch_state_dict`: a checkpoint for torch's own class.
`race`: training of one model with several rules. `search`: program search from a rule. `OptError`: what a wrong text raises.
Importing this package imports neither torch nor SymPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optlang.errors import Diagnostic, OptError
    from optlang.loading import load, loads
    from optlang.rules import Rule, build, check, diff, equivalent
    from optlang.runtime.checkpoints.to_torch import torch_state_dict
    from optlang.runtime.steps.release import release_gradients

__version__ = "0.1.0"
__all__ = ["Diagnostic", "OptError", "Rule", "build", "check", "diff", "equivalent", "load", "loads", "race", "release_gradients",
           "search", "torch_state_dict"]  # fmt: skip

CALLED = ("race", "search")  # packages that can be called
_HOMES = {
    "optlang.errors": ["Diagnostic", "OptError"],
    "optlang.loading": ["load", "loads"],
    "optlang.rules": ["Rule", "build", "check", "diff", "equivalent"],
    "optlang.runtime.steps.release": ["release_gradients"],
    "optlang.runtime.checkpoints.to_torch": ["torch_state_dict"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `optlang check` starts quickly."""
    if name in CALLED:
        return import_module(f"optlang.{name}")
    if name not in _HOME:
        is_rule = name[:1].isupper() and name.lower() in import_module("optlang.library").names()
        advice = f'; a rule is loaded: `optlang.load("{name.lower()}")`' if is_rule else ""
        raise AttributeError(f"module 'optlang' has no attribute {name!r}{advice}")
    from optlang.resources import uncollected  # noqa: PLC0415 - Ctrl-C is a line once `__main__` runs, which is after this module

    with uncollected():
        value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
