"""Helping hands for code of authors: what stands around it in their training."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from by_hand_reductions import Batch
from closed_loop import Params, Problem
from references import gradient
from references_elementwise import scale_of
from references_learned import draws, network
from references_matrix import EXACT, Patched, places_of_draws
from torch import Tensor

from optlang import philox


class With:
    """An optimizer that is stepped in another way. `step(base, closure, t)`."""

    def __init__(self, base: Any, step: Callable[[Any, Any, int], object]) -> None:
        self.base, self.take, self.t = base, step, 0
        self.params: Params = [p for group in base.param_groups for p in group["params"]]

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self, closure: Any = None) -> None:
        self.t += 1
        self.take(self.base, closure, self.t)


# ----------------------------------------------------------------------------------------------- a helping hand


@contextlib.contextmanager
def old_signatures() -> Any:
    """`add_(number, tensor)` and its like, which torch no longer knows."""
    names = {"add_": "alpha", "add": "alpha", "addcmul_": "value", "addcdiv_": "value", "addcdiv": "value"}

    def old(place: Any, name: str) -> Any:
        plain = getattr(place, name)

        def call(x: Tensor, *args: Any, **more: Any) -> Any:
            if len(args) > 1 and (isinstance(args[0], float | int) or (isinstance(args[0], Tensor) and args[0].ndim == 0)):
                return plain(x, *args[1:], **{names[name]: float(args[0])})
            return plain(x, *args, **more)

        return call

    with contextlib.ExitStack() as stack:
        for place, name in [(place, name) for name in names for place in (Tensor, torch) if hasattr(place, name)]:
            stack.enter_context(mock.patch.object(place, name, old(place, name)))
        yield


def as_before(base: Any) -> With:
    def step(base: Any, closure: Any, t: int) -> None:
        with old_signatures():
            base.step()

    return With(base, step)


def told(base: Any) -> With:
    return With(base, lambda base, closure, t: base.step(closure))


def polyak(base: Any, lowest: float | None) -> With:
    batch = None if lowest is None else {"meta": {"fstar": torch.tensor([lowest])}}
    return With(base, lambda base, closure, t: base.step(closure, batch=batch))


def model_building(base: Any, params: dict[str, Tensor], problem: Problem) -> With:
    """Their closure only computes the loss; theirs is the backward pass."""

    def step(base: Any, closure: Any, t: int) -> None:
        def loss() -> Tensor:
            optimizer.zero_grad()
            return problem.loss(list(params.values()), t - 1)

        base.step(loss)

    optimizer = With(base, step)
    return optimizer


def metric(base: Any) -> With:
    @torch.no_grad()
    def step(base: Any, closure: Any, t: int) -> None:
        if closure is None:
            base.step()
        else:
            with torch.enable_grad():
                loss = closure()
            base.step(loss.detach())  # a number would become one of float32

    return With(base, step)


def randomly_scaled(base: Any, rule: str) -> With:
    scale = scale_of(rule)

    def step(base: Any, closure: Any, t: int) -> None:
        with mock.patch.object(torch.distributions.Exponential, "sample", lambda self: torch.tensor(scale(t))):
            base.step()

    return With(base, step)


class Walker:
    """The methods of MeZO's trainer around our problem, given our draws."""

    def __init__(self, trainer: Any, params: dict[str, Tensor], problem: Problem, lr: float, eps: float, weight_decay: float) -> None:
        self.params, self.problem, self.t, self.trainer = list(params.values()), problem, 0, trainer
        self.args = SimpleNamespace(zo_eps=eps, weight_decay=weight_decay, gradient_accumulation_steps=1)
        self.lr_scheduler, self.lr = SimpleNamespace(step=lambda: None), lr
        self.drawn = draws("mezo")
        self.zo_random_seed, self.projected_grad, self.named_parameters_to_optim = 0, 0.0, []

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return [("weight", p) for p in self.params]

    def _get_learning_rate(self) -> float:
        return self.lr

    def zo_perturb_parameters(self, scaling_factor: float) -> None:
        self._with_draws(lambda: self.trainer.zo_perturb_parameters(self, scaling_factor=scaling_factor))

    def zo_forward(self, model: Any, inputs: Any) -> Tensor:
        return self.problem.loss(self.params, self.t - 1).detach()

    def _with_draws(self, call: Callable[[], object]) -> None:
        batch = Batch(self.params, None)
        queue = iter([torch.from_numpy(x.copy()) for x in batch.parts(self.drawn(batch, self.t)[0])])
        with mock.patch.object(torch, "normal", lambda **shape: next(queue)):
            call()

    def step(self, closure: Any) -> None:
        self.t += 1
        self.trainer.zo_step(self, self, None)
        self._with_draws(lambda: self.trainer.zo_update(self, self))


