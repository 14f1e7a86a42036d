"""Helping hands for code of authors that is a script, a loop of its own, or a part of an optimizer."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from by_hand_reductions import Batch, halfway
from clones import branch, given
from closed_loop import Params, Problem
from hands import With, old_signatures
from references import gradient
from references_learned import draws
from references_matrix import Patched
from references_reductions import DAO, GGPO, OASIS, ONE_CLIENT, factors, last_round, normals, signs
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

FED = "ATP-1010/FedHyper"


class Held:
    """Something that moves parameters by itself, step by step."""

    def __init__(self, params: dict[str, Tensor], problem: Problem) -> None:
        self.params: Params = list(params.values())
        self.problem, self.t = problem, 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self, closure: Any = None) -> None:
        self.t += 1
        if closure is not None:
            closure()
        with torch.no_grad():
            self.move()

    def move(self) -> None:
        raise LookupError("a subclass says how")


# ---------------------------------------------------------------------------------------------------- federated averaging


class Server(Held):
    """FedHyper's script after a round of one client, whose one step is as long as the server told it."""

    def __init__(self, params: dict[str, Tensor], problem: Problem, choice: str, **args: float) -> None:
        super().__init__(params, problem)
        self.code, self.first = branch(FED, "src/federated_main.py", choice), args.pop("first", 1.0)
        self.names: dict[str, Any] = {
            "args": SimpleNamespace(num_users=1, **args), "agg": 0, "Global_alpha": [], "local_lr": [self.first], "global_model": self,
            "parameters_to_vector": parameters_to_vector, "vector_to_parameters": vector_to_parameters,
        }  # fmt: skip

    def parameters(self) -> Params:
        return self.params

    def move(self) -> None:
        change = -self.names["local_lr"][0] * parameters_to_vector([gradient(p) for p in self.params])
        vector_to_parameters(parameters_to_vector(self.params) + change, self.params)
        self.names |= {"epoch": self.t - 1, "gradient_vector": change}
        exec(self.code, self.names)
        if self.t == 1 and "lr" in vars(self.names["args"]):
            self.names["local_lr"] = [self.names["args"].lr]


class Client(Held):
    """A round of FedHyper's client, played at the start: its model is our problem, its batches are ours."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem, steps: int = 20) -> None:
        super().__init__(params, problem)
        self.places: list[Tensor] = []
        self.model = [p.detach().clone().requires_grad_() for p in self.params]
        drift = parameters_to_vector(last_round(problem, 0)["drift"])
        asked = SimpleNamespace(
            args=SimpleNamespace(ad_lr=True, optimizer="sgd", local_ep=1, num_users=5, frac=0.5, function="FedHyper-CL"),
            lrs=[ONE_CLIENT["lr"]], gtl=drift, device="cpu", criterion=lambda loss, labels: loss,
            trainloader=self._batches(steps), logger=SimpleNamespace(add_scalar=lambda *what: None),
        )  # fmt: skip
        known.LocalUpdate.update_weights(asked, self, 0, 0)

    def _batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(steps):
            yield torch.tensor(step), torch.tensor(0)
            self.places.append(parameters_to_vector(self.model).detach().clone())

    def __call__(self, step: Tensor) -> Tensor:
        return self.problem.loss(self.model, int(step))

    def parameters(self) -> Params:
        return self.model

    def train(self) -> None:
        """As torch's modules have it."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def zero_grad(self) -> None:
        for p in (*self.params, *self.model):
            p.grad = None

    def move(self) -> None:
        vector_to_parameters(self.places[self.t - 1].clone(), self.params)


# ----------------------------------------------------------------------------------------------------------- the curvature


class Curvature:
    """Hutch of fxrshed/ScaledSPS, given our draws and the settings of our rows."""

    def __init__(self, known: Any, rule: str, problem: Problem) -> None:
        self.hutch, self.problem, self.signs = known.Hutch(), problem, signs(rule)
        self.hutch.beta, self.hutch.alpha = OASIS["beta2"], OASIS["alpha"]

    def estimate(self, weights: Params, t: int) -> Params:
        """That of the rule at step t: the mean of several at the first, then one."""
        points = [w.detach().clone().requires_grad_() for w in weights]
        grads = torch.autograd.grad(self.problem.loss(points, t - 1), points, create_graph=True)
        count, numbers = (OASIS["samples"], iter(range(OASIS["samples"]))) if t == 1 else (1, iter([-1]))

        def ours(weights: Params) -> Params:
            number = next(numbers)
            return [torch.from_numpy(self.signs(number, t, place, tuple(w.shape)).copy()) for place, w in enumerate(weights)]

        with given(self.hutch.diag_estimate, rademacher=ours), torch.enable_grad():
            found: Params = self.hutch.diag_estimate(points, grads, count)
        return [x.abs() for x in found] if t == 1 else found


