"""What the field has published, name by name: which rules, definitions and settings of the library it is, and how hard each is tested."""

from __future__ import annotations

import math

import pytest
from closed_loop import AT_REST, SHAPES
from references import SCHEDULES, Row
from test_library import DEFINITIONS, RULES

import optlang
from optlang import ir, library

# A name of the field: rules by their files, definitions of std.opt after a dot, a setting of the rule before it in brackets.
SHELF: dict[str, dict[str, str]] = {
    "SGD and sign": {
        "SGD": "sgd", "ASGD": "asgd", "Momentum": "momentum", "Nesterov": "nesterov", "SGDW": "sgdw", "SignSGD": "signsgd",
        "Signum": "signum", "Tiger": "tiger", "Rprop": "rprop", "PowerSign": "powersign", "AddSign": "addsign", "Lion": "lion",
        "cautious decay": "cautiousdecaylion cautiousdecayadamw cautiousdecaymuon",
        "Lion-K family": "lionp lionhuber liondeadzone liontopk", "Gravity": "gravity",
        "random-scaling SGDM and AdamW": "randomscaledmomentum randomscaledadamw",
    },
    "accumulators": {
        "Adagrad": "adagrad", "AdaGrad-Norm": "adagradnorm", "RMSprop, all modes": "rmsprop [centered] [momentum] rmsproptf [centered]",
        "Subset-Norm": "adagradsubsetnorm adagradsubsetnormlines adamwsubsetnorm adamwsubsetnormlines", "Adadelta": "adadelta",
        "MADGRAD": "madgrad",
    },
    "Adam family": {
        "Adam": "adam", "AdamW": "adamw", "AMSGrad": "amsgrad", "AdaMax": "adamax", "NAdam": "nadam", "NAdamW": "nadamw", "RAdam": "radam",
        "Yogi": "yogi", "AdaBelief": "adabelief", "AdaBound": "adabound", "AMSBound": "amsbound", "AdaMomentum": "adamomentum",
        "diffGrad": "diffgrad", "Grams": "grams", "cautious AdamW and Lion": "cautiousadamw cautiouslion",
        "AdEMAMix with its schedules": "ademamix [warmup]", "Adan": "adan", "ADOPT": "adopt", "QHAdam": "qhadam", "LaProp": "laprop",
        "StableAdamW": "stableadamw", "MARS, approximate": "marsadamw marslion marsshampoo",
        "MARS, exact": "marsadamwexact marslionexact marsshampooexact", "CoRe": "core corefrozen", "INNAprop": "innaprop",
        "Sophia-H and -G": "sophiah sophiag", "Adam with critical momenta": "adamcm", "optimistic AMSGrad": "optimisticamsgrad",
        "XGrad": "xgradadamw xgradmomentum", "SWATS": "swats",
        "simplified AdEMAMix": "simplifiedademamix", "Stable-SPAM": "stablespam", "AdamC": "adamc",
    },
    "layer-wise and projections": {
        "LARS": "lars", "LAMB": "lamb", "AdamP": "adamp", "SGDP": "sgdp", "SGD-SaI": "sgdsai",
    },
    "without a learning rate, loss-aware": {
        "DoG": "dog", "LDoG": "ldog", "U-DoG": "udog adog", "DoWG": "dowg cdowg", "D-Adaptation SGD and Adam": "dadaptsgd dadaptadam",
        "Prodigy": "prodigy", "stochastic Polyak": "sps spssmooth", "ALI-G": "alig", "SANIA": "saniaadam saniaadagrad",
        "OASIS": "oasis oasismomentum", "SMB": "smb", "hypergradient descent": "sgdhd adamhd",
        "FedHyper": "fedhyperg fedhypersl fedhypercl", "induced-metric optimizers": "inducedmetric inducedmetriclog inducedmetricrms",
    },
    "transforms": {
        "global-norm clipping": ".clip_global .clip_global_max", "value clipping": ".clip_value",
        "coordinate-wise clipping": ".clip_quantile",
        "AutoClip": ".autoclip", "AGC": ".agc", "median-gradient clipping": ".median_global .median_elements .median_huber",
        "Fira's norm-growth limiter": ".limit_growth", "centralisation": ".centralize", "gradient noise": ".gradient_noise",
        "Grokfast, both filters": ".grokfast .grokfast_mean", "GSNR scaling": ".scale_by_agreement",
    },
    "wrappers and averages": {
        "Lookahead": "lookahead", "EMA": ".weights_ema .weights_ema_debiased", "Polyak": ".weights_mean .weights_polynomial",
        "SWA": ".weights_swa", "Schedule-Free": "schedulefreesgd schedulefreeadamw schedulefreeradam", "SAM": "sam", "ASAM": "asam",
        "GAM": "gam", "AWP": "awp", "LoRA-GGPO": "loraggpo", "Entropy-SGD": "entropysgd", "Ranger21": "ranger21",
    },
    "distributed clocks": {
        "Local SGD with QSR": "localsgd", "MT-DAO": "mtdao", "batch-size rules": "adadagrad adadagradnorm",
    },
    "schedules": {
        "constant": ".constant", "warm-up": ".linear_warmup .warmup_cosine .warmup_explore_exploit", "linear": ".linear_decay",
        "polynomial": ".polynomial_decay", "cosine": ".cosine", "SGDR": ".sgdr",
        "WSD": ".wsd .wsd_sqrt .wsd_square .wsd_cosine .wsd_exponential", "Power": ".power_law",
        "CLR": ".cyclic .cyclic_halving .cyclic_exponential",
        "1cycle": ".onecycle .onecycle_momentum .onecycle_linear .onecycle_linear_momentum", "cosine power": ".cosine_power",
        "inverse square root": ".inverse_sqrt .inverse_sqrt_width .inverse_sqrt_t5", "explore-exploit": ".explore_exploit",
        "refined from gradient norms": ".refined",
    },
    "scaling": {
        "muP": "muadamw musgd .mup_hidden .mup_hidden_sgd .mup_growth", "u-muP": "unitadamw .umup_hidden .umup_vector",
        "CompleteP": "completepadamw .completep_hidden .completep_vector",
    },
    "matrix and factored": {
        "Muon of Jordan, torch, Moonlight": "muon [nesterov] [match_rms] muonwithadamw",
        "NorMuon, in code, in the paper, with cautious decay": "normuon [match_rms] [cautious] normuonwithadamw",
        "AdaMuon, both forms": "adamuon [signs]", "Muon with Polar Express": "muonpolarexpress", "SPlus": "splus", "Conda": "conda",
        "orthogonalised trust region": "trustregionspectral", "general-norm trust regions": "trustregionmax trustregionfrobenius "
        "trustregionrows trustregioncolumns", "Shampoo": "shampoo graftedshampoo", "SOAP": "soap",
        "Adafactor": "adafactor adafactororiginal", "AdaLomo": "adalomo", "CAME": "came", "SM3": "sm3", "GaLore": "galore", "Fira": "fira",
        "FRUGAL": "frugal frugalcolumns", "online subspace descent": "onlinesubspacedescent", "DCT low-rank": "dctadamw trion",
        "subspace momentum": "subspacemomentum", "APOLLO": "apollo apollomini",
    },
    "learned and zeroth-order": {
        "per-parameter MLP": "perparametermlp", "muLO": "mulo", "structured L2O": "l2opa", "two-point, by a seed": "mezo",
        "coordinate-wise": "zocoordinates", "ZO-RankSGD": "zoranksgd",
    },
}  # fmt: skip
BEYOND = {  # found on the way, or asked for
    "adahessian", "adamatan2", "ano", "bcos", "dion", "fromage", "kourkoutas", "novograd", "psgdkron", "qhm", "scion", "scioncolumns",
    "scionrows", "scionsign",
}  # fmt: skip
CLOCKS = {"localsgd": {"sync"}, "mtdao": {"sync_w", "sync_u", "sync_v"}, "adadagrad": {"batch"}, "adadagradnorm": {"batch"}}


