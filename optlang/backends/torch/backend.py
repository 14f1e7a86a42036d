"""Backends of the torch way: torch's own, and those that differ from it in how generated functions run."""

from __future__ import annotations

from collections.abc import Callable

from optlang.backends.base import Backend, Executable, Math
from optlang.backends.cache.programs import mark, simplified
from optlang.backends.formats import PLAIN, Storage
from optlang.backends.reference import BACKEND as REFERENCE
from optlang.backends.torch.executable import TorchExecutable
from optlang.backends.torch.functions import COMPILE_FROM, Functions
from optlang.ir import Program


class TorchBackend:
    """Steps on torch tensors. `functions`: how generated functions run; `compile_from`: elements from which on they are compiled."""

    def __init__(self, functions: Callable[[], Functions] = Functions, compile_from: int = COMPILE_FROM) -> None:
        self.functions, self.compile_from = functions, compile_from

    def refuses(self, program: Program) -> str:
        return REFERENCE.refuses(program)

    def compile(self, program: Program, math: Math, storage: Storage = PLAIN) -> Executable:
        """The simplified program; `math` says how freely: see `simplify`."""
        name = mark(program, math)
        return TorchExecutable(simplified(program, math, name), self.compile_from, self.functions(), storage, mark=name)


BACKEND: Backend = TorchBackend()
