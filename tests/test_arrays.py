"""Reading and writing NumPy arrays and torch tensors without knowing which is which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optlang.backends import arrays

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_are_read_exactly_and_copied(dtype):
    x = torch.tensor([0.1, -2.5, float("nan"), float("inf")], dtype=dtype).requires_grad_()
    found = arrays.read(x)
    assert found.dtype == np.float64
    assert np.array_equal(found, x.detach().double().numpy(), equal_nan=True)
    found[:] = 0
    assert x[1].item() == -2.5


@pytest.mark.parametrize("raw", [3, 2.5, np.float32(1.5), np.array(7), torch.tensor(4), np.int64(9), [1, 2]])
def test_numbers_become_float64(raw):
    assert arrays.read(raw).dtype == np.float64
    assert np.array_equal(arrays.read(raw), np.asarray(raw, dtype=float))


@pytest.mark.parametrize("raw", [True, np.array([True, False]), torch.tensor([True])])
def test_truth_values_stay_so(raw):
    assert arrays.read(raw).dtype == bool


def test_arrays_are_copied_too():
    x = np.ones(3)
    arrays.read(x)[0] = 5
    assert x[0] == 1


def test_sparse_layouts_are_filled():
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert arrays.read(dense.to_sparse()).tolist() == dense.tolist()


@pytest.mark.parametrize("raw", [1j, np.ones(2, complex), torch.ones(2, dtype=torch.complex64)])
def test_complex_numbers_are_refused(raw):
    with pytest.raises(ValueError, match="complex"):
        arrays.read(raw)


@pytest.mark.parametrize("raw", ["text", None, np.array(["a"]), object()])
def test_what_is_no_number_is_refused(raw):
    with pytest.raises(TypeError, match="numbers are needed"):
        arrays.read(raw)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@given(value=st.floats(-1e4, 1e4))
def test_written_values_are_rounded_to_the_target(dtype, value):
    target = torch.zeros(2, dtype=dtype).requires_grad_()
    source = arrays.like(target, np.array([value, 1.0]))
    assert source.dtype == dtype
    assert target.tolist() == [0, 0]
    arrays.write(target, source)
    assert torch.equal(target.detach(), torch.tensor([value, 1.0], dtype=torch.float64).to(dtype))


def test_views_can_be_written_from():
    target = torch.zeros(2, 3)
    arrays.write(target, arrays.like(target, np.broadcast_to(np.float64(2), (2, 3))))
    assert target.tolist() == [[2, 2, 2]] * 2
    part = np.zeros((4, 4), np.float32)
    arrays.write(part[::2], arrays.like(part[::2], np.full((2, 4), 0.1)))
    assert part[0, 0] == np.float32(0.1)
    assert part[1, 0] == 0


def test_0_dimensional_targets():
    for target in (np.array(1.0), torch.tensor(1.0)):
        arrays.write(target, arrays.like(target, np.float64(3)))
        assert float(target) == 3


@pytest.mark.parametrize(("beside", "real"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")])
def test_states_are_at_least_float32(beside, real):
    for weights, kinds in ((np.ones(2, beside), np), (torch.ones(2, dtype=getattr(torch, beside)), torch)):
        assert arrays.kept(weights, np.ones(3), "real").dtype == getattr(kinds, real)
        assert arrays.kept(weights, np.ones(3, bool), "bool").dtype in (np.bool_, torch.bool)
        assert arrays.kept(weights, np.float64(2**40), "int").dtype in (np.int64, torch.int64)
        assert int(arrays.kept(weights, np.float64(2**40), "int")) == 2**40


def test_new_states_share_nothing_and_need_no_gradient():
    weights = torch.ones(2, requires_grad=True)
    made = arrays.kept(weights, np.array([1.0, 2.0]), "real")
    assert not made.requires_grad
    made[0] = 7
    assert weights.tolist() == [1, 1]
