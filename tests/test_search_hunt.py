"""Whole searches on tasks of a few steps: the same for any number of workers, and for one that was cut off and taken up again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import optlang
from optlang.cli import main
from optlang.rules import Rule
from optlang.search import api
from optlang.search.api import Search, funnel_of, resume
from optlang.search.evolution import ahead, strand, trials
from optlang.search.evolution.ahead import Ahead
from optlang.search.evolution.hunt import Hunt, NothingTrains
from optlang.search.evolution.population import Ageing
from optlang.search.evolution.rounds import Pace, jobs_for
from optlang.search.evolution.settings import Budget, Plan, Settings, SettingsError
from optlang.search.evolution.trials import Trials
from optlang.search.live_view import View
from optlang.search.programs.genome import from_text
from optlang.search.programs.space import Space
from optlang.search.screening.sieve import Looks
from optlang.search.store.database import Store, StoreError
from optlang.search.training import loading
from optlang.search.training.assess import Job, work
from optlang.search.training.levels import FUNNEL, HOLDOUT, SEARCH, VALIDATION, Level, Point, onset
from optlang.search.training.loading import task
from optlang.search.training.tasks import TaskError
from optlang.search.workers import life
from optlang.search.workers.executor import Processes, Serial

SHORT = Level("search", ("planted-momentum",), factor=0.1, seeds=2, measure="loss")
LONGER = Level("validation", ("planted-normalized", "planted-sign"), factor=0.1, seeds=2, enter=4, measure="loss")
HERE = Path(__file__).parent


def started(store: Path, **settings: Any) -> Search:
    given = {
        "children": 4000, "funnel": (SHORT,), "workers": 1, "seed": 5, "ageing": Ageing(population=20),
        "pace": Pace(jobs=2, per_job=3, proposals=800, hurdle=0.0), **settings,
    }  # fmt: skip
    return optlang.search("sgd-bare", store=store, **given)


def evaluated(store: Path) -> list[tuple[Any, ...]]:
    """Every program with its result, in order."""
    with Store.read(store) as kept:
        return kept.query("SELECT branch, number, text, parent, change, fitness, steps FROM genomes JOIN assessments "
                          "USING (branch, number) ORDER BY branch, number")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search from start to end in one go."""
    path = tmp_path_factory.mktemp("whole") / "run.db"
    with started(path) as run:
        assert len(list(run)) > 2
    return path


def test_it_finds_something_better_than_its_seed(whole: Path) -> None:
    rows = evaluated(whole)
    assert len(rows) > 15
    assert max(row[5] for row in rows) > rows[0][5]
    assert rows[0][4] == "seed" and all(row[3] is not None for row in rows[1:])


def test_neither_workers_matter_nor_that_one_is_killed(whole: Path, tmp_path: Path) -> None:
    with started(tmp_path / "run.db", workers=2) as run:
        next(rounds := iter(run))
        assert isinstance(run.executor, Processes)
        os.kill(run.executor._team[0].process.pid, signal.SIGKILL)
        list(rounds)
    assert evaluated(tmp_path / "run.db") == evaluated(whole)


def test_many_workers_have_enough_to_do(tmp_path: Path) -> None:
    """The course depends on the number of jobs, which goes by the workers where it is not said, and not on the workers."""
    assert [jobs_for(workers) for workers in (1, 2, 4, 5, 64)] == [2, 2, 2, 3, 32]
    given: dict[str, Any] = {"funnel": (SHORT,), "children": 500, "seed": 5}
    found = []
    for workers, jobs, wanted in ((1, 3, 3), (2, 3, 3), (6, None, 3), (1, None, 2)):
        path = tmp_path / f"{workers} {jobs}.db"
        with optlang.search("sgd-bare", store=path, workers=workers, jobs=jobs, **given) as run:
            assert (pace := run.hunt.settings.pace).jobs == wanted and pace.proposals == 2000 * wanted
            assert "idle" not in run.describe()
            list(run)
        found.append(evaluated(path))
    assert found[0] == found[1] == found[2] != found[3]
    with resume(tmp_path / "1 None.db", workers=7) as run:
        assert run.describe().endswith("7 workers, 3 of them idle: --jobs 4 would have work for all")
    with resume(tmp_path / "1 None.db", workers=7, jobs=4) as run:
        assert run.describe().endswith("7 workers") and run.hunt.settings.pace.proposals == 8000
    with pytest.raises(SettingsError, match="a round needs at least one job"):
        resume(tmp_path / "1 None.db", jobs=0)


