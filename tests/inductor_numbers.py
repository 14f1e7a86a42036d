"""What torch's compiler writes of rules for a GPU, run without one: `python tests/inductor_numbers.py docs/inductor-numbers.json RULE…`.

Whole steps of the torch backend, in which its functions compile for a GPU and run here (see `played_inductor`). Each call of a compiled
function is compared with the same function uncompiled, on the same numbers, in all that it writes and returns; the first one with every
configuration that torch would time. How far they are apart is told in units in the last place of float32, at the largest number of a
tensor; where numbers are stored in 16 bits and few of them are rounded the other way, beyond that place. Tensors have several sizes, and
the step size changes before each step: a function that would be compiled again fails. In the end the weights are compared with those of
the reference in a loop of its own. Rules that the file has as they and their code are now are left out. Of each function are told its
name, kernels, calls of torch's operators, configurations, calls and units; of a rule that has none, why.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from inductor_on_cpu import KERNEL, Played, on_a_played_gpu
from interpretable import interpretable
from records import CODE, is_fresh, marked, recorded, save
from stepping import some_steps
from torch import Tensor
from torch._dynamo import config as dynamo_settings

import optlang
from optlang import library
from optlang.backends.torch import BACKEND, compiling
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.loading import load

SHAPES = ((90, 110), (33, 75), (9000,), (40,), (5, 7))
DTYPES = (torch.float32, torch.bfloat16)
STEPS = 2
CLOSE = 8.0  # units: sums go in another order, and functions are of another library; of CAME both sides are 2.7 from float64
NONE = "torch's operators step it: products of matrices or sorting take its time"
FEW = 1 / 64  # of the numbers of a tensor in 16 bits may be rounded the other way


@dataclass
class Function:
    """What has been found out about a compiled function."""

    name: str
    kernels: int
    left: int  # calls of torch's operators
    configurations: int = 1
    calls: int = 0
    units: float = 0.0

    def told(self) -> list[Any]:
        return [self.name, self.kernels, self.left, self.configurations, self.calls, float(f"{self.units:.3g}")]


@dataclass
class Beside:
    """Compiled functions beside what they are uncompiled."""

    played: Played
    found: list[Function] = field(default_factory=list)

    def first_call(self, code: CellCode, tensors: Sequence[Tensor], *numbers: Any) -> tuple[Callable[..., Any], Any]:
        """As `compiling.first_call`; what is called from then on is compared as well."""
        given, before = [*tensors, *numbers], len(self.played.programs)
        one, others = Function(code.name, 0, 0), _copied(given)
        made: list[Callable[..., Any]] = []

        def compiled(*all_given: Any) -> Any:
            function, result = FIRST_CALL(code, all_given[: len(tensors)], *numbers)
            made.append(function)
            return result

        self.played.most = 1
        result = self.compared(one, code, compiled, given)
        [function], [text] = made, self.played.programs[before:]
        one.kernels, one.left, one.configurations = len(KERNEL.findall(text)), text.count("extern_kernels."), self.played.most
        for self.played.wish in range(1, one.configurations):
            self.compared(one, code, function, _copied(others))
        self.played.wish = 0
        self.found.append(one)
        return lambda *later: self.compared(one, code, function, later), result

    def compared(self, one: Function, code: CellCode, function: Callable[..., Any], given: Sequence[Any]) -> Any:
        wanted = _copied(given)
        with mock.patch.object(torch, "sqrt", root):
            answers = load(code)(*wanted) or ()
        result = function(*given)
        pairs = [*zip(given, wanted, strict=True), *zip(result or (), answers, strict=True)]
        one.calls += 1
        one.units = max(one.units, *(units(a, b) for a, b in pairs if isinstance(b, Tensor)))
        return result


FIRST_CALL = compiling.first_call


def root(x: Tensor) -> Tensor:
    """Rounded to the nearest, as on a GPU; torch's own on the CPU is one place off for one number in six."""
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def _copied(given: Sequence[Any]) -> list[Any]:
    return [x.clone() if isinstance(x, Tensor) else x for x in given]


