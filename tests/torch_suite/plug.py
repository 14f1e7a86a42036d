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
from optlang.runtime.facts import facts_of, mixes_elements
from optlang.runtime.steps.differentiable import refuses

# Tests that a rule cannot pass and be what its text says; `closures` are the rules that ask the model more than once, `hvp` those
# that ask it for products with the Hessian.
OWN_SCALE = "the size of its steps is not proportional to lr"
ONE_MODEL = "its values per model are of one lr for all groups"
NO_CLOSURE = "the test steps without a closure"
NO_GRAPH = "the test's closure has no graph"
GROUPS = "a route splits groups by rule, and the test takes the first for all parameters"
NAMES = "the route looks at names, which this test's parameters may lack"
NOISE = "the rule shakes frozen matrices anew, and has no lr"
FINDS_ITS_OWN = "the rule finds the size of its steps from the loss, from distances or from earlier steps"
FINDING = ["ADoG", "AdamHD", "ALIG", "CDoWG", "DAdaptSGD", "DoG", "DoWG", "FedHyperG", "FedHyperSL", "InducedMetric", "InducedMetricLog",
           "InducedMetricRMS", "LDoG", "SANIAAdagrad", "SANIAAdam", "SGDHD", "SGDSaI", "SPS", "SPSSmooth"]  # fmt: skip
SHRINKING = ["Scion", "ScionRows", "ScionSign"]
SKIPPED = {
    "test_can_load_from_to_named_state_dict": {"routes": GROUPS},
    "test_state_dict_deterministic": {"by name": NAMES},
    "test_errors": {"by name": NAMES, "modules of routes": "a module's route looks at parameters first, and the test has none"},
    "test_forloop_goes_right_direction": {
        **dict.fromkeys(FINDING, FINDS_ITS_OWN), "LoRAGGPO": NOISE,
        **dict.fromkeys(SHRINKING, "its steps shrink weights, also upwards"),
    },
    "test_tensor_lr": {"no lr": "the rule has no lr"},
    "test_load_state_dict_post_hook": {"no lr": "the rule has no lr"},
    "test_step_is_noop_for_zero_grads": {
        **dict.fromkeys(["Fromage", *SHRINKING, "ScionColumns"], "its steps shrink weights"), "Yogi": "its first mean is not 0",
        "hvp": NO_GRAPH, "EntropySGD": "its steps are noisy", "LoRAGGPO": NOISE,
        "ZORankSGD": "it reads the order of losses, also of equal ones",
    },
    "test_param_groups_lr": {
        **dict.fromkeys([*FINDING, "UDoG"], FINDS_ITS_OWN), "closures": NO_CLOSURE, "LoRAGGPO": NOISE,
        **dict.fromkeys(SHRINKING, OWN_SCALE),
        "AdaBound": OWN_SCALE, "AMSBound": OWN_SCALE, "CoRe": OWN_SCALE, "CoReFrozen": OWN_SCALE,
        "Rprop": OWN_SCALE, "Gravity": OWN_SCALE, **dict.fromkeys(["DAdaptAdam", "Prodigy", "SWATS", "LocalSGD", "FedHyperCL"], ONE_MODEL),
    },
    "test_param_group_with_lrscheduler_goes_right_direction": {
        **dict.fromkeys(FINDING, FINDS_ITS_OWN), "Gravity": OWN_SCALE, "LoRAGGPO": NOISE,
        **dict.fromkeys(["DAdaptAdam", "Prodigy", "LocalSGD", "OASIS"], ONE_MODEL),
        **dict.fromkeys(["AddSign", "PowerSign", "ScheduleFreeSGD", "QHM"], "its default lr is too large for the test's bowl"),
        **dict.fromkeys(["PerParameterMLP", "MuLO"], "the test gives it no network"),
        **dict.fromkeys(["MeZO", "ZOCoordinates"], "along drawn directions the test's lr is too large"),
    },
    "test_param_groups_weight_decay": {
        **dict.fromkeys(FINDING, FINDS_ITS_OWN), **dict.fromkeys(SHRINKING, OWN_SCALE), "closures": NO_CLOSURE, "LoRAGGPO": NOISE,
    },
    "test_deepcopy_copies_all_public_attrs": {"hvp": NO_GRAPH},
    "test_load_nontensor_step": {"hvp": NO_GRAPH},
    "test_non_empty_state": {"hvp": NO_GRAPH},
    "test_second_order_optims_return_consistent_types": {"closures": "the test sets tolerances, which are those of LBFGS"},
}  # fmt: skip
MODULES = "OPTLANG_SUITE_MODULES" in os.environ
# A network that goes along the mean gradient over its root mean square; as the rule comes it has none, and stands still.
NETWORK = {"first": [[1.0, -1.0, 0, 0] if i == 26 else [0.0] * 4 for i in range(1, 41)], "third": [[1.0, 0], [-1, 0], *[[0, 0]] * 3],
           "second": [[1.0, 0, 0, 0], [0, 1, 0, 0], *[[0] * 4] * 3]}  # fmt: skip
