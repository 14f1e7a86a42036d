"""Functions that torch.compile fuses: the same steps as uncompiled, compiled once for all sizes and settings. 60 seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensors import some
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import cpu_vec_isa

import optlang
from optlang import ir
from optlang.backends import torch as torch_backend
from optlang.backends.cache import sealed_files
from optlang.backends.outputs import Output
from optlang.backends.repeated import library
from optlang.backends.torch import inductor_cache
from optlang.backends.torch.code import CellCode, generate

DRAWING = "rule D { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.9*m + g*uniform() w' = w - lr*m' + lr*normal(per tensor) }"


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Steps of any size are compiled, compiling a second time is an error, and so is trying out which instructions work. The
    folder is where kernels are kept."""

    def tried(*_: Any) -> bool:
        raise AssertionError("torch builds a program to see which vector instructions work, which takes seconds")

    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        monkeypatch.setattr(cpu_vec_isa.VecISA, "check_build", tried)
    monkeypatch.setattr(torch_backend.BACKEND, "compile_from", 0)
    library.sees()  # what it needs is no kernel of these tests
    with torch._dynamo.config.patch(error_on_recompile=True):
        monkeypatch.setattr(sealed_files, "places", lambda name: [tmp_path / name])
        yield tmp_path


class Run:
    """An optimizer on parameters of some shapes, with the gradients of its steps."""

    def __init__(
        self, rule: str, shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32, backend: str = "torch", **settings: Any
    ) -> None:
        self.params = [some(*shape, seed=i, dtype=dtype).requires_grad_() for i, shape in enumerate(shapes)]
        self.optimizer: Any = optlang.Rule(rule).optimizer(backend)(self.params, **settings)  # type: ignore[call-arg]
        self.taken = 0

    def add(self, shapes: list[tuple[int, ...]], **settings: Any) -> None:
        more = [some(*shape, seed=100 + i).requires_grad_() for i, shape in enumerate(shapes)]
        self.optimizer.add_param_group({"params": more, **settings})
        self.params += more

    def steps(self, count: int) -> Run:
        for _ in range(count):
            self.taken += 1
            for i, p in enumerate(self.params):
                p.grad = some(*p.shape, seed=1000 * self.taken + i, dtype=p.dtype)
            self.optimizer.step()
        return self

    @property
    def stored(self) -> list[Any]:
        return [(p.detach(), dict(self.optimizer.state[p])) for p in self.params]


def uncompiled(rule: str, shapes: list[tuple[int, ...]], dtype: torch.dtype = torch.float32, **settings: Any) -> Run:
    run = Run(rule, shapes, dtype, **settings)
    for case in run.optimizer.cases:
        case.executable(case.settings.defaults)[1].compile_from = 1 << 60
    return run


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


