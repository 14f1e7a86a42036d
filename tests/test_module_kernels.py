"""Kernels that generated modules carry along on demand: beside the module's own lines, in Triton's interpreter. 20 seconds.

OPTLANG_EVERYTHING=1 asks all rules that have one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from module_kernels import count_kernels, imported
from random_rules import texts
from torch import Tensor
from torch.distributed import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import optlang
from optlang import library
from optlang.errors import OptError

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")
TESTS = Path(__file__).parent
SHAPES = ((3, 50), (1025,), ())


def _with_kernel(name: str) -> str:
    try:
        return optlang.build(name, triton=True)
    except ValueError as problem:
        assert "has no kernel for one parameter alone: it" in str(problem)
        return ""


ASKED = ("adamw", "lion", "adan", "lookahead", "muonwithadamw", "powersign", "rprop")
TEXTS = {name: text for name in (library.names() if "OPTLANG_EVERYTHING" in os.environ else ASKED) if (text := _with_kernel(name))}


def stepped(cls: Any, steps: int = 4, shapes: Any = SHAPES, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[list[Tensor], Any]:
    """Parameters after some steps, and the optimizer."""
    draws = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=draws).to(dtype)) for shape in shapes]
    optimizer = cls([(f"layer{place}.weight", p) for place, p in enumerate(params)], **options)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=draws).to(dtype)
        with np.errstate(all="ignore"):  # of the interpreter
            optimizer.step()
    return [p.detach() for p in params], optimizer


def alike(found: tuple[list[Tensor], Any], wanted: tuple[list[Tensor], Any], tolerance: float = 2e-6) -> None:
    """Parameters and states are the same but for rounding."""
    for one, other in zip(found[0], wanted[0], strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)  # widths of vectors
    for p, q in zip(found[1].state.values(), wanted[1].state.values(), strict=True):
        assert p.keys() == q.keys()
        for name in p:
            torch.testing.assert_close(p[name], q[name], rtol=tolerance, atol=tolerance, equal_nan=True)


def the_class(module: Any, name: str) -> Any:
    return getattr(module, optlang.Rule(name).name)


@pytest.mark.parametrize("name", TEXTS)
def test_they_take_the_steps_of_the_lines_beside_them(name: str, tmp_path: Path) -> None:
    module = imported(TEXTS[name], tmp_path)
    kernels = count_kernels(module)
    groups = {"lr": 0.02} if any(h.name == "lr" for h in getattr(optlang.Rule(name).program, "hypers", ())) else {}
    plain = stepped(the_class(module, name), **groups, fused=False)
    assert kernels and not any(kernels)
    kernels.clear()
    alike(stepped(the_class(module, name), **groups), plain)
    assert plain[0][0].isfinite().all()
    assert any(kernels) and (all(kernels) or name.startswith("mu"))  # in a route each rule has its own
    alike(stepped(the_class(module, name), **groups, maximize=True), stepped(the_class(module, name), **groups, maximize=True, fused=False))


@settings(max_examples=25, deadline=None)
@given(texts())
def test_kernels_of_random_rules(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Where steps stay numbers; rules with a norm have none."""
    text = text.replace("norm(g)", "t").replace("mean(lr*g)", "lr").replace("sum(-w)", "eps").replace("max(abs(w))", "beta")
    try:
        module = imported(optlang.build(text, triton=True), tmp_path_factory.mktemp("random"))
    except (OptError, ValueError) as problem:
        assert "kernel" not in str(problem), text
        return
    kernels = count_kernels(module)
    found, wanted = stepped(module.R, steps=1), stepped(module.R, steps=1, fused=False)  # type: ignore[attr-defined]
    assert kernels.count(True) == kernels.count(False) == len(SHAPES)
    for one, other in zip(found[0], wanted[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_parameters_in_halves_are_computed_in_float32(tmp_path: Path) -> None:
    module = imported(TEXTS["adamw"], tmp_path)
    found, wanted = (stepped(module.AdamW, dtype=torch.float16, lr=0.05, fused=fused) for fused in (None, False))  # type: ignore[attr-defined]
    alike(found, wanted, tolerance=1e-3)
    assert all(state["m"].dtype == torch.float32 for state in found[1].state.values())


def _changed(name: str) -> tuple[dict[str, Any], Any]:
    """Options of an optimizer, and what gives its parameter."""
    base = torch.arange(12.0).reshape(3, 4) / 7
    return {
        "capturable": ({"capturable": True}, lambda: base.clone()),
        "float64": ({}, lambda: base.double()),
        "not in order": ({}, lambda: base.clone().t()),
        "a subclass": ({}, lambda: base.clone().as_subclass(Own)),
    }[name]


class Own(Tensor):
    """A class of somebody's own."""


@pytest.mark.parametrize("name", ["capturable", "float64", "not in order", "a subclass"])
def test_what_a_kernel_cannot_step_is_stepped_by_torch(name: str, tmp_path: Path) -> None:
    module = imported(TEXTS["lion"], tmp_path)
    kernels = count_kernels(module)
    options, made = _changed(name)
    ends = []
    for fused in (None, False):
        param = made().requires_grad_()
        param.grad = torch.ones_like(param)
        module.Lion([param], lr=0.1, fused=fused, **options).step()  # type: ignore[attr-defined]
        ends.append(param.detach().clone())
    assert not any(kernels)
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0], made())


