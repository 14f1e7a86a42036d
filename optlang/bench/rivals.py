"""Other packages' optimizers that take the steps of a rule under another name, or with settings that are not their defaults.

Where a package has a class of the rule's name that does so as it comes, nothing need stand here: see `contestants`. Settings are those that
make its state and arithmetic the rule's, at the rule's defaults; that steps are the same is for the tests of the library to say.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class Rival:
    """`of`: module and class. `group`: settings that it only takes beside parameters; `around`: it wraps torch's fused AdamW."""

    package: str
    of: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: Mapping[str, Any] = field(default_factory=dict)
    around: bool = False

    def found(self) -> type[Optimizer] | None:
        """Its class; None where the package is not installed."""
        module, name = self.of.split(":")
        try:
            found: type[Optimizer] = getattr(importlib.import_module(module), name)
        except ImportError:
            return None
        return found


def _po(name: str, group: Mapping[str, Any] | None = None, **settings: Any) -> Rival:
    return Rival("pytorch_optimizer", f"pytorch_optimizer:{name}", settings, group or {})


def _torch(name: str, **settings: Any) -> Rival:
    return Rival("torch", f"torch.optim:{name}", settings)


def _own(package: str, of: str, **settings: Any) -> Rival:
    return Rival(package, of, settings)


LOW_RANK = {"update_proj_gap": 200, "projection_type": "std"}
RIVALS: Mapping[str, Sequence[Rival]] = {
    "Momentum": [_torch("SGD", momentum=0.9), _own("optimi", "optimi:SGD", momentum=0.9), _own("heavyball", "heavyball:SGD")],
    "Nesterov": [_torch("SGD", momentum=0.9, nesterov=True)],
    "SGDW": [_po("SGDW", momentum=0.9)],
    "QHM": [_po("QHM", momentum=0.999, nu=0.7), _own("qhoptim", "qhoptim.pyt:QHM", momentum=0.999, nu=0.7)],
    "SignSGD": [_po("SignSGD", momentum=0.0)],
    "Signum": [_po("SignSGD")],
    "CautiousLion": [_po("Lion", {"cautious": True})],
    "MARSLion": [_po("MARS", mars_type="lion", optimize_1d=True)],
    "CoRe": [_own("core-optimizer", "core_optimizer:CoRe")],
    "AMSGrad": [_torch("Adam", amsgrad=True)],
    "AMSBound": [_po("AdaBound", ams_bound=True)],
    "AdaBelief": [_own("adabelief-pytorch", "adabelief_pytorch:AdaBelief", rectify=False, print_change_log=False)],
    "AdamWSubsetNorm": [_po("AdamWSN", {"sn": True}, subset_size=64)],
    "ADOPT": [_own("torch-adopt", "adopt:ADOPT")],
    "QHAdam": [_own("qhoptim", "qhoptim.pyt:QHAdam")],
    "MARSAdamW": [_po("MARS", optimize_1d=True)],
    "Prodigy": [_own("prodigyopt", "prodigyopt:Prodigy")],
    "DAdaptAdam": [_own("dadaptation", "dadaptation:DAdaptAdam")],
    "DAdaptSGD": [_own("dadaptation", "dadaptation:DAdaptSGD", momentum=0.0), _po("DAdaptSGD", momentum=0.0)],
    "DoG": [_own("dog-optimizer", "dog:DoG")],
    "LDoG": [_own("dog-optimizer", "dog:LDoG")],
    "DoWG": [_own("dowgopt", "dowg:DoWG")],
    "CDoWG": [_own("dowgopt", "dowg:CDoWG")],
    "LAMB": [_po("Lamb", max_grad_norm=0.0)],
    "AdamP": [_own("adamp", "adamp:AdamP")],
    "SGDP": [_own("adamp", "adamp:SGDP")],
    "SGDSaI": [_own("sgd-sai", "sgd_sai:SGD_sai")],
    "Lookahead": [Rival("pytorch_optimizer", "pytorch_optimizer:Lookahead", around=True)],
    "Ranger21": [_po("Ranger21", num_iterations=100_000)],
    "ScheduleFreeAdamW": [_own("schedulefree", "schedulefree:AdamWScheduleFree")],
    "ScheduleFreeRAdam": [_own("schedulefree", "schedulefree:RAdamScheduleFree")],
    "ScheduleFreeSGD": [_own("schedulefree", "schedulefree:SGDScheduleFree")],
    "AdafactorOriginal": [_own("transformers", "transformers.optimization:Adafactor", lr=None),
                          _po("AdaFactor", betas=(None, 0.999), lr=None)],
    "CAME": [_own("came-pytorch", "came_pytorch:CAME")],
    "SM3": [_po("SM3", momentum=0.9)],
    "Scion": [_po("SCION", constraint=True)],
    "GaLore": [_po("GaLore", {"rank": 128, "scale": 0.25, **LOW_RANK})],
    "Fira": [_po("Fira", {"rank": 128, "scale": 0.25, **LOW_RANK})],
    "APOLLO": [_po("APOLLO", {"rank": 256, "scale": 1.0, **LOW_RANK, "projection_type": "random"}, scale_type="channel")],
    "GraftedShampoo": [_po("ScalableShampoo", block_size=8192, shape_interpretation=False, graft_type=3)],
    "SOAP": [_own("heavyball", "heavyball:SOAP", precondition_frequency=10, max_precond_dim=10_000, merge_dims=False)],
    "PSGDKron": [_own("kron-torch", "kron_torch:Kron"), _po("Kron")],
    "Muon": [_po("Muon", {"use_muon": True})],
    "SAM": [_po("SAM", base_optimizer=torch.optim.AdamW, fused=True)],
    "AdamC": [_po("AdamC", weight_decay=0.01)],
    "MARSShampoo": [_po("MARS", mars_type="shampoo")],
}  # fmt: skip
