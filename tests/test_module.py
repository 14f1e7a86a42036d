"""Generated modules: standing alone, safe with hostile text, right beside the reference, and readable."""

from __future__ import annotations

import copy
import importlib
import inspect
import itertools
import os
import pickle
import random
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from random_rules import texts
from stepping import finite
from torch import Tensor, nn
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

import optlang
from optlang import library
from optlang.printing.identifiers import identifier

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of modules that torch deprecates while it imports them
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

GOLDEN = Path(__file__).parent / "golden" / "modules"
NAMES = library.names()
FEATURES = {
    "clip": "from std import clip_global\nrule R { hyper lr = 0.1 in (0, inf) w' = w - lr*clip_global(g, 0.5) }",
    "autoclip": "from std import autoclip\nrule R { hyper lr = 0.1 in (0, inf) w' = w - lr*autoclip(g, 0.4, 5) }",
    "model state": "rule R { state n per model = 1 n' = 0.5*n + norm(g per model) w' = w - 0.1*g/n' }",
    "quantile": "rule R { q = quantile(abs(g), 0.7) w' = w - 0.1*clip(g, -q, q) }",
    "every": "rule R { hyper int k = 3 in [1, inf) state s = w every k { s' = (s + w)/2 w' = s' - 0.1*g } else { w' = w - 0.1*g } }",
    "data branch": "rule R { when norm(g) > 0.8 { w' = w - 0.1*g/norm(g) } else { w' = w - 0.1*g } }",
    "truths": "rule R { state seen = false seen' = seen or max(abs(g)) > 0.5 w' = w - where(seen', 0.05, 0.1)*g }",
    "window": "rule R { state h[3] = nan h' = push(h, g) w' = w - 0.1*mean(h') }",
    "draws": "rule R { w' = w - 0.1*(g + 0.1*normal()) - 0.01*exponential()*uniform() }",
    "nested": "rule R { when rank >= 2 { when rows > cols { u = g.T @ g v = g @ u } else { v = (g @ g.T) @ g } } "
    "else { v = g^3 } w' = w - 0.1*v }",
    "average": "from std import weights_ema\nrule R { w' = w - 0.1*g eval = weights_ema(w', 0.7) }",
    "division by zero": "rule R { a = 1/(t - 1) w' = w - 0.1*g/(1 + a) }",
    "swap": "rule R { state a = 0 state b = 1 a' = b b' = a w' = w - 0.1*(a - b)*g }",
    "model mean of rows": "rule R { m = mean(abs(g) per model) w' = w - 0.1*g/(m + 0.1) }",
    "far gradient": "rule R { w' = w - 0.1*grad(w - 0.2*grad(w + 0.1*g)) }",
    "gradient at a number": "rule R { w' = w - 0.1*grad(pi) }",
    "loss": "rule R { w' = w - 0.1*min(1, loss)*g }",
    "norm per group": "rule R { hyper lr = 0.1 in (0, inf) w' = w - lr*g/(norm(g per group) + norm(w per model)) }",
    "state per group": "rule R { state n per group = 1 n' = 0.5*n + mean(abs(g) per group) w' = w - 0.1*g/n' }",
    "model from groups": "rule R { n = max(g per group) m = sum(n per model) w' = w - 0.1*g/(1 + m) }",
    "window per model": "rule R { state h[3] per model = nan h' = push(h, norm(g per model)) w' = w - "
    "0.1*g*max(h')/(min(h') + count(h')) }",
    "quantile per model": "rule R { q = quantile(abs(g), 0.3 per model) w' = w - 0.1*clip(g, -q, q) }",
    "draws of all": "rule R { w' = w - 0.1*g*uniform(per model)*uniform(per group)*exponential(per tensor) }",
    "rows": "rule R { when rank >= 2 { state r per row = 1 r' = r + sum(g^2 per row) u = g/sqrt(r') } else { u = g } w' = w - 0.1*u }",
    "window of rows": "rule R { when rank >= 2 { state h[2] per row = 0 h' = push(h, mean(g per row)) u = g - "
    "mean(mean(h') per tensor) } else { u = g } w' = w - 0.1*u }",
    "as_matrix": "from std import centralize, agc\nrule R { w' = w - 0.1*centralize(agc(g, 0.1)) }",
    "identity": "rule R { when rank == 2 { u = (eye(rows) + 0.1*(g @ g.T)) @ g } else { u = g } w' = w - 0.1*u }",
    "nested every": "rule R { state a = 0 state b = w every 2 { every 3 { a' = a + w } else { b' = (b + a)/2 } } else { "
    "a' = a - g } w' = w - 0.1*(a' + g) + 0.01*b' }",
    "guarded gradient": "rule R { every 2 { u = grad(w - 0.1*g) } else { u = g } w' = w - 0.1*u }",
    "a gradient on the other side": "rule R { every 2 { u = g } else { u = grad(w - 0.1*g) } w' = w - 0.1*u }",
    "gradient, then norm": "rule R { u = grad(w + 0.1*g) n = norm(u per model) w' = w - 0.1*u/(n + 1) }",
    "norm of a guarded gradient": "rule R { every 2 { u = grad(w + 0.1*g) } else { u = g } n = norm(u per model) w' = w "
    "- 0.1*u/(n + 1) }",
    "curvature": "rule R { z = normal() h = z*hvp(z) w' = w - 0.1*g/(1 + abs(h)) }",
    "a loop over what the model was asked": "rule R { d = grad(w + 0.1) repeat 4 { state y = d y' = 1.5*y - 0.5*y*mean(y^2)/(1 + "
    "mean(d^2)) } w' = w - 0.1*y }",
    "losses elsewhere": "rule R { z = normal() every 2 { c = loss_at(w - z*norm(g per model)) - loss } else { c = "
    "loss } w' = w - 0.1*tanh(c)*z }",
    "skipped step": "rule R { when norm(g per model) < 1 { w' = w - 0.1*g } }",
    "new weights read": "rule R { state a = w a' = 0.9*a + 0.1*w' w' = w - 0.1*g - 0.01*a }",
    "shared update": "rule R { state a = 0 state b = 0 x = 0.5*a + g a' = x b' = x w' = w - 0.1*(a' + b') }",
    "held in a block": "rule R { state s = w when t > 2 { s' = 0.5*s + 0.5*w w' = s' } else { w' = w - 0.1*g } }",
    "a view kept": "rule R { state m = 0 when rank == 2 { x = m.T m' = m + g u = g @ (x @ m') } else { m' = m - g u = g "
    "+ m } w' = w - 0.1*u }",
    "chosen by a number": "rule R { state m = w m' = 0.5*m + g u = where(t < 0, w, m) w' = u/2 + u/4 - 0.1*m' }",
    "roots of a number below zero": "rule R { hyper a = 0.5 in [0, 1] b = where(sqrt((a - 1)^3) > 0, 1, 2) w' = w - 0.1*g*b }",
    "numbers": "rule R { a = where(t > 3, log(t - 3), -1) b = max(a, 1/(t - 2)) w' = w - 0.1*g/(1 + abs(clip(b, -5, 5))) }",
    "hyper as state": "rule R { hyper lr = 0.1 in (0, inf) state s = lr state n per tensor = numel s' = s*where(g > 0, "
    "0.9, 1.1) w' = w - s'*g*(1 + 1/n) n' = n + 1 }",
    "chosen by data": "rule R { state late per tensor = false late' = late or norm(g) > 0.3 when late' { u = sign(g) } "
    "else { u = g } w' = w - 0.05*u }",
    "sizes of sides": "rule R { when t > 2 { u = norm(g) } else { u = g } v = where(t > 3, 2, g) w' = w - 0.1*g/(1 + "
    "sum(abs(u)) + sum(abs(v))) }",
    "sides of blocks": "rule R { state a = 0 when t > 2 { u = 1 a' = a + g } else { u = g a' = a - u } w' "
    "= w - 0.1*g/(1 + sum(u)^2) + 0.01*a' }",
    "repeat": "def f(x) { repeat 4 { state y = x y' = y - 0.1*y^3 + 0.01*g } return y } rule R { w' = w - 0.1*f(g) }",
    "count per group": "rule R { c = count(g per group) + count(g per model) w' = w - 0.1*g/c }",
    "window beside elements": "rule R { state h[3] per tensor = 0 h' = push(h, norm(g)) x = h'*g + h' w' = w - 0.01*mean(x) }",
    "one block in another": "rule R { state h = 0 every 2 { when rank >= 2 { h' = 0.9*h + g*g } } w' = w - 0.1*(g + h') }",
    "settings decide": "rule R { hyper bool f = true when f { state s per model = 1 s' = s + norm(g per model) k = s' } "
    "else { k = 1 } w' = w - 0.1*g/k }",
    "one value reduced": "rule R { a = sum(rank) + max(rank) + mean(norm(g)) + count(numel) + quantile(rank, 0.3) w' = w - 0.01*a*g }",
    "a share that is a setting": "rule R { hyper q = 0.4 in [0, 1] w' = w - 0.1*g*quantile(norm(g), q) }",
    "products of two and three": "rule R { state m = 0 state n = 0 m' = m + 0.5*g*w n' = n - 0.3*w*g^3*sign(g) w' = w - 0.1*(m' + n') }",
    "functions of two": "rule R { w' = w - 0.1*(mod(g, 0.3) + atan2(g, w) + atan2(2, g) + cbrt(g)) }",
    "share of places": "rule R { when rank >= 2 { a = quantile(places(cols), 0.3 per tensor) } else { a = 1 } w' = w - 0.01*a*g }",
    "counts of a view": "rule R { when rank >= 2 { x = as_matrix(g) n = sum(as_param(x/count(x per row) + count(x))) } "
    "else { n = 2 } w' = w - 0.1*g/(2 + n) }",
    "a count that stands still": "rule R { state n per tensor = numel n' = numel + rank w' = w - 0.1*g/n }",
    "nothing on one side": "rule R { state a = 0 state b = 0 when t > 2 { a' = a when rank == 2 { b' = g } } else { b' = b + g "
    "a' = 2 } w' = w - 0.1*(g + a' + b') }",
    "sizes alone": "rule R { when rank >= 2 { a = var(places(cols) per tensor) + norm(eye(rows)) } else { a = 1 } w' = w - 0.01*a*g }",
    "runs": "rule R { state v per 2 = mean(w per 2) state h[3] per 3 = nan v' = 0.5*v + sum(g^2 per 2) h' = push(h, norm(g per 3)) "
    "a = where(v' > 1, v', count(g per 2)) b = where(count(g per 4) > 1, std(g per 4), 0) w' = w - 0.1*g/(1 + a*b + max(h') "
    "+ mean(v' per model)) + 0.01*tanh(count(g per 3)) }",
    "two loops": "def f(x, n) { repeat n { state y = x y' = cos(y) - 0.1*y + 0.01*t } return y } rule R { hyper int n = "
    "4 in [0, 9] w' = w - 0.1*f(g, n)*f(w, n) }",
}  # fmt: skip


