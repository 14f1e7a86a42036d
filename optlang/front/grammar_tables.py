"""Lark's LALR tables for `grammar/opt.lark`, which lie beside it: Lark takes longer to make them than all else takes to read a rule.

They are taken where they are of this grammar and of the Lark at hand. Where not, Lark makes them, and keeps them in the user's cache.
`python -m optlang.front.grammar_tables` writes them anew.
"""

from __future__ import annotations

import json
import sys
import zlib
from functools import cache
from typing import Any

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from optlang.front.tree_builder import Builder
from optlang.resources import cache_file, folder

FILE = "opt.tables.json"


@cache
def grammar() -> Lark:
    """The tables, with what builds the tree."""
    text = _text()
    return _kept(text) or made(text, f"grammar-{sys.version_info.major}.{sys.version_info.minor}-{zlib.crc32(text.encode()):08x}.lark")


def _text() -> str:
    return (folder("grammar") / "opt.lark").read_text(encoding="utf-8")


def made(text: str, kept: str = "") -> Lark:
    """As Lark makes them, in 0.1 s, unless it finds them in a file of that name in the user's cache."""
    place = cache_file(kept) if kept else None
    cached = str(place) if place is not None else False
    return Lark(text, parser="lalr", lexer="basic", transformer=Builder(), keep_all_tokens=True, cache=cached)


def _kept(text: str) -> Lark | None:
    try:
        found = json.loads((folder("grammar") / FILE).read_text(encoding="utf-8"), object_pairs_hook=_numbered)
        if found["of"] == _mark(text):
            return Lark._load_from_dict(found["data"], found["memo"], transformer=Builder())  # type: ignore[no-untyped-call, no-any-return]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        pass
    return None


def _numbered(pairs: list[tuple[str, Any]]) -> dict[str | int, Any]:
    """JSON has no keys that are numbers."""
    return {int(key) if key.isdigit() else key: value for key, value in pairs}


def _mark(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x} by Lark {lark.__version__}"


def written() -> str:
    """The text of the file."""
    text = _text()
    data, memo = made(text).memo_serialize([TerminalDef, Rule])
    data["options"] = {name: value for name, value in data["options"].items() if name not in ("transformer", "cache")}
    return json.dumps({"of": _mark(text), "data": data, "memo": memo}, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    (folder("grammar") / FILE).write_text(written(), encoding="utf-8")
