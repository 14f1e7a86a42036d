"""Numbers and sizes at the edges: no gradient that torch takes stops a step, and nothing grows faster than what is asked for."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import optlang
from optlang.backends.torch.ops import amax, amin

BACKENDS = ("reference", "torch", "cpp")
STRANGE = (float("nan"), float("inf"), -float("inf"), 0.0, 1e-45, 1e15, -1e-38, 1.0)
PAIRS = [
    ("sgd", torch.optim.SGD, {"lr": 0.1}), ("adam", torch.optim.Adam, {"lr": 0.1}), ("adamw", torch.optim.AdamW, {"lr": 0.1}),
    ("adagrad", torch.optim.Adagrad, {"lr": 0.1}), ("rmsprop", torch.optim.RMSprop, {"lr": 0.1}),
    ("adamax", torch.optim.Adamax, {"lr": 0.1}),
]  # fmt: skip


def parameter(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()].reshape(shape).clone().requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "theirs", "settings"), PAIRS, ids=[pair[0] for pair in PAIRS])
def test_gradients_that_are_no_numbers_behave_as_torch_s(name: str, theirs: Any, settings: dict[str, Any], backend: str) -> None:
    """NaN and infinities stay where they are: in the elements that had them, from that step on."""
    ours, other = parameter(8), parameter(8)
    mine, torchs = optlang.load(name, backend=backend)([ours], **settings), theirs([other], **settings)
    for gradient in (torch.tensor(STRANGE), torch.ones(8)):
        for p, optimizer in ((ours, mine), (other, torchs)):
            p.grad = gradient.clone()
            optimizer.step()
        assert torch.equal(ours.isfinite(), other.isfinite())
        known = other.isfinite()
        torch.testing.assert_close(ours[known], other[known], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ten_million_steps(backend: str) -> None:
    """`beta^t` is 0 by then, and the count is exact in float32 up to 2^24."""
    p, q = parameter(6), parameter(6)
    ours, theirs = optlang.load("adamw", backend=backend)([p], lr=0.1), torch.optim.AdamW([q], lr=0.1)
    for x, optimizer in ((p, ours), (q, theirs)):
        x.grad = torch.ones(6)
        optimizer.step()
        optimizer.state[x]["step"].fill_(1e7 - 1)
        optimizer.step()
        assert optimizer.state[x]["step"] == 1e7
    torch.testing.assert_close(p, q)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lr", [0.0, 1e-45])
def test_step_sizes_that_move_nothing(lr: float, backend: str) -> None:
    """States go on, weights stay."""
    p = parameter(6)
    before, optimizer = p.detach().clone(), optlang.load("adamw", backend=backend)([p], lr=lr, weight_decay=0.1)
    for _ in range(3):
        p.grad = torch.ones(6)
        optimizer.step()
    assert torch.equal(p, before) and optimizer.state[p]["m"].abs().min() > 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor", "lars"])
def test_empty_and_single_values(name: str, backend: str) -> None:
    params = [parameter(0), parameter(), parameter(3, 0), parameter(0, 3), parameter(1, 1), parameter(2, 2)]
    optimizer = optlang.load(name, backend=backend)(params, lr=0.1)
    for _ in range(3):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert all(p.isfinite().all() for p in params) and params[1] != parameter()


@pytest.mark.parametrize("name", ["dion", "muon", "splus", "shampoo", "soap", "galore"])
def test_matrices_without_rows_or_columns_stand_beside_others(name: str) -> None:
    """Where sizes are both 0, rows/cols is NaN."""
    empty, whole = [parameter(0, 0), parameter(3, 0), parameter(0, 3)], parameter(4, 4)
    optimizer = optlang.load(name)([*empty, whole], lr=0.1)
    for step in range(4):
        for p in (*empty, whole):
            p.grad = torch.ones_like(p) * (step + 1)
        optimizer.step()
    assert whole.isfinite().all() and not torch.equal(whole, parameter(4, 4))


@pytest.mark.parametrize(
    ("shape", "dims", "left"), [((3, 0), (-1,), (3, 1)), ((0, 3), (-1,), (0, 1)), ((0, 3), (-2, -1), (1, 1)), ((0,), None, ())]
)
def test_the_largest_of_nothing_has_the_shape_of_what_is_left(shape: Any, dims: Any, left: Any) -> None:
    for reduced, nothing in ((amax, -torch.inf), (amin, torch.inf)):
        assert torch.equal(reduced(torch.zeros(shape), dims), torch.full(left, nothing))


HUGE = """
import torch
from optlang.runtime.facts import facts_of
p = torch.zeros(1).expand(2**31 + 5).requires_grad_()
facts = facts_of(p)
assert facts["numel"] == 2**31 + 5, facts
from optlang.philox import words
index = torch.tensor([0, 2**31 + 4, 2**32 + 7])
assert len(set(words(index, 1, 0, 0, 0)[0].tolist())) == 3
from optlang.backends.cpp.layout import CHUNK
import numpy as np
assert -(-(2**31 + 5) // CHUNK) * CHUNK >= 2**31 + 5
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # what getrusage tells is the parent's, too
print(int(most) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_more_elements_than_32_bits_count() -> None:
    """A parameter of 2^31 elements that lies in a few bytes: sizes, facts and the streams of draws are of 64 bits."""
    done = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000, "memory in MiB"


def test_many_parameters_take_calls_in_proportion() -> None:
    """Ten times as many parameters: making the optimizer and the first steps call ten times as many functions, later ones hardly more."""

    def calls(count: int) -> list[int]:
        params = [torch.ones(2).requires_grad_() for _ in range(count)]
        for p in params:
            p.grad = torch.ones(2)
        made: list[Any] = []
        found = [called(lambda: made.append(optlang.load("lion", backend="torch")(params)))]
        found += [called(made[0].step) for _ in range(5)]
        assert len(made[0].state) == count
        return found

    calls(10)  # loads and generates
    few, many = calls(300), calls(3000)
    assert all(a < 10.5 * b for a, b in zip(many, few, strict=True))
    assert many[-1] < many[1] / 5


def called(run: Any) -> int:
    """How many functions are called, those of C included, but for those that are told of garbage: other tests leave some."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(see)
    try:
        run()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count
