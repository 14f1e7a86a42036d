"""What torch's compiler writes for a GPU, run without one, on tensors that lie on the CPU.

In `on_a_played_gpu` graphs of torch.compile are moved to a GPU before Inductor sees them. All it does for a GPU it does: passes, lowering,
the program around the kernels, the configurations of blocks among which it would choose by time, and the grids of their launches. What
that program asks of CUDA (memory, guards, streams) the CPU answers; its kernels run in Triton's interpreter (see `interpretable`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import compile_fx, scheduler
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import PyCodeCache
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from whole_grid import launched

from optlang.backends.torch import inductor_cache

GPU = torch.device("cuda:0")
KERNEL = re.compile(r"async_compile\.triton\('\w+', '''(.*?)''', device_str='cuda'\)", re.DOTALL)


@dataclass
class Played:
    """`programs`: their texts, one for each compilation; `wish`: which configuration kernels run with, where they have so many."""

    programs: list[str] = field(default_factory=list)
    wish: int = 0
    most: int = 1  # configurations that a kernel has had so far
    launches: int = 0
    blocks: int = 0

    def run(self, kernel: Any, args: Sequence[Any]) -> None:
        """A launch, in place of the one that torch would time and choose."""
        config = kernel.configs[min(self.wish, len(kernel.configs) - 1)]
        given, grid = kernel._interpret_args_grid(args, config)
        for (place,), traits in kernel.triton_meta["configs"][0].items():
            number = given[place].data_ptr() if isinstance(given[place], Tensor) else given[place]
            assert all(number % of == 0 for trait, of in traits if trait == "tt.divisibility"), f"{kernel.fn.__name__}: argument {place}"
        self.most = max(self.most, len(kernel.configs))
        self.launches, self.blocks = self.launches + 1, self.blocks + int(np.prod(grid))
        with np.errstate(all="ignore"):
            launched(kernel.fn, given, grid, config.kwargs)


Player = TypeVar("Player", bound=Played)


@contextmanager
def said_to_be_there(architecture: int) -> Iterator[None]:
    """What torch's compiler and Triton ask of a GPU: that of an H100, or of an older one."""
    major, minor = divmod(architecture, 10)
    about = SimpleNamespace(
        name="GPU", major=major, minor=minor, multi_processor_count=132, total_memory=1 << 36, max_threads_per_multi_processor=2048,
        max_threads_per_block=1024, regs_per_multiprocessor=65536, warp_size=32, shared_memory_per_block_optin=166912,
    )  # fmt: skip
    of_torch = {"_lazy_init": lambda: None, "get_device_properties": lambda *given: about, "current_device": lambda: 0,
                "is_available": lambda: True, "get_rng_state": lambda: torch.zeros(16, dtype=torch.uint8),
                "set_rng_state": lambda state: None}  # fmt: skip
    of_dynamo = {"get_device_properties": staticmethod(lambda *given: about), "is_available": staticmethod(lambda: True),
                 "get_compute_capability": staticmethod(lambda *given: architecture)}  # fmt: skip
    driver.set_active(SimpleNamespace(get_current_target=lambda: GPUTarget("cuda", architecture, 32), get_current_device=lambda: 0))
    with ExitStack() as around:
        around.enter_context(mock.patch.multiple(torch.cuda, **of_torch))
        around.enter_context(mock.patch.multiple(CudaInterface, **of_dynamo))
        around.enter_context(mock.patch.multiple(CudaInterface.Worker, get_device_properties=of_dynamo["get_device_properties"]))
        around.enter_context(mock.patch.object(scheduler, "has_triton", lambda *given: True))
        yield


@contextmanager
def on_a_played_gpu(played: Player, architecture: int = 90) -> Iterator[Player]:
    """In here torch.compile compiles for a GPU, and what it makes runs here."""
    compiled = compile_fx._compile_fx_inner

    def compiled_for_it(graph: torch.fx.GraphModule, inputs: Sequence[Any], *args: Any, **more: Any) -> Any:
        with said_to_be_there(architecture):
            found = compiled(*moved(graph, inputs), *args, **more)
        played.programs.append(found.source_code)
        return found

    guards = torch._C._dynamo.guards
    of_cuda = {name: lambda index: 0 for name in ("set_device", "_exchange_device", "_maybe_exchange_device")}
    with ExitStack() as around:
        around.enter_context(torch._functorch.config.patch(enable_autograd_cache=False))
        around.enter_context(torch._inductor.config.patch(compile_threads=1))
        for patched in (
            # nothing is kept under it, and torch keeps nothing beside it
            mock.patch.object(inductor_cache, "name_of", lambda *given: "played"),
            mock.patch.object(compile_fx, "_compile_fx_inner", compiled_for_it),
            mock.patch.object(CachingAutotuner, "run", lambda kernel, *args, stream: played.run(kernel, args)),
            mock.patch.object(AsyncCompile, "triton", lambda _, name, text, device_str="cuda": getattr(PyCodeCache.load(text), name)),
            mock.patch.multiple(torch.cuda, **of_cuda), mock.patch.object(guards, "_empty_strided_cuda", guards._empty_strided_cpu),
            mock.patch.object(torch._C, "_cuda_getCurrentRawStream", lambda index: 0, create=True),
            mock.patch.object(triton_helpers, "set_driver_to_gpu", lambda: None),
        ):  # fmt: skip
            around.enter_context(patched)
        yield played


def moved(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> tuple[torch.fx.GraphModule, list[Any]]:
    """A graph as if its tensors were on the GPU, with such inputs."""
    found = [_there(x) if isinstance(x, Tensor) else x for x in inputs]
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": GPU}
        if isinstance(value := node.meta.get("val"), Tensor):
            node.meta["val"] = _there(value)
    return graph, found


def _there(x: Any) -> Tensor:
    with x.fake_mode:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=GPU)
