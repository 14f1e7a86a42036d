"""`optlang bench`: who is timed, what the floor touches, tables and files, wrong choices, contestants that fail."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensors import threads

import optlang
from optlang import cli, library
from optlang.backends.formats import STATE_FORMATS
from optlang.bench import command, contestants, measure
from optlang.bench.contestants import Contestant
from optlang.bench.measure import Spread
from optlang.bench.models import MODELS, answering, names, parameters
from optlang.bench.rivals import RIVALS
from optlang.bench.stream import stream

CPU = torch.device("cpu")
HEAVY = "rule Heavy { state m = 0  m' = 0.9*m + g  w' = w - 0.1*m' }"


def bench(*arguments: str, out: Path, model: str = "tiny") -> int:
    return cli.main(["bench", *arguments, "--model", model, "--steps", "3", "--quick", "--out", str(out)])


@pytest.fixture(autouse=True)
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bandwidth is measured with little memory."""
    from optlang.bench import session

    monkeypatch.setattr(session, "bandwidth", lambda device: measure.bandwidth(device, 1 << 12, 3))


def test_options_are_those_that_there_are() -> None:
    assert set(command.NAMES) == set(MODELS)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert set(choices["states"]) == set(STATE_FORMATS)
    assert tuple(choices["backends"]) == optlang.backends.NAMES


def test_models_have_the_sizes_that_are_told() -> None:
    sizes = {name: (len(shapes()), sum(torch.Size(s).numel() for s in shapes())) for name, shapes in MODELS.items()}
    assert sizes["gpt2"] == (148, 124_439_808)
    assert sizes["resnet50"] == (161, 25_557_032)
    assert sizes["small"][0] == 290 and sizes["many"][0] == 10_000


def test_a_bench_of_a_rule_beside_its_peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("lion", "adamw", "--backends", "cpp", "torch", "--states", "fp32", "bf16", out=tmp_path) == 0
    told = json.loads((tmp_path / "bench.json").read_text())
    lines = {line["label"]: line for line in told["models"]["tiny"]}
    assert {"adamw · torch fused", "adamw · torch foreach", "adamw · optimi"} <= set(lines)
    assert {"lion · lion-pytorch", "lion · pytorch_optimizer"} <= set(lines)
    assert {"lion · optlang cpp", "lion · optlang torch, bf16 state"} <= set(lines) and "adamw · torch compiled" not in lines
    for line in lines.values():
        assert len(line["times"]) == 3 and 0 < line["step"]["low"] <= line["step"]["median"] <= line["step"]["high"]
        assert line["ratio"]["median"] > 0 and line["floor"] > 0 and not line["remark"]
    assert told["numbers"]["tiny"] == 64 * 32 + 32 + 1 and told["torch"] == torch.__version__
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "lion · lion-pytorch" in shown and "× floor" in shown


