"""Jobs for the tests of executors: importable, for workers are fresh processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from optlang.search.workers import life


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
    if what.endswith("silent"):
        life.SILENT = life.LOOK = 0.2
        time.sleep(600)
    if what == "steps":
        life.SILENT, life.LOOK = 2.5, 0.2  # a busy machine may take two seconds more for a step than it sleeps
        for _ in range(10):
            life.sign()
            time.sleep(0.5)
    while what == "wait" and not Path(mark).exists():
        time.sleep(0.01)
    return "fine"


def greedy(job: str) -> object:
    """Asks for more memory than there is, or gives back what cannot be sent."""
    if job == "memory":
        return bytearray(2**60)
    if job == "lock":
        return threading.Lock()
    return (lambda: None) if job == "secret" else os.getpid()


# A shell that starts the tests in the background may have its children ignore interrupts; the leader must not.
LEADER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from search_jobs import fragile
from optlang.search.workers.executor import Processes
team = Processes(fragile, 2)  # not behind a question for `__main__`: workers do not run the script
warm = [team.submit(("fine", "")) for _ in range(4)]
[team.collect(one) for one in warm]
print(*(worker.process.pid for worker in team._team), flush=True)
try:
    team.collect([team.submit(("hang", "")) for _ in range(4)][0])
finally:
    team.close()
"""
