"""Kernels in Triton's interpreter, all programs at once, beside the interpreter as it is, which takes one after the other. 10 seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton does not interpret", allow_module_level=True)

import triton
import triton.language as tl
import whole_grid
from torch._inductor.runtime import triton_helpers
from triton.runtime import interpreter
from whole_grid import all_programs_at_once, launched


@triton.jit
def after(a: Any, b: Any, c: Any, d: Any) -> Any:
    """`c*(a*x + b) + d`: in this order, and in no other."""
    return a * c, c * b + d


@triton.jit
def larger(a: Any, i: Any, b: Any, j: Any) -> Any:
    return tl.where(a >= b, a, b), tl.where(a >= b, i, j)


@triton.jit
def elements(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """A tail, a mask, and numbers of two types."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < count, other=0.0)
    tl.store(out + at, tl.exp(value) + tl.num_programs(0) + (at % 7).to(tl.float32), at < count)


@triton.jit
def rows(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """Over rows of blocks in two dimensions, in a loop with a tail; into a column of each answer."""
    row = tl.program_id(0) * 4 + tl.arange(0, 4)[:, None]
    total = tl.zeros([4, BLOCK], tl.float32)
    most = tl.full([4], float("-inf"), tl.float32)
    for begin in tl.range(0, count, BLOCK):
        column = begin + tl.arange(0, BLOCK)[None, :]
        value = tl.load(x + row * count + column, (row < 30) & (column < count), other=0.0)
        total += value
        best, place = tl.reduce((value, tl.broadcast_to(column.to(tl.float32), [4, BLOCK])), 1, larger)
        most = tl.maximum(most, best + place)
    where = out + 4 * (tl.program_id(0) * 4 + tl.arange(0, 4))
    inside = tl.program_id(0) * 4 + tl.arange(0, 4) < 30
    tl.store(where, tl.sum(total, 1), inside)
    tl.store(where + 1, most, inside)
    tl.store(where + 2, tl.max(tl.sum(total, 1), 0), inside)
    tl.store(where + 3, tl.sum(total) + tl.min(tl.trans(total), 0), inside)


@triton.jit
def along(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """Scans in both directions, and blocks that are taken apart and put together."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < count, other=0.0)
    pair = (0.5 + 0 * value, value)
    found = tl.cumsum(value, 0) + tl.associative_scan(pair, 0, after)[1] - tl.associative_scan(pair, 0, after, reverse=True)[1]
    even, odd = tl.split(tl.reshape(found, [BLOCK // 2, 2]))
    tl.store(out + at, tl.reshape(tl.join(odd, even), [BLOCK]), at < count)


@triton.jit
def largest(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    at = tl.arange(0, BLOCK)
    tl.store(out + at, triton_helpers.max2(tl.load(x + at), 0), at < count)


@triton.jit
def apart(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """Programs go different ways, after they have written."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(out + at, at < count) + 1, at < count)
    if tl.program_id(0) > 1:
        tl.store(out + at, 2 * tl.load(x + at, at < count) + tl.load(out + at, at < count), at < count)


@triton.jit
def twice(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """Over a grid of two dimensions, of which every program has a number of its own."""
    at = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < count) * tl.program_id(1), at < count)


@triton.jit
def ordered(x: Any, out: Any, count: Any, BLOCK: tl.constexpr) -> Any:
    """As torch's compiler sorts, with a place for each number; what lies beyond a count comes last."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    place = tl.arange(0, BLOCK)[None, :].to(tl.int16)
    value, where = triton_helpers.sort_with_index(tl.load(x + at)[None, :], place, BLOCK - 5, 1, stable=True, descending=True)
    tl.store(out + at[None, :], value + where.to(tl.float32), at[None, :] < count)


CASES = [(elements, (8,)), (rows, (8,)), (along, (8,)), (ordered, (8,)), (apart, (8,)), (twice, (4, 2))]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many programs went together."""
    found: list[int] = []
    run = whole_grid._launched

    def noted(*given: Any) -> None:
        found.append(given[-1])
        run(*given)

    monkeypatch.setattr(whole_grid, "_launched", noted)
    yield found


@pytest.mark.parametrize(("kernel", "grid"), CASES, ids=[kernel.__name__ for kernel, _ in CASES])
@pytest.mark.parametrize("most", [whole_grid.MOST, 200], ids=["all", "some"])
def test_as_one_after_the_other(
    kernel: Any, grid: tuple[int, ...], most: int, monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    """All together, and in parts of a few."""
    monkeypatch.setattr(whole_grid, "MOST", most)
    x = torch.randn(30 * 75, generator=torch.Generator().manual_seed(0))
    count, block = (75, 32) if kernel is rows else (500, 64)
    wanted, found = torch.zeros(500), torch.zeros(500)
    kernel[grid](x, wanted, count, BLOCK=block)
    with all_programs_at_once():
        launched(kernel, (x, found, count), grid, {"BLOCK": block})
    assert_near(found, wanted)
    assert counted == ([most // block, 1] if kernel is apart else [most // block])


def test_numbers_that_are_none_come_first() -> None:
    """Where the interpreter as it is takes the larger of two and leaves these out."""
    x, out = torch.tensor([1.0, torch.nan, 3.0, 2.0]), torch.zeros(4)
    with all_programs_at_once():
        launched(largest, (x, out, 4), (1,), {"BLOCK": 4})
    assert out.isnan().all()


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Sums go in another order."""
    assert wanted.count_nonzero() > 100
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_interpreter_is_as_it_was_afterwards() -> None:
    def state() -> list[Any]:
        return [tl.load, tl.reduce, vars(tl.core.tensor).get("__bool__"), interpreter.ReduceOps, interpreter._patch_lang]

    before = state()
    with all_programs_at_once():
        assert all(now is not was for now, was in zip(state(), before, strict=True))
    assert state() == before
