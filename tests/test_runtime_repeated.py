"""Steps of the same parameters, which look at little: whatever changed in between must be noticed. 5 seconds."""

from __future__ import annotations

import _thread
import copy
import io
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tensors import some
from torch import Tensor

import optlang
from optlang.backends.repeated import library
from optlang.runtime.steps.repeated import LastStep

SHAPES = [(6, 5), (7,), (), (3, 2, 2), (2, 1, 3, 1, 2, 2)]  # the last has more dimensions than a tensor keeps in itself
Change = Callable[[Any, list[Tensor]], None]


class Memory(np.ndarray):
    """Of which it can be said whether it is still there."""


class Twin:
    """An optimizer that remembers its last step, and one that is made to forget it before every step."""

    def __init__(self, backend: str = "cpp", rule: str = "adamw", loss: Callable[[], Tensor] | None = None, **settings: Any) -> None:
        self.loss = () if loss is None else (loss,)
        self.params = [[some(*s, seed=i).requires_grad_() for i, s in enumerate(SHAPES)] for _ in range(2)]
        cls: Any = optlang.load(rule, backend=backend)
        groups = [[{"params": params[:2]}, {"params": params[2:], "lr": 0.2}] for params in self.params]
        self.both = [cls(some, lr=0.1, **settings) for some in groups]
        self.taken = 0

    def step(self, without: int | None = None, turned: bool = False, made: Callable[[Tensor], Tensor] | None = None) -> None:
        """`without`: the place of a parameter that has no gradient; `turned`: the quick one's are marked as negative ones; `made`: out of
        a gradient another one."""
        self.taken += 1
        for params, optimizer in zip(self.params, self.both, strict=True):
            for i, p in enumerate(params):
                gradient = (made or Tensor.contiguous)(some(*p.shape, seed=100 * self.taken + i))
                p.grad = None if i == without else torch._neg_view(-gradient) if turned and params is self.params[0] else gradient
            if optimizer is self.both[1]:
                optimizer._again, optimizer._last = None, []
            optimizer.step(*self.loss)

    def change(self, what: Change) -> None:
        for params, optimizer in zip(self.params, self.both, strict=True):
            what(optimizer, params)

    def check(self) -> None:
        assert all(torch.equal(p, q) for p, q in zip(*self.params, strict=True))
        for p, q in zip(*self.params, strict=True):
            assert {k: v.tolist() for k, v in self.both[0].state[p].items()} == {k: v.tolist() for k, v in self.both[1].state[q].items()}


def without_gradient(optimizer: Any, params: list[Tensor]) -> None:
    params[1].grad = None
    optimizer.step()


def frozen_then_thawed(optimizer: Any, params: list[Tensor]) -> None:
    optimizer.param_groups[0]["params"], kept = [params[0]], optimizer.param_groups[0]["params"]
    optimizer.step()
    optimizer.param_groups[0]["params"] = kept


def count_replaced(optimizer: Any, params: list[Tensor]) -> None:
    optimizer.state[params[0]]["step"] = torch.tensor(9.0)


def state_replaced(optimizer: Any, params: list[Tensor]) -> None:
    optimizer.state[params[2]] = {k: v.clone() for k, v in optimizer.state[params[2]].items()}
    optimizer.state[params[2]]["m"] += 1


def loaded(optimizer: Any, params: list[Tensor]) -> None:
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    optimizer.step()
    saved.seek(0)
    optimizer.load_state_dict(torch.load(saved, weights_only=True))


def added(optimizer: Any, params: list[Tensor]) -> None:
    params.append(some(3, seed=8).requires_grad_())
    optimizer.add_param_group({"params": [params[-1]]})


def another_shape(optimizer: Any, params: list[Tensor]) -> None:
    """Of weights; their states, which would not fit, begin anew."""
    params[3].data = params[3].data.view(2, 3, 2)
    del optimizer.state[params[3]]


def state_elsewhere(optimizer: Any, params: list[Tensor]) -> None:
    """Another memory, with other numbers, behind the tensor that the state holds."""
    held = optimizer.state[params[0]]["m"]
    held.set_(torch.full_like(held, 0.5))


def state_regrown(optimizer: Any, params: list[Tensor]) -> None:
    """The same storage in other memory."""
    held = optimizer.state[params[1]]["v"]
    kept, size = held.clone(), held.untyped_storage().nbytes()
    held.untyped_storage().resize_(0)
    held.untyped_storage().resize_(size + 4096)
    held.copy_(kept)


