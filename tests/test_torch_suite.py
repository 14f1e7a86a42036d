"""A few rules in torch's own tests of optimizers; all of them: `make torch-suite`. 25 seconds."""

from __future__ import annotations

import json
import sys

import pytest
from torch_suite import run

SOME = ["adamw", "sgd", "lion", "sam"]  # sparse gradients are for SGD, and SAM asks the model again
FEWEST = 30  # tests that even a rule with closures runs


@pytest.mark.timeout(900)
def test_torchs_own_tests_pass() -> None:
    if sys.platform != "linux":
        pytest.skip("torch's tests come in a package of Debian's")
    try:
        found, said = run.run(SOME)
    except run.Unreachable as problem:
        pytest.skip(str(problem))
    assert not run.failures(found), said
    assert set(found["outcomes"]) == {"AdamW", "SGD", "Lion", "SAM"}
    assert all(list(outcomes.values()).count("passed") >= FEWEST for outcomes in found["outcomes"].values())


def test_the_counts_in_docs_add_up_and_name_no_failure() -> None:
    """Those of the last `make torch-suite`, or of as much of one as there is."""
    counts = json.loads(run.RESULTS.read_text())
    rules = counts["by rule"].values()
    assert counts["failed"] == 0 and counts["rules"] == len(rules)
    assert all(counts[key] == sum(rule[key] for rule in rules) for key in ("passed", "failed", "skipped"))
