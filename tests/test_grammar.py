"""The grammar file: LALR(1) without conflicts of rules or terminals, and free of function names. (2 s)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from lark import Lark

from optlang import library, ops
from optlang.errors import Source
from optlang.front.parser import grammar, terminals
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


def test_damaged_or_impossible_cache_is_no_harm(tmp_path: Path) -> None:
    """The tables are kept in the user's cache; rubbish there, or no such place, only costs time."""
    code = "from optlang.front.parser import parse; from optlang.library import find; print(parse(find('adam'))[1])"
    for place in (tmp_path, tmp_path, Path("/proc/none")):
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "XDG_CACHE_HOME": str(place)},
        )  # fmt: skip
        assert (result.stdout.strip(), result.stderr) == ("[]", "")
        for kept in tmp_path.rglob("grammar-*"):
            kept.write_bytes(b"rubbish\n" * 10)
