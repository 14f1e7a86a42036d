"""A pytest plugin: tells coverage which test is running, and keeps how long each and the reading of each file took, in seconds, as JSON.

    TIMES=times.json PYTHONPATH=tests coverage run -m pytest -p mutation.contexts tests/test_lower.py

With `MOST=8` no more is begun of a test that has taken 8 s with other parameters, which come in a random order that is always the same.
"""

from __future__ import annotations

import json
import os
import random
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

MOST = float(os.environ.get("MOST", "inf"))
PASSED: dict[str, float] = {}
SPENT: defaultdict[str, float] = defaultdict(float)


def function_of(test: str) -> str:
    return test.partition("[")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {path: i for i, path in enumerate(dict.fromkeys(item.path for item in items))}
    random.Random(0).shuffle(items)
    items.sort(key=lambda item: places[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    began = _processor()
    report = yield
    if isinstance(collector, pytest.Module):
        PASSED[collector.nodeid] = _processor() - began
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if SPENT[function_of(item.nodeid)] > MOST:
        pytest.skip("enough of it has run")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    measured = coverage.Coverage.current()
    assert measured is not None, "run by coverage"
    measured.switch_context(item.nodeid)
    began = _processor()
    try:
        return (yield)
    finally:
        measured.switch_context("")
        SPENT[function_of(item.nodeid)] += _processor() - began
        if item.nodeid in PASSED:
            PASSED[item.nodeid] += _processor() - began


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    PASSED[report.nodeid] = PASSED.get(report.nodeid, 0.0) if report.passed else float("inf")


def _processor() -> float:
    """Seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def pytest_sessionfinish() -> None:
    passed = {name: round(seconds, 4) for name, seconds in PASSED.items() if seconds < float("inf")}
    Path(os.environ["TIMES"]).write_text(json.dumps(passed, indent=0), encoding="utf-8")
