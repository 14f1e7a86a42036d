"""Functional torch code for each kind of parameter, fused by `torch.compile`."""

from optlang.backends.torch.executable import BACKEND, TorchBackend, TorchExecutable, source

__all__ = ["BACKEND", "TorchBackend", "TorchExecutable", "source"]
