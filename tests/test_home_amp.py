"""Mixed precision: scaled losses, autocast, parameters of 16 bits; default devices; and steps inside of backward. 3 seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tensors import some
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import optlang

RULES = ["adamw", "lion", "momentum", "muonwithadamw", "schedulefreeadamw", "lamb", "prodigy"]


def module(name: str) -> Any:
    """The class of a rule's generated module."""
    space: dict[str, Any] = {"__name__": "module"}
    exec(compile(optlang.build(name), space["__name__"], "exec"), space)
    return space[optlang.Rule(name).name]


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)


def loss_of(net: nn.Module, seed: int) -> Tensor:
    data = some(6, 4, seed=seed).to(next(net.parameters()).dtype)
    return (net(data) ** 2).mean()


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


# ------------------------------------------------------------------------------------------------------ scaled losses


def fused(cls: Any, net: nn.Module, **settings: Any) -> Any:
    return cls(net.named_parameters(), fused=True, **settings)


@pytest.mark.parametrize("name", RULES)
def test_scaled_losses_take_the_same_steps(name: str) -> None:
    """Scales are powers of 2, so nothing is rounded: with and without a scaler, and whoever does the unscaling."""
    cls: Any = optlang.load(name)
    plain, outside, inside = model(), model(), model()
    optimizers = [cls(plain.named_parameters()), cls(outside.named_parameters()), fused(cls, inside)]
    assert [o._step_supports_amp_scaling for o in optimizers] == [False, False, True]
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2) for _ in range(2)]
    for seed in range(5):
        for net, optimizer, scaler in zip((plain, outside, inside), optimizers, (None, *scalers), strict=True):
            optimizer.zero_grad()
            loss = loss_of(net, seed)
            (loss if scaler is None else scaler.scale(loss)).backward()
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
    assert scalers[1].get_scale() > 2.0**8
    assert equal(plain, outside)
    assert equal(plain, inside)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(plain.parameters(), inside.parameters(), strict=True))  # type: ignore[arg-type]
    assert not hasattr(optimizers[2], "found_inf")


@pytest.mark.parametrize("unscaled_before", [False, True])
def test_an_overflow_is_no_step(unscaled_before: bool) -> None:
    net, other = model(), model()
    optimizer, theirs = fused(optlang.load("adamw"), net), torch.optim.AdamW(other.parameters(), fused=True)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**8) for _ in range(2)]
    for step in range(4):
        for o, n, scaler in ((optimizer, net, scalers[0]), (theirs, other, scalers[1])):
            o.zero_grad()
            scaler.scale(loss_of(n, step) * (torch.inf if step == 1 else 1)).backward()
            if unscaled_before:
                scaler.unscale_(o)
                nn.utils.clip_grad_norm_(n.parameters(), 0.5)
            scaler.step(o)
            scaler.update()
    assert scalers[0].get_scale() == scalers[1].get_scale() == 2.0**7
    assert {float(state["step"]) for state in optimizer.state.values()} == {3}
    torch.testing.assert_close(list(net.parameters()), list(other.parameters()))


def test_the_attributes_count_whoever_sets_them() -> None:
    p = torch.ones(2, requires_grad=True)
    optimizer: Any = optlang.load("sgd")([p], lr=1.0)
    p.grad = torch.full((2,), 8.0)
    optimizer.found_inf, optimizer.grad_scale = torch.tensor(1.0), torch.tensor([16.0])
    optimizer.step()
    assert p.tolist() == [1.0, 1.0]
    assert not optimizer.state
    optimizer.found_inf = torch.tensor(0.0)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]
    assert p.grad.tolist() == [0.5, 0.5]
    del optimizer.found_inf, optimizer.grad_scale
    optimizer.step()
    assert p.tolist() == [0.0, 0.0]


def test_small_gradients_of_16_bits_are_not_lost_in_unscaling() -> None:
    p = torch.zeros(2, dtype=torch.float16, requires_grad=True)
    optimizer: Any = optlang.load("sgd")([p], lr=2.0**20, fused=True)
    p.grad = torch.full((2,), 2.0**-10, dtype=torch.float16)
    optimizer.grad_scale = torch.tensor(2.0**20)
    optimizer.step()
    assert p.tolist() == [-(2.0**-10)] * 2  # 2^-30 does not fit into 16 bits


# ------------------------------------------------------------------------------------------- autocast, 16-bit weights


@pytest.mark.parametrize("name", RULES[:-1])  # the first steps of Prodigy are too small for weights of 16 bits
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_16_bits_have_states_of_32(name: str, dtype: torch.dtype) -> None:
    cls: Any = optlang.load(name)
    net = model(dtype)
    optimizer = cls(net.named_parameters())
    before = loss_of(net, 0).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(net, 0).backward()
        optimizer.step()
    assert loss_of(net, 0).item() < before
    floats = {v.dtype for state in optimizer.state.values() for v in state.values() if v.is_floating_point()}
    assert floats == {torch.float32}
    assert {p.dtype for p in net.parameters()} == {dtype}


