"""Backends by name. Each is a folder with a `BACKEND`; importing this one imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from optlang.backends.base import Backend

WHAT: dict[str, str] = {
    "reference": "NumPy float64, the meaning of every program: plain and slow",
    "cpp": "one generated C++ function for all parameters of a kind, on the CPU; torch elsewhere",
    "triton": "generated Triton kernels over all parameters of a kind, on CUDA; torch elsewhere",
    "torch": "functional torch code, fused by torch.compile, on any device",
}
NAMES = ("auto", *WHAT)


def backend(name: str) -> Backend:
    """The backend of that name; "auto" chooses for each parameter by its device. Raises KeyError where there is none."""
    if name not in NAMES:
        raise KeyError(name)
    return cast(Backend, import_module(f"optlang.backends.{name}").BACKEND)