def words() -> list[str]:
    return " ".join(said for names in SHELF.values() for said in names.values()).split()


def test_every_name_of_the_field_is_in_the_library_and_nothing_else_is_untold() -> None:
    rules = [word for word in words() if word[0] not in ".["]
    assert len(rules) == len(set(rules))
    assert set(rules) | BEYOND == set(library.names()) and not set(rules) & BEYOND


def test_every_definition_named_is_compared_with_an_implementation() -> None:
    compared = " ".join([*(row.text for row in DEFINITIONS), *(schedule.call for schedule in SCHEDULES)])
    in_rules = {"mup", "umup", "completep"}  # which are compared as rules, by fan-in, fan-out and depth
    for word in words():
        if word[0] == "." and word[1:].split("_")[0] not in in_rules:
            assert f"{word[1:]}(" in compared, word


def test_modes_are_compared_one_by_one() -> None:
    rule = ""
    for word in words():
        if word[0] == "[":
            taken = {row.ours.get(word[1:-1], "the default") for row in RULES if row.rule == rule}
            assert taken - {"the default"}, f"{rule} {word}"
        else:
            rule = word


@pytest.mark.parametrize("rule", CLOCKS)
def test_the_loop_can_read_the_clocks(rule: str) -> None:
    program = optlang.Rule(rule).program
    assert isinstance(program, ir.Program)
    assert set(program.reports or ()) == CLOCKS[rule]