MADE = ["module of muonwithadamw", "module of PRODUCTS"]
PRODUCTS = "rule R { hyper lr = 0.1 in (0, inf) when rank == 2 { d = grad(w - lr*g) u = (d @ d.T) @ d } else { u = g } w' = w - lr*u }"


def made(name: str) -> Any:
    """The class of a rule or of its module."""
    rule = name.removeprefix("module of ").replace("PRODUCTS", PRODUCTS)
    return module(rule) if rule != name else optlang.load(rule)


@pytest.mark.parametrize("name", [*RULES, MADE[0]])
def test_autocast_around_the_step_changes_nothing(name: str) -> None:
    cls: Any = made(name)
    one, other = model(), model()
    optimizers = cls(one.named_parameters()), cls(other.named_parameters())
    for seed in range(3):
        for net, optimizer, around in ((one, optimizers[0], False), (other, optimizers[1], True)):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(net, seed)
            loss.backward()
            with torch.autocast("cpu", torch.bfloat16, enabled=around):
                optimizer.step()
    assert equal(one, other)


@pytest.mark.parametrize("name", ["sam", "muonwithadamw", *MADE])
def test_closures_keep_the_autocast_that_is_around_them(name: str) -> None:
    cls: Any = made(name)
    net = model()
    optimizer = cls(net.named_parameters())
    seen = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(net, 0)
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), net(some(1, 4)).dtype))
        loss.backward()
        return loss

    with torch.autocast("cpu", torch.float16):
        optimizer.step(closure)
    assert set(seen) == {(True, torch.float16, torch.float16)}
    assert len(seen) == (2 if name in ("sam", "module of PRODUCTS") else 1)
    optimizer.step(closure)
    assert seen[-1][0] is False


# --------------------------------------------------------------------------------------------------- default device


@contextmanager
def by_default(device: str | None) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize("backend", ["torch", "cpp", "module"])
@pytest.mark.parametrize("name", [*RULES, "sam", "adafactor", "mezo", "perparametermlp", "sophiah", "alig", "core", "ldog", "zoranksgd"])
def test_where_tensors_are_made_by_default_changes_nothing(name: str, backend: str) -> None:
    """Who sets a default device has parameters elsewhere, too; on `meta` nothing could be computed. Closures find it as it was."""
    cls: Any = module(name) if backend == "module" else optlang.load(name, backend=backend)
    found = []
    for device in (None, "meta"):
        net, made = model(), []
        optimizer = cls(net.named_parameters())

        def closure() -> Tensor:
            made.append(torch.zeros(()).device.type)  # noqa: B023
            with torch.device("cpu"):
                optimizer.zero_grad()  # noqa: B023
                loss = loss_of(net, 0)  # noqa: B023
                loss.backward()
            return loss

        for _ in range(4):
            with by_default(device):
                optimizer.step(closure)
                optimizer.load_state_dict(optimizer.state_dict())
        with by_default(device):
            getattr(optimizer, "eval", list)()
        assert set(made) == {device or "cpu"}
        assert {s["step"].device.type for s in optimizer.state.values()} == {"cpu"}
        found.append(net)
    assert equal(*found)


# ---------------------------------------------------------------------------------------------- masters of 32 bits


def trained(dtype: torch.dtype, make: Any, masters: bool) -> tuple[list[Tensor], Any]:
    """Weights after 40 small steps with gradients of 16 bits, of a loop that keeps masters in float32 or of one without."""
    net = model(dtype)
    kept = [p.detach().float().requires_grad_() for p in net.parameters()] if masters else list(net.parameters())
    optimizer = make(kept, lr=1e-4)
    for seed in range(40):
        net.zero_grad()
        loss_of(net, seed).backward()
        for master, p in zip(kept, net.parameters(), strict=True):
            master.grad = p.grad if p.grad is None else p.grad.to(master.dtype)
        optimizer.step()
        with torch.no_grad():
            for master, p in zip(kept, net.parameters(), strict=True):
                p.copy_(master)
    return [p.detach().double() for p in kept], optimizer


