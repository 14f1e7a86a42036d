"""Signs of life: training gives one with every step, and a worker that has given none for long ends itself, to be replaced.

How long a job may take nobody knows: a program on a long task takes an hour where others use the cores, too. But a task whose data,
model or loss waits for something that never comes takes no step.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENT = 300.0  # seconds: a step of as many runs as a task trains at once takes a few, on a machine with much to do
LOOK = 2.0  # seconds between two looks
HANGS = 78  # the exit code of a worker that took no step for so long


class _Life:
    busy = False
    sign = 0.0


_life = _Life()


def sign() -> None:
    """Something has been done."""
    _life.sign = time.monotonic()


def begin() -> None:
    """A job begins, which is to give signs until `end`."""
    sign()
    _life.busy = True


def end() -> None:
    _life.busy = False


def watch() -> None:
    """From now on this process ends where a job gives no sign of life for SILENT seconds."""
    threading.Thread(target=_watched, daemon=True, name="optlang-watch").start()


def _watched() -> None:
    while True:
        time.sleep(LOOK)
        if _life.busy and time.monotonic() - _life.sign > SILENT:
            os._exit(HANGS)


@contextmanager
def said_after(seconds: float, text: str, tell: Callable[[str], None] | None) -> Iterator[None]:
    """Tells so where what is done in here takes that long: this process cannot be replaced where it waits for what never comes."""
    if tell is None:
        yield
        return
    timer = threading.Timer(seconds, tell, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