# ------------------------------------------------------------------------------------------------ how hard the rows are

SIZE = "eps is added to the size of the step, too, on one side"
COARSE = {"alig-theirs": "its norm is in float32", "normuon-cautious": SIZE, "normuonwithadamw-cautious": SIZE, "adamuon-authors": SIZE}
FOR_MATRICES = {  # by their equations; what is no matrix goes elsewhere
    "adamuon", "apollo", "apollomini", "cautiousdecaymuon", "conda", "dctadamw", "dion", "fira", "frugal", "frugalcolumns", "galore",
    "graftedshampoo", "loraggpo", "marsshampoo", "marsshampooexact", "muon", "muonpolarexpress", "normuon", "onlinesubspacedescent",
    "scioncolumns", "scionrows", "scionsign", "shampoo", "soap", "subspacemomentum", "trion", "trustregioncolumns", "trustregionrows",
    "trustregionspectral",
}  # fmt: skip


@pytest.mark.parametrize("row", RULES, ids=lambda row: row.id)
def test_a_comparison_is_hard(row: Row) -> None:
    """Steps, tolerance, eps and decay off 0: what would hide a difference."""
    assert row.steps >= 20
    assert row.tolerance <= 1e-12 or row.id in COARSE
    for name, value in row.ours.items():
        assert "eps" not in name or value >= 1e-2, name
        assert not name.endswith("weight_decay") or value > 0, name
    estimates = row.rule in ("adahessian", "sophiah")
    assert row.coupled or estimates, "its draws of the Hessian's diagonal are exact on a loss without couplings alone"


@pytest.mark.parametrize("rule", library.names())
def test_a_rule_is_compared_on_several_tensors(rule: str) -> None:
    """Of several ranks where it takes them, with weights that have no gradient."""
    shapes = [row.shapes for row in RULES if row.rule == rule]
    seen = {shape for several in shapes for shape in several}
    assert any(len(several) > 1 for several in shapes)
    assert any(shape in AT_REST or math.prod(SHAPES[shape]) > 6 for shape in seen)
    assert rule in FOR_MATRICES or ("vector" in seen and seen & {"matrix", "square"})
