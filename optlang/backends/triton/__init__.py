"""The Triton backend: one launch for each stage steps all parameters of a kind, on CUDA.

It shares all but the kernels with the torch backend. What Triton does not do here (products of matrices, windows, quantiles,
rows beside states in fewer bits, the CPU) runs as the torch backend would run it. With TRITON_INTERPRET=1 the very same
kernels run on the CPU, slowly, which is how they are tested where there is no GPU.
"""

from __future__ import annotations

from optlang.backends.base import Backend
from optlang.backends.torch import TorchBackend
from optlang.backends.torch.functions import Functions


def _functions() -> Functions:
    from optlang.backends.triton.kernels import TritonFunctions  # noqa: PLC0415 - only who uses it needs triton

    return TritonFunctions()


BACKEND: Backend = TorchBackend(_functions)