@pytest.mark.parametrize("rounds", [1, 3])
def test_taken_up_again_it_goes_on_identically(whole: Path, tmp_path: Path, rounds: int) -> None:
    with started(tmp_path / "run.db") as run:
        for _, _progress in zip(range(rounds), run, strict=False):
            pass
    with resume(tmp_path / "run.db", workers=1) as run:
        list(run)
    assert evaluated(tmp_path / "run.db") == evaluated(whole)
    with Store.read(tmp_path / "run.db") as one, Store.read(whole) as other:
        assert one.state("evolution")["branch"] == other.state("evolution")["branch"]  # type: ignore[index]


def test_a_larger_budget_is_as_if_it_had_been_larger_at_first(tmp_path: Path) -> None:
    """Every branch, the curves, the meta-validation and the funnel; also where the search had ended and its best had been through it."""
    given: dict[str, Any] = {"plans": (Plan("evolution"), Plan("random", factor=2.0)), "funnel": (SHORT, LONGER), "validate_every": 2,
                             "until_onset": False}  # fmt: skip
    one, other = tmp_path / "one.db", tmp_path / "other.db"
    with started(one, **given) as run:
        assert run.ended() == "" and len(list(run)) > 4
        best = [[promoted.number for promoted in results] for _, results in run.promote()]
    with started(other, children=1200, **given) as run:
        list(run)
        list(run.promote())
        assert f"the budget of 1,200 children is used up; `optlang search resume {other} --children 2400` goes on" in run.ended()
    before = evaluated(other)
    with resume(other, workers=1, children=4000) as run:
        assert run.ended() == "" and list(run)
        assert [[promoted.number for promoted in results] for _, results in run.promote()] == best
    assert len(before) < len(evaluated(other))
    with Store.read(one) as a, Store.read(other) as b:
        for query in ("SELECT * FROM genomes ORDER BY branch, number", "SELECT * FROM curve ORDER BY branch, spent",
                      "SELECT branch, number, fitness, steps FROM assessments WHERE level = 'search' ORDER BY branch, number"):  # fmt: skip
            assert a.query(query) == b.query(query)
        assert a.events("validation") == b.events("validation") and len(a.events("validation")) > 2
        for branch in a.branches():
            assert a.state(branch)["branch"] == b.state(branch)["branch"]  # type: ignore[index]


def test_a_budget_is_extended_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.db"
    with started(path, children=300) as run:
        list(run)
    resumed = ["search", "resume", str(path), "--workers", "1"]
    few = len(evaluated(path))
    assert main([*resumed, "--minutes", "1e-6"]) == 0
    assert "the budget of 300 children and 1e-06 minutes is used up" in capsys.readouterr().out and len(evaluated(path)) == few
    assert main([*resumed, "--minutes", "0", "--children", "1200"]) == 0
    assert "used up" not in capsys.readouterr().out and len(evaluated(path)) > few
    for words, told in ((["--children", "0"], "the budget is zero"), (["--minutes", "-1"], "a budget is negative"),
                        (["--seed", "7"], "--seed: what a search finds follows from it and is settled when it begins; begin a new one"),
                        (["--only-proposals", "--never", "t"], "--never and --only-proposals: what a search finds"),
                        (["--no-funnel", "--finals"], "leave --no-funnel out")):  # fmt: skip
        assert main([*resumed, *words]) == 2
        assert told in capsys.readouterr().err
    with Store.read(path) as store:
        assert store.meta("settings")["budget"] == {"children": 1200, "steps": 0, "minutes": 0.0}, "what is refused leaves it as it was"


