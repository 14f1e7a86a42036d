"""Runs that are cut and gone on with, bit by bit: every third rule in one of the precisions; `make resume` asks all. 20 seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import resumption
from marks import changed
from resumption import PRECISIONS, Precision, differences

from optlang import library

ONE = [(name, PRECISIONS[i % len(PRECISIONS)]) for i, name in enumerate(library.names()[::3])]


@pytest.mark.parametrize(("name", "precision"), ONE, ids=str)
def test_rules_go_on_bit_by_bit(name: str, precision: Precision) -> None:
    assert differences(name, precision) == []


@pytest.mark.parametrize(("name", "settings", "why"), [("perparametermlp", {}, "no weight moves"), ("sgd", {"lr": 1e30}, "run away")])
def test_a_run_that_tells_nothing_is_told(monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, float], why: str) -> None:
    monkeypatch.setattr(resumption, "settings_of", lambda name: settings)
    [said] = differences(name, PRECISIONS[0])
    assert why in said


def test_what_is_on_record_is_of_every_rule_as_it_is_in_every_precision() -> None:
    record = json.loads((Path(__file__).parents[1] / "docs/resume.json").read_text())
    assert record["precisions"] == list(map(str, PRECISIONS))
    assert not changed(library.names(), {name: found["mark"] for name, found in record["rules"].items()}), "make resume asks them"
    assert record["rules"].keys() == set(library.names())
    assert all(found == {"mark": found["mark"], "equal": len(PRECISIONS)} for found in record["rules"].values())
