"""Optimizers with states and weights in fewer bits: what they keep, checkpoints between formats, training, wrong settings."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import optlang
from optlang import ir
from optlang.backends.torch import multiplied
from optlang.backends.torch.products import Added
from optlang.backends.torch.writer import Writer

FORMATS = ("fp32", "bf16", "fp8", "int8", "int4")
BYTES = {"fp32": 8.0, "bf16": 4.0, "fp8": 2.0 + 8 / 256, "int8": 2.0 + 8 / 256, "int4": 1.0 + 8 / 128}  # of AdamW's two states, an element
SHAPE = (128, 96)


def parameter(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


def train(p: Tensor, optimizer: Any, steps: range) -> Tensor:
    """Some steps with gradients that depend on the weights and the step."""
    for t in steps:
        noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(t))
        p.grad = (p.detach().float() + 0.3 * noise).to(p.dtype)
        optimizer.step()
    return p.detach().clone()


def made(p: Tensor, **options: Any) -> Any:
    make: Any = optlang.load("adamw", backend=options.pop("backend", "cpp"), **options)
    return make([p], lr=0.01, eps=1e-3)


def size(optimizer: Any, p: Tensor) -> int:
    return sum(x.numel() * x.element_size() for name, x in optimizer.state[p].items() if name != "step")


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("state", FORMATS)
def test_memory_is_what_the_format_says(state: str, backend: str) -> None:
    p = parameter()
    optimizer = made(p, state=state, backend=backend)
    train(p, optimizer, range(2))
    assert size(optimizer, p) == BYTES[state] * p.numel()


@pytest.mark.parametrize("state", FORMATS)
def test_a_run_goes_on_bit_by_bit(state: str, tmp_path: Path) -> None:
    whole, p = parameter(), parameter()
    expected = train(whole, made(whole, state=state), range(9))
    optimizer = made(p, state=state)
    train(p, optimizer, range(4))
    torch.save({"optimizer": optimizer.state_dict(), "p": p.detach()}, tmp_path / "run.pt")
    kept = torch.load(tmp_path / "run.pt", weights_only=True)
    resumed = kept["p"].requires_grad_()
    other = made(resumed, state=state)
    other.load_state_dict(kept["optimizer"])
    assert torch.equal(train(resumed, other, range(4, 9)), expected)


@pytest.mark.parametrize("state", ["bf16", "int4"])
@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies(state: str, way: Any) -> None:
    p = parameter()
    optimizer = made(p, state=state)
    train(p, optimizer, range(3))
    q, other = way((p, optimizer))
    assert torch.equal(train(p, optimizer, range(3, 6)), train(q, other, range(3, 6)))


@pytest.mark.parametrize("before", FORMATS)
@pytest.mark.parametrize("after", FORMATS)
def test_checkpoints_go_from_one_format_to_another(before: str, after: str) -> None:
    p, q = parameter(), parameter()
    saved, loaded = made(p, state=before), made(q, state=after)
    train(p, saved, range(3))
    loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert size(loaded, q) == BYTES[after] * q.numel()
    with torch.no_grad():
        q.copy_(p)
    coarse = 0.3 if "int4" in (before, after) else 0.05
    start = p.detach().clone()
    ours, theirs = train(q, loaded, range(3, 5)), train(p, saved, range(3, 5))
    assert (ours - theirs).norm() < coarse * (theirs - start).norm()
    assert before != after or torch.equal(ours, theirs)


def test_formats_by_name_and_by_sign() -> None:
    p = parameter()
    optimizer = made(p, state={"m": "bf16", "v": "int8"})
    train(p, optimizer, range(1))
    assert {name: x.dtype for name, x in optimizer.state[p].items()} == {
        "step": torch.float32, "m": torch.bfloat16, "v": torch.uint8, "v.uint8": torch.float32,
    }  # fmt: skip
    assert "state m bf16, v int8" in optimizer.describe()


def test_a_route_stores_what_its_rules_have() -> None:
    make: Any = optlang.load("muonwithadamw", state="int8")
    p, q = parameter(), torch.randn(5000).requires_grad_()
    optimizer = make([("a.weight", p), ("b.bias", q)])
    for _ in range(2):
        p.grad, q.grad = torch.randn_like(p), torch.randn_like(q)
        optimizer.step()
    assert {x.dtype for name, x in optimizer.state[q].items() if "." not in name and name != "step"} == {torch.uint8}


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_plain_bfloat16_stands_still_where_the_others_move(backend: str) -> None:
    """Steps of a thousandth of the last digit are lost by rounding to nearest."""
    moved = {}
    for weights in ("nearest", "stochastic", "compensated"):
        p = torch.ones(4096, dtype=torch.bfloat16).requires_grad_()
        make: Any = optlang.loads("rule R { hyper lr = 1e-5 in (0, inf) w' = w - lr*g }", backend=backend, weights=weights)
        optimizer = make([p])
        for _ in range(200):
            p.grad = torch.ones_like(p)
            optimizer.step()
        rest = optimizer.state[p].get("w.rest", torch.zeros(1))
        moved[weights] = float(1 - (p.detach().double() + rest.double()).mean())
    assert moved["nearest"] == 0
    assert abs(moved["compensated"] - 2e-3) < 4e-4 and abs(moved["stochastic"] - 2e-3) < 5e-4


@pytest.mark.parametrize("options", [{"state": "int8"}, {"state": "bf16"}, {"state": {"v": "int4"}}, {"weights": "compensated"}], ids=str)
def test_the_loss_falls_as_in_full_precision(options: dict[str, Any]) -> None:
    """A regression that is learnt to its noise."""
    dtype = torch.bfloat16 if "weights" in options else torch.float32
    losses = []
    for chosen in ({}, options):
        p = parameter(dtype)
        optimizer = made(p, **chosen)
        train(p, optimizer, range(400))
        losses.append(float(p.detach().float().square().mean()))
    assert losses[1] < 1.3 * losses[0] + 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"state": "int9"}, r"there is no state format 'int9': did you mean 'int8'\?"),
        ({"state": {"m": "half"}}, "there is no state format 'half': choose one of fp32, bf16, fp8, int8, int4"),
        ({"state": {"mu": "int8"}}, "AdamW has no state 'mu' to be stored as int8: states with a number for each element: m, v"),
        ({"weights": "kahan"}, "there are no weights 'kahan': choose one of nearest, stochastic, compensated"),
        ({"state": "int8", "backend": "reference"}, "the backend 'reference' keeps float64 alone"),
    ],
)
def test_wrong_settings(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        optlang.load("adamw", **options)


@pytest.mark.parametrize("weights", ["stochastic", "compensated"])
def test_weights_of_float16_are_refused_where_they_would_be_rounded_to_nearest(weights: str) -> None:
    """Float32 and float64 lose nothing, so that models of several number types are taken."""
    make: Any = optlang.load("adamw", weights=weights)
    half, others = torch.ones(2, dtype=torch.float16).requires_grad_(), [torch.ones(2, dtype=d) for d in (torch.float32, torch.bfloat16)]
    with pytest.raises(ValueError, match=f"weights='{weights}' are for parameters of bfloat16, and parameter 0 of group 0 is"):
        make([half])
    optimizer = make([("w", others[0]), ("v", others[1])])
    with pytest.raises(ValueError, match="and half is torch.float16: give bfloat16 ones, or leave weights='nearest' and keep masters"):
        optimizer.add_param_group({"params": [("half", half)]})
    assert len(optimizer.param_groups) == 1


def test_differentiable_steps_keep_float32() -> None:
    make: Any = optlang.load("adamw", state="bf16")
    with pytest.raises(ValueError, match="rounding has no gradient"):
        make([parameter() * 1], differentiable=True)


def test_a_damaged_checkpoint_is_refused_as_a_whole() -> None:
    p = parameter()
    optimizer = made(p, state="int8")
    train(p, optimizer, range(2))
    before = {name: x.clone() for name, x in optimizer.state[p].items()}
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["m.int8"] = saved["state"][0]["m.int8"][:-1]
    with pytest.raises(ValueError, match=r"m in int8 has 12288 bytes and 47 scales, not 12288 and 48"):
        optimizer.load_state_dict(saved)
    assert all(torch.equal(x, optimizer.state[p][name]) for name, x in before.items())


@pytest.mark.parametrize("backend", ["torch", "auto", "triton"])
def test_products_in_bfloat16_stay_near_those_in_float32(backend: str) -> None:
    """Of a rule that is products of matrices alone, by as much as rounding of factors explains; parameters in float64 stay exact."""
    weights = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(0))
    found = []
    for products, dtype in (("fp32", torch.float32), ("bf16", torch.float32), ("fp32", torch.float64), ("bf16", torch.float64)):
        parameters = [torch.nn.Parameter(w.to(dtype, copy=True)) for w in weights]
        optimizer = optlang.load("muon", backend=backend, products=products)(parameters, lr=1.0)
        for p, g in zip(parameters, weights.flip(0), strict=True):
            p.grad = g.to(dtype, copy=True)
        optimizer.step()
        found.append(torch.stack([p.detach() for p in parameters]) - weights.to(dtype))
    plain, rounded, exact, as_exact = found
    assert torch.equal(exact, as_exact)
    assert 1e-4 < (rounded - plain).norm() / plain.norm() < 0.03


def test_sums_that_are_factors_take_products_before_they_are_rounded() -> None:
    """Both sums of each iteration but the last one of all, which is no factor; those that states are, and numbers a setting gives, stay."""
    assert code_of("muon").count("ops.added(") == 9
    assert code_of("muon").count(".mT.contiguous()") == 1  # of what meets the weights; what is only scaled lies as it did
    kept = "rule R { hyper lr = 0.1 in (0, inf)  state x = 0  x' = 0.5*x + 2*(x @ x.T @ x)  w' = w - lr*x' }"
    given = "rule R { hyper c = 0.1 in (0, inf)  a = g @ g.T  w' = w - (c*a + a @ a) @ g }"
    read = "rule R { hyper lr = 0.1 in (0, inf)  a = g @ g.T  s = a - 2*(a @ a)  w' = w - lr*(s @ g) - lr*abs(s) @ g }"
    assert all("ops.added" not in code_of(text) for text in (kept, given, read))
    assert "ops.added(x_bf16_2, x_bf16_2, x_bf16_2, 1.0, -2.0, symmetric=True)" in code_of(read.replace(" - lr*abs(s) @ g", ""))


def code_of(rule: str) -> str:
    """What torch runs for a matrix of that rule, its products in bfloat16."""
    make: Any = optlang.loads if "rule" in rule else optlang.load
    optimizer: Any = without_code(make(rule, backend="torch", products="bf16"))([p := torch.nn.Parameter(torch.randn(40, 24))])
    p.grad = torch.randn(40, 24)
    optimizer.step()
    return code_that_ran(optimizer)


def without_code(made: Any) -> Any:
    """The class made anew: what others of a rule have run is not kept for it."""
    make_class, origin = made._origin
    return make_class.__wrapped__(*origin)


def code_that_ran(optimizer: Any) -> str:
    executables = [case.executable(case.settings.defaults)[1] for case in optimizer.cases]
    return "\n".join(code.text for one in executables for code in one._functions._codes.values())


def test_a_product_is_added_before_the_sum_is_rounded() -> None:
    source = torch.Generator().manual_seed(0)
    for batch in (1, 3):
        x, a = torch.randn(batch, 9, 9, generator=source).bfloat16(), torch.randn(batch, 9, 9, generator=source).bfloat16()
        exact = 0.3 * x.double() - 2 * (a.double() @ a.double())
        given = Added(ir.W, ir.G, ir.G, 0.3, -2.0).spelled(["x", "a", "a"])
        found = eval(f"multiplied.added({given})", {"multiplied": multiplied, "x": x, "a": a})
        torch.testing.assert_close(found, exact.bfloat16(), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("rule", ["muon", "shampoo", "soap", "muonwithadamw"])
def test_sums_beside_such_products_take_memory_that_is_free(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as in memory of their own, of matrices that go together, and of those whose transposes lie in memory as they do."""
    shapes = [(24, 40), (24, 40), (40, 24), (7, 1), (1, 9)]
    found, texts = [], []
    for in_place in (Writer._in_place, lambda *given: ""):
        monkeypatch.setattr(Writer, "_in_place", in_place)
        source = torch.Generator().manual_seed(0)
        given = [torch.nn.Parameter(torch.randn(shape, generator=source)) for shape in shapes]
        make = without_code(optlang.load(rule, backend="torch", products="bf16"))
        optimizer: Any = make([(f"layers.{n}.weight", p) for n, p in enumerate(given)])
        for _ in range(3):
            for p in given:
                p.grad = torch.randn(p.shape, generator=source)
            optimizer.step()
        found.append(given)
        texts.append(code_that_ran(optimizer))
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))
    assert ".add_(" in texts[0] and ".add_(" not in texts[1]


def test_products_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="there are no products 'fp8': choose one of fp32, bf16"):
        optlang.load("muon", products="fp8")
    with pytest.raises(ValueError, match="keeps float64 alone"):
        optlang.load("muon", backend="reference", products="bf16")
