"""Other people's training loops: Hugging Face's Trainer, Accelerate and Lightning train a small model, save and go on. 25 seconds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

import optlang

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "LIGHTNING_DISABLE_UPDATE_CHECK": "1"}
STEPS, SAVED = 6, 3


@pytest.fixture(autouse=True)
def only_our_warnings() -> Iterator[None]:
    """Theirs are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", module="optlang")
        yield


def rows(count: int) -> list[dict[str, Tensor]]:
    return [{"input_ids": (torch.arange(8) * (i + 1)) % 32, "labels": (torch.arange(8) * (i + 1)) % 32} for i in range(count)]


def numbers(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


# -------------------------------------------------------------------------------------------- Hugging Face's Trainer


def gpt2() -> Any:
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_positions": 8, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return transformers.GPT2LMHeadModel(config)


def trainer(folder: Path, **given: Any) -> Any:
    import transformers

    args = transformers.TrainingArguments(
        str(folder), max_steps=STEPS, save_steps=SAVED, per_device_train_batch_size=2, learning_rate=0.01, weight_decay=0.1,
        report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    return transformers.Trainer(args=args, train_dataset=rows(8), eval_dataset=rows(2), **given)


def by_class(folder: Path) -> Any:
    """Trainer makes the groups, with decay and without, and the schedule."""
    return trainer(folder, model=gpt2(), optimizer_cls_and_kwargs=(optlang.load("lion"), {"lr": 0.01}))


def by_object(folder: Path) -> Any:
    """A route needs the names of parameters, and other weights to evaluate with need train and eval, which Trainer calls."""
    text = """from muon import Muon  from schedulefreeadamw import ScheduleFreeAdamW
    route R { when rank == 2 and not named("*wte*", "*wpe*") use Muon() otherwise use ScheduleFreeAdamW(lr = 0.01) }"""
    model = gpt2()
    optimizer: Any = optlang.loads(text)(model.named_parameters())
    return trainer(folder, model=model, optimizers=(optimizer, OneCycleLR(optimizer, 0.02, STEPS + 1)))


@pytest.mark.parametrize("make", [by_class, by_object])
def test_hugging_face_trainer(make: Callable[[Path], Any], tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    before = whole.evaluate()["eval_loss"] if make is by_class else 10
    whole.train()
    assert whole.evaluate()["eval_loss"] < before
    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{SAVED}"))
    whole_end, resumed_end = numbers(whole.model), numbers(resumed.model)
    assert resumed.state.global_step == STEPS and type(resumed.optimizer.optimizer).__module__ == "optlang"
    if make is by_object:
        resumed.evaluate()
        resumed_end = numbers(resumed.model)
    equal(resumed_end, whole_end)


# -------------------------------------------------------------------------------------------------------- Accelerate


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def pairs() -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    return list(zip(x, x.argmax(1) % 3, strict=True))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(precision: str, tmp_path: Path) -> None:
    """Gradients of two batches add up before each step; the schedule and the optimizer are saved and loaded by Accelerate."""
    import accelerate

    def run(first: int, last: int, load: Path | None = None, save: Path | None = None) -> dict[str, Tensor]:
        accelerate.state.AcceleratorState._reset_state(True)  # one for a process, as it has one training
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
        model = net()
        optimizer: Any = optlang.load("adamw")(model.parameters(), lr=0.05)
        schedule = OneCycleLR(optimizer, 0.05, 2 * STEPS)
        model, optimizer, data, schedule = accelerator.prepare(model, optimizer, DataLoader(pairs(), 4), schedule)  # type: ignore[arg-type]
        if load:
            accelerator.load_state(str(load))
        batches = list(data)
        for number in range(first, last):
            x, y = batches[number % len(batches)]
            with accelerator.accumulate(model):
                loss = F.cross_entropy(model(x), y)
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        if save:
            accelerator.save_state(str(save))
        return numbers(accelerator.unwrap_model(model))

    whole = run(0, 12)
    half = run(0, 6, save=tmp_path / "half")
    assert not torch.equal(half["0.weight"], whole["0.weight"])
    equal(run(6, 12, load=tmp_path / "half"), whole)


# --------------------------------------------------------------------------------------------------------- Lightning


@pytest.mark.parametrize("rule", ["lion", "sam"])
def test_lightning(rule: str, tmp_path: Path) -> None:
    """Lightning gives every step a closure, so rules that ask the model again need nothing more."""
    import lightning

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = net(), 0

        def training_step(self, batch: Any, number: int) -> Tensor:
            self.calls += 1
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer: Any = optlang.load(rule)(self.parameters(), **({"lr": 0.02} if rule == "lion" else {}))
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)] if rule == "lion" else []

    def run(epochs: int, resume: str | None = None) -> Any:
        module = Module()
        runner = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, default_root_dir=tmp_path, gradient_clip_val=1.0,
        )  # fmt: skip
        runner.fit(module, DataLoader(pairs(), 4), ckpt_path=resume)
        runner.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module

    whole = run(4)
    run(2)
    resumed = run(4, resume=str(tmp_path / "2.ckpt"))
    equal(numbers(resumed.net), numbers(whole.net))
    assert whole.calls == 12 * (2 if rule == "sam" else 1) and resumed.calls == whole.calls // 2
