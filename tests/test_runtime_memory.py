"""Parameters that share memory are refused; those that only lie side by side are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import optlang

AdamW: Any = optlang.load("adamw")


def flat(count: int = 12) -> Tensor:
    return torch.arange(float(count))


WIDE = [torch.ones(3, 1).expand(3, 4), flat().as_strided((4, 4), (2, 1)), flat().as_strided((2, 2, 2), (5, 3, 2))]


@pytest.mark.parametrize("wide", WIDE)
def test_one_place_for_several_elements(wide: Tensor) -> None:
    with pytest.raises(ValueError, match=r"AdamW: several elements of wide are one place in memory.*expand"):
        AdamW([("wide", wide.detach().requires_grad_())])


def test_rows_that_reach_into_others_and_miss_them() -> None:
    woven = flat().as_strided((2, 3), (3, 2)).detach().requires_grad_()  # 0, 2, 4 and 3, 5, 7
    optimizer = AdamW([woven], lr=1.0)
    woven.grad = torch.ones(2, 3)
    optimizer.step()
    assert (woven.detach() < torch.tensor([[0.0, 2, 4], [3, 5, 7]])).all()


SHARING = {
    "all": lambda x: [x, x.detach()], "halves": lambda x: [x[:8], x[4:]], "the end": lambda x: [x, x[11:]],
    "another shape": lambda x: [x[3:5], x.view(3, 4)], "turned": lambda x: [x, x.view(3, 4).t()],
}  # fmt: skip


@pytest.mark.parametrize("shares", SHARING.values(), ids=SHARING)
def test_overlapping(shares: Any) -> None:
    whole = flat()
    params = [(f"p{i}", p.detach().requires_grad_()) for i, p in enumerate(shares(whole))]
    with pytest.raises(ValueError, match=r"AdamW: p\d and p\d share memory.*give the optimizer one of them"):
        AdamW(params)


def test_across_groups_and_later_ones() -> None:
    whole = flat()
    first, second = whole[:6].detach().requires_grad_(), whole[5:].detach().requires_grad_()
    with pytest.raises(ValueError, match="parameter 0 of group 0 and parameter 0 of group 1 share memory"):
        AdamW([{"params": [first]}, {"params": [second], "lr": 0.1}])
    optimizer = AdamW([first])
    with pytest.raises(ValueError, match="share memory"):
        optimizer.add_param_group({"params": [second]})
    assert len(optimizer.param_groups) == 1


def test_side_by_side() -> None:
    """Views of one buffer, columns of one matrix, empty ones, and one parameter that is tied in the model."""
    whole, matrix = flat(), torch.ones(4, 6)
    params = [whole[:6], whole[6:], matrix[:, ::2], matrix[:, 1::2], torch.zeros(0), torch.zeros(0), torch.tensor(1.0)]
    params = [p.detach().requires_grad_() for p in params]
    optimizer = AdamW(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    embedding, head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
    head.weight = embedding.weight
    AdamW(torch.nn.Sequential(embedding, head).parameters())


def test_gradients_may_be_expanded_and_shared() -> None:
    """They are only read."""
    sides = []
    for backend in ("cpp", "reference"):
        params = [torch.ones(3, 4, requires_grad=True) for _ in range(2)]
        optimizer: Any = optlang.load("adamw", backend=backend)(params)
        params[0].grad = params[1].grad = torch.full((1, 1), 0.5).expand(3, 4)
        optimizer.step()
        sides.append([p.detach() for p in params])
    torch.testing.assert_close(*sides)


def test_parameters_on_no_device_are_not_looked_at() -> None:
    AdamW([torch.zeros(3, device="meta", requires_grad=True), torch.zeros(3, device="meta", requires_grad=True)])
