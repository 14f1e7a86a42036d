"""What looks at all tensors at once, where there is nothing to look at or it is not what it should be. (1 s)"""

from __future__ import annotations

import _thread
import ctypes
import math
import threading
import weakref
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from optlang.backends.repeated import library, tensor_words, watch
from optlang.backends.repeated.calls import Whole
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.saved_gradients import Gradients
from optlang.backends.repeated.watch import Belongings, Counts, Grip, Versions, Watch, Watches


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


def test_versions_grow() -> None:
    some = [torch.ones(2) for _ in range(3)]
    versions, before = Versions(some), [x._version for x in some]
    with torch.inference_mode():
        other = torch.ones(2)
    versions._objects[1] = id(other)  # which counts nothing, and is left alone
    versions.grow()
    assert [x._version for x in some] == [before[0] + 1, before[1], before[2] + 1]


def test_a_whole_lets_go_of_what_it_read() -> None:
    numbers, read = np.array([3.0, 4.0], dtype=np.float32), torch.ones(2)
    count = Counts(torch.from_numpy(numbers).unbind(), numbers).grow
    whole, left = Whole([count, count], lambda: {"told": numbers.tolist()}), weakref.ref(read)
    assert whole() == {"told": [5.0, 6.0]}
    followed = whole.followed(count)
    assert followed() == {"told": [8.0, 9.0]}
    whole.held = read
    assert whole.followed(count) is followed
    del read
    assert left() is not None
    followed()
    assert left() is None


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
    monkeypatch.setattr(library, "_found", lambda: None)
    assert not library.sees()
    with pytest.raises(Unseen):
        Watch([torch.ones(2)], [False])


