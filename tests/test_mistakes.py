"""What people write by mistake gets the code and the advice that `grammar/mistakes.toml` promises. (3 s)"""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from optlang.errors import Diagnostic, Source
from optlang.front.foreign import SAID_HERE
from optlang.front.parser import parse
from optlang.lower import check
from optlang.resources import folder

MISTAKES: list[dict[str, Any]] = tomllib.loads((folder("grammar") / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]


def text_of(row: dict[str, Any]) -> str:
    return str(row["file"]) if "file" in row else f"rule A {{\n{row['body']}\nw' = w - g\n}}"


def findings(text: str) -> list[Diagnostic]:
    file, found = parse(Source(text))
    return found or check(file)


@pytest.mark.parametrize("row", MISTAKES, ids=[repr(row.get("body", row.get("file")))[:50] for row in MISTAKES])
def test_mistake(row: dict[str, Any]) -> None:
    found = findings(text_of(row))
    assert [d.code for d in found] == row["codes"]
    assert row.get("says", "") in f"{found[0].message} | {found[0].pointer} | {found[0].help}"


@pytest.mark.parametrize("row", MISTAKES, ids=[repr(row.get("body", row.get("file")))[:50] for row in MISTAKES])
def test_fix_mends(row: dict[str, Any]) -> None:
    """What an editor would apply leads to a text without that finding."""
    text = text_of(row)
    for found in findings(text)[:1]:
        if found.fix is not None:
            span = found.fix.span
            mended = text[: span.start] + found.fix.text + text[span.end :]
            again = [d for d in findings(mended) if d.code == found.code and d.span.start <= span.start]
            assert again == [], mended


NUMBERS = {
    **dict.fromkeys(["p", "q", "beta", "low", "high", "limit", "lr", "total"], "0.5"), **dict.fromkeys(["a", "b", "c", "x", "y", "m"], "g"),
}  # fmt: skip


@pytest.mark.parametrize("text", sorted({*SAID_HERE.values()} - {"rows, cols or numel"}))
def test_what_is_said_instead_is_right(text: str) -> None:
    """Every form that advice about a function of another library gives can be written. Shapes and kinds are those of its values."""
    written, _, module = text.partition("` of `")
    filled = re.sub(r"\b[a-z]+\b(?!\()", lambda name: NUMBERS.get(name[0], name[0]), written)
    head = f"from {module} import {written.partition('(')[0]} " if module else ""
    assert [d for d in findings(f"{head}rule A {{ u = {filled} w' = w - g }}") if not d.code.startswith("T")] == []


def test_there_are_many_and_of_every_kind() -> None:
    assert len(MISTAKES) >= 80
    codes = {code for row in MISTAKES for code in row["codes"]}
    assert {f"S{k:02}" for k in range(1, 21)} <= codes
