"""The C++ backend: one generated function steps all parameters of a kind at memory speed, on the CPU.

It shares with the torch backend all but the last part: conditions, barriers, numbers known before the stage. What C++ does
not do here (products of matrices, windows, quantiles, other devices) runs as the torch backend would run it, parameter by
parameter, and so does everything where there is no compiler.
"""

from optlang.backends.base import Backend
from optlang.backends.cpp.kernels import CppFunctions
from optlang.backends.torch import TorchBackend

BACKEND: Backend = TorchBackend(CppFunctions)
