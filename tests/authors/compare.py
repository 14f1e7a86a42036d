"""Our rules beside their authors' own code, which no package index has: `make authors FOLDER=…`.

FOLDER holds clones, OWNER+NAME each. Nothing is installed: the classes are taken out of the files of one commit. The settings
and the closed loop are those of the row of `tests/test_library.py` that a comparison names; the results are committed beside.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import copy
import functools
import itertools
import json
import math
import platform
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

sys.path.insert(0, str(Path(__file__).parent.parent))
import test_library as library
from by_hand_reductions import Batch
from closed_loop import Params, Problem, drive
from references import Row, gradient
from references_elementwise import scale_of
from references_learned import draws, network
from references_matrix import EXACT, Patched, places_of_draws

from optlang import philox

RESULTS = Path(__file__).with_name("results.json")
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
Make = Callable[[Any, dict[str, Tensor], Problem], Any]  # the classes, the parameters: an optimizer


@dataclass(frozen=True)
class Comparison:
    """A row of the table of references against classes of some files of a repository. `changes`: settings that theirs need."""

    row: str
    repository: str
    files: tuple[str, ...]
    make: Make
    changes: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[str, ...] = ()
    steps: int = 20
    tolerance: float = 1e-12
    every: int = 1  # steps after which both sides are at the same place


KNOWN: dict[str, Any] = {  # what the files would import
    **{name: __import__(name) for name in ("copy", "math", "torch", "warnings")},
    **{name: getattr(typing, name) for name in ("Any", "Callable", "Dict", "Iterable", "List", "Optional", "Tuple", "Union")},
    "np": np, "th": torch, "nn": torch.nn, "optim": torch.optim, "F": torch.nn.functional, "Optimizer": Optimizer, "Tensor": Tensor,
    "reduce": functools.reduce, "deepcopy": copy.deepcopy, "dataclass": dataclass, "abstractmethod": lambda f: f, "ABC": object,
    "required": None, "ParamsT": Any, "DTensor": type(None), "Trainer": object, "wandb": SimpleNamespace(), "adamw_update": None,
    "lion_update": None, "require_version": lambda text: None, "_dispatch_sqrt": math.sqrt,
    "has_parameter_data": lambda p: True,
    "dist": SimpleNamespace(is_initialized=lambda: False), "partial": functools.partial, "struct": SimpleNamespace(dataclass=dataclass),
    "jnp": np, "onp": np, "lax": SimpleNamespace(max=np.maximum, min=np.minimum, square=np.square), "OptimizerDef": SimpleNamespace,
}  # fmt: skip


def repository(name: str) -> Path:
    place = FOLDER / name.replace("/", "+")
    return next(p for p in (place / "repo" / ".git", place / "repo", place / ".git", place) if (p / "HEAD").exists())


def git(name: str, *words: str) -> str:
    return subprocess.run(["git", f"--git-dir={repository(name)}", *words], check=True, capture_output=True, text=True).stdout


def commit(name: str) -> str:
    return git(name, "rev-parse", "HEAD").strip()


def classes(name: str, files: Iterable[str]) -> SimpleNamespace:
    """The classes and functions of files, without what the files import."""
    known = dict(KNOWN)
    for file in files:
        tree = ast.parse(git(name, "show", f"HEAD:{file}"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.body = [part for part in node.body if not isinstance(part, ast.ImportFrom)]
            elif not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.List)):
                continue
            with contextlib.suppress(NameError), mock.patch.object(torch, "compile", lambda **how: lambda function: function):
                exec(compile(ast.Module([node], []), file, "exec", flags=__future__.annotations.compiler_flag), known)  # or it needs more
    return SimpleNamespace(**known)


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
def _old_signatures() -> Any:
    """`add_(number, tensor)` and its like, which torch no longer knows."""
    names = {"add_": "alpha", "add": "alpha", "addcmul_": "value", "addcdiv_": "value"}

    def old(name: str) -> Any:
        plain = getattr(Tensor, name)

        def call(x: Tensor, *args: Any, **more: Any) -> Any:
            if len(args) > 1 and (isinstance(args[0], float | int) or (isinstance(args[0], Tensor) and args[0].ndim == 0)):
                return plain(x, *args[1:], **{names[name]: float(args[0])})
            return plain(x, *args, **more)

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(Tensor, name, old(name)))
        yield


def as_before(base: Any) -> With:
    def step(base: Any, closure: Any, t: int) -> None:
        with _old_signatures():
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


def generic(known: Any, params: dict[str, Tensor], momentum: str, **settings: Any) -> Patched:
    group = {"params": list(params.values()), "subset_size": "heuristics", "rank": 2, "update_proj_gap": 50, "proj_type": "svd"}
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
    place = places_of_draws("dion")["cols"]
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
METRIC: dict[str, Any] = {"lr": 0.2, "momentum": 0.8, "xi": 0.3, "beta": 0.7, "weight_decay": 0.1}
SANIA, HD, SPS, METRICS = "fxrshed/SANIA", "gbaydin/hypergradient-descent", "IssamLaradji/sps", "harveyThomas4692/Induced-Metric-Optimiser"
OPTIMISERS = ("optimisers/torch_imp.py",)
PIPELINE = ("experiments/train_neurips_pipeline.py",)
SUBSPACES = ("frugal/galore_projector.py", "frugal/proj_optimizer_templates.py", "frugal/adamw.py")
COLUMNS = ("frugal/coordinate_projector.py", "frugal/proj_optimizer_templates.py", "frugal/adamw.py")
SUBSETS = "timmytonga/sn-sm"
GENERIC = ("projectors/approx_svd.py", "projectors/svd_projector.py", "projectors/topk_norm_projector.py",
           "projectors/uniform_projector.py", "subspace_momentum.py", "subset_norm.py", "GenericOptim.py")  # fmt: skip
WAVES = "IST-DASLab/ISTA-DASLab-Optimizers"
FFT = tuple(
    f"ista_daslab_optimizers/{name}.py"
    for name in ("utils/global_cache", "utils/dct", "fft_low_rank/fft_projector", "fft_low_rank/dct_adamw")
)
FOLLOWED: dict[str, Any] = {"beta3": 0.9, "beta4": 0.999, "subspace_eps": 1e-8, "subspace_decay": 0.01}


def sania(name: str, rooted: bool, **more: Any) -> Make:
    return lambda known, params, problem: told(getattr(known, name)(list(params.values()), is_sqrt=rooted, eps=0.02, **more))


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
        threshold_clipping=0.3, weight_decay=0.1, beta_lookahead=0.6, lookahead_every_nth_iter=3, nb_iterations=21,
        nb_warmup_iterations=0.4 * 21, nb_warmdown_iterations=0.35 * 21, centralize_gradients=True, normalize_gradients=False,
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

            with _old_signatures():
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


COMPARISONS: tuple[Comparison, ...] = (
    Comparison("saniaadam-squares", SANIA, ("SANIA/sania_adam_sqr.py",), sania("SANIA_AdamSQR", False, betas=(0.9, 0.9))),
    Comparison("saniaadam-roots", SANIA, ("SANIA/sania_adam_sqr.py",), sania("SANIA_AdamSQR", True, betas=(0.9, 0.9))),
    Comparison("saniaadagrad-squares", SANIA, ("SANIA/sania_adagrad_sqr.py",), sania("SANIA_AdagradSQR", False)),
    Comparison("saniaadagrad-roots", SANIA, ("SANIA/sania_adagrad_sqr.py",), sania("SANIA_AdagradSQR", True)),
    Comparison("sgdhd-plain", HD, ("hypergrad/sgd_hd.py",), lambda known, params, _: as_before(
        known.SGDHD(list(params.values()), lr=0.02, hypergrad_lr=0.01, momentum=0.5, weight_decay=0.1))),
    # theirs moves lr tensor by tensor, ours once for all: the same for one tensor
    Comparison("adamhd-plain", HD, ("hypergrad/adam_hd.py",), lambda known, params, _: as_before(
        known.AdamHD(list(params.values()), hypergrad_lr=0.01, **ADAMW)), shapes=("matrix",)),
    Comparison("sps", SPS, ("sps/sps.py",), lambda known, params, _: polyak(
        known.Sps(list(params.values()), c=0.7, eta_max=0.15, adapt_flag="constant", fstar_flag=True, eps=0.5), 1.5)),
    Comparison("spssmooth", SPS, ("sps/sps.py",), lambda known, params, _: polyak(
        known.Sps(list(params.values()), n_batches_per_epoch=10, init_step_size=0.03, c=0.7, gamma=3.0, eps=0.5), None)),
    Comparison("adamcm", "chandar-lab/CMOptimizer", ("cmoptimizer/prioritydict.py", "cmoptimizer/optim.py"), lambda known, params, _:
        known.Adam_CM(list(params.values()), decay=0.9, topC=3, **ADAMW)),
    Comparison("inducedmetric", METRICS, OPTIMISERS, lambda known, params, _: metric(known.CustomSGD(list(params.values()), **METRIC))),
    Comparison("inducedmetriclog", METRICS, OPTIMISERS, lambda known, params, _: metric(
        known.CustomSGDLog(list(params.values()), **METRIC))),
    Comparison("inducedmetricrms", METRICS, OPTIMISERS, lambda known, params, _: metric(
        known.CustomSGDRMS(list(params.values()), beta_rms=0.95, eps=0.1, **METRIC))),
    Comparison("randomscaledmomentum", "ZQZCalin/trainit", PIPELINE, lambda known, params, _: randomly_scaled(
        known.Sgdm(list(params.values()), lr=0.03, beta=0.8, weight_decay=0.1, random_scaling=True), "randomscaledmomentum")),
    Comparison("randomscaledadamw", "ZQZCalin/trainit", PIPELINE, lambda known, params, _: randomly_scaled(
        known.Adam(list(params.values()), lr=0.03, b1=0.8, b2=0.95, wd=0.1, eps=1e-2, random_scaling=True), "randomscaledadamw")),
    Comparison("smb", "sibirbil/SMB", ("source/smbsolve/smb.py",), lambda known, params, problem: model_building(
        known.SMB(list(params.values()), lr=0.5, eta=0.7, c=0.22), params, problem)),
    Comparison("mezo", "princeton-nlp/MeZO", ("large_models/trainer.py",), lambda known, params, problem: Walker(
        known.OurTrainer, params, problem, lr=0.01, eps=0.2, weight_decay=0.1)),
    Comparison("frugal-signs", "fzmushko/FRUGAL", SUBSPACES, lambda known, params, problem: frugal(known, params, problem)),
    Comparison("frugal-gradient", "fzmushko/FRUGAL", SUBSPACES, lambda known, params, problem: frugal(
        known, params, problem, inactive_update_rule="sgd")),
    Comparison("onlinesubspacedescent", "kyleliang919/Online-Subspace-Descent", ("galore_torch/galore_projector.py",
        "galore_torch/adamw.py"), following, changes=FOLLOWED),
    Comparison("frugalcolumns-signs", "fzmushko/FRUGAL", COLUMNS, Columns, shapes=("matrix", "square")),
    Comparison("frugalcolumns-gradient", "fzmushko/FRUGAL", COLUMNS, lambda known, params, problem: Columns(
        known, params, problem, inactive_update_rule="sgd"), shapes=("matrix", "square")),
    Comparison("dion", "microsoft/dion", ("dion/dion_simple.py",), dion, shapes=("matrix", "square")),
    Comparison("dctadamw-still", WAVES, FFT, in_waves, shapes=("square",)),
    # their reset of the momentum comes a step late, so that only what is before the second subspace is compared
    Comparison("subspacemomentum", SUBSETS, GENERIC, lambda known, params, _: generic(
        known, params, "sm", betas=(0.8, 0.95), weight_decay=0.1),
        changes={"period": 50}),
    Comparison("adagradsubsetnorm", SUBSETS, GENERIC, lambda known, params, _: generic(
        known, params, "none", betas=(0.0, 1.0), correct_bias=False), changes={"lr": 0.03, "initial": 0.0, "eps": 1e-2},
        shapes=("matrix", "zero", "wide", "square")),
    Comparison("powersign", "achaiah/pywick", ("pywick/optimizers/powersign.py",), lambda known, params, _: as_before(
        known.PowerSign(list(params.values()), lr=0.05, beta=0.8, alpha=2.0, sign_internal_decay=lambda step: 0.7))),
    Comparison("addsign", "achaiah/pywick", ("pywick/optimizers/addsign.py",), lambda known, params, _: as_before(
        known.AddSign(list(params.values()), lr=0.05, beta=0.8, alpha=1.3, sign_internal_decay=lambda step: 0.7))),
    # their decay is a part of the gradient
    Comparison("adamomentum", "lavish619/AdaMomentum-Optimizer-Experiments", ("utils/optimizer.py",), lambda known, params, _:
        known.Adamomentum(list(params.values()), lr=0.03, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.0), changes={"weight_decay": 0.0}),
    # their pull does not grow, and their first buffer of the momentum within a round is the gradient itself, as ours
    Comparison("entropysgd-nesterov", "ucla-vision/entropy-sgd", ("python/optim.py",), Rounds, every=4,
        changes={"inner_lr": 0.1, "decay": 0.75, "noise": 0.0, "scoping": 0.0}),
    # their norm of a convolution's gradient is none of NumPy's
    Comparison("ranger21-plain", "nestordemeure/flaxOptimizers", ("flaxOptimizers/ranger21.py",), ranger,
        shapes=("matrix", "vector", "one", "zero", "wide")),
    Comparison("l2opa", "xhchrn/MS4L2O", ("optimizers/coord_math_lstm.py",), Structured),
    Comparison("innaprop", "innaprop/innaprop", ("classification/optimizers/innaprop.py",), lambda known, params, _: known.INNAprop(
        list(params.values()), lr=0.03, alpha=0.5, beta=0.7, sigma=0.9, eps=1e-2, weight_decay=0.1)),
    Comparison("zocoordinates", "OPTML-Group/DeepZero", ("algorithm/zoo/gradient_estimate.py",), from_masks),
    Comparison("unitadamw", "graphcore-research/unit-scaling", ("unit_scaling/optim.py",), unit_scaled),
    Comparison("adamwsubsetnorm-columns", "timmytonga/sn-sm", ("adamw_sn.py",), lambda known, params, _: by_rows_or_columns(known, params),
        shapes=("matrix", "zero", "wide", "square")),
)  # fmt: skip


def row_of(comparison: Comparison) -> Row:
    [row] = [row for row in library.ROWS if row.id == comparison.row]
    changed = replace(row, ours={**row.ours, **comparison.changes}, steps=comparison.steps, shapes=comparison.shapes or row.shapes)
    known = classes(comparison.repository, comparison.files)
    return replace(changed, theirs=lambda params, problem: comparison.make(known, params, problem))


def result(comparison: Comparison) -> dict[str, Any]:
    row = row_of(comparison)
    theirs = drive(row.theirs, row.problem, row.steps, row.closure)
    ours = library.run_ours(row)
    gap = (ours.weights - theirs.weights)[:: comparison.every].abs().max().item()
    return {
        "row": row.id, "rule": row.rule, "repository": comparison.repository, "commit": commit(comparison.repository),
        "files": comparison.files, "steps": row.steps, "shapes": row.shapes, "error": gap, "travel": theirs.travel,
        "tolerance": comparison.tolerance,
    }  # fmt: skip


def main() -> int:
    torch.set_default_dtype(torch.float64)
    rows, wrong = [], 0
    for comparison in COMPARISONS:
        found = result(comparison)
        fits = found["error"] <= comparison.tolerance and found["travel"] > 0.05
        wrong += not fits
        rows.append(found)
        print(f"{'' if fits else 'WRONG '}{found['row']}: {found['error']:.1e} over a way of {found['travel']:.2f}, {found['repository']}")
    about = {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), "torch": torch.__version__}
    if not wrong:
        RESULTS.write_text(json.dumps({**about, "machine": platform.machine(), "rows": rows}, indent=1) + "\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
