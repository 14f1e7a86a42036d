"""Steps that ask the model or read inputs, taken again: the same bits as when everything is gathered anew. 10 seconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from tensors import some
from torch import Tensor

import optlang

SHAPES = [(6, 5), (7,), (3, 2, 2), (5, 0), (40, 3)]


class Trained:
    """An optimizer with its model. `change` happens in call `at` of the closure, counted from the first of all steps."""

    def __init__(self, rule: str, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        self.params = [torch.nn.Parameter(some(*s, seed=i).to(dtype)) for i, s in enumerate(SHAPES)]
        load: Any = optlang.loads if " " in rule else optlang.load
        self.optimizer: Any = load(rule, backend="cpp")([{"params": self.params[:2]}, {"params": self.params[2:]}], **settings)
        self.calls, self.at = 0, -1
        self.change: Callable[[Trained], Any] = id
        self.batch: list[Tensor] = []  # the gradients of the first call in this step
        self.without = -1  # the place of a parameter that the model does not use while it is called again

    def closure(self) -> Tensor:
        self.optimizer.zero_grad()
        self.calls += 1
        if self.calls == self.at:
            self.change(self)
        loss: Any = torch.rand(())
        for place, p in enumerate(self.params):
            if place != self.without or not self.calls % 2:
                loss = loss + ((p * (place + 1) - 0.5) ** 2).sum() * 0.01 + (p**4).sum() * 0.001
        loss.backward()
        self.batch = self.batch or [p.grad for p in self.params if p.grad is not None]
        return loss.detach()  # type: ignore[no-any-return]

    def step(self, anew: bool, **inputs: Any) -> None:
        if anew:
            self.optimizer._again, self.optimizer._last = None, []
        for name, given in inputs.items():
            self.optimizer.inputs[name] = given(self.params) if callable(given) else given
        self.batch = []
        self.optimizer.step(self.closure)

    @property
    def held(self) -> list[Tensor]:
        """All that a step changes."""
        states = [value for p in self.params for value in self.optimizer.state[p].values()]
        return [p.detach().clone() for p in self.params] + [value.clone() for value in states]


def twins(rule: str, **more: Any) -> tuple[Trained, Trained]:
    return Trained(rule, **more), Trained(rule, **more)


def same(one: Trained, other: Trained) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one.held, other.held, strict=True))


def take(one: Trained, other: Trained, steps: int, **inputs: Any) -> None:
    """Steps of both, the second's as if each was the first; with the same random numbers."""
    for number in range(steps):
        for trained in (one, other):
            torch.manual_seed(number)
            trained.step(trained is other, **inputs)


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [("sam", torch.float32), ("sam", torch.bfloat16), ("smb", torch.float32), ("mezo", torch.float64), ("sophiah", torch.bfloat16),
     ("awp", torch.float32)],
    ids=str,
)  # fmt: skip
def test_steps_that_ask_the_model(rule: str, dtype: torch.dtype) -> None:
    """Points by which sums come first; questions of three kinds at once; draws; products; kernels of two kinds."""
    one, other = twins(rule, dtype=dtype, lr=1e-3)
    take(one, other, 3)
    known = one.optimizer._again
    take(one, other, 9)
    assert same(one, other)
    assert one.optimizer._again is known
    assert all(part.again is not None for part in known.parts), "the quick way was not gone"
    assert one.calls == other.calls


def elsewhere(trained: Trained) -> None:
    """Weights in other memory while the model is called."""
    trained.params[0].data = trained.params[0].data.clone()
    trained.params[4].data = trained.params[4].data.clone()


def crossed(trained: Trained) -> None:
    trained.params[0].data = trained.params[0].data.T.contiguous().T


def crossed_gradient(trained: Trained) -> None:
    trained.params[0].register_hook(lambda g: g.T.contiguous().T)


def state_elsewhere(trained: Trained) -> None:
    """One that is not looked at for its own sake, as counts are."""
    for state in trained.optimizer.state.values():
        if "m" in state:
            state["m"].data = state["m"].data.clone()


def gradients_elsewhere(trained: Trained) -> None:
    """Those of the batch, which are set aside by now, have other memory with other numbers in it."""
    for gradient in trained.batch:
        gradient.data = 2 * gradient.data


CHANGES: dict[str, Callable[[Trained], Any]] = {
    "weights elsewhere": elsewhere, "weights in another order": crossed, "gradients in another order": crossed_gradient,
    "states elsewhere": lambda t: [setattr(x, "data", x.data.clone()) for x in t.optimizer.state[t.params[2]].values()],
    "a state elsewhere": state_elsewhere, "gradients of the batch elsewhere": gradients_elsewhere,
    "a parameter not used": lambda t: setattr(t, "without", 3),
    "parameters frozen": lambda t: t.params[1].requires_grad_(False),
}  # fmt: skip


