"""A pytest plugin: torch's own tests of optimizers find the library's rules in place of torch's optimizers.

Each rule is tested for what it claims. Whatever a rule claims not to do is said here, with the reason.
OPTLANG_SUITE_RULES names some rules of the library instead of all, OPTLANG_SUITE_RESULTS a file for what was found, as JSON.
OPTLANG_SUITE_MODULES=1 puts the generated module of each rule in its place.
"""

from __future__ import annotations

import json
import os
import re
import unittest
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.testing._internal import common_optimizers as theirs
from torch.testing._internal.common_methods_invocations import DecorateInfo

import optlang
from optlang import library
from optlang.ir import Routing
from optlang.printing.emit import identifier
from optlang.runtime.differentiable import refuses
from optlang.runtime.facts import facts_of, mixes_elements

# Tests that a rule cannot pass and be what its text says; `closures` are the rules that ask the model more than once, `hvp` those
# that ask it for products with the Hessian.
OWN_SCALE = "the size of its steps is not proportional to lr"
ONE_MODEL = "its values per model are of one lr for all groups"
NO_CLOSURE = "the test steps without a closure"
NO_GRAPH = "the test's closure has no graph"
FINDS_ITS_OWN = "the rule finds the size of its steps from the loss, from distances or from earlier steps"
FINDING = ["ADoG", "AdamHD", "ALIG", "CDoWG", "DAdaptSGD", "DoG", "DoWG", "FedHyperG", "FedHyperSL", "InducedMetric", "InducedMetricLog",
           "InducedMetricRMS", "LDoG", "SANIAAdagrad", "SANIAAdam", "SGDHD", "SGDSaI", "SPS", "SPSSmooth"]  # fmt: skip
SKIPPED = {
    "test_forloop_goes_right_direction": dict.fromkeys(FINDING, FINDS_ITS_OWN) | {"Scion": "its steps shrink weights, also upwards"},
    "test_tensor_lr": {"no lr": "the rule has no lr"},
    "test_load_state_dict_post_hook": {"no lr": "the rule has no lr"},
    "test_step_is_noop_for_zero_grads": {
        **dict.fromkeys(["Fromage", "Scion"], "its steps shrink weights"), "Yogi": "its first mean is not 0", "hvp": NO_GRAPH,
        "EntropySGD": "its steps are noisy", "ZORankSGD": "it reads the order of losses, also of equal ones",
    },
    "test_param_groups_lr": {
        **dict.fromkeys([*FINDING, "UDoG"], FINDS_ITS_OWN), "Scion": OWN_SCALE, "closures": NO_CLOSURE,
        "AdaBound": OWN_SCALE, "AMSBound": OWN_SCALE, "CoRe": OWN_SCALE, "CoReFrozen": OWN_SCALE,
        "Rprop": OWN_SCALE, "Gravity": OWN_SCALE, **dict.fromkeys(["DAdaptAdam", "Prodigy", "SWATS", "LocalSGD", "FedHyperCL"], ONE_MODEL),
    },
    "test_param_group_with_lrscheduler_goes_right_direction": {
        **dict.fromkeys(FINDING, FINDS_ITS_OWN), "Gravity": OWN_SCALE,
        **dict.fromkeys(["DAdaptAdam", "Prodigy", "LocalSGD", "OASIS"], ONE_MODEL),
        **dict.fromkeys(["AddSign", "PowerSign", "ScheduleFreeSGD", "QHM"], "its default lr is too large for the test's bowl"),
        "PerParameterMLP": "the test gives it no network",
        **dict.fromkeys(["MeZO", "ZOCoordinates"], "along drawn directions the test's lr is too large"),
    },
    "test_param_groups_weight_decay": {**dict.fromkeys(FINDING, FINDS_ITS_OWN), "Scion": OWN_SCALE, "closures": NO_CLOSURE},
    "test_deepcopy_copies_all_public_attrs": {"hvp": NO_GRAPH},
    "test_load_nontensor_step": {"hvp": NO_GRAPH},
    "test_non_empty_state": {"hvp": NO_GRAPH},
    "test_second_order_optims_return_consistent_types": {"closures": "the test sets tolerances, which are those of LBFGS"},
}  # fmt: skip
MODULES = "OPTLANG_SUITE_MODULES" in os.environ
# A network that goes along the mean gradient over its root mean square; as the rule comes it has none, and stands still.
NETWORK = {"first[26,1]": 1.0, "first[26,2]": -1.0, "second[1,1]": 1.0, "second[2,2]": 1.0, "third[1,1]": 1.0, "third[2,1]": -1.0}
# Settings for the suite's small bowl, where those that the rule was made for are not for 20 steps there.
TUNED: dict[str, dict[str, Any]] = {
    "AddSign": {"lr": 0.01}, "PowerSign": {"lr": 0.01}, "ScheduleFreeSGD": {"lr": 0.01}, "QHM": {"lr": 0.01},
    "ZOCoordinates": {"lr": 1e-3}, "Gravity": {"lr": 0.1, "alpha": 0.0},
    "PerParameterMLP": {"lr": 0.01, **{identifier(name) if MODULES else name: x for name, x in NETWORK.items()}},
    "EntropySGD": {"inner_lr": 0.01}, "Ranger21": {"total": 1000, "rise": 1e-3},
    "DAdaptAdam": {"d0": 1e-2, "growth": 1.1}, "Prodigy": {"d0": 1e-2, "growth": 1.1},
    **{name: {"lr": 0.002} for name in ("MARSAdamW", "MARSAdamWExact", "MARSLion", "MARSLionExact")},  # 0.003 is the suite's own
}  # fmt: skip
SPARSE: dict[str, Any] = {  # rules that leave elements without gradient as they are, with settings for the suite's valley
    "SGD": {"lr": 4.8e-3, "weight_decay": 0, "maximize": False}, "SignSGD": {"lr": 1e-3, "weight_decay": 0, "maximize": False},
    "Adagrad": {"lr": 0.1, "weight_decay": 0},
}  # fmt: skip
DECAY = {"LaProp": 1e-4, "Ranger21": 1e-4}  # a share of the weights, not times lr; over a root of the clipped gradient's square


