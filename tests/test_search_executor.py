"""Jobs come back whoever does them; workers that die or hang are replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from search_jobs import LEADER, fragile, greedy, square

from optlang.search.workers import executor
from optlang.search.workers.executor import JobFailed, Processes, Serial


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


def test_a_job_that_takes_longer_than_any_may_is_given_up() -> None:
    team = Processes(fragile, 1, timeout=1.0)
    try:
        with pytest.raises(JobFailed, match="took more than 1 seconds, 3 times"):
            team.collect(team.submit(("hang", "")))
    finally:
        team.close()


def test_who_takes_no_step_for_long_is_given_up_and_who_takes_some_is_not() -> None:
    team = Processes(fragile, 1)
    try:
        assert team.collect(team.submit(("steps", ""))) == "fine"
        with pytest.raises(JobFailed, match="a worker took no step for 300 seconds, 3 times"):
            team.collect(team.submit(("silent", "")))
    finally:
        team.close()


def test_a_worker_that_starts_takes_its_time_and_no_notice_of_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "START", 1000.0)
    team = Processes(fragile, 1)
    try:
        [worker] = team._team
        ticket = team.submit(("fine", ""))
        os.kill(worker.process.pid, signal.SIGINT)
        assert worker.since > time.monotonic() + 500, "loading is no part of the job's time"
        assert team.collect(ticket) == "fine" and team._team == [worker]
        assert worker.since < time.monotonic()
    finally:
        team.close()


def test_what_is_done_first_can_be_collected_first(tmp_path: Path) -> None:
    team, alone, mark = Processes(fragile, 2), Serial(fragile), tmp_path / "mark"
    try:
        slow, quick = team.submit(("wait", str(mark))), team.submit(("fine", ""))
        assert team.first([slow, quick]) == quick and team.collect(quick) == "fine"
        mark.touch()
        assert team.first([slow]) == slow and team.collect(slow) == "fine"
    finally:
        team.close()
    assert alone.first([alone.submit(("fine", "")), alone.submit(("hang", ""))]) == 1, "this process does one after the other"


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


@pytest.fixture
def one() -> Iterator[Processes]:
    team = Processes(greedy, 1)
    yield team
    team.close()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux says who goes where memory ends")
def test_where_memory_ends_a_worker_goes_and_not_its_leader(one: Processes) -> None:
    worker = one.collect(one.submit("who"))
    first, last = (int(Path(f"/proc/{who}/oom_score_adj").read_text()) for who in (worker, "self"))
    assert first > last


def test_a_worker_without_memory_is_replaced(one: Processes) -> None:
    first = one.collect(one.submit("who"))
    with pytest.raises(JobFailed, match="a worker ran out of memory, 3 times"):
        one.collect(one.submit("memory"))
    assert one.collect(one.submit("who")) != first


def test_what_cannot_be_sent_is_told_and_harms_nobody(one: Processes) -> None:
    first = one.collect(one.submit("who"))
    with pytest.raises(JobFailed, match="the result cannot be sent"):
        one.collect(one.submit("secret"))
    with pytest.raises(JobFailed, match="the job cannot be sent"):
        one.collect(one.submit(lambda: None))
    assert one.collect(one.submit("who")) == first


def test_a_result_is_collected_once(one: Processes) -> None:
    ticket = one.submit("who")
    one.collect(ticket)
    with pytest.raises(KeyError, match="collected before"):
        one.collect(ticket)


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and was not yet buried does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_its_leader(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C reaches leader and workers alike; the others only the leader."""
    script = tmp_path / "leader.py"
    script.write_text(LEADER)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    leader = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    with leader:
        assert leader.stdout is not None
        workers = [int(number) for number in leader.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.3)  # the jobs are under way
        if sent == signal.SIGINT:
            os.killpg(leader.pid, sent)
        else:
            leader.send_signal(sent)
        _, told = leader.communicate(timeout=600)
    until = time.monotonic() + 300
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    assert told.count("Traceback") == (sent == signal.SIGINT), told
