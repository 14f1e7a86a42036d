"""A few rules in torch's own tests of optimizers; all of them: `make torch-suite`. 30 seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from torch_suite import run

SOME = ["adamw", "sgd", "lion", "sam", "muon"]  # sparse gradients are for SGD, SAM asks the model again, Muon is in a route
FEWEST = 30  # tests that even a rule with closures runs


@pytest.mark.timeout(900)
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
def test_the_counts_in_docs_add_up_and_name_no_failure(file: Path) -> None:
    """Those of the last `make torch-suite`, or of as much of one as there is."""
    counts = json.loads(file.read_text())
    rules = counts["by rule"].values()
    assert counts["failed"] == 0 and counts["rules"] == len(rules)
    assert all(counts[key] == sum(rule[key] for rule in rules) for key in ("passed", "failed", "skipped"))


def test_what_counts_lack_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = json.loads(run.RESULTS.read_text())
    gone = kept["by rule"].pop("Lion")
    for key in ("passed", "failed", "skipped"):
        kept[key] -= gone[key]
    kept["rules"] -= 1
    (tmp_path / "counts.json").write_text(json.dumps(kept))
    monkeypatch.setattr(run, "RESULTS", tmp_path / "counts.json")
    asked: list[list[str]] = []
    found = {"outcomes": {"Lion": {"a": "passed", "b": "Only runs on cuda"}}, "beside AdamW": []}
    monkeypatch.setattr(run, "run", lambda rules, modules: (found, asked.append(list(rules)) or ""))
    monkeypatch.setattr(run, "CACHE", tmp_path)
    (tmp_path / run.SUITE).mkdir()
    (tmp_path / run.SUITE / "archive.txt").write_text("archive")
    run.add_missing(False)
    added = json.loads((tmp_path / "counts.json").read_text())
    assert len(asked) == 1 and "lion" in asked[0] and added["by rule"]["Lion"] == {"passed": 1, "failed": 0, "skipped": 1}
    assert added["passed"] == kept["passed"] + 1 and added["rules"] == kept["rules"] + 1 == len(added["by rule"])
    assert added["why skipped"]["Only runs on cuda"] == kept["why skipped"]["Only runs on cuda"] + 1
