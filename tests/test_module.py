"""Generated modules compute what the reference computes, and no more than they need."""

from __future__ import annotations

import itertools
import random
import re
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from generated_module import load, run, same
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from module_features import FEATURES
from random_rules import texts
from stepping import finite
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import optlang


@pytest.mark.parametrize("name", FEATURES)
def test_as_the_reference(name: str) -> None:
    text = optlang.build(FEATURES[name])
    ours, wanted = load(text, "R"), run(optlang.loads(FEATURES[name], backend="reference"))[0]
    for more in ({}, *[{"capturable": True}] * ("cannot be capturable" not in text)):
        same(run(ours, **more)[0], wanted)


@given(texts())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_rule_as_the_reference(text: str) -> None:
    """Names, places, orders and in-place changes never alter what is computed."""
    theirs = run(optlang.loads(text, backend="reference"), steps=3)[0]
    assume(all(p.isfinite().all() for p in theirs.parameters()))
    same(run(load(optlang.build(text), "R"), steps=3)[0], theirs, 1e-9)


@given(st.integers(0, 2**32 - 1), st.booleans())
@example(524287, False)  # what two blocks of one condition need, inside of one of which it cannot stand
@settings(max_examples=60, deadline=None)
def test_any_order_of_blocks_and_states_as_the_reference(seed: int, dear: bool) -> None:
    text = blocks(random.Random(seed), dear)
    ours, theirs = load(optlang.build(text), "R"), run(optlang.loads(text, backend="reference"), steps=6)[0]
    for more in ({}, {"capturable": True}):
        same(run(ours, steps=6, **more)[0], theirs, 1e-9)


def blocks(source: random.Random, dear: bool = False) -> str:
    """States that read each other's old and new values, inside and outside of nested blocks; `dear`: what is not computed in vain."""
    names = ["a", "b", "c"]
    known = ["a", "b", "c", "g", "w", "t"]
    lines = [f"state {name} = {source.choice(['0', 'w', '1', 'lr'])}" for name in names]
    conditions = ["t > 2", "rank >= 2", "flag", "t > 4 or flag", "norm(g per model) > 0.3", "numel > 3"]

    def value() -> str:
        one, two = source.choice(known), source.choice(known)
        if dear and source.random() < 0.5:
            return f"{one}*quantile({two}*w, 0.4)"
        return source.choice([f"0.5*{one} + 0.1*{two}", f"{one} - 0.2*{two}", f"{one}", f"0.3*{one}*tanh({two})", f"max({one}, {two})/2"])

    for name in source.sample(names, 3):
        kind = source.randrange(4)
        if kind == 0:
            lines.append(f"{name}' = {value()}")
        elif kind == 1:
            lines.append(f"when {source.choice(conditions)} {{ {name}' = {value()} }}")
        elif kind == 2:
            inner = f"every 2 {{ {name}' = {value()} }} else {{ {name}' = {value()} }}"
            lines.append(f"when {source.choice(conditions)} {{ {inner} }} else {{ {name}' = {value()} }}")
        else:
            lines.append(f"when {source.choice(conditions)} {{ x{name} = {value()} {name}' = x{name} }} else {{ x{name} = {value()} }}")
            known.append(f"x{name}")
        known.append(f"{name}'")
    source.shuffle(lines)
    step = f"w' = w - lr*(g + 0.1*tanh({source.choice(known)} + {source.choice(known)}))"
    skipped = f"when {source.choice(conditions)} {{ {step} }}"
    return "rule R { hyper lr = 0.1 in (0, inf) hyper bool flag = true " + " ".join(lines) + f" {source.choice([step, skipped])} }}"


@pytest.mark.parametrize("name", FEATURES)
def test_low_precision(name: str) -> None:
    """States of 16-bit parameters are float32, and so is the arithmetic."""
    settings_ = {"seed": 3} if "draws" in name else {}
    ours, optimizer = run(load(optlang.build(FEATURES[name]), "R"), torch.bfloat16, 4, **settings_)
    theirs, _ = run(optlang.loads(FEATURES[name], backend="reference"), torch.bfloat16, 4, **settings_)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert p.dtype == torch.bfloat16
        finite(q)
        torch.testing.assert_close(p, q, rtol=0.05, atol=0.05)
    kept = {v.dtype for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)}
    assert torch.bfloat16 not in kept


def test_who_comes_later_takes_what_the_group_keeps() -> None:
    text, results = FEATURES["state per group"], []
    for cls in (load(optlang.build(text), "R"), optlang.loads(text, backend="reference")):
        late, first = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
        optimizer = cls([late, first])
        for step in range(3):
            late.grad, first.grad = torch.full((2,), 2.0) if step else None, torch.full((3,), 3.0)
            optimizer.step()
        results.append([*late.tolist(), *first.tolist()])
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_inputs_and_reports() -> None:
    text = """rule R { input noise per element "of the gradient"  input scale per model  input rate per group
      report size = norm(g per model)  report half = t/2  w' = w - 0.1*rate*scale*g/(1 + noise) }"""
    results = []
    for cls in (load(optlang.build(text), "R"), optlang.loads(text, backend="reference")):
        one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
        optimizer = cls([{"params": [one]}, {"params": [two]}])
        one.grad, two.grad = torch.ones(2), torch.ones(3)
        with pytest.raises(RuntimeError, match="needs optimizer.inputs"):
            optimizer.step()
        optimizer.inputs = {"noise": {one: torch.tensor([0.0, 1.0]), two: 3.0}, "scale": 0.5, "rate": {0: 1.0, 1: 2.0}}
        optimizer.step()
        results.append([*one.tolist(), *two.tolist(), optimizer.reports["size"], optimizer.reports["half"]])
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_one_number_is_an_input_of_every_group() -> None:
    text = "rule R { input rate per group w' = w - rate*g }"
    for cls in (load(optlang.build(text), "R"), optlang.loads(text, backend="reference")):
        params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
        optimizer = cls([{"params": [p]} for p in params])
        optimizer.inputs = {"rate": 0.25}
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        assert [p.mean().item() for p in params] == [0.75, 0.75]


