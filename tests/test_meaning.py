"""The operators in NumPy: against torch's functions, against plain definitions, and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from optlang import meaning
from optlang.ops import ROWS

EDGES = np.array(
    [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, -3, 7.25, 2.0**53, np.inf, -np.inf, 1e-300, -1e-300, 1e300], dtype=float
)  # fmt: skip
WITH_NAN = np.append(EDGES, np.nan)
PAIRS = [a.ravel() for a in np.meshgrid(WITH_NAN, WITH_NAN)]
MAPS = meaning.maps()
TORCH = {"mod": torch.remainder}
TRUTHS = {"and", "or", "not", "where"}
WITHOUT_TWIN = {"cbrt"}  # torch has no cube root
ONE = [row.name for row in ROWS if row.numpy and row.operands == 1 and row.name not in TRUTHS | WITHOUT_TWIN]
TWO = [row.name for row in ROWS if row.numpy and row.operands == 2 and row.name not in TRUTHS]

numbers = st.floats(-1e6, 1e6)
matrices = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4), elements=numbers)
windows = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 3)), elements=numbers | st.just(math.nan))


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def same(a, b, **limits):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), **{"rtol": 1e-13, "atol": 0, "equal_nan": True} | limits)


# ------------------------------------------------------------------------------------------------------------- maps


def test_every_map_of_the_table_has_a_meaning():
    assert set(MAPS) == {row.name for row in ROWS if row.role in ("map", "select") and row.name != "branch"}


@pytest.mark.parametrize("name", ONE)
def test_one_operand_as_in_torch(name):
    points = WITH_NAN
    twin = TORCH.get(name) or getattr(torch, name)
    same(MAPS[name](points), twin(torch.tensor(points)).numpy())


@pytest.mark.parametrize("name", TWO)
def test_two_operands_as_in_torch(name):
    twin = TORCH.get(name) or getattr(torch, name)
    x, y = PAIRS
    keep = (name != "mod") | ~np.isinf(x / y) | np.isinf(x) | (y == 0)  # where x/y is too large torch's remainder gives NaN
    same(MAPS[name](x[keep], y[keep]), twin(torch.tensor(x[keep]), torch.tensor(y[keep])).numpy())


def test_edges_that_are_easily_got_wrong():
    nan = math.nan
    same(MAPS["sign"](np.array([nan, -0.0, -3, np.inf])), [0, 0, -1, 1])
    same(MAPS["cbrt"](np.array([-8.0, 0, 27])), [-2, 0, 3])
    same(MAPS["round"](np.array([0.5, 1.5, -0.5, 2.5])), [0, 2, 0, 2])
    same(MAPS["mod"](np.array([-1.0, 1, -7, 5]), np.array([3.0, -3, 7, 0])), [2, -2, 0, nan])
    same(MAPS["pow"](np.array([0.0, nan, -8, 2]), np.array([0.0, 0, 1 / 3, -1])), [1, 1, nan, 0.5])
    same(MAPS["maximum"](np.array([nan, 1]), np.array([1.0, nan])), [nan, nan])
    same(MAPS["div"](np.array([1.0, -1, 0]), np.zeros(3)), [np.inf, -np.inf, nan])
    same(MAPS["where"](np.array([True, False]), np.array([1.0, nan]), np.array([nan, 2.0])), [1, 2])


@given(st.booleans(), st.booleans())
def test_logic(a, b):
    assert (MAPS["and"](a, b), MAPS["or"](a, b), MAPS["not"](a)) == (a and b, a or b, not a)


@pytest.mark.parametrize(("value", "expected"), [(3, 3.0), (0.1, 0.1), (2**53, 2.0**53), (10**400, math.inf), (-(10**400), -math.inf)])
def test_numbers_are_float64(value, expected):
    assert meaning.number(value) == expected
    assert type(meaning.number(value)) is np.float64


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_truth_values_stay_truth_values(value):
    assert type(meaning.number(value)) is np.bool_


# ------------------------------------------------------------------------------------------------------- reductions

PLAIN = {"sum": np.sum, "mean": np.mean, "amax": np.max, "amin": np.min}


@given(matrices, st.sampled_from([(-1,), (-2,), (-1, -2)]), st.sampled_from(sorted(PLAIN)))
def test_reductions_keep_their_dimensions(x, axes, name):
    found = meaning.OVER_VALUES[name](x, axes)
    same(found, PLAIN[name](x, axis=axes, keepdims=True), rtol=1e-9, atol=1e-9)
    assert meaning.OVER_VALUES["count"](x, axes).shape == found.shape
    assert np.all(meaning.OVER_VALUES["count"](x, axes) == math.prod(x.shape[a] for a in axes))


@given(matrices, st.sampled_from([(-1,), (-2,), (-1, -2)]), st.floats(0, 1))
def test_quantile_is_the_usual_one(x, axes, q):
    same(meaning.quantile(x, axes, q), np.quantile(x, q, axis=axes, keepdims=True), rtol=1e-9, atol=1e-9)


def test_quantile_as_in_torch():
    x = np.random.default_rng(0).normal(size=(5, 7))
    for q in (0, 0.1, 0.5, 0.77, 1):
        same(meaning.quantile(x, (-1,), q)[:, 0], torch.quantile(torch.tensor(x), q, dim=-1).numpy())


def test_quantile_at_the_edges():
    x = np.array([3.0, -np.inf, np.inf, np.inf])
    same(meaning.quantile(x, 0, 0.9), [np.inf])  # between equal infinities no NaN
    same(meaning.quantile(x, 0, 0.0), [-np.inf])
    same(meaning.quantile(np.array([1.0, math.nan]), 0, 0.0), [math.nan])
    for q in (-0.1, 1.1, math.nan):
        same(meaning.quantile(x, 0, q), [math.nan])
    same(meaning.quantile(np.empty(0), 0, 0.5), [math.nan])


def test_nothing_to_reduce():
    empty = np.empty((0, 3))
    same(meaning.total(empty, (-2,)), np.zeros((1, 3)))
    same(meaning.mean(empty, (-2,)), np.full((1, 3), math.nan))
    same(meaning.largest(empty, (-2,)), np.full((1, 3), -np.inf))
    same(meaning.smallest(empty, (-2,)), np.full((1, 3), np.inf))
    same(meaning.count(empty, (-2,)), np.zeros((1, 3)))


def test_nan_is_contagious_outside_windows():
    x = np.array([1.0, math.nan, 3.0])
    for name in PLAIN:
        assert np.isnan(meaning.OVER_VALUES[name](x, 0))[0]
    assert meaning.count(x, 0)[0] == 3


# ---------------------------------------------------------------------------------------------------------- windows


@given(windows, st.floats(0, 1))
def test_windows_skip_what_is_empty(h, q):
    for column in range(h.shape[1]):
        full = h[:, column][~np.isnan(h[:, column])]
        expected = {
            "count": len(full), "sum": full.sum(), "mean": full.mean() if len(full) else math.nan,
            "amax": full.max() if len(full) else math.nan, "amin": full.min() if len(full) else math.nan,
        }  # fmt: skip
        for name, value in expected.items():
            same(meaning.OVER_WINDOW[name](h, 0)[0, column], value, rtol=1e-9, atol=1e-9)
        wanted = np.quantile(full, q) if len(full) else math.nan
        same(meaning.OVER_WINDOW["quantile"](h, 0, q)[0, column], wanted, rtol=1e-9, atol=1e-9)


@given(windows, st.lists(numbers, min_size=1, max_size=9))
def test_push_forgets_the_oldest(h, values):
    start = h
    for value in values:
        h = meaning.push(h, np.float64(value))
    assert h.shape == start.shape
    expected = np.concatenate([start, np.repeat(np.array(values)[:, None], start.shape[1], 1)])[-len(start) :]
    np.testing.assert_array_equal(h, expected)


# --------------------------------------------------------------------------------------------------------- matrices


@given(matrices)
def test_flatten_is_rows_times_everything_else(x):
    flat = meaning.flatten(x)
    assert flat.shape == (x.shape[0], math.prod(x.shape[1:]))
    assert np.array_equal(flat.reshape(x.shape), x)


def test_flatten_of_nothing_and_transpose_of_a_batch():
    assert meaning.flatten(np.empty((0, 3, 2))).shape == (0, 6)
    assert meaning.transposed(np.empty((5, 2, 3))).shape == (5, 3, 2)
