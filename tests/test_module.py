"""Generated modules: standing alone, safe with hostile text, right beside the reference, and readable."""

from __future__ import annotations

import importlib
import inspect
import itertools
import os
import pickle
import random
import re
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from generated_module import Net, load, run, same
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from random_rules import texts
from stepping import finite
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

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
    "matrix of a short choice": "rule R { when rank >= 2 { state p[rows, rows] = eye(rows) every 2 { p' = p + g @ g.T } u = p @ g } else "
    "{ u = g } w' = w - 0.1*u }",
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


@pytest.mark.parametrize("name", NAMES)
def test_lint_and_stand_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(optlang.build(name))
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "optlang" not in path.read_text().replace("Generated by optlang", "")


def test_every_feature_is_linted(tmp_path: Path) -> None:
    for name, text in FEATURES.items():
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


def test_the_length_of_a_loop_stays_a_hyper() -> None:
    text = FEATURES["two loops"]
    ours, theirs = load(optlang.build(text), "R"), optlang.loads(text, backend="reference")
    for n in (0, 1, 7):
        same(run(ours, n=n)[0], run(theirs, n=n)[0])
    assert "for _ in range(n)" in optlang.build(text)


def test_rules_named_like_what_a_module_needs() -> None:
    for name in ("torch", "Optimizer", "None"):
        text = f"rule {name} {{ w' = w - 0.1*sqrt(t)*g }}"
        run(load(optlang.build(text), f"{name}_"), steps=2)


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


@pytest.mark.parametrize("name", ["mezo", "sam"])
def test_autocast_around_a_step_is_as_autocast_in_its_closure(name: str) -> None:
    """It keeps casts of weights, which are not those of other points."""
    cls, cast, found = load(optlang.build(name), optlang.Rule(name).name), torch.autocast("cpu", torch.bfloat16), []
    for around, inside in ((cast, nullcontext()), (nullcontext(), cast)):
        torch.manual_seed(0)
        net = Net(torch.float32)
        optimizer = cls(net.parameters(), lr=1e-2)

        def closure(net: nn.Module = net, optimizer: Any = optimizer, inside: Any = inside) -> Tensor:
            with inside:
                optimizer.zero_grad()
                loss: Tensor = net(torch.ones(1, 5)).square().sum()
                loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for _ in range(2):
            with around:
                optimizer.step(closure)
        found.append([p.detach() for p in net.parameters()])
    assert all(map(torch.equal, *found))


ROUTED = "rule A { state m = 0 m' = m + g w' = w - 0.1*m' } rule B { input c per element state n = w n' = n + c*g w' = w - n' } "


@pytest.mark.parametrize("text", ["sophiag", "fedhypercl", "l2opa", ROUTED + "route R { when rank == 1 use A() otherwise use B() }"])
@pytest.mark.parametrize("made", [lambda text: load(optlang.build(text, "R" if " " in text else None), name_of(text)),
                                  lambda text: optlang.loads(text, "R") if " " in text else optlang.load(text)])  # fmt: skip
def test_distributed_checkpoints_of_rules_that_read_inputs(text: str, made: Any) -> None:
    """States are made without the inputs, and nothing moves; a step that has gradients asks for them."""
    nets = [Net(torch.float32) for _ in range(2)]
    optimizers = [made(text)(net.parameters()) for net in nets]

    def train(net: nn.Module, optimizer: Any) -> None:
        given = {p: torch.full_like(p, 0.3) for p in net.parameters()}
        for _ in range(2):
            optimizer.zero_grad()
            net(torch.ones(1, 5)).square().sum().backward()
            optimizer.inputs = dict.fromkeys(("c", "a", "p", "curvature", "drift"), given)
            optimizer.step()
        optimizer.inputs = {}

    train(nets[0], optimizers[0])
    nets[1].load_state_dict(nets[0].state_dict())
    before = [p.detach().clone() for p in nets[1].parameters()]
    set_optimizer_state_dict(nets[1], optimizers[1], get_optimizer_state_dict(nets[0], optimizers[0]))
    assert all(torch.equal(p, q) for p, q in zip(nets[1].parameters(), before, strict=True))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        same_states(optimizers[0].state[p], optimizers[1].state[q])
    for net, optimizer in zip(nets, optimizers, strict=True):
        train(net, optimizer)
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    nets[1](torch.ones(1, 5)).sum().backward()
    with pytest.raises(RuntimeError, match="needs optimizer.inputs"):
        made(text)(nets[1].parameters()).step()


def name_of(text: str) -> str:
    return "R" if " " in text else optlang.Rule(text).name


def same_states(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


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


def test_what_cannot_be_generated_is_said() -> None:
    with pytest.raises(ValueError, match="`eval` reads values per group or model"):
        optlang.build("rule R { w' = w - g eval = w/norm(w' per model) }")
    with pytest.raises(ValueError, match="its state `s` starts from a value of several parameters"):
        optlang.build("rule R { state s = norm(w per model) s' = s/2 w' = w - s*g }")


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
     ("DEEP", "torch's functions for matrices wait for the device"), ("LATE", "torch's functions for matrices wait for the device")],
)  # fmt: skip
def test_what_no_graph_can_take_is_refused(rule: str, why: str) -> None:
    written = {"COUNTS": "w' = w - 0.1*g*cbrt(t)", "DEEP": "q = eigenvectors(g @ g.T) w' = w - 0.1*q @ g",
               "LATE": "state q = 0 every 3 { q' = orthonormal(g) } w' = w - 0.1*q'"}  # fmt: skip
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


# With values of all parameters, which lie in cells; a quantile; numbers of settings alone; functions of the rate, and a report; products
# in some steps; norms per row; clipping by what was seen; a table; and bases
RULES_TO_COMPILE = ["dog", "liontopk", "psgdkron", "localsgd", "frugalcolumns", "normuon", "stablespam", "perparametermlp", "dion", "splus"]


@pytest.mark.parametrize("rule", RULES_TO_COMPILE)
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
        step = torch.compile(optimizer.step, backend=counted, fullgraph=rule not in ("dion", "splus")) if compiled else optimizer.step
        for k in range(6):
            p.grad = torch.cos(k + torch.arange(4.0)).reshape(2, 2)
            optimizer.param_groups[0]["lr"] *= 1 if k < 4 else 0.9
            (step if k > 1 else optimizer.step)()  # states are there, and the second step is like all others
        results.append(torch.cat([p.detach().reshape(-1), *(torch.as_tensor([x]) for x in getattr(optimizer, "reports", {}).values())]))
        assert len(counts) <= 2  # one of this rate, and one of any
    assert torch.equal(*results) and bool(counts) == (rule not in ("dion", "splus"))
