"""The reference backend: NumPy float64, the meaning of every program."""

from optlang.backends.reference.executable import BACKEND

__all__ = ["BACKEND"]
