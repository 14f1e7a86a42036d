"""Functional torch code for each kind of parameter, fused by `torch.compile`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optlang.backends.torch.backend import BACKEND, TorchBackend
    from optlang.backends.torch.executable import TorchExecutable

__all__ = ["BACKEND", "TorchBackend", "TorchExecutable"]

_HOME = {"BACKEND": "backend", "TorchBackend": "backend", "TorchExecutable": "executable"}


def __getattr__(name: str) -> Any:
    """What is common to all backends takes single modules of this folder, and is itself needed by others of them."""
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
