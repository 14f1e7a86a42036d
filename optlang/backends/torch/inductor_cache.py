"""Kernels of torch's compiler, kept on disk, so that the next process need not load the compiler, which takes over a second.

Kept is what one kernel does over flat arrays, after it has given, bit for bit, what the whole compiled function gives. What
asks for more, and every doubt, is left to `torch.compile`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import CDLL, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from optlang.backends.cache import sealed_files
from optlang.backends.torch import ops as torch_ops
from optlang.backends.torch.code import CellCode

Function = Callable[..., Any]
Order = list[int]  # for each argument of a kernel its place among those of the function, or `SIZE`
SIZE = -1
SAMPLE = 1037  # elements; not a multiple of what a vector holds
WIDE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass
class Heard:
    """A kernel that the compiler made. `calls`: what it was called with, while somebody listens."""

    types: Sequence[str]
    function: Any = None
    calls: list[tuple[Any, ...]] | None = None

    def __call__(self, *args: Any) -> None:
        if self.calls is not None:
            self.calls.append(args)
        self.function(*args)


def name_of(code: CellCode, tensors: Sequence[Tensor], s: Tensor, options: Mapping[str, Any]) -> str:
    """The file that holds a function for tensors like these; empty where it would not be kept."""
    if not (code.elementwise and tensors and all(_is_flat(x) and x.numel() == tensors[0].numel() for x in tensors) and _is_flat(s)):
        return ""
    settings = sys.modules.get("torch._inductor.config")  # there since the first optimizer was made
    if settings is None or torch._dynamo.config.disable:
        return ""
    kinds = [str(x.dtype) for x in tensors] + [f"{s.dtype} {s.numel()}"]
    theirs = [torch.__version__, str(torch.version.git_version), settings.get_hash().hex(), repr(sorted(options.items()))]
    here = [sys.version, sealed_files.processor(), torch.backends.cpu.get_cpu_capability(), str(torch.get_num_threads())]
    ours = [code.text, *(Path(file).read_text("utf-8") for file in (torch_ops.__file__, __file__))]
    return sealed_files.named("torch", *kinds, *theirs, *here, *ours)


def _is_flat(x: Tensor) -> bool:
    return type(x) in (Tensor, torch.nn.Parameter) and x.is_cpu and x.ndim == 1 and x.is_contiguous() and x.dtype in WIDE


def find(name: str) -> Function | None:
    """The function that an earlier process kept under a name."""
    for place in sealed_files.places(name):
        content = sealed_files.content(place)
        if content is not None:
            try:
                return _calling(sealed_files.opened(place), json.loads(content.rpartition(b"\n")[2]))
            except (OSError, AttributeError):  # the system does not let it be run from there
                continue
    return None


def _calling(library: CDLL, order: Order) -> Function:
    kernel = library.kernel
    kernel.restype, kernel.argtypes = None, [c_int64 if place == SIZE else c_void_p for place in order]

    def function(*given: Any) -> None:
        size = given[0].numel()
        kernel(*[size if place == SIZE else given[place].data_ptr() for place in order])

    return function


@contextmanager
def listening(name: str) -> Iterator[list[Heard]]:
    """The kernels that the compiler makes meanwhile, if they are to be kept under a name."""
    from torch._inductor import codecache  # noqa: PLC0415 - slow to import, and needed from here on

    kernels: list[Heard] = []
    made = getattr(codecache, "CppPythonBindingsCodeCache", None) if name else None
    load = getattr(made, "load_pybinding_async", None)
    if load is None:
        yield kernels
        return

    def heard(types: Sequence[str], *args: Any, **more: Any) -> Callable[[], Heard]:
        found = load(types, *args, **more)
        kernel = Heard(types)
        kernels.append(kernel)

        def future() -> Heard:
            kernel.function = found()
            return kernel

        return future

    with patch.object(made, "load_pybinding_async", heard):
        yield kernels


def keep(name: str, function: Function, kernels: list[Heard], kinds: Sequence[Tensor], s: Tensor, first: int) -> Function:
    """Keeps a compiled function if one kernel is all of it. Answers with what to call from now on."""
    if not kernels:
        return function
    try:
        found = _alone(function, kernels, kinds, s, first)
    except Exception:  # another torch may do all this differently; then the next process compiles again
        return function
    if found is None:
        return function
    quick, library, order = found
    for place in sealed_files.places(name):
        try:
            sealed_files.store(library.read_bytes() + b"\n" + json.dumps(order).encode(), place)
            break
        except OSError:  # no room, or no right to write: the next place
            continue
    return quick


def _alone(function: Function, kernels: list[Heard], kinds: Sequence[Tensor], s: Tensor, first: int) -> tuple[Function, Path, Order] | None:
    """The one kernel of a function, where it does what the function does, with its file and its arguments."""
    random = torch.Generator().manual_seed(0)
    tensors = [torch.rand(SAMPLE, generator=random).to(x.dtype) for x in kinds]
    copies = [x.clone() for x in tensors]
    for kernel in kernels:
        kernel.calls = []
    result = function(*tensors, s, None, first)
    calls = [(kernel, call) for kernel in kernels for call in kernel.calls or ()]
    for kernel in kernels:
        kernel.calls = None
    if len(kernels) != 1 or len(calls) != 1 or result is not None:
        return None
    [(kernel, call)] = calls
    order = [_place(argument, type_, [*tensors, s]) for argument, type_ in zip(call, kernel.types, strict=True)]
    places = [place for place in order if place is not None]
    if len(places) < len(order):
        return None
    path = Path(kernel.function.__self__.__file__)
    quick = _calling(sealed_files.opened(path), places)
    quick(*copies, s, None, first)
    same = all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(tensors, copies, strict=True))
    return (quick, path, places) if same else None


def _place(argument: Any, type_: str, given: Sequence[Tensor]) -> int | None:
    """Which of the function's arguments a kernel's argument is; None where it is none of them."""
    if isinstance(argument, Tensor):
        return next((place for place, x in enumerate(given) if x.data_ptr() == argument.data_ptr() and type_.endswith("*")), None)
    return SIZE if type_ == "const int64_t" and argument == SAMPLE else None
