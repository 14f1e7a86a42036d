"""A process that has read torch and all else but optlang, and forks: what tests say of a changed file costs the tests only."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .choice import Chosen

MEMORY = 12 << 30
QUIET = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=line", "-W", "ignore::pytest.PytestAssertRewriteWarning"]


@dataclass(frozen=True)
class Outcome:
    """`by`: the test that failed, or what else ended the run; empty where all tests passed."""

    by: str
    seconds: float


class FirstFailure:
    """A pytest plugin."""

    def __init__(self) -> None:
        self.test = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.test = self.test or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.test = self.test or f"{report.nodeid} cannot be read"


class Server:
    """Runs tests of a copy of the project at `root`, each time in a new process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        os.chdir(root)
        os.environ |= {"PYTHONPATH": str(root), "TRITON_INTERPRET": "1"}  # as conftest.py says, before anything imports Triton
        sys.path[0] = str(root)

    def read(self, files: list[str]) -> None:
        """Imports what the tests of some files import of other packages, for all processes that come of this one."""
        warnings.filterwarnings("ignore", message=".*fork.*")
        for name in json.loads(self._in_child(partial(_libraries, files), 600)):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        assert not any(name.partition(".")[0] == "optlang" for name in sys.modules)

    def run(self, chosen: Chosen, seconds: float) -> Outcome:
        """The tests, each file in a process of its own, until one fails; processor time above `seconds` ends it, too."""
        began = time.monotonic()
        by = ""
        for file, tests in chosen:
            said = self._in_child(partial(_first_failure, file, tests), seconds)
            by = json.loads(said) if said else f"{file}: no end, or an end by a signal"
            if by:
                break
        return Outcome(by, time.monotonic() - began)

    def _in_child(self, work: Callable[[], Any], seconds: float) -> str:
        """What `work` returns, as JSON; empty where it came to no end."""
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            try:
                os.write(there, json.dumps(work()).encode())
            finally:
                os._exit(0)
        os.close(there)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
        signal.alarm(int(12 * seconds) + 60)  # other processes want the processor, too
        with open(here, encoding="utf-8") as pipe:
            said = pipe.read()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        signal.alarm(0)
        return said


def _first_failure(file: str, tests: list[str]) -> str:
    sys.dont_write_bytecode = True
    first = FirstFailure()
    code = pytest.main([*QUIET, *tests], plugins=[first])
    return "" if code == pytest.ExitCode.OK else first.test or f"{file}: {pytest.ExitCode(code).name}"


def _libraries(files: list[str]) -> list[str]:
    """The modules of other packages that tests read. What is read of this one is kept compiled."""
    sys.dont_write_bytecode = False
    pytest.main([*QUIET, "--collect-only", *files])
    return [name for name, module in sorted(sys.modules.items()) if "site-packages" in (getattr(module, "__file__", None) or "")]
