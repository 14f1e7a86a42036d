"""Steps in which the host looks at nothing: `capturable=True`, overflows on the device, and what a CUDA graph would refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import counts
import pytest
import torch
from tensors import some
from torch import Tensor

import optlang
from optlang import Rule, ir
from optlang.library import names
from optlang.runtime.steps import captured

SHAPES = [(6, 5), (7,), (), (3, 2, 2, 2)]
INTERPRETS = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="Triton does not interpret")
BACKENDS = ["torch", "cpp", pytest.param("triton", marks=INTERPRETS)]
EVERY = "rule E { hyper lr = 0.1 in (0, inf)  state m = 0  every 3 { m' = 0.5*m + g } else { m' = m }  w' = w - lr*m'*sqrt(1 - 0.9^t) }"
WHEN = "rule R { hyper lr = 0.1 in (0, inf)  hyper warm = 4 in [0, inf)  when t <= warm { u = sign(g) } else { u = g }  w' = w - lr*u }"
FACTS = "rule F { hyper lr = 0.1 in (0, inf)  w' = w - lr/sqrt(numel)*g*(1 - exp(-t)) }"
TRUTHS = """rule T { hyper lr = 0.1 in (0, inf) hyper bool on = true hyper int k = 1 in [1, inf)
  when on and mod(t, k) == 0 { u = g } else { u = 2*g } w' = w - lr*u/sqrt(numel) }"""
SHARED = """rule S { hyper lr = 0.1 in (0, inf) n = norm(g per group) a = max(n per model) - min(n per model) + count(n per model)
  b = max(g per model) - min(g per model) + quantile(g, 0.3 per model) w' = w - lr*g/(1 + a + b) }"""
DRAWS = "rule D { hyper lr = 0.1 in (0, inf)  w' = w - lr*g*uniform() }"


class NoLooking(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where the host asks for a value of the device, as a capture would."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"the host waits for {func}")
        return func(*args, **(kwargs or {}))


def rule(text: str, backend: str = "torch", **more: Any) -> Any:
    return optlang.loads(text, backend=backend, **more) if " " in text else optlang.load(text, backend=backend, **more)


def shapes(name: str) -> list[tuple[int, ...]]:
    return [s for s in SHAPES if len(s) >= 2] if name in ("muon", "adafactor") else SHAPES


class Twin:
    """The same parameters stepped by the reference and by another backend, which must keep its eyes shut."""

    def __init__(self, text: str, backend: str, hypers: dict[str, float], more: dict[str, Any] | None = None) -> None:
        self.shapes = shapes(text)
        self.mine, self.theirs = ([some(*s, seed=i).requires_grad_() for i, s in enumerate(self.shapes)] for _ in range(2))
        self.hypers = {name: torch.tensor(value, dtype=torch.float64) for name, value in hypers.items()}
        self.ours = rule(text, backend)(self.mine, capturable=True, **self.hypers, **(more or {}))
        self.reference = rule(text, "reference")(self.theirs, **hypers, **(more or {}))
        self.taken = 0

    def step(self, **changed: float) -> None:
        self.taken += 1
        for name, value in changed.items():
            self.hypers[name].fill_(value)
            for group in self.reference.param_groups:
                group[name] = value
        for params in (self.mine, self.theirs):
            for i, p in enumerate(params):
                p.grad = some(*p.shape, seed=100 * self.taken + i)
        if self.taken == 1:
            self.ours.step()  # what warms up may look
        else:
            with NoLooking():
                self.ours.step()
        self.reference.step()
        torch.testing.assert_close(self.mine, self.theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", ["adamw", "radam", "lamb", "adafactor", EVERY, WHEN, FACTS, TRUTHS, SHARED, DRAWS], ids=lambda x: x.split(" {")[0]
)  # fmt: skip
def test_values_are_those_of_the_reference_while_rates_are_written_into(name: str, backend: str) -> None:
    program = Rule(name).program if " " not in name else rule(name).rule
    there = {h.name: h.default for h in program.hypers}
    hypers = {name: float(value) for name, value in there.items() if name in ("lr", "weight_decay", "warm")}
    twin = Twin(name, backend, hypers)
    for step in range(21):
        twin.step(lr=hypers["lr"] * (1 + 0.1 * step))
    assert [float(s["step"]) for s in twin.ours.state.values()] == [21.0] * len(twin.mine)


def test_betas_may_be_tensors() -> None:
    params = [some(5).requires_grad_()]
    others = [some(5).requires_grad_()]
    betas = torch.tensor(0.9), torch.tensor(0.99)
    ours, theirs = rule("adamw")(params, betas=betas, capturable=True), rule("adamw")(others, betas=(0.9, 0.99))
    for step in range(4):
        params[0].grad, others[0].grad = some(5, seed=step), some(5, seed=step)
        betas[1].fill_(0.9 + 0.02 * step)
        theirs.param_groups[0]["betas"] = 0.9, float(betas[1])
        ours.step()
        theirs.step()
    torch.testing.assert_close(params, others, rtol=2e-5, atol=2e-6)


def test_groups_have_rates_of_their_own() -> None:
    params, others = ([some(5).requires_grad_(), some(5, seed=1).requires_grad_()] for _ in range(2))
    ours = rule("adamw")([{"params": [p], "lr": torch.tensor(lr)} for p, lr in zip(params, (0.1, 0.3), strict=True)], capturable=True)
    theirs = rule("adamw")([{"params": [p], "lr": lr} for p, lr in zip(others, (0.1, 0.3), strict=True)])
    for step in range(3):
        for i, p in enumerate(params + others):
            p.grad = some(5, seed=10 * step + i % 2)
        ours.step()
        theirs.step()
    torch.testing.assert_close(params, others)


def test_schedulers_write_into_tensors() -> None:
    params, others = [some(5).requires_grad_()], [some(5).requires_grad_()]
    ours, theirs = rule("lion")(params, lr=torch.tensor(0.1), capturable=True), rule("lion")(others, lr=0.1)
    schedules = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (ours, theirs)]
    for step in range(6):
        params[0].grad, others[0].grad = some(5, seed=step), some(5, seed=step)
        for one, schedule in zip((ours, theirs), schedules, strict=True):
            one.step()
            schedule.step()
    torch.testing.assert_close(params, others)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sam", "asks the model again, and a graph cannot draw"), ("soap", "eigenvectors"), ("dion", "orthonormal bases")],
)  # fmt: skip
def test_rules_that_need_the_host_are_refused_at_construction(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be capturable: it .*{reason}"):
        rule(name)([some(4, 4).requires_grad_()], capturable=True)


# ------------------------------------------------------------------------------------------- values per group and model

NOISE = "rule N { hyper lr = 0.1 in (0, 1)  state s per model = 0  s' = s + normal(per model)  w' = w - lr*g*exp(-s'^2)  report far = s' }"
SHARE = "rule H { hyper lr = 0.1 in (0, inf)  w' = w - lr*where(abs(g) >= quantile(abs(g), 0.3 per model), g, 0)/sqrt(numel) }"
LATE = "rule L { hyper lr = 0.1 in (0, inf)  n = norm(g per model)  when t > 3 { c = 1/max(1, n) } else { c = 1 }  w' = w - lr*c*g }"
OF_ALL = ["prodigy", "swats", "adamcm", "randomscaledadamw", "localsgd", "dog", "sps", "inducedmetriclog", SHARE, LATE]


def taken(optimizer: Any, params: list[Tensor], step: int) -> Any:
    """A step of a batch: gradients of a bowl that moves."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = [((p - some(*p.shape, seed=10 * step + i + 50)) ** 2).sum() for i, p in enumerate(params)]
        loss = 0.1 * torch.stack(losses).sum()
        loss.backward()
        return loss

    closure()
    return optimizer.step(*([closure] if optimizer.asks_again else []))


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "torch") for name in OF_ALL), ("prodigy", "cpp"), ("adagradnorm", "cpp")],
    ids=lambda x: x.split(" {")[0],
)  # fmt: skip
def test_values_of_all_parameters_stay_on_the_device(name: str, backend: str) -> None:
    mine, theirs = ([some(*s, seed=i).requires_grad_() for i, s in enumerate(SHAPES)] for _ in range(2))
    cls = rule(name, backend)
    rate = cls.cases[0].settings.group_defaults()["lr"]
    lr = torch.tensor(rate, dtype=torch.float64)
    groups = [[{"params": params[:1]}, {"params": params[1:]}] for params in (mine, theirs)]
    ours, reference = cls(groups[0], lr=lr, capturable=True), rule(name, "reference")(groups[1], lr=rate)
    for step in range(7):
        if step == 0:
            taken(ours, mine, step)
        else:
            with NoLooking():
                taken(ours, mine, step)
        taken(reference, theirs, step)
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6)
        assert all(p.isfinite().all() for p in mine)
        lr.fill_(rate * (1 + 0.1 * step))
        for group in reference.param_groups:
            group["lr"] = rate * (1 + 0.1 * step)


def test_reports_are_tensors_of_the_device() -> None:
    params = [[some(3).requires_grad_(), some(4).requires_grad_()] for _ in range(2)]
    there, here = rule(NOISE)(params[0], capturable=True), rule(NOISE)(params[1])
    for step in range(3):
        taken(here, params[1], step)
        with NoLooking():
            taken(there, params[0], step)
        torch.testing.assert_close(there.reports["far"], torch.tensor(here.reports["far"], dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_an_overflow_leaves_values_per_model_alone() -> None:
    one, other = ([some(3).requires_grad_(), some(4).requires_grad_()] for _ in range(2))
    there, here = rule("prodigy")(one, capturable=True, d0=0.1), rule("prodigy")(other, fused=True, d0=0.1)
    for step in range(6):
        for params, optimizer in ((one, there), (other, here)):
            for i, p in enumerate(params):
                p.grad = 64 * some(*p.shape, seed=10 * step + i) if step not in (2, 3) else torch.full_like(p, torch.nan)
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(64.0), torch.tensor(float(step in (2, 3)))
            optimizer.step()
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there.state[one[0]]["d"], here.state[other[0]]["d"])


def test_groups_must_agree_where_a_value_is_of_both() -> None:
    text = "rule G { hyper lr = 0.1 in (0, inf)  state s per model = 0  s' = s + lr*norm(g per model)  w' = w - s'*g }"
    rates = [torch.tensor(0.1), torch.tensor(0.1)]
    params = [some(3).requires_grad_(), some(4).requires_grad_()]
    ours = rule(text)([{"params": [p], "lr": lr} for p, lr in zip(params, rates, strict=True)], capturable=True)
    taken(ours, params, 0)
    rates[1].fill_(0.2)
    with pytest.raises(RuntimeError, match=r"uses the hyper `lr` in a value of the model, but it is 0.1 and 0.2; give it the same value"):
        taken(ours, params, 1)


def test_the_option_may_be_switched() -> None:
    params, others = [some(5).requires_grad_()], [some(5).requires_grad_()]
    ours, theirs = rule("adamw")(params), rule("adamw")(others)
    for step in range(6):
        params[0].grad, others[0].grad = some(5, seed=step), some(5, seed=step)
        ours.param_groups[0]["capturable"] = step in (2, 3)
        ours.step()
        theirs.step()
    torch.testing.assert_close(params, others, rtol=1e-6, atol=1e-7)
    assert ours.state[params[0]]["step"] == 6


def test_a_checkpoint_goes_both_ways() -> None:
    params = [some(5).requires_grad_()]
    ours, plain = rule("adamw")(params, capturable=True), rule("adamw")(params)
    params[0].grad = some(5)
    ours.step()
    plain.load_state_dict(ours.state_dict())
    ours.load_state_dict(plain.state_dict())
    assert ours.param_groups[0]["capturable"] is True
    assert plain.param_groups[0]["capturable"] is False


# ----------------------------------------------------------------------------------------------------------- overflows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "adafactor"])
def test_overflows_are_dealt_with_on_the_device(name: str, backend: str) -> None:
    """As the host deals with them, for which the scaler's finding is looked at."""
    one, other = ([some(*s, seed=i).requires_grad_() for i, s in enumerate(shapes(name))] for _ in range(2))
    there, here = rule(name, backend)(one, capturable=True), rule(name, backend)(other, fused=True)
    for step in range(6):
        for params, optimizer in ((one, there), (other, here)):
            for i, p in enumerate(params):
                p.grad = 1024 * some(*p.shape, seed=10 * step + i)
                if step in (2, 3):
                    p.grad.fill_(torch.inf)
            optimizer.grad_scale = torch.tensor([1024.0])
            optimizer.found_inf = torch.tensor([1.0 if step in (2, 3) else 0.0])
        if step == 0:
            there.step()
        else:
            with NoLooking():
                there.step()
        here.step()
        if step not in (2, 3):
            torch.testing.assert_close([p.grad for p in one], [p.grad for p in other])
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert {float(s["step"]) for s in there.state.values()} == {4.0}


def test_an_overflow_in_the_first_step_leaves_states_as_they_begin() -> None:
    params = [some(5).requires_grad_()]
    before = params[0].detach().clone()
    ours = rule("adamw")(params, capturable=True)
    params[0].grad = torch.full((5,), torch.nan)
    ours.found_inf = torch.ones(1)
    ours.step()
    assert torch.equal(params[0], before)
    assert float(ours.state[params[0]]["step"]) == 0
    assert not ours.state[params[0]]["m"].any()


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.fixture
def capturing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(captured, "is_capturing", lambda: True)
    yield


def stepped(**settings: Any) -> tuple[Any, list[Tensor]]:
    params = [some(3, seed=i).requires_grad_() for i in range(2)]
    optimizer = rule("adamw")(params, **settings)
    for p in params:
        p.grad = torch.ones(3)
    return optimizer, params


def test_a_capture_wants_capturable(capturing: None) -> None:
    optimizer, _ = stepped()
    with pytest.raises(RuntimeError, match=r"AdamW.step\(\) cannot be captured in a CUDA graph with capturable=False"):
        optimizer.step()
    assert not optimizer.state


def test_a_capture_wants_every_gradient_and_a_step_before(capturing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, params = stepped(capturable=True)
    params[1].grad = None
    with pytest.raises(RuntimeError, match="parameter 0 of group 0 has no state on the GPU yet.*take a step before"):
        optimizer.step()
    with monkeypatch.context() as patch:
        patch.setattr(captured, "is_capturing", lambda: False)
        optimizer.step()
    with pytest.raises(RuntimeError, match="parameter 1 of group 0 has no gradient, so no replay would ever step it"):
        optimizer.step()


def test_a_capture_wants_rates_on_the_device(capturing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, _ = stepped(capturable=True, lr=torch.tensor(0.1))
    with monkeypatch.context() as patch:
        patch.setattr(captured, "is_capturing", lambda: False)
        optimizer.step()
    with pytest.raises(RuntimeError, match="lr lies on the cpu, where no replay would see it change"):
        optimizer.step()


@pytest.mark.parametrize("given", [torch.ones(()), {}], ids=["one for all", "one each"])
def test_a_capture_wants_inputs_on_the_device(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of torch itself here, which says that this is a capture."""
    p = some(3).requires_grad_()
    optimizer = optlang.loads("rule R { input c per tensor w' = w - c*g }", backend="torch")([p], capturable=True)
    p.grad = torch.ones(3)
    optimizer.inputs["c"] = 0.5
    optimizer.step()
    before = p.detach().clone()
    optimizer.inputs["c"] = {p: torch.ones(())} if given == {} else given
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"R.step\(\) is being captured .*, but the input c lies on the cpu, where no replay would see"):
        optimizer.step()
    assert torch.equal(p, before)
    monkeypatch.undo()
    optimizer.step()
    assert torch.equal(p, before - 1)


def test_most_of_the_library_is_capturable() -> None:
    """Which rules are not, and that each says why."""
    refused = {}
    for name in names():
        made = Rule(name).program
        for program in [c.program for c in made.cases] if isinstance(made, ir.Routing) else [made]:
            if why := captured.refuses(program):
                refused[name] = why
    again = [name for name, why in refused.items() if why.startswith("it asks the model again, and a graph cannot draw")]
    waits = [name for name, why in refused.items() if why.startswith("it takes ") and why.endswith(", for which the host waits")]
    assert [len(again), len(waits)] == counts.uncapturable()[:2]
    assert len(again) + len(waits) == len(refused), refused