LEFT_OUT: dict[str, str] = {}  # by class name
FILES: dict[str, str] = {}  # by class name, what the library calls it


def claims() -> dict[str, Any]:
    """The rules by class name, without those that cannot take the suite's parameters or settings."""
    chosen = os.environ.get("OPTLANG_SUITE_RULES", "").split() or library.names()
    classes: dict[str, Any] = {cls.__name__: cls for cls in map(optlang.load, chosen)}
    FILES.update(zip(classes, chosen, strict=True))
    LEFT_OUT.update({name: reason for name, cls in classes.items() if (reason := _left_out(cls))})
    return {name: cls for name, cls in classes.items() if name not in LEFT_OUT}


def _left_out(cls: Any) -> str:
    if isinstance(cls.rule, Routing):
        return "a route takes settings by rule"
    return "" if _takes_vectors(cls) else "for matrices alone, and the suite has vectors"


def _takes_vectors(cls: Any) -> bool:
    params = [torch.zeros(3, requires_grad=True), torch.zeros(3, 2, requires_grad=True)]
    try:
        optimizer = supplied(cls, cls.rule)(params)
        for p in params:
            p.grad = torch.ones_like(p)
        if not cls.asks_again:
            optimizer.step()
    except (ValueError, RuntimeError):
        return False
    return True


def supplied(cls: Any, rule: Any) -> Any:
    """The class; where its rule asks the loop for values, all of them are per element, and 1 in every step here."""
    wanted = [] if isinstance(rule, Routing) else [i.name for i in rule.inputs]
    if not wanted:
        return cls

    def step(self: Any, closure: Any = None) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"]]
        values = {p: torch.ones_like(torch.view_as_real(p) if p.is_complex() else p).detach() for p in parameters}
        self.inputs.update(dict.fromkeys(wanted, values))
        return cls.step(self, closure)

    return type(cls)(cls.__name__, (cls,), {"step": step})