def test_layouts_of_images_have_a_kernel_too(tmp_path: Path) -> None:
    module = imported(TEXTS["lion"], tmp_path)
    kernels = count_kernels(module)
    ends = []
    for fused in (None, False):
        param = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
        param.grad = param.detach() - 11
        module.Lion([param], lr=0.1, fused=fused).step()  # type: ignore[attr-defined]
        ends.append(param.detach())
    assert kernels == [True, False]
    torch.testing.assert_close(*ends)


def test_parts_of_parameters_that_are_here_have_a_kernel(tmp_path: Path) -> None:
    module = imported(TEXTS["adamw"], tmp_path)
    kernels = count_kernels(module)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh, ends = init_device_mesh("cpu", (1,)), []
        for fused in (None, False):
            param = torch.nn.Parameter(distribute_tensor(torch.arange(12.0).reshape(4, 3), mesh, [Shard(0)]))
            param.grad = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])
            module.AdamW([param], lr=0.1, fused=fused).step()  # type: ignore[attr-defined]
            ends.append(param.to_local().detach().clone())  # type: ignore[attr-defined]
    finally:
        dist.destroy_process_group()
    assert kernels == [True, False]
    torch.testing.assert_close(*ends)


def test_autograd_is_told_that_weights_have_changed(tmp_path: Path) -> None:
    module = imported(TEXTS["lion"], tmp_path)
    param = torch.nn.Parameter(torch.ones(4))
    loss = (param * param.exp()).sum()
    param.grad = torch.ones(4)
    module.Lion([param]).step()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_checkpoint_goes_from_kernels_to_lines_and_back(tmp_path: Path) -> None:
    module = imported(TEXTS["adamw"], tmp_path)
    params, one = stepped(module.AdamW, lr=0.02)  # type: ignore[attr-defined]
    other = module.AdamW([torch.nn.Parameter(p.clone()) for p in params], lr=0.02, fused=False)  # type: ignore[attr-defined]
    saved = one.state_dict()
    for group in saved["param_groups"]:
        group["fused"] = False
    other.load_state_dict(saved)
    for optimizer in (one, other):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p)
        optimizer.step()
    for p, q in zip(one.param_groups[0]["params"], other.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(p, q, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("rule", "why"), [
    ("lamb", "it needs sum of all values"),
    ("sam", "it asks the model again"),
    ("dadaptadam", "it has values of several parameters, or reports"),
    ("nadam", "its state `p` is real per tensor"),
    ("rmsprop", "it has states that some parameters, or settings, do without"),
])  # fmt: skip
def test_rules_without_one_are_refused(rule: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"has no kernel for one parameter alone: {why}: leave `triton` out"):
        optlang.build(rule, triton=True)


def test_only_modules_carry_one() -> None:
    with pytest.raises(ValueError, match="a kernel in Triton goes into a module, not into 'optax'"):
        optlang.build("lion", to="optax", triton=True)


def test_without_triton_the_module_steps_by_torch(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TEXTS["lion"])
    script = """
import sys
for name in ("optlang", "lark", "triton"):
    sys.modules[name] = None
import torch
from mine import Lion
p = torch.nn.Parameter(torch.ones(3, 2))
p.grad = torch.ones_like(p)
Lion([p], lr=0.5).step()
assert (p == 0.5).all(), p
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_they_read_and_write_16_bytes_at_once_on_sm_90() -> None:
    command = [sys.executable, str(TESTS / "module_kernels.py"), "adamw", "powersign"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["spilled"] for one in found] == [0] * 4
    states = {"adamw": 2, "powersign": 1}
    for one in found:
        assert one["wide writes"] >= states[one["rule"]] and one["wide reads"] >= states[one["rule"]] + (one["type"] == "fp32") * 2
