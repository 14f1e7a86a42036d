"""The text of a pass over tensors that are stored in blocks: these are opened into buffers, computed with, and closed again.

Closing keeps the processor busy, while what a step divides and takes roots of waits for the divider: they run side by side, part by
part. The divider's work is asked for first: codes wait for the scale of their block, which is known last. What is opened lies elsewhere
than what is closed: the compiler sees that nothing else is told where, and leaves it in registers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from optlang.backends.formats import FORMATS


class Buffer(NamedTuple):
    """A stored tensor in a pass. `column`: its first pointer; `place`: see `Packed`."""

    form: str
    column: int
    place: int
    is_read: bool
    is_written: bool

    def opened(self) -> str:
        early = f"  foresee((const u8*)x.pointers[{self.column}] + from);" if self.form in LONG else ""
        room = f"  alignas(64) float o{self.column}[PART];"
        return f"{early}{room}  open_{self.form}(x.pointers + {self.column}, low, part, size, o{self.column});"

    @property
    def has_scales(self) -> bool:
        return bool(FORMATS[self.form].block)

    def closing(self) -> str:
        given = f"t{self.column}" if self.has_scales else f"x.counter, {self.place}"
        begun = f"close_{self.form}(x.pointers + {self.column}, low, size, b{self.column}, {given})"
        return f"  auto c{self.column} = {begun};"


def in_blocks(buffers: Sequence[Buffer], loop: Sequence[str], rest: Sequence[str]) -> list[str]:
    """`loop` over the elements from `from` to `until`, part by part as they are opened, and `rest` over the same as they are closed."""
    written = [buffer for buffer in buffers if buffer.is_written]
    part = ["  EACH_PART {", "  const i64 from = low + part, until = from + count_of(part, size);"]
    before, behind = (_foreseen(buffers, lines) for lines in (loop, rest))
    lines = ["  const auto block = [&](i64 low, auto size) __attribute__((always_inline)) {"]
    lines += [f"  alignas(64) float b{buffer.column}[BLOCK];" for buffer in written]
    scaled = [buffer.column for buffer in written if buffer.has_scales]
    lines += [f"  Largest t{column}(size);" for column in scaled]
    lines += [*part, *before, *(buffer.opened() for buffer in buffers if buffer.is_read), *loop]
    lines += [*(f"  t{column}.see(part, size, b{column});" for column in scaled), "  }"]
    lines += [buffer.closing() for buffer in written]
    lines += [*part, *behind, *rest, *(f"  c{buffer.column}.part(part);" for buffer in written), "  }"] if written else []
    lines += [f"  done(c{buffer.column});" for buffer in written]
    return [*lines, "  };", "  for (; low + BLOCK <= high; low += BLOCK) block(low, Whole());", "  if (low < high) block(low, high - low);"]


def _foreseen(buffers: Sequence[Buffer], lines: Sequence[str]) -> list[str]:
    """Requests for what some lines read where it lies, where codes take so long that it would come too late."""
    if not any(buffer.form in LONG for buffer in buffers):
        return []
    return [f"  foresee(p{place} + from);" for place in sorted({int(place) for line in lines for place in READ.findall(line)})]


LONG = ("int8", "uint8")  # of the others, what is asked for early takes longer than it saves
READ = re.compile(r"\bload\(p(\d+)\[")