class Metric(Held):
    """A mean of gradients in the metric of Hutch, which is begun with what it makes of the first estimate."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem) -> None:
        super().__init__(params, problem)
        self.curvature = Curvature(known, "oasismomentum", problem)
        self.base = torch.optim.SGD(self.params, lr=1.0)
        self.means = [torch.zeros_like(p) for p in self.params]

    def move(self) -> None:
        hutch = self.curvature.hutch
        with torch.enable_grad():
            found = self.curvature.estimate(self.params, self.t)
        if self.t == 1:
            for p, x in zip(self.params, found, strict=True):
                self.base.state[p]["Dk"] = x.clone()
        with mock.patch.object(hutch, "diag_estimate", lambda *asked: found):
            hutch.step(self.base, None, 1)
        for p, mean in zip(self.params, self.means, strict=True):
            mean.lerp_(gradient(p), 0.2)
            p.sub_(OASIS["lr"] * mean * self.base.state[p]["DkhatInv"])


class Adaptive(Held):
    """simplecryoem's OASIS, whose whole run is played at the start; its mean of all estimates is made to be the last of ours."""

    def __init__(self, known: Any, of_hutch: Any, params: dict[str, Tensor], problem: Problem, steps: int = 20) -> None:
        super().__init__(params, problem)
        self.batch, self.curvature = Batch(self.params, None), Curvature(of_hutch, "oasis", problem)
        self.places: list[Any] = []
        start, self.seen, last = self.batch.weights(), 0, np.zeros(())

        def slope(w: Any, index: Any) -> Any:
            if not self.places and self.seen:
                self.places.append(w)  # the first step is taken before the loop
            self.seen += 1
            points = [p.requires_grad_() for p in self._tensors(w)]
            found = torch.autograd.grad(problem.loss(points, len(self.places)), points)
            return self.batch.whole([g.numpy() for g in found])

        def product(w: Any, z: Any, index: Any) -> Any:
            nonlocal last
            n = len(self.places)
            found = self._estimate(self.places[-1], n + 1)
            before, last = last, found
            return n * found - (n - 1) * before

        def loss(w: Any, index: Any) -> float:
            if not np.array_equal(w, self.places[-1]):
                self.places.append(w)
            return 0.0

        given_steps = (OASIS["lr"], self._estimate(start, 1), OASIS["beta2"], OASIS["alpha"])
        known.oasis_adaptive(None, loss, slope, product, start, *given_steps, N_epoch=steps - 1, iter_display=10 * steps)

    def _tensors(self, w: Any) -> Params:
        return [torch.from_numpy(part.copy()) for part in self.batch.parts(w)]

    def _estimate(self, w: Any, t: int) -> Any:
        return self.batch.whole([x.numpy() for x in self.curvature.estimate(self._tensors(w), t)])

    def move(self) -> None:
        self.batch.move(self.places[self.t - 1])


# ------------------------------------------------------------------------------------------------------ parts and surroundings


