"""Complex parameters and sparse gradients in generated modules, as in the loaded rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from generated_module import load
from torch import Tensor, nn

import optlang

GIVEN = "rule R { input x state m = 0 m' = 0.5*m + x*g w' = w - 0.1*(m' + 0.1*normal()) eval = w' + m' }"
LAZY = "rule R { state m = 0 m' = where(g != 0, 0.9*m + g, m) w' = where(g != 0, w - 0.1*m', w) }"
TELLING = "rule R { state n = 0 report size = norm(g per model) n' = n + g^2 w' = w - 0.1*g/(1 + sqrt(n')) }"
STILL = ["lamb", "muon", "adamw", "lion", "rule R { w' = w - g*uniform() }", "rule R { input x w' = w - x*g }",
         "rule R { w' = w - cos(g) }"]  # fmt: skip


def optimizers_of(rule: str) -> tuple[Any, Any]:
    """The generated class and the loaded one."""
    loaded: Any = optlang.loads(rule, backend="reference") if "{" in rule else optlang.load(rule, backend="reference")
    return load(optlang.build(rule), loaded.__name__), loaded


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


@pytest.mark.parametrize("rule", ["adagradsubsetnormlines", "adamwsubsetnormlines", "sm3", "adamp", "lars", "sgdp", "splus"])
def test_complex_parameters_without_dimensions_are_taken_where_only_larger_ones_are_not(rule: str) -> None:
    stepped = []
    for cls in optimizers_of(rule):
        p = torch.tensor(1 + 2j, dtype=torch.complex128, requires_grad=True)
        optimizer = cls([p])
        for step in range(3):
            p.grad = torch.tensor(0.3 * step + 0.2 - 1j, dtype=torch.complex128)
            optimizer.step()
        stepped.append((p.detach(), *(value for name, value in sorted(optimizer.state[p].items()) if name != "step")))
        assert p != 1 + 2j
        with pytest.raises(ValueError, match=r"complex, but .*only rules that go element by element"):
            cls([torch.ones(1, dtype=torch.complex64, requires_grad=True)])
    for one, other in zip(*stepped, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_go_through_steps_of_complex_parameters() -> None:
    cls, _ = optimizers_of("adamw")

    def stepped(gradient: Tensor) -> Tensor:
        p = torch.ones(2, dtype=torch.complex128, requires_grad=True).clone()
        p.grad = gradient
        cls([p], lr=0.1, differentiable=True, maximize=True).step()
        return torch.view_as_real(p)

    assert torch.autograd.gradcheck(stepped, torch.tensor([1 - 2j, 3 + 1j], dtype=torch.complex128, requires_grad=True))


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
