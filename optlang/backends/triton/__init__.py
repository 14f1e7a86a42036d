"""The Triton backend: one launch for each stage steps all parameters of a kind, on CUDA.

It shares all but the kernels with the torch backend. What Triton does not do here (products of matrices, windows, quantiles,
rows beside states in fewer bits, the CPU) runs as the torch backend would run it. With TRITON_INTERPRET=1 the very same
kernels run on the CPU, slowly, which is how they are tested where there is no GPU.
"""

from __future__ import annotations

from optlang.backends.base import Backend, Executable, Math
from optlang.backends.cache.ready import simplified
from optlang.backends.formats import PLAIN, Storage
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch import TorchExecutable
from optlang.backends.torch.functions import COMPILE_FROM
from optlang.ir import Program


class TritonBackend:
    """Generated Triton on CUDA, torch elsewhere."""

    def refuses(self, program: Program) -> str:
        return REFERENCE.refuses(program)

    def compile(self, program: Program, math: Math, storage: Storage = PLAIN) -> Executable:
        """The simplified program; `math` says how freely: see `simplify`."""
        from optlang.backends.triton.kernels import TritonFunctions  # noqa: PLC0415

        return TorchExecutable(simplified(program, math), COMPILE_FROM, TritonFunctions(always=True), storage)


BACKEND: Backend = TritonBackend()
