"""What people write by mistake gets the code and the advice that `grammar/mistakes.toml` promises. (3 s)"""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from optlang.errors import Diagnostic, Source
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


def test_there_are_many_and_of_every_kind() -> None:
    assert len(MISTAKES) >= 80
    codes = {code for row in MISTAKES for code in row["codes"]}
    assert {f"S{k:02}" for k in range(1, 21)} <= codes
