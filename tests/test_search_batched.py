"""Rules for many models at once: what the compiled optimizers do, in every run, whatever its neighbours do."""

from __future__ import annotations

import numpy as np
import pytest
import random_rules
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from stepping import Loop
from torch import Tensor, nn

from optlang.backends.base import StepError
from optlang.loading import load, loads
from optlang.ops import OPS
from optlang.rules import Rule
from optlang.search.batched.layout import Layout
from optlang.search.batched.rule import Refused, compile_batched, refuses
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import Form, Statement, to_program
from optlang.search.programs.type_codes import codes
from optlang.search.training.loading import task
from optlang.search.training.tasks import like

MUON = """
from std import ema, orthogonalize
rule MuonLike {
  hyper lr = 0.02 in (0, inf)
  state b = 0
  b' = ema(b, g, 0.9)
  u  = ema(g, b', 0.1)
  when rank >= 2 { o = orthogonalize(u) * sqrt(max(1, rows/cols)) } else { o = u / (norm(u) + 1e-8) }
  w' = w - lr*o
}"""
ADAFACTOR = """
rule Factored {
  hyper lr = 0.01 in (0, inf)
  b = 1 - t^(-0.8)
  s = g^2 + 1e-30
  when rank >= 2 {
    state r per row = 0
    state c per col = 0
    r' = b*r + (1 - b)*mean(s per row)
    c' = b*c + (1 - b)*mean(s per col)
    v  = r'*c'/mean(r' per matrix)
  } else {
    state q = 0
    q' = b*q + (1 - b)*s
    v  = q'
  }
  u  = g/sqrt(v)
  w' = w - lr*max(1e-3, rms(w))*u/max(1, rms(u))
}"""
SHAPES = {"a": (6, 4), "b": (5,), "conv": (4, 3, 3, 3), "d": (6, 4), "one": (), "e": (5,)}
LIBRARY = ["adagrad", "adabelief", "adadelta", "adafactor", "adam", "adamax", "amsgrad", "lars", "lookahead", "momentum", "nadam",
           "nesterov", "radam", "rmsprop", "rprop", "sgd", "signsgd"]  # fmt: skip


def digits_model(params: dict[str, Tensor], run: int) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(params["one.bias"].dtype)
    names = ("one.weight", "one.bias", "two.weight", "two.bias")
    with torch.no_grad():
        for name, parameter in zip(names, model.parameters(), strict=True):
            parameter.copy_(params[name][run])
    return model


def gradients(name: str, x: Tensor, noise: Tensor) -> Tensor:
    return 0.5 * x + torch.sin(3 * x) + noise


def noises(dtype: torch.dtype, step: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=source, dtype=dtype) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("what", ["adamw", "lion", "signum", "lamb", ADAFACTOR, MUON], ids=lambda w: w if len(w) < 20 else w.split()[-1])
def test_a_batch_of_runs_trains_a_network_as_the_compiled_optimizer_does(what):
    digits, rates, seeds = task("digits-mlp"), [1e-3, 1e-2], [0, 1]
    layout = Layout(digits.shapes)
    dtype = torch.float64 if what in ("lion", "signum") else torch.float32  # rounding may turn a sign
    start = {name: p.to(dtype) for name, p in digits.init(seeds).items()}
    weights = layout.flat(start)
    slopes = torch.zeros_like(weights)
    bound = compile_batched(Rule(what).program).bind(layout, weights, slopes, {"lr": rates})
    batches = [like(digits.batch(seeds, step), dtype) for step in range(1, 201)]
    for x, y in batches:
        params = {name: p.clone().requires_grad_() for name, p in layout.views(weights).items()}
        loss = digits.loss(params, (x, y)).sum()
        slopes.copy_(layout.flat(dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))))
        bound.step()
    made = (loads if "{" in what else load)(what)
    for run, lr in enumerate(rates):
        model = digits_model(start, run)
        optimizer = made(model.parameters(), lr=lr)
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[run]), y[run]).backward()
            optimizer.step()
        ours = layout.views(weights)
        for name, parameter in zip(("one.weight", "one.bias", "two.weight", "two.bias"), model.parameters(), strict=True):
            assert not torch.allclose(parameter, start[name][run], atol=1e-3)
            torch.testing.assert_close(ours[name][run], parameter.data, atol=1e-5, rtol=0)


