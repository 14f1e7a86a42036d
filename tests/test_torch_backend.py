"""The torch backend beside the reference backend: library rules, random rules, barriers, draws, blocks. 25 seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import random_rules
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import cell, finite, is_ambiguous, program, shapes_for, step_of
from torch import Tensor

import optlang
from optlang import ir
from optlang.analysis import live_states
from optlang.backends.base import Step, StepError
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch import BACKEND, TorchExecutable, barriers, ops
from optlang.ops import OPS, Op
from optlang.types import TypeProblem

LIBRARY = sorted(p.stem for p in (Path(__file__).parent.parent / "library").rglob("*.opt") if p.stem != "std")
STEADY = [name for name in LIBRARY if not is_ambiguous(optlang.Rule(name).program)]
SHAPES: tuple[tuple[int, ...], ...] = ((3, 4), (4, 3), (5,), (1,), (), (0,), (2, 3, 2, 2), (1, 4), (2, 0), (3, 2, 5))
ONE_GROUP = (  # their settings enter values of the model
    "dadaptadam", "prodigy", "swats", "dadaptsgd", "adamhd", "sgdhd", "oasis", "sps", "spssmooth", "alig", "localsgd", "fedhypercl",
)  # fmt: skip
UNTRAINED = ("perparametermlp", "mulo")  # their networks are all zero until one is given, so that weights stay; states do not


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def train(cls: Any, shapes: Sequence[tuple[int, ...]], steps: int, dtype: torch.dtype = torch.float64, **group: Any) -> Any:
    """Weights, states and reports after steps on a smooth loss that couples all parameters; the last one is in a second group."""
    params = [some(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(shapes)]
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    optimizer = cls([{"params": named[:-1]}, {"params": named[-1:], **group}])
    for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
        optimizer.inputs[wanted] = {p: p.detach() ** 2 for p in params}
    for step in range(steps):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            parts = [((p - some(*p.shape, seed=99 + step + i, dtype=dtype)) ** 2).sum() for i, p in enumerate(params)]
            loss = torch.stack(parts).sum() + (torch.stack([p.sum() for p in params]).sum() - step) ** 2 / 8
            loss.backward()
            return loss

        optimizer.step(closure)
    states = [dict(optimizer.state[p]) for p in params]
    return params, states, {k: torch.tensor(v) for k, v in optimizer.reports.items()}


def assert_same(one: Any, other: Any, rtol: float = 1e-10, atol: float = 1e-10) -> None:
    """NaN, too: windows hold it where nothing has been pushed, reports and operators give it. Weights are to be `finite`."""
    torch.testing.assert_close(one, other, rtol=rtol, atol=atol, equal_nan=True)


def compare(text: str, shapes: Sequence[tuple[int, ...]] = SHAPES, steps: int = 7, moves: bool = True, **group: Any) -> None:
    classes = [optlang.loads(text, backend=b) if "{" in text else optlang.load(text, backend=b) for b in ("torch", "reference")]
    one, other = (train(cls, shapes, steps, **group) for cls in classes)
    finite(*one[0])
    assert_same(one, other)
    assert torch.equal(one[0][0], some(*shapes[0])) is not moves


# ------------------------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize("name", STEADY)
def test_library(name: str) -> None:
    """Every shape, two groups with settings of their own, in float64."""
    made: Any = optlang.Rule(name).program
    hypers = {h.name: h for p in ([c.program for c in made.cases] if isinstance(made, ir.Routing) else [made]) for h in p.hypers}
    group = {"lr": hypers["lr"].default * 3} if "lr" in hypers and name not in ONE_GROUP else {}
    if group and "beta1" in hypers:
        group["beta1"] = 0.5
    compare(name, shapes_for(made, SHAPES), moves=name not in UNTRAINED, **group)


@pytest.mark.parametrize("name", STEADY)
def test_library_in_float32(name: str) -> None:
    shapes = shapes_for(optlang.Rule(name).program, SHAPES)
    sides = [train(optlang.load(name, backend=b), shapes, 4, torch.float32) for b in ("torch", "reference")]
    finite(*sides[0][0])
    assert_same(*sides, rtol=2e-3, atol=2e-4)


# --------------------------------------------------------------------------------------------------------- any rule


def sides(rule: ir.Program, steps: int, math: Any, *shapes: tuple[int, ...]) -> list[Any]:
    """Everything that is stored after some steps, on both backends, each parameter with a step size of its own."""
    found = []
    for backend in (BACKEND, REFERENCE):
        executable = backend.compile(rule, math)
        cells = [cell(some(*s, seed=i), index=i, **{h.name: h.default for h in rule.hypers}) for i, s in enumerate(shapes)]
        for i, one in enumerate(cells):
            one.hypers = {**one.hypers, "lr": 0.01 * (i + 1)}
        taken = step_of(*cells)
        for t in range(1, steps + 1):
            for i, one in enumerate(cells):
                one.t, one.gradient = t, some(*shapes[i], seed=50 * t + i)
            executable.prepare(taken)
            executable.step(taken)
        found.append([(c.weights, dict(c.state)) for c in cells])
    return found


@settings(max_examples=60)
@given(random_rules.rules, st.sampled_from(["strict", "safe"]))
def test_random_rules(rule: ir.Program, math: str) -> None:
    """To rounding, relative to the largest value: random equations cancel and divide by what is almost nothing."""
    for (w, s), (v, r) in zip(*sides(live_states.without_dead(rule), 3, math, (3, 2), (5,), ()), strict=True):
        for mine, theirs in [(w, v), *((s[k], r[k]) for k in r)]:
            known = theirs.isfinite() & (theirs.abs() < 1e100)
            assert_same(mine[known], theirs[known], rtol=1e-4, atol=1e-7)


# --------------------------------------------------------------------------------------------------- feature by feature

HEAD = "hyper lr = 0.05 in (0, inf) "
PROGRAMS: dict[str, str] = {
    "norm per model": "w' = w - lr*g/norm(g per model)",
    "norm per group": "w' = w - lr*g/norm(g per group)",
    "other reductions per model": "w' = w - lr*g*(max(abs(g) per model) - min(g per model))/count(g per model) - 0.1*mean(w per model)",
    "quantile per model": "w' = w - lr*clip(g, -quantile(abs(g) per model, 0.7), quantile(abs(g) per group, 0.3))",
    "quantiles of rows and tensors": "w' = w - lr*g/(1 + quantile(abs(g), 0.25)) - 0.1*quantile(quantile(g, 0.5) per model, 0.5)",
    "means of means": "w' = w - lr*g*mean(norm(g per group) per model) - lr*max(mean(g) per group)",
    "nested barriers": "a = g/norm(g per model)  b = a - mean(a per group)  w' = w - lr*b/norm(b per model)",
    "gradient elsewhere": "w' = w - lr*grad(w + 0.1*g/norm(g per model))",
    "gradients of gradients": "a = grad(w - 0.1*g)  b = grad(w - 0.1*a)  w' = w - lr*(a + b)/norm(b per model)",
    "gradient at the weights": "w' = w - lr*grad(w)",
    "curvature": "z = rademacher()  w' = w - lr*z*hvp(z)",
    "curvature twice": "w' = w - lr*hvp(hvp(g))",
    "losses elsewhere": "z = normal()  w' = w - lr*z*(loss_at(w + 0.1*z) - loss_at(w - z/norm(g per model)))",
    "loss": "w' = w - lr*g*loss/(1 + loss)",
    "state per model": "state n per model = 2  n' = 0.5*n + norm(g per model)  w' = w - lr*g/n'",
    "state per model from t": "state n per model = 0  n' = n + t  w' = w - lr*g*n'",
    "states per group and tensor": "state a per group = 0  state b per tensor = lr"
    "  a' = a + mean(g per group)  b' = b + max(abs(g))  w' = w - lr*g*a'/b'",
    "window per model": "state h[3] per model = nan  h' = push(h, norm(g per model))  w' = w - lr*g*min(1, quantile(h', 0.5)/max(h'))",
    "window per element": "state h[2] = nan  h' = push(h, g)  w' = w - lr*(mean(h') + min(h') + quantile(h', 0.3) + max(h')) + count(h')",
    "window per tensor": "state h[4] per tensor = 0  h' = push(h, mean(g))  w' = w - lr*g*sum(h')",
    "window of several": "state h[2] = w  state k[2] per tensor = 1  k' = push(k, mean(g))  h' = push(h, g)  w' = w - lr*mean(h'*k')",
    "when known": "when t <= 3 { w' = w - lr*g } else { w' = w + lr*g }",
    "every": "state m = 0  every 3 from 2 { m' = m + g  w' = w - lr*m' } else { m' = 0.5*m  w' = w - lr*m }",
    "every without else": "state m = 0  m' = m + g  every 2 { w' = w - lr*m' }",
    "when on a tensor": "when mean(g) > 0 { w' = w - lr*g } else { w' = w - 2*lr*g*norm(w) }",
    "when on the model": "state n = 0  when norm(g per model) > 5 { n' = n + 1  w' = w - lr*g } else { w' = w + lr*n }",
    "when on a group": "when mean(g per group) > 0 { u = g/norm(g per group) } else { u = 0.1*g }  w' = w - lr*u",
    "when on facts": "state r = 0  when rank >= 2 and rows > cols { r' = r + g  w' = w - lr*r' } else { w' = w - lr*g/numel }",
    "blocks in blocks": "state m = 0  every 2 { when mean(g) > 0 { m' = m + g } else { m' = m - g } }  w' = w - lr*m",
    "truths": "state up = true  state m = 0  up' = g > 0 and not up or abs(g) < 0.1  m' = where(up', m + g, m)  w' = w - lr*m'",
    "values of w' and t": "state a = w  a' = a + (w' - a)/t  w' = w - lr*g*0.9^t - lr*a",
    "rows and columns": "when rank >= 2 { u = g/(1 + mean(g^2 per row) + max(abs(g) per col) + mean(mean(g per row) per matrix)) }"
    " else { u = g }  w' = w - lr*u",
    "products": "when rank >= 2 { u = g @ g.T @ g } else { u = g }  w' = w - lr*u/(1 + norm(u))",
    "conv as a matrix": "when rank >= 2 { x = as_matrix(g)  u = as_param(x @ x.T @ x) } else { u = g }  w' = w - lr*u/(1 + norm(u))",
    "hypers of groups": "w' = w - lr*g/norm(lr*g per group)",
    "maps": "w' = w - lr*(sin(g) + exp(-abs(g)) + log(1 + g^2) + sqrt(abs(w)) + sign(g)*floor(3*g)"
    " + min(g, w, 0) + clip(g, -1, 1)^3 + abs(g)^0.3 + tanh(g))",
    "special numbers": "w' = w - lr*where(g > 1, min(inf, g), max(-inf, g)) + 0*lr",
    "weights alone": "w' = w*(1 - lr)",
    "sizes alone": "when rank >= 2 { a = var(places(cols) per tensor) + norm(eye(rows)) } else { a = 1 }  w' = w - lr*a*g",
    "reports": "report a = norm(g per model)  report b = lr*t  report c = max(w per model) > 0  w' = w - lr*g",
}  # fmt: skip


def as_rule(body: str) -> str:
    return f"rule R {{ {HEAD}{body} }}"


@pytest.mark.parametrize("name", PROGRAMS)
def test_feature(name: str) -> None:
    group = {} if "gradients of" in name or "model from t" in name or "reports" in name else {"lr": 0.025}
    shapes = tuple(s for s in SHAPES if 0 not in s) if "row" in name or "means" in name else SHAPES  # of nothing there is no mean
    compare(as_rule(PROGRAMS[name]), shapes, **group)


@pytest.mark.parametrize("name", PROGRAMS)
def test_feature_in_half(name: str) -> None:
    """In bfloat16 and float32 side by side: the weights agree as far as bfloat16 goes."""
    cls: Any = optlang.loads(as_rule(PROGRAMS[name]))
    shapes = ((3, 4), (5,), (), (2, 3, 2, 2))
    low, high = (train(cls, shapes, 1, dtype)[0] for dtype in (torch.bfloat16, torch.float32))
    finite(*low)
    if name not in ("when on a tensor", "when on the model", "when on a group", "truths", "maps"):  # a jump is no rounding
        assert_same([p.float() for p in low], [p.detach() for p in high], rtol=0.05, atol=0.05)
    assert {p.dtype for p in low} == {torch.bfloat16}


# ------------------------------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize("distribution", ["uniform", "rademacher", "exponential", "normal"])
@pytest.mark.parametrize("word", ["element", "row", "col", "matrix", "tensor", "group", "model"])
def test_draws_are_those_of_the_reference(distribution: str, word: str) -> None:
    text = as_rule(f"x = {distribution}(per {word})  y = {distribution}(per {word})  w' = x + 10*y + 0*g")
    shapes = [shape for shape in SHAPES if len(shape) >= 2 and 0 not in shape] if word in ("row", "col", "matrix") else SHAPES
    one, other = (train(optlang.loads(text, backend=b), shapes, 2)[0] for b in ("torch", "reference"))
    finite(*one)
    assert_same(one, other, rtol=1e-13, atol=1e-13)
    assert one[0].flatten()[0] != one[0].flatten()[0] // 11 * 11


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(0, 2**70), st.integers(1, 2**31))
def test_draws_for_any_seed_place_and_step(index: int, seed: int, t: int) -> None:
    rule = program("rule D { w' = uniform() + 2*normal() }")
    found = []
    for backend in (BACKEND, REFERENCE):
        one = cell(torch.zeros(7, dtype=torch.float64), t=t, index=index)
        executable = backend.compile(rule, "safe")
        executable.step(step_of(one, seed=seed))
        found.append(one.weights)
    assert_same(*found, rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------------------------------------------- what it does to tensors


def test_parameters_of_one_function_share_it_and_those_of_other_sizes_too() -> None:
    executable = TorchExecutable(program("rule R { hyper lr = 1 in (0, inf) state m = 0 m' = m + g w' = w - lr*m' }"))
    cells = [cell(some(n), some(n), index=n, lr=0.1) for n in range(1, 9)]
    taken = step_of(*cells)
    executable.prepare(taken)
    executable.step(taken)
    assert len(executable._functions._codes) == 1


def test_autograd_sees_that_weights_changed() -> None:
    """For one parameter and for several, which go through a function together."""
    for count in (1, 3):
        params = [some(4).requires_grad_() for _ in range(count)]
        optimizer: Any = optlang.load("sgd")(params)
        losses = [(p**2).sum() for p in params]
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
        for loss in losses:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


def test_tied_memory_of_gradients_is_left_alone() -> None:
    """Gradients are read, never written, even where one tensor serves two parameters."""
    params = [some(4, seed=i).requires_grad_() for i in range(3)]
    gradient = some(4, seed=9)
    for p in params:
        p.grad = gradient
    optlang.load("adamw")(params).step()
    assert torch.equal(gradient, some(4, seed=9))


@pytest.mark.parametrize("backend", [BACKEND, REFERENCE], ids=["torch", "reference"])
def test_errors_come_before_anything_is_written(backend: Any) -> None:
    """Of two parameters, the second one lacks what the rule needs."""
    rules = {
        "gradient": ("w' = w - g", (3,), {"gradient": None}),
        "input": ("input x w' = w - x*g", (3,), {"inputs": {}}),
        "shape of an input": ("input x w' = w - x*g", (3,), {"inputs": {"x": torch.ones(4)}}),
        "shape of the gradient": ("w' = w - g", (3,), {"gradient": torch.ones(2)}),
        "a matrix": ("w' = w - mean(g per row)", (3,), {}),
        "a fact": ("w' = w - g/rows", (3,), {}),
    }
    for name, (body, shape, change) in rules.items():
        cells = [cell(some(3, 2), some(3, 2)), cell(some(*shape), some(*shape), index=1)]
        for one in cells:
            one.inputs = {"x": torch.ones(3, 2, dtype=torch.float64)} if one is cells[0] else {}
        for field, value in change.items():
            setattr(cells[1], field, value)
        executable = backend.compile(program(f"rule R {{ {body} }}"), "safe")
        with pytest.raises(StepError, match="p1|parameter 1"):
            executable.step(step_of(*cells))
        assert torch.equal(cells[0].weights, some(3, 2)), name


class There(Tensor):
    """A number on another device, which does not meet those of this one."""

    device = torch.device("cuda", 1)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.stack or all(isinstance(x, cls) for x in args[0])
        return super().__torch_function__(function, types, args, kwargs or {})


def test_numbers_of_each_device_come_to_the_host_together() -> None:
    found = barriers._on_host({0: torch.tensor(1.0), 1: torch.tensor(2.0).as_subclass(There), 2: torch.tensor(3.0)})
    assert {place: float(value) for place, value in found.items()} == {0: 1, 1: 2, 2: 3}


class Half:
    """The first half of a parameter; another process holds the other one, with the same numbers."""

    offset = 0
    key = ("both",)

    def __init__(self, *shape: int) -> None:
        self.shape = shape
        self.asked: list[str] = []

    def reduced(self, op: str, values: Tensor) -> Tensor:
        self.asked.append(op)
        return 2 * values if op == "sum" else values


def test_values_of_parts_are_reduced_with_those_of_other_processes() -> None:
    text = ("rule R { when rank >= 2 { d = g/norm(g) } else { d = g + max(g) } n = sqrt(mean(g^2 per model)) "
            "w' = w - 0.1*d/(1 + n) }")  # fmt: skip
    executable, whole = TorchExecutable(program(text), parts=True), TorchExecutable(program(text))
    full = [torch.arange(1.0, 9).reshape(4, 2), torch.arange(1.0, 4)]
    doubled = [torch.cat([x, x]) for x in full]
    cells = [cell(torch.zeros_like(x), x.clone(), index=i) for i, x in enumerate(full)]
    others = [cell(torch.zeros_like(x), x.clone(), index=i) for i, x in enumerate(doubled)]
    halves = [Half(*x.shape) for x in doubled]
    for one, half in zip(cells, halves, strict=True):
        one.spread = half
    for run, some in ((executable, cells), (whole, others)):
        run.prepare(step_of(*some))
        run.step(step_of(*some))
    for one, other in zip(cells, others, strict=True):
        torch.testing.assert_close(one.weights, other.weights[: len(one.weights)])
    assert {op for half in halves for op in half.asked} == {"sum", "amax"}


def test_no_cells() -> None:
    executable = BACKEND.compile(program("rule R { report n = norm(g per model) w' = w - g }"), "safe")
    empty = Step([], {}, {})
    executable.prepare(empty)
    executable.step(empty)
    assert executable.evaluation(empty) == []
    assert empty.reports == {}


def test_the_listing_is_what_runs() -> None:
    text = optlang.build("adamw", to="torch")
    assert "def update(" in text
    assert "# s[0]:" in text
    compile(text, "listing", "exec")
    both = optlang.build("muonwithadamw", to="torch")
    assert "Muon" in both
    assert "AdamW" in both
    compile(both, "listing", "exec")


# ------------------------------------------------------------------------------------------------- operators and names

NUMBERS = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e300, -1e300, 1e-300, 1.0, -1.5, 0.5, 2.0]
SPECIAL = torch.tensor(NUMBERS, dtype=torch.float64)
MAPS = [row for row in OPS.values() if row.role in ("map", "select") and row.name != "branch"]


@pytest.mark.parametrize("row", MAPS, ids=lambda row: row.name)
def test_every_elementwise_operator_on_special_numbers(row: Op) -> None:
    """Of all pairs of special numbers, with operands that are tensors, numbers, and truths where they are wanted."""
    left, right = (x.flatten() for x in torch.meshgrid(SPECIAL, SPECIAL, indexing="ij"))
    numbers: list[ir.Node] = [ir.W, ir.G, ir.const(2), ir.const(-1.5)]
    truths = [ir.make("lt", (ir.W, ir.G)), ir.make("ge", (ir.G, ir.const(0)))]
    tried = 0
    for operands in product([*numbers, *truths], repeat=row.operands):
        try:
            value = ir.make(row.name, operands)
        except TypeProblem:
            continue
        value = value if value.type.kind != "bool" else ir.make("where", (value, ir.const(1), ir.const(0)))
        found = []
        for executable in (TorchExecutable(plain(value)), REFERENCE.compile(plain(value), "safe")):
            one = cell(left.clone(), right.clone())
            executable.step(step_of(one))
            found.append(one.weights)
        if row.name == "mod":  # of a number 10^15 times as large nothing remains but rounding
            like = (left / right).abs().clamp(1e-15, 1e15) == (left / right).abs()
            found = [torch.where(like, x, 0) for x in found]
        assert_same(*found, rtol=1e-13, atol=1e-320)
        if row.name not in ("cbrt", "mod"):  # whose zeros have no sign to rely on
            assert torch.equal(*(x.signbit() & ~x.isnan() for x in found)), operands
        tried += 1
    assert tried > 1


def plain(value: ir.Node) -> ir.Program:
    return ir.Program("Test", "", (), (), (), {}, value)


def test_a_rule_of_many_operators_and_a_chain_of_doublings() -> None:
    deep, double = ir.W, ir.W
    for _ in range(3000):
        deep = ir.add(deep, ir.const(1))
    for _ in range(100):
        double = ir.add(double, double)
    for value, expected in ((deep, 3001.0), (double, 2.0**100)):
        one = cell(torch.ones(2, dtype=torch.float64))
        TorchExecutable(plain(value)).step(step_of(one))
        assert one.weights.tolist() == [expected] * 2


@pytest.mark.parametrize("shape", [(1,), (2,), (10,), (3, 11), (2, 5000)])
@pytest.mark.parametrize("special", [None, torch.nan, torch.inf, -torch.inf])
def test_quantiles_by_selection_are_those_by_sorting(shape: tuple[int, ...], special: float | None) -> None:
    for source in (torch.randn(shape), torch.randint(0, 3, shape).double()):
        x = source if special is None else source.index_fill(-1, torch.tensor([shape[-1] // 2]), special)
        for q in (0.0, 0.1, 0.5, 0.9, 1.0, 1.5, -1.0, torch.nan):
            selected = ops._quantile(x, torch.tensor(q))
            ordered = ops._quantile(x, torch.full(shape[:-1], q).reshape(-1)) if len(shape) > 1 else None
            followed = ops._quantile(x.clone().requires_grad_(), torch.tensor(q)).detach()
            assert torch.equal(selected.nan_to_num(7), followed.nan_to_num(7)), q
            assert torch.equal(selected.nan_to_num(7), ops._quantile(torch._neg_view(-x), torch.tensor(q)).nan_to_num(7)), q
            assert ordered is None or torch.equal(selected.nan_to_num(7), ordered.nan_to_num(7)), q


def test_what_is_of_no_more_use_gives_its_name_away() -> None:
    """So a step of a long rule holds few tensors at a time."""
    turning = " ".join(f"a{k} = a{k - 1} + 0.5*(a{k - 1} @ a{k - 1}.T) @ a{k - 1}" for k in range(1, 20))
    rule = program(f"rule R {{ hyper lr = 0.1 in (0, inf) a0 = g.T {turning} w' = w - lr*a19.T }}")
    made: Any = TorchExecutable(replace(rule, names=()))
    made.step(step_of(cell(torch.ones(6, 4), torch.full((6, 4), 0.01), lr=0.1)))
    [code] = [code for code in made._functions._codes.values() if code.name == "final"]
    names = {line.split(" = ")[0] for line in code.text.splitlines() if " = " in line}
    assert len(names) < 12 and code.text.count(" @ ") == code.text.count("ops.product(") == 19


def test_names_of_states_harm_nobody() -> None:
    names = ["torch", "ops", "s", "counter", "first", "final", "x", "x_2", "w_wide", "lambda_", "β", "ﬁ_", "self", "kept", "None_", "copy_"]
    states = "\n".join(f"state {n} = 0  {n}' = {n} + g" for n in names)
    text = f"rule R {{ hyper lr = 0.1 in (0, inf)\n {states}\n w' = w - lr*({' + '.join(n + chr(39) for n in names)}) }}"
    sides = [train(optlang.loads(text, backend=b), [(3,), (2, 2)], 3) for b in ("torch", "reference")]
    assert_same(*sides)
    assert len(sides[0][1][0]) == len(names) + 1
