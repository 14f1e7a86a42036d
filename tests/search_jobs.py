"""Jobs for the tests of executors: importable, for workers are fresh processes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(number: float) -> float:
    return number * number


def fragile(job: tuple[str, str]) -> str:
    """Dies, hangs or raises as told; `once` leaves a mark in a file, and works the second time."""
    what, mark = job
    if what == "raise":
        raise ValueError("not today")
    if what.startswith("once") and Path(mark).exists():
        return "recovered"
    if what.startswith("once"):
        Path(mark).write_text("tried")
    if what.endswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if what.endswith("hang"):
        time.sleep(600)
    return "fine"
