"""NumPy arrays and torch tensors alike, told apart by what they can do: nothing here imports torch.

Whatever comes in becomes a float64 (or bool) NumPy array of its own; whatever goes out has the kind, the device and the
number type of the array that it replaces. That is where rounding happens, and nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from optlang.types import Kind

Array = Any  # numpy.ndarray, torch.Tensor or a number

_EXACT = {"bool": np.bool_, "int": np.int64}


def is_tensor(x: Array) -> bool:
    return hasattr(x, "detach")


def read(x: Array) -> Array:
    """A copy as float64, or bool where it is bool. Raises ValueError for complex numbers and TypeError for no numbers at all."""
    if is_tensor(x):
        x = x.detach()
        x = x.cpu() if str(x.layout) == "torch.strided" else x.to_dense().cpu()
        x = (x.double() if x.is_floating_point() else x).numpy()
    x = np.asarray(x)
    if x.dtype.kind == "c":
        raise ValueError("complex numbers are not supported: give the real and the imaginary part as two parameters")
    if x.dtype.kind not in "biuf":
        raise TypeError(f"numbers are needed, not {x.dtype}")
    return np.array(x, dtype=bool if x.dtype == bool else np.float64)


def like(target: Array, value: Array) -> Array:
    """A new array of the target's kind, device and number type, in the shape of the value."""
    if is_tensor(target):
        return target.detach().new_tensor(np.array(value))
    return np.array(value, dtype=np.asarray(target).dtype)


def write(target: Array, source: Array) -> None:
    """Copies in place; `source` was made by `like`."""
    if is_tensor(target):
        target.detach().copy_(source)
    else:
        target[...] = source


def kept(weights: Array, value: Array, kind: Kind) -> Array:
    """A new state beside a parameter: float32 where the parameter is coarser, else its number type; bool and int exact."""
    if is_tensor(weights):
        empty = weights.detach().new_empty(0)
        model = {"bool": empty.bool, "int": empty.long}.get(kind, empty.float if empty.element_size() < 4 else empty.detach)()
        return model.new_tensor(np.array(value))
    dtype = np.asarray(weights).dtype
    return np.array(value, dtype=_EXACT.get(kind, np.float32 if dtype.itemsize < 4 else dtype))
