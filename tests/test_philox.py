"""Draws: Random123's published vectors, the same words in NumPy and torch, and what the draws look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optlang import philox
from optlang.ops import DRAWS

WORD = st.integers(0, 2**32 - 1)
VECTORS = [  # of Random123 1.09, kat_vectors, philox4x32
    (10, "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    (7, "00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "4dfccaba 190a87f0 c47362ba b6b5242a"),
]


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("rounds", "counter", "key", "expected"), VECTORS)
@pytest.mark.parametrize("make", [lambda w: np.array([w]), lambda w: torch.tensor([w]), int], ids=["numpy", "torch", "int"])
def test_published_vectors(make, rounds, counter, key, expected):
    found = philox.block(tuple(make(w) for w in words_of(counter)), tuple(words_of(key)), rounds)
    assert [int(np.ravel(word)[0]) for word in found] == words_of(expected)


@given(st.lists(WORD, min_size=1, max_size=9), WORD, WORD, WORD, WORD, WORD)
def test_words_are_the_same_in_numpy_and_torch_and_fit_32_bits(a, b, c, d, k, m):
    ours = philox.block((np.array(a), b, c, d), (k, m))
    theirs = philox.block((torch.tensor(a), b, c, d), (k, m))
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(np.broadcast_to(one, len(a)), np.broadcast_to(np.asarray(other), len(a)))
        assert np.all((one >= 0) & (one < 2**32))


@given(st.integers(0, 2**40), st.integers(1, 2**33), st.integers(0, 2**40), st.integers(-5, 2**70), WORD)
def test_the_counter_is_element_step_and_site(index, t, site, seed, stream):
    expected = philox.block((index % 2**32, index >> 32, t % 2**32, site % 2**32), (seed % 2**32, stream))
    found = philox.words(np.array([index]), t, site, seed, stream)
    assert [int(np.asarray(w).reshape(())) for w in found] == [int(w) for w in expected]


@pytest.mark.parametrize("distribution", DRAWS)
def test_a_draw_is_its_formula(distribution):
    x = philox.words(np.arange(6), 3, 17, 99, 5)
    u0, u1 = (((word >> 8) + 0.5) / 2**24 for word in x[:2])
    expected = {
        "uniform": u0, "exponential": -np.log(u0), "rademacher": np.where(x[0] < 2**31, 1.0, -1.0),
        "normal": np.sqrt(-2 * np.log(u0)) * np.cos(2 * np.pi * u1),
    }[distribution]  # fmt: skip
    found = philox.draw(distribution, (2, 3), t=3, site=17, seed=99, stream=5)
    assert found.dtype == np.float64
    assert np.array_equal(found, expected.reshape(2, 3))


@pytest.mark.parametrize("distribution", DRAWS)
def test_torch_draws_the_same(distribution):
    index = torch.arange(1000)
    found = philox.sample(distribution, philox.words(index, 3, 17, 99, 5), torch, torch.Tensor.double)
    ours = philox.draw(distribution, (1000,), 3, 17, 99, 5)
    np.testing.assert_allclose(found.numpy(), ours, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("other", [{"t": 2}, {"site": 1}, {"seed": 1}, {"stream": 1}])
def test_every_part_of_the_key_gives_another_stream(other):
    base = {"t": 1, "site": 0, "seed": 0, "stream": 0}
    one = philox.draw("uniform", (2000,), **base)
    two = philox.draw("uniform", (2000,), **{**base, **other})
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1
    assert not np.any(one == two)


def test_draws_do_not_depend_on_the_shape():
    flat = philox.draw("normal", (24,), 1, 2, 3, 4)
    assert np.array_equal(philox.draw("normal", (2, 3, 4), 1, 2, 3, 4).ravel(), flat)
    assert philox.draw("normal", (), 1, 2, 3, 4) == flat[0]
    assert philox.draw("normal", (3, 0), 1, 2, 3, 4).shape == (3, 0)


MOMENTS = {"uniform": (0.5, 1 / 12), "normal": (0, 1), "exponential": (1, 1), "rademacher": (0, 1)}


@pytest.mark.parametrize("distribution", DRAWS)
def test_mean_and_variance(distribution):
    x = philox.draw(distribution, (200_000,), 1, 0, 7, 0)
    mean, variance = MOMENTS[distribution]
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / len(x))
    assert abs(x.var() - variance) < 0.02


def test_uniform_fills_every_tenth_alike_and_stays_inside():
    x = philox.draw("uniform", (100_000,), 1, 0, 7, 0)
    counts, _ = np.histogram(x, bins=10, range=(0, 1))
    assert np.sum((counts - 10_000) ** 2 / 10_000) < 30  # chi squared with 9 degrees: beyond 30 once in 2000
    assert x.min() > 0
    assert x.max() < 1


def test_the_ends_of_the_range_give_finite_draws():
    ends = np.array([0, 2**32 - 1])
    for distribution in DRAWS:
        assert np.all(np.isfinite(philox.sample(distribution, (ends, ends), np, np.float64)))


def test_an_unknown_distribution_is_named():
    with pytest.raises(ValueError, match="cauchy"):
        philox.draw("cauchy", (1,), 1, 0, 0, 0)
