"""Tasks whose best known rule is known beforehand, to see whether a search finds it. Each takes seconds, on a made-up loss.

All are quadratics q(w) = (w - w*)ᵀ A (w - w*) / 2 in 64 dimensions, with A turned at random so that no element stands for a
direction, and a w* about which w itself says nothing. What differs is what the rule gets to see. Reported is log10 q.

planted-momentum    the gradient of q, whose curvatures span three decades: momentum is made for this
planted-sign        the gradient of q at a scale that no step shares with the next, with an element in ten hit by noise without a
                    mean: it takes a bound that knows no scale, and then an average
planted-normalized  the gradient of q³/3, whose size falls with the fifth power of the distance: a step needs a length of its own
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from optlang.race.tasks import Split
from optlang.search.training.tasks import Batch, HeldOut, Params, Task, Weight

SIZE = 64
SMALLEST = 1e-30  # of q, whose logarithm is reported
LARGEST = 1e30


class Planted(Task):
    """A quadratic. `decades`: what its curvatures span. A batch is what is added to the gradient."""

    decades = 2.0
    steps, batch_size, at_once = 200, 1, 192

    def weights(self) -> Mapping[str, Weight]:
        return {"w": Weight((SIZE,), 1.0)}

    def parts(self) -> Split:
        nothing = (torch.zeros(1, SIZE),)
        return Split(nothing, nothing, nothing)

    @cached_property
    def curvature(self) -> Tensor:
        """A, the same for all seeds."""
        turn = torch.linalg.qr(_normal(SIZE, SIZE, seed=1))[0]
        found: Tensor = (turn * torch.logspace(-self.decades, 0, SIZE, dtype=torch.float64)) @ turn.T
        return found

    @cached_property
    def goal(self) -> Tensor:
        """w*, the same for all seeds: starts differ."""
        return 2 * _normal(SIZE, seed=2)

    def distance(self, params: Params) -> Tensor:
        """q of each run: [runs]."""
        away = params["w"] - self.goal.to(params["w"].dtype)
        return 0.5 * ((away @ self.curvature.to(away.dtype)) * away).sum(-1)

    def batch(self, seeds: Sequence[int], step: int) -> Batch:
        made = {seed: self.noise(seed, step) for seed in dict.fromkeys(seeds)}
        return (torch.stack([made[seed] for seed in seeds]),)

    def noise(self, seed: int, step: int) -> Tensor:
        """What is added to the gradient of one run in one step: nothing."""
        return torch.zeros(SIZE)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return self.distance(params) + (params["w"] * batch[0].to(params["w"].dtype)).sum(-1)

    @torch.no_grad()
    def evaluate(self, params: Params, part: HeldOut = "validation") -> Tensor:
        """log10 of q, without noise."""
        return self.distance(params).nan_to_num(LARGEST).clamp(SMALLEST, LARGEST).log10()


class PlantedMomentum(Planted):
    """a quadratic whose curvatures span three decades"""

    name, decades = "planted-momentum", 3.0


class PlantedSign(Planted):
    """a quadratic whose gradients change their scale in every step, over four decades; an element in ten gets noise of a hundred
    times the gradient, and without a mean"""

    name, schedule = "planted-sign", "linear"  # a constant step size would reward whatever shrinks by itself
    share, size, scales = 0.1, 100.0, 2.0

    def noise(self, seed: int, step: int) -> Tensor:
        """The scale of a step, then the noise."""
        scale = 10 ** (self.scales * (2 * torch.rand(1, generator=_generator(seed + 1, -step)) - 1))
        return torch.cat([scale, scale * self.size * _cauchy(seed, step, self.share)])

    def loss(self, params: Params, batch: Batch) -> Tensor:
        given = batch[0].to(params["w"].dtype)
        return self.distance(params) * given[:, 0] + (params["w"] * given[:, 1:]).sum(-1)


class PlantedNormalized(Planted):
    """the third power of a quadratic: gradients shrink far faster than distances"""

    name, decades = "planted-normalized", 1.0

    def loss(self, params: Params, batch: Batch) -> Tensor:
        return self.distance(params) ** 3 / 3


TASKS: dict[str, type[Task]] = {one.name: one for one in (PlantedMomentum, PlantedSign, PlantedNormalized)}


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _generator(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + step)


@lru_cache(maxsize=4096)
def _cauchy(seed: int, step: int, share: float) -> Tensor:
    """A few elements of a Cauchy distribution, zeros elsewhere."""
    generator = _generator(seed, step)
    hit = torch.rand(SIZE, generator=generator) < share
    return torch.where(hit, torch.empty(SIZE).cauchy_(generator=generator), torch.zeros(SIZE))
