"""States of one number each that the host reads and writes by itself: torch takes longer to say where a number is than to compute it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optlang.backends.watch import Versions, Watch

TYPES: Mapping[torch.dtype, Any] = {torch.float32: ctypes.c_float, torch.float64: ctypes.c_double, torch.bool: ctypes.c_bool}


class Elsewhere:
    """A number that torch reads and writes: it is on another device, or of another type."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    @property
    def value(self) -> Any:
        return self._tensor.item()

    @value.setter
    def value(self, number: Any) -> None:
        try:
            self._tensor.fill_(number)
        except RuntimeError:  # beyond its number type: then it is infinite
            self._tensor.copy_(torch.tensor(number, dtype=torch.float64))


class Singles:
    """Tensors of one number each by their names. Raises Unseen for what cannot be watched."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        here = [x for x in tensors.values() if _is_here(x)]
        self._watch, self._versions = Watch(here, [False] * len(here)), Versions(here)
        self._places = {name: TYPES[x.dtype].from_address(x.data_ptr()) if _is_here(x) else Elsewhere(x) for name, x in tensors.items()}

    def read(self) -> dict[str, Any] | None:
        """All of them; None where one has moved."""
        if not self._watch.holds():
            return None
        return {name: place.value for name, place in self._places.items()}

    def write(self, numbers: Mapping[str, Any]) -> None:
        """New values of some, rounded to their types; what is beyond these is infinite. They must not have moved since `read`."""
        for name, number in numbers.items():
            self._places[name].value = number
        self._versions.grow()


def _is_here(x: Tensor) -> bool:
    return type(x) is Tensor and x.device.type == "cpu" and x.numel() == 1 and x.dtype in TYPES