TWO = "rule Two { w' = w - 0.01*grad(w + 0.01*g) - 0.02*grad(w - 0.02*g) }"
LOSSES = "rule Losses { state m = 0 m' = 0.9*m + g*(loss_at(w + 0.01*g) - loss_at(w - 0.01*g)) w' = w - m' }"
NEAR = """rule Near {
  a = grad(w + 0.1*g/(1 + norm(g per model)))
  b = grad(w - 0.1*a/(1 + norm(a per model)))
  w' = w - 0.01*(g + a*b)
}"""
CALLS = {
    "first call": ("sam", 9), "second call": ("sam", 10), "between two questions": (TWO, 14), "between two losses": (LOSSES, 14),
    "at the last loss": (LOSSES, 15), "before the gradient is read again": (NEAR, 14), "at the last gradient": (NEAR, 15),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "call"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_while_the_model_is_asked(name: str, rule: str, call: int) -> None:
    """The fifth step of SAM has calls 9 and 10, of a rule with two questions 13 to 15."""
    one, other = twins(rule)
    take(one, other, 4)
    assert one.optimizer._again is not None and one.calls == 4 * (2 + (rule != "sam"))
    for trained in (one, other):
        trained.at, trained.change = call, CHANGES[name]
    take(one, other, 4)
    assert same(one, other)


@pytest.mark.parametrize(("rule", "call"), [("sam", 10), (LOSSES, 14), (LOSSES, 15)], ids=["gradient", "loss", "second loss"])
def test_a_closure_that_fails_at_another_point_leaves_everything_as_it_was(rule: str, call: int) -> None:
    one, other = twins(rule)
    take(one, other, 4)
    before = one.held
    for trained in (one, other):
        trained.at, trained.change = call, lambda t: t.missing  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match="missing"):
            trained.step(trained is other)
    assert all(torch.equal(x, y) for x, y in zip(before, one.held, strict=True))
    take(one, other, 3)
    assert same(one, other)


@pytest.mark.parametrize("anew", [False, True])
def test_each_of_several_losses_begins_as_the_first_call_did(anew: bool) -> None:
    """Without gradients that the closure has left, with the same random numbers, with gradients switched off by whoever asks."""
    trained = Trained(LOSSES)
    seen: list[tuple[bool, bool, float]] = []

    def closure() -> Tensor:
        seen.append((torch.is_grad_enabled(), any(p.grad is not None for p in trained.params), torch.rand(()).item()))
        torch.set_grad_enabled(True)
        for p in trained.params:
            p.grad = torch.full_like(p, 0.5)
        return torch.tensor(1.0)

    for _ in range(4):
        trained.closure, seen[:] = closure, []  # type: ignore[method-assign]
        trained.step(anew)
        first, *others = seen
        assert others == [(False, False, first[2])] * 2
        assert all((p.grad == 0.5).all() for p in trained.params)
    assert (trained.optimizer._again is None) == anew


@pytest.mark.parametrize("rule", ["mezo", "sam"])
def test_autocast_around_a_step_is_as_autocast_in_its_closure(rule: str) -> None:
    """It keeps casts of weights, which are not those of other points."""
    around, inside = twins(rule, lr=1e-2)
    cast = torch.autocast("cpu", torch.bfloat16)
    for trained in (around, inside):
        layer, x = torch.nn.Linear(5, 6, bias=False), some(4, 5, seed=9)
        layer.weight = trained.params[0]

        def closure(trained: Trained = trained, layer: Any = layer, x: Tensor = x) -> Tensor:
            with cast if trained is inside else nullcontext():
                trained.optimizer.zero_grad()
                loss: Tensor = layer(x).float().square().mean() + sum((p**2).sum() for p in trained.params)
                loss.backward()
            return loss.detach()

        trained.closure = closure  # type: ignore[method-assign]
    for _ in range(4):
        with cast:
            around.step(False)
        inside.step(False)
    assert same(around, inside)


def each(made: Callable[[Tensor], Any]) -> Callable[[list[Tensor]], Any]:
    return lambda params: {p: made(p.detach()) for p in params}


GIVEN: dict[str, Any] = {
    "a number": 0.5, "a tensor of one": torch.tensor(0.25), "one that torch negates later": torch._neg_view(torch.tensor(-0.5)),
    "a whole number": 1, "a tensor for each": each(lambda p: p.cos()),
    "doubles": each(lambda p: p.double().cos()), "numbers": each(lambda p: p.numel() / 100), "arrays": each(lambda p: p.cos().numpy()),
    "in another order": each(lambda p: p.cos().transpose(0, -1).contiguous().transpose(0, -1)),
    "expanded": each(lambda p: p.flatten()[:1].cos().view([1] * p.dim()).expand(p.shape) if p.numel() else p),
}  # fmt: skip


def test_inputs_of_every_kind() -> None:
    """In one run after the other, so that what was found out about one kind has to do for the next."""
    one, other = twins("l2opa")
    take(one, other, 3, p=1.0, a=0.5)
    known = one.optimizer._again
    for given in GIVEN.values():
        take(one, other, 1, p=given, a=0.5)
        take(one, other, 1, p=given, a=given)
    assert same(one, other)
    assert known is not None and one.optimizer._again is known and all(part.again is not None for part in known.parts)


@pytest.mark.parametrize("wrong", [torch.ones(3), each(lambda p: p[:1]), lambda params: {params[0]: torch.ones(6, 5)}])
def test_inputs_that_are_wrong_are_refused_as_ever(wrong: Any) -> None:
    one, other = twins("l2opa")
    take(one, other, 3, p=1.0, a=0.5)
    told = []
    for trained in (one, other):
        with pytest.raises(RuntimeError, match="the input `p`") as found:
            trained.step(trained is other, p=wrong)
        told.append(str(found.value))
    assert told[0] == told[1]
    take(one, other, 3, p=1.0, a=0.5)
    assert same(one, other)
