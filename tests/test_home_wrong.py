"""Wrong input that is tested nowhere else: what is frozen, gradients of another kind, files that are cut short. 2 seconds."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

import optlang

AdamW: Any = optlang.load("adamw")


def stepped() -> tuple[Any, torch.Tensor]:
    p = torch.ones(3, requires_grad=True)
    optimizer = AdamW([("p", p)])
    p.grad = torch.tensor([1.0, -2.0, 0.5])
    optimizer.step()
    return optimizer, p


def test_what_is_frozen_is_taken_and_left_alone_as_in_torch() -> None:
    """Until it is thawed, which needs no new optimizer."""
    frozen, free = torch.ones(2), torch.ones(2, requires_grad=True)
    optimizer = AdamW([frozen, free])
    free.sum().backward()
    optimizer.step()
    assert frozen.tolist() == [1, 1] and frozen not in optimizer.state and free in optimizer.state
    frozen.requires_grad_()
    frozen.sum().backward()
    optimizer.step()
    assert optimizer.state[frozen]["step"] == 1 and optimizer.state[free]["step"] == 2


def test_gradients_of_another_number_type_are_refused_by_torch_or_taken_as_numbers() -> None:
    p = torch.ones(3, dtype=torch.bfloat16, requires_grad=True)
    with pytest.raises(RuntimeError, match="(gradient|grad) .*(type|dtype)"):
        p.grad = torch.ones(3)
    if not hasattr(p, "grad_dtype"):
        return
    p.grad_dtype = torch.float32  # since torch 2.10 gradients may be wider than weights
    q = torch.ones(3, requires_grad=True)
    p.grad, q.grad = torch.tensor([1.0, 1e-3, 3.0]), torch.tensor([1.0, 1e-3, 3.0])
    ours, wide = AdamW([p], lr=0.1), AdamW([q], lr=0.1)
    ours.step()
    wide.step()
    assert torch.equal(p, q.bfloat16()) and torch.equal(ours.state[p]["m"], wide.state[q]["m"])


def test_gradients_of_another_device_or_shape_are_refused_by_torch() -> None:
    p = torch.ones(3, requires_grad=True)
    for gradient in (torch.ones(3, device="meta"), torch.ones(2)):
        with pytest.raises(RuntimeError, match="device type 'meta'|size|shape"):
            p.grad = gradient


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_short_leaves_the_optimizer_as_it_was(kept: float) -> None:
    optimizer, p = stepped()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    whole = file.getvalue()
    before = [p.detach().clone(), *(value.clone() for value in optimizer.state[p].values())]
    with pytest.raises((RuntimeError, EOFError)):
        optimizer.load_state_dict(torch.load(io.BytesIO(whole[: int(kept * len(whole))]), weights_only=True))
    assert all(torch.equal(x, y) for x, y in zip(before, [p, *optimizer.state[p].values()], strict=True))
    optimizer.load_state_dict(torch.load(io.BytesIO(whole), weights_only=True))