def test_killed_at_any_moment_nothing_finished_is_lost(whole: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "run.db")
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import test_search_hunt as t, pathlib, torch; torch.set_num_threads(1)\n"
    script += f"with t.started(pathlib.Path({path!r})) as run: list(run)"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not _has_rounds(tmp_path / "run.db", 2) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = evaluated(tmp_path / "run.db")
    assert before
    with resume(tmp_path / "run.db", workers=1) as run:
        list(run)
    after = evaluated(tmp_path / "run.db")
    assert after[: len(before)] == before
    assert after == evaluated(whole)


def _has_rounds(path: Path, count: int) -> bool:
    try:
        with Store.read(path) as store:
            return bool(store.query("SELECT 1 FROM strands WHERE rounds > ?", count))
    except (StoreError, KeyError):
        return False


def test_baselines_have_their_own_budgets(tmp_path: Path) -> None:
    plans = (Plan("evolution"), Plan("random", factor=2.0), Plan("constants", repeats=2))
    with started(tmp_path / "run.db", plans=plans, children=1000) as run:
        list(run)
        counts = {name: strand.children for name, strand in run.hunt.strands.items()}
    assert set(counts) == {"evolution", "random", "constants", "constants 2"}
    assert counts["random"] >= 2000 and counts["evolution"] < 2000
    for row in evaluated(tmp_path / "run.db"):
        if row[0].startswith("constants"):
            assert row[2].count("\n") == 0 and "mul(" in row[2], "only the constant of the seed changes"


def test_a_population_that_starts_again_has_new_hurdles(tmp_path: Path) -> None:
    pace = Pace(jobs=2, per_job=3, proposals=800, hurdle=0.0, trial=0.5)
    with started(tmp_path / "run.db", ageing=Ageing(population=20, patience=150), pace=pace) as run:
        strand, most = run.hunt.strands["evolution"], 0
        for _ in run:
            if strand.branch.restarts:
                break
            most = max(most, len(strand.reached["trial"]))
        assert strand.branch.restarts == 1 and most > 10 and not any(strand.reached.values())


def test_a_branch_that_has_tried_all_constants_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = Space(functions={"mul": 1.0}, seeds=(from_text("u = mul(g, 1.0)"),), constants=(0.1, 10.0), series=True)
    path = tmp_path / "run.db"
    given: dict[str, Any] = {"funnel": (SHORT,), "seed": 5, "pace": Pace(jobs=1, per_job=16, proposals=200, hurdle=0.0)}
    with optlang.search(store=path, space=space, plans=(Plan("constants"),), steps=10**12, workers=1, **given) as run:
        shown = list(run)
    told, written = [str(progress) for progress in shown], []
    shown[-1]._repr_pretty_(SimpleNamespace(text=written.append), False)
    assert written == told[-1:], "notebooks show it as `print` does"
    assert told[-1].startswith("100%") and told[-1].endswith("hardly any child is new any more: the branch ends before its budget")
    assert not any("before its budget" in one for one in told[:-1])
    assert len(evaluated(path)) <= 25, "1, 2 or 5 times a power of ten, of either sign"
    with resume(path, workers=1) as run:
        assert not list(run), "what has run dry stays so"


def test_the_funnel_takes_the_best_and_the_seeds(tmp_path: Path) -> None:
    with started(tmp_path / "run.db", funnel=(SHORT, LONGER), validate_every=1) as run:
        list(run)
        assert run.hunt.points and all(point.spent > 0 for point in run.hunt.points)
        points = run.hunt.points
    with resume(tmp_path / "run.db", workers=1) as run:
        assert run.hunt.points == points
        heard: list[str] = []
        [(level, results)] = list(run.promote(heard.append))
        assert re.fullmatch(r"validation: (\d+) of \1 programs trained", heard[-1]), heard
        heard.clear()
        again = list(run.promote())
        assert not heard
    assert level.name == "validation" and len(results) == LONGER.enter + 1
    assert 1 in [one.number for one in results], "the seed goes along"
    assert [one.assessment.fitness for one in results] == sorted((one.assessment.fitness for one in results), reverse=True)
    assert again[0][1] == results, "what is in the store is not trained again"


