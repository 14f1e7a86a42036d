"""Jobs in the actors of a real Ray on this machine: the same results, and actors that die or hang are replaced."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_jobs import fragile, greedy, square
from test_search_hunt import evaluated, started

from optlang.search.workers import cluster
from optlang.search.workers.cluster import Cluster, ClusterError
from optlang.search.workers.executor import JobFailed, Serial

ray = pytest.importorskip("ray")
Make = Callable[..., Cluster]
CORES = 3


@pytest.fixture(scope="module", autouse=True)
def helpers() -> Iterator[None]:
    """Workers find the helpers of the tests; none is killed because the machine has little memory left, and all may start slowly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        for name in ("raylet_start_wait_time_s", "worker_register_timeout_seconds", "gcs_server_port_wait_time_s"):
            patch.setenv(f"RAY_{name}", "300")
        yield


def test_a_ray_of_its_own_comes_and_goes() -> None:
    team = Cluster(square, 1)
    try:
        assert team.workers == 1
        assert team.collect(team.submit(3.0)) == 9.0
    finally:
        team.close()
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(ClusterError, match=r"the cluster at 127\.0\.0\.1:1 cannot be reached"):
        Cluster(square, 1, "127.0.0.1:1")


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="Ray is not installed: `pip install"):
        Cluster(square, 1)


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    """One Ray for the tests below, as a user's own that teams join."""
    cluster._joined(cluster._imported(), CORES, None)
    yield
    ray.shutdown()


@pytest.fixture
def make(running: None) -> Iterator[Make]:
    made: list[Cluster] = []

    def one(*args: Any, **settings: Any) -> Cluster:
        made.append(Cluster(*args, **settings))
        return made[-1]

    yield one
    for team in made:
        team.close()
    assert ray.is_initialized(), "a Ray that was there before stays"


def test_results_are_those_of_one_process(make: Make) -> None:
    team, alone = make(square), Serial(square)
    assert team.workers == CORES
    tickets = [(team.submit(n), alone.submit(n)) for n in range(40)]
    assert [team.collect(a) for a, _ in reversed(tickets)] == [alone.collect(b) for _, b in reversed(tickets)]


def test_a_search_is_the_same_on_a_cluster(running: None, tmp_path: Path) -> None:
    found = []
    for name, settings in (("alone", {}), ("cluster", {"ray": "local", "workers": 2})):
        with started(tmp_path / f"{name}.db", children=700, **settings) as run:
            assert isinstance(run.executor, Cluster) == (name == "cluster")
            list(run)
        found.append(evaluated(tmp_path / f"{name}.db"))
    assert found[0] == found[1] and len(found[0]) > 5


def test_a_job_that_raises_is_reported_and_others_go_on(make: Make) -> None:
    team = make(fragile, 1)
    bad, good = team.submit(("raise", "")), team.submit(("fine", ""))
    with pytest.raises(JobFailed, match=r"ValueError: not today \(search_jobs.py, line \d+\)"):
        team.collect(bad)
    assert team.collect(good) == "fine"


@pytest.mark.parametrize("what", ["once kill", "once hang", "once silent"])
def test_an_actor_lost_once_is_replaced(make: Make, tmp_path: Path, what: str) -> None:
    team = make(fragile, 1, timeout=5.0)
    lost, good = team.submit((what, str(tmp_path / "mark"))), team.submit(("fine", ""))
    assert team.collect(lost) == "recovered"
    assert team.collect(good) == "fine"


def test_a_job_that_kills_every_actor_is_given_up_and_those_in_line_are_not(make: Make) -> None:
    team = make(fragile, 1)
    tickets = [team.submit((what, "")) for what in ("fine", "kill", "fine", "fine")]
    with pytest.raises(JobFailed, match="a worker or its machine died, or took no step for 300 seconds, 3 times"):
        team.collect(tickets[1])
    assert [team.collect(tickets[place]) for place in (3, 2, 0)] == ["fine"] * 3


def test_nothing_waits_behind_a_job_that_was_lost(make: Make) -> None:
    """Its actor may have died of the next job before the result was back: three times so, and a job that is not to blame were given up."""
    team = make(fragile, 1)
    assert team.collect(team.submit(("fine", ""))) == "fine"
    lost = team._desk.add(("fine", ""))
    assert team._desk.next() == lost
    team._desk.lost(lost, "an actor died")
    later = [team.submit(("fine", "")) for _ in range(2)]
    assert [ticket for ticket, _ in team._team[0].line] == [lost]
    assert [team.collect(ticket) for ticket in (lost, *later)] == ["fine"] * 3


def test_what_cannot_be_sent_is_told_and_harms_nobody(make: Make) -> None:
    team = make(greedy, 1)
    first = team.collect(team.submit("who"))
    with pytest.raises(JobFailed, match="the result cannot be sent"):
        team.collect(team.submit("lock"))
    with pytest.raises(JobFailed, match="the job cannot be sent"):
        team.collect(team.submit(sys.stdout.buffer))
    assert team.collect(team.submit("who")) == first
    with pytest.raises(JobFailed, match="3 times"):
        team.collect(team.submit("memory"))


def test_a_cluster_that_is_full(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(square)
    assert first.collect(first.submit(2.0)) == 4.0
    monkeypatch.setattr(cluster, "START", 0.5)
    second = make(square, 1)
    with pytest.raises(ClusterError, match="has the cluster free cores"):
        second.collect(second.submit(2.0))


def test_no_actors() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Cluster(square, 0)