def test_adamw_over_a_cycle_is_compiled_once_for_all_sizes(compiling: Path) -> None:
    """200 steps in which t, lr and betas change all the time; nine sizes, among them those that torch takes for special."""
    shapes: list[tuple[int, ...]] = [(4, 6), (6, 4), (5, 5), (64,), (2, 3, 3, 3), (1,), (), (0,), (1, 7)]
    before = graphs()
    run, plain = Run("adamw", shapes), uncompiled("adamw", shapes)
    schedulers = [torch.optim.lr_scheduler.OneCycleLR(r.optimizer, 0.1, total_steps=201) for r in (run, plain)]
    for _ in range(200):
        for one, scheduler in zip((run, plain), schedulers, strict=True):
            one.steps(1)
            scheduler.step()
    assert graphs() == before + 1
    torch.testing.assert_close(run.stored, plain.stored, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("rule", ["adamw", "adafactor"])
def test_a_thousand_steps_of_schedules_settings_and_a_new_group_compile_nothing_again(compiling: Path, rule: str, backend: str) -> None:
    """OneCycleLR that cycles momentum, then ReduceLROnPlateau, changed decay and betas, and half-way parameters of other sizes."""
    run = Run(rule, [(4, 6), (5, 5), (7,)], backend=backend)
    run.steps(2)
    before, groups = (graphs(), len(list(compiling.glob("kernel*")))), run.optimizer.param_groups
    cycle = torch.optim.lr_scheduler.OneCycleLR(run.optimizer, 0.01, total_steps=500, cycle_momentum="betas" in groups[0])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(run.optimizer, patience=3)
    seen = set()
    for step in range(998):
        if step == 499:
            run.add([(3, 9), (11,)], lr=0.5)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(run.optimizer, patience=3)
        run.steps(1)
        if step < 499:
            cycle.step()
        else:
            plateau.step(1.0)
            groups[0]["weight_decay"] = 0.001 * (step % 7)
            if "betas" in groups[0]:
                groups[0]["betas"] = (0.9, 0.99 + 0.001 * (step % 5))
        seen.add((groups[0]["lr"], groups[0].get("betas"), groups[0]["weight_decay"]))
    assert (graphs(), len(list(compiling.glob("kernel*")))) == before
    assert run.taken == 1000 and len(seen) > 500 and before[backend == "cpp"] > 0
    assert all(p.isfinite().all() and run.optimizer.state[p]["step"] > 400 for p in run.params)


def test_adafactor_of_matrices_and_vectors(compiling: Path) -> None:
    shapes: list[tuple[int, ...]] = [(4, 6), (6, 6), (2, 9), (8,), (5,), (2, 3, 4)]
    run, plain = Run("adafactor", shapes), uncompiled("adafactor", shapes)
    run.params[0].data = run.params[0].data.T.contiguous().T  # the order in memory is no concern of the rule's
    run.steps(6)
    plain.steps(6)
    assert not run.params[0].is_contiguous()
    assert not list(compiling.glob("torch-*.so")), "one kernel is not all of it"
    torch.testing.assert_close(run.stored, plain.stored, rtol=1e-4, atol=1e-6)


def test_parts_of_a_buffer(compiling: Path) -> None:
    """In any order; what is compiled for the first of them is for all."""
    for rule, numbers in (("adamw", {}), ("lamb", {"capturable": True})):
        runs = [Run(rule, [(4, 6), (5, 4), (7, 3)], **numbers), uncompiled(rule, [(4, 6), (5, 4), (7, 3)], **numbers)]
        for run in runs:
            buffer = torch.cat([p.detach().flatten() for p in run.params])
            for p, begin in zip(run.params, (40, 20, 0), strict=True):
                p.data = buffer[begin : begin + p.numel()].view(p.shape)
            run.steps(3)
        torch.testing.assert_close(runs[0].stored, runs[1].stored, rtol=1e-4, atol=1e-6)


def test_compiled_draws_are_the_same_draws(compiling: Path) -> None:
    shapes: list[tuple[int, ...]] = [(4, 6), (7,)]
    run, plain = Run(DRAWING, shapes, seed=7).steps(4), uncompiled(DRAWING, shapes, seed=7).steps(4)
    torch.testing.assert_close(run.stored, plain.stored, rtol=1e-5, atol=1e-6)


def test_half_weights_round_once_when_compiled(compiling: Path) -> None:
    text = "rule R { hyper lr = 1 in (0, inf) w' = w + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 + g/8 }"
    run = Run(text, [(64,)], torch.bfloat16)
    p, version = run.params[0], run.params[0]._version
    with torch.no_grad():
        p.fill_(1)
    p.grad = torch.full_like(p, torch.finfo(torch.bfloat16).eps)
    run.optimizer.step()
    assert set(p.tolist()) == {1 + torch.finfo(torch.bfloat16).eps}
    assert p._version > version + 1  # autograd knows


def test_a_missing_compiler_is_a_warning(compiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only one: afterwards the function runs as it is."""
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(function: Any, **options: Any) -> Any:
        def call(*args: Any) -> Any:
            raise BackendCompilerFailed(function, RuntimeError("no C++ compiler found"), None)

        return call

    monkeypatch.setattr(torch, "compile", broken)
    run, plain = Run("lion", [(8,)]), uncompiled("lion", [(8,)])
    with pytest.warns(UserWarning, match=r"torch.compile does not work here, so steps run uncompiled and slower: .*no C\+\+ compiler"):
        run.steps(1)
    run.steps(2)
    torch.testing.assert_close(run.stored, plain.steps(3).stored, rtol=0, atol=0)


def test_errors_of_a_step_are_no_failures_of_the_compiler(compiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **options: Any) -> Any:
        def call(*args: Any) -> Any:
            raise torch.OutOfMemoryError("memory")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(MemoryError, match="parameter 0 of group 0"):
        Run("lion", [(8,)]).steps(1)


# ------------------------------------------------------------------------------------------------- kernels on disk


SIZES: list[tuple[int, ...]] = [(40, 30), (7,), (1031,)]


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("torch compiles")


def test_a_kept_kernel_gives_the_bits_of_the_compiled_function(compiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as never:
        never.setattr(inductor_cache, "name_of", lambda *_: "")
        compiled = Run("adamw", SIZES, weight_decay=0.1).steps(3)
    assert not list(compiling.glob("torch-*.so"))
    first = Run("adamw", SIZES, weight_decay=0.1).steps(3)
    [file] = compiling.glob("torch-*.so")

    monkeypatch.setattr(torch, "compile", refuse)
    second = Run("adamw", SIZES, weight_decay=0.1).steps(3)
    torch.testing.assert_close(first.stored, compiled.stored, rtol=0, atol=0)
    torch.testing.assert_close(second.stored, compiled.stored, rtol=0, atol=0)

    whole = file.read_bytes()
    file.unlink()  # its memory is still in use
    for damaged in (whole[:-1], whole[:5000], b"", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        file.write_bytes(damaged)
        with pytest.raises(AssertionError, match="torch compiles"):
            Run("adamw", SIZES, weight_decay=0.1).steps(1)
    file.write_bytes(whole)
    with pytest.raises(AssertionError, match="torch compiles"):  # of another kind of numbers
        Run("adamw", SIZES, torch.float64).steps(1)


def test_another_torch_whose_compiler_is_not_as_expected_keeps_nothing(compiling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inductor_cache, "_place", lambda *_: 1 / 0)
    found, plain = Run("lion", SIZES).steps(2), uncompiled("lion", SIZES).steps(2)
    torch.testing.assert_close(found.stored, plain.stored)
    assert not list(compiling.glob("torch-*.so"))


def test_all_that_decides_about_a_kernel_is_in_its_name() -> None:
    w, m = ir.W, ir.state("m", ir.W.type)
    code = generate("f", [Output(ir.add(w, m), w)])
    wider, s = generate("f", [Output(ir.sub(w, m), w)]), torch.zeros(1)
    tensors = [torch.zeros(5), torch.zeros(5)]
    torch.optim.SGD(tensors, lr=1)  # loads what settings are read from

    def name(code: CellCode = code, tensors: Sequence[Tensor] = tensors, s: Tensor = s, **options: Any) -> str:
        return inductor_cache.name_of(code, tensors, s, options)

    names = [name(), name(wider), name(pattern_matcher=False), name(s=torch.zeros(2)), name(tensors=[x.double() for x in tensors])]
    with torch._inductor.config.patch(fallback_random=True):
        names.append(name())
    assert len(set(names)) == len(names) and all(names) and names[0] == name()
    assert not name(tensors=[torch.zeros(2, 3), torch.zeros(2, 3)]) and not name(tensors=[torch.zeros(9)[::2], torch.zeros(5)])
    assert not name(tensors=[torch.zeros(5), torch.zeros(4)]) and not name(tensors=[torch.zeros(5), torch.zeros(5, dtype=torch.int64)])
