"""Steps on a GPU that is only said to be there (see `elsewhere`): devices, number types and what the host waits for. 25 seconds.

Some of the rules in each way; all of them with OPTLANG_EVERYTHING=1, 3 minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_gpu import GPU, Graph, OnAGPU, There, held, interpreted, on_a_gpu
from stepping import finite, shapes_for
from torch import Tensor

import optlang
from optlang import Rule, library
from optlang.backends.repeated import tables
from optlang.backends.repeated.tables import Tables
from optlang.ir import Routing
from optlang.runtime import gathering
from optlang.runtime.steps import captured

EVERYTHING = "OPTLANG_EVERYTHING" in os.environ
INTERPRETS = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")
SHAPES = [(6, 5), (7,), (), (3, 2, 2, 2)]
LARGE = [(70, 80), (7,)]  # the first in blocks of 256, the last of them short
Put = Callable[[Tensor], Tensor]


def some(shape: Any, seed: int) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def part(names: list[str], first: int, each: int) -> list[str]:
    return names if EVERYTHING else names[first::each]


def programs(name: str) -> list[Any]:
    made = Rule(name).program
    return [case.program for case in made.cases] if isinstance(made, Routing) else [made]


CAPTURABLE = [name for name in library.names() if not any(map(captured.refuses, programs(name)))]


@dataclass
class Run:
    """Some steps of an optimizer, the same here and there. `captures`: the steps from this one on."""

    cls: Any
    like: Any  # the class of ours, where `cls` is a generated one
    settings: Callable[[Put], dict[str, Any]] = lambda put: {}
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: SHAPES)
    dtype: torch.dtype = torch.float32
    captures: int | None = None
    before: Callable[[Any, Put, int], None] = lambda optimizer, put, step: None
    after: Callable[[Any], None] = lambda optimizer: None
    steps: int = 2

    def take(self, puts: list[Put], mode: OnAGPU | None = None) -> tuple[Any, list[Tensor]]:
        shapes = shapes_for(self.like.rule, self.shapes)
        where = [puts[i % len(puts)] for i in range(len(shapes))]
        params = [put(some(s, i).to(self.dtype)).requires_grad_() for i, (s, put) in enumerate(zip(shapes, where, strict=True))]
        optimizer = self.cls([(f"p{i}", p) for i, p in enumerate(params)], **self.settings(puts[0]))
        for step in range(self.steps):
            self._give(optimizer, params, where, step)
            self.before(optimizer, puts[0], step)
            if mode is not None and self.captures is not None and step >= self.captures:
                mode.graph = Graph()
            optimizer.step(*([lambda: self._loss(optimizer, params, where, step)] if self.like.asks_again else []))  # noqa: B023
            if mode is not None:
                mode.graph = None
        self.after(optimizer)
        return optimizer, params

    def _give(self, optimizer: Any, params: list[Tensor], where: list[Put], step: int) -> None:
        for i, (p, put) in enumerate(zip(params, where, strict=True)):
            p.grad = put(some(p.shape, 100 + 10 * step + i).to(self.dtype))
        for wanted in [i.name for case in self.like.cases for i in case.program.inputs]:
            optimizer.inputs[wanted] = {p: put(some(p.shape, 9 + step) ** 2) for p, put in zip(params, where, strict=True)}

    @staticmethod
    def _loss(optimizer: Any, params: list[Tensor], where: list[Put], step: int) -> Tensor:
        optimizer.zero_grad()
        parts = [((p - put(some(p.shape, 100 + 10 * step + i))) ** 3).sum() for i, (p, put) in enumerate(zip(params, where, strict=True))]
        loss = torch.stack(parts).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def compare(self, puts: list[Put] | None = None, around: Any = lambda mode: nullcontext(), tolerance: float = 0) -> OnAGPU:
        """Numbers and number types as on the CPU, and all of it where it belongs. Triangles are solved for on the CPU alone."""
        tolerance = max(tolerance, 1e-5 if any(case.program.uses("inverse") for case in self.like.cases) else 0)
        here, params = self.take([lambda x: x])
        with on_a_gpu() as mode, around(mode):
            there, others = self.take(puts or [There], mode)
        for p, q in zip(params, others, strict=True):
            finite(p)
            torch.testing.assert_close(held(q).detach(), p.detach(), rtol=tolerance, atol=tolerance)
            assert list(there.state[q]) == list(here.state[p])
            for name, wanted in here.state[p].items():
                found = there.state[q][name]
                torch.testing.assert_close(held(found), wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
                assert found.dtype == wanted.dtype
                assert found.device == self._place(there, name, q, others[0]), name
        return mode

    def _place(self, optimizer: Any, name: str, parameter: Tensor, first: Tensor) -> torch.device:
        """Where a state belongs: counts and, in modules, values of all parameters are the host's business, if not captured."""
        there = optimizer.param_groups[0].get("capturable") or hasattr(optimizer, "found_inf")
        if name == "step":
            return parameter.device if there else torch.device("cpu")
        of_all = any(name in names for case in self.like.cases for names in case.shared.values())
        if not of_all:
            return parameter.device
        together = there and len({p.device for group in optimizer.param_groups for p in group["params"]}) == 1
        return first.device if together or self.cls is self.like else torch.device("cpu")


