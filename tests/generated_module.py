"""A module as it was generated, and a small model that its optimizers step."""

from __future__ import annotations

import types
from typing import Any

import torch
from stepping import finite
from torch import Tensor, nn


def load(source: str, name: str) -> Any:
    """The class of that name in the text of a module."""
    module = types.ModuleType("generated")
    exec(compile(source, "generated.py", "exec"), module.__dict__)
    return getattr(module, name)


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(5, 7, dtype=dtype), nn.Linear(7, 2, dtype=dtype)
        self.scale = nn.Parameter(torch.ones((), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.tanh(self.one(x))) * self.scale
        return out


def run(cls: Any, dtype: torch.dtype = torch.float64, steps: int = 8, **settings: Any) -> tuple[Net, Any]:
    """A model after some steps of a class, and the optimizer. `matrices`: it gets these alone."""
    net = Net(dtype)
    optimizer = cls([p for p in net.parameters() if p.ndim == 2] if settings.pop("matrices", False) else net.parameters(), **settings)
    for step in range(steps):
        x = torch.randn((6, 5), generator=torch.Generator().manual_seed(step), dtype=torch.float64).to(dtype)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = (net(x) - 1).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)
    return net, optimizer


def same(a: Net, b: Net, tolerance: float = 1e-11) -> None:
    """Both have the same parameters, and the second finite ones."""
    finite(*b.parameters())
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
