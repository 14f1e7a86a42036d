"""The script for machines with a GPU, tried without one. 25 seconds."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_gpu import GPU as GPU_0
from fake_gpu import interpreted, on_a_gpu

GPU = Path(__file__).parent / "gpu"
SOME = ["copy", "graph", "large bf16", "formats", "modules", "module kernels", "long", "sharded", "library"]
PLAYED = ["first rules", "torch backend", "graph", "new gradients in a graph", "overflow", "modules", "extra memory", "held by graphs"]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(GPU))
    import check as module

    return module.Check(torch.device("cpu"), {}, 60.0, tmp_path / "found" / "gpu.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run([sys.executable, str(GPU / "check.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("gpu-check: there is no NVIDIA GPU here, so nothing was checked")
    assert not done.stdout


def test_an_unknown_part_is_no_part(tmp_path: Path) -> None:
    command = [sys.executable, str(GPU / "check.py"), "--cpu", "--out", str(tmp_path / "gpu.json"), "--parts", "graphs"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "gpu-check: there is no part 'graphs'; parts are copy, first rules, " in done.stderr


def test_its_parts_run_on_tiny_tensors(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-W", "error::RuntimeWarning", str(GPU / "check.py"), "--cpu", "--out", str(out), "--parts", *SOME]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=False)
    found = json.loads(out.read_text())
    assert done.returncode == 0, (done.stderr[-2000:], found["failed"])
    assert set(found) == {"here", "bytes/s", "failed", *SOME}
    assert found["here"].keys() >= {"date", "device", "torch", "triton"}
    assert found["long"]["result"] == {"elements": 3 * 4096}
    assert found["graph"]["result"]["captured"]["ms"] > 0
    assert found["large bf16"]["result"]["optlang"].keys() >= {"ms", "host us", "of copy", "to fused", "bytes"}
    assert "troubles" not in found["large bf16"]["result"]
    assert min(found["formats"]["result"].values()) > 0.98


def test_its_parts_run_on_a_gpu_that_is_only_said_to_be_there(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do where there is a GPU, but for their kernels and clocks."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton does not interpret")
    import parts
    import torch_pairs

    for name, value in {"FIRST": ("adamw",), "MODULES": ("lamb",), "SHAPES": ((3, 4), (5,), (0,), (2, 3, 2, 2)), "STEPS": 1}.items():
        monkeypatch.setattr(parts, name, value)
    monkeypatch.setattr(torch_pairs, "COMPILED", torch_pairs.EAGER)
    monkeypatch.setattr(type(check), "watch", lambda *given: None)  # which ends a process that takes long, this one
    check.sizes, check.seconds = parts.sizes(True), 3600.0
    with on_a_gpu() as mode, interpreted(mode):
        check.device = GPU_0
        for name in PLAYED:
            check.run(name, parts.PARTS[name][0], 300)
    found = json.loads(check.out.read_text())
    assert not check.failed, [found[name] for name in check.failed]
    assert found["first rules"]["result"]["tried"] == ["adamw"] and found["extra memory"]["result"].keys() == {"adamw", "adafactor", "came"}
    assert found["held by graphs"]["result"]["eigh"].startswith("AssertionError: the host waits")
    assert found["held by graphs"]["result"]["inv_ex"] == "yes"


def test_another_process_goes_on_where_one_dies(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import check as module

    begun = []

    def run(command: list[str], **more: Any) -> Any:
        begun.append(after := command[command.index("--after") + 1])
        found = json.loads(check.out.read_text()) if check.out.exists() else {"failed": []}
        new = {"": {"first": 1, "running": "second"}, "second": {"third": {"result": {"failed": "an illegal access"}}, "running": "third"}}
        module.write(check.out, found | new.get(after, {"last": 1}))
        return subprocess.CompletedProcess(command, {"": -11, "second": 3}.get(after, 1))

    monkeypatch.setattr(module.subprocess, "run", run)
    assert module.supervised(argparse.Namespace(minutes=1.0, cpu=False, parts=None), check.out) == 1
    found = json.loads(check.out.read_text())
    assert begun == ["", "second", "third"]
    assert found["second"]["result"]["failed"] == "its process ended with exit code -11: it hung, or died"
    assert found["third"]["result"]["failed"] == "an illegal access"
    assert (found["first"], found["last"], found["failed"], "running" in found) == (1, 1, ["second", "third"], False)


def test_a_part_that_fails_loses_nothing_of_the_others(check: Any) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("no such kernel image")

    check.run("first", lambda _: 1, 1)
    check.run("second", broken, 1)
    check.run("third", lambda _: 3, 1)
    found = json.loads(check.out.read_text())
    assert (found["first"]["result"], found["third"]["result"], check.failed) == (1, 3, ["second"])
    assert found["second"]["result"]["failed"] == "RuntimeError: no such kernel image"


def test_rules_of_a_part_that_are_not_over_in_twice_its_time_are_left_out(check: Any) -> None:
    import parts

    check.device = torch.device("meta")
    asked = []

    def ask(name: str) -> None:
        asked.append(name)
        check.until = 0.0

    check.run("rules", lambda it: parts._each(it, ["adamw", "lion"], ask), 10)
    found = json.loads(check.out.read_text())
    assert asked == ["adamw"] == found["rules"]["result"]["tried"]


def test_no_part_is_begun_that_would_not_be_over_in_time(check: Any) -> None:
    check.device = torch.device("meta")  # anything but the CPU, which has all the time of the world
    check.run("long", lambda _: 1, 100)
    check.run("short", lambda _: 1, 1)
    found = json.loads(check.out.read_text())
    assert found["long"]["left out"].endswith("about 100 are needed")
    assert found["short"]["result"] == 1