def test_programs_of_later_levels_are_jobs_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def noted(executor: Serial, job: Job) -> int:
        given.append((job.level.name, len(job.genomes)))
        return submit(executor, job)

    submit = Serial.submit
    monkeypatch.setattr(Serial, "submit", noted)
    with started(tmp_path / "run.db", funnel=(SHORT, LONGER)) as run:
        list(run)
        assert {name for name, _ in given} == {"search"} and max(count for _, count in given) > 1
        given.clear()
        list(run.promote())
    assert given == [("validation", 1)] * (LONGER.enter + 1)


def test_what_is_held_out_stays_closed_until_the_end(tmp_path: Path) -> None:
    sealed = Level("hold-out", ("planted-sign",), factor=0.1, seeds=2, enter=1, measure="loss")
    with started(tmp_path / "run.db", funnel=(SHORT, LONGER, sealed), validate_every=1, children=1500) as run:
        list(run)
        assert levels(run.store) == {"search", "validation"} and "planted-sign" in run.store.meta("tasks")
        assert [level.name for level, _ in run.promote()] == ["validation", "hold-out"]
        assert levels(run.store) == {"search", "validation", "hold-out"}


def levels(store: Store) -> set[str]:
    return {level for (level,) in store.query("SELECT DISTINCT level FROM assessments")}


def test_a_search_that_overfits_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation falls from the third point on while the search's fitness rises; the budget is far from spent."""

    def validated(hunt: Hunt) -> Point:
        place = len(hunt.points)
        hunt.points.append(Point(place, float(place), float(min(place, 4 - place))))
        return hunt.points[-1]

    monkeypatch.setattr(Hunt, "_validated", validated)
    with started(tmp_path / "run.db", funnel=(SHORT, LONGER), validate_every=1, children=10**6) as run:
        progress = list(run)
    assert [one.overfits for one in progress] == [False] * 5 + [True] and progress[-1].done < 0.5
    assert onset(run.hunt.points) == 2
    assert run.ended().startswith("the search has ended, for its best no longer got better on tasks that selection does not see")


def test_a_task_added_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with started(tmp_path / "run.db", funnel=(SHORT, LONGER), validate_every=1, children=1000) as run:
        list(run)
        before = run.hunt.points
    with resume(tmp_path / "run.db", workers=1, tasks=["planted-momentum"]) as run:
        assert before and run.hunt.points == [], "on other tasks it is another curve"
        [(level, results)] = list(run.promote())
    assert level.tasks == (*LONGER.tasks, "planted-momentum")
    assert all(set(one.assessment.detail) == set(level.tasks) for one in results)
    for words, told in ((["planted-sign"], "is a task of the level `validation` already"), (["x", "--level", "search"], "no task 'x'"),
                        (["planted-sign", "--level", "search"], "have been selected, so start a new search")):  # fmt: skip
        assert main(["search", "resume", str(tmp_path / "run.db"), "--tasks", *words]) == 2
        assert told in capsys.readouterr().err


