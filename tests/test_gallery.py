"""`library/README.md` is made from the rules themselves; `python tests/test_gallery.py` writes it anew. (30 s)"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from gallery import page
from gallery_facts import found_for, gathered, relative, stored

import optlang
from optlang import library

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "library" / "README.md"
AGAINST = {  # the implementation that tests/test_library.py takes the same steps as
    "adabelief": "adabelief-pytorch", "adadelta": "torch.optim.Adadelta", "adafactor": "torch.optim.Adafactor",
    "adagrad": "torch.optim.Adagrad", "adam": "torch.optim.Adam", "adamax": "torch.optim.Adamax", "adamw": "torch.optim.AdamW",
    "amsgrad": "torch.optim.Adam(amsgrad=True)", "lamb": "timm's Lamb", "lars": "pytorch_optimizer's LARS", "lion": "lion-pytorch",
    "lookahead": "pytorch_optimizer's Lookahead around torch's AdamW", "momentum": "torch.optim.SGD",
    "muon": "torch.optim.Muon, its cast to bfloat16 left out", "muonwithadamw": "torch.optim.Muon and AdamW",
    "nadam": "torch.optim.NAdam", "nesterov": "torch.optim.SGD(nesterov=True)", "radam": "torch.optim.RAdam",
    "rmsprop": "torch.optim.RMSprop", "rprop": "torch.optim.Rprop", "sam": "two passes by hand around torch's AdamW",
    "schedulefreeadamw": "schedulefree's AdamWScheduleFree", "sgd": "torch.optim.SGD", "signsgd": "pytorch_optimizer's SignSGD",
    "signum": "pytorch_optimizer's SignSGD", "sophiah": "pytorch_optimizer's SophiaH, given the exact diagonal of a Hessian",
    "sgdw": "pytorch_optimizer's SGDW",
    "gravity": "pytorch_optimizer's Gravity, given our first velocities",
    "randomscaledmomentum": "the transcription of the paper in `tests/by_hand.py`, given our draws",
    "randomscaledadamw": "torch.optim.AdamW, its lr times our draws",
    "xgradmomentum": "torch.optim.SGD, moved to the predicted weights by hand",
    "tiger": "pytorch_optimizer's Tiger",
    "powersign": "the transcription of the paper in `tests/by_hand.py`",
    "addsign": "the transcription of the paper in `tests/by_hand.py`",
    "lionp": "lion-pytorch with the map of adv_optm",
    "lionhuber": "lion-pytorch with torch's hardtanh for its sign",
    "liondeadzone": "lion-pytorch with torch's hardshrink before its sign",
    "liontopk": "lion-pytorch with torch's topk before its sign",
    "cautiouslion": "pytorch_optimizer's Lion(cautious=True)",
    "adagradnorm": "torch.optim.Adagrad on norms of gradients",
    "adagradsubsetnorm": "the transcription of the paper in `tests/by_hand.py`",
    "adagradsubsetnormlines": "the transcription of the paper in `tests/by_hand.py`",
    "adamwsubsetnorm": "pytorch_optimizer's AdamWSN; for one subset, the transcription of the paper in `tests/by_hand.py`",
    "adamwsubsetnormlines": "pytorch_optimizer's AdamWSN and, for columns, the transcription of the paper in `tests/by_hand.py`",
    "rmsproptf": "timm's RMSpropTF",
    "nadamw": "timm's NAdamW, that of AlgoPerf",
    "yogi": "pytorch_optimizer's Yogi(weight_decouple=False)",
    "adabound": "pytorch_optimizer's AdaBound(weight_decouple=False)",
    "amsbound": "pytorch_optimizer's AdaBound(weight_decouple=False, ams_bound=True)",
    "adamomentum": "the transcription of the paper in `tests/by_hand.py`",
    "diffgrad": "pytorch_optimizer's DiffGrad(weight_decouple=False)",
    "grams": "pytorch_optimizer's Grams",
    "cautiousadamw": "pytorch_optimizer's AdEMAMix(alpha=0, cautious=True); by_mean: timm's AdamW(caution=True)",
    "ademamix": "pytorch_optimizer's AdEMAMix",
    "adan": "pytorch_optimizer's Adan",
    "adopt": "torch-adopt",
    "qhadam": "qhoptim's QHAdam",
    "laprop": "timm's LaProp",
    "stableadamw": "torch-optimi's StableAdamW",
    "marsadamw": "timm's Mars",
    "marsadamwexact": "timm's Mars, told the gradients at the last weights",
    "marslion": "pytorch_optimizer's MARS; without anew: timm's Mars",
    "marslionexact": "timm's Mars, told the gradients at the last weights",
    "marsshampoo": "pytorch_optimizer's MARS, its cast to bfloat16 left out; without anew: the transcription of the "
    "paper in `tests/by_hand.py`",
    "core": "core-optimizer",
    "corefrozen": "core-optimizer",
    "innaprop": "the transcription of the paper in `tests/by_hand.py`",
    "sophiag": "sophia-opt",
    "adamcm": "the transcription of the paper in `tests/by_hand.py`",
    "optimisticamsgrad": "the transcription of the paper in `tests/by_hand.py`",
    "xgradadamw": "torch.optim.AdamW, moved to the predicted weights by hand",
    "swats": "pytorch_optimizer's SWATS with the paper's test; several tensors: the transcription of the paper in `tests/by_hand.py`",
    "schedulefreesgd": "schedulefree's SGDScheduleFree", "prodigy": "prodigyopt", "dadaptadam": "dadaptation's DAdaptAdam",
    "adamp": "adamp's AdamP", "sgdp": "pytorch_optimizer's SGDP",
    "sgdsai": "sgd-sai; for single numbers, the transcription of the paper in `tests/by_hand_reductions.py`",
    "dog": "dog-optimizer's DoG",
    "ldog": "dog-optimizer's LDoG",
    "adog": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "udog": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "dowg": "dowgopt's DoWG",
    "cdowg": "dowgopt's CDoWG, told the first squared distance",
    "dadaptsgd": "dadaptation's DAdaptSGD",
    "sps": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "spssmooth": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "alig": "pytorch_optimizer's AliG; eps: the transcription of the paper in `tests/by_hand_reductions.py`",
    "saniaadam": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "saniaadagrad": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "inducedmetric": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "inducedmetriclog": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "inducedmetricrms": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "sgdhd": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "adamhd": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "fedhyperg": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "fedhypercl": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "fedhypersl": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "adahessian": "pytorch_optimizer's AdaHessian, given the exact diagonal of a Hessian, averaged over kernels as its authors do",
    "novograd": "pytorch_optimizer's NovoGrad",
    "oasis": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "oasismomentum": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "loraggpo": "the transcription of the paper in `tests/by_hand_reductions.py`, given our draws",
    "asam": "two passes by hand around torch's AdamW",
    "ranger21": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "gam": "four passes by hand around torch's AdamW",
    "awp": "two passes by hand around torch.optim.SGD",
    "entropysgd": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "localsgd": "torch.optim.SGD in rounds by hand",
    "mtdao": "the transcription of the paper in `tests/by_hand_reductions.py`",
    "adadagrad": "torch.optim.Adagrad in growing batches by hand",
    "adadagradnorm": "torch.optim.Adagrad on norms of gradients, in growing batches by hand",
    "trustregionspectral": "torch.optim.Muon with coefficients that converge, its cast to bfloat16 and its scale left out",
    "trustregionmax": "pytorch_optimizer's SignSGD",
    "trustregionfrobenius": "pytorch_optimizer's SCION by rows, each tensor one row, with our eps",
    "trustregionrows": "pytorch_optimizer's SCION by rows, with our eps",
    "trustregioncolumns": "pytorch_optimizer's SCION by columns, in our units and with our eps",
    "scion": "pytorch_optimizer's SCION, its cast to bfloat16 left out", "scionsign": "pytorch_optimizer's SCION",
    "scionrows": "pytorch_optimizer's SCION", "scioncolumns": "pytorch_optimizer's SCION",
    "adafactororiginal": "the Adafactor of transformers that comes with galore-torch",
    "adalomo": "lomo-optim in float64; convolutions: the Adafactor of transformers that comes with galore-torch",
    "came": "came-pytorch",
    "sm3": "pytorch_optimizer's SM3; convolutions: the transcription of the paper in `tests/by_hand_matrix.py`",
    "shampoo": "pytorch_optimizer's Shampoo",
    "graftedshampoo": "pytorch_optimizer's ScalableShampoo with RMSprop's length",
    "soap": "pytorch_optimizer's SOAP, its cast to float32 left out",
    "galore": "galore-torch in float64, given our signs of singular vectors",
    "fira": "pytorch_optimizer's Fira in float64, given our signs of singular vectors and its authors' clock",
    "apollo": "apollo-torch in float64, given our projections", "apollomini": "apollo-torch in float64, given our projections",
    "frugal": "the transcription of the paper in `tests/by_hand_matrix.py`",
    "frugalcolumns": "the transcription of the paper in `tests/by_hand_matrix.py`, given our choices",
    "onlinesubspacedescent": "the transcription of the paper in `tests/by_hand_matrix.py`",
    "subspacemomentum": "the transcription of the paper in `tests/by_hand_matrix.py`",
    "dion": "the transcription of the paper in `tests/by_hand_matrix.py`, given our start",
    "dctadamw": "the transcription of the paper in `tests/by_hand_matrix.py`",
    "trion": "the transcription of the paper in `tests/by_hand_matrix.py`",
    "mezo": "the transcription of the paper in `tests/by_hand_learned.py`, given our draws",
    "zocoordinates": "the transcription of the paper in `tests/by_hand_learned.py`, given our draws",
    "zoranksgd": "the transcription of the paper in `tests/by_hand_learned.py`, given our draws",
    "smb": "the transcription of the paper in `tests/by_hand_learned.py`",
    "muadamw": "mup's MuAdam around torch's AdamW", "musgd": "mup's MuSGD",
    "unitadamw": "torch's AdamW, each parameter with the settings of the paper",
    "completepadamw": "torch's AdamW, each parameter with the settings of the paper",
    "schedulefreeradam": "schedulefree's RAdamScheduleFree",
    "marsshampooexact": "pytorch_optimizer's MARS, told the gradients at the last weights, its cast to bfloat16 left out",
    "perparametermlp": "the transcription of the paper in `tests/by_hand_learned.py`",
    "mulo": "the transcription of the paper in `tests/by_hand_learned.py`, its lr divided",
    "l2opa": "the transcription of the paper in `tests/by_hand_learned.py`",
    "fromage": "pytorch_optimizer's Fromage", "qhm": "pytorch_optimizer's QHM",
    "psgdkron": "kron-torch in float64, given our draws",
    "normuon": "pytorch_optimizer's NorMuon, its cast to bfloat16 left out; cautious: adv_optm's Muon_adv without casts",
    "normuonwithadamw": "pytorch_optimizer's NorMuon and torch's AdamW",
    "muonpolarexpress": "pytorch_optimizer's Muon(ns_coeffs='polar_express'), its cast to bfloat16 left out",
    "adamuon": "adv_optm's AdaMuon_adv without casts; without signs also pytorch_optimizer's AdaMuon, its cast to bfloat16 left out",
    "adamatan2": "adam-atan2-pytorch", "ano": "pytorch_optimizer's Ano",
    "bcos": "pytorch_optimizer's BCOS, given the mean of the step before",
    "kourkoutas": "adv_optm's AdamW_adv(kourkoutas_beta=True), given the norms of the step and the authors' warm-up by hand",
    "cautiousdecayadamw": "adv_optm's AdamW_adv(cautious_wd=True)", "cautiousdecaylion": "adv_optm's Lion_adv(cautious_wd=True)",
    "cautiousdecaymuon": "adv_optm's Muon_adv(cautious_wd=True) without casts; match_rms: torch.optim.Muon, decayed by hand",
    "splus": "pytorch_optimizer's SPlus in float64, given our signs of eigenvectors",
    "conda": "pytorch_optimizer's Conda in float64, given our signs of singular vectors",
    "stablespam": "pytorch_optimizer's StableSPAM", "madgrad": "pytorch_optimizer's MADGRAD, whose eps is taken off lr",
    "simplifiedademamix": "pytorch_optimizer's AdEMAMix, whose fast mean is the gradient, and lr and alpha for a sum",
    "adamc": "timm's AdamW(corrected_weight_decay=True)", "asgd": "torch.optim.ASGD",
}  # fmt: skip
ALONE = "the transcription"  # of a paper, and nothing else
AUTHORS = json.loads((ROOT / "tests" / "authors" / "results.json").read_text(encoding="utf-8"))["rows"]
ABSENT = """\
## What the language cannot say yet

