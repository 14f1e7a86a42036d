"""Rules from outside: proposed to a search under way as files, trained like its own children, and answered."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import giant_texts
import pytest
from test_search_hunt import LONGER, SHORT, evaluated, started

import optlang
from optlang.cli import main
from optlang.rules import Rule
from optlang.search.api import Search, resume, space_of
from optlang.search.evolution.population import Ageing, Evolution, Proposal
from optlang.search.programs.genome import Form, GenomeError, to_text
from optlang.search.programs.seeds import from_rule
from optlang.search.proposals import KIND, Answer, answer, folder, propose, put, read
from optlang.search.store.database import Store, StoreError
from optlang.search.store.found import find

HEAVY = """rule Heavy "by hand" {
  hyper lr   = 0.1 in (0, inf)
  hyper beta = 0.9 in [0, 1)
  state m = 0
  m' = beta*m + (1 - beta)*g
  w' = w - lr*m'
}
"""


def answers(run: Search) -> dict[str, Answer]:
    return {path.stem.split("-")[0]: answer(run.store.path, path.stem) for path in folder(run.store.path).glob("*.json")}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search to which much was proposed before its first round."""
    path = tmp_path_factory.mktemp("asked") / "run.db"
    with started(path, children=800) as run:
        put(path, HEAVY, "heavy")
        put(path, HEAVY.replace("0.9 ", "0.7 "), "lighter")
        put(path, "rule S { hyper lr = 1 in (0, inf) w' = w - lr*(g + g) }", "same")
        put(path, HEAVY.replace("beta*m", "bet*m"), "typo")
        put(path, "rule Up { hyper lr = 1 in (0, inf) w' = w + lr*g }", "up")
        put(path, "from other import x\n" + HEAVY, "imports")
        put(path, "def" * 400_000, "large")
        put(path, "rule R { hyper lr = 1 in (0, inf) u = " + "tanh(g + 0.1*" * 40 + "g" + ")" * 40 + " w' = w - lr*u }", "long")
        (folder(path) / "link.opt").symlink_to(Path(optlang.__file__))
        (folder(path) / "folder.opt").mkdir()
        (folder(path) / "other.opt.part").write_text("half")
        list(run)
    return path


def test_they_are_trained_like_children(asked: Path) -> None:
    rows = {row[1]: row for row in evaluated(asked)}
    with resume(asked, workers=1) as run:
        found = answers(run)
        heavy, same = found["heavy"], found["same"]
        assert heavy.outcome == "trained" and heavy.status == "ok" and heavy.program is not None
        _, _, text, parent, change, fitness, _ = rows[heavy.program]
        assert "interp(g, m, 0.9)" in text and parent is None and change == "proposed as Heavy (by hand)" and fitness == heavy.fitness
        assert heavy.tasks["planted-momentum"]["value"] == fitness
        assert same.outcome == "known" and same.program == 1, "twice the seed's update is the seed with half the step size"


def test_they_join_the_population(tmp_path: Path) -> None:
    with started(tmp_path / "run.db", children=400, ageing=Ageing(population=1000)) as run:
        branch = run.hunt.strands["evolution"].branch
        assert isinstance(branch, Evolution)
        put(run.store.path, HEAVY, "heavy")
        for progress in run:
            if progress.round.answered:
                break
        [(_, number)] = progress.round.answered
        island = branch.islands[0]
        assert number in {member.number for member in island.members}
        island.restart(branch.seeds)
        guest, child = (Proposal(branch.seeds[0].genome, None, "", source=source) for source in ("asked", ""))
        assert branch.add(guest, 98, 0.0) and not branch.add(child, 99, 0.0), "it is no child of the population that was given up"