def test_tasks_of_ones_own_on_every_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = str(HERE.parent / "examples" / "my_task.py")
    search, validation, final, hold_out = funnel_of(["digits-mlp"], [own], ["planted-sign"])
    assert (search.tasks, validation.tasks, hold_out.tasks) == (("digits-mlp",), (own,), ("planted-sign",)) and final == FUNNEL[2]
    assert funnel_of(None) == FUNNEL
    assert [level.tasks for level in funnel_of(None, final=[own])] == [SEARCH.tasks, VALIDATION.tasks, (own,), HOLDOUT.tasks]
    settings = Settings(Space(), Budget(minutes=1.0), funnel=funnel_of(["digits-mlp"], ["digits-mlp", own]))
    assert settings.remark() == "digits-mlp is searched on and so no task that selection has not seen, as validation wants"
    assert not Settings(Space(), Budget(minutes=1.0)).remark()
    assert "digits-mlp:14 is searched on" in replace(settings, funnel=funnel_of(["digits-mlp"], ["digits-mlp:14"])).remark()
    with started(tmp_path / "run.db", funnel=(SHORT, replace(LONGER, tasks=SHORT.tasks))) as run:
        assert run.describe().endswith("; planted-momentum is searched on and so no task that selection has not seen, as validation wants")
    store = str(tmp_path / "new.db")
    for words, told in ((["sgd", "--store", store, "--hold-out", "nowhere"], "there is no task 'nowhere'"),
                        (["sgd", "--store", store, "--validation", own, "--no-funnel"], "leave --no-funnel out"),
                        (["sgd", "--store", store, "--final", own, "--no-funnel"], "leave --no-funnel out"),
                        (["sgd", "--store", store, "--final", "nowhere"], "there is no task 'nowhere'"),
                        (["resume", str(tmp_path / "run.db"), "--final", own], "by --tasks and --level validation"),
                        (["resume", str(tmp_path / "run.db"), "--validation", own], "by --tasks and --level validation")):  # fmt: skip
        assert main(["search", *words]) == 2
        assert told in capsys.readouterr().err and not Path(store).exists()


def test_a_task_that_has_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.py"
    own.write_text((HERE.parent / "examples" / "my_task.py").read_text().replace("steps = 200", "steps = 8"))
    words = ["--workers", "1", "--quiet"]
    store = str(tmp_path / "run.db")
    assert main(["search", "sgd", "--tasks", str(own), "--children", "20", "--no-funnel", "--store", store, *words]) == 0
    before = evaluated(tmp_path / "run.db")
    own.write_text(own.read_text().replace("steps = 8", "steps = 9"))
    loading.task.cache_clear()
    assert main(["search", "resume", store, *words]) == 2
    assert "another task" in capsys.readouterr().err
    own.unlink()
    loading.task.cache_clear()
    assert main(["search", "resume", store, *words]) == 2
    assert re.search(r"own.py: there is no such file(.|\n)*go on in that folder", capsys.readouterr().err)
    assert evaluated(tmp_path / "run.db") == before


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_look_at_what_is_proposed_change_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(ahead, "LEAST", 1)
    monkeypatch.setattr(strand, "PER_JOB", 37)  # rounds end within batches, and go over several of them
    path, asked = tmp_path / "run.db", []
    first = Ahead._asked
    monkeypatch.setattr(Ahead, "_asked", lambda self: asked.append(1) or first(self))
    with started(path, workers=workers) as run:
        rounds = [progress.round.children for progress in run]
    assert len(asked) > 2 * len(rounds)
    assert evaluated(path) == evaluated(whole)
    with Store.read(path) as one, Store.read(whole) as other:
        assert _counted(one) == _counted(other)


def _counted(store: Store) -> Any:
    """Where a search is, without what its screening took."""
    state = store.state("evolution")
    assert state is not None
    return state | {"screen": {name: {**one, "seconds": 0} for name, one in state["screen"].items()}}


def test_what_no_worker_has_looked_at_is_looked_at_here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(looks: Looks) -> None:
        raise OSError("no worker is left")

    monkeypatch.setattr(ahead, "LEAST", 1)
    with started(tmp_path / "run.db", children=1000) as run:
        assert isinstance(run.executor, Serial)
        monkeypatch.setattr(run.executor, "work", lambda job: broken(job) if isinstance(job, Looks) else work(job))
        list(run)
    found = evaluated(tmp_path / "run.db")
    assert len(found) > 20 and found == evaluated(whole)[: len(found)]


def test_a_search_that_can_train_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: Any) -> None:
        raise OSError("the data are gone")

    with started(tmp_path / "run.db", children=10**6) as run:
        assert isinstance(run.executor, Serial)
        monkeypatch.setattr(run.executor, "work", broken)
        with pytest.raises(NothingTrains, match=r"last 3 rounds .* OSError: the data are gone.*resume"):
            list(run)
    assert {row[5] for row in evaluated(tmp_path / "run.db")[1:]} == {SHORT.worst}