def load(source: str, name: str) -> Any:
    module = types.ModuleType("generated")
    exec(compile(source, "generated.py", "exec"), module.__dict__)
    return getattr(module, name)


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(5, 7, dtype=dtype), nn.Linear(7, 2, dtype=dtype)
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.tanh(self.one(x))) * self.scale
        return out


def run(cls: Any, dtype: torch.dtype = torch.float64, steps: int = 8, **settings: Any) -> tuple[Net, Any]:
    net = Net(dtype)
    optimizer = cls([p for p in net.parameters() if p.ndim == 2] if settings.pop("matrices", False) else net.parameters(), **settings)
    for step in range(steps):
        x = torch.randn((6, 5), generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(dtype)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = (net(x) - 1).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return net, optimizer


MATRICES = "route R { when rank == 2 use A() otherwise use B() }"
VECTORS = "route R { when rank < 2 use B() otherwise use A() }"
PLAIN = "rule B { w' = w - 0.1*g }"
ROUTES = {
    "a norm and a state": f"""rule A {{ state seen per model = 0 seen' = seen + sum(g^2 per model)
      w' = w - 0.1*g/norm(g per model) - 0.001*seen' - 0.01*mean(w per model) - count(w per model)*1e-4 }} {PLAIN} {VECTORS}""",
    "groups": f"""rule A {{ hyper q = 0.5 in [0, 1] s = sum(0.3 + norm(g per group) per model)
      w' = w - 0.1*quantile(abs(g) per model, q)*max(norm(g per group) per model)*g/(s + norm(g per group)*q) }} {PLAIN} {VECTORS}""",
    "two that look around": f"""rule A {{ state m = 0 m' = 0.9*m + g/norm(g per model) w' = w - 0.1*m'*mean(abs(w) per model) }}
      rule B {{ w' = w - 0.1*g*min(1, norm(w per model)) }} {VECTORS}""",
    "one that asks the model": f"rule A {{ w' = w - 0.1*grad(w + 0.3*g) }} {PLAIN} {VECTORS}",
    "losses that scale all": f"""rule A {{ state m = 0 m' = m + g l = loss_at(w - 0.1*m'/norm(m' per group))
      w' = w - 0.1*g*norm(l*g per model) }} {PLAIN} {VECTORS}""",
    "draws and counts": f"rule A {{ w' = w - 0.1*g*tanh(sum(normal()*g*t + uniform(per group) per model)) }} {PLAIN} {MATRICES}",
    "a state that goes on by itself": f"rule A {{ state n per model = 1 n' = n/2 w' = w - n'*g }} {PLAIN} {MATRICES}",
    "one rule for all": "rule A { state m = 0 m' = m + g w' = w - 0.1*m'/norm(m' per model) } route R { otherwise use A() }",
    "what nobody reads": f"rule A {{ state m = 0 m' = m + g n = norm(m' per model) w' = w - 0.1*m' }} {PLAIN} {MATRICES}",
    "reports": "rule A { report n = norm(g per model) w' = w - 0.1*g } rule B { report n = t/2 w' = w - 0.1*g } " + VECTORS,
}


@pytest.mark.parametrize("name", ROUTES)
def test_a_route_with_values_of_all_as_the_reference(name: str) -> None:
    """In the order in which rules stand, the others have moved before those that look around."""
    results = []
    for cls in (load(optlang.build(ROUTES[name], "R"), "R"), optlang.loads(ROUTES[name], "R", backend="reference")):
        net, optimizer = run(cls)
        results.append((net, getattr(optimizer, "reports", {}), [sorted(state) for state in optimizer.state.values()]))
    same(results[0][0], results[1][0])
    assert results[0][1] == pytest.approx(results[1][1]) and sorted(results[0][2]) == sorted(results[1][2])


def test_a_route_takes_no_values_of_all_that_others_do_not_have() -> None:
    text = f"rule A {{ state m = 0 m' = m + g w' = w - m'/norm(m' per model) }} {PLAIN} {MATRICES}"
    with pytest.raises(ValueError, match="A cannot be a rule of a route: in one, `per model` is over .* reads the state `m`, which"):
        optlang.build(text, "R")
    text = f"rule A {{ w' = w - g*mean(max(g per row) per model) }} {PLAIN} {MATRICES}"
    with pytest.raises(ValueError, match=r"A takes values of all parameters as matrices, not a parameter of shape \(\)"):
        run(load(optlang.build(text, "R"), "R"))


@pytest.mark.parametrize("name", FEATURES)
def test_as_the_reference(name: str) -> None:
    text = optlang.build(FEATURES[name])
    ours, wanted = load(text, "R"), run(optlang.loads(FEATURES[name], backend="reference"))[0]
    for more in ({}, *[{"capturable": True}] * ("cannot be capturable" not in text)):
        same(run(ours, **more)[0], wanted)


def same(a: Net, b: Net, tolerance: float = 1e-11) -> None:
    finite(*b.parameters())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def test_a_route_whose_rules_differ_in_what_they_draw_and_report() -> None:
    text = ("rule R { w' = w - 0.1*g*uniform() }\nrule S { report r = 0.5 w' = w - 0.1*g }\n"
            "route B { when rank >= 2 use S() otherwise use R() }")  # fmt: skip
    same(run(load(optlang.build(text, "B"), "B"))[0], run(optlang.loads(text, "B", backend="reference"))[0])


@given(texts())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_rule_as_the_reference(text: str) -> None:
    """Names, places, orders and in-place changes never alter what is computed."""
    theirs = run(optlang.loads(text, backend="reference"), steps=3)[0]
    assume(all(p.isfinite().all() for p in theirs.parameters()))
    same(run(load(optlang.build(text), "R"), steps=3)[0], theirs, 1e-9)


@given(st.integers(0, 2**32 - 1))
@example(524287)  # what two blocks of one condition need, inside of one of which it cannot stand
@settings(max_examples=60, deadline=None)
def test_any_order_of_blocks_and_states_as_the_reference(seed: int) -> None:
    text = blocks(random.Random(seed))
    ours, theirs = load(optlang.build(text), "R"), run(optlang.loads(text, backend="reference"), steps=6)[0]
    for more in ({}, {"capturable": True}):
        same(run(ours, steps=6, **more)[0], theirs, 1e-9)


def blocks(source: random.Random) -> str:
    """States that read each other's old and new values, inside and outside of nested blocks."""
    names = ["a", "b", "c"]
    known = ["a", "b", "c", "g", "w", "t"]
    lines = [f"state {name} = {source.choice(['0', 'w', '1', 'lr'])}" for name in names]
    conditions = ["t > 2", "rank >= 2", "flag", "t > 4 or flag", "norm(g per model) > 0.3", "numel > 3"]

    def value() -> str:
        one, two = source.choice(known), source.choice(known)
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


@pytest.mark.parametrize("name", ["lion", "adafactor", "lookahead", "schedulefreeadamw"])
def test_a_module_is_pickled_and_copied(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"made_{name}.py").write_text(optlang.build(name))
    monkeypatch.syspath_prepend(tmp_path)
    net, optimizer = run(getattr(importlib.import_module(f"made_{name}"), optlang.Rule(name).name), steps=2)
    again = pickle.loads(pickle.dumps(optimizer))
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for p, q in zip(net.parameters(), again.param_groups[0]["params"], strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(v, again.state[q][k]) for k, v in optimizer.state[p].items())


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


def test_a_route_sends_parameters_and_keeps_their_settings() -> None:
    text = """rule A { hyper lr = 0.1 in (0, inf) state m = 0 m' = m + g w' = w - lr*m' }
      rule B { hyper lr = 1 in (0, inf) w' = w - lr*g }
      route R "by rank" { when rank == 2 and rows != 7 and not named("*bias") use A(lr = 0.5)
        when numel > 4*rank + 1 use B() otherwise use A() }"""
    results = []
    for cls in (load(optlang.build(text, "R"), "R"), optlang.loads(text, "R", backend="reference")):
        net = Net(torch.float64)
        labels = ("A", "B", "A_2")
        optimizer = cls([{"params": list(net.named_parameters()), "maximize": False}], **{labels[1]: {"lr": 0.25}})
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        copy = cls(list(net.named_parameters()), B={"lr": 0.25})
        copy.load_state_dict(optimizer.state_dict())
        results.append([(group["rule"], group["lr"], len(group["params"])) for group in copy.param_groups])
        results.append([round(x, 9) for p in net.parameters() for x in p.flatten().tolist()])
    assert results[0] == results[2]
    assert results[1] == results[3]


MOMENTA = """rule A { hyper lr = 0.1 in (0, inf) hyper momentum = 0.9 in [0, 1) state m = 0 m' = momentum*m + g
    w' = w - lr*m'/(1 + norm(g per model)) }
  rule B { hyper lr = 0.1 in (0, inf) hyper beta1 = 0.9 in [0, 1) hyper beta2 = 0.99 in [0, 1) state m = 0 state v = 0 m' = beta1*m + g
    v' = beta2*v + g^2 w' = w - lr*m'/(1 + sqrt(v') + norm(g per group)) }
  rule C { hyper lr = 0.1 in (0, inf) w' = w - lr*g*uniform() }
  route R { when rank == 2 use A() when rank == 1 use B() otherwise use C() }"""


@pytest.mark.parametrize("text", ["A", "A B C"])
def test_schedulers_cycle_the_momenta_of_a_route_as_of_the_loaded_one(text: str) -> None:
    """Beside `betas` a momentum is kept as `betas` of one number, which what is written by its name goes into."""
    source = MOMENTA if text == "A B C" else f"{MOMENTA.partition('rule B')[0]} route R {{ otherwise use A() }}"
    kept, found = "betas" if text == "A B C" else "momentum", []
    for cls in (load(optlang.build(source, "R"), "R"), optlang.loads(source, "R", backend="torch")):
        net, seen = Net(torch.float64), []
        optimizer = cls([{"params": list(net.named_parameters())[1:], "betas": (0.5, 0.6)}])
        optimizer.add_param_group({"params": list(net.named_parameters())[:1], "momentum": 0.7})
        optimizer = cls(optimizer.param_groups)
        seen += [group.get(kept) for group in optimizer.param_groups]
        for cycle in (lambda o: CyclicLR(o, 1e-3, 1e-2, 3), lambda o: OneCycleLR(o, 0.01, total_steps=8)):
            optimizer.param_groups[-1]["momentum"] = 0.3
            optimizer.step()
            seen.append(optimizer.param_groups[-1].get(kept))
            schedule = cycle(optimizer)
            for _ in range(4):
                optimizer.zero_grad()
                net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
                optimizer.step()
                schedule.step()
                seen.append([group[kept] for group in optimizer.param_groups])
        found.append((seen, torch.cat([p.detach().flatten() for p in net.parameters()])))
    (ours, w), (theirs, wanted) = found
    assert ours == theirs
    torch.testing.assert_close(w, wanted, rtol=1e-12, atol=1e-12)


def test_copies_of_a_route_know_their_settings() -> None:
    optimizer = load(optlang.build("muonwithadamw"), "MuonWithAdamW")([("weight", nn.Parameter(torch.eye(2)))], Muon={"lr": 0.5})
    again = copy.deepcopy(optimizer)
    again.add_param_group({"params": [("more", nn.Parameter(torch.eye(2)))]})
    assert [group["lr"] for group in again.param_groups] == [0.5, 0.5]
    for mixed in ([("weight", nn.Parameter(torch.eye(2))), nn.Parameter(torch.eye(2))], [nn.Parameter(torch.eye(2)), ("a", torch.eye(2))]):
        with pytest.raises(ValueError, match="with/without names. Some param names are missing"):
            type(optimizer)(mixed)


def test_rules_of_a_route_may_be_called_as_its_own_variables_are() -> None:
    text = """rule chosen { hyper lr = 0.1 w' = w - lr*grad(2*w) } rule update { w' = w - g }
              route B { when rank >= 2 use chosen() otherwise use update() }"""
    given, found = [torch.ones(2, 2), torch.ones(2)], []
    for made in (load(optlang.build(text, "B"), "B"), optlang.loads(text, "B")):
        params = [p.clone().requires_grad_() for p in given]
        optimizer = made(params)

        def closure(optimizer: Any = optimizer, params: list[Tensor] = params) -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = sum(p.square().sum() / 2 for p in params)  # type: ignore[assignment]
            loss.backward()
            return loss

        optimizer.step(closure)
        found.append([p.detach() for p in params])
    assert all(map(torch.equal, *found)) and found[0][1].tolist() == [0, 0]


def test_all_that_a_route_says_of_itself_is_there() -> None:
    words = [f"word{i}" for i in range(60)]
    text = optlang.build(f"rule A {{ w' = w - g }} route R \"{' '.join(words)}\" {{ otherwise use A() }}", "R")
    assert set(words) <= set(load(text, "R").__doc__.split())


def test_any_wish_becomes_a_name_of_python() -> None:
    assert [identifier(wish) for wish in ("2nd", "a b", "l", "_a", "µ")] == ["x_2nd", "a_b", "l_", "x_a", "μ"]


def test_what_nobody_reads_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optlang.ir.programs.MOST_TO_READ", 5)
    with pytest.raises(ValueError, match="more than anybody reads"):
        optlang.build("adamw")


def test_bounds_on_both_sides_are_one_call() -> None:
    """As a person writes them; the other order means something else where the bounds cross."""
    text = optlang.build("rule R { w' = w - clip(g, -1, 1) - max(min(g, 2), -2) }")
    assert "torch.clamp(g, min=-1, max=1)" in text and "torch.clamp(torch.clamp(g, max=2), min=-2)" in text


def test_a_loop_that_may_not_be_longer() -> None:
    """Its length stays a setting up to the bound of that; what is too large to compare is written out."""
    text = FEATURES["two loops"].replace("4 in [0, 9]", "4 in [0, 4]")
    same(run(load(optlang.build(text), "R"))[0], run(optlang.loads(text, backend="reference"))[0])


CHOOSING = """rule R { w' = w - 0.1*g }
  rule S { state a = w a' = 0.5*a + 0.5*w' w' = w - 0.2*g eval = a' }
  rule T { w' = w - 0.1*grad(w + 0.1*g) }
  route B { when -rank < -1 and max(rank, 1) == min(rank, 2) use S() when dtype == "float64" use R() }"""


def test_a_route_by_every_kind_of_condition() -> None:
    for cls in (load(optlang.build(CHOOSING, "B"), "B"), optlang.loads(CHOOSING, "B", backend="reference")):
        with pytest.raises(ValueError, match="no rule"):
            cls(Net(torch.float32).parameters())
    same(run(load(optlang.build(CHOOSING, "B"), "B"))[0], run(optlang.loads(CHOOSING, "B", backend="reference"))[0])


VALUELESS = ["numel/fan_out < 3", "max(2, cols) == 2", "1/(numel - 3) != 0", "not (numel/rank > 2)", "rank^2 > 3"]


@pytest.mark.parametrize("condition", VALUELESS)
def test_no_comparison_holds_of_what_has_no_value(condition: str) -> None:
    """Sizes of nothing, divisions by 0: the module sends every parameter where the runtime does."""
    text = f"rule R {{ w' = w - g }} rule S {{ w' = w + g }} route B {{ when {condition} use S() otherwise use R() }}"
    found = []
    for cls in (load(optlang.build(text, "B"), "B"), optlang.loads(text, "B", backend="reference")):
        params = [nn.Parameter(torch.ones(shape)) for shape in [(0, 3), (3, 3), (), (5,), (3,), (0,), (2, 3, 4), (2, 2)]]
        for param in params:
            param.grad = torch.ones_like(param)
        cls(params).step()
        found.append(params)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_route_says_what_a_step_needs() -> None:
    nets = []
    for cls in (load(optlang.build(CHOOSING, "B"), "B"), optlang.loads(CHOOSING, "B", backend="reference")):
        net, optimizer = run(cls, steps=3)
        optimizer.eval()
        nets.append(net)
        with pytest.raises(RuntimeError, match=r"call .*train"):
            optimizer.step()
    same(*nets)
    asking = load(optlang.build(CHOOSING.replace("R()", "T()"), "B"), "B")(Net(torch.float64).parameters())
    with pytest.raises(RuntimeError, match="closure"):
        asking.step()


@pytest.mark.parametrize("name", NAMES)
def test_lint_and_stand_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(optlang.build(name))
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "optlang" not in path.read_text().replace("Generated by optlang", "")


def test_every_feature_is_linted(tmp_path: Path) -> None:
    for name, text in {**FEATURES, **ROUTES}.items():
        (tmp_path / f"{name.replace(' ', '_').replace(',', '')}.py").write_text(optlang.build(text, "R"))
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_needs_torch_alone(tmp_path: Path) -> None:
    (tmp_path / "adafactor.py").write_text(optlang.build("adafactor"))
    script = """
import sys
for name in ("optlang", "lark"):
    sys.modules[name] = None
import torch
from adafactor import Adafactor
p = torch.nn.Parameter(torch.ones(3, 2))
optimizer = Adafactor([p], lr=0.1)
p.square().sum().backward()
optimizer.step()
assert (p < 1).all(), p
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "muon", "adafactor", "sam", "schedulefreeadamw"])
def test_golden(name: str) -> None:
    """`OPTLANG_UPDATE_GOLDEN=1` writes them; then read them as a user would."""
    text, path = optlang.build(name), GOLDEN / f"{name}.txt"
    if os.environ.get("OPTLANG_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("to", ["module", "optax"])
def test_equations_keep_their_names_behind_loops_and_nothing_else_takes_them(to: str) -> None:
    text = """rule R {
      hyper lr = 0.1 in (0, inf)
      state m = 0
      m' = 0.9*m + g
      repeat 3 { state y = m'/(norm(m') + norm(w))  y' = 1.5*y - 0.5*(y @ y.T) @ y }
      o = y*sqrt(1 + abs(m' + w))
      x = 1/(norm(o) + norm(m' + w))
      w' = w - lr*x*o
    }"""
    written = optlang.build(text, to=to)
    for start in ("y = ", "o = y * ", "x = "):
        assert sum(line.lstrip().startswith(start) for line in written.splitlines()) == 1 + (start == "y = "), written


def test_settings_are_checked_and_named_as_in_torch() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p = nn.Parameter(torch.ones(2))
    assert cls([p], betas=(0.5, 0.6)).param_groups[0]["betas"] == (0.5, 0.6)
    with pytest.raises(ValueError, match="beta1 is outside"):
        cls([p], beta1=1.5)
    assert cls([{"params": [p], "beta1": 0.3}]).param_groups[0]["betas"] == (0.3, 0.999)
    by_place, theirs = cls([p], 0.02, (0.5, 0.6), 1e-6, 0.3), torch.optim.AdamW([p], 0.02, (0.5, 0.6), 1e-6, 0.3)
    assert all(by_place.defaults[key] == theirs.defaults[key] for key in ("lr", "betas", "eps", "weight_decay"))
    for wrong in (0.9, (0.9,), (0.9, 0.99, 0.999)):
        with pytest.raises(TypeError, match="betas is a pair"):
            cls([p], 0.02, wrong)
        with pytest.raises(TypeError, match="betas is a pair"):
            cls([{"params": [p], "betas": wrong}])
    with pytest.raises(TypeError, match="centered must be True or False, not 1"):
        load(optlang.build("rmsprop"), "RMSprop")([p], centered=1)
    optimizer = cls([p])
    optimizer.param_groups[0]["lr"] = -1.0
    p.grad = torch.ones(2)
    with pytest.raises(ValueError, match="lr is outside"):
        optimizer.step()
    assert p.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"lr": True}, TypeError, "lr must be a number, not True"),
        ({"betas": (0.9, False)}, TypeError, "beta2 must be a number, not False"),
        ({"lr": -1e-9}, ValueError, r"lr is outside \(0, inf\): -1e-09"),
        ({"weight_decay": float("nan")}, ValueError, "weight_decay is outside"),
        ({"beta1": 1.0}, ValueError, "beta1 is outside"),
    ],
)
def test_wrong_settings_are_refused_and_leave_no_group(wrong: dict[str, Any], kind: type[Exception], message: str) -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(kind, match=message):
        cls([p], **wrong)
    with pytest.raises(kind, match=message):
        cls([{"params": [p], **wrong}])
    optimizer = cls([p])
    with pytest.raises(kind, match=message):
        optimizer.add_param_group({"params": [q], **wrong})
    assert len(optimizer.param_groups) == 1


def test_whole_numbers_and_unbounded_ones_are_no_truths_either() -> None:
    text = "rule R { hyper int k = 2 in [1, 9] hyper a = 1 w' = w - 0.1*a*k*g }"
    cls = load(optlang.build(text), "R")
    for name in ("k", "a"):
        with pytest.raises(TypeError, match=f"{name} must be a number, not True"):
            cls([nn.Parameter(torch.ones(2))], **{name: True})
    assert cls([nn.Parameter(torch.ones(2))], k=1, a=0).param_groups[0]["a"] == 0


def test_unknown_settings_and_parameters_given_twice_are_refused_as_by_torch() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight_decy'"):
        cls([p], weight_decy=0.1)
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        cls([p, p])
    with pytest.raises(ValueError, match="some parameters appear in more than one parameter group"):
        cls([{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match="params argument given to the optimizer should be an iterable of Tensors or dicts"):
        cls(p)


def test_a_route_refuses_a_group_as_a_whole() -> None:
    """Also where the first of its rules would have taken its part."""
    route = f"rule A {{ w' = w - 0.1*g }} rule B {{ hyper lr = 0.1 in (0, inf) w' = w - lr*g }} {MATRICES}"
    cls = load(optlang.build(route, "R"), "R")
    for wrong, kind in ((True, TypeError), (-1.0, ValueError)):
        with pytest.raises(kind, match="lr "):
            cls([nn.Parameter(torch.ones(2))], B={"lr": wrong})
    first, matrix = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))
    optimizer = cls([first])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": [matrix, first]})
    assert len(optimizer.param_groups) == 1


def test_the_length_of_a_loop_stays_a_hyper() -> None:
    text = FEATURES["two loops"]
    ours, theirs = load(optlang.build(text), "R"), optlang.loads(text, backend="reference")
    for n in (0, 1, 7):
        same(run(ours, n=n)[0], run(theirs, n=n)[0])
    assert "for _ in range(n)" in optlang.build(text)


def test_what_shapes_a_rule_of_a_route_may_be_given_there() -> None:
    text = "from muon import Muon\nroute R { when rows > cols use Muon(steps = 7) otherwise use Muon(nesterov = false) }"
    results = []
    for cls in (load(optlang.build(text), "R"), optlang.loads(text, backend="reference")):
        net = Net(torch.float64)
        weights = [(name, p) for name, p in net.named_parameters() if p.ndim == 2]
        optimizer = cls(weights)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
        assert [group["steps"] for group in optimizer.param_groups] == [7, 5]
        results.append(net)
    same(*results)


def test_a_rule_for_matrices_says_so() -> None:
    with pytest.raises(ValueError, match=r"Muon takes matrices, not a parameter of shape \(3,\)"):
        load(optlang.build("muon"), "Muon")([nn.Parameter(torch.ones(3))])


def test_a_setting_may_bring_a_state_later() -> None:
    """`centered` of RMSprop is switched on between two steps."""
    results = []
    for cls in (load(optlang.build("rmsprop"), "RMSprop"), optlang.load("rmsprop", backend="reference")):
        p = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = cls([p])
        for centered in (False, True, True, False, True):
            optimizer.param_groups[0]["centered"] = centered
            p.grad = p.detach() ** 2
            optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(*results, rtol=1e-13, atol=0)


def test_rules_named_like_what_a_module_needs() -> None:
    for name in ("torch", "Optimizer", "None"):
        text = f"rule {name} {{ w' = w - 0.1*sqrt(t)*g }}"
        run(load(optlang.build(text), f"{name}_"), steps=2)


def test_another_hyper_that_shapes_the_program_is_fixed() -> None:
    text = "rule R { hyper int k = 3 in [1, inf) state h[k] = 0 h' = push(h, g) w' = w - 0.1*mean(h') }"
    p = nn.Parameter(torch.eye(2))
    with pytest.raises(ValueError, match="k was fixed at 3"):
        load(optlang.build(text), "R")([p], k=2)
    load(optlang.build(text, baked={"k": 2}), "R")([p])


@pytest.mark.parametrize("name", ["adamw", "adafactor", "schedulefreeadamw"])
def test_a_run_goes_on_from_a_checkpoint_bit_for_bit(name: str) -> None:
    cls = load(optlang.build(name), optlang.Rule(name).name)
    for dtype in (torch.float32, torch.bfloat16):
        net, optimizer = run(cls, dtype, 3)
        other = Net(dtype)
        other.load_state_dict(net.state_dict())
        copy = cls(other.parameters())
        copy.load_state_dict(optimizer.state_dict())
        for model, opt in ((net, optimizer), (other, copy)):
            opt.zero_grad()
            model(torch.ones(1, 5, dtype=dtype)).sum().backward()
            opt.step()
            opt.step()
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
        states = [v for s in copy.state.values() for v in s.values() if isinstance(v, Tensor)]
        assert {v.dtype for v in states} == {torch.float32}


@pytest.mark.parametrize("name", ["saniaadam", "sam"])  # without a step size, and with one
def test_distributed_checkpoints_of_rules_that_ask_the_model(name: str) -> None:
    cls = load(optlang.build(name), optlang.Rule(name).name)
    nets = [Net(torch.float32) for _ in range(2)]
    first, second = (cls(net.named_parameters()) for net in nets)

    def train(net: nn.Module, optimizer: Any) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = net(torch.ones(1, 5)).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(3):
            optimizer.step(closure)

    train(nets[0], first)
    with pytest.raises(RuntimeError, match="asks the model again"):
        first.step()
    nets[1].load_state_dict(nets[0].state_dict())
    set_optimizer_state_dict(nets[1], second, get_optimizer_state_dict(nets[0], first))
    for net, optimizer in zip(nets, (first, second), strict=True):
        train(net, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_states_of_another_rule_are_refused_before_anything_changes() -> None:
    _, lion = run(load(optlang.build("lion"), "Lion"), steps=1)
    _, theirs = run(torch.optim.AdamW, steps=1)
    _, optimizer = run(load(optlang.build("adafactor"), "Adafactor"), matrices=True, steps=1)
    net, adamw = run(load(optlang.build("adamw"), "AdamW"), steps=1)
    before = [value.clone() for p in net.parameters() for value in adamw.state[p].values()]
    for other, words in ((theirs, "this is a state of another rule: AdamW keeps no exp_avg"), (optimizer, "AdamW keeps no|another rule")):
        with pytest.raises(ValueError, match=words):
            adamw.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="group 0: saved by another rule"):
        lion.load_state_dict(adamw.state_dict())
    assert all(torch.equal(x, y) for x, y in zip(before, (v for p in net.parameters() for v in adamw.state[p].values()), strict=True))


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


def test_rates_may_be_tensors_of_one_element_and_old_checkpoints_have_no_maximize() -> None:
    cls = load(optlang.build("adamw"), "AdamW")
    same(run(cls, lr=torch.tensor(0.01, dtype=torch.float64))[0], run(cls, lr=0.01)[0])
    rate = torch.tensor([0.01], dtype=torch.float64)
    same(run(cls, lr=rate, betas=(torch.tensor([0.8]), 0.9))[0], run(cls, lr=0.01, betas=(torch.tensor(0.8), 0.9))[0])
    held = cls([nn.Parameter(torch.ones(2))], lr=rate).param_groups[0]
    rate.fill_(0.5)
    assert held["lr"].item() == 0.5
    prodigy, params = load(optlang.build("prodigy"), "Prodigy"), [nn.Parameter(torch.ones(2)) for _ in range(2)]
    for p in params:
        p.grad = torch.ones(2)
    prodigy([{"params": [p], "lr": torch.tensor(1.0), "betas": (torch.tensor(0.9), torch.tensor(0.99))} for p in params]).step()
    assert params[0].tolist() == params[1].tolist() != [1, 1]
    with pytest.raises(ValueError, match="Tensor lr must be 1-element"):
        cls([nn.Parameter(torch.ones(2))], lr=torch.tensor([0.1, 0.1]))
    with pytest.raises(ValueError, match="Tensor betas must be 1-element"):
        cls([nn.Parameter(torch.ones(2))], betas=(0.9, torch.tensor([0.1, 0.1])))
    _, optimizer = run(cls, steps=1)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["maximize"]
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert optimizer.param_groups[0]["maximize"] is False


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


def test_hostile_text_stays_text() -> None:
    head = "rule R \"'''; import os {x} \\\\ `\" { hyper lr = 1 in (0, inf) \"{lr!r} % \\\\n\" "
    text = head + "state lambda_ = 0 lambda_' = g w' = w - lr*lambda_' }"
    assert not optlang.check(text), optlang.check(text)[0].to_text()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cls = load(optlang.build(text), "R")
    assert "import os" in cls.__doc__
    states = "state self = 0 state p = 1 state torch = 2 self' = g p' = self torch' = p"
    names = f"rule R {{ hyper class_ = 1 in (0, inf) {states} w' = w - class_*torch' }}"
    a, b = run(load(optlang.build(names), "R"))[0], run(optlang.loads(names, backend="reference"))[0]
    assert all(torch.allclose(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_names_that_a_route_looks_at_are_asked_for() -> None:
    module = optlang.build("""rule A { w' = w - g } route R { when named("*") use A() otherwise use A() }""", "R")
    with pytest.raises(ValueError, match="looks at the names of parameters: give it model.named_parameters"):
        load(module, "R")([nn.Parameter(torch.ones(2))])


def test_routes_see_names_as_they_are_in_the_model() -> None:
    """Wrappers of torch put words before them."""
    text = """rule A { w' = w - g } rule B { w' = w } route R { when named("head*") use A() otherwise use B() }"""
    for cls in (load(optlang.build(text, "R"), "R"), optlang.loads(text, "R")):
        for name in ("head.weight", "module.head.weight", "module._orig_mod.head.weight", "body.head.weight"):
            optimizer: Any = cls([(name, nn.Parameter(torch.ones(2)))])
            assert optimizer.param_groups[0]["rule"] == ("B" if name.startswith("body") else "A"), name


def test_what_cannot_be_generated_is_said() -> None:
    with pytest.raises(ValueError, match="`eval` reads values per group or model"):
        optlang.build("rule R { w' = w - g eval = w/norm(w' per model) }")
    with pytest.raises(ValueError, match="its state `s` starts from a value of several parameters"):
        optlang.build("rule R { state s = norm(w per model) s' = s/2 w' = w - s*g }")


def optimizers_of(rule: str) -> tuple[Any, Any]:
    """The generated class and the loaded one."""
    loaded: Any = optlang.loads(rule, backend="reference") if "{" in rule else optlang.load(rule, backend="reference")
    return load(optlang.build(rule), loaded.__name__), loaded


GIVEN = "rule R { input x state m = 0 m' = 0.5*m + x*g w' = w - 0.1*(m' + 0.1*normal()) eval = w' + m' }"


@pytest.mark.parametrize("rule", ["adamw", "schedulefreeadamw", GIVEN])
def test_complex_parameters_are_their_parts_as_in_the_loaded_rule(rule: str) -> None:
    """Also where the loop gives inputs and the rule draws; checkpoints go from one to the other."""
    made = []
    for cls in optimizers_of(rule):
        p = torch.complex(*torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
        optimizer = cls([p])
        optimizer.__dict__.setdefault("inputs", {})["x"] = {p: torch.full((3, 2, 2), 0.5)}
        for step in range(3):
            p.grad = torch.complex(*torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(step))).conj()
            optimizer.step()
        made.append((p, optimizer))
    (p, ours), (q, loaded) = made
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    for name, value in loaded.state[q].items():
        torch.testing.assert_close(ours.state[p][name], value, rtol=1e-6, atol=1e-7)
    ours.load_state_dict(loaded.state_dict())
    loaded.load_state_dict(ours.state_dict())
    if rule != "adamw":
        training = p.detach().clone()
        ours.eval()
        loaded.eval()
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
        assert ours.state[p]["weights_in_training"].shape == (3, 2, 2) and not torch.equal(p, training)
        ours.train()
        assert torch.equal(p, training)


def test_gradients_go_through_steps_of_complex_parameters() -> None:
    cls, _ = optimizers_of("adamw")

    def stepped(gradient: Tensor) -> Tensor:
        p = torch.ones(2, dtype=torch.complex128, requires_grad=True).clone()
        p.grad = gradient
        cls([p], lr=0.1, differentiable=True, maximize=True).step()
        return torch.view_as_real(p)

    assert torch.autograd.gradcheck(stepped, torch.tensor([1 - 2j, 3 + 1j], dtype=torch.complex128, requires_grad=True))


LAZY = "rule R { state m = 0 m' = where(g != 0, 0.9*m + g, m) w' = where(g != 0, w - 0.1*m', w) }"


TELLING = "rule R { state n = 0 report size = norm(g per model) n' = n + g^2 w' = w - 0.1*g/(1 + sqrt(n')) }"


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "signsgd", LAZY, TELLING])
def test_sparse_gradients_step_the_elements_that_they_have(rule: str) -> None:
    """All others stay what they are to the bit; none at all is still a step."""
    made, said = [], []
    for cls in optimizers_of(rule):
        p = nn.Parameter(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
        optimizer = cls([p], maximize=True)
        for places in ([1, 3, 1], [0, 3, 3], []):
            numbers = torch.randn(len(places), 3, generator=torch.Generator().manual_seed(len(made)))
            p.grad = torch.sparse_coo_tensor([places], torch.ones_like(numbers), (5, 3), check_invariants=True)
            before = p.detach().clone()
            optimizer.step()
            said.append(getattr(optimizer, "reports", {}).get("size"))
            untouched = sorted({*range(5)} - {*places})
            assert torch.equal(p[untouched], before[untouched]) and (not places or not torch.equal(p, before))
        made.append((p, optimizer.state[p]))
    (p, ours), (q, theirs) = made
    torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    assert ours.keys() == theirs.keys() and ours["step"] == 3
    assert said[:3] == said[3:] == ([pytest.approx(x) for x in (15**0.5, 15**0.5, 0)] if rule == TELLING else [None] * 3)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7)


STILL = ["lamb", "muon", "adamw", "lion", "rule R { w' = w - g*uniform() }", "rule R { input x w' = w - x*g }",
         "rule R { w' = w - cos(g) }"]  # fmt: skip


@pytest.mark.parametrize("rule", [*STILL, "sgd"])
def test_complex_and_sparse_are_refused_in_the_words_of_the_loaded_rule(rule: str) -> None:
    said: list[list[str]] = []
    for cls in optimizers_of(rule):
        said.append([])
        p = nn.Parameter(torch.ones(4, 2))
        optimizer = cls([p], **({"weight_decay": 0.1} if rule == "sgd" else {}))
        optimizer.__dict__.setdefault("inputs", {})["x"] = 1.0
        p.grad = torch.ones(4, 2).to_sparse()
        for act in (optimizer.step, lambda cls=cls: cls([torch.ones(2, 2, dtype=torch.complex64, requires_grad=True)])):
            try:
                act()
            except (RuntimeError, ValueError) as problem:
                said[-1].append(str(problem).replace("parameter 0 of group 0", "a parameter"))
        assert torch.equal(p, torch.ones(4, 2)) and "has a sparse gradient" in said[-1][0]
    assert said[0] == said[1] and len(said[0]) == 1 + (rule in ("lamb", "muon"))


def test_steps_that_graphs_take_refuse_sparse_gradients() -> None:
    cls, _ = optimizers_of("sgd")
    p = nn.Parameter(torch.ones(4, 2))
    p.grad = torch.ones(4, 2).to_sparse()
    with pytest.raises(RuntimeError, match="capturable steps take dense ones"):
        cls([p], capturable=True).step()


@pytest.mark.parametrize("rule", ["adamw", "muonwithadamw", "sam"])
def test_options_are_those_of_torch(rule: str) -> None:
    """Names, order and defaults; what speeds torch up changes nothing, and what a module cannot have is refused when it is made."""
    cls = load(optlang.build(rule), optlang.Rule(rule).name)
    taken = inspect.signature(cls).parameters
    theirs = {"maximize": False, "foreach": None, "capturable": False, "differentiable": False, "fused": None}
    assert [(name, p.default) for name, p in taken.items() if name in theirs] == list(theirs.items())

    def made(**options: bool) -> tuple[Any, Tensor]:
        p = nn.Parameter(torch.eye(2))
        return cls([{"params": [("weight", p)], **options}]), p

    def weights(**options: bool) -> Tensor:
        optimizer, p = made(**options)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return loss

        for _ in range(2):
            closure()
            optimizer.step(closure)
        return p.detach()

    for option in ("foreach", "fused", *["capturable"] * (rule != "sam")):
        assert torch.equal(weights(**{option: True}), weights())


@pytest.mark.parametrize(
    ("rule", "why"),
    [("sam", "it asks the model again"), ("COUNTS", "its rates are computed on the host"),
     ("DEEP", "torch's functions for matrices wait for the device"), ("DEAR", "in some steps it computes much more than in others"),
     ("sophiag", "in some steps it computes much more than in others")],
)  # fmt: skip
def test_what_no_graph_can_take_is_refused(rule: str, why: str) -> None:
    written = {"COUNTS": "w' = w - 0.1*g*cbrt(t)", "DEEP": "q = eigenvectors(g @ g.T) w' = w - 0.1*q @ g",
               "DEAR": "state q = 0 every 3 { q' = g @ g.T @ g } w' = w - 0.1*q'"}  # fmt: skip
    text = f"rule R {{ {written[rule]} }}" if rule in written else rule
    cls = load(optlang.build(text), optlang.Rule(text).name)
    with pytest.raises(ValueError, match=f"{optlang.Rule(text).name} of this file cannot be capturable: {why}"):
        cls([nn.Parameter(torch.ones(2, 2))], capturable=True)


def test_what_autograd_cannot_go_through_is_refused() -> None:
    with pytest.raises(ValueError, match="SAM cannot be differentiable: it asks the model again"):
        load(optlang.build("sam"), "SAM")([nn.Parameter(torch.ones(2))], differentiable=True)
    start = torch.ones(2, requires_grad=True)
    cls = load(optlang.build("adamw"), "AdamW")
    optimizer = cls([start], differentiable=True)
    start.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="differentiable: .*give clones of parameters"):
        optimizer.step()
    assert start.tolist() == [1, 1] and not optimizer.state
    with pytest.raises(RuntimeError, match="`capturable` does not support `differentiable`"):
        cls([start.clone()], differentiable=True, capturable=True)


def test_settings_of_routes_have_gradients() -> None:
    cls = load(optlang.build("muonwithadamw"), "MuonWithAdamW")

    def stepped(lr: Tensor, momentum: Tensor, beta: Tensor) -> Tensor:
        matrix, bias = torch.eye(2, dtype=torch.float64, requires_grad=True).clone(), torch.ones(2, requires_grad=True).double()
        settings = {"Muon": {"lr": lr, "momentum": momentum}, "AdamW": {"lr": lr, "betas": (beta, 0.9)}}
        optimizer = cls([("matrix", matrix), ("bias", bias)], differentiable=True, **settings)
        for step in range(2):
            matrix.grad, bias.grad = (torch.cos(step + torch.arange(p.numel()).double()).reshape(p.shape) for p in (matrix, bias))
            optimizer.step()
        return torch.cat([matrix.reshape(-1), bias])

    given = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.1, 0.8, 0.7)]
    assert torch.autograd.gradcheck(stepped, given)


