"""How kernels are compiled, so that all of their numbers stay in registers, which the assembler has counted.

It stops at a number of registers that lets one more block be at work, and stores some numbers elsewhere for it: four or sixteen
bytes, of kernels of any size. Told that it may have all 255, it does without; numbers of more are spread over twice the threads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from optlang.backends.triton import source

Options = Mapping[str, int]
OPTIONS: tuple[Options, ...] = ({"num_warps": 4}, {"num_warps": 4, "maxnreg": 255}, {"num_warps": 8, "maxnreg": 255})
FUSION = {"enable_fp_fusion": True}  # a product and a sum rounded once; Triton asks to be told from 3.9 on, and 3.10 would round twice
KINDS = {"sums": torch.float64, "partial": torch.float64, "results": torch.float64, "levels": torch.float32, "bins": torch.int32}
NUMBERS = ("rows", "lines")  # what is of the type that a kernel computes in
LOCAL = re.compile(r"__local_depot\d+\[(\d+)\]")


def fitting(spilled: Callable[[Options], int]) -> Options:
    """The first options with which nothing is spilled, or those with which the least is. `spilled`: bytes, with some options."""
    found: list[int] = []
    for options in OPTIONS:
        found.append(spilled(options))
        if not found[-1]:
            break
    return OPTIONS[found.index(min(found))]


def built(kernel: source.Kernel, function: Any, constants: Mapping[str, int], number: torch.dtype, device: torch.device) -> Options:
    """Compiles a function for a GPU; what it is to be launched with. Raises whatever Triton raises."""
    kinds = [number if name in NUMBERS else KINDS.get(name, torch.int64) for name in kernel.arguments.split(", ")]
    with torch.cuda.device(device):
        return fitting(lambda options: spilled(function.warmup(*kinds, grid=(1,), **FUSION, **options, **constants)))


def spilled(made: Any) -> int:
    """Bytes for each thread in memory, without those that a program has there of itself: sines of large angles look into a table."""
    _ = made.run  # loads it, which counts
    words = getattr(made, "n_spills", None) or 0  # none where a Triton of another day does not tell
    own = sum(map(int, LOCAL.findall(made.asm["ptx"])))
    return max(0, 4 * int(words) - own)
