"""Rows, columns and matrices in C++ beside the reference: shapes that fill chunks, end in one, or have nothing in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from stepping import program, shapes_for
from torch import Tensor
from torch_pairs import Pair, tensors

import optlang
from optlang import ir
from optlang.backends.cpp import BACKEND, source
from optlang.backends.cpp.layout import CHUNK, LEAST_ROWS, WAVE, Room, layout
from optlang.backends.cpp.source import REGISTERS
from optlang.backends.kernels import functions as kernel_functions
from optlang.bench.models import MODELS

EVERYTHING = """rule Everything { hyper lr = 0.01 in (0, inf)
  state m = 0
  state r per row = 1
  state c per col = 0
  state seen per row = 0
  state q per matrix = 0
  state k per tensor = 0
  r' = 0.5*r + mean(g^2 per row) + 0.1*max(g per row)
  seen' = seen + r
  c' = 0.5*c + 0.1*sum(abs(g) per col) + 0.1*min(g per col) + mean(g*r' per col)
  q' = 0.9*q + mean(r' per matrix) + 0.1*max(c' per matrix) + 0.01*sum(g per matrix) + min(g per matrix)
  k' = 0.5*k + mean(q') + max(r') - min(c') + mean(g)
  m' = 0.9*m + g*uniform()/(1 + abs(r' + c' + q'))
  w' = w - lr*(m' + 0.001*seen' + tanh(k')*count(g per row)/(1 + count(r') + count(g per matrix)))
}"""
CONVOLVING = """rule Convolving { hyper lr = 0.01 in (0, inf)
  state m = 0
  x  = as_matrix(g)
  m' = 0.9*m + as_param(x*sum(x per col)/(1 + norm(x per row)) + mean(x per matrix))
  w' = w - lr*m'/(1 + norm(m'))
}"""
RUNNING = """rule Running { hyper lr = 0.01 in (0, inf)
  state m = 0
  state v per 24 = 1
  state seen per 24 = 0
  v' = 0.5*v + mean(g^2 per 24) + 0.1*max(g per 24)
  seen' = seen + v
  m' = 0.9*m + g*uniform()/(1 + abs(v'))
  w' = w - lr*(m' + 0.001*seen' + tanh(mean(v') + max(v') + sum(g))*count(g per 24)/(1 + count(v')))
}"""
SMALL = [(4, 5), (1, 1), (40, 1), (1, 40), (3, 4, 5, 6)]
LARGE = [(2 * LEAST_ROWS + 76, 40), (2, LEAST_ROWS + 188, 30), (3, CHUNK + 3000), (300, 7, 3, 3), (9000, 2)]
NONE = [(0, 5), (5, 0), (2, 0, 3), (0, 2, 3)]
LIBRARY = ("adafactor", "came", "sm3", "adamwsubsetnormlines", "adamwsubsetnorm", "scioncolumns", "ranger21")


def stepped(rule: ir.Program, given: list[Tensor], steps: int = 3, threads: int = 2) -> Pair:
    """Steps compared one by one, all in C++."""
    both = Pair(rule, given, executable=BACKEND.compile(rule, "safe"))
    both.threads = threads
    both.tolerance = 1e-5
    for _ in range(steps):
        both.step()
    assert {both.ours.way(cell.index).backend for cell in both.taken.cells} == {"cpp"}
    return both


@pytest.mark.parametrize("text", [EVERYTHING, CONVOLVING], ids=["everything", "convolving"])
def test_all_kinds_of_values(text: str) -> None:
    stepped(program(text), tensors(SMALL + LARGE))


@pytest.mark.parametrize("text", [EVERYTHING, CONVOLVING], ids=["everything", "convolving"])
def test_nothing_in_a_parameter(text: str) -> None:
    stepped(program(text), tensors([*NONE, (3, 4)]))


def test_elements_that_follow_each_other() -> None:
    stepped(program(RUNNING), tensors([*SMALL, *LARGE, *NONE, (7,), (CHUNK + 1,), (2 * CHUNK,)]))


@pytest.mark.parametrize("name", LIBRARY)
def test_rules_of_the_library(name: str) -> None:
    rule = optlang.Rule(name).program
    assert isinstance(rule, ir.Program)
    stepped(rule, tensors(shapes_for(rule, [*SMALL, *LARGE, (7,)])), 2)


def test_short_rows_of_any_length_and_number() -> None:
    """Strips end within matrices and with them, and within vectors."""
    shapes = [(5, 4, 3), (300, 3, 3), (700, 12), (2000, 1), (40, 7, 5), (3, 90, 8), (1, 15), (6000, 11)]
    stepped(program(EVERYTHING), tensors(shapes))
    stepped(program(EVERYTHING.replace("g*uniform()", "g")), tensors(shapes))


def test_many_numbers_are_read_where_they_lie() -> None:
    """More than there are registers."""
    many = " + ".join(f"h{k}*g^{k % 3 + 1}/r'" for k in range(2 * REGISTERS))
    hypers = " ".join(f"hyper h{k} = {k / 100} in (-inf, inf)" for k in range(2 * REGISTERS))
    rule = program(f"rule Many {{ {hypers} state r per row = 1 r' = 0.5*r + norm(g per row) w' = w - 1e-4*({many}) }}")
    both = stepped(rule, tensors([*SMALL, (700, 12), (300, 40)]))
    [text] = [loaded.kernel.text for loaded in both.ours._functions._kernels.values()]
    assert f"row[{REGISTERS}]" in text


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_number_types(dtype: torch.dtype) -> None:
    stepped(program(EVERYTHING), tensors([*SMALL, LARGE[0]], dtype))


def test_memory_in_any_order() -> None:
    given = [tensors([(40, 700)])[0].T, tensors([(40, 30)])[0][::2, ::3], tensors([(4, 3, 8, 8)])[0].to(memory_format=torch.channels_last)]
    stepped(program(EVERYTHING), given)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And any number of tensors that go through all passes before the next ones."""
    results = []
    monkeypatch.setattr(kernel_functions, "kept_code", lambda make, *_: make())  # each has texts of its own
    for threads, chunks in ((1, source.WAVE), (2, source.WAVE), (3, source.WAVE), (2, 1)):
        monkeypatch.setattr(source, "WAVE", chunks)
        results.append(stepped(program(EVERYTHING), tensors(SMALL + LARGE), threads=threads).weights)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_an_infinite_gradient_and_one_that_is_no_number() -> None:
    given = tensors([(600, 40), (4, 5)])
    both = Pair(program(EVERYTHING), given, executable=BACKEND.compile(program(EVERYTHING), "safe"))
    both.in_numbers = False
    for value in (torch.inf, torch.nan):
        both.gradient = lambda like, value=value: torch.full_like(like, 0.5).index_fill_(0, torch.tensor([3]), value)  # type: ignore[method-assign]
        both.step()