def crossed(place: int) -> Change:
    """A state of as many numbers that lie in another order."""

    def change(optimizer: Any, params: list[Tensor]) -> None:
        held = optimizer.state[params[place]]["m"]
        held.data = held.data.transpose(0, -1).contiguous().transpose(0, -1)

    return change


def crossed_in_place(optimizer: Any, params: list[Tensor]) -> None:
    """The same memory read in another order."""
    held = optimizer.state[params[4]]["m"]
    held.as_strided_(held.shape, [1, *held.stride()[1:-2], 2, 12])


CHANGES: dict[str, Change] = {
    "nothing": lambda o, p: None,
    "no gradient": without_gradient,
    "other parameters": frozen_then_thawed,
    "count written into": lambda o, p: o.state[p[0]]["step"].fill_(20),
    "count replaced": count_replaced,
    "state of one replaced": state_replaced,
    "all states gone": lambda o, p: o.state.clear(),
    "one state gone": lambda o, p: o.state.pop(p[1]),
    "up": lambda o, p: o.param_groups[1].update(maximize=True),
    "on the device": lambda o, p: [g.update(capturable=True) for g in o.param_groups],  # type: ignore[list-item]
    "other settings": lambda o, p: o.param_groups[0].update(lr=0.5, betas=(0.5, 0.7)),
    "one rate": lambda o, p: o.param_groups[1].update(lr=0.03),
    "one rate of another kind": lambda o, p: o.param_groups[1].update(lr=1),
    "a rate and an exponent": lambda o, p: o.param_groups[0].update(lr=0.04, eps=1e-3, betas=(0.5, 0.9)),
    "lists replaced": lambda o, p: [g.update(params=list(g["params"])) for g in o.param_groups],  # type: ignore[list-item]
    "swapped": lambda o, p: torch.utils.swap_tensors(p[0], torch.nn.Parameter(some(6, 5, seed=9))),
    "another shape": another_shape,
    "group turned around": lambda o, p: o.param_groups[0]["params"].reverse(),
    "group without its last": lambda o, p: o.param_groups[0]["params"].pop(),
    "weights elsewhere": lambda o, p: setattr(p[0], "data", p[0].data.clone()),
    "turned": lambda o, p: setattr(p[0], "data", p[0].data.T.contiguous().T),
    "state elsewhere": state_elsewhere,
    "state in other memory": lambda o, p: setattr(o.state[p[3]]["v"], "data", o.state[p[3]]["v"].data.clone() + 1),
    "state grown": state_regrown,
    "state in another order": crossed(0),
    "state of many dimensions in another order": crossed(4),
    "state of many dimensions read in another order": crossed_in_place,
    "state of another type": lambda o, p: setattr(o.state[p[0]]["m"], "data", o.state[p[0]]["m"].data.double()),
    "state by another": lambda o, p: o.state[p[4]].update(m=o.state[p[4]]["m"] + 1),
    "state taken away and put back": lambda o, p: o.state[p[4]].update(v=o.state[p[4]].pop("v") + 1),
    "state by name": lambda o, p: o.state[p[0]].update(other=torch.ones(())),
    "all states in another dictionary": lambda o, p: setattr(o, "state", type(o.state)(o.state.default_factory, o.state)),
    "count in other memory": lambda o, p: setattr(o.state[p[1]]["step"], "data", torch.tensor(7.0)),
    "count set": lambda o, p: o.state[p[1]]["step"].set_(torch.tensor(7.0)),
    "loaded": loaded,
    "added": added,
}


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_between_two_steps_counts(name: str, backend: str) -> None:
    twin = Twin(backend)
    for _ in range(2):
        twin.step()
    known = twin.both[0]._again
    twin.step()
    assert known is not None and twin.both[0]._again is known, "the quick way was not gone"
    twin.change(CHANGES[name])
    for _ in range(3):
        twin.step()
    twin.check()


