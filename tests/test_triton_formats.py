"""States and weights in fewer bits in Triton kernels: bit by bit what `formats` says, and steps beside those of torch. 20 seconds."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from stepping import facts, program
from test_formats import WAYS, near_borders, numbers, start, stepped, storage
from torch import Tensor

from optlang.backends.base import Cell, Step
from optlang.backends.formats import FORMATS, Packed, Storage, decoded, encoded

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")

KEEPS = program("rule K { state m = 0  state v = 0  m' = g  v' = 2*g  w' = w + m + v }")
SIZES = (8192, 9001, 4096, 5003)  # with whole chunks, blocks that are cut, and half a byte at the end


def backend() -> Any:
    from optlang.backends.triton import BACKEND

    return BACKEND


def kernels(executable: Any) -> list[Any]:
    return [kernel for kernel in executable._functions._kernels.values() if kernel is not None]


def kept(form: str, gradients: list[Tensor]) -> list[Cell]:
    """What is stored of gradients, by one step."""
    cells = [Cell(torch.zeros_like(g), g, {}, {}, 3, facts(g.shape), i, 0) for i, g in enumerate(gradients)]
    executable = backend().compile(KEEPS, "safe", Storage({"m": FORMATS[form], "v": FORMATS["bf16"]}))
    step = Step(cells, {}, {0: {}}, 7)
    executable.prepare(step)
    executable.step(step)
    assert kernels(executable)
    return cells


@pytest.mark.parametrize("form", ["bf16", "fp8", "int8", "uint8", "int4", "uint4"])
def test_what_is_stored_is_stored_bit_by_bit(form: str) -> None:
    gradients = [numbers(size, i) * 10.0 ** (i - 2) for i, size in enumerate(SIZES)]
    gradients[0][5:7] = torch.tensor([torch.inf, -0.0])
    gradients[1][300], gradients[1][-1] = torch.nan, 1e-38
    gradients[2][:] = 0
    gradients[3][:5] = torch.tensor([448.0, 17, 19, 21, 23])  # halves between numbers of 8 bits
    borders = near_borders(form)
    gradients = [g.abs() if form.startswith("u") else g for g in [*gradients, borders[borders.isfinite()]]]
    for i, (cell, g) in enumerate(zip(kept(form, gradients), gradients, strict=True)):
        counter = torch.tensor([3, 7, i])
        parts = encoded(g, FORMATS[form], counter, 1)
        found = [cell.state["m"], cell.state[f"m.{form}"]] if FORMATS[form].block else [cell.state["m"]]
        for mine, theirs in zip(found, parts, strict=True):
            same = mine.view(torch.uint8) == theirs.view(torch.uint8)
            bad = decoded(parts, FORMATS[form], g.shape).isnan()  # of what is no number, any code will do
            assert bool(same.all()) or bool(bad.any()), (form, i, (~same).nonzero()[:5])
        torch.testing.assert_close(decoded(tuple(found), FORMATS[form], g.shape), decoded(parts, FORMATS[form], g.shape), equal_nan=True)


@pytest.mark.parametrize(("state", "weights"), WAYS)
def test_steps_are_those_of_torch(state: str, weights: str) -> None:
    """From the same start; a number on the border of two levels may go to either, and then they part by one level."""
    from optlang.backends.torch import BACKEND as TORCH

    own, dtype = storage(state, weights), torch.bfloat16 if weights else torch.float32
    mine, theirs = (stepped(chosen, own, 2, dtype) for chosen in (backend(), TORCH))
    for one, other in zip(mine, theirs, strict=True):
        assert one.state.keys() == other.state.keys()
        for name in own.states:
            a, b = (own.state(name, cell.state, cell.weights) for cell in (one, other))
            a, b = (x.open() if isinstance(x, Packed) else x for x in (a, b))
            assert torch.isclose(a, b, rtol=1e-5, atol=1e-30).float().mean() > 0.995, name
        assert torch.isclose(one.weights.float(), other.weights.float(), rtol=1e-4, atol=1e-5).float().mean() > 0.99


def test_memory_that_is_not_aligned() -> None:
    """Gradients that begin anywhere: the same codes."""
    base = numbers(20_000)
    plain, moved = kept("int8", [base[1:9001].clone()]), kept("int8", [base[1:9001]])
    assert torch.equal(plain[0].state["m"], moved[0].state["m"])


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_all_of_it_reads_what_was_stored(name: str) -> None:
    """A rule that goes over the states twice, as it needs their norm."""
    from optlang.backends.torch import BACKEND as TORCH

    rule = program("rule N { state m = 0  m' = 0.9*m + g  w' = w - 0.1*m'/norm(m + g) }")
    found = []
    for chosen in (backend(), TORCH):
        executable = chosen.compile(rule, "safe", Storage({"m": FORMATS[name]}))
        weights = [w.clone() for w in start()]
        cells = [Cell(w, None, {}, {}, 0, facts(w.shape), i, 0) for i, w in enumerate(weights)]
        for t in (1, 2, 3):
            for cell in cells:
                cell.t, cell.gradient = t, numbers(cell.weights.numel(), 10 * t + cell.index, 2).reshape(cell.weights.shape)
            step = Step(cells, {}, {0: {}}, 7)
            executable.prepare(step)
            executable.step(step)
        found.append(weights)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_packed_memory_out_of_order_goes_the_torch_way() -> None:
    weights = torch.zeros(64, 128, dtype=torch.bfloat16).T
    cell = Cell(weights, torch.ones_like(weights), {}, {}, 1, facts(weights.shape), 0, 0)
    executable: Any = backend().compile(program("rule S { w' = w - 0.1*g }"), "safe", Storage({}, FORMATS["stochastic"]))
    step = Step([cell], {}, {0: {}}, 7)
    executable.prepare(step)
    executable.step(step)
    assert not kernels(executable)
    assert isinstance(executable.storage.weight(cell.state, weights), Packed)
    assert abs(float(weights.float().mean()) + 0.1) < 1e-3
