"""Sparse gradients: rules that leave elements without gradient alone step the others only, all others say why not. 5 seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optlang

pytestmark = pytest.mark.filterwarnings("ignore:Sparse (invariant|CSR)")  # torch's own
BACKENDS = ["auto", "torch", "reference"]
# Adam for sparse gradients says in its equations what torch says in its text: elements without gradient keep their states.
LAZY_ADAM = """rule LazyAdam { hyper lr = 0.1 in (0, inf) state m = 0 state v = 0
  m' = where(g != 0, 0.9*m + 0.1*g, m)  v' = where(g != 0, 0.999*v + 0.001*g^2, v)
  u  = sqrt(1 - 0.999^t)/(1 - 0.9^t)*m'/(sqrt(v') + 1e-8)
  w' = where(g != 0, w - lr*u, w) }"""


def table(rows: int = 6, cols: int = 3) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(0)).requires_grad_()


def rows_of(seed: int, rows: int = 6, cols: int = 3) -> Tensor:
    """Some rows, one of them twice."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.tensor([[seed % rows, 1, (seed + 2) % rows, 1]])
    return torch.sparse_coo_tensor(places, torch.randn(4, cols, generator=generator), (rows, cols), check_invariants=True)


THEIRS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1), "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    LAZY_ADAM: lambda p: torch.optim.SparseAdam(p, lr=0.1),
}  # fmt: skip


def ours_of(rule: str, backend: str = "auto") -> Any:
    return optlang.loads(rule, backend=backend) if "{" in rule else optlang.load(rule, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", THEIRS)
def test_the_steps_are_those_of_torch(rule: str, backend: str) -> None:
    ours, theirs = table(), table()
    optimizer, other = ours_of(rule, backend)([ours], lr=0.1), THEIRS[rule]([theirs])
    for seed in range(5):
        before = ours.detach().clone()
        ours.grad, theirs.grad = rows_of(seed), rows_of(seed)
        optimizer.step()
        other.step()
        untouched = sorted(set(range(6)) - set(ours.grad.coalesce().indices()[0].tolist()))
        assert torch.equal(ours[untouched], before[untouched])
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert optimizer.state[ours]["step"] == 5


@pytest.mark.parametrize("rule", ["sgd", "adagrad", "signsgd", LAZY_ADAM])
def test_dense_gradients_with_zeros_take_the_same_steps(rule: str) -> None:
    """Both ways of giving a gradient may take turns, and a checkpoint goes from one to the other."""
    ours, dense = table(), table()
    optimizer, other = ours_of(rule)([ours], maximize=True), ours_of(rule)([dense], maximize=True)
    for seed in range(6):
        ours.grad, dense.grad = rows_of(seed), rows_of(seed).to_dense()
        if seed == 3:
            ours.grad = ours.grad.to_dense()
        optimizer.step()
        other.step()
        assert torch.equal(ours, dense)
        other.load_state_dict(optimizer.state_dict())
    for name, value in optimizer.state[ours].items():
        assert torch.equal(value, other.state[dense][name])


def test_every_kind_of_place() -> None:
    """Single elements, rows, whole planes; nothing at all, which still counts as a step."""
    cls: Any = optlang.load("adagrad")
    for sparse_dims in (1, 2, 3):
        ours, dense = (torch.ones(3, 4, 2).requires_grad_() for _ in range(2))
        gradient = torch.zeros(3, 4, 2)
        gradient[1, 2] = torch.tensor([1.0, -2.0])
        optimizer, other = cls([ours]), cls([dense])
        ours.grad, dense.grad = gradient.to_sparse(sparse_dims), gradient
        optimizer.step()
        other.step()
        assert torch.equal(ours, dense)
        ours.grad = torch.zeros(3, 4, 2).to_sparse(sparse_dims)
        optimizer.step()
        assert torch.equal(ours, dense) and optimizer.state[ours]["step"] == 2


def test_a_table_of_words_trains_with_its_schedule_and_beside_dense_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(50, 4, sparse=True), nn.Linear(4, 2))
    optimizer: Any = optlang.load("adagrad")(model.named_parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
    words, wanted = torch.arange(12).reshape(4, 3) % 7, torch.tensor([0, 1, 0, 1])
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(words), wanted)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert model[0].weight.grad.is_sparse and torch.equal(optimizer.state[model[0].weight]["v"][7:], torch.zeros(43, 4))


def test_released_gradients_may_be_sparse() -> None:
    ours, theirs = nn.Embedding(6, 3, sparse=True), nn.Embedding(6, 3, sparse=True)
    theirs.load_state_dict(ours.state_dict())
    released, ordinary = (ours_of("adagrad")(m.parameters()) for m in (ours, theirs))
    optlang.release_gradients(released)
    for _ in range(2):
        ours(torch.tensor([1, 4, 1])).square().sum().backward()
        theirs(torch.tensor([1, 4, 1])).square().sum().backward()
        ordinary.step()
        ordinary.zero_grad()
    assert ours.weight.grad is None and torch.equal(ours.weight, theirs.weight)


REFUSED = {
    "adamw": "AdamW changes the state `m` also where the gradient is 0", "momentum": "Momentum changes the state `m`",
    "lion": "Lion changes the state `m`", "lamb": "LAMB compares elements", "muon": "Muon treats parameters as matrices",
    "rule R { w' = w - g*uniform() }": "R has a draw for every element",
    "rule R { input x w' = w - x*g }": "R has an input for every element",
    "rule R { w' = w - g/norm(g per model) }": "R compares elements with each other",
    "rule R { w' = w - cos(g) }": "R changes the weights",
}  # fmt: skip


@pytest.mark.parametrize("rule", REFUSED)
def test_rules_to_which_a_zero_is_a_gradient(rule: str) -> None:
    p, q = table(), torch.zeros(2, requires_grad=True)
    optimizer = ours_of(rule)([p] if rule == "muon" else [q, p])
    optimizer.inputs["x"] = 1.0
    q.grad, p.grad = torch.ones(2), rows_of(0)
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match=f"parameter . of group 0 has a sparse gradient, and {REFUSED[rule]}.*: use a dense one"):
        optimizer.step()
    assert torch.equal(p, before) and q.tolist() == [0, 0] and not optimizer.state


def test_settings_decide_and_may_change() -> None:
    p = table()
    optimizer = ours_of("sgd")([p], lr=0.1)
    p.grad = rows_of(0)
    optimizer.step()
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(RuntimeError, match="SGD changes the weights also where the gradient is 0"):
        optimizer.step()
    optimizer.param_groups[0]["weight_decay"] = 0
    optimizer.step()


@pytest.mark.parametrize("option", ["differentiable", "capturable"])
def test_ways_of_stepping_that_take_dense_ones(option: str) -> None:
    p = table()
    optimizer = ours_of("sgd")([p], **{option: True})
    p.grad = rows_of(0)
    with pytest.raises(RuntimeError, match="take dense ones"):
        optimizer.step()


def test_parameters_that_are_sparse_themselves() -> None:
    for p, words in ((torch.eye(3).to_sparse_csr(), "gradient of layout torch.sparse_csr"), (torch.eye(3).to_sparse(), "take dense ones")):
        optimizer = ours_of("sgd")([p.requires_grad_()])
        p.grad = p.detach().clone()
        with pytest.raises(RuntimeError, match=f"parameter 0 of group 0 has .*{words}"):
            optimizer.step()