def test_what_is_not_taken_is_told_why(asked: Path) -> None:
    with resume(asked, workers=1) as run:
        found = answers(run)
    told = {
        "typo": "unknown name `bet`", "up": "has updates that climb", "imports": "no file `other.opt`", "large": "larger than 1 MB",
        "long": "at most 30 are allowed", "link": "no plain file",
    }  # fmt: skip
    for name, words in told.items():
        assert found[name].outcome == "rejected" and words in found[name].reason, found[name]
        assert "rejected" in str(found[name])
    assert {path.name for path in folder(asked).iterdir() if path.suffix != ".json"} == {"folder.opt", "other.opt.part"}


def test_an_answer_says_what_was_read_and_what_is_best(asked: Path) -> None:
    with resume(asked, workers=1) as run:
        found, form = answers(run), run.form
    heavy, same, typo = found["heavy"], found["same"], found["typo"]
    assert "m' = beta*m + (1 - beta)*g" in heavy.rule and heavy.best["rule"].startswith(f"rule Found{heavy.best['program']} ")
    with Store.read(asked) as store:
        assert same.rule == find(store, "Found1", "search").rule(form), "the seed, which it is"
        assert heavy.best["fitness"] >= max(heavy.fitness or 0, find(store, "Found1", "search").fitness)
    assert typo.best and not typo.rule
    assert from_rule(Rule(heavy.rule), form) != from_rule(Rule(same.rule), form)


def test_a_search_of_proposals_alone(asked: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="baselines make children of their own"):
        optlang.search("sgd", store=tmp_path / "no.db", only_proposals=True, baselines=True)
    path = tmp_path / "run.db"
    with optlang.search("sgd-bare", store=path, only_proposals=True, funnel=(SHORT,), workers=1, seed=5) as run:
        assert "what is proposed, by `optlang search propose" in run.describe()
        threading.Timer(0.5, run.stop).start()
        assert list(run) == [], "it waits, without a budget, until it is stopped"
    with resume(path, workers=1) as run:
        for text, name in ((HEAVY.replace("beta*m", "bet*m"), "typo"), (HEAVY, "heavy")):
            put(path, text, name)
        told = []
        for progress in run:
            told.append(str(progress))
            if sum("is program" in text for text in told):
                run.stop()
        found = answers(run)
    assert {name: one.outcome for name, one in found.items()} == {"heavy": "trained", "typo": "rejected"}
    assert len(evaluated(path)) == 2 and f"{found['heavy'].name} is program {found['heavy'].program}" in told[0]
    with resume(asked, workers=1) as run:
        assert answers(run)["heavy"].fitness == found["heavy"].fitness, "as in a search that has children, too"
    with resume(path, workers=1) as run:
        put(path, HEAVY, "again")
        next(iter(run))
        assert answers(run)["again"].program == found["heavy"].program


def test_a_search_of_proposals_alone_ends_with_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with optlang.search("sgd-bare", store=path, only_proposals=True, funnel=(SHORT, LONGER), workers=1, children=2) as run:
        for number in range(3):
            put(path, HEAVY.replace("0.9 ", f"0.{number + 4} "), f"p{number}")
        list(run)
        assert len(answers(run)) == 2 and len(list(folder(path).glob("*.opt"))) == 1, "the third waits for another sitting"
        assert [level.name for level, _ in run.promote()] == ["validation"]


def test_from_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with optlang.search("sgd-bare", store=path, only_proposals=True, funnel=(SHORT,), workers=1) as run:
        (tmp_path / "heavy.opt").write_text(HEAVY)
        command = [sys.executable, "-m", "optlang", "search", "propose", str(path), "-", "--json", "--quiet"]
        with (tmp_path / "heavy.opt").open() as pipe:
            asking = subprocess.Popen(command, stdin=pipe, stdout=subprocess.PIPE, text=True)
        end = threading.Timer(120, run.stop)
        end.start()
        for _ in run:
            run.stop()
        end.cancel()
    out, _ = asking.communicate(timeout=60)
    assert json.loads(out)["outcome"] == "trained" and asking.returncode == 0


