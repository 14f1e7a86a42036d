"""The C++ backend: one generated function steps all parameters of a kind at memory speed, on the CPU.

It shares with the torch backend all but the last part: conditions, barriers, numbers known before the stage. What C++ does
not do here (products of matrices, windows, quantiles, other devices) runs as the torch backend would run it, parameter by
parameter, and so does everything where there is no compiler.
"""

from __future__ import annotations

from optlang.backends.base import Backend, Executable, Math
from optlang.backends.cache.ready import simplified
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.formats import PLAIN, Storage
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch import TorchExecutable
from optlang.backends.torch.functions import COMPILE_FROM
from optlang.ir import Program


class CppBackend:
    """Generated C++ for the CPU, torch elsewhere."""

    def refuses(self, program: Program) -> str:
        return REFERENCE.refuses(program)

    def compile(self, program: Program, math: Math, storage: Storage = PLAIN) -> Executable:
        """The simplified program; `math` says how freely: see `simplify`."""
        return TorchExecutable(simplified(program, math), COMPILE_FROM, CppFunctions(always=True), storage)


BACKEND: Backend = CppBackend()