def units(found: Tensor, wanted: Tensor) -> float:
    """How far numbers are apart; infinite where only one of two is a number. None is of weights: `steps` refuses those."""
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), f"{found.dtype} {found.shape}, not {wanted.dtype} {wanted.shape}"
    a, b = found.detach().double(), wanted.detach().double()
    gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs().nan_to_num(torch.inf, torch.inf))
    if wanted.dtype in (torch.bfloat16, torch.float16) and gap.count_nonzero() <= FEW * gap.numel():
        gap = gap - torch.finfo(wanted.dtype).eps * torch.maximum(a.abs(), b.abs()).nan_to_num(0, 0, 0)
    place = torch.finfo(torch.float64 if wanted.dtype == torch.float64 else torch.float32).eps
    largest = b.abs().nan_to_num(0, 0, 0).max().clamp(min=torch.finfo(torch.float32).tiny) if b.numel() else 1.0
    return float((gap / (largest * place)).clamp(min=0).max()) if gap.numel() else 0.0


def slower(optimizer: Any) -> None:
    """Another step size for each step."""
    for group in optimizer.param_groups:
        if isinstance(group.get("lr"), float):
            group["lr"] *= 0.75


@contextmanager
def compiling_for_a_gpu() -> Iterator[Beside]:
    """In here the torch backend compiles every function, and each only once."""
    torch._dynamo.reset()
    with (
        on_a_played_gpu(Played()) as played, interpretable(), mock.patch.object(BACKEND, "compile_from", 0),
        dynamo_settings.patch(error_on_recompile=True), warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.filterwarnings("error", message="torch.compile does not work here")
        beside = Beside(played)
        with mock.patch.object(compiling, "first_call", beside.first_call):
            yield beside


def steps(rule: str, backend: str, dtype: torch.dtype = torch.float32, count: int = STEPS) -> list[Tensor]:
    """The weights after some steps, from the same numbers for every backend."""
    torch.manual_seed(0)
    return some_steps(fresh(rule, backend), SHAPES, count, dtype, slower)


def fresh(rule: str, backend: str = "torch") -> Any:
    """The class of a rule, or of a text, that has compiled nothing yet."""
    load_rule: Any = optlang.loads if " " in rule else optlang.load
    make_class, given = load_rule(rule, backend=backend)._origin
    return make_class.__wrapped__(*given)


def played(rule: str, dtype: torch.dtype, count: int = STEPS) -> tuple[list[Function], float]:
    """The compiled functions of a rule, and how far its weights are from those of the reference in the end."""
    with compiling_for_a_gpu() as beside:
        ours = steps(rule, "torch", dtype, count)
    return beside.found, max(map(units, ours, steps(rule, "reference", dtype, count)))


def measured(rule: str, dtype: torch.dtype) -> dict[str, Any]:
    functions, apart = played(rule, dtype)
    if not functions:
        return {"functions": [], "why": NONE}
    return {"functions": [one.told() for one in functions], "apart": float(f"{apart:.3g}")}


def missing(found: dict[str, Any], rules: Sequence[str]) -> Iterator[tuple[str, torch.dtype]]:
    """What a record does not have of some rules as they are now, one number type after the other."""
    for dtype in DTYPES:
        for rule in rules:
            if not is_fresh(found.get(rule, {}), rule, CODE["inductor-numbers"]):
                found[rule] = marked(rule, CODE["inductor-numbers"])
            if by_name(dtype) not in found[rule]:
                yield rule, dtype


def by_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("rules", nargs="*")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found, failed = recorded(given.record), 0
    for rule, dtype in missing(found, given.rules or library.names()):
        try:
            found[rule][by_name(dtype)] = one = measured(rule, dtype)
        except Exception as problem:  # of any stage: the others are still of interest
            traceback.print_exc()
            print(rule, by_name(dtype), f"{type(problem).__name__}: {problem}"[:300], flush=True)
            failed += 1
            continue
        print(rule, by_name(dtype), json.dumps(one), flush=True)
        save(given.record, {name: row for name, row in found.items() if len(row) > 2})
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
