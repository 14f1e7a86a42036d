"""What `make giants` measured: every text with every command that it may be given to, within the aim, as docs/trust.md says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from giant_texts import GROUPS

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "bench"))
import giants  # noqa: E402 - a program beside the tests

RECORD: dict[str, Any] = json.loads((ROOT / "docs" / "giants.json").read_text(encoding="utf-8"))
TEXTS = [f"{group}: {name}" for group, texts in GROUPS.items() for name in texts]


def test_every_text_is_there_and_no_other() -> None:
    assert sorted(RECORD["texts"]) == sorted(TEXTS)


@pytest.mark.parametrize("text", TEXTS)
def test_every_command_kept_within_the_aim(text: str) -> None:
    """What is wrong goes to some commands only; nothing ended in a traceback or was ended from without."""
    row = {task: giants.Cost(*cost) for task, cost in RECORD["texts"][text].items()}
    asked = giants.TASKS if row["check"].outcome == "result" else ("check", *giants.OF_FINDINGS)
    assert row.keys() == set(asked)
    assert [task for task, cost in row.items() if not cost.is_within] == []


def test_the_head_is_that_of_its_rows(tmp_path: Path) -> None:
    giants.save(tmp_path / "again.json", RECORD["texts"])
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    same = ("aim", "unit", "runs", "slowest", "largest", "beyond the aim")
    assert {key: again[key] for key in same} == {key: RECORD[key] for key in same}
    assert RECORD["aim"] == {"seconds": 2.0, "megabytes": 1000.0} and RECORD["beyond the aim"] == 0


def test_the_page_says_what_was_measured() -> None:
    page = " ".join((ROOT / "docs" / "trust.md").read_text(encoding="utf-8").split())
    form = (r"`make giants` \(\[by text and command\]\(giants\.json\), ([\d-]+)\): (\d+) texts,.*?"
            r" ([\d,]+) runs, which take ([\d.]+) s at most, and (\d+) MB")  # fmt: skip
    [(day, texts, runs, seconds, megabytes)] = re.findall(form, page)
    assert (day, int(texts), int(runs.replace(",", ""))) == (RECORD["date"], len(TEXTS), RECORD["runs"])
    assert (float(seconds), float(megabytes)) == (round(RECORD["slowest"][0], 1), RECORD["largest"][0])


def test_what_is_wrong_goes_to_some_commands_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several rules the last one is asked for."""
    seen: list[tuple[str, str]] = []

    def measured(task: str, text: str, rule: str) -> giants.Cost:
        seen.append((task, rule))
        return giants.Cost("findings" if "wrong" in text else "result", 0.1, 10)

    monkeypatch.setattr(giants, "measured", measured)
    for text, tasks in (("rule A { w' = w - wrong }", ("check", *giants.OF_FINDINGS)), ("rule A { }\nrule B { }", giants.TASKS)):
        seen.clear()
        assert [task for task, _ in giants.costs(text, giants.TASKS)] == list(tasks)
        assert seen == [(task, "B" if "rule B" in text else "") for task in tasks]


@pytest.mark.parametrize(("cost", "within"), [
    (("result", 2.0, 1000.0), True), (("findings", 0.1, 10.0), True), (("unusable", 0.1, 10.0), True), (("result", 2.01, 10.0), False),
    (("result", 0.1, 1000.1), False), (("ended with -9", 0.1, 10.0), False), (("RecursionError", 0.1, 10.0), False),
])  # fmt: skip
def test_what_is_within_the_aim(cost: tuple[str, float, float], within: bool) -> None:
    assert giants.Cost(*cost).is_within == within
