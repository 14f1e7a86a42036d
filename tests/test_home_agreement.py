"""Processes that average gradients and step them by different rules: noticed without anybody waiting. 2 seconds.

Here several processes are played by one, with a store of torch's own; real ones are in `test_home_sharded`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import optlang
from optlang.runtime.distributed import agreement

distributed = pytest.importorskip("torch.distributed")
if not distributed.is_available():
    pytest.skip("torch was built without processes that work together", allow_module_level=True)


class Processes:
    """Optimizers of processes that share a store; each has its own numbers of optimizers seen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
        self.store, self.patch, self.seen = store, monkeypatch, [Counter[str](), Counter[str]()]

    def of(self, rank: int) -> None:
        self.patch.setattr(agreement, "_seen", self.seen[rank])
        self.patch.setattr(agreement, "_company", lambda: (rank, self.store))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch, distributed.HashStore())


def made(rule: str = "adamw", shape: tuple[int, ...] = (5, 4), **settings: Any) -> tuple[Any, list[Tensor]]:
    params = [torch.ones(shape).requires_grad_(), torch.ones(7).requires_grad_()]
    return optlang.load(rule)(params, **settings), params


def some(shape: Any, seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def averaged(params: list[Tensor], step: int) -> None:
    """As all processes get them, whatever their weights."""
    for i, p in enumerate(params):
        p.grad = some(p.shape, 10 * step + i)


def of_their_own(params: list[Tensor], step: int) -> None:
    """Those of a model at its weights."""
    for i, p in enumerate(params):
        p.grad = p.detach() - some(p.shape, 10 * step + i)


def take(processes: Processes, sides: list[Any], steps: int = 3, gradients: Callable[[list[Tensor], int], None] = averaged) -> None:
    for step in range(steps):
        for rank, (optimizer, params) in enumerate(sides):
            processes.of(rank)
            gradients(params, step)
            optimizer.step()


def test_another_rule_is_refused_with_what_differs(processes: Processes) -> None:
    sides = [made("adamw", lr=0.1), made("lion", lr=0.1)]
    take(processes, sides, 1)
    optimizer, params = sides[1]
    before = [x.clone() for x in (*params, *optimizer.state[params[0]].values())]
    with pytest.raises(RuntimeError, match="Lion: rank 0 steps the same gradients by another rule, so .* found after 1 step: give") as said:
        take(processes, sides, 1, lambda params, step: averaged(params, 1))
    assert "- as on rank 0, + as it is here" in str(said.value)
    assert "+ m' = beta2 * m" in str(said.value)
    assert all(map(torch.equal, before, (*params, *optimizer.state[params[0]].values())))


def test_rules_of_one_name_are_told_apart_by_their_equations(processes: Processes) -> None:
    texts = [f"rule R {{ hyper lr = 0.1 in (0, inf) w' = w - {k}*lr*g }}" for k in (1, 2)]
    sides = []
    for text in texts:
        _, params = made()
        sides.append((optlang.loads(text)(params), params))
    with pytest.raises(RuntimeError, match="R: rank 0 steps the same gradients by another rule"):
        take(processes, sides)


def test_other_settings_are_worth_a_warning(processes: Processes) -> None:
    with pytest.warns(UserWarning, match=r"AdamW: rank 0 steps the same gradients with lr = 0.1 in group 0 \(here 0.2\), so the copies"):
        take(processes, [made(lr=0.1), made(lr=torch.tensor(0.2))])
    groups = [[{"params": [torch.ones(9).requires_grad_()]}, {"params": [torch.ones(9).requires_grad_()]}][: rank + 1] for rank in (0, 1)]
    joined = [torch.nn.Parameter(torch.ones(9)), torch.nn.Parameter(torch.ones(9))]
    sides = [(optlang.load("lion")(joined), joined), (optlang.load("lion")(groups[1], lr=0.3), [p for g in groups[1] for p in g["params"]])]
    with pytest.warns(UserWarning, match=r"Lion: rank 0 steps the same gradients with 1 parameter groups \(here 2\), so"):
        take(processes, sides)


def test_a_rate_that_warms_up_from_zero_is_found_later(processes: Processes) -> None:
    sides = [made("adamw", lr=0), made("lion", lr=0)]
    take(processes, sides, 2)
    for optimizer, _ in sides:
        optimizer.param_groups[0]["lr"] = 0.1
    with pytest.raises(RuntimeError, match="found after 3 steps"):
        for step in (2, 3):
            take(processes, sides, 1, lambda params, _, step=step: averaged(params, step))  # type: ignore[misc]


@pytest.mark.parametrize("sides", ["one rule", "models of their own", "other parameters", "two optimizers each", "few numbers"])
def test_whoever_does_not_share_gradients_is_let_alone(processes: Processes, sides: str) -> None:
    """A sweep from one start with the same data, stages of a pipeline, and optimizers beside each other in one process."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if sides == "one rule":
            take(processes, [made("lion", lr=0.1), made("lion", lr=0.1)], 5)
        elif sides == "models of their own":
            take(processes, [made("adamw"), made("lion")], 5, of_their_own)
        elif sides == "other parameters":
            take(processes, [made("adamw"), made("lion", (4, 6))], 5, lambda params, step: averaged(params, step + len(params[0])))
        elif sides == "two optimizers each":
            for rule in ("adamw", "lion"):
                take(processes, [made(rule), made(rule)], 5)
        else:
            few = [torch.ones(()).requires_grad_() for _ in range(2)]
            take(processes, [(optlang.load(name)([p]), [p]) for name, p in zip(("sgd", "lion"), few, strict=True)])


class Poor:
    """A store that cannot compare, as that of an MPI group or of one whose server has gone."""

    def compare_set(self, *args: Any) -> bytes:
        raise RuntimeError("Broken pipe")


@pytest.mark.parametrize("store", [Poor(), None])
def test_a_store_that_does_not_answer_changes_nothing(processes: Processes, store: Any) -> None:
    processes.store = store
    take(processes, [made("adamw"), made("lion")])


def test_what_differs_by_rounding_alone_is_let_alone(processes: Processes) -> None:
    """Rules that begin alike, as SWATS and AdamP do: the gradient of a bowl at 1 does not show how far apart small weights are."""
    sides, first = [made("adamw", lr=0.1), made("swats", lr=0.1)], list[Tensor]()

    def given(params: list[Tensor], step: int) -> None:
        averaged(params, step)
        if params is sides[0][1]:
            first[:] = [p.detach().clone() for p in params]
        else:
            with torch.no_grad():
                for p, x in zip(params, first, strict=True):
                    p.copy_(torch.nextafter(x, torch.tensor(9.0)))

    take(processes, sides, 5, given)


def test_it_looks_in_few_steps(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(agreement, "_sample", lambda parameters: taken.append(optimizer._taken))
    optimizer, params = made()
    take(processes, [(optimizer, params)], 70)
    assert taken == [1, 3, 7, 15, 31]


def test_alone_there_is_no_company() -> None:
    assert agreement._company() is None


def test_complex_and_sparse_gradients_do_no_harm(processes: Processes) -> None:
    params = [torch.ones(20, dtype=torch.complex64).requires_grad_(), torch.ones(5, 3).requires_grad_()]
    copies = [[p.detach().clone().requires_grad_() for p in params] for _ in range(2)]
    sides = [(optlang.load(name)(mine), mine) for name, mine in zip(("adamw", "lion"), copies, strict=True)]

    def given(params: list[Tensor], step: int) -> None:
        params[0].grad = torch.complex(some((20,), step), some((20,), step + 50))
        params[1].grad = some((5, 3), step)

    with pytest.raises(RuntimeError, match="by another rule"):
        take(processes, sides, gradients=given)
    embedding = torch.nn.Embedding(6, 3, sparse=True)
    optimizer = optlang.load("sgd")(embedding.parameters(), lr=0.1)

    def touched(params: list[Tensor], step: int) -> None:
        optimizer.zero_grad()
        embedding(torch.tensor([step])).sum().backward()

    take(processes, [(optimizer, list(embedding.parameters()))], gradients=touched)
