"""A text from a stranger, read in a process that may take so much memory and so many seconds: see `test_hostile.py`."""

from __future__ import annotations

import resource
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from optlang import rules
from optlang.diagnose import diagnose
from optlang.errors import Source
from optlang.front.format import format_file
from optlang.front.parser import parse


def read(text: Path, told: Path, limit: int, seconds: int) -> None:
    """Findings, then the text in the form of `fmt` where it is right; `told`: what was found, or the traceback."""
    _within(limit, seconds, lambda: _found(text.read_bytes().decode()), told)


def beside_adam(text: Path, told: Path, limit: int, seconds: int) -> None:
    """As `read`, for what `optlang diff adam` prints; `told`: its verdict, or the traceback."""
    _within(limit, seconds, lambda: _beside_adam(text), told)


def _within(limit: int, seconds: int, look: Callable[[], str], told: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    warnings.simplefilter("error")
    try:
        told.write_text(look())
    except BaseException:
        told.write_text(traceback.format_exc()[-1500:])
        raise


def _beside_adam(text: Path) -> str:
    found = rules.diff("adam", text)
    assert found.to_text() and found.verdict is not None
    return found.verdict.status


def _found(text: str) -> str:
    found = diagnose(Source(text), pedantic=True)
    assert all(d.to_text() for d in found[:50])
    file, wrong = parse(Source(text))
    if not wrong:
        format_file(file)
    return "findings" if any(d.severity == "error" for d in found) else "right"