def test_what_is_no_text_in_a_pipe_is_told(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for data, told in ((b"rule \xff", "not UTF-8 text: byte 5 is 0xff"), (b"#" * 1_000_001, "larger than 1 MB")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(["search", "propose", str(asked), "-"]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, -1])
def test_nobody_cannot_work(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "sgd", "--workers", str(count), "--store", str(tmp_path / "run.db")]) == 2
    assert capsys.readouterr().err == f"optlang search: --workers is {count}; it takes 1 or more\n" and not list(tmp_path.iterdir())


def test_where_they_came_from_is_kept(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.read(asked) as store:
        events = {one["name"].split("-")[0]: one for one in store.events(KIND)}
    assert events["heavy"]["text"] == HEAVY and events["heavy"]["outcome"] == "trained"
    assert events["typo"]["text"] != HEAVY and events["typo"]["program"] is None
    assert "text" not in events["link"], "what it leads to is nobody's business"
    name = f"Found{events['heavy']['program']}"
    assert main(["search", "export", str(asked), name]) == 0
    origin = f'rule {name} "found by optlang search, branch evolution, program {name[5:]}, from one proposed as Heavy (by hand)" {{'
    assert capsys.readouterr().out.startswith(origin)


def test_cut_off_it_goes_on_and_answers(asked: Path, tmp_path: Path) -> None:
    """After each round the process ends, with what was proposed before the first of them still to be answered."""
    path = tmp_path / "run.db"
    with started(path, children=800):
        put(path, HEAVY, "heavy")
        put(path, HEAVY.replace("0.9 ", "0.7 "), "lighter")
    while not list(folder(path).glob("*.json")):
        with resume(path, workers=1) as run:
            next(iter(run))
    with resume(path, workers=1) as run:
        list(run)
        assert {name: one.outcome for name, one in answers(run).items()} == {"heavy": "trained", "lighter": "trained"}
        assert len(run.store.events(KIND)) == 2, "each was answered once"


def test_who_is_killed_before_the_answer_answers_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optlang.search.proposals import Inbox

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.db"
    with started(path, children=800) as run:
        put(path, HEAVY, "heavy")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Inbox, "_tell", killed)
            list(run)
    with resume(path, workers=1) as run:
        list(run)
        found = answers(run)["heavy"]
    assert found.outcome == "known" and (found.program, found.fitness) == next(row[1::4] for row in evaluated(path) if "Heavy" in row[4])


def test_from_another_process_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    (tmp_path / "heavy.opt").write_text(HEAVY)
    with started(path, children=10**6) as run:
        command = [sys.executable, "-m", "optlang", "search", "propose", str(path), str(tmp_path / "heavy.opt"), "signsgd", "--json"]
        asking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = threading.Timer(120, run.stop)
        end.start()
        for _ in run:
            if asking.poll() is not None:
                run.stop()
        end.cancel()
    out, said = asking.communicate(timeout=60)
    told = [json.loads(line) for line in out.splitlines()]
    assert said == f"proposed {told[0]['name']}.opt, {told[1]['name']}.opt; the answers come when they are trained\n"
    assert asking.returncode == 0 and told[0]["outcome"] == "trained"
    assert told[0]["name"].startswith("heavy-") and told[1]["name"].startswith("signsgd-")
    numbers = {row[1]: row[5] for row in evaluated(path)}
    assert [one["fitness"] for one in told] == [numbers[one["program"]] for one in told]


