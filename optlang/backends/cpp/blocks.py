"""The text of a pass over tensors that are stored in blocks: these are opened into buffers, computed with, and closed again.

Closing waits for nothing, while what a step divides and takes roots of waits for the divider: they run side by side, part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Buffer:
    """A stored tensor in a pass. `column`: its first pointer; `place`: see `Packed`."""

    form: str
    column: int
    place: int
    is_read: bool
    is_written: bool

    def opened(self) -> str:
        return f"  open_{self.form}(x.pointers + {self.column}, low, high, b{self.column});"

    def closed(self, beside: str) -> str:
        return f"  close_{self.form}(x.pointers + {self.column}, low, high, b{self.column}, x.counter, {self.place}, {beside});"


def in_blocks(buffers: Sequence[Buffer], loop: Sequence[str], rest: Sequence[str]) -> list[str]:
    """`loop` over all elements of a block, and `rest` over those from `from` to `until` while the last buffer is closed."""
    written = [buffer for buffer in buffers if buffer.is_written]
    lines = ["  const auto block = [&](i64 low, auto size) __attribute__((always_inline)) {", "  const i64 high = low + size;"]
    lines += [f"  float b{buffer.column}[BLOCK];" for buffer in buffers]
    lines += [*(buffer.opened() for buffer in buffers if buffer.is_read), *loop]
    if rest:
        lines += ["  const auto rest = [&](i64 part) {", "  const i64 from = low + part, until = part_end(low, part, size);", *rest, "  };"]
    ways = ["nothing"] * (len(written) - 1) + ["rest" if rest else "nothing"]
    lines += [buffer.closed(way) for buffer, way in zip(written, ways, strict=False)]
    return [*lines, "  };", "  for (; low + BLOCK <= high; low += BLOCK) block(low, Whole());", "  if (low < high) block(low, high - low);"]
