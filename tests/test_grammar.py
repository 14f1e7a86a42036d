"""The grammar file: LALR(1) without conflicts of rules or terminals, and free of function names. (2 s)"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lark import Lark
from lark.grammar import Rule

from optlang import library, ops
from optlang.errors import Source
from optlang.front import grammar_tables
from optlang.front.grammar_tables import grammar
from optlang.front.parser import terminals
from optlang.front.scan import scan
from optlang.resources import folder

TEXT = (folder("grammar") / "opt.lark").read_text(encoding="utf-8")


def test_strict() -> None:
    """`strict` makes Lark refuse shift/reduce conflicts, and terminals that match the same text with the same priority."""
    Lark(TEXT, parser="lalr", lexer="basic", strict=True)


def test_no_names_of_functions() -> None:
    code = re.sub(r"//[^\n]*", "", TEXT)
    words = set(re.findall(r'"([a-z_]+)"', code))
    assert words & (ops.BUILTINS | set(ops.FACTS) | set(ops.CONSTANTS)) == set()
    assert {"rule", "def", "hyper", "state", "when"} <= words


def test_scanner_knows_every_terminal() -> None:
    """The scanner is written by hand for its messages; it must give the terminals that Lark's own lexer would."""
    lexer = Lark(TEXT, parser="lalr", lexer="basic")
    for name in library.index():
        source = library.find(name)
        ours = [(x.type, x.text + "'" * (x.type == "PRIMED")) for x in scan(source, terminals()).lexemes]
        theirs = [(token.type, str(token)) for token in lexer.lex(source.text)]
        assert ours == theirs


def test_keywords_and_signs() -> None:
    named = {t.name for t in grammar().terminals if t.pattern.type == "str"}
    assert named - {"COMPARE"} <= set(terminals().values())
    assert [x.type for x in scan(Source("a <= b == c"), terminals()).lexemes] == ["NAME", "COMPARE", "NAME", "COMPARE", "NAME"]


def test_tables_that_come_along_are_those_of_the_grammar() -> None:
    """The same machine, whatever the numbers of its states are. `python -m optlang.front.grammar_tables` writes it."""
    assert repr(grammar()) == "Lark(open('<deserialized>'), parser='lalr', lexer='basic', ...)"
    kept, made = (x.parser.parser._parse_table for x in (grammar(), grammar_tables.made(TEXT)))  # type: ignore[attr-defined]
    waiting, seen = [(kept.start_states["start"], made.start_states["start"])], set()
    while waiting:
        a, b = pair = waiting.pop()
        if pair not in seen:
            seen.add(pair)
            assert kept.states[a].keys() == made.states[b].keys()
            for name, (action, target) in kept.states[a].items():
                other, there = made.states[b][name]
                assert action.name == other.name
                if action.name == "Shift":
                    waiting.append((target, there))
                else:
                    assert _said(target) == _said(there)
    assert len(seen) == len(kept.states) == len(made.states) > 100


def _said(rule: Rule) -> tuple[str, str | None, str]:
    return str(rule), rule.alias, json.dumps(vars(rule.options))


@pytest.mark.parametrize("found", ["", "[]", "{}", '{"of": "of another grammar"}', '{"of": "@", "data": {}, "memo": {}}'])
def test_tables_that_are_damaged_or_of_another_grammar_are_made_anew(found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / grammar_tables.FILE).write_text(found.replace("@", grammar_tables._mark(TEXT)))
    monkeypatch.setattr(grammar_tables, "folder", lambda name: tmp_path)
    assert grammar_tables._kept(TEXT) is None


def test_damaged_or_impossible_cache_is_no_harm(tmp_path: Path) -> None:
    """Tables that Lark makes are kept in the user's cache; rubbish there, or no such place, only costs time."""
    code = ("from optlang.front import grammar_tables; grammar_tables.FILE = 'none'; from optlang.front.parser import parse; "
            "from optlang.library import find; print(parse(find('adam'))[1])")  # fmt: skip
    for place in (tmp_path, tmp_path, Path("/proc/none")):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "XDG_CACHE_HOME": str(place)},
        )  # fmt: skip
        assert (result.stdout.strip(), result.stderr) == ("[]", "")
        for kept in tmp_path.rglob("grammar-*"):
            kept.write_bytes(b"rubbish\n" * 10)
