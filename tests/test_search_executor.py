"""Jobs come back whoever does them; workers that die or hang are replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_jobs import fragile, square

from optlang.search.executor import JobFailed, Processes, Serial


def test_results_are_those_of_one_process() -> None:
    team, alone = Processes(square, 2), Serial(square)
    try:
        tickets = [(team.submit(n), alone.submit(n)) for n in range(20)]
        assert [team.collect(a) for a, _ in reversed(tickets)] == [alone.collect(b) for _, b in reversed(tickets)]
    finally:
        team.close()


def test_a_job_that_raises_is_reported_and_others_go_on() -> None:
    team = Processes(fragile, 1)
    try:
        bad, good = team.submit(("raise", "")), team.submit(("fine", ""))
        with pytest.raises(JobFailed, match="ValueError: not today"):
            team.collect(bad)
        assert team.collect(good) == "fine"
    finally:
        team.close()
    with pytest.raises(JobFailed, match=r"not today \(search_jobs.py, line \d+\)"):
        alone = Serial(fragile)
        alone.collect(alone.submit(("raise", "")))


@pytest.mark.parametrize("what", ["once kill", "once hang"])
def test_a_worker_lost_once_is_replaced(tmp_path: Path, what: str) -> None:
    team = Processes(fragile, 2, timeout=5.0)
    try:
        lost, good = team.submit((what, str(tmp_path / "mark"))), team.submit(("fine", ""))
        assert team.collect(lost) == "recovered"
        assert team.collect(good) == "fine"
    finally:
        team.close()


def test_a_job_that_kills_every_worker_is_given_up() -> None:
    team = Processes(fragile, 1)
    try:
        bad, good = team.submit(("kill", "")), team.submit(("fine", ""))
        with pytest.raises(JobFailed, match="killed, perhaps for its memory, 3 times"):
            team.collect(bad)
        assert team.collect(good) == "fine"
    finally:
        team.close()


def test_no_workers() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Processes(square, 0)