def test_without_a_search_there_is_no_answer(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.read(asked) as store:
        copied = tmp_path / "copy.db"
        store._connection.execute("VACUUM INTO ?", (str(copied),))
    with pytest.raises(StoreError, match=r"no search is under way on .*copy.db; \S+.opt waits until `optlang search resume"):
        propose(copied, HEAVY)
    with pytest.raises(StoreError, match="has no answer after 0.001 minutes"):
        optlang.search.propose(copied, HEAVY, minutes=0.001)
    assert len(list(folder(copied).glob("*.opt"))) == 2
    absent = str(tmp_path / "no.db")
    for words, told in ((["propose", str(copied)], "wants a store and a rule"), (["propose", absent, "lion"], "there is no store"),
                        (["propose", str(copied), "lyon"], "no rule `lyon`")):  # fmt: skip
        assert main(["search", *words]) in (1, 2)
        assert told in capsys.readouterr().err


def test_a_flood_leaves_room_for_children(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with started(path, children=300) as run:
        for number in range(9):
            put(path, HEAVY.replace("0.9 ", f"0.{number}1 "), "heavy")
        sizes = [len(one.round.answered) for one in run]
    assert max(sizes) == 3 and sum(sizes) == 9, "half of a round's six places"


def test_any_rule_of_the_library_is_taken_or_refused() -> None:
    """Whatever a stranger writes: a reason, no traceback. Some are taken: those whose states are few and per element."""
    space, taken = space_of("default", ["adamw"]), set()
    for path in sorted((Path(optlang.__file__).parent.parent / "library").rglob("*.opt")):
        try:
            read(path, space)
        except (GenomeError, optlang.OptError) as problem:
            assert str(problem)
        else:
            taken.add(path.stem)
    assert {"adam", "lion", "lamb", "radam", "sgdw"} <= taken and not {"muonwithadamw", "adan", "sophiah", "std"} & taken


def test_giants_are_told_soon(tmp_path: Path) -> None:
    """Every sixth of the texts that are as large as texts may be; each alone takes less than the two seconds that any command may."""
    space, path = space_of("default", ["adamw"]), tmp_path / "giant.opt"
    giants = [text for texts in giant_texts.GROUPS.values() for text in texts.values()][::6]
    assert len(giants) > 25
    for text in giants:
        path.write_text(text())
        started = time.process_time()
        with suppress(GenomeError, optlang.OptError):
            read(path, space)
        assert time.process_time() - started < 4, "twice as long as is allowed: other tests may take the processor's cache"


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("(1 - lr*0.1)*w - lr*sign(g)", "a = mul(0.1, w)\nb = sign(g)\nu = add(a, b)"),
        ("w*(1 - lr*0.1) - lr*sign(g)", "a = mul(0.1, w)\nb = sign(g)\nu = add(a, b)"),
        ("w - lr*0.1*w - lr*g", "a = mul(0.1, w)\nu = add(a, g)"),
        ("w + lr*(0 - g)", "a = sub(0.0, g)\nu = neg(a)"),
        ("-lr*g + w", "a = mul(-1.0, g)\nu = neg(a)"),
    ],
)
def test_new_weights_as_papers_write_them(weights: str, text: str) -> None:
    rule = Rule(f"rule A {{ hyper lr = 0.1 in (0, inf) w' = {weights} }}")
    assert to_text(from_rule(rule, Form())) == text


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("w" + " - lr*g" * 900, "nested far deeper than programs of a search may be"),
        ("lr*g - w", "its new weights are not w less, plus or times something"),
        ("g", "its new weights are not w less, plus or times something"),
        ("0.99*w - lr*g", "the step size is used other than as a factor"),
        ("w - lr*quantile(g, 0.5)", "there is no 'quantile' among the functions of a search"),
    ],
)
def test_what_no_program_of_a_search_can_be(weights: str, told: str) -> None:
    with pytest.raises(GenomeError, match=told):
        from_rule(Rule(f"rule A {{ hyper lr = 0.1 in (0, inf) w' = {weights} }}"), Form())


def test_slots_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit above what the seeds have gives programs room; a rule with more states is told so."""
    assert len(space_of("default", ["sgd"], 3).form.slots) == 3
    with pytest.raises(GenomeError, match=r"has 3 states, the search 2 slots; begin one with --limit slots=3"):
        from_rule(Rule("ademamix"), Form())
    with pytest.raises(GenomeError, match=r"has 6 states, the search 2 slots; there are 4 at most"):
        from_rule(Rule("came"), Form())
    assert main(["search", "sgd", "--limit", "slots=9", "--store", str(tmp_path / "run.db")]) == 2
    assert "programs of a search have 4 at most" in capsys.readouterr().err and not os.listdir(tmp_path)
