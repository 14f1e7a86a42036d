"""Triton kernels of some rules, compiled for a GPU that need not be here: `python tests/compiled_kernels.py 90`.

Prints a line of JSON for each kernel: reads and writes of 16 bytes, registers, bytes spilled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from stepping import cell, step_of
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.driver import driver

import optlang
from optlang.backends.triton import BACKEND, kernels, source
from optlang.runtime.precision import storage

PLAIN = [("adamw", torch.float32), ("adamw", torch.bfloat16), ("lion", torch.float32), ("lamb", torch.float32), ("adan", torch.float32)]
PACKED = [("int8", torch.float32, "nearest"), ("fp8", torch.float32, "nearest"), ("bf16", torch.bfloat16, "stochastic"),
          ("int4", torch.bfloat16, "compensated")]  # fmt: skip
WIDE = {"wide reads": r"ld\.global(\.\w+)*\.v4", "wide writes": r"st\.global(\.\w+)*\.v4"}


def kernels_of(
    name: str, dtype: torch.dtype, state: str | None = None, weights: str = "nearest", rule: str | None = None
) -> list[kernels.Loaded]:
    """What the first step of a rule would launch on a GPU, with states and weights in some format; `rule`: of a text of several."""
    found: list[kernels.Loaded] = []

    class Recorded(kernels.TritonFunctions):
        def fits(self, bound: Any) -> bool:
            return True

        def launch(self, kernel: kernels.Loaded, calls: Any) -> torch.Tensor:
            found.append(kernel)
            return torch.zeros(len(calls), kernel.kernel.returned, dtype=torch.float64)

    program = optlang.Rule(name, rule).program
    executable: Any = BACKEND.compile(program, "safe", storage(program, state, weights))
    executable._functions = Recorded(always=True)
    w, g = (torch.randn(64, 64, dtype=dtype) for _ in range(2))
    one = cell(w, g, **{h.name: h.default for h in program.hypers})
    step = step_of(one)
    executable.prepare(step)
    executable.step(step)
    return found


def machine_code(function: Any, architecture: int, double: bool = False) -> dict[str, int]:
    """What the compilers say about a kernel. `double`: it computes in 64 bits, and is given the step's numbers so."""
    types = {name.strip(): "*i64" for name in source.ARGUMENTS.split(",")}
    types |= dict.fromkeys(("sums", "partial", "results"), "*fp64")
    types |= {"rows": "*fp64" if double else "*fp32", "levels": "*fp32", "below": "*u8"}
    target = GPUTarget("cuda", architecture, 32)
    made = triton.compile(ASTSource(function, types, {}, {}), target=target, options={"num_warps": kernels.WARPS})
    return assembled(made.asm["ptx"], architecture)


def assembled(text: str, architecture: int) -> dict[str, int]:
    """What NVIDIA's assembler says about a program."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(text)
        file.flush()
        assembler = next((Path(triton.__file__).parent / "backends" / "nvidia" / "bin").glob("ptxas"))
        name = f"sm_{architecture}{'a' if architecture == 90 else ''}"
        command = [str(assembler), "-v", f"--gpu-name={name}", file.name, "-o", f"{file.name}.cubin"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        Path(f"{file.name}.cubin").unlink()
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", told)))
    [registers] = re.findall(r"Used (\d+) registers", told)
    return {name: len(re.findall(what, text)) for name, what in WIDE.items()} | {"registers": int(registers), "spilled": spilled}


def built(loaded: kernels.Loaded, architecture: int) -> None:
    """As the runtime has them compiled before the first launch, by a Triton that is told of such a GPU."""
    target = GPUTarget("cuda", architecture, 32)
    driver.set_active(SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0))
    with mock.patch.object(torch.cuda, "device", lambda device: nullcontext()):
        like: Any = SimpleNamespace(s=torch.zeros(1), weights=torch.zeros(1))
        kernels.build([function for function, _ in loaded.launches], like)
    for function, _ in loaded.launches:
        [made] = function.device_caches[0][0].values()
        assert "cubin" in made.asm


def main() -> None:
    built(*kernels_of("adamw", torch.float32), int(sys.argv[1]))
    wanted = [(name, dtype, None, "nearest") for name, dtype in PLAIN]
    for name, dtype, *stored in wanted + [("adamw", dtype, state, weights) for state, dtype, weights in PACKED]:
        for loaded in kernels_of(name, dtype, *stored):
            for place, (function, by_chunk) in enumerate(loaded.launches):
                last = by_chunk and place == max(i for i, (_, each) in enumerate(loaded.launches) if each)
                written = len(loaded.kernel.written) if stored == [None, "nearest"] else 1  # codes and scales are narrower
                counts = {"tensors read": 2 if by_chunk else 0, "tensors written": written if last else 0}
                found = {"rule": name, "type": str(dtype), "stored": stored, "kernel": function.__name__} | counts
                print(json.dumps(found | machine_code(function, int(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
