"""Triton kernels of some rules, compiled for a GPU that need not be here: `python tests/compiled_kernels.py 90`.
With a 0 or 1 behind it, every other of the rules.

Prints a line of JSON for each kernel: reads and writes of 16 bytes, registers, bytes spilled.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from stepping import cell, step_of
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.driver import driver

import optlang
from optlang.backends.triton import BACKEND, building, kernels, source
from optlang.backends.triton.layout import CHUNKS, layout
from optlang.runtime.precision import storage
from optlang.types import ELEMENT

PLAIN = [("adamw", torch.float32), ("adamw", torch.bfloat16), ("lion", torch.float32), ("lamb", torch.float32), ("adan", torch.float32)]
PACKED = [("int8", torch.float32, "nearest"), ("fp8", torch.float32, "nearest"), ("bf16", torch.bfloat16, "stochastic"),
          ("int4", torch.bfloat16, "compensated")]  # fmt: skip
LINED = ("adafactor", "came", "sm3", "adamp", "ranger21")
SHAPES = ((64, 256), (8, 16))  # tiles of one matrix, and of several
NONE: Mapping[str, int] = {}
_known: dict[Any, dict[str, Any]] = {}  # what is alike in many rules is compiled once
WIDE = {"wide reads": r"ld\.global(\.\w+)*\.v4", "wide writes": r"st\.global(\.\w+)*\.v4"}


def kernels_of(
    name: str, dtype: torch.dtype, state: str | None = None, weights: str = "nearest", rule: str | None = None
) -> list[kernels.Loaded]:
    """What the first step of a rule would launch on a GPU, with states and weights in some format; `rule`: of a text of several."""
    found: list[kernels.Loaded] = []

    class Recorded(kernels.TritonFunctions):
        def fits(self, bound: Any) -> bool:
            return True

        def launch(self, kernel: kernels.Loaded, calls: Any, fresh: Any = ()) -> torch.Tensor:
            found.append(kernel)
            return torch.zeros(len(calls), kernel.kernel.returned, dtype=torch.float64)

    program = optlang.Rule(name, rule).program
    executable: Any = BACKEND.compile(program, "safe", storage(program, state, weights))
    executable._functions = Recorded()
    w, g = (torch.randn(64, 64, dtype=dtype) for _ in range(2))
    one = cell(w, g, **{h.name: h.default for h in program.hypers})
    step = step_of(one)
    executable.prepare(step)
    executable.step(step)
    return found


def machine_code(
    kernel: source.Kernel, function: Any, architecture: int, double: bool = False, constants: Mapping[str, int] = NONE
) -> dict[str, Any]:
    """What the compilers say about a kernel, with the options that it would be launched with: `options`, where these are not the
    first ones. `double`: it computes in 64 bits, and is given the step's numbers so."""
    types = {name.strip(): "*i64" for name in kernel.arguments.split(",")} | dict.fromkeys(constants, "constexpr")
    types |= {name: "*fp64" for name in ("sums", "partial", "results") if name in types}
    types |= {name: "*fp64" if double else "*fp32" for name in ("rows", "lines") if name in types} | {"levels": "*fp32", "bins": "*i32"}
    key = architecture, function.src, tuple(types.items()), tuple(constants.items())
    if key not in _known:
        _known[key] = _compiled(ASTSource(function, types, dict(constants), {}), architecture)
    return _known[key]


def _compiled(text: ASTSource, architecture: int) -> dict[str, Any]:
    found: dict[Any, dict[str, Any]] = {}

    def spilled(options: building.Options) -> int:
        with knobs.nvidia.scope(), knobs.compilation.scope(), redirect_stdout(StringIO()) as told:
            knobs.nvidia.dump_ptxas_log = knobs.compilation.always_compile = True
            made = triton.compile(text, target=GPUTarget("cuda", architecture, 32), options=building.FUSION | options)
        found[tuple(options.items())] = counted(told.getvalue(), made.asm["ptx"])
        return int(found[tuple(options.items())]["spilled"])

    options = building.fitting(spilled)
    more = {} if options == building.OPTIONS[0] else {"options": dict(options)}
    return found[tuple(options.items())] | more


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
    return counted(told, text)


def counted(told: str, text: str) -> dict[str, int]:
    """Of the assembler's words about a program."""
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill", told)))
    [registers] = re.findall(r"Used (\d+) registers", told)
    return {name: len(re.findall(what, text)) for name, what in WIDE.items()} | {"registers": int(registers), "spilled": spilled}


def built(loaded: kernels.Loaded, architecture: int) -> None:
    """As the runtime has them compiled before the first launch, by a Triton that is told of such a GPU."""
    target = GPUTarget("cuda", architecture, 32)
    driver.set_active(SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0))
    told = mock.patch.object(building, "spilled", lambda made: assembled(made.asm["ptx"], architecture)["spilled"])
    with mock.patch.object(torch.cuda, "device", lambda device: nullcontext()), told:
        for function, _ in loaded.launches:
            assert loaded.compiled(function, {}, torch.device("cuda", 0)) == building.OPTIONS[0]
            [made] = function.device_caches[0][0].values()
            assert "cubin" in made.asm


def main() -> None:
    built(*kernels_of("adamw", torch.float32), int(sys.argv[1]))
    wanted = [(name, dtype, None, "nearest") for name, dtype in PLAIN]
    wanted += [(name, torch.float32, None, "nearest") for name in LINED]
    wanted += [("adamw", dtype, state, weights) for state, dtype, weights in PACKED]
    for name, dtype, *stored in wanted[int(sys.argv[2]) :: 2] if sys.argv[2:] else wanted:
        for loaded in kernels_of(name, dtype, *stored):
            for code in codes(loaded, int(sys.argv[1]), packed=stored != [None, "nearest"]):
                print(json.dumps({"rule": name, "type": str(dtype), "stored": stored} | code), flush=True)


def codes(loaded: kernels.Loaded, architecture: int, double: bool = False, packed: bool = False) -> Iterator[dict[str, Any]]:
    """What the compilers say about each kernel, and how many tensors it should read and write 16 bytes at a time, at the least."""
    kernel = loaded.kernel
    written = sum(kernel.columns[place][0].type.extent == ELEMENT for place in kernel.written)
    last = [function for function, over in loaded.launches if over == CHUNKS][-1:]
    for function, over in loaded.launches:
        few = 1 if kernel.room else 2
        counts = {"tensors read": few if over == CHUNKS else 0, "tensors written": 0}
        if function in last:
            counts["tensors written"] = 1 if packed else written  # codes and scales are narrower
        for constants in constants_of(kernel, over):
            found = machine_code(kernel, function, architecture, double, constants)
            yield {"kernel": function.__name__, "tiles": dict(constants)} | counts | found


def constants_of(kernel: source.Kernel, over: str) -> list[Mapping[str, int]]:
    """What a kernel is compiled for, for parameters of some shapes."""
    found = [grid.constants for shape in SHAPES for grids in layout(kernel.room, [shape]).waves for grid in grids[over]]
    return [constants for place, constants in enumerate(found) if constants not in found[:place]]


if __name__ == "__main__":
    main()