# Settings for the suite's small bowl, where those that the rule was made for are not for 20 steps there.
TUNED: dict[str, dict[str, Any]] = {
    "AddSign": {"lr": 0.01}, "PowerSign": {"lr": 0.01}, "ScheduleFreeSGD": {"lr": 0.01}, "QHM": {"lr": 0.01},
    "ZOCoordinates": {"lr": 1e-3}, "Gravity": {"lr": 0.1, "alpha": 0.0},
    **{name: {"lr": 0.01, **NETWORK} for name in ("PerParameterMLP", "MuLO")},
    "MuSGD": {"lr": 0.01}, "AdaHessian": {"lr": 1e-3}, "SGDP": {"lr": 0.01},
    "FRUGAL": {"signs": False},  # the bowl's gradients have rank 1: outside of the subspace is rounding, with signs
    "EntropySGD": {"inner_lr": 0.01}, "Ranger21": {"total": 1000, "rise": 1e-3},
    "DAdaptAdam": {"d0": 1e-2, "growth": 1.1}, "Prodigy": {"d0": 1e-2, "growth": 1.1},
    **{name: {"lr": 0.002} for name in ("MARSAdamW", "MARSAdamWExact", "MARSLion", "MARSLionExact", "MARSShampoo", "MARSShampooExact",
                                        "SOAP")},  # 0.003 is the suite's own
}  # fmt: skip
SPARSE: dict[str, Any] = {  # rules that leave elements without gradient as they are, with settings for the suite's valley
    "SGD": {"lr": 4.8e-3, "weight_decay": 0, "maximize": False}, "SignSGD": {"lr": 1e-3, "weight_decay": 0, "maximize": False},
    "Adagrad": {"lr": 0.1, "weight_decay": 0},
}  # fmt: skip
DECAY = {"LaProp": 1e-4, "Ranger21": 1e-4, "UnitAdamW": 1e-4}  # not times lr; over a root of the clipped square


BESIDE = """from {file} import {name}
from adamw import AdamW
route {name}Route {{ when rank >= 2 use {name}({rank}) otherwise use AdamW() }}
"""
RANK = "r = 2"  # the suite's matrices have 5 columns
TEXTS: dict[str, str] = {}  # by class name, what the library calls it, or the text of a route
BESIDE_ADAMW: list[str] = []  # the rules that are in a route of their own


def claims() -> dict[str, Any]:
    """The rules by class name; the suite has vectors, so those for matrices alone are in a route with AdamW for vectors."""
    chosen = os.environ.get("OPTLANG_SUITE_RULES", "").split() or library.names()
    classes: dict[str, Any] = {}
    for file in chosen:
        cls: Any = optlang.load(file)
        name = cls.__name__
        TEXTS[name], classes[name] = file, cls
        if not isinstance(cls.rule, Routing) and not _takes_vectors(cls):
            has_rank = "r" in cls.cases[0].settings.group_defaults()
            TEXTS[name] = BESIDE.format(file=file, name=name, rank=RANK if has_rank else "")
            classes[name] = optlang.loads(TEXTS[name], f"{name}Route")
            BESIDE_ADAMW.append(name)
    return classes


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


def programs(cls: Any) -> list[Any]:
    return [case.program for case in cls.cases]


def flat(base: Any, cls: Any) -> Any:
    """A route that takes settings as a rule does, giving each rule those that it has, and names to parameters where it looks at them."""
    if not isinstance(cls.rule, Routing):
        return base
    taken = {case.label: {*case.settings.group_defaults(), *case.settings.tables.short, *case.settings.naming.short} for case in cls.cases}

    def begin(self: Any, params: Any, **settings: Any) -> None:
        of_rules = {label: {key: value for key, value in settings.items() if key in names} for label, names in taken.items()}
        rest = {key: value for key, value in settings.items() if not any(key in names for names in taken.values())}
        base.__init__(self, params, **of_rules, **rest)

    def add(self: Any, group: dict[str, Any]) -> None:
        params = [group["params"]] if isinstance(group["params"], torch.Tensor) else list(group["params"])
        first = sum(len(other["params"]) for other in self.param_groups)
        named = [p if isinstance(p, tuple) else (f"layer{first + i}", p) for i, p in enumerate(params)]
        base.add_param_group(self, group if "param_names" in group else {**group, "params": named})

    return type(base)(base.__name__, (base,), {"__init__": begin} | ({"add_param_group": add} if by_name(cls) else {}))


def by_name(cls: Any) -> bool:
    """Whether a route looks at the names of parameters."""
    conditions = [case.condition for case in cls.rule.cases if case.condition] if isinstance(cls.rule, Routing) else []
    for condition in conditions:
        conditions += condition.args
    return any(condition.op == "named" for condition in conditions)