def test_one_side_of_a_choice_by_the_step_is_computed() -> None:
    """The slow weights of Lookahead move in every k-th step alone."""
    text = optlang.build("lookahead")
    assert "for holds in _sides(t % k == 0, slow, param):\n                    if holds:" in text
    cls, p, seen = load(text, "Lookahead"), nn.Parameter(torch.ones(3)), []
    optimizer = cls([p], k=3)
    for _ in range(6):
        p.grad = torch.ones(3)
        optimizer.step()
        seen.append(optimizer.state[p]["slow"]._version)
    assert [b - a for a, b in itertools.pairwise([0, *seen])] == [0, 0, 1, 0, 0, 1]


def test_functions_of_settings_have_gradients() -> None:
    text = """rule R { hyper a = 0.3 hyper b = 2 in [0, inf) hyper low = -0.5 hyper first = 0.2 state m = first
              w' = w - g*cbrt(a) - exp(a)*log(b)*w - clip(g, low, 0.25)*sqrt(b) - m + sin(a)*tanh(b) m' = m/2 + exp(b)*g^2 }"""
    given = {"a": -0.3, "b": 1.7, "low": -0.4, "first": 0.15}
    found = []
    for cls in (optlang.loads(text), load(optlang.build(text), "R")):
        settings = {name: torch.tensor(x, dtype=torch.float64, requires_grad=True) for name, x in given.items()}
        p = torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64, requires_grad=True).clone()
        optimizer: Any = cls([p], differentiable=True, **settings)
        for step in range(2):
            p.grad = torch.tensor([0.7, -0.9, 0.1], dtype=torch.float64) * (step + 1)
            optimizer.step()
        found.append(torch.autograd.grad((p * p.detach().cos()).sum() + optimizer.state[p]["m"].sum(), [*settings.values()]))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("power", ["2^2^2^2^2^2", "2^(99999*99999*99999)", "2^(3*2^40)"])
