"""The script for machines with a GPU, tried without one. 15 seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

GPU = Path(__file__).parent / "gpu"
SOME = ["copy", "graph", "large bf16", "overflow", "formats", "extra memory", "library"]


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


def test_its_parts_run_on_tiny_tensors(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-W", "error::RuntimeWarning", str(GPU / "check.py"), "--cpu", "--out", str(out), "--parts", *SOME]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=False)
    found = json.loads(out.read_text())
    assert done.returncode == 0, (done.stderr[-2000:], found["failed"])
    assert set(found) == {"here", "bytes/s", "failed", *SOME}
    assert found["here"].keys() >= {"date", "device", "torch", "triton"}
    assert found["graph"]["result"]["captured"]["ms"] > 0
    assert found["large bf16"]["result"]["optlang"].keys() >= {"ms", "host us", "of copy", "to fused", "bytes"}
    assert "troubles" not in found["large bf16"]["result"]
    assert min(found["formats"]["result"].values()) > 0.98


def test_a_part_that_fails_loses_nothing_of_the_others(check: Any) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("no such kernel image")

    check.run("first", lambda _: 1, 1)
    check.run("second", broken, 1)
    check.run("third", lambda _: 3, 1)
    found = json.loads(check.out.read_text())
    assert (found["first"]["result"], found["third"]["result"], check.failed) == (1, 3, ["second"])
    assert found["second"]["result"]["failed"] == "RuntimeError: no such kernel image"


def test_no_part_is_begun_that_would_not_be_over_in_time(check: Any) -> None:
    check.device = torch.device("meta")  # anything but the CPU, which has all the time of the world
    check.run("long", lambda _: 1, 100)
    check.run("short", lambda _: 1, 1)
    found = json.loads(check.out.read_text())
    assert found["long"]["left out"].endswith("about 100 are needed")
    assert found["short"]["result"] == 1
