"""Places of values, and their shapes."""

from __future__ import annotations

import numpy as np
import pytest
from stepping import cell, step_of

from optlang.backends.base import StepError
from optlang.backends.places import full_shape, layout, shape_of, spread
from optlang.types import COL, ELEMENT, GROUP, HOST, MATRIX, MODEL, ROW, TENSOR, Extent, Type, is_special

FLAT = Extent("array", "rows", "cols", "flat")


@pytest.mark.parametrize(("extent", "shape", "expected"), [
    (HOST, (2, 3), ()), (MODEL, (2, 3), ()), (GROUP, (2, 3), ()), (TENSOR, (5,), ()), (ELEMENT, (), ()), (ELEMENT, (5,), (5,)),
    (ELEMENT, (6, 4, 2, 3), (6, 4, 2, 3)), (ROW, (6, 4, 2, 3), (6, 4, 2, 1)), (COL, (6, 4, 2, 3), (6, 4, 1, 3)),
    (MATRIX, (6, 4, 2, 3), (6, 4, 1, 1)), (Extent("array", "cols", "rows"), (6, 4, 2, 3), (6, 4, 3, 2)), (FLAT, (6, 4, 2, 3), (6, 24)),
    (Extent("array", "rows", 1, "flat"), (6, 4, 2), (6, 1)), (Extent("array", "cols", "cols", "flat"), (6, 4, 2), (8, 8)),
    (FLAT, (0, 4, 2), (0, 8)),
])  # fmt: skip
def test_shapes(extent, shape, expected):
    assert shape_of(extent, shape) == expected
    assert full_shape(Type("real", extent, 7), shape) == (7, *expected)


def test_only_the_parameters_own_shape_is_for_every_rank():
    assert not is_special(ELEMENT)
    assert not is_special(TENSOR)
    assert all(is_special(e) for e in (ROW, COL, MATRIX, FLAT, Extent("array", "rows", "rows")))


def test_every_place_knows_what_it_belongs_to_and_what_belongs_to_it():
    step = step_of(cell([1.0], t=3), cell([2.0], index=1, group=5, t=9), cell([3.0], index=2, t=4))
    model = layout(step)
    one, two, three = model.cells
    assert [p.cell for p in model.cells] == list(step.cells)
    first, second = model.below["group"]
    assert (first.cells, second.cells) == ((one, three), (two,))
    assert (one.at["group"], two.at["group"], three.at["group"]) == (first, second, first)
    assert all(p.at["host"] is p and p.at["model"] is model for p in (one, two, three, first, second, model))
    assert (model.t, first.t, second.t) == (9, 4, 9)
    assert (model.stream, first.stream, second.stream, three.stream) == (2**32 - 1, 2**32 - 1, 2**32 - 6, 2)
    assert second.states is step.groups[5]


def test_gradients_must_have_the_parameters_shape():
    with pytest.raises(StepError, match=r"`p0`.*\(2, 1\).*\(2,\)"):
        layout(step_of(cell([1.0, 2.0], [[1.0], [2.0]])))


def test_spreading_keeps_remembered_values_apart():
    per_tensor, per_element = Type("real", TENSOR, 2), Type("real", ELEMENT, 2)
    window = np.array([1.0, 2.0])
    assert spread(window, per_tensor, per_element, (2, 2)).tolist() == [[[1, 1], [1, 1]], [[2, 2], [2, 2]]]
    now = np.array([1.0, 2.0])  # one value per element: every remembered value is the same
    assert spread(now, Type("real", ELEMENT), per_element, (2,)).tolist() == [[1, 2], [1, 2]]
    same = np.ones((2, 3))
    assert spread(same, Type("real", ELEMENT), Type("real", ELEMENT), (2, 3)) is same
