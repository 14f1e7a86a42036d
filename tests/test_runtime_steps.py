"""Steps of optimizers: parameters of all kinds, number types, hooks, schedulers and scalers as torch has them. 10 seconds."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR
from torch.profiler import ExecutionTraceObserver, profile

import optlang
from optlang.runtime.steps import traced

AdamW: Any = optlang.load("adamw")
SGD: Any = optlang.load("sgd")
BACKENDS = ("reference", "torch")
HALVES = (torch.bfloat16, torch.float16)


def some(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def weights(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return some(*shape, seed=seed, dtype=dtype).requires_grad_()


def give(params: list[Tensor], step: int) -> None:
    for number, p in enumerate(params):
        p.grad = some(*p.shape, seed=100 * step + number + 1, dtype=p.dtype)


# ----------------------------------------------------------------------------------------------- which parameters


@pytest.mark.parametrize("params", [[], iter(()), ()])
def test_no_parameters(params: Any) -> None:
    with pytest.raises(ValueError, match="empty parameter list"):
        AdamW(params)


def test_a_parameter_twice() -> None:
    p = weights(2)
    with pytest.raises((ValueError, UserWarning), match="duplicate|more than one"):
        AdamW([p, p])
    with pytest.raises(ValueError, match="more than one parameter group"):
        AdamW([{"params": [p]}, {"params": [p]}])


def test_what_is_no_leaf_or_no_tensor() -> None:
    with pytest.raises(ValueError, match="non-leaf"):
        AdamW([weights(2) * 2])
    with pytest.raises(TypeError, match="Tensor"):
        AdamW(["p"])
    with pytest.raises(TypeError, match="set"):
        AdamW([{"params": {weights(2)}}])
    with pytest.raises(TypeError, match="iterable"):
        AdamW(weights(2))


def test_sparse_gradients() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = AdamW(table.named_parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="weight has a sparse gradient.*sparse=False"):
        optimizer.step()
    assert not optimizer.state


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1), (0, 3), (3, 0), (2, 0, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor"])
def test_every_shape(name: str, shape: tuple[int, ...], backend: str) -> None:
    p, q = weights(*shape), weights(2, seed=1)
    optimizer = optlang.load(name, backend=backend)([p, q])  # type: ignore[call-arg]
    for step in range(3):
        give([p, q], step)
        optimizer.step()
    assert p.shape == shape
    assert p.isfinite().all()
    assert q.isfinite().all()
    if p.numel() and name == "adamw":
        assert (p != some(*shape)).all()


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_order_does_not_matter(name: str, backend: str) -> None:
    """Weights transposed, sliced and in channels-last order; gradients expanded and transposed."""
    plain = [weights(4, 6), weights(4, 6, seed=1), weights(2, 3, 4, 5, seed=2), weights(4, 6, seed=3)]
    odd = [
        some(4, 6).T.contiguous().T.requires_grad_(),
        torch.stack([some(4, 6, seed=1), some(4, 6)], -1)[..., 0].requires_grad_(),
        some(2, 3, 4, 5, seed=2).contiguous(memory_format=torch.channels_last).requires_grad_(),
        weights(4, 6, seed=3),
    ]
    cls: Any = optlang.load(name, backend=backend)
    one, other = cls(plain), cls(odd)
    for step in range(3):
        for a, b in zip(plain, odd, strict=True):
            a.grad = some(*a.shape, seed=step)
            b.grad = a.grad.clone().transpose(-1, -2).contiguous().transpose(-1, -2)
        plain[3].grad, odd[3].grad = torch.ones(4, 6, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64).expand(4, 6)
        one.step()
        other.step()
    for a, b in zip(plain, odd, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert not odd[0].is_contiguous()


# --------------------------------------------------------------------------------------------------- number types


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "lamb"])
def test_number_types(name: str, dtype: torch.dtype) -> None:
    """Against the reference, step by step from the same weights and states: half types round once, at the end."""
    sides = [weights(6, 4, dtype=dtype), weights(6, 4, dtype=dtype)]
    ours, reference = (optlang.load(name, backend=b)([p]) for b, p in zip(("torch", "reference"), sides, strict=True))  # type: ignore[call-arg]
    for step in range(8):
        give(sides[:1], step)
        sides[1].grad = sides[0].grad
        ours.step()
        reference.step()
        allowed = 1e-12 if dtype == torch.float64 else 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
        torch.testing.assert_close(sides[0], sides[1], rtol=allowed, atol=1e-7)
        for key, value in reference.state[sides[1]].items():
            mine = ours.state[sides[0]][key]
            torch.testing.assert_close(mine, value, rtol=1e-5, atol=1e-6)
            if key != "step":
                assert mine.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        with torch.no_grad():
            sides[1].copy_(sides[0])
        for key, value in ours.state[sides[0]].items():
            reference.state[sides[1]][key].copy_(value)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_weights_round_once(backend: str, dtype: torch.dtype) -> None:
    """Eight updates of an eighth of a rounding step each in one expression: rounded on the way, they would be lost."""
    text = "rule R { hyper lr = 1 in (0, inf) w' = w + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 }"
    p = torch.ones(3, dtype=dtype, requires_grad=True)
    p.grad = torch.full_like(p, torch.finfo(dtype).eps)
    optlang.loads(text, backend=backend)([p]).step()  # type: ignore[call-arg]
    assert p.tolist() == [1 + torch.finfo(dtype).eps] * 3


def test_one_optimizer_for_several_number_types() -> None:
    params = [weights(3, dtype=dtype) for dtype in (torch.float64, torch.float32, *HALVES)]
    optimizer = AdamW(params, lr=0.25)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p in params:
        torch.testing.assert_close(p.double(), some(3, dtype=p.dtype).double() * (1 - 0.0025) - 0.25, rtol=1e-2, atol=1e-2)


# -------------------------------------------------------------------------------------------- gradients and counts


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_without_gradient_waits(backend: str) -> None:
    """It starts with t = 1 whenever its first gradient comes, as in torch."""
    p, q = weights(3), weights(3, seed=1)
    start = q.detach().clone()
    optimizer = optlang.load("adamw", backend=backend)([p, q])  # type: ignore[call-arg]
    theirs = [x.detach().clone().requires_grad_() for x in (p, q)]
    other = torch.optim.AdamW(theirs)
    for step in range(6):
        give([p, q], step)
        if step % 3 == 0:
            q.grad = None
        for x, y in zip((p, q), theirs, strict=True):
            y.grad = x.grad
        optimizer.step()
        other.step()
        if step == 0:
            assert torch.equal(q, start)
            assert q not in optimizer.state
    assert [float(optimizer.state[x]["step"]) for x in (p, q)] == [6, 4]
    torch.testing.assert_close([p, q], theirs, rtol=1e-13, atol=1e-13)


def test_no_gradients_at_all() -> None:
    p = weights(3)
    optimizer = AdamW([p])
    assert optimizer.step() is None
    assert torch.equal(p, some(3))
    assert not optimizer.state


def test_gradients_are_not_kept_alive() -> None:
    p = weights(3)
    optimizer = AdamW([p])
    give([p], 0)
    optimizer.step()
    gradient = weakref.ref(p.grad)
    optimizer.zero_grad()
    assert gradient() is None


def left_by_a_run(name: str, backend: str) -> list[weakref.ref[Any]]:
    """What must be gone when nobody holds an optimizer any more. Loading states leaves nothing behind before."""
    cls: Any = optlang.load(name, backend=backend)
    p = weights(3)
    optimizer = cls([p])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    for _ in range(4):
        optimizer.step(closure)
    known = {*traced._optimizers}
    optimizer.load_state_dict(optimizer.state_dict())
    assert {*traced._optimizers} <= known
    return [weakref.ref(x) for x in (p, optimizer, *optimizer.state[p].values())]


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("name", ["adamw", "sam"])
def test_the_model_of_the_last_step_does_not_stay_with_the_class(name: str, backend: str) -> None:
    left = left_by_a_run(name, backend)
    gc.collect()
    assert [x for x in left if x() is not None] == []


def test_maximize() -> None:
    p, q = weights(3), weights(3)
    for rule, params, sign in ((AdamW([p], maximize=True), [p], 1), (AdamW([q]), [q], -1)):
        for step in range(3):
            give(params, step)
            params[0].grad.mul_(sign)
            rule.step()
    assert torch.equal(p, q)
    assert not torch.equal(p, some(3))
    with pytest.raises(TypeError, match="maximize must be True or False"):
        AdamW([p], maximize="no")


def test_maximize_in_one_group() -> None:
    p, q = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    p.grad, q.grad = torch.ones(1), torch.ones(1)
    SGD([{"params": [p], "maximize": True}, {"params": [q]}], lr=0.5).step()
    assert (p.item(), q.item()) == (0.5, -0.5)
    assert p.grad.item() == 1


def test_step_hooks() -> None:
    p = weights(2)
    optimizer = AdamW([p])
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: seen.append("before"))
    optimizer.register_step_post_hook(lambda opt, args, kwargs: seen.append("after"))
    give([p], 0)
    optimizer.step()
    assert seen == ["before", "after"]


def test_records_are_opened_for_those_who_read_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    p, opened = weights(2), list[str]()
    optimizer = AdamW([p])
    give([p], 0)
    enter = record_function.__enter__
    monkeypatch.setattr(record_function, "__enter__", lambda self: opened.append(self.name) or enter(self))
    optimizer.step()
    assert opened == []
    with profile():
        optimizer.step()
    observer = ExecutionTraceObserver().register_callback(str(tmp_path / "trace.json"))
    observer.start()
    optimizer.step()
    observer.stop()
    observer.unregister_callback()
    assert opened == 2 * ["Optimizer.step#AdamW.step"]
    optimizer.step()
    assert len(opened) == 2


def test_groups_added_later_and_states_replaced() -> None:
    p, q = weights(3), weights(3, seed=1)
    optimizer = AdamW([p], weight_decay=0.0)
    give([p], 0)
    optimizer.step()
    optimizer.add_param_group({"params": q, "lr": 0.0})
    give([p, q], 1)
    optimizer.step()
    assert torch.equal(q, some(3, seed=1))
    assert [float(optimizer.state[x]["step"]) for x in (p, q)] == [2, 1]
    before = p.detach().clone()
    optimizer.state[p] = {"step": torch.tensor(0.0), "m": torch.zeros(3).double(), "v": torch.zeros(3).double()}
    p.grad = torch.full_like(p, 7)
    optimizer.step()
    torch.testing.assert_close(p.detach(), before - 1e-3)
    assert float(optimizer.state[p]["step"]) == 1


def test_a_group_that_is_refused_is_not_added() -> None:
    optimizer: Any = optlang.load("muon")([weights(2, 3)])
    with pytest.raises(ValueError, match=r"Muon treats parameters as matrices, but parameter 1 of group 1 has shape \(3,\)"):
        optimizer.add_param_group({"params": [weights(2, 2), weights(3)]})
    with pytest.raises(TypeError, match="dictionary"):
        optimizer.add_param_group([weights(2, 2)])
    assert len(optimizer.param_groups) == 1


FAILING = "rule R { hyper lr = 1 in (0, inf) input x state m = 0 m' = m + g w' = w - lr*m'*x }"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first", [True, False])
def test_a_failing_step_changes_nothing(backend: str, first: bool) -> None:
    """The input of the second parameter has the wrong shape; the first has been computed by then."""
    p, q = weights(3), weights(3, seed=1)
    optimizer: Any = optlang.loads(FAILING, backend=backend)([p, q])
    optimizer.inputs["x"] = {p: torch.ones(3), q: torch.ones(3)}
    give([p, q], 0)
    if not first:
        optimizer.step()
    before = copy.deepcopy((p.detach(), q.detach(), optimizer.state_dict()["state"]))
    optimizer.inputs["x"] = {p: torch.ones(3), q: torch.ones(2)}
    with pytest.raises(RuntimeError, match=r"parameter 1 of group 0.*`x`.*\(2,\)"):
        optimizer.step()
    torch.testing.assert_close((p.detach(), q.detach(), optimizer.state_dict()["state"]), before, rtol=0, atol=0)


# --------------------------------------------------------------------------------------- schedulers, scaler, copies


def swa(optimizer: Any) -> Any:
    return SWALR(optimizer, swa_lr=0.02, anneal_epochs=5)


def in_sequence(o: Any) -> Any:
    parts = [schedulers.LinearLR(o, 0.1, total_iters=4), schedulers.CosineAnnealingLR(o, 6)]
    return schedulers.SequentialLR(o, parts, milestones=[4])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda t: 0.9**t),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda t: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 3),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 5]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 8),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 7),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 1e-3, 1e-1, 3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=12),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "SequentialLR": in_sequence,
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler([schedulers.LinearLR(o), schedulers.ExponentialLR(o, 0.9)]),
    "SWALR": swa,
}


def scheduled(optimizer: Any, params: list[Tensor], make: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
    scheduler = make(optimizer)
    seen = []
    for step in range(10):
        give(params, step)
        optimizer.step()
        if isinstance(scheduler, schedulers.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
        seen.append((float(optimizer.param_groups[0]["lr"]), optimizer.param_groups[0]["betas"]))
    return seen


def test_every_scheduler_of_torch_is_tested() -> None:
    theirs = {n for n in schedulers.__all__ if n != "LRScheduler"}
    assert theirs <= {*SCHEDULERS}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_schedulers(name: str, tensor_lr: bool) -> None:
    mine, theirs = weights(4), weights(4)
    lrs: list[Any] = [torch.tensor(0.05), torch.tensor(0.05)] if tensor_lr else [0.05, 0.05]
    one = scheduled(AdamW([mine], lr=lrs[0]), [mine], SCHEDULERS[name])
    other = scheduled(torch.optim.AdamW([theirs], lr=lrs[1]), [theirs], SCHEDULERS[name])
    assert one == other
    assert len({lr for lr, _ in one}) > 1
    assert (name in ("OneCycleLR", "CyclicLR")) == (len({betas for _, betas in one}) > 1)
    torch.testing.assert_close(mine, theirs, rtol=1e-12 if not tensor_lr else 1e-6, atol=1e-12)


def test_one_cycle_of_a_momentum_rule() -> None:
    p = weights(4)
    optimizer: Any = optlang.load("momentum")([p], lr=0.05)
    scheduler = schedulers.OneCycleLR(optimizer, 0.1, total_steps=6)
    seen = []
    for step in range(5):
        give([p], step)
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["momentum"])
    assert len(set(seen)) > 3
    again: Any = optlang.load("momentum")(optimizer.param_groups)  # with what the scheduler left there
    assert again.param_groups[0]["max_momentum"] == optimizer.param_groups[0]["max_momentum"]


def test_gradient_scaler_skips_steps_that_overflow() -> None:
    p, q = weights(3, dtype=torch.float32), weights(3, dtype=torch.float32)
    ours, theirs = AdamW([p]), torch.optim.AdamW([q])
    for optimizer, w in ((ours, p), (theirs, q)):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale((w * some(3, seed=step).float()).sum() * (torch.inf if step == 1 else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
    torch.testing.assert_close(p, q)
    assert float(ours.state[p]["step"]) == 3


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("name", ["adamw", "schedulefreeadamw", "muonwithadamw"])
def test_copies_go_on_by_themselves(name: str, way: Callable[[Any], Any]) -> None:
    params = [weights(3, 2), weights(3)]
    cls: Any = optlang.load(name)
    optimizer = cls([("a", params[0]), ("b", params[1])])
    optimizer.param_groups[0]["weight_decay"] = 0.125
    give(params, 0)
    optimizer.step()
    copied_params, copied = way((params, optimizer))
    assert type(copied) is cls
    assert copied.param_groups[0]["weight_decay"] == 0.125
    assert copied.param_groups[0]["params"][0] is copied_params[0]
    for ps, o in ((params, optimizer), (copied_params, copied)):
        give(ps, 1)
        o.step()
    torch.testing.assert_close(params, copied_params, rtol=0, atol=0)
    give(copied_params, 2)
    copied.step()
    assert not torch.equal(params[0], copied_params[0])
    assert float(optimizer.state[params[0]]["step"]) == 2
    copied.add_param_group({"params": [("c", weights(2))]})


@pytest.mark.parametrize("name", ["adamw", "schedulefreeadamw", "muonwithadamw"])
def test_cloudpickle_sends_classes_by_their_contents(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable-Baselines3, Ray and joblib send classes so, and optimizers with them, also those that have stepped."""
    params, cls = [weights(3, 2), weights(3)], optlang.load(name)
    optimizer: Any = cls([("a", params[0]), ("b", params[1])])
    give(params, 0)
    optimizer.step()
    sent = cloudpickle.dumps((cls, params, optimizer))
    monkeypatch.setattr(cloudpickle.cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_ID", {})  # as in a process that has never seen the class
    got, copied_params, copied = pickle.loads(sent)
    assert type(copied) is got is not cls
    for ps, o in ((params, optimizer), (copied_params, copied)):
        give(ps, 1)
        o.step()
    torch.testing.assert_close(params, copied_params, rtol=0, atol=0)
    assert type(pickle.loads(pickle.dumps(copied))) is cls


def test_a_class_made_by_hand_is_copied_but_not_pickled() -> None:
    p = weights(2)
    rule = optlang.Rule("adamw").optimizer()
    give([p], 0)
    optimizer = rule([p])  # type: ignore[call-arg]
    optimizer.step()
    copied = copy.deepcopy(optimizer)
    assert type(copied) is rule
    copied.step()


def test_compiled_step_of_torch_is_not_needed_for_warnings() -> None:
    """Warnings are errors in these tests; an optimizer gives none over its life."""
    p = weights(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = AdamW([p])
        give([p], 0)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
