"""Programs that torch's compiler writes for a GPU, in Triton's interpreter beside the same functions uncompiled. 40 seconds."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fake_gpu import OnAGPU, There, held
from torch import Tensor
from torch._dynamo.exc import RecompileError
from torch.utils._python_dispatch import _disable_current_modes

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton does not interpret", allow_module_level=True)

import inductor_numbers
from inductor_numbers import CLOSE, compiling_for_a_gpu, fresh, steps, units
from inductor_on_cpu import Played
from test_on_a_gpu import Run

from optlang import library
from optlang.backends.torch import compiling, functions
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.views import alone

NONE: dict[str, Any] = {"functions": []}
DRAWING = "rule D { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.9*m + g*uniform() w' = w - lr*m' + lr*normal(per tensor) }"


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [("adamw", torch.float32), ("lion", torch.bfloat16), ("lamb", torch.float32), ("adafactor", torch.bfloat16), ("radam", torch.float64),
     (DRAWING, torch.float32)],
)  # fmt: skip
def test_numbers(rule: str, dtype: torch.dtype) -> None:
    """Whole steps: each call of a function, with every configuration of its kernels, and the weights in the end beside the reference."""
    functions, apart = inductor_numbers.played(rule, dtype)
    assert functions
    for one in functions:
        assert one.kernels and not one.left
        assert one.units <= CLOSE, one
    assert apart <= CLOSE


def test_a_rule_that_is_not_compiled_says_why() -> None:
    assert inductor_numbers.measured("muon", torch.float32) == {"functions": [], "why": inductor_numbers.NONE}
    weights = torch.ones(4, 4, requires_grad=True)
    weights.grad = weights.detach() + 1
    optimizer = fresh("muon")([weights])
    optimizer.step()
    assert "uncompiled, as products of matrices or sorting take its time" in str(optimizer.backends())


def test_one_program_for_all_sizes_and_settings() -> None:
    """Of five sizes, over steps in which the count and the step size change; small tensors go end to end, the last times by tables."""
    with compiling_for_a_gpu() as beside:
        found = steps("adamw", "torch", count=5)
    assert len(beside.played.programs) == 1
    assert beside.played.blocks > beside.played.launches >= 10
    assert max(map(units, found, steps("adamw", "reference", count=5))) <= CLOSE


def test_parts_of_a_buffer_that_begin_anywhere() -> None:
    """Kernels read 16 bytes at a time: where weights do not begin at such, torch's program copies them and puts them back."""

    def weights(backend: str) -> Tensor:
        buffer = torch.randn(20000, generator=torch.Generator().manual_seed(0))
        params = [torch.nn.Parameter(buffer[begin : begin + 9000]) for begin in (9001, 0)]
        for p in params:
            p.grad = p.detach() + 1
        fresh("adamw", backend)(params).step()
        return buffer

    with compiling_for_a_gpu() as beside:
        found = weights("torch")
    assert len(beside.played.programs) == 1
    assert units(found, weights("reference")) <= CLOSE


@pytest.mark.parametrize("rule", ["lion", DRAWING])
def test_on_a_gpu_that_is_only_said_to_be_there(rule: str) -> None:
    """Compiled functions get tensors of the GPU alone, and the host waits for nothing."""
    cls = fresh(rule)

    @contextmanager
    def compiled(mode: OnAGPU) -> Iterator[None]:
        with (
            compiling_for_a_gpu() as beside, mock.patch.object(compiling, "first_call", of_the_gpu(beside.first_call)),
            mock.patch.object(functions, "alone", lambda x: x),  # these share no memory that torch could see
        ):  # fmt: skip
            for case in cls.cases:
                case.executable(case.settings.defaults)[1].compile_from = 0
            yield
        assert beside.found

    assert Run(cls, cls, steps=3).compare(around=compiled, tolerance=1e-6).looks == []


def of_the_gpu(first_call: Callable[..., Any]) -> Callable[..., Any]:
    """The same for tensors that say they are there."""

    def here(given: Sequence[Any]) -> list[Any]:
        assert all(isinstance(x, There) for x in given if isinstance(x, Tensor)), "a tensor of the host"
        return [alone(held(x)) if isinstance(x, Tensor) else x for x in given]

    def there(result: Any) -> Any:
        return None if result is None else tuple(There(x) for x in result)

    def called(code: CellCode, tensors: Sequence[Tensor], *numbers: Any) -> Any:
        with _disable_current_modes():
            function, result = first_call(code, here(tensors), *here(numbers))
        return without_mode(function), there(result)

    def without_mode(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            with _disable_current_modes():
                return there(function(*here(given)))

        return run

    return called


# ------------------------------------------------------------------------------------------------ what would be noticed


def test_a_block_that_is_not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Played.run

    def without_the_last(self: Played, kernel: Any, args: Sequence[Any]) -> None:
        given = kernel._interpret_args_grid
        monkeypatch.setattr(kernel, "_interpret_args_grid", lambda *all_given: _shorter(*given(*all_given)), raising=False)
        run(self, kernel, args)
        monkeypatch.undo()

    def _shorter(args: Any, grid: tuple[int, ...]) -> Any:
        return args, (max(grid[0] - 1, 1), *grid[1:])

    with compiling_for_a_gpu() as beside, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Played, "run", without_the_last)
        steps("lion", "torch", count=1)
    assert beside.found[0].units > CLOSE


def test_a_function_that_is_compiled_for_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_(function, **(options | {"dynamic": False})))
    with compiling_for_a_gpu(), pytest.raises(RecompileError, match="size mismatch"):
        steps("lion", "torch", count=1)


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [([1.0, 2.0], [1.0, 2.0], 0), ([1.0 + 2**-22, 2.0], [1.0, 2.0], 1), ([torch.nan], [1.0], torch.inf), ([1.0], [torch.nan], torch.inf),
     ([torch.nan], [torch.nan], 0)],
)  # fmt: skip
def test_units(found: list[float], wanted: list[float], expected: float) -> None:
    assert units(torch.tensor(found), torch.tensor(wanted)) == expected


def test_units_of_16_bits() -> None:
    """A few numbers may be rounded the other way, but not many, and not by two places."""

    def off(many: int, by: float) -> Tensor:
        return torch.cat([torch.full((many,), 1 + by * 2**-7), torch.ones(1000 - many)]).bfloat16()

    assert units(off(5, 1), off(0, 0)) == 0
    assert units(off(5, 2), off(0, 0)) > CLOSE
    assert units(off(500, 1), off(0, 0)) > CLOSE


# ----------------------------------------------------------------------------------------------------------- the record


def test_what_was_found_of_the_library_is_as_it_says() -> None:
    """`make inductor` asks what is missing in docs/inductor-numbers.json."""
    docs = Path(__file__).resolve().parents[1] / "docs"
    found = json.loads((docs / "inductor-numbers.json").read_text(encoding="utf-8"))
    assert set(found) == set(library.names())
    functions = {kind: [one for row in found.values() for one in row.get(kind, NONE)["functions"]] for kind in ("float32", "bfloat16")}
    assert all(row[kind]["functions"] or row[kind]["why"] for row in found.values() for kind in functions if kind in row)
    assert all(left == 0 and apart <= CLOSE for some in functions.values() for _, _, left, _, _, apart in some)
    far = {(rule, kind) for rule, row in found.items() for kind in functions if row.get(kind, {}).get("apart", 0) > CLOSE}
    assert far == {("awp", "bfloat16"), ("schedulefreesgd", "bfloat16"), ("splus", "float32"), ("splus", "bfloat16")}