class Shaken(Held):
    """Frozen matrices with the noise that a forward pass of kohya's LoRA adds, in float64, without its cast to bfloat16, with our draws."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem) -> None:
        super().__init__(params, problem)
        self.homes = [p.detach().clone() for p in self.params]
        self.known, self.draw = known, normals("loraggpo")

    def move(self) -> None:
        for place, (p, home, four) in enumerate(zip(self.params, self.homes, factors(self.problem, self.t - 1), strict=True)):
            linear = torch.nn.Linear(home.shape[1], home.shape[0], bias=False)
            linear.weight.data = home
            module = self.known.LoRAModule("frozen", linear, lora_dim=2, alpha=2, ggpo_sigma=GGPO["sigma"], ggpo_beta=GGPO["beta"])
            module.org_weight_norm_estimate = home.norm(dim=1).mean()
            module.apply_to()
            (module.lora_up.weight.data, module.lora_down.weight.data), slopes = four[:2], four[2:]
            module.lora_up.weight.grad, module.lora_down.weight.grad = slopes
            with mock.patch.object(torch, "autocast", lambda kind: contextlib.nullcontext()):
                module.update_grad_norms()
            module.update_norms()
            drawn = torch.from_numpy(self.draw(self.t, place, tuple(home.shape)))
            with mock.patch.object(torch, "randn", lambda shape, drawn=drawn, **how: drawn):
                whole = module(torch.eye(home.shape[1])).T
            p.copy_(whole - four[0] @ four[1])


def accelerated(known: Any, params: dict[str, Tensor], problem: Problem, **settings: Any) -> Any:
    known.AcceleDoG._norm = lambda self, x, dim: x.norm()  # of numbers that are for weights of constant norm
    for place, p in enumerate(params.values()):
        p.id_number = place  # type: ignore[attr-defined]
    return known.AcceleDoG(list(params.values()), **settings)


def trion(known: Any, params: dict[str, Tensor], problem: Problem, scaling: str) -> Patched:
    """In float64, with the basis that it asks of another file, without the 1e-7 added to a norm; of matrices that are not wide."""
    sizes = {min(p.shape) for p in params.values()}
    with mock.patch.object(torch, "float", torch.float64):
        bases = {size: known.dct3_matrix(size, torch.float64, "cpu") for size in sizes}
    for size, basis in bases.items():
        known.GlobalCache.add(category="ortho", key=(size, 2), item=basis)
    known.trion_update.__globals__["get_dct_matrix"] = lambda size, **how: bases[size]
    group = {"params": list(params.values()), "use_muon": True, "rank": 2, "ns_type": "torch", "scaling_type": scaling, "lr": 0.03,
             "momentum": 0.8, "weight_decay": 0.1}  # fmt: skip
    return Patched(known.Trion([group]), (Tensor, "bfloat16", Tensor.double), (Tensor, "norm", _without_eps))


NORM = Tensor.norm


def _without_eps(x: Tensor, *args: Any, **more: Any) -> Tensor:
    found: Tensor = NORM(x, *args, **more)
    return found - 1e-7 if more.get("keepdim") else found


class Guessing(Held):
    """Optimistic AMSGrad of its authors, told the last gradient for that at the extrapolated weights."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem) -> None:
        super().__init__(params, problem)
        self.base = known.Optadam_torch(self.params, lr=0.03, betas=(0.8, 0.95), eps=1e-2, span=99)
        self.other = torch.optim.SGD([torch.zeros_like(p) for p in self.params])
        self.last = [torch.zeros_like(p) for p in self.params]

    def move(self) -> None:
        for p, last in zip(self.other.param_groups[0]["params"], self.last, strict=True):
            p.grad = last
        self.last = [gradient(p).clone() for p in self.params]
        here = mock.patch.object(Tensor, "cuda", lambda x: x), mock.patch.object(Tensor, "float", Tensor.double)
        with old_signatures(), here[0], here[1]:
            self.base.step(self.other)


def worker(known: Any, params: dict[str, Tensor], problem: Problem) -> With:
    """A worker of MT-DAO, whose weights and means are averaged with another's, which never moved."""
    every = list(params.values())
    start = [p.detach().clone() for p in every]
    base = known.QHAdamW(every, lr=DAO["lr"], betas=(DAO["beta1"], DAO["beta2"]), vs=(DAO["omega"],), eps=DAO["eps"], weight_decay=0.0,
                         foreach=False)  # fmt: skip

    def step(base: Any, closure: Any, t: int) -> None:
        torch.nn.utils.clip_grad_norm_(every, DAO["limit"])
        base.step()
        if t % DAO["period"] == 0:
            halfway(every, start)
        for name, period in (("exp_avg", "period_u"), ("exp_avg_sq", "period_v")):
            for p in every if t % DAO[period] == 0 else ():
                base.state[p][name].div_(2)

    return With(base, step)


class Ranked(Held):
    """RankSGD of its authors, given our draws and a ranking by losses, without its search along the line."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem, mu: float, lr: float, k: int) -> None:
        super().__init__(params, problem)
        self.batch, self.drawn, self.k = Batch(self.params, None), draws("zoranksgd"), k
        self.base = known.RankSGD(self.batch.weights(), None, lr / mu, mu)

    def _ranking(self, points: Any) -> list[int]:
        parts = [[torch.from_numpy(part.copy()) for part in self.batch.parts(x)] for x in points]
        losses = [float(self.problem.loss(part, self.t - 1)) for part in parts]
        return [int(place) + 1 for place in np.argsort(losses)][: self.k]

    def move(self) -> None:
        ours = np.stack(self.drawn(self.batch, self.t))
        with mock.patch.object(np.random, "randn", lambda *shape: ours), mock.patch.object(builtins, "print", lambda *text: None):
            points = self.base.generate_query_codes(len(ours))
            self.base.display_shuffled_images([None] * len(ours), 0, plot=False)
            self.base.rank_feedback(self._ranking(points))
            [whole] = self.base.generate_query_codes(3)
            self.base.display_shuffled_images([None], 0, plot=False)
            self.base.rank_feedback([1])
        self.batch.move(whole)
