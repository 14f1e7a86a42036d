"""Closures: gradients at other points, Hessian-vector products, the loss, inputs and reports. 7 seconds."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optlang
from optlang.runtime.steps.batch import Batch

SAM: Any = optlang.load("sam")
SGD: Any = optlang.load("sgd")
BACKENDS = ("torch", "reference")
ASKING = "rule A { hyper lr = 1 in (0, inf) state m = 0 m' = 0*m + grad(w + 1) w' = w - lr*m' }"
ELSEWHERE = "rule L { hyper lr = 1 in (0, inf) w' = w - lr*(loss_at(w + 1) - loss) }"
CURVED = "rule C { hyper lr = 1 in (0, inf) state h = 0 h' = 0*h + hvp(g) w' = w - lr*h' }"
POLYAK = "rule P { hyper lr = 1 in (0, inf) w' = w - lr*loss*g/(sum(g^2 per model) + 1e-12) }"


def made(text: str, backend: str = "torch") -> Any:
    return optlang.loads(text, backend=backend)


def point(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def closure_of(optimizer: Any, loss: Callable[[], Tensor], **how: Any) -> Callable[[], Tensor]:
    def closure() -> Tensor:
        optimizer.zero_grad(**how)
        value = loss()
        value.backward()
        return value

    return closure


# ------------------------------------------------------------------------------------------------------- the closure


@pytest.mark.parametrize("rule", ["sam", "sophiah", ASKING, ELSEWHERE, CURVED, POLYAK])
def test_a_missing_closure_is_an_error_before_anything_is_touched(rule: str) -> None:
    p = point(1.0)
    p.grad = torch.ones(1).double()
    cls: Any = made(rule) if "{" in rule else optlang.load(rule)
    optimizer = cls([p])
    with pytest.raises(RuntimeError, match=r"call `step\(closure\)`"):
        optimizer.step()
    assert p.item() == 1
    assert not optimizer.state


def test_what_the_closure_returns_is_returned_and_it_is_called_once_where_once_is_enough() -> None:
    p, calls = point(3.0), []
    optimizer = SGD([p], lr=0.5)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 9
    assert calls == [True]
    assert p.item() == 0
    assert optimizer.step(lambda: "any value") == "any value"


def test_gradients_after_the_step_are_those_of_the_batch() -> None:
    p = point(3.0)
    optimizer = made(ASKING)([p])
    optimizer.step(closure_of(optimizer, lambda: (p**2).sum()))
    assert p.grad.item() == 6
    assert optimizer.state[p]["m"].item() == 8
    assert p.item() == 3 - 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_parameters_move_at_once(backend: str) -> None:
    """d(pq)/dp at (p + 1, q + 1) is q + 1."""
    p, q = point(3.0), point(5.0)
    optimizer = made(ASKING, backend)([{"params": [p]}, {"params": [q]}])
    optimizer.step(closure_of(optimizer, lambda: (p * q).sum()))
    assert (p.item(), q.item()) == (3 - 6, 5 - 4)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_zeroing_in_place_harms_nothing(backend: str, set_to_none: bool) -> None:
    """SAM with plain arithmetic beside it; gradients are zeroed in place or dropped by the closure."""
    p, q = point(3.0, -1.0), point(3.0, -1.0)
    optimizer = optlang.load("sam", backend=backend)([p], lr=0.1, rho=0.5)  # type: ignore[call-arg]
    other = torch.optim.AdamW([q], lr=0.1)
    scale = torch.tensor([1.0, 4.0]).double()
    for _ in range(5):
        optimizer.step(closure_of(optimizer, lambda: (scale * p**4).sum(), set_to_none=set_to_none))
        with torch.no_grad():
            g = 4 * scale * q**3
            moved = q + 0.5 * g / (g.norm() + 1e-12)
            q.grad = 4 * scale * moved**3
        other.step()
    torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-10)


def test_dropout_is_the_same_in_every_call_and_goes_on_afterwards() -> None:
    """With a fresh mask, the gradient at the other point would be that of another batch."""
    torch.manual_seed(1)
    p = torch.ones(64, requires_grad=True)
    masks = []

    def loss() -> Tensor:
        mask = nn.functional.dropout(torch.ones(64), 0.5)
        masks.append(mask)
        return (mask * p).sum()

    optimizer = SAM([p])
    for _ in range(2):
        optimizer.step(closure_of(optimizer, loss))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])
    torch.manual_seed(1)
    plain = [nn.functional.dropout(torch.ones(64), 0.5) for _ in range(2)]
    assert torch.equal(masks[2], plain[1])  # as without the second calls


class Broken(Exception):
    pass


@pytest.mark.parametrize("text", [ASKING, CURVED])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_closure_that_fails_the_second_time(backend: str, text: str) -> None:
    p, q, calls = point(3.0), point(2.0), []
    optimizer = made(text, backend)([p, q])

    def loss() -> Tensor:
        calls.append(p.item())
        if len(calls) > 1:
            raise Broken
        return (p**2 * q).sum()

    with pytest.raises(Broken):
        optimizer.step(closure_of(optimizer, loss))
    assert (p.item(), q.item(), p.grad.item(), q.grad.item()) == (3, 2, 12, 9)
    assert not optimizer.state
    assert torch.autograd.backward.__module__ == "torch.autograd"
    calls.clear()
    with pytest.raises(Broken):
        optimizer.step(closure_of(optimizer, loss))


def test_the_second_rule_of_a_route_fails_and_the_first_is_undone() -> None:
    text = f"{ASKING} rule B {{ w' = w - g*grad(w - 1) }} route R {{ when rank == 0 use A() otherwise use B() }}"
    p, q, calls = torch.tensor(3.0, requires_grad=True), point(2.0), []
    optimizer: Any = optlang.loads(text, "R")([p, q])

    def loss() -> Tensor:
        calls.append(None)
        if len(calls) > 2:
            raise Broken
        return (p**2 * q).sum()

    with pytest.raises(Broken):
        optimizer.step(closure_of(optimizer, loss))
    assert (p.item(), q.item(), p.grad.item(), q.grad.item()) == (3, 2, 12, 9)
    assert not optimizer.state


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_point_goes_once_the_weights_are_there(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the model computes anything."""
    given: list[weakref.ref[Tensor]] = []
    left: list[list[bool]] = []
    gradients = Batch.gradients

    def watched(batch: Batch, cells: Sequence[Tensor], points: list[Tensor]) -> list[Tensor]:
        given.extend(map(weakref.ref, points))
        return gradients(batch, cells, points)

    def loss() -> Tensor:
        left.append([one() is not None for one in given])
        return (p**3).sum()

    monkeypatch.setattr(Batch, "gradients", watched)
    p = point(2.0, 3.0)
    optimizer = optlang.load("sam", backend=backend)([p])
    optimizer.step(closure_of(optimizer, loss))
    assert left == [[], [False]]