def inputs(cls: Any) -> Any:
    """Settings to test a rule with: as it is, with other step sizes, with decay, upwards."""
    settings = cls.cases[0].settings.group_defaults()
    has_decay = "weight_decay" in {*settings, *cls.cases[0].settings.naming.short}
    plain = {**TUNED.get(cls.__name__, {}), **({"weight_decay": 0.0} if has_decay else {})}
    found = [(plain, "as it is"), ({**plain, "maximize": True}, "upwards")]
    if has_decay:
        decayed = {**plain, "weight_decay": DECAY.get(cls.__name__, 0.1)}
        found += [(decayed, "decay"), ({**decayed, "maximize": True}, "decay, upwards")]
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


def module_of(name: str, cls: Any) -> Any:
    """The class of a rule in a module of its own, as a user has it in a file."""
    space: dict[str, Any] = {"__name__": f"module_of_{name}"}
    exec(compile(optlang.build(FILES[name]), space["__name__"], "exec"), space)
    return space[name]


def impls(cls: Any) -> tuple[str, ...]:
    """The ways of stepping beside the plain one."""
    if cls.asks_again:
        return ()
    return ("foreach", "fused") if refuses(cls.rule) else ("foreach", "fused", "differentiable")


def info(name: str, cls: Any) -> theirs.OptimizerInfo:
    base: Any = supplied(module_of(name, cls) if MODULES else cls, cls.rule)
    named: Any = type(base)(f"Rule{name}", (base,), {})  # the suite knows some names of torch's and treats them apart
    defaults = cls.cases[0].settings.defaults
    elementwise = not any(mixes_elements(cls.rule, facts_of(torch.zeros(shape)), defaults) for shape in ((), (3,), (3, 2)))
    has_lr = "lr" in cls.cases[0].settings.group_defaults()
    known = [name, *(["closures"] if cls.asks_again else []), *(["hvp"] if cls.rule.uses("hvp") else []), *([] if has_lr else ["no lr"])]
    reasons = {test: reason for test, rules in SKIPPED.items() for who, reason in rules.items() if who in known}
    return theirs.OptimizerInfo(
        named,
        optim_inputs_func=inputs(cls),
        optim_error_inputs_func=errors(cls),
        supported_impls=impls(cls),
        supports_fused_on=() if MODULES else ("cpu",),  # modules take the word, and have no such kernel
        not_og_supported_flags=("foreach", "fused", "differentiable", "maximize", "capturable"),
        supports_complex=not MODULES and elementwise and not cls.rule.uses("random"),  # the suite's two real parameters draw other numbers
        supports_sparse=not MODULES and name in SPARSE,
        metadata_for_sparse=(SPARSE.get(name, {}), [lambda o: StepLR(o, gamma=0.9999, step_size=300), ReduceLROnPlateau]),
        step_requires_closure=cls.asks_again,
        skips=tuple(DecorateInfo(unittest.skip(reason), "TestOptimRenewed", test) for test, reason in reasons.items()),
    )


# ------------------------------------------------------------------------------------------------------- results

OUTCOMES: dict[str, dict[str, str]] = {}  # by rule and test: "passed", "failed" or why it was skipped


def pytest_runtest_logreport(report: Any) -> None:
    found = re.search(r"::(\w+)_Rule(\w+?)_cpu", report.nodeid)
    if found is None or (report.passed and report.when != "call"):
        return
    test = report.nodeid.partition("::")[2]
    outcomes = OUTCOMES.setdefault(found[2], {})
    reason = report.longrepr[2].removeprefix("Skipped: ") if report.skipped and isinstance(report.longrepr, tuple) else report.outcome
    if outcomes.get(test) != "failed":
        outcomes[test] = reason


def pytest_sessionfinish() -> None:
    if path := os.environ.get("OPTLANG_SUITE_RESULTS"):
        Path(path).write_text(json.dumps({"outcomes": OUTCOMES, "left out": LEFT_OUT}))


torch.set_num_threads(1)
theirs.optim_db[:] = [info(name, cls) for name, cls in claims().items()]
