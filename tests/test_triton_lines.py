"""Rows, columns and matrices in Triton's interpreter beside the reference: shapes of every kind of tile."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stepping import program
from test_cpp_lines import CONVOLVING, EVERYTHING, RUNNING
from torch import Tensor
from torch_pairs import Pair, tensors

import optlang
from optlang import ir
from optlang.analysis.costs import stages
from optlang.backends.base import StepError
from optlang.backends.kernels.passes import refuses
from optlang.backends.outputs import is_slot
from optlang.bench.footprint import Footprint, outputs_of, types_of
from optlang.library import names
from optlang.plan import plan
from optlang.simplify import simplify

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")

from optlang.backends.triton import layout as layouts  # noqa: E402 - which wants no Triton
from optlang.backends.triton.layout import BLOCK, BROAD, CHUNKS, FULL, MANY, WIDE, Room, layout, tile  # noqa: E402
from optlang.backends.triton.lines import generate  # noqa: E402
from optlang.backends.triton.source import Kernel  # noqa: E402

ROWS = """rule Rows { hyper lr = 0.01 in (0, inf)
  state m = 0
  state r per row = 1
  state c per col = 1
  r' = 0.5*r + mean(g^2 per row) + 0.1*max(g*c per row)
  c' = 0.5*c + 0.1
  q  = sum(g*r' per matrix) + min(g per matrix)
  m' = 0.9*m + g*c'/(1 + abs(r' + q + mean(g)) + sum(m per row)^2)
  w' = w - lr*(m' + 0.1*mean(r')*count(g per row))
}"""
SMALL = [(4, 5), (1, 1), (3, 2, 5, 6), (0, 5), (5, 0), (2, 0, 3)]  # several matrices in a tile
LARGE = [(70, 300), (2, 40, 33), (600, 2), (1, 1500), (36, 512), (40, 768), (2, 8500)]  # chunks beside each other, whole and not


def stepped(text: str, given: list[Tensor], steps: int = 2) -> Pair:
    """Steps compared one by one, all in Triton."""
    from optlang.backends.triton import BACKEND

    both = Pair(program(text), given, executable=BACKEND.compile(program(text), "safe"))
    both.tolerance = 1e-5
    for _ in range(steps):
        both.step()
    assert {both.ours.way(cell.index).backend for cell in both.taken.cells} == {"triton"}
    return both


@pytest.mark.parametrize("given", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("text", [EVERYTHING, CONVOLVING, ROWS], ids=["everything", "convolving", "rows"])
def test_all_kinds_of_values(text: str, given: list[tuple[int, ...]]) -> None:
    stepped(text, tensors(given))


def test_elements_that_follow_each_other() -> None:
    stepped(RUNNING, tensors([(4, 5), (40, 30), (7,), (0,), (), (1037,)]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_number_types(dtype: torch.dtype) -> None:
    stepped(EVERYTHING, tensors([(4, 5), (70, 300)], dtype))


def test_memory_in_any_order() -> None:
    whole = tensors([(33, 512)])[0]
    stepped(EVERYTHING, [tensors([(40, 70)])[0].T, whole[1:], tensors([(1, 16 * 32 + 1)])[0][0, 1:].view(16, 32)])


def test_a_step_repeats_itself() -> None:
    found = [stepped(EVERYTHING, tensors([*SMALL, (70, 30)])).weights for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_infinite_gradient_and_one_that_is_no_number() -> None:
    from optlang.backends.triton import BACKEND

    both = Pair(program(EVERYTHING), tensors([(40, 300), (4, 5)]), executable=BACKEND.compile(program(EVERYTHING), "safe"))
    both.in_numbers = False
    for value in (torch.inf, torch.nan):
        both.gradient = lambda like, value=value: torch.full_like(like, 0.5).index_fill_(0, torch.tensor([3]), value)  # type: ignore[method-assign]
        both.step()


def test_packed_states_beside_rows_go_the_torch_way() -> None:
    """Blocks do not end where rows do."""
    w = torch.nn.Parameter(torch.ones(64, 128))
    w.grad = torch.ones(64, 128)
    optimizer = optlang.load("came", backend="triton", state="int8")([w])  # type: ignore[call-arg]
    optimizer.step()
    assert "has a state real per row" in optimizer.backends()[0].reason  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------------- layout

EACH = {"row": 1, "col": 1, "matrix": 1}


def room(beside: dict[str, int]) -> Room:
    return Room(EACH, [beside], "param", 4, 4, 8)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 100, 3000])
@pytest.mark.parametrize("cols", [0, 1, 2, 3, 100, 3000])
def test_tiles(rows: int, cols: int) -> None:
    """No larger than a block, whole matrices if there are several, and at least as high as wide ones allow."""
    many, high, wide = tile(rows, cols)
    assert many * high * wide <= BLOCK
    assert many == 1 or (high >= rows and wide >= cols)
    assert wide <= WIDE or high * wide >= BLOCK // 2


@pytest.mark.parametrize("beside", [EACH, EACH | {"col": 0}], ids=["down", "right"])
@pytest.mark.parametrize("shape", [*SMALL, *LARGE, (70000, 3), (3, 70000), (9, 768), (5, 1008)])
def test_chunks_hold_each_element_once(shape: tuple[int, ...], beside: dict[str, int]) -> None:
    found = layout(room(beside), [(2, 2), shape])
    _, [batch, rows, cols, _, across, deep, _] = found.shapes.tolist()
    seen = torch.zeros(batch, rows, cols)
    for grid in found.waves[0][CHUNKS]:
        many, high, wide = (grid.constants[name] for name in ("many", "high", "wide"))
        broad = max(1, -(-cols // (wide * across)))
        assert broad == 1 or not beside["col"] or not grid.table[:, 1].any()
        for number, n, first, top, left, whole in grid.table.tolist():
            assert found.starts[n] <= number < found.starts[n + 1]
            part = seen[first : first + many, top : top + high * deep, left : left + wide * broad]
            assert not whole or (part.shape[0], part.shape[2] % wide, part.shape[1] % high) == (many, 0, 0)
            part += n
    assert torch.equal(seen, torch.ones(batch, rows, cols))


def test_rows_end_where_they_begin_if_nothing_is_summed_per_column() -> None:
    """But for very long ones."""
    found = layout(room(EACH | {"col": 0}), [(50, 768), (50, BROAD * WIDE), (50, BROAD * WIDE + 1)])
    assert found.shapes[:, 4].tolist() == [1, 1, 2]


def test_room_beside_a_model_is_small() -> None:
    """What kernels leave of rows, columns and chunks of GPT-2's matrices, in percent of the parameters in bfloat16, for the whole
    library: at most 1, in few waves."""
    shapes = [(50257, 768), (1024, 768), *[(3072, 768), (768, 3072), (768, 768), (2304, 768)] * 12]
    found: dict[str, float] = {}
    waves: dict[str, int] = {}
    for name in names():
        for kernel in kernels_of(name):
            of = layout(kernel.room, shapes)
            share = (4 * of.room + 8 * kernel.sums * of.starts[-1]) / (2 * sum(a * b for a, b in shapes))
            found[name] = max(found.get(name, 0), 100 * share)
            assert of.starts[-1] >= MANY * len(of.waves) - len(shapes)
            waves[name] = max(waves.get(name, 1), len(of.waves))
    assert len(found) > 100
    assert {name: round(share, 2) for name, share in found.items() if share > 1} == {}
    assert {name: some for name, some in waves.items() if some > 1} == WAVED


def test_waves() -> None:
    """Each tensor is in one, which takes the room from its beginning; about as many elements are in each, with many chunks."""
    shapes = [(1024, 1024)] * 40 + [(300, 200)] * 300
    found = layout(replace(room(EACH), weight=2), shapes)
    assert len(found.waves) > 1
    last = 0
    for wave in found.waves:
        some = [n for [n] in wave[layouts.EACH][0].table.tolist()]
        assert some == list(range(last, last := last + len(some)))
        assert {n for grid in wave[CHUNKS] for n in grid.table[:, 1].tolist()} == set(some) == {n for n, _ in wave[layouts.ALONG][0].table}
        begins = found.shapes[some, 6]
        assert begins[0] == 0 and (np.diff(begins) > 0).all() and begins[-1] < found.room
        assert sum(len(grid.table) for grid in wave[CHUNKS]) >= MANY
    assert last == len(shapes)


def test_waves_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for least, count in ((FULL, 1), (1, 3)):
        monkeypatch.setattr(layouts, "FULL", least)
        both: Any = stepped(ROWS, tensors([(4, 5), (70, 30), (33, 70)]), 1)
        [kernel] = both.ours._functions._kernels.values()
        assert [len(tables.waves) for _, tables in kernel.tables.values()] == [count]
        found.append(both.weights)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


WAVED = {"adagradsubsetnorm": 4, "adamwsubsetnorm": 4, "came": 2, "mulo": 2, "perparametermlp": 2}


def kernels_of(name: str) -> list[Kernel]:
    """Those that step a matrix, by the parts of a route."""
    made = optlang.Rule(name).program
    plans = [plan(simplify(one)) for one in ([made] if isinstance(made, ir.Program) else [case.program for case in made.cases])]
    prints = [one for one in (Footprint(some, (1024, 1024)) for some in plans) if steps_matrices(one)]
    everything = [outputs for one in prints for truth in one.truths for outputs in map(outputs_of, stages(one.plan, truth)) if outputs]
    found = []
    for outputs in everything:
        if not refuses(outputs, lined=True):
            roots = [output.node for output in outputs]
            known = ir.on_host(roots)
            types = {node: "bfloat16" if node in (ir.W, ir.G) else word for node, word in types_of(outputs).items()}
            found.append(generate(outputs, [n for n in ir.walk(roots) if is_slot(n, known)], types, False))
    return found


def steps_matrices(one: Footprint) -> bool:
    try:
        return bool(one.truths)
    except StepError:
        return False