def ours(name: str, backend: str = "torch", **formats: Any) -> Any:
    return optlang.loads(name, backend=backend, **formats) if " " in name else optlang.load(name, backend=backend, **formats)


def run(name: str, settings: dict[str, Any] | None = None, *, backend: str = "torch", formats: Any = None, **more: Any) -> Run:
    cls = ours(name, backend, **(formats or {}))
    return Run(cls, cls, lambda put: settings or {}, **more)


# -------------------------------------------------------------------------------------------------------- the library


@pytest.mark.parametrize("name", part(library.names(), 0, 7))
def test_rules(name: str) -> None:
    run(name).compare()


@pytest.mark.parametrize("name", part(CAPTURABLE, 1, 7))
def test_rules_in_a_graph(name: str) -> None:
    """After a first step the host neither waits nor sends anything."""
    assert run(name, {"capturable": True}, captures=1).compare().looks == []


def module(name: str) -> Any:
    space: dict[str, Any] = {"__name__": "made"}
    exec(compile(optlang.build(name), "made", "exec"), space)
    return space[Rule(name).name]


@pytest.mark.parametrize("name", library.names() if EVERYTHING else [*library.names()[3::16], "adamcm"])
def test_modules(name: str) -> None:
    Run(module(name), ours(name)).compare()


@pytest.mark.parametrize("name", library.names() if EVERYTHING else ["adamw", "muonwithadamw", "liontopk", "prodigy", "adopt", "apollo"])
def test_modules_in_a_graph(name: str) -> None:
    """After a first step nothing waits; a rate on the device is looked at when it is given, by its two bounds."""
    made = module(name)
    if "cannot be capturable" in optlang.build(name):
        pytest.skip("refuses it")
    [program, *others] = programs(name)
    rates = [] if others else [h.name for h in program.hypers if h.name == "lr"]

    def settings(put: Put) -> dict[str, Any]:
        return {"capturable": True, **{name: put(torch.tensor(0.01)) for name in rates}}

    assert Run(made, ours(name), settings, captures=1, steps=3).compare().looks == 2 * len(rates) * ["aten._local_scalar_dense.default"]


def test_what_goes_element_by_element_waits_for_nothing() -> None:
    for name in ("adamw", "lion", "lamb", "adafactor", "muon"):
        assert run(name).compare().looks == []


# --------------------------------------------------------------------------------------------------------- the runtime


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "prodigy"])
def test_number_types(name: str, dtype: torch.dtype) -> None:
    run(name, dtype=dtype).compare()


@pytest.mark.parametrize("state", ["bf16", "fp8", "int8", "int4"])
def test_states_in_fewer_bits(state: str) -> None:
    run("adamw", formats={"state": state}, shapes=LARGE).compare()
    run("adamw", {"capturable": True}, formats={"state": state}, shapes=LARGE, captures=1).compare()