def test_towers_of_whole_numbers_are_infinite_in_time(power: str) -> None:
    text = optlang.build(f"rule A {{ w' = w - {power}*g }}", to="module")
    step = f"{text}\np = torch.nn.Parameter(torch.ones(2))\np.grad = torch.ones(2)\nA([p]).step()\nassert p.isinf().all()\n"
    subprocess.run([sys.executable, "-c", step], check=True, timeout=600)


# With values of all parameters, which lie in cells; a quantile; numbers of settings alone; functions of the rate, and a report; bases in
# every step; and in some
@pytest.mark.parametrize("rule", ["dog", "liontopk", "psgdkron", "localsgd", "dion", "soap"])
def test_a_compiled_step_is_one_graph_or_none(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"compiled_{rule}.py").write_text(optlang.build(rule))
    monkeypatch.syspath_prepend(tmp_path)
    cls = getattr(importlib.import_module(f"compiled_{rule}"), optlang.Rule(rule).name)
    torch._dynamo.reset()
    counts: list[int] = []
    results: list[Tensor] = []

    def counted(graph: Any, _: object) -> Any:
        counts.append(len(graph.graph.nodes))
        return graph

    for compiled in (False, True):
        p = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
        optimizer = cls([p])
        step = torch.compile(optimizer.step, backend=counted, fullgraph=rule != "soap") if compiled else optimizer.step
        for k in range(6):
            p.grad = torch.cos(k + torch.arange(4.0)).reshape(2, 2)
            optimizer.param_groups[0]["lr"] *= 1 if k < 4 else 0.9
            (step if k > 1 else optimizer.step)()  # states are there, and the second step is like all others
        results.append(torch.cat([p.detach().reshape(-1), *(torch.as_tensor([x]) for x in getattr(optimizer, "reports", {}).values())]))
        assert len(counts) <= 2  # one of this rate, and one of any
    assert torch.equal(*results) and bool(counts) == (rule != "soap")