@pytest.mark.parametrize("what", [*LIBRARY, MUON, ADAFACTOR], ids=lambda w: w if len(w) < 20 else w.split()[-1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_shapes_and_the_whole_shelf(what, dtype):
    torch.manual_seed(0)
    start = {name: torch.randn(2, *shape, dtype=dtype) for name, shape in SHAPES.items()}
    layout = Layout(SHAPES)
    weights = layout.flat(start)
    slopes = torch.zeros_like(weights)
    bound = compile_batched(Rule(what).program).bind(layout, weights, slopes, {"lr": [0.01, 0.02]})
    made = (loads if "{" in what else load)(what)
    models = [{name: nn.Parameter(start[name][run].clone()) for name in SHAPES} for run in range(2)]
    optimizers = [made(model.values(), lr=lr) for model, lr in zip(models, (0.01, 0.02), strict=True)]
    for step in range(12):
        noise = noises(dtype, step)
        slopes.copy_(layout.flat({name: gradients(name, x, noise[name]) for name, x in layout.views(weights).items()}))
        bound.step()
        for model, optimizer in zip(models, optimizers, strict=True):
            for name, p in model.items():
                p.grad = gradients(name, p.detach(), noise[name])
            optimizer.step()
    for run, model in enumerate(models):
        for name, p in model.items():
            torch.testing.assert_close(layout.views(weights)[name][run], p.data, atol=1e-5, rtol=1e-5)


def steps(bound, layout, weights, slopes, first, last):
    for step in range(first, last):
        slopes.copy_(layout.flat({n: gradients(n, x, noises(torch.float64, step)[n]) for n, x in layout.views(weights).items()}))
        bound.step()


@pytest.mark.parametrize("what", ["adamw", "lookahead", ADAFACTOR, MUON], ids=lambda w: w if len(w) < 20 else w.split()[-1])
def test_runs_that_are_kept_go_on_as_if_nothing_had_happened(what):
    torch.manual_seed(0)
    layout = Layout(SHAPES)
    whole = layout.flat({name: torch.randn(4, *shape, dtype=torch.float64) for name, shape in SHAPES.items()})
    weights, rates = whole.clone(), [0.01, 0.02, 0.03, 0.04]
    slopes, rule = torch.zeros_like(weights), compile_batched(Rule(what).program)
    bound = rule.bind(layout, weights, slopes, {"lr": rates})
    steps(bound, layout, weights, slopes, 0, 7)
    kept = torch.tensor([3, 1])
    fewer, fewer_slopes = weights[kept].clone(), torch.zeros_like(weights[kept])
    after = bound.kept(kept, fewer, fewer_slopes)
    steps(bound, layout, weights, slopes, 7, 15)
    steps(after, layout, fewer, fewer_slopes, 7, 15)
    assert after.t == 15
    torch.testing.assert_close(fewer, weights[kept], atol=0, rtol=0)
    assert not torch.equal(weights, whole)


def test_parameters_without_elements_are_refused():
    with pytest.raises(ValueError, match=r"`b` has the shape \(0, 3\)"):
        Layout({"a": (2,), "b": (0, 3)})


def test_a_run_that_is_lost_does_not_touch_its_neighbours():
    layout = Layout({"a": (3, 2)})
    weights = torch.ones(2, 6)
    slopes = torch.ones(2, 6)
    slopes[0] = torch.nan
    rule = compile_batched(Rule("rule R { hyper lr = 1 in (0, inf) w' = w - lr*g*norm(g per model)/norm(w) }").program)
    rule.bind(layout, weights, slopes).step()
    assert weights[0].isnan().all()
    assert torch.equal(weights[1], torch.zeros(6))


def test_old_values_are_read_before_anything_is_overwritten():
    text = "rule R { state m = 1 state v = 2 state k = 0 m' = v v' = m k' = k + w w' = w + m + 10*v }"
    layout = Layout({"a": (2,)})
    weights = torch.zeros(1, 2)
    bound = compile_batched(Rule(text).program).bind(layout, weights, torch.zeros(1, 2))
    bound.step()
    bound.step()
    assert weights.tolist() == [[21 + 12] * 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rule R { hyper rho = 1 in (0, inf) w' = w - grad(w + rho*g) }", "gradients at other points"),
        ("rule R { w' = w - hvp(g) }", "Hessian"),
        ("rule R { w' = w - g*loss }", "reads the loss"),
        ("rule R { input x per model w' = w - g*x }", "from the training loop"),
        ("rule R { w' = w - g*normal() }", "random"),
        ("rule R { w' = w - g/norm(g per group) }", "per group"),
        ("rule R { w' = w - g/norm(g per 4) }", "elements together"),
        ("rule R { state h[3] per model = nan h' = push(h, norm(g per model)) w' = w - g*mean(h') }", "window"),
    ],
)
def test_what_a_batch_cannot_run_is_refused_with_the_reason(text, reason):
    program = Rule(text).program
    assert reason in refuses(program)
    with pytest.raises(Refused, match=f"rule `R` .*{reason}"):
        compile_batched(program)


def test_a_vector_where_a_matrix_is_needed():
    rule = compile_batched(Rule("muon").program)
    with pytest.raises(StepError, match=r"bias has shape \(3,\), but rule `Muon` needs a matrix"):
        rule.bind(Layout({"weight": (3, 2), "bias": (3,)}), torch.ones(1, 9), torch.ones(1, 9))
    rule.bind(Layout({"weight": (3, 2)}), torch.ones(1, 6), torch.ones(1, 6)).step()


def test_hypers_that_do_not_fit():
    rule, layout = compile_batched(Rule("rmsprop").program), Layout({"a": (2,)})
    with pytest.raises(ValueError, match="has no hyper `beta`"):
        rule.bind(layout, torch.ones(2, 2), torch.ones(2, 2), {"beta": 0.9})
    with pytest.raises(ValueError, match="3 values of `lr` for 2 runs"):
        rule.bind(layout, torch.ones(2, 2), torch.ones(2, 2), {"lr": [1, 2, 3]})
    with pytest.raises(ValueError, match="`centered` decides what is remembered"):
        rule.bind(layout, torch.ones(2, 2), torch.ones(2, 2), {"centered": [True, False]})


def test_reductions_stay_in_their_run():
    text = """rule R {
      q = quantile(g, 0.5)
      w' = w - q - max(g per row) - 10*min(g per model) - 100*count(g) - mean(mean(g per col) per tensor) - sum(mean(g) per model)
    }"""
    layout = Layout({"a": (2, 2), "b": (2, 2)})
    slopes = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 0, 0, 0, 1]])
    weights = torch.zeros(2, 8)
    compile_batched(Rule(text).program).bind(layout, weights, slopes).step()
    first = [2.5 + 10 + 400 + 2.5 + 9.0] * 4
    assert weights[0, :4].tolist() == pytest.approx([-first[0] - 2, -first[0] - 2, -first[0] - 4, -first[0] - 4])
    assert weights[1, 4:].tolist() == pytest.approx([-400.5, -400.5, -401.5, -401.5])