def defaults_of(cls: Any) -> dict[str, Any]:
    """What groups have at first, of a route those of its first rule; `lr` only where all rules have it."""
    groups = [case.settings.group_defaults() for case in cls.cases]
    return {key: value for key, value in groups[0].items() if key != "lr" or all(key in group for group in groups)}


def supplied(cls: Any, rule: Any) -> Any:
    """The class; where its rule asks the loop for values, all of them are per element, and 1 in every step here."""
    made = [case.program for case in rule.cases] if isinstance(rule, Routing) else [rule]
    wanted = [i.name for program in made for i in program.inputs]
    if not wanted:
        return cls

    def step(self: Any, closure: Any = None) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"]]
        values = {p: torch.ones_like(torch.view_as_real(p) if p.is_complex() else p).detach() for p in parameters}
        self.inputs.update(dict.fromkeys(wanted, values))
        return cls.step(self, closure)

    return type(cls)(cls.__name__, (cls,), {"step": step})


def inputs(name: str, cls: Any) -> Any:
    """Settings to test a rule with: as it is, with other step sizes, with decay, upwards."""
    settings = defaults_of(cls)
    has_decay = any("weight_decay" in {*case.settings.group_defaults(), *case.settings.naming.short} for case in cls.cases)
    plain = {**TUNED.get(name, {}), **({"weight_decay": 0.0} if has_decay else {})}
    found = [(plain, "as it is"), ({**plain, "maximize": True}, "upwards")]
    if has_decay:
        decayed = {**plain, "weight_decay": DECAY.get(name, 0.1)}
        found += [(decayed, "decay"), ({**decayed, "maximize": True}, "decay, upwards")]
    if "lr" in settings:
        lr = plain.get("lr", settings["lr"])
        found += [({**plain, "lr": lr / 2}, "half the step size"), ({**plain, "lr": torch.tensor(lr)}, "step size in a tensor")]
    if len(settings.get("betas", ())) == 2:
        found.append(({**plain, "betas": tuple(torch.tensor(b) for b in settings["betas"])}, "betas in tensors"))
    return lambda device, dtype=None: [theirs.OptimizerInput(params=None, kwargs=deepcopy(k), desc=d) for k, d in found]


def errors(cls: Any) -> Any:
    """What every optimizer must refuse; rules without a step size need not know it."""
    has_lr = "lr" in defaults_of(cls)

    def given(device: Any, dtype: Any) -> list[Any]:
        found = theirs.get_error_inputs_for_all_optims(device, dtype)
        return [e for e in found if has_lr or "lr" not in str(e.optimizer_error_input.kwargs)]

    return given


def module_of(name: str, cls: Any) -> Any:
    """The class of a rule in a module of its own, as a user has it in a file."""
    space: dict[str, Any] = {"__name__": f"module_of_{name}"}
    exec(compile(optlang.build(TEXTS[name]), space["__name__"], "exec"), space)
    return space[cls.rule.name]


def impls(cls: Any) -> tuple[str, ...]:
    """The ways of stepping beside the plain one."""
    if cls.asks_again:
        return ()
    return ("foreach", "fused") if any(map(refuses, programs(cls))) else ("foreach", "fused", "differentiable")


def info(name: str, cls: Any) -> theirs.OptimizerInfo:
    base: Any = flat(supplied(module_of(name, cls) if MODULES else cls, cls.rule), cls)
    named: Any = type(base)(f"Rule{name}", (base,), {})  # the suite knows some names of torch's and treats them apart
    defaults = cls.cases[0].settings.defaults
    plain = not isinstance(cls.rule, Routing)
    elementwise = plain and not any(mixes_elements(cls.rule, facts_of(torch.zeros(shape)), defaults) for shape in ((), (3,), (3, 2)))
    hvp = any(program.uses("hvp") for program in programs(cls))
    known = [name, *["closures"] * cls.asks_again, *["hvp"] * hvp, *["no lr"] * ("lr" not in defaults_of(cls)), *["routes"] * (not plain),
             *["by name"] * by_name(cls), *["modules of routes"] * (MODULES and not plain)]  # fmt: skip
    reasons = {test: reason for test, rules in SKIPPED.items() for who, reason in rules.items() if who in known}
    return theirs.OptimizerInfo(
        named,
        optim_inputs_func=inputs(name, cls),
        optim_error_inputs_func=errors(cls),
        supported_impls=impls(cls),
        supports_fused_on=() if MODULES else ("cpu",),  # modules take the word, and have no such kernel
        not_og_supported_flags=("foreach", "fused", "differentiable", "maximize", "capturable"),
        supports_complex=elementwise and not programs(cls)[0].uses("random"),  # as two real ones they draw others
        supports_sparse=name in SPARSE,
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
        Path(path).write_text(json.dumps({"outcomes": OUTCOMES, "beside AdamW": BESIDE_ADAMW}))


torch.set_num_threads(1)
theirs.optim_db[:] = [info(name, cls) for name, cls in claims().items()]
