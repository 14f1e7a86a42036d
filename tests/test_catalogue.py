"""The catalogue of codes: complete, and its examples do what they say. (4 s)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import optlang.catalogue
from optlang.catalogue import CATALOGUE, FAMILIES
from optlang.errors import OptError, Source
from optlang.front.format import format_file
from optlang.front.parser import parse
from optlang.library import find, read
from optlang.lower import check
from optlang.lower import lower as lower_rule

PACKAGE = Path(optlang.catalogue.__file__).parent
ABOUT_CALLS = {"R09", "L02", "U01", "U02"}  # their examples are calls or commands, tested one by one below
EXAMPLES = sorted(set(CATALOGUE) - ABOUT_CALLS)


def codes(text: str, pedantic: bool) -> list[str]:
    file, found = parse(Source(text))
    return [d.code for d in (found or check(file, pedantic=pedantic))]


def test_every_code_is_explained_and_every_explained_code_is_used() -> None:
    used: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        used |= set(re.findall(r'"([SNTRLUP]\d\d)"', path.read_text(encoding="utf-8")))
    unused = set(CATALOGUE) - used
    assert used - set(CATALOGUE) == set()
    assert unused == set()


@pytest.mark.parametrize("code", EXAMPLES)
def test_wrong_example_gives_its_code_and_the_right_one_nothing(code: str) -> None:
    entry, pedantic = CATALOGUE[code], code[0] == "P"
    assert codes(entry.example, pedantic) == [code]
    assert codes(entry.remedy, pedantic) == []


@pytest.mark.parametrize("code", EXAMPLES)
def test_right_example_is_formatted(code: str) -> None:
    file, _ = parse(Source(CATALOGUE[code].remedy))
    assert format_file(file) == CATALOGUE[code].remedy + "\n"


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_words(code: str) -> None:
    entry = CATALOGUE[code]
    assert code[0] in FAMILIES
    assert entry.title and not entry.title.endswith(".")
    assert entry.explanation.endswith(".") or entry.explanation.endswith("`.") or entry.explanation.endswith(")")
    sentences = len(re.findall(r"[.:?](?=\s|$)", entry.explanation))
    assert 1 <= sentences <= 6
    assert entry.remedy


def test_calls() -> None:
    with pytest.raises(OptError, match="U01") as caught:
        find("adamm")
    assert caught.value.diagnostics[0].code == "U01"
    assert find("adam").text
    with pytest.raises(OptError, match="U02"):
        read(PACKAGE)
    file, _ = parse(Source("rule Adam { w' = w - g } rule B { w' = w - g }"))
    for name in ("Adm", ""):
        with pytest.raises(OptError, match="R09"):
            lower_rule(file, name)


def test_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.opt"
    path.write_bytes(b"#" * 10_000_001)
    with pytest.raises(OptError, match="L02"):
        read(path)
