"""Tables as keyword arguments: all their numbers at once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from optlang.ir import Hyper


class Tables:
    """The tables among the hypers of one program. `what` names the rule in messages."""

    def __init__(self, what: str, hypers: Iterable[Hyper]) -> None:
        self.what = what
        self.numbers: dict[str, list[str]] = {}
        for hyper in hypers:
            if hyper.table:
                self.numbers.setdefault(hyper.table, []).append(hyper.name)
        self.short = {name.rpartition(".")[2]: name for name in self.numbers}

    def named(self, name: str) -> str | None:
        """The whole name of a table that may be called by its end."""
        full = self.short.get(name, name)
        return full if full in self.numbers else None

    def shape(self, table: str) -> tuple[int, int]:
        rows, cols = self.numbers[table][-1].partition("[")[2].rstrip("]").split(",")
        return int(rows), int(cols)

    def fold(self, group: dict[str, Any]) -> None:
        """Brings a table that was written into a group as one to where its numbers are kept."""
        for key in [key for key in (*self.short, *self.numbers) if key in group]:
            group.update(self.cells(self.short.get(key, key), group.pop(key)))

    def cells(self, table: str, value: Any) -> dict[str, float]:
        """The numbers of a table from one number for all, a tensor, an array, nested lists, or the path of a `.npy` file.

        Raises TypeError for what is no table of numbers, ValueError for another shape.
        """
        found = self._array(table, value)
        rows, cols = self.shape(table)
        if found.ndim and found.shape != (rows, cols):
            raise ValueError(f"{self.what}: `{table}` is a table of {rows} × {cols} numbers, not of shape {found.shape}")
        return dict(zip(self.numbers[table], np.broadcast_to(found, (rows, cols)).ravel().tolist(), strict=True))

    def _array(self, table: str, value: Any) -> Any:
        if isinstance(value, str | os.PathLike):
            value = np.load(value, allow_pickle=False)
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = value if value.is_complex() else value.double().numpy()
        try:
            if np.iscomplexobj(value):
                raise TypeError
            return np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{self.what}: `{table}` is a table of numbers, not {type(value).__name__}") from None
