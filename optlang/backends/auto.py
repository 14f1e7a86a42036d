"""The backend that nobody has to choose: C++ on the CPU, Triton on CUDA, torch elsewhere and where these cannot be had.

Parameters of one optimizer may be on several devices: each kind goes its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from optlang.backends.base import Backend, Cell
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.device_scalars import DeviceScalars
from optlang.backends.kernels.functions import KernelFunctions
from optlang.backends.outputs import Output
from optlang.backends.repeated.tables import Table
from optlang.backends.torch import TorchBackend
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.functions import Outputs
from optlang.backends.triton.scalars import TritonScalars
from optlang.ir import Node


class AutoFunctions(CppFunctions):
    """Functions that run as kernels of the device of their tensors."""

    @cached_property
    def _triton(self) -> KernelFunctions:
        from optlang.backends.triton.kernels import TritonFunctions  # noqa: PLC0415 - only CUDA pays for it

        return TritonFunctions()

    def fits(self, bound: Bound) -> bool:
        return self._triton.fits(bound) if _is_on_cuda(bound) else super().fits(bound)

    def refuses(self, bound: Bound, outputs: Sequence[Output]) -> str:
        return self._triton.refuses(bound, outputs) if _is_on_cuda(bound) else super().refuses(bound, outputs)

    def made(self, bound: Bound, outputs: Outputs) -> Any:
        if not _is_on_cuda(bound):
            return super().made(bound, outputs)
        found = self._triton.made(bound, outputs)
        self.trouble = self._triton.trouble or self.trouble
        return found

    def launch(self, kernel: Any, calls: Sequence[Bound], fresh: Sequence[Sequence[Tensor]] = ()) -> Tensor:
        return self._triton.launch(kernel, calls, fresh) if _is_on_cuda(calls[0]) else super().launch(kernel, calls, fresh)

    def table(self, kernel: Any, calls: Sequence[tuple[Cell, Bound]]) -> Table:
        return self._triton.table(kernel, calls) if _is_on_cuda(calls[0][1]) else super().table(kernel, calls)

    def on_device(self, nodes: Sequence[Node]) -> DeviceScalars:
        """On a GPU by one launch."""
        return TritonScalars(nodes, interprets=False)

    def name_at(self, bound: Bound) -> str:
        return self._triton.name if _is_on_cuda(bound) else self.name


def _is_on_cuda(bound: Bound) -> bool:
    return bound.weights.device.type == "cuda"


BACKEND: Backend = TorchBackend(AutoFunctions)