def test_a_task_that_fails_while_it_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.py"
    text = (HERE.parent / "examples" / "my_task.py").read_text().replace("steps = 200", "steps = 8\n    calls = 0")
    own.write_text(text.replace("return F.cross", "Iris.calls += 1\n        assert Iris.calls < 30, 'enough'\n        return F.cross"))
    assert main(["search", "adamw", "--tasks", str(own), "--children", "20", "--workers", "1", "--store", str(tmp_path / "run.db")]) == 2
    assert re.search(r"own.py: AdamW cannot be trained on it: AssertionError: enough \(own.py, line \d+\)", capsys.readouterr().err)


def test_a_task_that_waits_for_what_never_comes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, said = tmp_path / "own.py", list[str]()
    text = (HERE.parent / "examples" / "my_task.py").read_text().replace("steps = 200", "steps = 8\n    calls = 0")
    waits = ("import time\n        from optlang.search.workers import life\n        life.SILENT = life.LOOK = 0.2\n"
             "        Iris.calls += 1\n        if Iris.calls > 30: time.sleep(600)\n        return F.cross")  # fmt: skip
    own.write_text(text.replace("return F.cross", waits))
    monkeypatch.setattr(trials, "SLOW", 0.1)
    monkeypatch.setattr(life, "SILENT", 0.2)  # the task, which workers load, makes them as impatient
    monkeypatch.setattr(life, "LOOK", 0.2)
    level = Level("search", (str(own),), seeds=1)
    with pytest.raises(TaskError, match=r"own.py: AdamW cannot be trained on it: a worker took no step for 0.2 seconds, 3 times"):
        optlang.search("sgd", store=tmp_path / "run.db", children=20, workers=2, funnel=(level,), tell=said.append)
    assert any(f"AdamW is still being tuned on {own}" in text for text in said)
    assert not (tmp_path / "run.db").exists()


def test_a_task_that_takes_long_to_load_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, said = tmp_path / "slow.py", list[str]()
    slow = "import time\n        time.sleep(0.5)\n        iris = load_iris()"
    own.write_text((HERE.parent / "examples" / "my_task.py").read_text().replace("iris = load_iris()", slow))
    monkeypatch.setattr(api, "SLOW", 0.1)
    with started(tmp_path / "run.db", funnel=(replace(SHORT, tasks=(f"{own}:0.01",)),), tell=said.append):
        pass
    assert [text for text in said if text.startswith(f"task {own}:0.01 is still being tried after 0.1 seconds")]


def test_one_search_has_a_task_at_several_lengths(tmp_path: Path) -> None:
    level = Level("search", ("planted-momentum:0.02", "planted-momentum:0.1"), seeds=2)
    with started(tmp_path / "run.db", funnel=(level,), children=300) as run:
        list(run)
        found, baselines = run.store.details("evolution", "search")[run.best().number], run.store.meta("baselines")
    assert [baselines[f"{name} x1"]["horizon"] for name in level.tasks] == [round(task("planted-momentum").steps * f) for f in (0.02, 0.1)]
    assert set(found) == set(level.tasks) and found[level.tasks[0]]["loss"] != found[level.tasks[1]]["loss"]