def test_a_rule_of_a_file_and_what_is_wrong_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said with its place before anything is measured."""
    monkeypatch.chdir(tmp_path)
    path = Path("two.opt")
    path.write_text(f"{HEAVY}\n{HEAVY.replace('Heavy', 'Heavier')}\n")
    assert bench(f"{path}:Heavier", "--peers", "none", out=tmp_path / "out") == 0
    assert "two.opt:Heavier · optlang auto" in capsys.readouterr().out
    assert bench("lion", str(path), "--peers", "none", out=tmp_path / "none") == 1
    told = capsys.readouterr()
    assert "two.opt:1:6" in told.err and "choose one by name: Heavy, Heavier" in told.err and told.out == ""
    assert not (tmp_path / "none").exists()


def test_all_peers_include_those_that_compile() -> None:
    every = contestants.contestants(["adamw"], ["cpp"], ["fp32"], "all", "cpu")
    quick = contestants.contestants(["adamw"], ["cpp"], ["fp32"], "quick", "cpu")
    none = contestants.contestants(["adamw"], ["cpp"], ["fp32"], "none", "cpu")
    assert {one.label for one in every} - {one.label for one in quick} >= {"adamw · torch compiled"}
    assert [one.package for one in none] == ["optlang"]
    assert "flashoptim" not in {one.package for one in every}


@pytest.mark.filterwarnings("ignore")  # of packages that call torch in ways of old
def test_rivals_take_steps_as_the_table_says() -> None:
    """Every class of another name or with other settings is there, and moves weights, of which it keeps what ours keeps."""
    rules = {optlang.Rule(name).name: name for name in library.names()}
    assert set(RIVALS) <= set(rules)
    for rule, rivals in RIVALS.items():
        for one in [one for one in contestants.contestants([rules[rule]], ["auto"], ["fp32"], "quick", "cpu")[1:]
                    if one.package in {rival.package for rival in rivals}]:  # fmt: skip
            weights = parameters([(64, 32), (32, 64)], CPU)
            before = [w.detach().clone() for w in weights]
            _, step = one.build(weights)
            asked = [answering(weights)] if contestants.asks(rules[rule]) else []
            for _ in range(8):  # RAdam is silent in its first five
                step(*asked)
            assert not all(torch.equal(w, b) for w, b in zip(weights, before, strict=True)), one.label


def test_products_have_a_format_of_their_own(tmp_path: Path) -> None:
    assert bench("muon", "--products", "fp32", "bf16", "--peers", "none", out=tmp_path, model="narrow") == 0
    lines = json.loads((tmp_path / "bench.json").read_text())["models"]["narrow"]
    assert [line["label"] for line in lines] == ["muon · optlang auto", "muon · optlang auto, bf16 products"]


def test_a_package_is_not_credited_with_the_classes_of_another() -> None:
    for one in contestants.contestants(["sgd", "adam", "lamb"], ["cpp"], ["fp32"], "all", "cpu"):
        if one.package not in ("optlang", "torch"):
            optimizer, _ = one.build(parameters([(3,)], CPU))
            assert not type(optimizer).__module__.startswith("torch.")


@pytest.mark.parametrize("state", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_floor_goes_over_all_memory_and_changes_none(state: str, dtype: torch.dtype) -> None:
    weights = parameters([(300, 70), (5000,), (7,), ()], CPU, dtype)
    optimizer, step = Contestant("adamw", "optlang", "cpp", state).build(weights)
    step()
    tensors = [x for p in weights for x in (p.detach(), p.grad, *optimizer.state[p].values())]
    before = [x.clone() for x in tensors]
    stream(optimizer)()
    assert all(torch.equal(a.view(torch.uint8) if a.ndim else a, b.view(torch.uint8) if b.ndim else b)
               for a, b in zip(tensors, before, strict=True))  # fmt: skip


@pytest.mark.parametrize(("rule", "read", "written"), [("adamw", [16], [12]), ("lamb", [16, 12], [8, 4])])
def test_the_floor_reads_what_a_step_reads(rule: str, read: list[int], written: list[int]) -> None:
    """Every byte of weights, gradients and states is in one part of a pass; gradients are not written. LAMB reads weights and new
    states once more when norms are known."""
    from optlang.bench import session
    from optlang.bench import stream as module

    weights = parameters([(100, 400), (9,)], CPU)
    one = Contestant(rule, "optlang", "cpp")
    optimizer, step = one.build(weights)
    step()
    found = session._passes(one)
    parts = [[part for p in weights for chunk in module._chunks(module._named(p, optimizer.state[p], each)) for part in chunk]
             for each in found]  # fmt: skip
    count = sum(p.numel() for p in weights)
    assert [sum(size for _, size, _ in some) for some in parts] == [bytes_ * count for bytes_ in read]
    assert [sum(size for _, size, is_written in some if is_written) for some in parts] == [bytes_ * count for bytes_ in written]
    before = [p.detach().clone() for p in weights]
    stream(optimizer, found)()
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))


def test_a_contestant_that_fails_has_a_line_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("sam", "--peers", "none", out=tmp_path) == 1
    [line] = json.loads((tmp_path / "bench.json").read_text())["models"]["tiny"]
    assert line["step"] is None and "step(closure)" in line["remark"]
    assert f"sam · optlang auto: {line['remark']}" in " ".join(capsys.readouterr().out.split())


def test_a_route_that_looks_at_names_is_told_them(tmp_path: Path) -> None:
    """Of GPT-2 the embeddings, of ResNet-50 the head have the names that routes know."""
    assert bench("muonwithadamw", "--peers", "none", "--backends", "torch", out=tmp_path) == 0
    route: Any = optlang.load("muonwithadamw", backend="torch")
    for model, vectors in (("gpt2", {"wte.weight", "wpe.weight"}), ("resnet50", {"fc.weight"}), ("small", set[str]())):
        shapes = MODELS[model]()
        known = [(name, torch.empty(shape, device="meta")) for name, shape in zip(names(model), shapes, strict=True)]
        sent = {row.parameter: row.rule for row in route(known).routes()}
        assert {name for name, p in known if p.ndim == 2 and sent[name] == "AdamW"} == vectors


def test_without_a_compiler_the_floor_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert bench("lion", "--backends", "torch", "--peers", "none", out=tmp_path) == 0
    [line] = json.loads((tmp_path / "bench.json").read_text())["models"]["tiny"]
    assert line["floor"] > 0 and line["ratio"]["median"] > 0


def test_fresh_processes_tell_first_steps_and_memory() -> None:
    found = measure.fresh(Contestant("lion", "optlang", "cpp"), "tiny", CPU, torch.float32)
    assert found.warm > 0 and found.cold > 0
    assert found.kept >= 4 * (64 * 32 + 32 + 1)


def test_a_fresh_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"step\(closure\)"):
        measure.fresh(Contestant("sam", "optlang", "cpp"), "tiny", CPU, torch.float32)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "heavy.opt").write_text(HEAVY)
    assert bench(str(tmp_path / "heavy.opt"), out=tmp_path / "out") == 0
    assert [line["label"] for line in json.loads((tmp_path / "out" / "bench.json").read_text())["models"]["tiny"]]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["adamw", "--steps", "0"], 2, "--steps is 0"),
        (["adamw", "--device", "tpu"], 2, "it takes cpu or cuda"),
        (["no-such-rule"], 2, "no-such-rule"),
        (["adamw", "--out", "/proc/nowhere"], 2, "/proc/nowhere"),
    ],
)
def test_wrong_choices(arguments: list[str], code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments if "--out" in arguments else [*arguments, "--out", str(tmp_path)]
    assert cli.main(["bench", *given]) == code
    assert told in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "adamw", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "there is no CUDA device" in capsys.readouterr().err


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--model", "--backends", "--states", "--peers", "--quick", "--out"))


def test_spreads_and_paired_ratios() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == Spread(2.0, 2.0, 3.0)


def test_on_a_busy_machine_time_is_that_of_the_processor(tmp_path: Path) -> None:
    with threads(2):
        assert bench("lion", "--peers", "none", "--busy", out=tmp_path) == 0
        assert torch.get_num_threads() == 1
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["clock"] == "processor" and "1 threads" in told["device"]


def test_contestants_take_turns() -> None:
    order: list[str] = []
    found = measure.in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, CPU)
    assert order[2 * measure.WARM_UP :] == ["a", "b", "a", "b"] and {k: len(v) for k, v in found.items()} == {"a": 2, "b": 2}
