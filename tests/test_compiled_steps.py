"""`optimizer.step()` inside of functions that users compile: no break there, and nothing compiled again. 30 seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tensors import some
from torch import Tensor, nn
from torch._dynamo.utils import counters

import optlang

pytestmark = pytest.mark.filterwarnings("ignore:Profiler record function")
SHAPES = [(5, 4), (7,), (4, 4)]


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


class Twin:
    """The same optimizer twice: one steps in a compiled function."""

    def __init__(self, name: str, backend: str = "torch", compiler: str = "eager", **settings: Any) -> None:
        self.params = [[nn.Parameter(some(*s, seed=i)) for i, s in enumerate(SHAPES)] for _ in range(2)]
        cls: Any = optlang.load(name, backend=backend)
        named = [[(f"p{i}", p) for i, p in enumerate(params)] for params in self.params]
        self.compiled, self.plain = cls(named[0], **settings), cls(named[1], **settings)
        self.function: Callable[[], None] = torch.compile(lambda: self.compiled.step(), fullgraph=True, backend=compiler)
        self.taken = 0

    def step(self) -> None:
        self.taken += 1
        for params in self.params:
            for i, p in enumerate(params):
                p.grad = some(*p.shape, seed=100 * self.taken + i)
        self.function()
        self.plain.step()

    def check(self) -> None:
        assert all(torch.equal(p, q) for p, q in zip(*self.params, strict=True))
        for p, q in zip(*self.params, strict=True):
            for name, value in self.plain.state[q].items():
                assert torch.equal(value, self.compiled.state[p][name]), name


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", ["adamw", "lion", "normuonwithadamw", "prodigy", "schedulefreeadamw", "lamb", "stablespam", "asgd"])
def test_a_step_is_traced_whole(name: str, backend: str) -> None:
    twin = Twin(name, backend)
    for _ in range(4):
        twin.step()
    twin.check()
    assert graphs() == 1


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("capturable", [False, True])
def test_compilers_that_move_what_is_written(compiler: str, capturable: bool) -> None:
    twin = Twin("adamw", "torch", compiler, capturable=capturable)
    for _ in range(3):
        twin.step()
    twin.check()
    assert graphs() == 1


def test_a_thousand_steps_of_changing_settings_compile_nothing_again() -> None:
    twin = Twin("adamw", "cpp")
    twin.step()
    one_cycle = [torch.optim.lr_scheduler.OneCycleLR(o, 0.01, total_steps=501) for o in (twin.compiled, twin.plain)]
    twin.function = torch.compile(lambda: twin.compiled.step(), backend="eager")  # torch lets nobody trace what a scheduler has wrapped
    twin.step()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(500):
            twin.step()
            for schedule in one_cycle:
                schedule.step()
        plateau = [torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=3) for o in (twin.compiled, twin.plain)]
        for step in range(500):
            twin.step()
            for schedule in plateau:
                schedule.step(1.0)
            for optimizer in (twin.compiled, twin.plain):
                optimizer.param_groups[0]["weight_decay"] = 0.001 * (step % 7)
                optimizer.param_groups[0]["betas"] = (0.9, 0.99 + 0.001 * (step % 5))
    twin.check()


def test_an_added_group_is_compiled_once() -> None:
    twin = Twin("adamw")
    twin.step()
    for params, optimizer in zip(twin.params, (twin.compiled, twin.plain), strict=True):
        params.append(nn.Parameter(some(3, seed=9)))
        optimizer.add_param_group({"params": [("last", params[-1])], "lr": 0.5})
    for _ in range(3):
        twin.step()
    twin.check()
    assert graphs() == 2


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    twin = Twin("adamw")
    for _ in range(2):
        twin.step()
        for params in twin.params:
            params[1].grad = None
        twin.function()
        twin.plain.step()
    twin.check()
    assert twin.compiled.state[twin.params[0][1]]["step"] == 2


def training(compiled: bool, name: str, backend: str) -> list[Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    cls: Any = optlang.load(name, backend=backend)
    optimizer = cls(model.named_parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=40)

    def train(x: Tensor) -> None:
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    function = torch.compile(train, backend="eager") if compiled else train
    for seed in range(12):
        function(some(6, 4, seed=seed))
        schedule.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_whole_training_step(backend: str) -> None:
    """The breaks are torch's: at `backward`, at what a scheduler has wrapped, and at `zero_grad`."""
    torch.testing.assert_close(training(True, "adamw", backend), training(False, "adamw", backend))
    assert graphs() == 2
    assert sum(counters["graph_break"].values()) <= 3


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_rule_with_a_closure_is_a_break_and_steps_as_ever() -> None:
    params = [[nn.Parameter(some(5))] for _ in range(2)]
    cls: Any = optlang.load("sam")
    one, other = cls(params[0], lr=0.1), cls(params[1], lr=0.1)

    def closure_of(optimizer: Any, p: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (p**4).sum()
            loss.backward()
            return loss

        return closure

    function = torch.compile(lambda: one.step(closure_of(one, params[0][0])), backend="eager")
    for _ in range(3):
        function()
        other.step(closure_of(other, params[1][0]))
    assert torch.equal(params[0][0], params[1][0])


def test_the_operator_declares_what_it_writes() -> None:
    p = nn.Parameter(some(5))
    p.grad = some(5, seed=1)
    cls: Any = optlang.load("sgd")
    optimizer = cls([p], lr=0.0)
    arguments = ([p.detach()], [p.grad], [0], optimizer.number)
    torch.library.opcheck(torch.ops.optlang.step.default, arguments, test_utils=["test_schema", "test_faketensor"])
    assert "cudagraph_unsafe" in str(torch.ops.optlang.step.default.tags)
    assert "cudagraph_unsafe" not in str(torch.ops.optlang.capturable_step.default.tags)


def test_a_wrong_setting_is_said_in_the_same_words() -> None:
    twin = Twin("adamw")
    twin.step()
    twin.compiled.param_groups[0]["betas"] = (0.9, 2.0)
    with pytest.raises(ValueError, match=r"beta2 = 2.0 is outside its range"):
        twin.function()
    assert torch.is_grad_enabled()


def test_copies_have_operators_of_their_own() -> None:
    import copy

    twin = Twin("adamw")
    twin.step()
    other = copy.deepcopy(twin.compiled)
    assert other.number != twin.compiled.number
    assert other.stepped[0] is other.param_groups[0]["params"][0]
