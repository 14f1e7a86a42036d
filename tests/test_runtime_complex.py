"""Complex parameters: real and imaginary parts as numbers of their own, for rules that go element by element. 3 seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import optlang

COMPLEX = (torch.complex64, torch.complex128)
BACKENDS = ("torch", "reference")


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128).to(dtype)


def made(name: str, backend: str = "torch") -> Any:
    return optlang.loads(name, backend=backend) if "{" in name else optlang.load(name, backend=backend)


THEIRS = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam, "rprop": torch.optim.Rprop, "adamax": torch.optim.Adamax}


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", THEIRS)
def test_steps_are_those_of_torch(name: str, backend: str, dtype: torch.dtype) -> None:
    p, q = some(3, 2, dtype=dtype).requires_grad_(), some(3, 2, dtype=dtype).requires_grad_()
    ours, theirs = made(name, backend)([p], lr=0.01), THEIRS[name]([q], lr=0.01)
    for step in range(5):
        p.grad = some(3, 2, seed=step, dtype=dtype)
        q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(p, q, rtol=1e-12 if dtype == torch.complex128 else 1e-5, atol=1e-12 if dtype == torch.complex128 else 1e-6)
    assert not torch.equal(p, some(3, 2, dtype=dtype))


@pytest.mark.parametrize("shape", [(), (1,), (0, 2), (700, 200)])
def test_every_shape_is_two_real_ones(shape: tuple[int, ...]) -> None:
    """Beside the same rule over the parts; the last shape is large enough to be compiled."""
    p = some(*shape, dtype=torch.complex64).requires_grad_()
    q = torch.view_as_real(some(*shape, dtype=torch.complex64)).clone().requires_grad_()
    for parameter, gradient in ((p, lambda z: z), (q, torch.view_as_real)):
        optimizer = made("lion")([parameter], lr=0.1)
        for step in range(2):
            parameter.grad = gradient(some(*shape, seed=step, dtype=torch.complex64))
            optimizer.step()
    assert torch.equal(torch.view_as_real(p), q)


def test_gradients_may_be_conjugated_and_weights_moved_elsewhere() -> None:
    p = torch.zeros(2, dtype=torch.complex128, requires_grad=True)
    optimizer = made("sgd")([p], lr=1.0)
    p.grad = torch.tensor([1 + 2j, 3j], dtype=torch.complex128).conj()
    optimizer.step()
    assert p.tolist() == [-1 + 2j, 3j]
    p.data = torch.ones(2, dtype=torch.complex128)
    p.grad = torch.ones(2, dtype=torch.complex128)
    optimizer.step()
    assert p.tolist() == [0, 0]


def test_maximize() -> None:
    p = torch.zeros(1, dtype=torch.complex64, requires_grad=True)
    p.grad = torch.tensor([1 - 1j])
    made("sgd")([p], lr=0.5, maximize=True).step()
    assert p.tolist() == [0.5 - 0.5j]


@pytest.mark.parametrize("dtype", COMPLEX)
@pytest.mark.parametrize("name", ["adamw", "schedulefreeadamw"])
def test_a_resumed_run_is_the_same_run(name: str, dtype: torch.dtype) -> None:
    def run(optimizer: Any, p: Tensor, steps: range) -> None:
        for step in steps:
            p.grad = some(3, seed=step, dtype=dtype)
            optimizer.step()

    p, q = some(3, dtype=dtype).requires_grad_(), some(3, dtype=dtype).requires_grad_()
    optimizer, resumed = made(name)([p]), made(name)([q])
    assert "3 elements; 0 of " in optimizer.describe()
    run(optimizer, p, range(3))
    if name == "schedulefreeadamw":
        training = p.detach().clone()
        optimizer.eval()
        assert not torch.equal(p, training)
    with torch.no_grad():
        q.copy_(p)
    resumed.load_state_dict(optimizer.state_dict())
    if name == "schedulefreeadamw":
        optimizer.train()
        resumed.train()
        assert torch.equal(p, training)
    run(optimizer, p, range(3, 6))
    run(resumed, q, range(3, 6))
    assert torch.equal(p, q)
    for key, value in optimizer.state[p].items():
        assert torch.equal(value, resumed.state[q][key])
        assert value.dtype == resumed.state[q][key].dtype
    with pytest.raises(ValueError, match=r"z has shape \(3,\), not \(3, 2\)|m has shape \(3,\), not \(3, 2\)"):
        resumed.load_state_dict(wrong_shape(optimizer.state_dict()))


def wrong_shape(state: Any) -> Any:
    for key in ("z", "m"):
        if key in state["state"][0]:
            state["state"][0][key] = torch.zeros(3)
    return state


REFUSED = [
    ("lamb", "compares elements with each other"), ("sm3", "compares elements with each other"),
    ("adafactor", "compares elements with each other"),
    ("muon", "treats parameters as matrices"), ("sophiah", "asks the model again"),
    ("rule R { w' = w - g/fan_in }", "looks at `fan_in`"),
    ("rule R { w' = w - g*grad(w + g) }", "asks the model again"),
    ("rule R { w' = w - g eval = w' - mean(w') }", "compares elements with each other"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "why"), REFUSED)
def test_rules_for_which_the_meaning_is_not_clear(name: str, why: str) -> None:
    z = torch.zeros(2, 2, dtype=torch.complex64, requires_grad=True)
    with pytest.raises(ValueError, match=f"layer is complex, but .* {why}: only rules that go element by element"):
        made(name)([("layer", z)])
    if name == "sm3":  # real and imaginary parts make a matrix of a vector
        with pytest.raises(ValueError, match=why):
            made(name)([z[0].detach().requires_grad_()])
    optimizer = made("sgd")([torch.zeros(2, requires_grad=True)])
    optimizer.add_param_group({"params": [z]})


def test_a_window_is_no_comparison_of_elements() -> None:
    p = torch.zeros(1, dtype=torch.complex128, requires_grad=True)
    optimizer = made("rule R { state h[2] = 0 h' = push(h, g) w' = w - mean(h') }")([p])
    for gradient in (2 + 4j, 2 + 4j):
        p.grad = torch.tensor([gradient], dtype=torch.complex128)
        optimizer.step()
    assert p.tolist() == [-3 - 6j]