def test_a_task_on_which_adamw_learns_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its gradient has the wrong sign. No store is left behind, so that the same command goes once the task is mended."""
    own, store = tmp_path / "own.py", tmp_path / "run.db"
    text = (HERE.parent / "examples" / "my_task.py").read_text().replace("steps = 200", "steps = 8")
    call = "F.cross_entropy(model(x), y)"
    own.write_text(text.replace(f"return {call}", f"found = {call}\n        return 2 * found.detach() - found"))
    words = ["search", "sgd", "--tasks", str(own), "--children", "20", "--workers", "1", "--store", str(store), "--no-funnel"]
    assert main(words) == 2
    assert "own.py: tuned AdamW ends no lower than it began" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"own.py"}
    own.write_text(text)
    loading.task.cache_clear()
    assert main(words) == 0 and evaluated(store)


def test_what_is_ended_while_it_is_set_up_can_be_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while AdamW is tuned: what has been tuned is kept."""
    keep, store = Trials._keep_curve, tmp_path / "run.db"
    task = str(HERE.parent / "examples" / "my_task.py")
    level = Level("search", (task, "digits-mlp"), factor=0.02, seeds=1)

    def pressed(trials: Trials, *rest: Any) -> None:
        keep(trials, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trials, "_keep_curve", pressed)
        optlang.search("sgd", store=store, children=20, workers=1, funnel=(level,))
    with Store.read(store) as kept:
        assert list(kept.meta("baselines")) == [level.key(task)]
    with resume(store, workers=1) as run:
        list(run)
    assert evaluated(store)


def test_a_template_is_filled_by_evolution(tmp_path: Path) -> None:
    """The seed, a library rule, stands in the template but for its holes."""
    template = tmp_path / "template.txt"
    template.write_text("? 0-2\nu = mul(?, ?)")
    words = ["--tasks", "planted-momentum", "--children", "300", "--no-funnel", "--workers", "1", "--template", str(template)]
    assert main(["search", "sgd-bare", "--store", str(tmp_path / "run.db"), *words]) == 0
    texts = [row[2].splitlines() for row in evaluated(tmp_path / "run.db")]
    assert len(texts) > 10 and all(len(text) <= 3 and text[-1].startswith("u = mul(") for text in texts)


def test_overfitting_is_seen() -> None:
    rising = [Point(n, float(n), float(n)) for n in range(6)]
    assert onset(rising) is None
    falling = [*rising, *(Point(n, float(n), 5.0 - n) for n in range(6, 12))]
    assert onset(falling) == 5
    still = [*rising, *(Point(n, 5.0, 0.0) for n in range(6, 12))]
    assert onset(still) is None, "a search that has stopped rising does not overfit"


def test_ctrl_c_ends_after_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tell, pressed = View.tell, iter([True])

    def telling(view: View, progress: Any) -> None:
        tell(view, progress)
        if next(pressed, False):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(View, "tell", telling)
    store = tmp_path / "run.db"
    words = ["--tasks", "planted-momentum", "--children", "400", "--population", "10", "--no-funnel", "--workers", "1"]
    assert main(["search", "sgd-bare", "--store", str(store), *words]) == 130
    told = capsys.readouterr()
    assert "ending after this round" in told.err and f"stopped; `optlang search resume {store}` goes on" in told.out
    assert list(Path(f"{store}.hall").glob("*.opt")), "the hall of fame is on the disk before the end"
    before = evaluated(store)
    assert main(["search", "resume", str(store), "--workers", "1"]) == 0
    assert evaluated(store)[: len(before)] == before and len(evaluated(store)) > len(before) > 1