# ------------------------------------------------------------------------------------------------------- curvature


@pytest.mark.parametrize("backend", BACKENDS)
def test_products_with_the_hessian_are_exact(backend: str) -> None:
    """f = x^3 y: H = [[6xy, 3x^2], [3x^2, 0]], and the vector is the gradient (3x^2 y, x^3)."""
    x, y = point(2.0), point(5.0)
    optimizer = made(CURVED, backend)([x, y], lr=1e-3)
    optimizer.step(closure_of(optimizer, lambda: (x**3 * y).sum()))
    gx, gy = 3 * 4 * 5.0, 8.0
    assert optimizer.state[x]["h"].item() == pytest.approx(60 * gx + 12 * gy, rel=1e-14)
    assert optimizer.state[y]["h"].item() == pytest.approx(12 * gx, rel=1e-14)


SEVERAL = """rule S { hyper lr = 1 in (0, inf)
  state a = 0  state b = 0  state c = 0  state d = 0
  a' = 0*a + hvp(g)  b' = 0*b + hvp(w)  c' = 0*c + grad(w + 1)  d' = 0*d + hvp(c')
  w' = w - lr*(a' + b' + c' + d')
}"""


@pytest.mark.parametrize("backend", ["cpp", *BACKENDS])
def test_several_products_are_of_one_graph(backend: str) -> None:
    """But for those that wait for other answers, and for the interpreter, which asks one by one."""
    torch.manual_seed(3)
    p, calls, dropout = torch.randn(6, dtype=torch.float64, requires_grad=True), [], nn.Dropout(0.5)
    optimizer = made(SEVERAL, backend)([p], lr=1e-9)
    masks = []

    def loss() -> Tensor:
        calls.append(p.detach().clone())
        masks.append(dropout(torch.ones(6, dtype=torch.float64)))
        return (masks[-1] * p**3).sum()

    before = p.detach().clone()
    optimizer.step(closure_of(optimizer, loss))
    [state] = optimizer.state.values()
    mask, w = masks[0], before
    gradient, moved = 3 * mask * w**2, 3 * mask * (w + 1) ** 2
    for name, product in {"a": 6 * mask * w * gradient, "b": 6 * mask * w * w, "c": moved, "d": 6 * mask * w * moved}.items():
        torch.testing.assert_close(state[name], product, rtol=1e-12, atol=1e-12)
    assert len(calls) == (5 if backend == "reference" else 4)
    assert sum(torch.equal(x, before) for x in calls) == len(calls) - 1
    assert all(torch.equal(mask, other) for other in masks)


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_vector_goes_once_it_has_been_multiplied(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several are known before the first is: each is as large as the model."""
    given: list[weakref.ref[Tensor]] = []
    left: list[int] = []
    products = Batch.hessian

    def watched(batch: Batch, cells: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        left.append(sum(one() is not None for one in given))
        given.extend(map(weakref.ref, vectors))
        return products(batch, cells, vectors)

    monkeypatch.setattr(Batch, "hessian", watched)
    p = point(2.0, 3.0)
    optimizer = optlang.load("oasis", backend=backend)([p], samples=4)
    optimizer.step(closure_of(optimizer, lambda: (p**3).sum()))
    assert left == [0, 0, 0, 0]


def test_products_of_a_network_match_torch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    x = torch.randn(8, 3).double()
    optimizer = made(CURVED)(model.parameters(), lr=1e-9)
    optimizer.step(closure_of(optimizer, lambda: (model(x) ** 2).mean()))
    params = list(model.parameters())
    gradients = torch.autograd.grad((model(x) ** 2).mean(), params, create_graph=True)
    products = torch.autograd.grad(gradients, params, [g.detach() for g in gradients])
    for p, product in zip(params, products, strict=True):
        torch.testing.assert_close(optimizer.state[p]["h"], product, rtol=1e-6, atol=1e-9)


def test_a_linear_loss_has_no_curvature() -> None:
    p = point(2.0)
    optimizer = made(CURVED)([p])
    optimizer.step(closure_of(optimizer, lambda: p.sum()))
    assert optimizer.state[p]["h"].item() == 0


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        [x] = ctx.saved_tensors
        return 2 * x * gradient


def test_a_model_that_is_differentiable_only_once() -> None:
    p = point(2.0)
    optimizer = made(CURVED)([p])
    with pytest.raises(RuntimeError, match="Hessian-vector products, but the model cannot be differentiated twice"):
        optimizer.step(closure_of(optimizer, lambda: (Once.apply(p) ** 2).sum()))
    assert (p.item(), p.grad.item()) == (2, 32)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).view(1, 1, len(x), 12).chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_without_a_second_derivative() -> None:
    model, x = Attention(), torch.ones(5, 4)
    optimizer = made(CURVED)(model.parameters(), lr=1e-3)
    closure = closure_of(optimizer, lambda: (model(x) ** 2).sum())
    with pytest.raises(RuntimeError, match=r"twice: .*scaled_dot_product.*[^.]\. Compute the loss under `torch.nn.attention"):
        optimizer.step(closure)
    assert not optimizer.state
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        optimizer.step(closure)
    assert optimizer.state


def test_a_compiled_model_without_a_second_derivative() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), torch.ones(5, 4)
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = made(CURVED)(compiled.parameters(), lr=1e-3)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"differentiated twice: .*[^.]\. Call the model itself in the closure"):
        optimizer.step(closure_of(optimizer, lambda: (compiled(x) ** 2).sum()))
    optimizer.step(closure_of(optimizer, lambda: (model(x) ** 2).sum()))
    assert len(optimizer.state) == 2


def test_a_closure_that_makes_gradients_by_itself_has_no_hessian() -> None:
    p = point(2.0)
    optimizer = made(CURVED)([p])

    def closure() -> None:
        p.grad = 2 * p.detach()

    with pytest.raises(RuntimeError, match=r"the closure must call `loss.backward\(\)`"):
        optimizer.step(closure)
    assert p.item() == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_maximize_turns_gradients_products_and_loss(backend: str) -> None:
    """Maximizing f is minimizing -f."""
    for text in (ASKING, CURVED, POLYAK):
        sides = [point(1.5, -0.5), point(1.5, -0.5)]
        optimizers = [made(text, backend)([sides[0]], maximize=True), made(text, backend)([sides[1]])]
        for p, o, sign in zip(sides, optimizers, (1, -1), strict=True):
            for _ in range(2):
                o.step(closure_of(o, lambda p=p, sign=sign: sign * (p**3 + p[0] * p[1]).sum()))
        assert torch.equal(*sides)
        torch.testing.assert_close(list(optimizers[0].state[sides[0]].values()), list(optimizers[1].state[sides[1]].values()))


def test_the_loss_cannot_be_maximized_in_half() -> None:
    p, q = point(1.0), point(1.0)
    with pytest.raises(ValueError, match="reads the loss, which cannot be maximized by one group"):
        made(POLYAK)([{"params": [p], "maximize": True}, {"params": [q]}])


# ------------------------------------------------------------------------------------------------ loss, inputs, reports


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_loss_may_be_a_tensor_or_a_number(backend: str) -> None:
    for number in (lambda x: x, float):
        p = point(3.0, 4.0)
        optimizer = made(POLYAK, backend)([p])

        def closure(p: Tensor = p, number: Any = number, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (p**2).sum()
            loss.backward()
            return number(loss.detach())

        optimizer.step(closure)
        torch.testing.assert_close(p.detach(), torch.tensor([1.5, 2.0]).double())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_that_is_no_number(backend: str) -> None:
    p = point(3.0)
    optimizer = made(POLYAK, backend)([p])
    for wrong in (None, torch.ones(2), "low"):

        def closure(wrong: Any = wrong) -> Any:
            p.grad = torch.ones(1).double()
            return wrong

        with pytest.raises(RuntimeError, match="loss"):
            optimizer.step(closure)
    assert p.item() == 3


INPUTS = """
rule I {
  hyper lr = 1 in (0, inf)
  input x
  input s per tensor
  input n per group
  input k per model
  report mean_of_k = 2*k
  report size = sum(g^2 per model)
  w' = w - lr*g*x*s*n*k
}
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_and_reports(backend: str) -> None:
    p, q = point(1.0, 2.0), point(3.0)
    optimizer = made(INPUTS, backend)([{"params": [p]}, {"params": [q]}])
    p.grad, q.grad = torch.ones(2).double(), torch.ones(1).double()
    with pytest.raises(RuntimeError, match=r"needs optimizer.inputs\['k'\]"):
        optimizer.step()
    optimizer.inputs |= {"x": {p: torch.tensor([1.0, 2.0]), q: 3.0}, "s": 0.5, "n": {0: 2.0, 1: 4.0}, "k": torch.tensor(1.0)}
    assert optimizer.reports == {}
    optimizer.step()
    assert (p.tolist(), q.tolist()) == ([0.0, 0.0], [3.0 - 6.0])
    assert optimizer.reports == {"mean_of_k": 2.0, "size": 3.0}
    optimizer.inputs["x"] = {p: 1.0}
    before = copy.deepcopy(p.detach())
    with pytest.raises(RuntimeError, match="parameter 0 of group 1.*`x`"):
        optimizer.step()
    assert torch.equal(p, before)
    assert optimizer.reports == {"mean_of_k": 2.0, "size": 3.0}  # of the last step that was taken


def test_the_rules_of_a_route_report_together() -> None:
    text = "rule A { report a = t w' = w - g } rule B { report b = 2*t w' = w - g } route R { when rank == 1 use A() otherwise use B() }"
    p, q = point(1.0), torch.ones((), requires_grad=True)
    optimizer: Any = optlang.loads(text, "R")([p, q])
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q)
    optimizer.step()
    assert optimizer.reports == {"a": 1, "b": 2}
    q.grad = None
    optimizer.step()
    assert optimizer.reports == {"a": 2}


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_draws_follow_the_seed(backend: str) -> None:
    text = "rule D { hyper lr = 1 in (0, inf) w' = normal() }"
    p, q = point(*[0.0] * 8), point(*[0.0] * 8)
    seen = []
    for seed in (0, 0, 1):
        optimizer = made(text, backend)([p, q], seed=seed)
        p.grad, q.grad = torch.zeros(8).double(), torch.zeros(8).double()
        optimizer.step()
        seen.append((p.detach().clone(), q.detach().clone()))
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], seen[2][0])
    assert not torch.equal(seen[0][0], seen[0][1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_elsewhere_takes_a_forward_pass_alone(backend: str) -> None:
    p, graphs = point(3.0), []
    optimizer = made(ELSEWHERE, backend)([p], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (p**2).sum()
        graphs.append(loss.requires_grad)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9
    assert p.item() == 3 - 0.5 * (16 - 9)
    assert p.grad is not None and p.grad.item() == 6
    assert graphs == [True, False]