* Optimistic AMSGrad's extrapolated guess solves a small system of products of the last gradients with each other, and the values of a
  window have no numbers; the guess is the last gradient.
* VeLO: a network of each tensor looks at all tensors, and has more weights than a table may. PerParameterMLP takes tensors of more than
  two dimensions element by element, its authors' code by their two largest dimensions.
* LoRA-Pro: a rule is of one parameter, and it is of the two factors of a matrix. LoRA-GGPO's noise is here; what is of both factors
  comes from the loop.
* MT-DAO with several slow means: means have no numbers, so that there is the one which its authors recommend. FedHyper's server with
  momentum stands only in its script.
* K-FAC: it needs the inputs of a layer and the gradients of its outputs, and an `input` has no sizes but those of the parameter.
* Exact Gauss-Newton: it needs the Jacobian of every sample, and solves in the space of samples.
* GAM's first form: `hvp` is at the weights, and that is at weights moved along it. The accelerated form of the authors' code is here.
* ZO-RankSGD with any number of points: draws have no numbers, so that four points are written out; its line search is the loop's.
* DeepZero's masks by layers: places in a parameter have no numbers, so that coordinates are drawn anew.
* FTRL-Proximal: weights are what sums of gradients say, and begin at zero; a model's own start would be lost in the first step.
* SMB's schedule of lr by the share of rebuilt steps is the loop's; so are the starts and the forward scales of muP, u-muP and CompleteP.
"""


def written() -> str:
    others = {name: _others(name) for name in AGAINST}
    return page(others, sum(not text.startswith(ALONE) for text in others.values()), ABSENT)


def _others(name: str) -> str:
    """The implementations that a rule takes the same steps as."""
    rows = [row for row in AUTHORS if row["rule"] == name]
    parts = ", ".join(row["row"].removeprefix(f"{name}-") for row in rows if row["row"] != name)
    own = [f"[{place}](https://github.com/{place})" for place in dict.fromkeys(row["repository"] for row in rows)]
    return " and ".join([*own[:-1], own[-1] + (f" ({parts})" if parts else ""), AGAINST[name]]) if own else AGAINST[name]


def test_the_page_is_that_of_the_rules() -> None:
    assert PAGE.read_text(encoding="utf-8") == written()


def test_what_authors_have_written_takes_the_same_steps() -> None:
    """Measured by `make authors` with clones of their repositories; here, that rules and rows are still those."""
    assert sum(_others(name).startswith(ALONE) for name in AGAINST) <= 0.05 * len(AGAINST)
    for row in AUTHORS:
        assert row["rule"] in library.names()
        assert row["error"] <= row["tolerance"] <= 1e-12 < 0.05 < row["travel"]


def test_every_rule_names_its_reference() -> None:
    assert set(AGAINST) == set(library.names())


@pytest.mark.parametrize("rule", library.names()[::12])
def test_what_is_stored_is_found_anew(rule: str) -> None:
    kept, known = stored()
    assert kept[rule] == found_for(rule)
    if kept[rule]["programs"].keys() == {optlang.Rule(rule).name}:
        assert relative(rule, {}) == relative(rule, known)


KNOWN = {  # what the field knows of them
    "adamw": (True, True, "elements"), "sgd": (False, True, "elements"), "lion": (True, True, "elements"),
    "muon": (True, True, "rows and columns"), "adafactor": (True, True, "rows and columns"), "sps": (True, True, "elements"),
    "lamb": (True, True, "elements"), "sam": (True, True, "elements"),
}  # fmt: skip


@pytest.mark.parametrize("rule", KNOWN)
def test_known_invariances(rule: str) -> None:
    [facts] = stored()[0][rule]["programs"].values()
    assert (facts["scale"], facts["sign"], facts["order"]) == KNOWN[rule]


def test_known_costs_and_relatives() -> None:
    facts = gathered()
    [adamw], [sam], [sophia] = (facts[name]["programs"].values() for name in ("adamw", "sam", "sophiah"))
    assert (adamw["kept"], adamw["moved"], adamw["passes"], adamw["gradients"]) == (8, 28, 1, 1)
    assert sam["gradients"] == 2 and sophia["products"] == 0.1
    assert {name: facts[name]["relative"]["of"] for name in ("adamw", "adabelief", "amsgrad", "cautiouslion")} == {
        "adamw": "adam", "adabelief": "adamw", "amsgrad": "adam", "cautiouslion": "lion",
    }  # fmt: skip


if __name__ == "__main__":
    gathered(store=True)
    PAGE.write_text(written(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)