@pytest.mark.parametrize("weights", ["stochastic", "compensated"])
def test_weights_of_16_bits(weights: str) -> None:
    run("adamw", formats={"weights": weights}, shapes=LARGE, dtype=torch.bfloat16).compare()
    run("adamw", {"capturable": True}, formats={"weights": weights}, shapes=LARGE, dtype=torch.bfloat16, captures=1).compare()


def scaled(optimizer: Any, put: Put, step: int) -> None:
    """As torch's GradScaler gives them: the scale a single number, what it found a row of one."""
    optimizer.grad_scale, optimizer.found_inf = put(torch.tensor(64.0)), put(torch.tensor([float(step == 1)]))


@pytest.mark.parametrize("name", ["adamw", "lamb", "prodigy", "dog"])
def test_overflows(name: str) -> None:
    """Of a scaler on the device, also in a graph; beside steps on the CPU that are told the same."""
    run(name, {"capturable": True}, captures=1, before=scaled, steps=4).compare()
    assert run("adamw", {"fused": True}, before=scaled, steps=4).compare(tolerance=1e-6).looks == []


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
def test_rates_on_the_device(name: str) -> None:
    """One-element tensors, as torch takes them, with and without dimensions."""
    for shape in ((), (1,)):
        cls = ours(name)
        more: dict[str, Any] = {"captures": 1, "steps": 3}
        assert Run(cls, cls, lambda put, shape=shape: {"lr": put(torch.full(shape, 0.1)), "capturable": True}, **more).compare()  # type: ignore[misc]


def test_groups_and_devices_of_several_kinds() -> None:
    """Parameters on the host beside those on the device; values of all of them meet on the host."""
    for name in ("adamw", "lamb", "prodigy", "muon"):
        run(name, steps=3).compare([There, lambda x: x])
    Run(module("dog"), ours("dog"), lambda put: {"capturable": True}, steps=3).compare([There, lambda x: x])


def test_weights_to_evaluate_with_and_checkpoints() -> None:
    def turned(optimizer: Any) -> None:
        optimizer.eval()
        optimizer.train()

    def again(optimizer: Any) -> None:
        saved = optimizer.state_dict()
        optimizer.load_state_dict(saved)
        optimizer.step()

    run("schedulefreeadamw", after=turned).compare()
    for name in ("adamw", "prodigy"):
        run(name, after=again).compare()
        run(name, {"capturable": True}, after=again).compare()


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "torch") for name in ("adamw", "adafactor", "muonwithadamw", "psgdkron", "DRAWN")),
     *(pytest.param(name, "auto", marks=INTERPRETS) for name in ("adamw", "prodigy", "DRAWN"))],
)  # fmt: skip
def test_replays(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `make gpu-check` asks for them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "gpu"))
    import parts

    with on_a_gpu() as mode, interpreted(mode) if backend == "auto" else nullcontext():
        parts.replayed(getattr(parts, name, name), GPU, backend)


# -------------------------------------------------------------------------------------------------------------- Triton


@INTERPRETS
@pytest.mark.parametrize(
    ("name", "backend"), [("adamw", "triton"), ("lamb", "auto"), ("muonwithadamw", "auto"), ("adafactor", "auto")]
)  # fmt: skip
def test_kernels(name: str, backend: str) -> None:
    """The tables and numbers that kernels read, uncaptured and in a graph."""
    run(name, backend=backend, steps=3).compare(around=interpreted, tolerance=1e-5)
    mode = run(name, {"capturable": True}, backend=backend, steps=4, captures=2).compare(around=interpreted, tolerance=1e-5)
    assert mode.looks == []


@INTERPRETS
@pytest.mark.parametrize("state", ["bf16", "int8"])
def test_kernels_of_states_in_fewer_bits(state: str) -> None:
    shapes = LARGE if state == "int8" else SHAPES
    given: dict[str, Any] = {"formats": {"state": state}, "backend": "triton", "shapes": shapes, "captures": 2, "steps": 3}
    run("adamw", {"capturable": True}, **given).compare(around=interpreted, tolerance=1e-5)


