"""What waits for a step: interrupts while it is written, so that Ctrl-C leaves it whole."""

from __future__ import annotations

import signal
import threading
from _signal import getsignal as get  # type: ignore[import-not-found]  # those of `signal` convert to names, and take longer than a step
from _signal import signal as set_
from types import FrameType
from typing import Any

WAITING = (int(signal.SIGINT), int(signal.SIGTERM))


class uninterrupted:  # what Python makes of a generator takes longer
    """In the main thread, Python's handlers of SIGINT and SIGTERM run at the end; elsewhere they never run."""

    __slots__ = ("_before", "_came")

    def __enter__(self) -> None:
        self._came: list[tuple[int, FrameType | None]] = []
        self._before: list[tuple[int, Any]] = []
        if threading.current_thread() is threading.main_thread():
            self._before = [(number, found) for number in WAITING if callable(found := get(number))]
        for number, _ in self._before:
            set_(number, self._later)

    def __exit__(self, *problem: object) -> None:
        for number, handler in self._before:
            set_(number, handler)
        for number, frame in self._came:
            dict(self._before)[number](number, frame)

    def _later(self, number: int, frame: FrameType | None) -> None:
        self._came.append((number, frame))