@pytest.mark.parametrize("rule", ["adafactor", "came", "sm3", "adamp", "ranger21", "adamwsubsetnorm", "perparametermlp"])
def test_room_beside_a_model_is_small(rule: str) -> None:
    """What rows, columns and chunks of GPT-2 small need is less than 1 % of the parameters, if these are in bfloat16."""
    made = optlang.Rule(rule).program
    assert isinstance(made, ir.Program)
    both = stepped(made, tensors([(40, 30)]), 1)
    shapes = [tuple(shape) for shape in MODELS["gpt2"]() if len(shape) > 1]
    found: Any = both.ours
    for kernel in [loaded.kernel for loaded in found._functions._kernels.values() if loaded.kernel.room]:
        of = layout(kernel.room, shapes)
        assert of.lines.nbytes + 8 * kernel.sums * (len(shapes) + of.starts[-1]) < 0.01 * 2 * sum(math.prod(shape) for shape in shapes)


def test_a_wave_takes_the_room_of_the_one_before() -> None:
    found = layout(Room(1, 1, 1, 1, "param"), [(40, 50)] * 3 * WAVE * 8)
    ends = found.shapes[:, 8].tolist()
    for first in sorted({0, *ends} - {len(ends)}):
        last = ends[first]
        assert found.starts[last] - found.starts[first] <= WAVE and found.shapes[first, 6] == 0
        assert last == len(ends) or found.starts[last + 1] - found.starts[first] > WAVE
        assert (found.shapes[first + 1 : last, 6] >= found.shapes[first : last - 1, 6] + 40 + 50 + 1).all()
    assert len(set(ends)) > 2 and found.lines.size == WAVE * (40 + 50 + 1) + 1


def test_chunks_hold_each_row_once() -> None:
    for shape in SMALL + LARGE + NONE:
        [(batch, rows, _, per, many, chunks, *_)] = layout(Room(0, 0, 0, 1, "param"), [shape]).shapes.tolist()
        parts = -(-rows // per) if per < rows else 1
        assert chunks * many >= batch * parts > (chunks - 1) * many and (many == 1 or parts == 1)
