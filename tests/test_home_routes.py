"""Routes that are hard to get wrong: who got what and why, on models as people build them; what looks like a mistake. 5 seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optlang

MuonWithAdamW: Any = optlang.load("muonwithadamw")
TOKENS = torch.arange(24).reshape(2, 12) % 16


class GPT(nn.Module):
    """Words and places, one block, a head; `tied` uses the table of words again as the head."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(16, 8), nn.Embedding(12, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
        self.lm_head = nn.Linear(8, 16, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.lm_head(self.block(self.wte(tokens) + self.wpe(places), src_mask=mask, is_causal=True))  # type: ignore[no-any-return]


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, 8, 4, 4)
        self.cls_token, self.pos_embed = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.zeros(1, 5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(images), 1, 8), patches], 1) + self.pos_embed
        return self.head(self.block(x)[:, 0])  # type: ignore[no-any-return]


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.body, self.classifier = nn.Linear(4 * 36, 8), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(F.relu(self.body(F.relu(self.norm(self.stem(images))).flatten(1))))  # type: ignore[no-any-return]


class Mixture(nn.Module):
    """Experts in one tensor each, as their authors do for speed; every token goes to all by weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router = nn.Embedding(16, 8), nn.Linear(8, 4, bias=False)
        self.experts = nn.ParameterDict({"up": torch.randn(4, 8, 12) * 0.3, "down": torch.randn(4, 12, 8) * 0.3})
        self.head = nn.Linear(8, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        hidden = F.gelu(torch.einsum("btd,edf->betf", x, self.experts["up"]))
        mixed = torch.einsum("betf,efd,bte->btd", hidden, self.experts["down"], self.router(x).softmax(-1))
        return self.head(x + mixed)  # type: ignore[no-any-return]


def images() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


IN_BLOCK = ["block.self_attn.in_proj_weight", "block.self_attn.out_proj.weight", "block.linear1.weight", "block.linear2.weight"]
MODELS: dict[str, tuple[Callable[[], nn.Module], list[str], dict[str, str]]] = {
    "gpt": (GPT, IN_BLOCK, {"wte.weight": '"*wte*"', "wpe.weight": '"*wpe*"', "lm_head.weight": '"*head*"', "block.norm1.bias": "is 1"}),
    "tied": (lambda: GPT(tied=True), IN_BLOCK, {"wte.weight": '"*wte*"'}),
    "vit": (ViT, IN_BLOCK, {"patch_embed.weight": "rank is 4", "pos_embed": 'name fits none of "*expert*"', "head.weight": '"*head*"'}),
    "convnet": (ConvNet, ["body.weight"], {"stem.weight": "rank is 4", "classifier.weight": '"*classifier*"'}),
    "mixture": (Mixture, ["router.weight", "experts.down", "experts.up"], {"embed.weight": '"*embed*"', "head.bias": "rank is 1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_who_gets_what_and_why_and_one_optimizer_trains_it(name: str) -> None:
    make, matrices, reasons = MODELS[name]
    torch.manual_seed(0)
    model = make()
    optimizer = MuonWithAdamW(model.named_parameters())
    routes = optimizer.routes()
    assert sorted(a.parameter for a in routes if a.rule == "Muon") == sorted(matrices)
    assert sorted(a.parameter for a in routes) == sorted(n for n, _ in model.named_parameters())
    assert {a.parameter: a.shape for a in routes} == {n: tuple(p.shape) for n, p in model.named_parameters()}
    for parameter, words in reasons.items():
        [found] = [a for a in routes if a.parameter == parameter]
        assert found.rule == "AdamW" and words in found.reason
    losses = [step(model, optimizer, *((TOKENS[:, :-1], TOKENS[:, 1:]) if hasattr(model, "wte") or name == "mixture" else images()))
              for _ in range(15)]  # fmt: skip
    assert losses[-1] < losses[0] - 0.1


SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 97}
REAL: dict[str, tuple[str, dict[str, Any], list[str]]] = {  # the model, its sizes, what is no map but has two dimensions
    "GPT2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 97}, ["wte", "wpe"]),
    "T5": ("T5ForConditionalGeneration", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "vocab_size": 97},
           ["shared", *["relative_attention_bias"] * 2]),
    "Bert": ("BertForQuestionAnswering", SIZES, ["word_embeddings", "position_embeddings", "token_type_embeddings", "qa_outputs"]),
    "Llama": ("LlamaForSequenceClassification", SIZES, ["embed_tokens", "score"]),
    "GptOss": ("GptOssForCausalLM", SIZES | {"num_local_experts": 4, "head_dim": 8, "num_key_value_heads": 2},
               ["embed_tokens", "gate_up_proj_bias", "down_proj_bias", "lm_head"]),
    "Mamba": ("MambaForCausalLM", {"hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 97, "state_size": 8}, ["A_log", "embeddings"]),
    "Swin": ("SwinForImageClassification", {"embed_dim": 16, "depths": [1], "num_heads": [2], "window_size": 4, "image_size": 32},
             ["relative_position_bias_table", "classifier"]),
    "Electra": ("ElectraForPreTraining", SIZES | {"embedding_size": 32},
                ["word_embeddings", "position_embeddings", "token_type_embeddings", "dense_prediction"]),
}  # fmt: skip


KIN = {"muadamw": "HiddenAdamW", "musgd": "HiddenSGD", "completepadamw": "BlockAdamW", "unitadamw": "UnitHiddenAdamW", "mulo": "HiddenMLP"}


@pytest.mark.parametrize("name", REAL)
def test_models_of_hugging_face(name: str) -> None:
    """Whatever is a map goes to Muon and nothing else does; where a rule for matrices gets all, what is none is warned of."""
    transformers = pytest.importorskip("transformers")
    model, sizes, others = REAL[name]
    net = getattr(transformers, model)(getattr(transformers, f"{name}Config")(**sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        routes = MuonWithAdamW(net.named_parameters()).routes()
    plain = [a for a in routes if a.rule == "AdamW" and len(a.shape) == 2]
    for kin, hidden in KIN.items():  # the same are hidden matrices
        found = optlang.load(kin)(net.named_parameters()).routes()  # type: ignore[attr-defined]
        assert {a.parameter for a in found if len(a.shape) == 2 and a.rule != hidden} == {a.parameter for a in plain}, kin
    assert sorted(a.parameter.removesuffix(".weight").rpartition(".")[2] for a in plain) == sorted(others)
    matrices = [(a.parameter, torch.zeros(a.shape, requires_grad=True)) for a in routes if len(a.shape) == 2]
    with pytest.warns(UserWarning, match="go(es)? to Muon") as told:
        for parameter, p in matrices:
            muon()([(parameter, p)])
    assert sorted(str(one.message).split(" looks like")[0].removeprefix("Muon: ") for one in told) == sorted(a.parameter for a in plain)


def step(model: nn.Module, optimizer: Any, given: Tensor, wanted: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(given).flatten(0, -2), wanted.flatten())
    loss.backward()
    optimizer.step()
    return loss.item()


def test_a_table_to_print() -> None:
    params = [("body.weight", torch.zeros(4, 3)), ("bias", torch.zeros(())), ("x", torch.zeros(2))]
    cls: Any = optlang.loads("from sgd import SGD route R { when rows > cols or numel == 1 use SGD() otherwise use SGD(lr = 1) }")
    assert str(cls([(n, p.requires_grad_()) for n, p in params]).routes()).splitlines() == [
        "parameter    shape  rule   reason",
        "body.weight  4×3    SGD    rows is 4, cols is 3",
        "bias         ()     SGD    numel is 1",
        "x            2      SGD_2  it has no rows, it has no cols, numel is 2",
    ]
    alone: Any = optlang.load("sgd")
    assert alone([torch.zeros(2, requires_grad=True)]).routes() == [("parameter 0 of group 0", (2,), "SGD", "every parameter does")]


def test_reasons_by_type_and_by_what_does_not_hold() -> None:
    text = 'from sgd import SGD route R { when not (dtype == "float64" and rank > 1) use SGD() otherwise use SGD(lr = 1) }'
    cls: Any = optlang.loads(text)
    optimizer = cls([torch.zeros(2, requires_grad=True), torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)])
    assert [a.reason for a in optimizer.routes()] == ["dtype is float32", "dtype is float64, rank is 2"]


# ------------------------------------------------------------------------------------------------------- mistakes

LOOKS = {
    "transformer.wte.weight": "an embedding by its name", "embeddings.word_embeddings.weight": "an embedding by its name",
    "model.embed_tokens.weight": "an embedding by its name", "unembed.weight": "an embedding by its name",
    "shared.weight": "an embedding by its name", "score.weight": "a head by its name", "output.weight": "a head by its name",
    "cls.seq_relationship.weight": "a head by its name", "layers.0.experts.up_bias": "biases by its name",
    "layers.0.mixer.A_log": "the rates of a state space by its name",
    "lm_head.weight": "a head by its name", "module.head.fc.weight": "a head by its name", "classifier.1.weight": "a head by its name",
    "readout.weight": "a head by its name",
}  # fmt: skip
INNOCENT = [
    "attn.q_proj.weight", "blocks.0.heads.0.key.weight", "multihead_attn.in_proj_weight", "memberships.weight", "member.weight",
    "layer.0.output.dense.weight", "block.0.output.weight", "mlp.fc.weight", "shared_expert.up.weight", "unbiased.weight",
]  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_embeddings_and_heads_that_go_to_a_rule_for_matrices(name: str) -> None:
    p = torch.zeros(6, 4, requires_grad=True)
    with pytest.warns(UserWarning, match=f"{name} looks like {LOOKS[name]}, and goes to Muon.* send them to another rule"):
        muon()([("body.weight", torch.zeros(3, 3, requires_grad=True)), (name, p)])


def muon() -> Any:
    return optlang.load("muon")


def test_tied_embeddings_are_found_by_their_shape() -> None:
    """The head comes first, under a name that says nothing, and names each tensor once."""
    model = nn.ModuleDict({"project": nn.Linear(16, 512, bias=False), "embed": nn.Embedding(512, 16)})
    model["embed"].weight = model["project"].weight
    with pytest.warns(UserWarning, match="project.weight looks like an embedding or a head, tied or not, by its shape 512×16, and goes"):
        optimizer = MuonWithAdamW(model.named_parameters())
    assert [a.rule for a in optimizer.routes()] == ["Muon"]
    with pytest.warns(UserWarning, match="parameter 0 of group 0 looks like an embedding or a head"):
        muon()([model["embed"].weight])


def test_groups_that_come_later_are_looked_at_too_and_long_lists_are_cut() -> None:
    optimizer = muon()([("a", torch.zeros(3, 3, requires_grad=True))])
    more = [(f"embed.{i}.weight", torch.zeros(3, 3, requires_grad=True)) for i in range(7)]
    with pytest.warns(UserWarning, match=r"embed.4.weight looks .*; and 2 more\. "):
        optimizer.add_param_group({"params": more})


def test_what_is_no_mistake() -> None:
    """Names that only contain such words, adapters, tall matrices of little size, rules that go by element or by rows."""
    shapes = dict.fromkeys(INNOCENT, (5, 5)) | {"layers.0.lora_B.weight": (4096, 8), "up.weight": (255, 4), "wide.weight": (8, 4096)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        muon()([(name, torch.zeros(shape, requires_grad=True)) for name, shape in shapes.items()])
        for rule in ("adamw", "adafactor", "lamb"):
            optlang.load(rule)([("embed.weight", torch.zeros(512, 8, requires_grad=True))])