def test_what_was_found_goes_out(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "pick", str(whole)]) == 0
    shown = capsys.readouterr().out
    assert "fitness" in shown and "Found" in shown
    name = shown.splitlines()[1].split()[0]
    assert main(["search", "export", str(whole), name, "-o", str(tmp_path / "found.opt")]) == 0
    assert Rule(tmp_path / "found.opt").name == name
    assert main(["search", "export", str(whole), "best", "--to", "module"]) == 0
    assert "class Found" in capsys.readouterr().out
    assert list(Path(f"{whole}.hall").glob("*.opt"))
    for path in Path(f"{whole}.hall").glob("*.opt"):
        Rule(path)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A task of one's own, limits and constraints; taken up again when there is nothing left to do."""
    (tmp_path / "seed.opt").write_text("rule S { hyper lr = 0.1 in (0, inf) state m = 0 m' = 0.1*g + 0.9*m w' = w - lr*tanh(m') }")
    task = str(HERE.parent / "examples" / "my_task.py")
    words = ["search", str(tmp_path / "seed.opt"), "--tasks", task, "--children", "24", "--no-funnel", "--workers", "1", "--store",
             str(tmp_path / "run.db"), "--limit", "statements=8", "--never", "t", "--population", "10"]  # fmt: skip
    assert main(words) == 0
    shown, told = capsys.readouterr()
    assert f"evolution on {task}" in shown and "the hall of fame is in" in shown
    assert told.splitlines() == [
        f"search: AdamW is tuned on {task}", f"search: AdamW has been tuned on {task}", "search: 1 of 1 programs trained",
    ]  # fmt: skip
    assert main(["search", "resume", str(tmp_path / "run.db"), "--workers", "1"]) == 0
    for _, _, text, *_ in evaluated(tmp_path / "run.db"):
        assert len(text.splitlines()) <= 8
        assert not any("t" in statement.args for statement in from_text(text))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["search", "adamw", "--store", "{store}", "--minutes", "1"], "is there already"),
        (["search", "adamw", "--store", "{new}", "--children", "-5"], "a budget is negative"),
        (["search", "adamw", "--store", "{new}", "--minutes", "0"], "the budget is zero"),
        (["search", "adamw", "--store", "{new}", "--jobs", "0"], "a round needs at least one job"),
        (["search", "adamw", "--store", "{new}", "--minutes", "nan"], "no finite number"),
        (["search", "adamw", "--store", "{new}", "--finals", "--no-funnel"], "leave --no-funnel out"),
        (["search", "adamw", "--store", "{new}", "--tasks", "diggits"], "there is no task 'diggits'"),
        (["search", "adamw", "--store", "{new}", "--functions", "addd"], "there is no function `addd`: did you mean `add`?"),
        (["search", "adamw", "--store", "{new}", "--population", "1"], "a population of 1 cannot evolve"),
        (["search", "adamw", "--store", "{new}", "--limit", "size=3"], "there are limits of statements, slots and depth"),
        (["search", "adamw", "--store", "{new}", "--limit", "depth=deep"], "there are limits of statements, slots and depth"),
        (["search", "adamw", "--store", "{new}", "--template", "{new}"], "no template can be read there"),
        (["search", "adamw", "--store", "{new}", "--template", "{store}"], "no template can be read there"),
        (["search", "adamw", "--store", "{new}", "--template", "{empty}"], "is empty; write statements, and `?` where"),
        (["search", "sgd", "--store", "{new}", "--template", "{template}"], "is missing; change one of them; it is\nu = mul(g, 1.0)"),
        (["search", "muonwithadamw", "--store", "{new}"], "is a route"),
        (["search", "resume", "{new}"], "there is no store"),
        (["search", "export", "{store}", "Found99999"], "has no rule"),
        (["search", "report", "{store}", "-o", "{new}/report.html"], "What was finished is in the store"),
        (["search", "pick"], "wants a store"),
    ],
)
def test_what_cannot_be_done_is_told(words: list[str], told: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, template, empty = whole.read_bytes(), tmp_path / "template.txt", tmp_path / "empty.txt"
    template.write_text("? 1\nu = transpose(u)")
    empty.touch()
    assert main([word.format(store=whole, new=tmp_path / "new.db", template=template, empty=empty) for word in words]) in (1, 2)
    assert told in capsys.readouterr().err
    assert whole.read_bytes() == before and not (tmp_path / "new.db").exists()


def test_a_budget_of_zero() -> None:
    with pytest.raises(SettingsError, match="the budget is zero"):
        Settings(Space(), Budget()).check()


def test_settings_go_to_json_and_back() -> None:
    settings = Settings(Space(), Budget(minutes=3.0), plans=(Plan("random", 2, 4.0),), seed=9)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    assert settings.with_task("digits-mlp", "final").funnel[2].tasks[-1] == "digits-mlp"
    with pytest.raises(SettingsError, match="can be added to validation, final, hold-out, not to `seerch`"):
        settings.with_task("digits-mlp", "seerch")
