"""Steps that autograd goes through: gradients of every rule and its module, of hypers, and learning to learn. 30 seconds.

OPTLANG_EVERYTHING=1 asks all rules that autograd can go through, most of them away from their kinks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch
from stepping import finite
from torch import Tensor

import optlang
from optlang import ir, library
from optlang.ir import Program, Routing
from optlang.ops import ASKING
from optlang.runtime.facts import facts_of, mixes_elements
from optlang.runtime.steps.differentiable import refuses

MIXED = ["lamb", "lars", "adafactor", "muon", "dog", "prodigy", "adamcm"]  # with kinks, which compare elements or treat matrices
KINKED = frozenset(["sign", "abs", "maximum", "minimum", "where", "branch", "lt", "le", "gt", "ge", "eq", "ne", "floor", "ceil", "round",
                    "mod", "amax", "amin", "quantile", "descending", "eigenvectors", "isnan", "isfinite"])  # fmt: skip
MOVING = frozenset(["w", "g", "state", "input"])


SMOOTH = {  # which no operator keeps from having a derivative everywhere, but at a root of 0
    "adadelta", "adagrad", "adagradnorm", "adagradsubsetnorm", "adabelief", "adam", "adamomentum", "adamw", "adamwsubsetnorm", "adan",
    "ademamix", "innaprop", "nadam", "nadamw", "qhadam", "radam", "randomscaledadamw", "fedhypersl", "sgdsai", "inducedmetric",
    "inducedmetricrms", "scioncolumns", "scionrows", "trustregioncolumns", "trustregionfrobenius", "trustregionrows", "momentum",
    "nesterov", "qhm", "randomscaledmomentum", "sgd", "sgdw", "entropysgd", "lookahead", "loraggpo", "adagradsubsetnormlines",
    "adamwsubsetnormlines", "adamc", "asgd", "madgrad", "simplifiedademamix", "adamatan2", "bcos", "kourkoutas",
    "novograd",
}  # fmt: skip
SETTINGS = {"dion": {"r": 1}}  # of a matrix of two rows
OPEN = {name: {"growth": 1e6} for name in ("dadaptadam", "dadaptsgd", "prodigy")}  # modules multiply by a bound that is left open, infinity
ROOTS_OF_0 = {"adamcm"}  # its first direction and the mean of its squares are 0, where roots have no derivative
STATED = {"shampoo"}  # whose states are positive definite: no random numbers in their place


def kinks(program: Program) -> list[str]:
    """The operators of what changes with weights, gradients and states that have a kink or a jump; of a choice its condition counts."""
    roots = [program.weights, *program.updates.values()]
    moves = ir.fold(roots, lambda node, args: node.op in MOVING or any(args))
    kinked = [node for node in ir.walk(roots) if node.op in KINKED]
    return sorted({n.op for n in kinked if moves[n.args[0] if n.op in ("where", "branch") else n]})


def programs() -> dict[str, Program]:
    found = {name: optlang.Rule(name).program for name in library.names()}
    return {name: p for name, p in found.items() if not isinstance(p, Routing)}


PROGRAMS = programs()


def rules() -> list[str]:
    """Every smooth rule, those that go element by element, and some others or all."""
    shape, every = facts_of(torch.zeros(2, 2)), "OPTLANG_EVERYTHING" in os.environ
    return [n for n, p in PROGRAMS.items() if not refuses(p) and (
        every or n in SMOOTH or n in MIXED or not mixes_elements(p, shape, {h.name: h.default for h in p.hypers}))]  # fmt: skip


def test_every_rule_is_smooth_or_it_is_known_why_not() -> None:
    """It has kinks, which are checked away from them, or asks the model again; a route is of rules that are here themselves."""
    asking = {name for name, p in PROGRAMS.items() if any(p.uses(op) for op in ASKING)}
    rough = {name for name, p in PROGRAMS.items() if kinks(p)} - asking
    assert set(PROGRAMS) == SMOOTH | rough | asking and not SMOOTH & (rough | asking)
    assert {name for name in PROGRAMS if refuses(PROGRAMS[name])} == asking
    assert set(rules()) >= SMOOTH
    assert (len(SMOOTH), len(asking)) == (45, 23)


@cache
def class_of(name: str, kind: str) -> Any:
    """The optimizer of a rule, loaded or of a module of its own."""
    if kind == "loaded":
        return optlang.load(name)
    space: dict[str, Any] = {"__name__": f"module_of_{name}"}
    exec(compile(optlang.build(name, baked=SETTINGS.get(name)), space["__name__"], "exec"), space)
    cls = space[PROGRAMS[name].name]
    cls.rule = PROGRAMS[name]
    return cls


def settings_of(name: str, kind: str) -> dict[str, Any]:
    return SETTINGS.get(name, {}) if kind == "loaded" else OPEN.get(name, {})


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def started(cls: Any, p: Tensor, **settings: Any) -> dict[str, Tensor]:
    """The states after some ordinary steps."""
    optimizer = cls([p], **settings)
    for seed in range(2):
        p.grad = some(*p.shape, seed=seed)
        give_inputs(optimizer, p)
        optimizer.step()
    return {name: value.detach().clone() for name, value in optimizer.state[p].items()}


def moving_of(state: dict[str, Tensor]) -> list[Tensor]:
    """Values near 1 for the states that are numbers, far from kinks and large beside what differences are taken over."""
    reals = [value for name, value in state.items() if value.is_floating_point() and name != "step"]
    return [(1 + 0.2 * some(*value.shape, seed=20 + i)).requires_grad_() for i, value in enumerate(reals)]


def give_inputs(optimizer: Any, p: Tensor) -> None:
    for wanted in optimizer.rule.inputs:
        optimizer.inputs[wanted.name] = {p: some(*p.shape, seed=9) ** 2 + 0.5}


def step(cls: Any, settings: dict[str, Any], state: dict[str, Tensor], p: Tensor, gradient: Tensor, *moving: Tensor) -> tuple[Tensor, ...]:
    """One step of a clone; new weights and states."""
    p = p.clone()
    p.grad = gradient
    optimizer = cls([p], **settings, differentiable=True)
    reals = [name for name, value in state.items() if value.is_floating_point() and name != "step"] if moving else []
    given = [value.clone() for value in moving]  # modules write into what is no leaf
    optimizer.state[p].update({key: value.clone() for key, value in state.items()} | dict(zip(reals, given, strict=True)))
    give_inputs(optimizer, p)
    optimizer.step()
    after = optimizer.state[p]
    return (p, *(after[name] for name in reals if after[name].requires_grad))


@pytest.mark.parametrize("kind", ["loaded", "module"])
@pytest.mark.parametrize("name", rules())
def test_gradients_of_every_rule(name: str, kind: str) -> None:
    cls, settings = class_of(name, kind), settings_of(name, kind)
    shape = (2, 2)
    state = started(cls, some(*shape, seed=5).requires_grad_(), **settings)
    p, gradient = some(*shape, seed=6).requires_grad_(), some(*shape, seed=7).requires_grad_()
    moving = [] if name in STATED else moving_of(state)
    assert torch.autograd.gradcheck(lambda *given: step(cls, settings, state, *given), (p, gradient, *moving), atol=1e-6)


@pytest.mark.parametrize("name", rules())
def test_modules_carry_gradients_through_many_steps(name: str) -> None:
    """Each step writes over what the graph of those before was made of."""
    found = []
    for kind in ("loaded", "module"):
        start = some(3, 2, seed=1).requires_grad_()
        p = start.clone()
        optimizer = class_of(name, kind)([p], differentiable=True, **(OPEN.get(name, {}) | settings_of(name, kind)))
        gradients = [some(3, 2, seed=10 + seed).requires_grad_() for seed in range(3)]
        for gradient in gradients:
            p.grad = gradient
            give_inputs(optimizer, p)
            optimizer.step()
        found.append(torch.autograd.grad((p * some(3, 2, seed=2)).sum(), [start, *gradients], allow_unused=True, materialize_grads=True))
    for theirs, ours in zip(*found, strict=True):
        if name not in ROOTS_OF_0:
            finite(theirs)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9, equal_nan=name in ROOTS_OF_0)


@pytest.mark.parametrize("name", [*rules(), *(n for n in ["dowg"] if n not in rules())])
def test_the_steps_are_those_of_the_rule(name: str) -> None:
    cls: Any = optlang.load(name)
    plain = some(3, 2, seed=1).requires_grad_()
    start = some(3, 2, seed=1).requires_grad_()
    through = start.clone()
    one, other = cls([plain]), cls([through], differentiable=True)
    for seed in range(4):
        for optimizer, p in ((one, plain), (other, through)):
            p.grad = some(3, 2, seed=10 + seed)
            give_inputs(optimizer, p)
            optimizer.step()
    finite(plain)
    torch.testing.assert_close(plain, through, rtol=1e-9, atol=1e-12)
    for key, value in one.state[plain].items():
        torch.testing.assert_close(other.state[through][key], value, rtol=1e-9, atol=1e-12, equal_nan=True)


def inside(name: str) -> dict[str, Tensor]:
    """The settings of a rule that are real numbers, away from their bounds."""
    found = {}
    for h in (h for h in PROGRAMS[name].hypers if h.kind == "real" and not h.baked):
        low, high = (h.bounds.low, h.bounds.high) if h.bounds else (-math.inf, math.inf)
        number = min(max(float(h.default), low + 0.01), high - 0.01)
        found[h.name] = torch.tensor(number or 0.01, dtype=torch.float64, requires_grad=True)
    return found


@pytest.mark.parametrize("name", sorted((SMOOTH - ROOTS_OF_0) | {"dog", "lamb", "lion", "muon", "schedulefreeradam", "swats"}))
def test_gradients_of_settings(name: str) -> None:
    """Every setting may be learned, through some steps of the rule or of its module; what was given stays in the groups."""
    settings, found = inside(name), []

    def after(kind: str, values: Iterable[Tensor]) -> Tensor:
        p = some(3, 2, seed=1).requires_grad_().clone()
        optimizer = class_of(name, kind)([p], differentiable=True, **dict(zip(settings, values, strict=True)))
        for seed in range(2):
            p.grad = some(3, 2, seed=10 + seed)
            give_inputs(optimizer, p)
            optimizer.step()
        assert all(x.requires_grad for x in (optimizer.param_groups[0][key] for key in settings if key in optimizer.param_groups[0]))
        moved = [p, *(x for x in optimizer.state[p].values() if x.requires_grad)]
        return torch.stack([(x * some(*x.shape, seed=2)).sum() for x in moved]).sum()

    for kind in ("loaded", "module"):
        found.append(torch.autograd.grad(after(kind, settings.values()), [*settings.values()], allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)
    assert torch.autograd.gradcheck(lambda *values: after("module", values), [*settings.values()], atol=1e-6)


def test_a_step_size_is_learned_through_many_steps() -> None:
    """The loss after ten steps has a gradient with respect to the first step size, and falls along it."""
    cls: Any = optlang.load("adamw")

    def final(lr: Tensor) -> Tensor:
        p = torch.tensor([3.0, -2.0], requires_grad=True).clone()
        optimizer = cls([p], lr=lr, differentiable=True)
        for _ in range(10):
            [p.grad] = torch.autograd.grad((p.clone() ** 2).sum(), [p], create_graph=True)  # p itself is written in place
            optimizer.step()
        return (p**2).sum()

    lr = torch.tensor(0.01, requires_grad=True)
    first = final(lr)
    for _ in range(20):
        [slope] = torch.autograd.grad(final(lr), [lr])
        lr = (lr - 1e-3 * slope.sign()).detach().requires_grad_()
    assert final(lr).item() < 0.9 * first.item()


def test_upwards_and_complex() -> None:
    cls: Any = optlang.load("momentum")
    gradient = torch.randn(3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def after(given: Tensor) -> Tensor:
        p = torch.ones(3, dtype=torch.complex128, requires_grad=True).clone()
        p.grad = given
        cls([p], lr=0.5, maximize=True, differentiable=True).step()
        return p

    assert torch.autograd.gradcheck(after, (gradient,))
    torch.testing.assert_close(after(gradient), 1 + 0.5 * gradient)


def test_leaves_are_refused_before_anything_moves() -> None:
    p = torch.ones(2, requires_grad=True)
    optimizer: Any = optlang.load("sgd")([p], differentiable=True)
    p.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match=r"parameter 0 of group 0 is a leaf of the graph.*give the optimizer clones"):
        optimizer.step()
    assert p.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="can't optimize a non-leaf Tensor"):
        optlang.load("sgd")([p.clone()])


@pytest.mark.parametrize(("name", "why"), [("sam", "asks the model again"), ("sps", "asks the model again")])
def test_what_autograd_cannot_go_through_is_refused_at_once(name: str, why: str) -> None:
    cls: Any = optlang.load(name)
    with pytest.raises(ValueError, match=f"cannot be differentiable: it {why}"):
        cls([torch.ones(2, requires_grad=True)], differentiable=True)
    with pytest.raises(ValueError, match="cannot be differentiable"):
        cls([{"params": [torch.ones(2, requires_grad=True)], "differentiable": True}])


def test_one_group_of_several() -> None:
    start = torch.ones(2, requires_grad=True)
    inner, outer = start.clone(), torch.ones(2, requires_grad=True)
    cls: Any = optlang.load("adamw")
    optimizer = cls([{"params": [outer], "differentiable": False}, {"params": [inner]}], differentiable=True)
    outer.grad, inner.grad = torch.ones(2), start * 3
    optimizer.step()
    assert outer.is_leaf
    assert inner.grad_fn is not None
    assert optimizer.state[outer]["m"].grad_fn is None
    assert optimizer.state[inner]["m"].grad_fn is not None
