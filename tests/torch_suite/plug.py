"""A pytest plugin: torch's own tests of optimizers find the library's rules in place of torch's optimizers.

Each rule is tested for what it claims. Whatever a rule claims not to do is said here, with the reason.
OPTLANG_SUITE_RULES names some rules of the library instead of all.
"""

from __future__ import annotations

import os
import unittest
from copy import deepcopy
from typing import Any

import torch
from torch.testing._internal import common_optimizers as theirs
from torch.testing._internal.common_methods_invocations import DecorateInfo

import optlang
from optlang import library
from optlang.ir import Routing
from optlang.runtime.facts import facts_of, lacks_rank, mixes_elements

# Tests that no optimizer can pass which is as its rule says.
SKIPPED = {
    "test_step_is_noop_for_zero_grads": {
        "Gravity": "draws its first state", "SophiaH": "needs a closure with a graph",
    },
    "test_second_order_optims_return_consistent_types": dict.fromkeys(["every"], "gives settings of LBFGS"),
}  # fmt: skip
# Step sizes for the suite's small quadratic, where those that the rule was made for are not for 20 steps there.
STEP_SIZES: dict[str, float] = {}


def claims() -> dict[str, Any]:
    """The rules by class name. Left out are those for matrices alone, for the suite has vectors, and routes, which take settings by rule."""
    chosen = os.environ.get("OPTLANG_SUITE_RULES", "").split() or library.names()
    found = {}
    for name in chosen:
        cls: Any = optlang.load(name)
        if isinstance(cls.rule, Routing) or lacks_rank(cls.rule, facts_of(torch.zeros(3)), cls.cases[0].settings.defaults):
            continue
        found[cls.__name__] = cls
    return found


def inputs(cls: Any) -> Any:
    """Settings to test a rule with: as it is, with other step sizes, with decay, upwards."""
    settings = cls.cases[0].settings.group_defaults()
    has_decay = "weight_decay" in settings
    plain: dict[str, Any] = {"weight_decay": 0.0} if has_decay else {}
    if cls.__name__ in STEP_SIZES:
        plain["lr"] = STEP_SIZES[cls.__name__]
    found = [(plain, "as it is"), ({**plain, "maximize": True}, "upwards")]
    if has_decay:
        found += [({**plain, "weight_decay": 0.1}, "decay"), ({**plain, "weight_decay": 0.1, "maximize": True}, "decay, upwards")]
    if "lr" in settings:
        lr = plain.get("lr", settings["lr"])
        found += [({**plain, "lr": lr / 2}, "half the step size"), ({**plain, "lr": torch.tensor(lr)}, "step size in a tensor")]
    if len(settings.get("betas", ())) == 2:
        found.append(({**plain, "betas": tuple(torch.tensor(b) for b in settings["betas"])}, "betas in tensors"))
    return lambda device, dtype=None: [theirs.OptimizerInput(params=None, kwargs=deepcopy(k), desc=d) for k, d in found]


def errors(cls: Any) -> Any:
    """What every optimizer must refuse; rules without a step size need not know it."""
    has_lr = "lr" in cls.cases[0].settings.group_defaults()

    def given(device: Any, dtype: Any) -> list[Any]:
        found = theirs.get_error_inputs_for_all_optims(device, dtype)
        return [e for e in found if has_lr or "lr" not in str(e.optimizer_error_input.kwargs)]

    return given


def info(name: str, cls: Any) -> theirs.OptimizerInfo:
    named: Any = type(cls)(f"Rule{name}", (cls,), {})  # the suite knows some names of torch's and treats them apart
    elementwise = not mixes_elements(cls.rule, facts_of(torch.zeros(3)), cls.cases[0].settings.defaults)
    skips = [
        DecorateInfo(unittest.skip(reasons.get(name) or reasons["every"]), "TestOptimRenewed", test)
        for test, reasons in SKIPPED.items() if name in reasons or "every" in reasons
    ]  # fmt: skip
    return theirs.OptimizerInfo(
        named,
        optim_inputs_func=inputs(cls),
        optim_error_inputs_func=errors(cls),
        supported_impls=("foreach", "fused"),
        supports_fused_on=("cpu",),
        not_og_supported_flags=("foreach", "fused", "differentiable", "maximize", "capturable"),
        supports_complex=elementwise,
        step_requires_closure=cls.asks_again,
        skips=tuple(skips),
    )


torch.set_num_threads(1)
theirs.optim_db[:] = [info(name, cls) for name, cls in claims().items()]
