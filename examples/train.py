"""A rule of one's own in an ordinary training loop: `python examples/train.py`.

Trains a small network on scikit-learn's digits with the rule in `my.opt`, a schedule and a checkpoint half-way.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import optlang


def main(steps: int = 300) -> float:
    """Returns the share of right answers on held-out digits."""
    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    My = optlang.load(Path(__file__).parent / "my.opt")
    optimizer = My(model.parameters(), lr=3e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    for step in range(steps):
        batch = torch.randint(0, 1400, (64,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step == steps // 2:  # a checkpoint holds states, settings and counts, as torch's do
            optimizer.load_state_dict(optimizer.state_dict())

    right = (model(x[1400:]).argmax(-1) == y[1400:]).float().mean().item()
    print(optimizer.describe())
    print(f"{100 * right:.1f} % of the held-out digits are right")
    return right


if __name__ == "__main__":
    main()