@pytest.mark.parametrize(
    ("name", "backend", "steps"),
    [("adamw", "cpp", 90), ("adam", "cpp", 90), ("lion", "cpp", 30), ("adam", "torch", 30), ("adamw", "triton", 12)],
)
def test_rates_that_change_in_every_step(name: str, backend: str, steps: int) -> None:
    """`lr` is a number by itself for some of them, and one with `t` for others; more steps than are computed ahead."""
    twin = Twin(backend, rule=name)
    for taken in range(steps):
        changes = steps // 3 < taken < steps // 2
        twin.change(lambda o, p, t=taken: o.param_groups[t % 2].update(lr=0.1 / (1 + t // 2)) if changes else None)  # type: ignore[misc]  # noqa: B023
        twin.step()
    twin.check()
    assert twin.both[0]._again is not None


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "0.1", None, True])
def test_a_rate_that_is_none_is_refused_in_the_middle_of_steps(value: Any) -> None:
    twin = Twin()
    for _ in range(4):
        twin.step()
    twin.change(lambda o, p: o.param_groups[1].update(lr=value))
    for optimizer in twin.both:
        with pytest.raises((TypeError, ValueError), match=r"AdamW: lr .*\(group 1\)"):
            optimizer.step()
    twin.change(lambda o, p: o.param_groups[1].update(lr=0.2))
    twin.step()
    twin.check()


def test_a_sparse_gradient_is_refused_as_ever() -> None:
    twin = Twin()
    twin.step()
    twin.step()
    p = twin.params[0][0]
    p.grad = some(*p.shape).to_sparse()
    with pytest.raises(RuntimeError, match="has a sparse gradient"):
        twin.both[0].step()


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_a_parameter_without_a_gradient_joins_and_leaves(backend: str) -> None:
    twin = Twin(backend)
    for with_gradient in (True, False, False, False, True, True, True, False):
        for params in twin.params:
            params[1].requires_grad_(with_gradient)
        twin.step(None if with_gradient else 1)
    twin.check()
    assert float(twin.both[0].state[twin.params[0][1]]["step"]) == 4


def each_state_per_model(what: Callable[[Tensor], Any], keep: bool = False) -> Change:
    """`keep`: what is made of a state takes its place, in the dictionaries of all parameters."""

    def change(optimizer: Any, params: list[Tensor]) -> None:
        for name in [name for name, x in optimizer.state[params[0]].items() if x.dim() == 0 and name != "step"]:
            made = what(optimizer.state[params[0]][name])
            for p in params if keep else ():
                optimizer.state[p][name] = made

    return change


@pytest.mark.parametrize("rule", ["prodigy", "dog", "alig"])
@pytest.mark.parametrize(
    "change",
    [
        each_state_per_model(lambda x: x.mul_(1.5)), each_state_per_model(lambda x: x.set_(x * 1.5)),
        each_state_per_model(lambda x: setattr(x, "data", x * 1.5)), each_state_per_model(lambda x: x * 1.5, keep=True),
        each_state_per_model(lambda x: x.double() * 1.5, keep=True), each_state_per_model(lambda x: setattr(x, "data", x.double() * 1.5)),
        loaded,
    ],
    ids=["written", "set", "elsewhere", "replaced", "replaced by another type", "another type", "loaded"],
)  # fmt: skip
def test_values_per_model_that_change_between_two_steps(rule: str, change: Change) -> None:
    loss = some(1, seed=5)[0].abs()
    twin = Twin(rule=rule, loss=(lambda: loss) if rule == "alig" else None)
    twin.change(lambda o, p: o.param_groups[1].update(lr=0.1))
    for _ in range(5):
        twin.step()
    assert twin.both[0]._again is not None
    if change is not loaded or rule != "alig":  # which takes a step
        twin.change(change)
    for _ in range(3):
        twin.step()
    twin.check()


def test_settings_that_decide_change_beside_others_that_do_not() -> None:
    twin = Twin(rule="mtdao")
    for taken in range(14):
        changed: dict[str, Any] = {"corrected": taken % 5 > 2, "eps": 1e-3 / (1 + taken // 2)}
        twin.change(lambda o, p, new=changed: [g.update(new, lr=0.1) for g in o.param_groups])  # type: ignore[misc]
        twin.step()
    twin.check()
    assert twin.both[0]._again is not None


@pytest.mark.parametrize("rule", ["adamw", "prodigy", "adopt"])
def test_counts_that_part_and_meet_again(rule: str) -> None:
    twin = Twin(rule=rule)
    twin.change(lambda o, p: o.param_groups[1].update(lr=0.1))
    for start in (None, [7], [20] * len(SHAPES), None, [3] * len(SHAPES)):
        twin.change(lambda o, p, s=start: [o.state[x]["step"].fill_(t) for x, t in zip(p, s or (), strict=False)])  # type: ignore[misc]
        for _ in range(4):
            twin.step()
    twin.check()
    assert twin.both[0]._again is not None


@pytest.mark.parametrize("rule", ["lookahead", "radam", "adopt", "prodigy"])
@pytest.mark.parametrize("at", range(3, 9))
def test_a_gradient_is_missing_where_steps_are_decided_anew(rule: str, at: int) -> None:
    twin = Twin(rule=rule)
    twin.change(lambda o, p: o.param_groups[1].update(lr=0.1))  # values per model want the same
    for taken in range(12):
        twin.step(without=1 if taken == at else None)
    twin.check()


def test_a_step_while_the_model_holds_other_weights_is_refused() -> None:
    twin = Twin(rule="schedulefreesgd")
    for _ in range(4):
        twin.step()
    known = twin.both[0]._again
    for optimizer in twin.both:
        for _ in range(2):
            optimizer.eval()
            with pytest.raises(RuntimeError, match="holds the weights to evaluate with"):
                optimizer.step()
            optimizer.train()
    twin.step()
    twin.check()
    assert known is not None and twin.both[0]._again is known


def test_gradients_that_torch_negates_later() -> None:
    twin = Twin()
    for turned in (False, False, False, True, False):
        twin.step(turned=turned)
    twin.check()


def _as_part(gradient: Tensor) -> Tensor:
    """Within the memory of something larger, as of buckets."""
    return torch.cat([torch.ones(3), gradient.flatten()])[3:].view(gradient.shape)


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in another order": lambda g: g.transpose(0, -1).contiguous().transpose(0, -1) if g.dim() else g,
    "part": _as_part,
    "expanded": lambda g: g.flatten()[:1].view([1] * g.dim()).expand(g.shape),
    "with strides": lambda g: torch.stack([g, g], -1).select(-1, 0),
    "with a graph": lambda g: g * torch.ones((), requires_grad=True),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_of_another_kind(name: str) -> None:
    twin = Twin()
    for made in (None, None, None, GRADIENTS[name], GRADIENTS[name], None):
        twin.step(made=made)
    twin.check()


def test_the_same_gradients_in_other_memory() -> None:
    """The tensors stay; what they hold is replaced, shrunk to nothing, and read in another order."""
    twin = Twin()
    for _ in range(3):
        twin.step()
    for taken in range(3):
        for params, optimizer in zip(twin.params, twin.both, strict=True):
            params[0].grad.data = some(5, 6, seed=taken).T.contiguous() if taken < 2 else some(5, 6, seed=taken).T  # type: ignore[union-attr]
            params[4].grad.set_(some(*SHAPES[4], seed=taken))  # type: ignore[union-attr]
            if optimizer is twin.both[1]:
                optimizer._again, optimizer._last = None, []
            optimizer.step()
    twin.check()


def test_two_optimizers_of_a_rule_take_turns() -> None:
    one, other = Twin(), Twin()
    for _ in range(3):
        one.step()
        other.step()
    known = one.both[0]._again, other.both[0]._again
    for twin in (one, other):
        twin.step()
        twin.check()
    assert None not in known and known == (one.both[0]._again, other.both[0]._again)


def test_copies_count_for_themselves() -> None:
    twin = Twin()
    for _ in range(3):
        twin.step()
    params, optimizer = copy.deepcopy((twin.params[0], twin.both[0]))
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.step()
    assert {float(s["step"]) for s in optimizer.state.values()} == {5.0}
    assert {float(s["step"]) for s in twin.both[0].state.values()} == {3.0}


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("name", ["adamw", "prodigy", "adafactor"])
def test_gradients_that_another_thread_frees_stay_until_they_are_read(name: str, backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums are taken and weights written while others may use Python; torch's own optimizers keep gradients meanwhile."""
    given = [some(5, 3, seed=k) for k in range(4)]
    one, other = (torch.nn.Parameter(some(5, 3)) for _ in range(2))
    optimizer, wanted = [optlang.load(name, backend=backend)([p]) for p in (one, other)]
    left, freed, begun = list[weakref.ref[Any]](), list[bool](), LastStep.begun

    def begun_and_freed(self: LastStep, *args: Any) -> Any:
        found = begun(self, *args)
        if self is optimizer._again and found is not None:
            one.grad = None
            freed.append(left[-1]() is None)
        return found

    monkeypatch.setattr(LastStep, "begun", begun_and_freed)
    monkeypatch.setattr(_thread, "_count", lambda: 1)
    for gradient in given:
        numbers = gradient.numpy().copy().view(Memory)
        left.append(weakref.ref(numbers))
        one.grad, other.grad = torch.from_numpy(numbers), gradient
        del numbers
        optimizer.step()
        wanted.step()
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    one.grad = None
    assert freed == [False] * len(freed) and len(freed) >= 2
    assert all(memory() is None for memory in left)


def test_without_what_watches_steps_are_gathered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_found", lambda: None)
    twin = Twin()
    for _ in range(4):
        twin.step()
    twin.check()
    assert twin.both[0]._again is None


def test_an_unknown_torch_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "TORCH", (*library.TORCH[:-1], "libc10.no_such_function"))
    assert library._found.__wrapped__() is None
