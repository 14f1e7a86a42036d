"""Values per model as C++ reads, reduces and writes them. 1 second."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from optlang.backends.repeated.singles import Reduction, Singles
from optlang.meaning import OVER_VALUES

SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 127, 128, 129, 200, 255, 256, 257, 1000, 4097)


def reduced(ops: list[str], shares: list[float], answers: Any) -> list[float]:
    row = np.zeros(len(ops))
    reduction = Reduction(ops, shares, row, list(range(len(ops))))
    reduction.of(answers)
    reduction.work()
    return row.tolist()


@pytest.mark.parametrize("size", SIZES)
def test_columns_are_reduced_as_numpy_does(size: int) -> None:
    random = np.random.default_rng(size)
    answers = random.standard_normal((size, 4)) * 10.0 ** random.integers(-9, 9, (size, 4))
    found = reduced(["sum", "amax", "amin", "sum"], [1.0, 1.0, 1.0, 3.0], answers)
    columns = np.ascontiguousarray(answers.T)
    expected = [float(OVER_VALUES[op](x, 0)[0]) for op, x in zip(("sum", "amax", "amin", "sum"), columns, strict=True)]
    assert found == [*expected[:3], expected[3] / 3.0]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stays_so(odd: float) -> None:
    answers = np.array([[1.0] * 3, [odd] * 3, [-2.0] * 3])
    expected = [float(OVER_VALUES[op](answers[:, 0], 0)[0]) for op in ("sum", "amax", "amin")]
    assert np.array_equal(reduced(["sum", "amax", "amin"], [1.0] * 3, answers), expected, equal_nan=True)


def test_answers_in_other_memory_are_found() -> None:
    row = np.zeros(1)
    reduction = Reduction(["sum"], [1.0], row, [0])
    for answers in (np.ones((3, 1)), np.full((2, 1), 2.0), np.ones((4, 2))[:, :1]):
        reduction.of(answers)
        reduction.work()
        assert row[0] == answers.sum()


def test_single_numbers_of_every_type() -> None:
    tensors = {
        "float": torch.tensor(0.1), "double": torch.tensor(0.1, dtype=torch.float64), "bool": torch.tensor(True),
        "half": torch.tensor(0.5, dtype=torch.bfloat16), "kept": torch.tensor(3.0),
    }  # fmt: skip
    given, found = np.zeros(6), np.array([1e300, 1e300, 0.0, 2.5])
    names = list(tensors)
    states = Singles(tensors, (given, {name: place for place, name in enumerate(names)}), (found, {n: k for k, n in enumerate(names[:4])}))
    assert not states.are_here  # one of them torch must be asked for
    states.read()
    assert given.tolist() == [float(np.float32(0.1)), 0.1, 1.0, 0.5, 3.0, 0.0]
    before = {name: x._version for name, x in tensors.items()}
    states.write()
    assert [x.item() for x in tensors.values()] == [math.inf, 1e300, False, 2.5, 3.0]
    assert all(tensors[name]._version > before[name] for name in names[:3])
    assert states.watch.holds()
    tensors["float"].data = torch.tensor(1.0)
    assert not states.watch.holds()
