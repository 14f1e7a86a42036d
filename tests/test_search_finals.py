"""The end of a search: found rules against known ones, tuned alike; once, and kept."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from test_search_hunt import SHORT, started

from optlang.cli import main
from optlang.rules import Rule
from optlang.search import api, finals
from optlang.search.evolution.settings import SettingsError
from optlang.search.final_pieces import Entrant, Goal, Times, centred, ending, work
from optlang.search.finals import decided, table
from optlang.search.shortening import by_algebra
from optlang.search.store.database import Store
from optlang.search.store.found import Found
from optlang.search.training.levels import Level
from optlang.search.training.loading import task
from optlang.search.training.profile import Budget, standings
from optlang.search.training.tuning import tune
from optlang.search.workers.executor import Serial

PLANTED = Level("hold-out", ("planted-momentum",), factor=0.2, seeds=2, enter=2, measure="loss")
LITTLE = Budget(target_trials=4, trials=2, studies=2)


def test_finals(tmp_path: Path) -> None:
    with started(tmp_path / "run.db", children=400, funnel=(SHORT, PLANTED), trials=4, finalists=2, rivals=("sgd", "signum")) as run:
        list(run)
        list(run.promote())
        made = decided(run.store, run.hunt.settings, ("planted-normalized",), LITTLE)
        again, report = run.finals(), run.report()
        with run.store.transaction() as do:
            do.execute("DELETE FROM events WHERE kind = 'finals'")
        pieces = decided(run.store, run.hunt.settings, ("planted-normalized",), LITTLE, Serial(refused))
    assert again == made, "the hold-out is opened once"
    assert pieces == made, "pieces that are done are not done again"
    rules = {one["rule"] for one in made["standings"]}
    assert {"sgd", "signum"} < rules and sum(name.startswith("Found") for name in rules) in (1, 2)
    assert {one["rule"] for one in made["endings"]} == rules
    assert all(0 <= one["low"] <= one["score"] <= one["high"] <= 1 for one in made["standings"])
    for one in made["shortened"]:
        assert one["rule"] in rules and one["seeds"] == 8 and one["low"] <= one["mean"] <= one["high"]
    shown = table(made)
    assert all(name in shown and f">{name}<" in report for name in rules) and "tuned with 4 trials each" in shown


def test_from_a_seed_to_the_finals_and_the_report_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "FUNNEL", (SHORT, PLANTED))
    monkeypatch.setattr(finals, "decided", partial(decided, workloads=("planted-normalized",), budget=LITTLE))
    store = tmp_path / "run.db"
    words = ["sgd-bare", "--store", str(store), "--children", "600", "--population", "20", "--baselines", "--workers", "1", "--quiet"]
    assert main(["search", *words, "--finals"]) == 0
    shown = capsys.readouterr().out
    best = {Rule(path).name: path for path in Path(f"{store}.best").glob("*.opt")}
    for name, path in best.items():
        assert path.with_suffix(".trace.md").read_text().startswith(f"# {name}\n")
    assert best and all(name in shown and str(path) in shown for name, path in best.items())
    with Store.read(store) as kept:
        rates, made = {name for event in kept.events("middles of the finals") for name, _ in event}, kept.events("finals")[-1]
    assert {name: path.read_text() for name, path in best.items()} == made["rules"], "what is handed out is what was compared"
    page = Path(f"{store}.html").read_text()
    assert set(best) < rates and all(f">{name}</td>" in page for name in (*best, "adamw", "signum"))
    assert "random reached" in page and "Against known rules" in page


def refused(piece: object) -> None:
    raise AssertionError(piece)


def test_the_hold_out_chooses_nobody(tmp_path: Path) -> None:
    with started(tmp_path / "run.db", children=400, funnel=(SHORT, replace(PLANTED, enter=1)), finalists=2) as run:
        list(run)
        before = finals.candidates(run.store, run.hunt.settings)
        list(run.promote())
        assert finals.candidates(run.store, run.hunt.settings) == before and len(before) > 2


def test_no_two_finalists_are_the_same_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best two in other words, with other values of their settings, then another rule."""
    texts = {"a": "m = interp(g, m, 0.9)\nu = sign(m)", "b": "m = interp(g, m, 0.8)\na = mul(m, 2.0)\nu = sign(a)", "c": "u = tanh(g)"}
    made = [Found("evolution", n, 1.0, 0.0, 2, 1, text, 0.1) for n, text in enumerate(texts.values(), 1)]
    monkeypatch.setattr(finals, "candidates", lambda *_: made)
    monkeypatch.setattr(finals, "by_training", lambda _store, one, settings, *_: by_algebra(one, settings))
    with started(tmp_path / "run.db", finalists=2, rivals=("sgd",)) as run:
        first, second = finals.finalists(run.store, run.hunt.settings)
    assert (first.name, first.twins, second.name, second.twins) == ("Found1", ("Found2",), "Found3", ())


def test_a_search_without_programs_has_no_finals(tmp_path: Path) -> None:
    with started(tmp_path / "run.db") as run, pytest.raises(SettingsError, match="has no program yet"):
        decided(run.store, run.hunt.settings, (), LITTLE)


def test_a_search_of_one_level_has_no_finals(tmp_path: Path) -> None:
    with started(tmp_path / "run.db", children=300) as run:
        list(run)
        with pytest.raises(SettingsError, match="no task that selection has not seen"):
            decided(run.store, run.hunt.settings, (), LITTLE)


def test_the_better_rule_wins_both() -> None:
    rivals = ("momentum", "sgd")
    ends = {name: ending(task("planted-momentum"), name, Rule(name).program, 24).loss for name in rivals}  # type: ignore[arg-type]
    assert ends["momentum"] < ends["sgd"] - 0.5, "a factor of three"
    entrants, budget = [Entrant("momentum", lr=0.3), Entrant("sgd", lr=1.0)], Budget(4, 6, 3)
    goal = work(Goal("planted-momentum", tuple(entrants), budget.target_trials))
    found = {one.name: work(Times("planted-momentum", one, goal, budget)) for one in entrants}
    times = {rule: {"planted-momentum": [float("inf") if t is None else t for t in each]} for rule, each in found.items()}
    first, second = standings(times)
    assert first.rule == "momentum" and first.score > second.score


def test_no_ending_is_lost_for_want_of_trials() -> None:
    """Trials around a step size that does not fit the task find nothing; the grid goes on beyond its edge."""
    one, program = task("planted-momentum"), centred(Rule("momentum").program, 1e-9)  # type: ignore[arg-type]
    end, alone = ending(one, "momentum", program, 1), tune(one, program, 24, (1, 2)).best
    assert end.loss < alone.loss - 1 and alone.settings["lr"] < 1e-7 and end.settings["lr"] > 1


def test_tuning_learns_and_repeats() -> None:
    one, program = task("planted-momentum").longer(0.3), Rule("momentum").program
    found = tune(one, program, 40, (1, 2), seed=3)  # type: ignore[arg-type]
    assert found == tune(one, program, 40, (1, 2), seed=3)  # type: ignore[arg-type]
    assert len(found.trials) == 40 and found.best.loss == min(t.loss for t in found.trials)
    early, late = found.trials[:16], found.trials[-16:]
    assert sorted(t.loss for t in late)[8] < sorted(t.loss for t in early)[8], "later trials are better"
    with pytest.raises(ValueError, match="give at least 1"):
        tune(one, program, 0, (1,))  # type: ignore[arg-type]