def distance(some: list[Tensor], others: list[Tensor]) -> float:
    return sum(float((x - y).square().sum()) for x, y in zip(some, others, strict=True)) ** 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loop_may_keep_masters_of_32_bits(dtype: torch.dtype) -> None:
    """The steps of torch's AdamW in the same loop."""
    theirs, _ = trained(dtype, torch.optim.AdamW, masters=True)
    ours, optimizer = trained(dtype, optlang.load("adamw"), masters=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert all(value.dtype == torch.float32 for state in optimizer.state.values() for value in state.values())


def test_weights_and_what_rounding_took_away_stand_for_masters() -> None:
    """In bfloat16, where a step is less than half a digit of most weights."""
    start = [p.detach().double() for p in model(torch.bfloat16).parameters()]
    masters, _ = trained(torch.bfloat16, optlang.load("adamw"), masters=True)
    plain, _ = trained(torch.bfloat16, optlang.load("adamw"), masters=False)
    rounded, optimizer = trained(torch.bfloat16, optlang.load("adamw", weights="compensated"), masters=False)
    rests = [optimizer.state[p]["w.rest"] for p in optimizer.param_groups[0]["params"]]
    kept = [w + rest.double() for w, rest in zip(rounded, rests, strict=True)]
    way = distance(masters, start)
    assert distance(kept, masters) < 0.01 * way < 0.5 * way < distance(plain, masters)


# ------------------------------------------------------------------------------------------------- inside of backward


def released(cls: Any, net: nn.Module, **settings: Any) -> dict[Tensor, Any]:
    """An optimizer for each parameter, which steps and frees the gradient as soon as it is there."""
    found = {p: cls([(name, p)], **settings) for name, p in net.named_parameters()}

    def step(p: Tensor) -> None:
        found[p].step()
        found[p].zero_grad()

    for p in found:
        p.register_post_accumulate_grad_hook(step)
    return found


@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "muonwithadamw", "adafactor"])
def test_gradients_may_be_released_inside_of_backward(name: str) -> None:
    """The same steps as afterwards, with no two gradients in memory at once, for rules that look at one parameter at a time."""
    cls: Any = optlang.load(name)
    one, other = model(), model()
    optimizer, inside = cls(one.named_parameters()), released(cls, other)
    for seed in range(4):
        optimizer.zero_grad()
        loss_of(one, seed).backward()
        optimizer.step()
        loss_of(other, seed).backward()
        assert all(p.grad is None for p in other.parameters())
    assert equal(one, other)
    assert {float(o.state[p]["step"]) for p, o in inside.items()} == {4}


def test_one_optimizer_steps_each_parameter_as_its_gradient_comes() -> None:
    """Parameters without a gradient are left alone and not counted, so one optimizer serves all hooks."""
    cls: Any = optlang.load("adamw")
    one, other = model(), model()
    optimizer, inside = cls(one.parameters()), cls(other.parameters())

    def step(p: Tensor) -> None:
        inside.step()
        p.grad = None

    for p in other.parameters():
        p.register_post_accumulate_grad_hook(step)
    for seed in range(4):
        optimizer.zero_grad()
        loss_of(one, seed).backward()
        optimizer.step()
        loss_of(other, seed).backward()
    assert equal(one, other)


# --------------------------------------------------------------------------------------------------- sparse gradients


@pytest.mark.parametrize("name", ["adamw", "lion", "muonwithadamw"])
def test_sparse_gradients_are_refused_before_anything_moves(name: str) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"words": nn.Embedding(5, 3, sparse=True), "out": nn.Linear(3, 1)})
    before = [p.detach().clone() for p in net.parameters()]
    optimizer: Any = optlang.load(name)(net.named_parameters())
    net["out"](net["words"](torch.tensor([1, 2]))).sum().backward()
    with pytest.raises(RuntimeError, match=r"words.weight has a sparse gradient.*torch.nn.Embedding\(…, sparse=False\)"):
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert not optimizer.state


def test_parameters_without_memory_are_refused() -> None:
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    optimizer: Any = optlang.load("adamw")(net.named_parameters(), fused=True)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    with pytest.raises(RuntimeError, match="`fused=True` requires all the params to be floating point .* weight is on the meta device"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("name", [*RULES, "adafactor", "sam", "module of adamw", "module of radam", "module of prodigy", "module of smb"])
@pytest.mark.parametrize("around", [FakeTensorMode, lambda: torch.device("meta")], ids=["fake", "meta"])
def test_steps_without_numbers_tell_what_memory_they_ask_for(name: str, around: Callable[[], AbstractContextManager[Any]]) -> None:
    """As tools take them that estimate memory: every state is made, as large as it would be."""
    found = []
    for mode in (nullcontext, around):
        with mode():
            net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
            optimizer: Any = made(name)(net.named_parameters())

            def closure() -> Tensor:
                optimizer.zero_grad()  # noqa: B023
                loss: Tensor = net(torch.ones(3, 4)).sum()  # noqa: B023
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            for _ in range(2):
                assert optimizer.step(closure).shape == ()
            states = [{key: (value.shape, value.dtype) for key, value in optimizer.state[p].items()} for p in net.parameters()]
        found.append(states)
    assert found[0] == found[1]
    assert all(isinstance(p, FakeTensor) or p.is_meta for p in net.parameters())


def test_parameters_that_get_memory_are_stepped() -> None:
    p = nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    optimizer: Any = optlang.load("sgd")([p], lr=0.5)
    optimizer.step()
    there = nn.Parameter(torch.ones(3))
    there.grad = torch.ones(3)
    optimizer.state.clear()
    p.grad = None
    torch.utils.swap_tensors(p, there)
    optimizer.step()
    assert p.tolist() == [0.5] * 3