@pytest.mark.parametrize("rank", range(8))
def test_with_and_without_kinds_the_same_is_seen(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kinds` has something to say of this torch, and only of tensors that keep their sizes in themselves."""
    shape = (2, 3, 1, 2, 1, 2, 2)[:rank]
    changes: dict[str, tuple[Any, bool]] = {
        "nothing": (lambda x: None, True),
        "written": (lambda x: x.add_(1), True),
        "in a graph": (lambda x: setattr(x, "kept", x.requires_grad_() * x), True),
        "other memory": (lambda x: x.set_(torch.ones(shape)), False),
        "other numbers": (lambda x: setattr(x, "data", x.data.double()), False),
        "other shape": (lambda x: x.unsqueeze_(0), False),
        "other order": (lambda x: x.as_strided_(shape, x.stride()[::-1]), rank < 2),
        "smaller": (lambda x: x.untyped_storage().resize_(0), False),
    }
    for change, same in changes.values():
        found = []
        for known in (True, False):
            with monkeypatch.context() as patch:
                patch.setattr(tensor_words, "masks", tensor_words.masks if known else lambda: None)
                one = torch.ones(1000)[: math.prod(shape)].view(shape)
                seen = Watch([torch.ones(shape), one], [False, False])
            assert (seen._kind >= 0).all() == (known and rank < tensor_words.RANKS)
            change(one)
            found.append(seen.holds())
        assert found == [same, same]


def test_many_kinds() -> None:
    tensors = [torch.ones(7)[k % 5 : k % 5 + 2] for k in range(40)] + [torch.ones(k) for k in range(1, 40)]
    seen = Watch(tensors, [False] * len(tensors))
    assert seen.holds() and len(seen._kinds) == 5 + 38
    tensors[60].data = tensors[60].data.clone()
    assert not seen.holds()


@pytest.mark.parametrize("name", ["_room", "_in_memory_full_of", "_place", "_is_right"])
def test_a_torch_that_keeps_tensors_otherwise_is_asked_for_facts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_words, name, lambda *given: None)
    assert tensor_words.masks.__wrapped__() is None


def test_masks_that_leave_something_out_are_not_believed() -> None:
    masks = tensor_words.masks()
    assert masks is not None
    told = [(20,), (21,), (7, 8, 9, 13, 14)]  # where this torch keeps type and device, what stands for the layout, sizes and strides
    for places in told:
        changed = masks.copy()
        changed[2, places] = 0
        assert masks[2, places].all() and not tensor_words._is_right(changed)


def test_a_dictionary_has_another_version_after_each_change() -> None:
    x = torch.ones(2)
    state = {x: {"m": torch.zeros(2), "v": torch.zeros(2)}}
    kept = Belongings([[x]], state)
    assert tensor_words.word_of_versions() and kept._library.unchanged(*kept._of_versions)
    m = state[x]["m"]
    state[x]["m"] = torch.ones(2)
    assert not kept._library.unchanged(*kept._of_versions) and not kept.hold([[x]], state)
    state[x]["m"] = m
    assert not kept._library.unchanged(*kept._of_versions)
    assert kept.hold([[x]], state) and kept._library.unchanged(*kept._of_versions), "what is as it was is known again"
    state[torch.ones(1)] = {}
    assert not kept.hold([[x]], state)


@pytest.mark.parametrize("known", [True, False], ids=["versions", "no versions"])
def test_dictionaries_are_looked_at_without_versions(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_words, "word_of_versions", tensor_words.word_of_versions if known else lambda: 0)
    x = torch.ones(2)
    state = {x: {"m": torch.zeros(2)}}
    kept = Belongings([[x]], state)
    assert kept._has_versions == known
    assert kept.hold([[x]], state) and kept.hold([[x]], dict(state)) and kept.hold([[x]], state)
    for other in ({x: dict(state[x])}, {}, {torch.ones(2): state[x]}):
        assert not kept.hold([[x]], other)
    state[x]["m"] = torch.zeros(2)
    assert not kept.hold([[x]], state)


def test_gradients_are_left_to_others() -> None:
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    x.grad = torch.ones(2)
    kept = Belongings([[x, y]], {})
    kept.leave([x])
    assert kept.hold([[x, y]], {})
    x.grad = None
    assert kept.hold([[x, y]], {})
    assert not kept.have_gradients()
    kept.leave([])
    assert not kept.hold([[x, y]], {})
    x.grad, y.grad = torch.ones(2), torch.ones(2)
    assert not kept.hold([[x, y]], {})


SEEN = library._seen


def _blind(library: Any, outside: Any, x: torch.Tensor, gradient: bool = False) -> None:
    return None


def _credulous(library: Any, outside: Any, x: torch.Tensor, gradient: bool = False) -> list[int] | None:
    """Takes tensors for such as lie in order that do not."""
    return SEEN(library, outside, x, gradient) or (None if gradient else [0] * len(library.FACTS))


@pytest.mark.parametrize("eyes", [_blind, _credulous])
def test_a_library_that_sees_wrong_is_not_believed(eyes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_seen", eyes)
    assert library._found.__wrapped__() is None


def test_a_torch_that_keeps_its_tensors_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "WORD", 1 << 20)  # no word of an object is looked at
    with pytest.raises(Unseen):
        library._place_of_tensors()


def test_no_gradient_is_one_and_the_same_thing() -> None:
    words = [(ctypes.c_void_p * 1)(1), (ctypes.c_void_p * 1)(2)]
    waiting = [ctypes.addressof(word) for word in words]
    ask = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda tensor: waiting.pop())
    with pytest.raises(Unseen):
        library._nothing(ctypes.cast(ask, ctypes.c_void_p).value or 0)


def test_what_several_look_at_is_looked_at_once() -> None:
    p, m, n = torch.nn.Parameter(torch.ones(2)), torch.ones(3), torch.ones(4)
    p.grad = torch.ones(2)
    one, other = Watch([p, p, m], [False, True, False]), Watch([p, n], [True, False])
    both = Watches([one, other])
    assert len(both._watch._tensors) == 4 and both.hold()
    kept, p.grad = p.grad, torch.zeros(2)
    assert both.hold()
    assert one.pointers.tolist() == [p.data_ptr(), p.grad.data_ptr(), m.data_ptr()]
    assert other.pointers.tolist() == [p.grad.data_ptr(), n.data_ptr()] != [kept.data_ptr(), n.data_ptr()]
    n.data = torch.zeros(4)
    assert not both.hold()
    p.grad = None
    assert not both.hold()


class Numbers(np.ndarray):
    """Memory of which it can be said whether it is still there."""


def gradient(p: torch.Tensor) -> weakref.ref[Numbers]:
    """A new gradient, and its memory."""
    numbers = np.ones(p.shape, dtype=np.float32).view(Numbers)
    p.grad = torch.from_numpy(numbers)
    return weakref.ref(numbers)


@pytest.mark.parametrize("several", [False, True])
def test_gradients_are_kept_as_long_as_somebody_holds_them(several: bool) -> None:
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))
    left = [gradient(p), gradient(q)]
    seen = Watch([p, p, q], [True, False, True])
    holds = Watches([seen, Watch([q], [True])]).hold if several else seen.holds
    grip, other = Grip(), Grip()
    assert holds(grip) and holds(other)
    p.grad = None
    assert not holds(other), "what was seen before a gradient was missing is kept, too"
    q.grad = None
    assert all(memory() is not None for memory in left)
    del grip
    assert all(memory() is not None for memory in left)
    del other
    assert all(memory() is None for memory in left)


def test_nobody_is_to_be_kept_from_freeing_gradients_where_there_is_one_thread() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    with mock.patch.object(_thread, "_count", lambda: 0):
        assert watch.grip() is None
    other.start()
    assert watch.grip() is not None
    over.set()
    other.join()


@pytest.mark.parametrize("name", ["assign", "let_go"])
def test_a_torch_that_keeps_no_tensors_is_not_believed(name: str) -> None:
    ours, outside = library.library()
    x, words = torch.ones(2), (ctypes.c_void_p * len(outside))(*outside)
    nothing = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda given, to: 0)
    assert library._keeps(ours, words, x)
    if name == "assign":
        words[library.ASSIGN] = ctypes.cast(nothing, ctypes.c_void_p).value
        assert not library._keeps(ours, words, x)
    else:
        assert not library._keeps(SimpleNamespace(let_go=lambda *given: None), words, x)  # type: ignore[arg-type]


class Own(torch.nn.Parameter):
    """Not a type of torch's own: Python is asked for its gradient."""


@pytest.mark.parametrize("kind", [torch.nn.Parameter, Own])
def test_gradients_are_set_aside(kind: type[torch.nn.Parameter]) -> None:
    with_gradient, without, plain = kind(torch.ones(2)), kind(torch.ones(2)), torch.ones(2)
    before = with_gradient.grad = torch.ones(2)
    saved = Gradients([with_gradient, without, plain]).room()
    saved.exchange()
    assert with_gradient.grad is without.grad is plain.grad is None
    with_gradient.grad, without.grad = torch.zeros(2), torch.zeros(2)
    new = [weakref.ref(with_gradient.grad), weakref.ref(without.grad)]
    saved.exchange()
    assert with_gradient.grad is before and without.grad is plain.grad is None
    assert all(ref() is not None for ref in new)
    del saved
    assert all(ref() is None for ref in new)