def test_a_loop_that_may_not_be_longer() -> None:
    """Its length stays a setting up to the bound of that; what is too large to compare is written out."""
    text = FEATURES["two loops"].replace("4 in [0, 9]", "4 in [0, 4]")
    same(run(load(optlang.build(text), "R"))[0], run(optlang.loads(text, backend="reference"))[0])


def test_the_length_of_a_loop_stays_a_hyper() -> None:
    text = FEATURES["two loops"]
    ours, theirs = load(optlang.build(text), "R"), optlang.loads(text, backend="reference")
    for n in (0, 1, 7):
        same(run(ours, n=n)[0], run(theirs, n=n)[0])
    assert "for _ in range(n)" in optlang.build(text)


def test_parts_of_several_processes_are_refused_where_only_whole_parameters_would_do() -> None:
    p = nn.Parameter(torch.eye(2))
    p.device_mesh = None  # type: ignore[attr-defined]
    texts = {
        "sophiah": "products with the Hessian",
        "mezo": "asks the model",
        "rule R { state m = w m' = m @ m.T @ m w' = w - g eval = m' }": "makes the weights to evaluate with",
        "rule R { input c per row w' = w - c*g }": "takes inputs of whole ones",
        "rule R { w' = w - loss*max(g per row) }": "asks the model",
    }
    for text, why in texts.items():
        with pytest.raises(ValueError, match=f"several processes: this file .*{why}.*; the loaded rule takes parts"):
            load(optlang.build(text), optlang.Rule(text).name)([p])
    assert "several processes: this file" not in optlang.build("adamw")


def test_evaluation_weights_come_and_go_exactly() -> None:
    net, optimizer = run(load(optlang.build(FEATURES["average"]), "R"))
    _, theirs = run(optlang.loads(FEATURES["average"], backend="reference"))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.eval()
    theirs.eval()  # type: ignore[attr-defined]
    for p, q in zip(net.parameters(), (p for g in theirs.param_groups for p in g["params"]), strict=True):
        torch.testing.assert_close(p, q)
    assert not all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    optimizer.train()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_parameters_without_gradient_and_maximize() -> None:
    cls = load(optlang.build("sgd"), "SGD")
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = cls([still, moving], lr=0.5, maximize=True)
    moving.grad = torch.ones(2)
    optimizer.step()
    assert still.tolist() == [1, 1] and moving.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("around", [nullcontext, FakeTensorMode])
@pytest.mark.parametrize("all_know", ["", "*max(1, norm(g per model))"])  # with values of all parameters, steps are counted elsewhere
def test_one_side_of_a_choice_by_the_step_is_computed(around: Any, all_know: str) -> None:
    """Slow weights move in every k-th step alone, also where tensors have no numbers."""
    rule = f"rule R {{ hyper int k = 3 in [1, inf) state slow = w x = w - 0.1*g{all_know} " \
           "every k { slow' = (slow + x)/2 w' = slow' } else { w' = x } }"
    text = optlang.build(rule)
    assert re.search(r"for holds in _sides\(t % k == 0, slow, param\):\n +if holds:", text)
    with around():
        p, seen = nn.Parameter(torch.ones(3)), []
        optimizer = load(text, "R")([p])
        for _ in range(6):
            p.grad = torch.ones(3)
            optimizer.step()
            seen.append(optimizer.state[p]["slow"]._version)
    assert [b - a for a, b in itertools.pairwise([0, *seen])] == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("text", [
    "rule R { state q = 0 every 3 { q' = g @ g.T @ g } w' = w - 0.1*q' }",
    "rule R { state q = 0 every 3 { q' = normal() } w' = w - 0.1*q' }",
    "rule R { state q = 0 every 3 { x = g @ g.T @ g } else { x = q } q' = 0.5*x + q w' = w - 0.1*(x + q) }",
    "rule R { state s = 1 every 3 { x = quantile(g, 0.3) } else { x = s } when t > 2 { y = x*s } else { y = quantile(w*x, 0.9) } "
    "s' = 0.9*s + x w' = w - 0.1*y*g*s' }",
])
def test_what_is_dear_is_computed_in_its_steps_alone(text: str) -> None:
    """And in all steps where a graph may hold them, to the same end."""
    cls, found = load(optlang.build(text), "R"), []
    for capturable in (False, True):
        p = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 5.0], [-1.0, 0.5]], dtype=torch.float64))
        optimizer = cls([p], capturable=capturable)
        with Dear() as dear:
            for k in range(6):
                p.grad = torch.linspace(k - 1.0, k + 0.5, 6).cos().reshape(3, 2).double()
                optimizer.step()
        found.append((p, dear.count))
    assert torch.equal(found[0][0], found[1][0])
    assert 0 < found[0][1] < found[1][1]


class Dear(TorchDispatchMode):
    """Counts sorts, products of matrices and draws."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.__name__.partition(".")[0] in ("sort", "mm", "bmm", "arange")
        return function(*args, **(kwargs or {}))