def frugal(known: Any, params: dict[str, Tensor], problem: Problem, **settings: Any) -> Patched:
    base = known.GaloreAdamW(
        [{"params": list(params.values()), "is_proj_params": True}], proj_params_lr_scale=0.7, update_gap=3, density=0.5,
        inactive_lr_scale=0.3, lr=0.03, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1, **settings,
    )  # fmt: skip
    return Patched(base, *EXACT)


def following(known: Any, params: dict[str, Tensor], problem: Problem) -> Patched:
    group = {
        "params": list(params.values()),
        "names": [None] * len(params),
        "rank": 2,
        "update_proj_gap": 20,
        "scale": 0.7,
        "proj_type": "continuous",
    }
    base = known.AdamW([group], lr=0.03, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1, no_deprecation_warning=True)
    return Patched(base, *EXACT)


def generic(known: Any, params: dict[str, Tensor], momentum: str, subset: Any = "heuristics", **settings: Any) -> Patched:
    group = {"params": list(params.values()), "subset_size": subset, "rank": 2, "update_proj_gap": 50, "proj_type": "svd"}
    base = known.GenericOptim([group], lr=0.03, eps=1e-2, momentum_type=momentum, second_moment_type="sn", **settings)
    return Patched(base, *EXACT)


class Columns(Patched):
    """FRUGAL's choice of columns, one after the other ours of each parameter."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem, **settings: Any) -> None:
        both = [{"params": list(params.values()), "is_proj_params": True}]
        base = known.CoordAdamW(both, coord_choice="columns", proj_params_lr_scale=0.7, update_gap=3, density=0.5, inactive_lr_scale=0.3,
                                **ADAMW, **settings)  # fmt: skip
        [place] = places_of_draws("frugalcolumns").values()
        turns = itertools.cycle(range(len(params)))

        def ours(count: int, device: Any = None) -> Tensor:
            drawn = philox.draw("uniform", (1, count), self.t, place, 0, next(turns))[0]
            return torch.from_numpy((-drawn).argsort().copy())

        super().__init__(base, *EXACT, (torch, "randperm", ours))


def in_waves(known: Any, params: dict[str, Tensor], problem: Problem, **settings: Any) -> Patched:
    base = known.DCTAdamW(list(params.values()), lr=0.03, weight_decay=0.1, rank=2, proj="dct", update_proj_gap=3, betas=(0.8, 0.95),
                          eps=1e-2, **settings)  # fmt: skip
    return Patched(base, (torch, "float", torch.float64))


def dion(known: Any, params: dict[str, Tensor], problem: Problem) -> Patched:
    """Started with our draws; of matrices that are not wide, which theirs does not turn."""
    place = places_of_draws("dion")["cols", "r"]
    turns = itertools.cycle(range(len(params)))

    def ours(*shape: Any, **more: Any) -> Tensor:
        size = tuple(shape[0]) if len(shape) == 1 else tuple(shape)
        return torch.from_numpy(philox.draw("normal", size, 1, place, 0, next(turns)))

    base = known.Dion(list(params.values()), lr=0.03, mu=0.8, weight_decay=0.1, rank=2, epsilon=0.1)
    return Patched(base, (torch, "randn", ours), (torch, "float32", torch.float64))


def by_rows_or_columns(known: Any, params: dict[str, Tensor]) -> Any:
    group = {"params": list(params.values()), "sn": True}
    return known.AdamWSN([group], lr=0.03, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1, no_deprecation_warning=True)


ADAMW: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-2, "weight_decay": 0.1}


class InNumPy:
    """An optimizer written for JAX, with NumPy in its place."""

    def __init__(self, rule: Any, hypers: Any, params: dict[str, Tensor]) -> None:
        self.rule, self.hypers, self.params, self.t = rule, hypers, list(params.values()), 0
        self.states = [rule.init_param_state(p.detach().numpy().copy()) for p in self.params]

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self, closure: Any = None) -> None:
        for place, p in enumerate(self.params):
            both = p.detach().numpy().copy(), self.states[place]
            new, self.states[place] = self.rule.apply_param_gradient(self.t, self.hypers, *both, gradient(p).numpy().copy())
            p.data.copy_(torch.from_numpy(np.asarray(new)))
        self.t += 1


def ranger(known: Any, params: dict[str, Tensor], problem: Problem) -> InNumPy:
    hypers = SimpleNamespace(
        learning_rate=0.03, beta0=0.7, beta1=0.8, beta2=0.9, eps=1e-2, use_softplus=False, beta_softplus=50, eps_clipping=0.2,
        threshold_clipping=0.3, weight_decay=0.1, beta_lookahead=0.6, lookahead_every_nth_iter=3, nb_iterations=17,
        nb_warmup_iterations=0.4 * 17, nb_warmdown_iterations=0.35 * 17, centralize_gradients=True, normalize_gradients=False,
    )  # fmt: skip
    return InNumPy(known.Ranger21.__new__(known.Ranger21), hypers, params)


class Structured:
    """The forward pass of a learned optimizer, given what ours is told in place of what its network says."""

    batch_size = 1

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem) -> None:
        self.known, self.problem, self.params, self.t = known, problem, list(params.values()), 0
        self.X = self.Z = torch.cat([p.detach().flatten() for p in self.params])

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def get_grad(self, inputs: Any = None, **how: Any) -> Tensor:
        return torch.cat([gradient(p).flatten() for p in self.params])  # that at Z counts for nothing

    def get_var(self, name: str) -> Tensor:
        return self.Z

    def set_var(self, name: str, value: Tensor) -> None:
        self.Z = value

    def prox(self, given: Mapping[str, Tensor], compute_grad: bool) -> Tensor:
        return given["X"].sign() * torch.relu(given["X"].abs() - 0.5 * given["P"])

    def step(self, closure: Any = None) -> None:
        said = {name: torch.cat([x.flatten() for x in part]) for name, part in network(self.problem, self.t).items()}
        nothing = torch.zeros_like(self.X)
        layers = {f"linear_{name}": (lambda _, name=name: said.get(name, nothing)) for name in ("p", "a", "b", "b1", "b2")}
        uses = {f"{name}_use": name in said for name in ("p", "a", "b", "b1", "b2")}
        asked = SimpleNamespace(
            state=0, training=False, step_size=0.05, lstm=lambda x, state: (x, state), linear=lambda x: x, p_norm=torch.nn.Identity(),
            a_norm=torch.nn.Identity(), p_scale=1.0, a_scale=1.0, **layers, **uses,
        )  # fmt: skip
        self.known.CoordMathLSTM.forward(asked, self, "grad")
        self.t += 1
        torch.nn.utils.vector_to_parameters(self.X, self.params)


class Rounds:
    """Entropy-SGD, whose step is four of ours: it asks for the batch of the first of them once more, and then for each."""

    def __init__(self, known: Any, params: dict[str, Tensor], problem: Problem) -> None:
        settings = {"lr": 0.8, "momentum": 0.5, "nesterov": True, "L": 4, "eps": 0.0, "g0": 0.5, "g1": 0.0, "weight_decay": 0.1}
        self.base, self.params, self.problem, self.t = known.EntropySGD(list(params.values()), settings), list(params.values()), problem, 0

    def zero_grad(self) -> None:
        for p in self.params:
            p.grad = None

    def step(self, closure: Any = None) -> None:
        self.t += 1
        if self.t % 4 == 0:
            batches = iter([self.t - 4, *range(self.t - 4, self.t)])

            def batch() -> tuple[Tensor, None]:
                self.zero_grad()
                loss = self.problem.loss(self.params, next(batches))
                loss.backward()  # type: ignore[no-untyped-call]
                return loss, None

            with old_signatures():
                self.base.step(batch, model=self, criterion=self)


def from_masks(known: Any, params: dict[str, Tensor], problem: Problem) -> With:
    """torch's SGD with gradients from their estimator, masked to our coordinates, which are different ones in every step."""
    names, drawn = list(params), draws("zocoordinates", k=3)

    def step(base: Any, closure: Any, t: int) -> None:
        closure()
        here = {f"{name}.orig": p.detach() for name, p in params.items()}
        batch = Batch(list(params.values()), None)
        masks = [np.zeros(sum(p.numel() for p in params.values())) for _ in range(1)]
        for u in drawn(batch, t):
            assert masks[0][int(np.argmax(u))] == 0
            masks[0][int(np.argmax(u))] = 1
        masked = {f"{name}.mask": torch.from_numpy(part) for name, part in zip(names, batch.parts(masks[0]), strict=True)}
        found = known.cge(lambda at: problem.loss(list(at.values()), t - 1), here, masked, 0.2)
        for name, p in params.items():
            p.grad = found[f"{name}.orig"]
        base.step()

    return With(torch.optim.SGD(list(params.values()), lr=0.05, momentum=0.8, weight_decay=0.1), step)


def unit_scaled(known: Any, params: dict[str, Tensor], problem: Problem) -> Any:
    """torch's AdamW with the settings that they give each parameter. Of embeddings they hold the width for fan_in, as the paper does."""
    for name, p in params.items():
        kind = {"head": "output", "vector": "bias"}.get(name, "weight")
        p.mup_type, p.mup_scaling_depth = kind, None if name in ("embed", "head") else 5  # type: ignore[attr-defined]
    groups = known.scaled_parameters(list(params.values()), known.lr_scale_func_adam, lr=0.03, weight_decay=0.003)
    return torch.optim.AdamW(groups, betas=(0.8, 0.95), eps=1e-2)
