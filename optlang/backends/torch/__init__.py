"""Functional torch code for each kind of parameter, fused by `torch.compile`."""

from optlang.backends.torch.backend import BACKEND, TorchBackend
from optlang.backends.torch.executable import TorchExecutable

__all__ = ["BACKEND", "TorchBackend", "TorchExecutable"]
