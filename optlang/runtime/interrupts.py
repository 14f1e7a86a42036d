"""What waits for a step: interrupts while it is written, so that Ctrl-C leaves it whole, and the search for garbage."""

from __future__ import annotations

import gc
import signal
import threading
from _signal import getsignal as get  # type: ignore[import-not-found]  # those of `signal` convert to names, and take longer than a step
from _signal import signal as set_
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

WAITING = (int(signal.SIGINT), int(signal.SIGTERM))


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


@contextmanager
def uncollected() -> Iterator[None]:
    """Python does not search for garbage in here: of all that a first step makes none is, and each search looks at all of it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
