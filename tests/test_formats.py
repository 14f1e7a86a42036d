"""States and weights in fewer bits: the formats by themselves, and steps with them in C++ beside torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import program
from torch import Tensor

import optlang
from optlang.backends import formats
from optlang.backends.base import Cell, Step
from optlang.backends.cpp import BACKEND as CPP
from optlang.backends.cpp import storage as cpp_storage
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.formats import FORMATS, REST, Storage, decoded, encoded
from optlang.backends.kernels import build
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch import BACKEND as TORCH

ADAMW = optlang.Rule("adamw").program
TABLES = ("int8", "uint8", "int4", "uint4")
COARSEST = {"int8": 0.0071, "uint8": 0.0036, "int4": 0.1126, "uint4": 0.0626, "fp8": 0.0358}  # of the largest: half the widest gap
SHAPES = ((70, 70), (4096,), (5000,), (3, 41, 37), (7,), ())
SETTINGS = {"lr": 0.03, "beta1": 0.8, "beta2": 0.95, "eps": 0.01, "weight_decay": 0.1}


def numbers(count: int, seed: int = 0, decades: float = 6) -> Tensor:
    """Of sizes over many decades, as moments are."""
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=source) * 10 ** (-decades * torch.rand(count, generator=source))


# ---------------------------------------------------------------------------------------------------- formats alone


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str) -> None:
    levels = formats.levels(name)
    assert len(levels) == 2 ** FORMATS[name].bits and bool((levels.diff() > 0).all()) and levels[-1] == 1
    assert (levels[0] < 0) == (not name.startswith("u"))


@pytest.mark.parametrize("name", [*TABLES, "fp8"])
@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 700), seed=st.integers(0, 100), exponent=st.integers(-30, 30))
def test_what_is_stored_comes_back_nearly(name: str, count: int, seed: int, exponent: int) -> None:
    form = FORMATS[name]
    x = numbers(count, seed) * 2.0**exponent
    x = x.abs() if name.startswith("u") else x
    found = decoded(encoded(x, form), form, x.shape)
    for block, stored in zip(x.split(form.block), found.split(form.block), strict=True):
        largest = block.abs().amax() if len(block) else torch.tensor(0.0)
        assert bool(((block - stored).abs() <= COARSEST[name] * largest + 1e-12).all())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 255, 257])
def test_as_many_bytes_are_stored_as_is_said(name: str, count: int) -> None:
    parts = tuple(part.nbytes for part in encoded(torch.zeros(count), FORMATS[name]))
    assert parts == FORMATS[name].bytes_of_parts(count) and sum(parts) == FORMATS[name].bytes_of(count)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_value_between_two_levels_goes_to_the_nearer_one(name: str) -> None:
    levels = formats.levels(name).double()
    middles = ((levels[1:] + levels[:-1]) / 2)[1:]
    for shift, expected in ((1 - 1e-5, -1), (1 + 1e-5, 1)):
        x = torch.cat([torch.ones(1), (middles * shift).float()])
        stored = encoded(x, FORMATS[name])[0]
        codes = formats._single(stored, len(x)) if name == "int4" else stored
        away = torch.where(middles < 0, -expected, expected)
        assert codes[1:].tolist() == (torch.arange(1, len(middles) + 1) + (away > 0)).tolist()


@pytest.mark.parametrize("name", [*TABLES, "fp8"])
def test_new_states_of_zeros_are_stored_as_any(name: str) -> None:
    for x in (torch.zeros(4999), torch.zeros(70, 70), torch.zeros(0), torch.cat([torch.zeros(5000), torch.ones(1)])):
        for one, other in zip(formats.begun(x, FORMATS[name]), encoded(x, FORMATS[name]), strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)


def test_against_torchao() -> None:
    """The maps, the codes and the scales of an independent implementation of the same formats."""
    ao = pytest.importorskip("torchao.optim.quant_utils")
    x = numbers(256 * 40, 3)
    for signed, name in ((True, "int8"), (False, "uint8")):
        values = x if signed else x.abs()
        scaled, scale = ao.scale_tensor(values, 256)
        codes, own = encoded(values, FORMATS[name])
        level = torch.tensor(ao.create_dynamic_map(signed))
        assert torch.equal(level, formats.levels(name))
        assert torch.equal(own, scale.reshape(-1))
        assert torch.equal(codes, ao.quantize_8bit_with_qmap(scaled, level).reshape(-1))
    assert torch.equal(torch.tensor(ao.create_dynamic_map(True, 3, 4)), formats.levels("int4"))


def test_rounding_at_random_keeps_the_mean() -> None:
    x = torch.tensor([1.001, -1.001, 3.3e-5, -7e8]).repeat_interleave(100_000)
    found = formats.rounded(x, torch.tensor([5, 1, 2]), 3).double().reshape(4, -1)
    assert [len(row.unique()) for row in found] == [2, 2, 2, 2]
    spread = (found.amax(1) - found.amin(1)) / 2 / np.sqrt(found.shape[1])
    assert bool(((found.mean(1) - x.reshape(4, -1)[:, 0].double()).abs() < 4 * spread).all())


def test_rounding_leaves_what_is_no_number() -> None:
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 0.0, 1.5])
    found = formats.rounded(x, torch.tensor([1, 0, 0]), 0).float()
    torch.testing.assert_close(found, x, rtol=0, atol=0, equal_nan=True)


def test_a_compensated_weight_has_twice_the_digits() -> None:
    x = numbers(1000)
    form = FORMATS["compensated"]
    found = decoded(encoded(x, form), form, x.shape)
    assert bool(((found - x).abs() <= x.abs() * 2.0**-16).all())


# --------------------------------------------------------------------------------------------------- whole steps


def start(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(n)).to(dtype) for n, shape in enumerate(SHAPES)]


def stepped(backend: Any, storage: Storage, steps: int, dtype: torch.dtype = torch.float32, exact: bool = False) -> list[Cell]:
    """Cells after some steps of AdamW with gradients over many decades."""
    weights = start(dtype)
    if exact:
        weights = [w.double() for w in weights]
    cells = [Cell(w, None, {}, SETTINGS, 0, {"rank": w.ndim, "numel": w.numel()}, n, 0) for n, w in enumerate(weights)]
    executable = backend.compile(ADAMW, "safe", storage)
    functions = getattr(executable, "_functions", None)
    for t in range(1, steps + 1):
        for cell in cells:
            w = cell.weights
            cell.t, cell.gradient = t, numbers(w.numel(), 100 * t + cell.index, 3).reshape(w.shape).to(w.dtype)
        step = Step(cells, {}, {0: {}}, 4)
        executable.prepare(step)
        executable.step(step)
    if isinstance(functions, CppFunctions):
        assert functions._kernels and None not in functions._kernels.values()
    return cells


def storage(state: str = "", weights: str = "") -> Storage:
    forms = {"m": FORMATS[state], "v": FORMATS[FORMATS[state].unsigned or state]} if state else {}
    return Storage(forms, FORMATS[weights] if weights else None)


WAYS = [("bf16", ""), ("fp8", ""), ("int8", ""), ("int4", ""), ("", "stochastic"), ("", "compensated")]
WAYS += [("int8", "compensated"), ("bf16", "stochastic")]


@pytest.mark.parametrize(("state", "weights"), WAYS)
def test_cpp_stores_what_torch_stores(state: str, weights: str) -> None:
    """Codes may differ where rounding of float32 decides; everything else agrees closely."""
    dtype = torch.bfloat16 if weights else torch.float32
    own = storage(state, weights)
    ours, theirs = (stepped(backend, own, 3, dtype) for backend in (CPP, TORCH))
    for one, other in zip(ours, theirs, strict=True):
        assert one.state.keys() == other.state.keys()
        for name in own.states:
            a, b = (own.state(name, cell.state, cell.weights) for cell in (one, other))
            if isinstance(a, Tensor) or isinstance(b, Tensor):
                torch.testing.assert_close(a, b)
                continue
            same = torch.isclose(a.open(), b.open(), rtol=1e-5, atol=1e-30)
            assert same.float().mean() > 0.995, name
        torch.testing.assert_close(one.weights.float(), other.weights.float(), rtol=0.02, atol=0.02)
        assert torch.isclose(one.weights.float(), other.weights.float(), rtol=1e-4, atol=1e-5).float().mean() > 0.99


NAMES = ("int8", "uint8", "int4", "uint4", "fp8", "bf16")
LINES = "hyper of_{0} = 0\nstate {0} = 0\n{0}' = {1}\n"
HOLDS = f"""rule Holds {{
hyper lr = 1
{"".join(LINES.format(name, "abs(g)" if name.startswith("u") else "g") for name in NAMES)}
w' = w + {" + ".join(f"of_{name}*{name}" for name in NAMES)}
}}"""


def between_fp8() -> Tensor:
    """The middles between neighbouring numbers of e4m3, as parts of its largest."""
    levels = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (levels[1:] + levels[:-1]) / 2 / 448
    return torch.cat([middles, -middles])


def near_borders(name: str) -> Tensor:
    """Numbers on and around all borders of a format, in blocks whose largest are powers of two, and random ones; and what is not finite."""
    borders = formats.borders(name) if name in TABLES else between_fp8() if name == "fp8" else torch.linspace(-1, 1, 700)
    if name in TABLES:
        ends = torch.tensor(cpp_storage.ends()) / cpp_storage.whole(name)
        borders = torch.cat([borders, *(ends * (1 + off * 2.0**-18) for off in range(-6, 7))])
    least, most = torch.tensor(-torch.inf), torch.tensor(torch.inf)
    beside = [torch.nextafter(borders, least), torch.nextafter(borders, most), torch.tensor([1e-40, -0.0, -1])]
    x = torch.cat([borders, *beside, numbers(4500)])
    x = x.clamp(0 if name.startswith("u") else -1, 1).split(FORMATS[name].block - 1 if FORMATS[name].block else 255)
    blocks = [torch.cat([torch.ones(1), some]) for some in x]
    sizes = torch.exp(40 * torch.rand(len(blocks), generator=torch.Generator().manual_seed(0)) - 20)
    scaled = (block * size for block, size in zip(blocks, sizes, strict=True))
    return torch.cat([*(block * 2.0**-20 for block in blocks), *scaled, *(blocks[0] * size for size in (3e38, torch.inf, torch.nan))])


PROCESSORS = {"this processor": (), "vectors of eight": ("-mno-avx512f",), "vectors of four": ("-mno-avx512f", "-mno-avx2")}


@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_cpp_finds_the_very_codes_and_levels(processor: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """On every border and beside it, bit for bit; the last block is not full, and of codes of 4 bits the last is alone. Then what codes
    stand for, all of them."""
    monkeypatch.setattr(build, "FLAGS", build.FLAGS + processor)
    x = torch.cat([torch.nn.functional.pad(near := near_borders(name), (0, -near.numel() % 256)) for name in NAMES])
    x = torch.cat([x, numbers(131)])
    nothing = {"lr": 1.0} | {f"of_{name}": 0.0 for name in NAMES}
    cell = Cell(torch.zeros_like(x), x, {}, nothing, 7, {"rank": 1, "numel": x.numel()}, 22, 0)
    kept = Storage({name: FORMATS[name] for name in NAMES})
    executable = CPP.compile(program(HOLDS), "safe", kept)

    def step(settings: dict[str, Any]) -> None:
        cell.hypers, cell.weights = settings, torch.zeros_like(x)
        executable.prepare(one := Step([cell], {}, {0: {}}, 23))
        executable.step(one)

    step(nothing)
    opened = {}
    for name in NAMES:
        stored = kept.state(name, cell.state, x)
        assert isinstance(stored, formats.Packed)
        value = x.abs() if name.startswith("u") else x
        for part, wanted in zip(stored.parts, encoded(value, FORMATS[name], torch.tensor([7, 23, 22]), stored.place), strict=True):
            torch.testing.assert_close(part.float(), wanted.float(), rtol=0, atol=0, equal_nan=True)
        opened[name] = stored.open()
        codes = formats._single(stored.parts[0], x.numel()) if FORMATS[name].bits == 4 else stored.parts[0]
        assert name not in TABLES or len(codes.unique()) == 2 ** FORMATS[name].bits
    finite = torch.stack(list(opened.values())).isfinite().all(0)
    for name, found in opened.items():
        step(nothing | {f"of_{name}": 1.0})
        assert torch.equal(cell.weights[finite], found[finite]), name


def half_a_step(x: Tensor) -> Tensor:
    """What rounding to float32 may add to numbers or take from them."""
    return 2.0 ** (x.abs().log2().floor() - 24)


@pytest.mark.parametrize("name", TABLES)
def test_lines_say_where_borders_are(name: str) -> None:
    """What rounding may add to it leaves each within the margin: of the factor, the product with it and the quotient that it stands for;
    of the products and sums that make two lines, and of the place to a whole number."""
    zero, steps, whole = cpp_storage.zero(name), cpp_storage.STEPS, cpp_storage.whole(name)
    borders = formats.borders(name).double()[max(0, zero) :]
    x = borders * whole
    bins = (x.float().view(torch.int32).double() / cpp_storage.BIN).round().long() % 8
    slopes, heights, others = cpp_storage.bins(name).double()[:, bins]
    line = slopes * x + heights
    other = 2 * line + others
    is_other, place = other < line, torch.minimum(line, other)
    of_line = half_a_step(slopes * x) + half_a_step(line)
    rounded = torch.where(is_other, 2 * of_line + half_a_step(2 * line) + half_a_step(other), of_line) + 1
    rounded += torch.where(is_other, 2, 1) * slopes * (2.0**-24 * x + half_a_step(x) + half_a_step(borders) * whole)
    off = (place / steps - cpp_storage.MARGIN - torch.arange(1, len(borders) + 1)).abs() + rounded / steps
    assert off.max() < cpp_storage.MARGIN


@pytest.mark.parametrize("backend", [CPP, TORCH], ids=["cpp", "torch"])
@pytest.mark.parametrize("state", ["bf16", "fp8", "int8"])
def test_steps_stay_near_those_in_full_precision(state: str, backend: Any) -> None:
    ours, exact = stepped(backend, storage(state), 5), stepped(REFERENCE, Storage(), 5, exact=True)
    for one, other, before in zip(ours, exact, start(), strict=True):
        way = (other.weights - before.double()).norm()
        assert (one.weights.double() - other.weights).norm() < 0.06 * way


def test_compensated_weights_follow_float32_where_plain_ones_do_not() -> None:
    exact = stepped(REFERENCE, Storage(), 60, torch.bfloat16, exact=True)
    kept = storage("", "compensated")
    ours, plain = stepped(CPP, kept, 60, torch.bfloat16), stepped(CPP, Storage(), 60, torch.bfloat16)
    off = [[away(cell, other) for cell, other in zip(some, exact, strict=True)] for some in (ours, plain)]
    assert all(one < 0.1 * other for one, other in zip(*off, strict=True) if other > 0.01)


def away(cell: Cell, exact: Cell) -> float:
    """How far weights are from exact ones, with what rounding took away put back."""
    rest = cell.state.get(REST, torch.zeros(())).double()
    return float((cell.weights.double() + rest - exact.weights).norm())


def test_small_parameters_keep_float32() -> None:
    cells = stepped(CPP, storage("int8"), 1)
    kinds = {tuple(cell.weights.shape): sorted(cell.state) for cell in cells}
    assert kinds[(7,)] == ["m", "v"] and kinds[(4096,)] == ["m", "m.int8", "v", "v.uint8"]
    assert cells[0].state["m"].dtype == torch.uint8 and cells[4].state["m"].dtype == torch.float32
