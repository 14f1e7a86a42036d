"""What looks at all tensors at once, where there is nothing to look at or it is not what it should be. (1 s)"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from optlang.backends import watch
from optlang.backends.watch import Belongings, Counts, Unseen, Versions, Watch


def test_only_tensors_in_order_are_watched() -> None:
    assert Watch([torch.ones(3, 2)], [False]).holds()
    with pytest.raises(Unseen):
        Watch([torch.ones(3, 2).T], [False])


def test_counts_lie_in_a_row() -> None:
    row = torch.tensor([3.0, 3.0, 3.0])
    counts = Counts(row.unbind(), row.numpy())
    assert counts.hold() == 2
    row[1] = 4
    assert counts.hold() == 1
    counts._tensors[2].data = torch.tensor(3.0)
    assert counts.hold() == 0
    for tensors, numbers in ((row.clone().unbind(), row), (row[:2].flip(0).unbind(), row), (row.double().unbind(), row.double())):
        with pytest.raises(Unseen):
            Counts(tensors, numbers.numpy())


def test_tensors_of_inference_have_no_versions() -> None:
    with torch.inference_mode():
        x = torch.ones(2)
    with pytest.raises(Unseen):
        Versions([x])


@pytest.mark.parametrize("told", [True, False], ids=["by the library", "by torch"])
def test_versions_grow(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2)
    versions, before = Versions([x]), x._version
    if not told:
        monkeypatch.setattr(versions, "_library", SimpleNamespace(tell=lambda *given: False))
    versions.grow()
    assert x._version == before + 1


def test_what_belongs_together_is_in_lists_and_dictionaries() -> None:
    x = torch.ones(2)
    state = {x: {"m": torch.zeros(2)}}
    kept = Belongings([[x]], state)
    assert kept.hold([[x]], state)
    for lists in ([[x], [x]], [(x,)], [[torch.ones(2)]], [[x, x]]):
        assert not kept.hold(lists, state)  # type: ignore[arg-type]
    for lists, states in (([(x,)], state), ([[x]], {x: SimpleNamespace()})):
        with pytest.raises(Unseen):
            Belongings(lists, states)  # type: ignore[arg-type]


def test_nothing_is_seen_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_found", lambda: None)
    assert not watch.sees()
    with pytest.raises(Unseen):
        Watch([torch.ones(2)], [False])


SEEN = watch._seen


def _blind(library: Any, outside: Any, x: torch.Tensor, gradient: bool = False) -> None:
    return None


def _credulous(library: Any, outside: Any, x: torch.Tensor, gradient: bool = False) -> list[int] | None:
    """Takes tensors for such as lie in order that do not."""
    return SEEN(library, outside, x, gradient) or (None if gradient else [0] * len(watch.FACTS))


@pytest.mark.parametrize("eyes", [_blind, _credulous])
def test_a_library_that_sees_wrong_is_not_believed(eyes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_seen", eyes)
    assert watch._found.__wrapped__() is None


def test_a_torch_that_keeps_its_tensors_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WORD", 1 << 20)  # no word of an object is looked at
    with pytest.raises(Unseen):
        watch._place_of_tensors()


def test_no_gradient_is_one_and_the_same_thing() -> None:
    words = [(ctypes.c_void_p * 1)(1), (ctypes.c_void_p * 1)(2)]
    waiting = [ctypes.addressof(word) for word in words]
    ask = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda tensor: waiting.pop())
    with pytest.raises(Unseen):
        watch._nothing(ctypes.cast(ask, ctypes.c_void_p).value or 0)
