"""What torch's compiler makes of rules for a GPU that need not be here: `python tests/inductor_kernels.py 90 RULE…`.

The functions that a step calls go the whole way of tensors on a GPU of that architecture (see `played_inductor`), and each kernel is made
machine code with the configurations of blocks that torch would time, until nothing is spilled. Prints a line of JSON for each function:
its kernels, operators left to torch, registers, and bytes spilled by what spills least, in the worst of its kernels.
`--record FILE` writes them into a file as well, and of rules that are there as they are now it asks no more (`make inductor`).
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from compiled_kernels import assembled
from inductor_on_cpu import Played, on_a_played_gpu
from records import CODE, marked, recorded, save, stale
from stepping import two_steps
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import optlang
from optlang.backends.torch import BACKEND, compiling
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.loading import load

FIRST_CALL = compiling.first_call


@dataclass
class Listed(Played):
    """The kernels that programs launch, none of which runs."""

    kernels: list[Any] = field(default_factory=list)

    def run(self, kernel: Any, args: Sequence[Any]) -> None:
        self.kernels += [kernel] if kernel not in self.kernels else []


def machine_code(kernel: Any, architecture: int) -> dict[str, int]:
    """What the compilers say about a kernel with the first configuration of which nothing is spilled, or with the one that spills least."""
    found: list[dict[str, int]] = []
    for configuration in kernel.configs:
        about = kernel._create_compile_meta(configuration)
        text = ASTSource(kernel.fn, about["signature"], about["constants"], about["configs"][0])
        options = kernel._create_compile_options(configuration, about)
        made = triton.compile(text, target=GPUTarget("cuda", architecture, 32), options=options)
        found.append(assembled(made.asm["ptx"], architecture))
        if not found[-1]["spilled"]:
            break
    return min(found, key=lambda one: one["spilled"])


def about(code: CellCode, given: Sequence[Any], architecture: int) -> dict[str, int]:
    """What becomes of one function: its kernels, what they leave to torch, and the most that one of them needs."""
    torch._dynamo.reset()
    tensors, numbers = given[: len(code.tensors)], given[len(code.tensors) :]
    with on_a_played_gpu(Listed(), architecture) as played:
        FIRST_CALL(code, tensors, *numbers)
    codes = [machine_code(kernel, architecture) for kernel in played.kernels]
    most = {key: max((one[key] for one in codes), default=0) for key in ("registers", "spilled")}
    return {"kernels": len(codes), "left to torch": sum(text.count("extern_kernels.") for text in played.programs), **most}


def asked(name: str) -> list[tuple[CellCode, list[Any]]]:
    """The functions of two steps of a rule that would be compiled, with what they are given."""
    found: list[tuple[CellCode, list[Any]]] = []

    def first_call(code: CellCode, tensors: Sequence[Tensor], *numbers: Any) -> Any:
        found.append((code, [x.clone() if isinstance(x, Tensor) else x for x in (*tensors, *numbers)]))
        function = load(code)
        return function, function(*tensors, *numbers)

    with mock.patch.object(compiling, "first_call", first_call), mock.patch.object(BACKEND, "compile_from", 0):
        cls: Any = optlang.load(name, backend="torch")
        two_steps(cls, [(90, 110), (9000,)])
    return found


def lines(name: str, architecture: int) -> Iterator[dict[str, Any]]:
    """What is printed of a rule: one line where none of its functions is compiled."""
    calls = asked(name)
    for code, given in calls:
        yield {"rule": name, "function": code.name, **about(code, given, architecture)}
    if not calls:
        yield {"rule": name, "function": None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("architecture", type=int)
    parser.add_argument("rules", nargs="*")
    parser.add_argument("--record", type=Path)
    given = parser.parse_args()
    found, failed = recorded(given.record), 0
    for name in given.rules or stale(found, CODE["inductor"]):
        entry: dict[str, Any] = {**marked(name, CODE["inductor"]), "functions": []}
        try:
            for line in lines(name, given.architecture):
                print(json.dumps(line), flush=True)
                entry["functions"] += [{key: value for key, value in line.items() if key != "rule"}] if line["function"] else []
        except Exception as problem:  # of any stage: the others are still of interest
            traceback.print_exc()
            print(json.dumps({"rule": name, "failed": f"{type(problem).__name__}: {str(problem)[:300]}"}), flush=True)
            failed += 1
            continue
        if given.record is not None:
            found[name] = entry
            save(given.record, found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
