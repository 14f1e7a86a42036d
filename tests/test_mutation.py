"""How mutants are made, and what the record of the last ones says. Under a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mutation.record import record
from mutation.sample import PARTS, sample
from mutation.sites import mutants

ROOT = Path(__file__).resolve().parent.parent
RECORD: dict[str, Any] = json.loads((ROOT / "docs" / "mutants.json").read_text(encoding="utf-8"))

TEXT = '''"""A module."""
def size(a: int = 1, *, b: "bool") -> int:
    """How large."""
    if not a or a < 7:
        log(a, b)
        raise ValueError(f"{a + 1} is too small")
    return a - "β".count(b)
'''
EXPECTED = {
    ("constant", "1", "(2)"), ("constant", "1", "(0)"), ("condition", "not a or a < 7", "(True)"),
    ("condition", "not a or a < 7", "(False)"), ("and/or", "not a or a < 7", "(not a and a < 7)"), ("not", "not a", "(a)"),
    ("comparison", "a < 7", "(a <= 7)"), ("constant", "7", "(8)"), ("constant", "7", "(6)"),
    ("statement", "log(a, b)", "pass"), ("arguments", "log(a, b)", "(log(b, a))"),
    ("statement", 'raise ValueError(f"{a + 1} is too small")', "pass"), ("return", 'return a - "β".count(b)', "return"),
    ("arithmetic", 'a - "β".count(b)', "(a + 'β'.count(b))"),
}  # fmt: skip


def test_every_change_is_of_one_place(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(TEXT, encoding="utf-8")
    found = mutants(tmp_path, "a.py")
    assert {(m.operator, m.old, m.new) for m in found} == EXPECTED and len(found) == len(EXPECTED)
    for mutant in found:
        assert TEXT.encode()[mutant.start : mutant.end].decode() == mutant.old
        compile(mutant.applied(TEXT.encode()), "a.py", "exec")


def test_the_sample_has_as_many_of_each_part_as_it_should() -> None:
    assert len(sample(ROOT)) == len(set(sample(ROOT))) == sum(count for count, _ in PARTS.values()) >= 500


def test_results_are_counted() -> None:
    line = {"index": 0, "file": "optlang/plan.py", "line": 3, "operator": "not", "old": "not a", "new": "(a)", "by": ""}
    made = record([line, {**line, "index": 1, "by": "a test"}], {"survivors": [{**line, "why": "the same"}]}, 1, "abc")
    assert made["all"] == {"tried": 2, "killed": 1} == made["operators"]["not"]
    assert [one["why"] for one in made["survivors"]] == ["the same"]


def test_the_record_adds_up() -> None:
    parts = RECORD["parts"].values()
    assert RECORD["all"] == {key: sum(part[key] for part in parts) for key in ("tried", "killed")}
    assert len(RECORD["survivors"]) == RECORD["all"]["tried"] - RECORD["all"]["killed"]
    assert all(one["why"] for one in RECORD["survivors"])