# ------------------------------------------------------------------------------------------- against the reference


def compare(program, hypers, count=4):
    """Some steps in two runs of different settings, beside the reference interpreter."""
    torch.manual_seed(0)
    layout = Layout(SHAPES)
    start = {name: torch.randn(2, *shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    weights = layout.flat(start)
    slopes = torch.zeros_like(weights)
    copies = [[start[name][run].numpy().copy() for name in SHAPES] for run in range(2)]
    loops = [Loop(program, *copies[run], **{name: values[run] for name, values in hypers.items()}) for run in range(2)]
    try:
        bound = compile_batched(program).bind(layout, weights, slopes, hypers)
    except StepError:
        with np.errstate(all="ignore"), pytest.raises(StepError):
            loops[0].step()
        return
    for step in range(count):
        drawn = noises(torch.float64, step)
        slopes.copy_(layout.flat({name: drawn[name].expand(2, *shape) for name, shape in SHAPES.items()}))
        bound.step()
        for run, loop in enumerate(loops):
            with np.errstate(all="ignore"):
                expected = loop.step(*(drawn[name].numpy() for name in SHAPES))
            for name, value in zip(SHAPES, expected, strict=True):
                np.testing.assert_allclose(layout.views(weights)[name][run].numpy(), value, rtol=1e-9, atol=1e-12)


@given(random_rules.rules, st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_random_rules_are_what_the_reference_says(program, rates, flag):
    compare(program, {"lr": list(rates), "beta": [0.9, 0.5], "flag": [flag, True]}, 2)


NAMES = ("g", "w", "m", "v", "t", "rank", "numel", 0.3, 2.0, -1.5)
ROWS = [name for name in FUNCTIONS if name not in OPS or (OPS[name].role != "matrix" and name != "branch")]


@st.composite
def genomes(draw):
    """A few well-typed statements, each of which reaches the update or a slot."""
    form, found, names = Form(), [], list(NAMES)
    for place in range(draw(st.integers(1, 5))):
        function = draw(st.sampled_from(ROWS))
        args = tuple(draw(st.sampled_from(names)) for _ in range(FUNCTIONS[function].operands))
        found.append(Statement(function, f"x{place}", args))
        if codes((*found, Statement("add", "u", ("g", "g"))), form) is None:
            found.pop()
        else:
            names = [*names, f"x{place}", f"x{place}"]
    last = found[-1].target if found else "g"
    whole = (*found, Statement("interp", "m", ("m", last, 0.1)), Statement("add", "v", ("g", last)), Statement("mul", "u", ("w", last)))
    assume(codes(whole, form) is not None)
    return to_program(whole, form)


@given(genomes())
@settings(max_examples=60, deadline=None)
def test_random_genomes_are_what_the_reference_says(program):
    compare(program, {"lr": [0.1, 0.01]}, 3)


@pytest.mark.parametrize("name", ROWS)
def test_every_function_of_the_search(name):
    tried = 0
    for args in (("g", "w", 0.5), ("w", 0.7, "g"), ("m", "g", "v"), (0.5, "g", "w"), ("g", 3.0, 2.0), ("c", "c", "c"), ("c", "w", "g")):
        for end in (Statement("add", "u", ("a", "g")), Statement("where", "u", ("a", "g", "w"))):
            first = (Statement("lt", "c", ("g", "w")), Statement(name, "a", args[: FUNCTIONS[name].operands]))
            genome = (*first, end, Statement("add", "m", ("m", "u")))
            if tried < 2 and codes(genome, Form()) is not None:
                compare(to_program(genome, Form()), {"lr": [0.1, 0.01]}, 2)
                tried += 1
    assert tried