class Watch:
    """As ours, which looks at memory that these tensors do not have."""

    def __init__(self, tensors: list[Tensor], are_gradients: list[bool]) -> None:
        self.given = list(zip(tensors, are_gradients, strict=True))
        self.pointers = np.empty(len(tensors), dtype=np.int64)
        self.holds()

    def holds(self, keep: Any = None) -> bool:
        self.pointers[:] = [(x.grad if is_gradient else x).data_ptr() for x, is_gradient in self.given]  # type: ignore[union-attr]
        return True


@INTERPRETS
@pytest.mark.parametrize(("name", "backend"), [("adamw", "auto"), ("lion", "torch")])
def test_steps_that_come_again(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that stay on the device, with rates that change between steps."""
    again: list[Any] = []
    taken = Tables.ready
    monkeypatch.setattr(Tables, "ready", lambda self, *given: again.append(self) or taken(self, *given))
    monkeypatch.setattr(tables, "Watch", Watch)
    monkeypatch.setattr(gathering, "repeats", lambda groups, cells: not groups[0]["params"][0].is_cpu)

    def slower(optimizer: Any, put: Put, step: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step // 3)

    mode = run(name, backend=backend, steps=8, before=slower).compare(around=interpreted, tolerance=1e-5)
    assert len(again) == 6
    assert mode.looks == []


COMPILED = ["adamw"] + ["lamb", "adafactor", "radam", "prodigy", "sm3", "adamcm", "core", "came", "adamp"] * EVERYTHING


def test_what_torchs_compiler_makes_for_a_gpu() -> None:
    """Kernels that the tools for sm_90 take, one for a rule that goes element by element, and nothing left to torch."""
    pytest.importorskip("triton")
    command = [sys.executable, str(Path(__file__).with_name("inductor_kernels.py")), "90", *COMPILED]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {one["rule"] for one in found} == set(COMPILED)
    assert all(one["kernels"] >= 1 and one["left to torch"] == 0 for one in found), found
    assert [(one["kernels"], one["spilled"]) for one in found if one["rule"] == "adamw"] == [(1, 0)]


def test_what_it_makes_of_the_library_is_as_it_says() -> None:
    """`make inductor` compiles what is missing in docs/inductor.json."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    found = json.loads((docs / "inductor.json").read_text(encoding="utf-8"))
    functions = [one for entry in found.values() for one in entry["functions"]]
    assert set(found) <= set(library.names())
    assert all(one["kernels"] >= 1 and one["left to torch"] == one["spilled"] == 0 for one in functions)


# ------------------------------------------------------------------------------------------------ what would be noticed


@pytest.mark.parametrize(
    "wrong", [lambda x: x + torch.ones(3), lambda x: torch.cat([x, torch.ones(3)]), lambda x: torch.ones(()).add_(x[0]),
              lambda x: torch._foreach_add([x], [torch.ones(3)]), lambda x: torch.stack([x[0], torch.ones(())])],
)  # fmt: skip
def test_two_devices_in_one_operator(wrong: Any) -> None:
    with on_a_gpu(), pytest.raises(AssertionError, match="cpu.*cuda|cuda.*cpu"):
        wrong(There(torch.ones(3)))


@pytest.mark.parametrize("looks", [float, lambda x: x.cpu(), lambda x: bool(x > 0), lambda x: torch.zeros(()).copy_(x)])
def test_looks_of_the_host(looks: Any) -> None:
    with on_a_gpu() as mode:
        x = There(torch.ones(()))
        looks(x)
        assert len(mode.looks) == 1
        mode.graph = Graph()
        with pytest.raises(AssertionError, match="the host waits for"):
            looks(x)


def test_what_a_graph_could_not_fetch() -> None:
    with on_a_gpu() as mode:
        x = There(torch.ones(3))
        mode.graph = Graph()
        assert torch.equal(held(x * torch.full((), 2.0, device=GPU)), torch.full((3,), 2.0))
        for wrong in (lambda: torch.ones(3).to(GPU), lambda: x.copy_(torch.ones(3)), lambda: x * torch.ones(())):
            with pytest.raises(AssertionError, match="in a capture"):
                wrong()
        mode.graph = None
        assert (x * torch.ones(())).device == torch.ones(3).to(GPU).device == GPU
