"""Interrupts wait while a step is written: Ctrl-C leaves a step whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import unwrap
from types import FrameType
from typing import Any

WAITING = (int(signal.SIGINT), int(signal.SIGTERM))
get, set_ = unwrap(signal.getsignal), unwrap(signal.signal)  # without the conversions to names, which take longer than a small step


@contextmanager
def uninterrupted() -> Iterator[None]:
    """In the main thread, Python's handlers of SIGINT and SIGTERM run at the end; elsewhere they never run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    before: dict[int, Any] = {number: found for number in WAITING if callable(found := get(number))}
    for number in before:
        set_(number, later)
    try:
        yield
    finally:
        for number, handler in before.items():
            set_(number, handler)
        for number, frame in came:
            before[number](number, frame)
