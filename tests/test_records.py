"""Records in docs that tell of kernels: whether they are of the kernels as they are now. (20 s)"""

from __future__ import annotations

import json
from typing import Any

import accuracy
import pytest
import records
from marks import code_of
from records import CODE, DOCS, is_fresh, marked, recorded, stale

from optlang import library

SAMPLE = library.names()[::4]
MOST = 4  # one in so many may be of kernels that have changed since, until they are asked again


def rows(record: str) -> dict[str, Any]:
    found = recorded(DOCS / f"{record}.json")
    return found.get("rules", found)


@pytest.mark.parametrize("record", CODE)
def test_most_rows_are_of_the_kernels_as_they_are(record: str) -> None:
    pytest.importorskip("triton")
    told = {rule: row for rule, row in rows(record).items() if rule in SAMPLE and "code" in row}
    gone = stale(told, CODE[record], told) if told else []
    make = {"triton": "machine-code", "inductor-numbers": "inductor"}.get(record, record)
    assert MOST * len(gone) <= len(told), f"{len(gone)} of {len(told)} rows, as {gone[:5]}, are of other code: make {make} asks them anew"


def test_a_row_of_other_code_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    entry = json.loads(json.dumps(marked("lion", ["torch", "module"])))
    assert is_fresh(entry, "lion", ["torch", "module"]) and not stale({"lion": entry}, ["torch", "module"], ["lion"])
    assert is_fresh(entry, "lion") and not is_fresh(entry, "lion", ["torch", "cpp"]) and not is_fresh(entry, "adamw", ["torch", "module"])
    assert stale({"lion": entry}, ["torch", "module"], ["lion", "adamw"]) == ["adamw"]
    monkeypatch.setattr(records, "code_of", lambda rule, backend: "00000000" if backend == "module" else code_of(rule, backend))
    assert stale({"lion": entry}, ["torch", "module"], ["lion", "adamw"]) == ["adamw", "lion"]


def test_accuracy_is_of_every_rule_as_it_is() -> None:
    """Those that only routes use included; marks of one in eight."""
    told = {row["rule"]: row for row in recorded(DOCS / "accuracy.json")["rules"]}
    measured = list(accuracy.rules())
    assert sorted(told) == sorted(one.name for one in measured) and not [row for row in told.values() if "not measured" in row]
    gone = [one.name for one in measured[::8] if told[one.name]["mark"] != accuracy.mark(one)]
    assert not gone, f"{gone} are other rules: make accuracy asks them anew"


def test_code_is_told_again_as_it_was() -> None:
    """Whatever has been loaded before; by other equations there is other code."""
    pytest.importorskip("triton")
    for backend in ("cpp", "torch", "triton", "module"):
        found = code_of("lion", backend)
        code_of.cache_clear()
        assert code_of("lion", backend) == found != code_of("signum", backend)
