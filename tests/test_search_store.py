"""What goes into a store comes out of it, whole rounds at a time, whatever happens to the process that writes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import search_stores as made
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang.search.evolution.rounds import Known, Round
from optlang.search.store.database import Store, StoreError
from optlang.search.store.found import hall_of_fame
from optlang.search.training.assess import Assessment
from optlang.search.training.levels import Level

KILLS = 12


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "run.db", made.SETTINGS) as found:
        yield found


# ------------------------------------------------------------------------------------------------------- round trips

numbers = st.floats(allow_nan=False)
leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | numbers | st.text()
plain = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3))
assessments = st.builds(
    Assessment, numbers, numbers, numbers, st.integers(0, 2**40), numbers, st.text(), st.dictionaries(st.text(), plain, max_size=3)
)


@settings(max_examples=60)
@given(st.lists(assessments, max_size=6), st.text(), st.lists(st.integers(0, 2**40), max_size=4).map(tuple))
def test_results_come_back_exactly(found: list[Assessment], branch: str, seeds: tuple[int, ...]) -> None:
    births = tuple(replace(made.birth(n), assessment=one) for n, one in enumerate(found, 1))
    with TemporaryDirectory() as folder, Store.create(Path(folder) / "run.db", {}) as store:
        store.save_round(Round(branch, births, 9, 9, Known(1, 0.5), True), {"state": [1.5]}, made.LEVEL, seeds, ())
        store.close()
        with Store.read(Path(folder) / "run.db") as again:
            assert again.assessments(branch, made.LEVEL, seeds) == dict(enumerate(found, 1))
            assert again.known(branch, "search") == {b.fingerprint: Known(b.number, b.assessment.fitness) for b in births}
            assert again.state(branch) == {"state": [1.5]}


@settings(max_examples=40)
@given(st.dictionaries(st.text(), plain, max_size=4), st.text(), plain)
def test_settings_and_events_come_back_exactly(kept: dict[str, Any], kind: str, data: Any) -> None:
    with TemporaryDirectory() as folder, Store.create(Path(folder) / "run.db", kept) as store:
        store.note(kind, data)
        assert store.meta("settings") == kept
        assert store.events(kind) == [data]


def test_what_it_was_made_with_is_kept(store: Store) -> None:
    assert {"optlang", "torch", "numpy", "python"} <= store.meta("versions").keys()
    with pytest.raises(KeyError):
        store.meta("no such thing")


# ------------------------------------------------------------------------------------------------- cache and lineage


def test_a_result_is_never_replaced(store: Store) -> None:
    made.advance(store, 1)
    other = replace(made.assessment(1), fitness=99.0)
    store.save_assessments(made.BRANCH, made.LEVEL, made.SEEDS, {1: other})
    assert store.assessments(made.BRANCH, made.LEVEL, made.SEEDS)[1] == made.assessment(1)


def test_a_program_is_never_replaced(store: Store) -> None:
    made.advance(store, 1)
    before = made.contents(store)
    again = replace(made.round_(0), births=(made.birth(99), made.birth(1, "other")))
    with pytest.raises(StoreError, match="UNIQUE"):
        store.save_round(again, {"done": 7}, made.LEVEL, made.SEEDS, ())
    assert made.contents(store) == before, "not a part of it is there"


def test_a_result_that_is_no_number_is_not_lost_in_silence(store: Store) -> None:
    broken = replace(made.birth(1), assessment=replace(made.assessment(1), fitness=float("nan")))
    with pytest.raises(StoreError, match="fitness"):
        store.save_round(replace(made.round_(0), births=(broken,)), {}, made.LEVEL, made.SEEDS, ())


def test_other_seeds_tasks_and_levels_stand_beside(store: Store) -> None:
    made.advance(store, 1)
    more = replace(made.LEVEL, tasks=("digits-mlp", "added later"))
    for place, (level, seeds) in enumerate([(made.LEVEL, (7, 8)), (more, made.SEEDS), (Level("final", ("long",)), made.SEEDS)]):
        store.save_assessments(made.BRANCH, level, seeds, {1: replace(made.assessment(1), steps=place)})
        assert store.assessments(made.BRANCH, level, seeds)[1].steps == place
    assert store.assessments(made.BRANCH, made.LEVEL, made.SEEDS)[1] == made.assessment(1)


def test_two_branches_number_their_programs_alike(store: Store) -> None:
    made.advance(store, 1)
    store.save_round(made.round_(0, "random"), {"done": 1}, made.LEVEL, made.SEEDS, ())
    assert store.branches() == ["evolution", "random"]
    assert store.known("random", "search") == store.known("evolution", "search")


def test_lineage_goes_back_to_the_seed(store: Store) -> None:
    made.advance(store, 3)
    line = store.lineage(made.BRANCH, 3 * made.SIZE)
    assert line[0][0] == 1
    assert line[-1][0] == 3 * made.SIZE
    parents = [made.birth(number).parent for number, _, _ in line]
    assert parents == [None, *(number for number, _, _ in line[:-1])]
    assert [text for *_, text in line] == [store.text(made.BRANCH, number) for number, *_ in line]


def test_the_best_are_the_fittest(store: Store) -> None:
    made.advance(store, 4)
    failed = replace(made.birth(1000), assessment=Assessment(9.0, status="failed: no"))
    store.save_round(replace(made.round_(4), births=(failed,)), {}, made.LEVEL, made.SEEDS, ())
    fittest = sorted(range(1, 1 + 4 * made.SIZE), key=lambda n: -made.assessment(n).fitness)
    assert [one.number for one in hall_of_fame(store, "search", 5, made.BRANCH)] == fittest[:5]


def test_what_trained_alike_is_one_rule(store: Store) -> None:
    made.advance(store, 1)
    best = max(range(1, 1 + made.SIZE), key=lambda n: made.assessment(n).fitness)
    again = replace(made.birth(1000), assessment=made.assessment(best))
    store.save_round(replace(made.round_(1), births=(again,)), {}, made.LEVEL, made.SEEDS, ())
    kept = [one.number for one in hall_of_fame(store, "search", 100, made.BRANCH)]
    assert len(kept) == made.SIZE and len({best, 1000} & {*kept}) == 1


def test_tasks_may_be_added_but_not_changed(store: Store) -> None:
    store.check_tasks({"digits": "abc"})
    store.check_tasks({"digits": "abc", "mine": "123"})
    store.check_tasks({"mine": "123"})
    with pytest.raises(StoreError, match=r"run\.db has results of another task `mine`.*a name of its own"):
        store.check_tasks({"digits": "abc", "mine": "124"})
    assert store.meta("tasks") == {"digits": "abc", "mine": "123"}


def test_a_reader_sees_whole_rounds_while_a_search_writes(store: Store) -> None:
    made.advance(store, 1)
    with Store.read(store.path) as reader:
        with store.transaction() as do:
            do.execute("DELETE FROM genomes")
            assert len(reader.known(made.BRANCH, "search")) == made.SIZE
            do.execute("ROLLBACK")
            do.execute("BEGIN")
        made.advance(store, 2)
        assert len(reader.known(made.BRANCH, "search")) == 2 * made.SIZE


# ---------------------------------------------------------------------------------------------------------- kill -9


def killed_writer(path: Path, rounds: int, things: int, more: float) -> list[str]:
    """What a writer said that it had finished before it was killed: so many things, and what comes in so many seconds."""
    command = [sys.executable, made.__file__, str(path), str(rounds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == "open"
        lines = [process.stdout.readline() for _ in range(things)]
        time.sleep(more)
        process.send_signal(signal.SIGKILL)
        return [json.loads(line) for line in [*lines, *process.stdout.read().splitlines()] if line.rstrip().endswith('"')]


def test_killed_at_any_moment_nothing_finished_is_lost(tmp_path: Path) -> None:
    path, source = tmp_path / "run.db", random.Random(0)
    Store.create(path, made.SETTINGS).close()
    for _ in range(KILLS):
        said = killed_writer(path, 1_000_000, source.randrange(40), source.uniform(0.0, 0.002))
        with Store.read(path) as store:
            done = (store.state(made.BRANCH) or {"done": 0})["done"]
            assert all(int(text.split()[1]) < done for text in said if text.startswith("round"))
            assert len(store.known(made.BRANCH, "search")) == done * made.SIZE, "nothing half"
            for text in said:
                if text.startswith("job") and int(text.split()[1].split("-")[0]) >= done:
                    assert store.job(text.split()[1]) is not None
    assert done > 0
    assert_ends_as_one_never_killed(path, tmp_path / "whole.db", done + 2)


def assert_ends_as_one_never_killed(path: Path, whole: Path, rounds: int) -> None:
    with Store.open_(path) as store, Store.create(whole, made.SETTINGS) as other:
        made.advance(store, rounds)
        made.advance(other, rounds)
        assert made.contents(store) == made.contents(other)
        assert len(store.events("opened")) == KILLS + 1


def test_killed_while_it_is_made(tmp_path: Path) -> None:
    """The file appears whole or not at all."""
    code = "import sys; from optlang.search.store.database import Store; print(flush=True)\n"
    code += "Store.create(sys.argv[1], {'a': 'b' * 3_000_000})"
    path = tmp_path / "run.db"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while not Path(f"{path}.new").exists() and process.poll() is None:
            time.sleep(0.0005)
        process.kill()
    if not path.exists():
        Store.create(path, {"a": 1}).close()
    with Store.open_(path) as store:
        assert store.meta("settings").keys() == {"a"}
