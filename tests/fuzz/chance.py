"""Where choices come from: hypothesis, which shrinks what it finds, or a seed, which costs next to nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from hypothesis import strategies as st


class Choices(Protocol):
    """The first option and the lowest number are the simplest."""

    def one(self, options: Sequence[Any]) -> Any: ...

    def number(self, low: int, high: int) -> int:
        """Both ends included."""
        ...


class Drawn:
    """Choices of hypothesis, from the `draw` of a composite strategy."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw

    def one(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))


class Dice:
    """Choices of a seed."""

    def __init__(self, seed: int | str) -> None:
        self.random = random.Random(seed)

    def one(self, options: Sequence[Any]) -> Any:
        return options[int(self.random.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        return low + int(self.random.random() * (high - low + 1))
