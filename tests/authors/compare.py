"""Our rules beside their authors' own code, which no package index has: `make authors FOLDER=…`.

FOLDER holds clones, OWNER+NAME each; after it may stand the rows to look at, of which nothing is kept. Nothing is installed: the
classes are taken out of the files of one commit. The settings and the closed loop are those of the row of `tests/test_library.py`
that a comparison names; the results are committed beside.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
import networks
import played
import test_library as library
from clones import classes, revision
from closed_loop import EVERYTHING, Problem, drive
from hands import (
    ADAMW,
    Columns,
    Rounds,
    Structured,
    Walker,
    as_before,
    by_rows_or_columns,
    dion,
    following,
    from_masks,
    frugal,
    generic,
    in_waves,
    metric,
    model_building,
    polyak,
    randomly_scaled,
    ranger,
    told,
    unit_scaled,
)  # fmt: skip
from references import Row
from references_learned import CODED
from references_reductions import A_DOG, LONG, Clients

RESULTS = Path(__file__).with_name("results.json")
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
    at: str = "HEAD"
    loop: Callable[[Any], Any] | None = None  # around ours, for that of the row
    idle: tuple[int, ...] = ()


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
    # a step without gradients leaves theirs with a step size of 0 for ever
    Comparison("spssmooth", SPS, ("sps/sps.py",), lambda known, params, _: polyak(
        known.Sps(list(params.values()), n_batches_per_epoch=10, init_step_size=0.03, c=0.7, gamma=5.0, eps=0.5), None)),
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
    # theirs divides by 0 where a tensor has no gradient
    Comparison("smb", "sibirbil/SMB", ("source/smbsolve/smb.py",), lambda known, params, problem: model_building(
        known.SMB(list(params.values()), lr=0.5, eta=0.7, c=0.1538), params, problem), shapes=EVERYTHING),
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
    Comparison("adagradsubsetnormlines", SUBSETS, GENERIC, lambda known, params, _: generic(
        known, params, "none", betas=(0.0, 1.0), correct_bias=False), changes={"lr": 0.03, "initial": 0.0, "eps": 1e-2},
        shapes=("matrix", "zero", "wide", "square")),
    *(Comparison(f"adagradsubsetnorm-k = {k}", SUBSETS, GENERIC, lambda known, params, _, k=k: generic(
        known, params, "none", k, betas=(0.0, 1.0), correct_bias=False), changes={"lr": 0.03, "initial": 0.0, "eps": 1e-2},
        shapes=("matrix", "conv", "wide", "square")) for k in (4, 7)),
    *(Comparison(f"adamwsubsetnorm-k = {k}", SUBSETS, ("adamw_sng.py",), lambda known, params, _, k=k: known.AdamWSN(
        list(params.values()), subset_size=k, lr=0.03, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1)) for k in (1, 4, 7)),
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
    # their norm of a convolution's gradient is none of NumPy's, and lr goes on below 0 after the last step
    Comparison("ranger21-plain", "nestordemeure/flaxOptimizers", ("flaxOptimizers/ranger21.py",), ranger,
        shapes=("matrix", "vector", "one", "zero", "wide"), steps=17),
    Comparison("l2opa", "xhchrn/MS4L2O", ("optimizers/coord_math_lstm.py",), Structured),
    Comparison("innaprop", "innaprop/innaprop", ("classification/optimizers/innaprop.py",), lambda known, params, _: known.INNAprop(
        list(params.values()), lr=0.03, alpha=0.5, beta=0.7, sigma=0.9, eps=1e-2, weight_decay=0.1)),
    Comparison("zocoordinates", "OPTML-Group/DeepZero", ("algorithm/zoo/gradient_estimate.py",), from_masks),
    Comparison("unitadamw", "graphcore-research/unit-scaling", ("unit_scaling/optim.py",), unit_scaled),
    Comparison("adamwsubsetnormlines-columns", SUBSETS, ("adamw_sn.py",), lambda known, params, _: by_rows_or_columns(known, params),
        shapes=("matrix", "zero", "wide", "square")),
    # their script sends a server's step sizes to no client: what stands behind its `local_lr = []` is run alone
    Comparison("fedhyperg", played.FED, ("src/federated_main.py",), lambda known, params, problem: played.Server(
        params, problem, "FedHyper-G", first=0.1), changes={"lr": 1.0, "low": -0.8, "high": 4.0}, loop=Clients),
    Comparison("fedhypersl", played.FED, ("src/federated_main.py",), lambda known, params, problem: played.Server(
        params, problem, "FedHyper-SL", lr=0.05, first=0.1), changes={"lr": 1.0, "client": 0.05, "low": 0.001, "high": 0.1}),
    Comparison("fedhypercl", played.FED, ("src/update.py",), played.Client,
        changes={"momentum": 0.5, "share": 0.1 / 2.5, "growth": 1.1, "low": 0.1, "high": 10.0}),
    Comparison("oasismomentum", "fxrshed/ScaledSPS", ("utils.py",), played.Metric),
    # their step alone: estimates are those of Hutch in fxrshed/ScaledSPS
    Comparison("oasis", "bogdantoader/simplecryoem", ("src/simplecryoem/optimization/oasis.py",), lambda known, params, problem:
        played.Adaptive(known, classes("fxrshed/ScaledSPS", ("utils.py",)), params, problem)),
    # theirs leaves all tensors but the first out of its first step
    Comparison("loraggpo-estimated", "kohya-ss/sd-scripts", ("networks/lora_flux.py",), played.Shaken),
    *(Comparison(f"adog-{row}", "ittaikr/open_lm_fork", ("accele_dog.py",), partial(played.accelerated, **settings), shapes=("conv",),
        at="e9075e820e3d74ba6fc444a65a1953e35de591ad") for row, settings in (
            ("near", {**A_DOG, "opt_ver": 3}), ("long", {**LONG, "opt_ver": 3}), ("halved", LONG))),
    Comparison("trion-original", WAVES, (*FFT[:2], "ista_daslab_optimizers/fft_low_rank/trion.py"), lambda known, params, problem:
        played.trion(known, params, problem, "kj"), changes={"steps": 5}, shapes=("matrix", "square")),
    Comparison("trion-rms", WAVES, (*FFT[:2], "ista_daslab_optimizers/fft_low_rank/trion.py"), lambda known, params, problem:
        played.trion(known, params, problem, "kimi"), changes={"steps": 5}, shapes=("matrix", "square")),
    Comparison("optimisticamsgrad-coded", "Hintonthu/optimistic-amsgrad", ("Optadam_torch.py",), played.Guessing),
    Comparison("mtdao-corrected", "Iacob-Alexandru-Andrei/torchtitan", ("torchtitan/experiments/fl/optimizers/_decoupled_decay.py",
        "torchtitan/experiments/fl/optimizers/qhadamw.py"), played.worker, at="0de3ecbc781f63ba6e89a5a64c2222b35560ae1d"),
    # theirs takes tensors of more than two dimensions by their two largest
    Comparison("perparametermlp", networks.GOOGLE, (f"{networks.FOLDER}/adafac_mlp_lopt.py", f"{networks.FOLDER}/common.py"),
        networks.per_parameter, shapes=("matrix", "vector", "one", "wide", "square", "still", "level", "calm")),
    Comparison("mulo", "bentherien/mu_learned_optimization", ("src/mup_adafac_mlp_lopt.py",), networks.by_width,
        shapes=("matrix", "vector", "head", "still", "level", "calm")),
    Comparison("zoranksgd-coded", "TZW1998/Taming-Stable-Diffusion-with-Human-Ranking-Feedback", ("optimizer.py",),
        lambda known, params, problem: played.Ranked(known, params, problem, **CODED)),
)  # fmt: skip


def row_of(comparison: Comparison) -> Row:
    [row] = [row for row in library.ROWS if row.id == comparison.row]
    changed = replace(row, ours={**row.ours, **comparison.changes}, steps=comparison.steps, shapes=comparison.shapes or row.shapes,
                      loop=comparison.loop or row.loop, idle=comparison.idle)  # fmt: skip
    known = classes(comparison.repository, comparison.files, comparison.at)
    return replace(changed, theirs=lambda params, problem: comparison.make(known, params, problem))


def result(comparison: Comparison) -> dict[str, Any]:
    row = row_of(comparison)
    theirs = drive(row.theirs, row.problem, row.steps, row.closure)
    ours = library.run_ours(row)
    gap = (ours.weights - theirs.weights)[:: comparison.every].abs().max().item()
    return {
        "row": row.id, "rule": row.rule, "repository": comparison.repository,
        "commit": revision(comparison.repository, comparison.at),
        "files": comparison.files, "steps": row.steps, "shapes": row.shapes, "error": gap, "travel": theirs.travel,
        "tolerance": comparison.tolerance,
    }  # fmt: skip


def main() -> int:
    torch.set_default_dtype(torch.float64)
    rows, wrong, chosen = [], 0, sys.argv[2:]
    for comparison in [c for c in COMPARISONS if not chosen or c.row in chosen]:
        found = result(comparison)
        fits = found["error"] <= comparison.tolerance and found["travel"] > 0.05
        wrong += not fits
        rows.append(found)
        print(f"{'' if fits else 'WRONG '}{found['row']}: {found['error']:.1e} over a way of {found['travel']:.2f}, {found['repository']}")
    about = {"date": datetime.now(UTC).date().isoformat(), "python": platform.python_version(), "torch": torch.__version__}
    if not wrong and not chosen:
        RESULTS.write_text(json.dumps({**about, "machine": platform.machine(), "rows": rows}, indent=1) + "\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
