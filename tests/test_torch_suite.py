"""A few rules in torch's own tests of optimizers; all of them: `make torch-suite`. 30 seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from marks import changed, mark_of
from torch_suite import run

from optlang import library

SOME = ["adamw", "sgd", "sam", "muon"]  # sparse gradients are for SGD, SAM asks the model again, Muon is in a route
FEWEST = 30  # tests that even a rule with closures runs
FEWEST_ON_RECORD = 20  # of a rule that shakes frozen matrices, as a module


@pytest.mark.parametrize(("rules", "modules"), [(SOME, False), (["adamw"], True)], ids=["rules", "modules"])
def test_torchs_own_tests_pass(rules: list[str], modules: bool) -> None:
    if sys.platform != "linux":
        pytest.skip("torch's tests come in a package of Debian's")
    try:
        found, said = run.run(rules, modules)
    except run.Unreachable as problem:
        pytest.skip(str(problem))
    assert not run.failures(found), said
    assert {name.lower() for name in found["outcomes"]} == set(rules)
    assert all(list(outcomes.values()).count("passed") >= FEWEST for outcomes in found["outcomes"].values())


@pytest.mark.parametrize("file", [run.RESULTS, run.OF_MODULES], ids=["rules", "modules"])
def test_the_counts_in_docs_are_of_rules_as_they_are_add_up_and_name_no_failure(file: Path) -> None:
    counts = json.loads(file.read_text())
    rows = counts["by rule"].values()
    asked = [row["rule"] for row in rows]
    assert not changed(asked, {row["rule"]: row["mark"] for row in rows}), "make torch-suite asks them"
    assert sorted([*asked, *counts["not run"]]) == sorted(library.names()) and counts["rules"] == len(asked)
    assert all(row["passed"] >= FEWEST_ON_RECORD and not row["failed"] for row in rows)
    for key in ("passed", "failed"):
        assert counts[key] == sum(row[key] for row in rows)
    assert counts["skipped"] == sum(counts["why skipped"].values()) == sum(n for row in rows for n in row["skipped"].values())


def test_what_counts_lack_or_have_of_another_rule_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads(run.RESULTS.read_text())
    rows = kept["by rule"]
    before = {name: rows[name] for name in ("Adam", "SGD")}
    del rows["Lion"]
    rows["SGD"] = {**rows["SGD"], "mark": "of another rule", "passed": 1, "skipped": {"that": 5}}
    (tmp_path / "counts.json").write_text(json.dumps(kept))
    monkeypatch.setattr(run, "RESULTS", tmp_path / "counts.json")
    asked: list[list[str]] = []
    outcomes = {"Lion": {"a": "passed", "b": "Only runs on cuda"}, "SGD": {"a": "passed", "c": "passed"}}
    monkeypatch.setattr(run, "run", lambda rules, modules: ({"outcomes": outcomes, "beside AdamW": []}, asked.append(list(rules)) or ""))
    monkeypatch.setattr(run, "CACHE", tmp_path)
    (tmp_path / run.SUITE).mkdir()
    (tmp_path / run.SUITE / "archive.txt").write_text("archive")
    assert run.ask(False) == []
    added = json.loads((tmp_path / "counts.json").read_text())
    assert sorted(asked[0]) == ["lion", "sgd"]
    found = {name: (row["mark"], row["passed"], row["skipped"]) for name, row in added["by rule"].items() if name in ("Lion", "SGD")}
    assert found == {"Lion": (mark_of("lion"), 1, {"Only runs on cuda": 1}), "SGD": (mark_of("sgd"), 2, {})}
    assert added["by rule"]["Adam"] == before["Adam"] and "that" not in added["why skipped"]
    assert added["passed"] == sum(row["passed"] for row in added["by rule"].values())
