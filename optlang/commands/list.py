"""`optlang list`: the library."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from optlang import library
from optlang.front import parser
from optlang.front.syntax import Route, Rule

ABOUT = """\
Lists the library: family, name, settings and source of every rule.

optlang list                         all of it
optlang list matrix 2024             lines with both words"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang list`."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="only rules whose line contains all of these words")


def run(arguments: argparse.Namespace) -> int:
    """Prints the lines with all words; 1 where there are none."""
    shown = 0
    for line in _lines():
        if all(word.lower() in line.lower() for word in arguments.words):
            print(line)
            shown += 1
    if not shown:
        print("no rule fits; `optlang list` prints them all", file=sys.stderr)
    return 0 if shown else 1


def _lines() -> Iterator[str]:
    """A line for the rule that each file of the library is named after; what else is in a file are parts of it."""
    paths = [path for path in map(Path, library.index().values()) if path.stem != "std"]
    family, name = (max(map(len, words)) for words in ([path.parent.name for path in paths], library.names()))
    for path in paths:
        for item in parser.parse(library.read(path))[0].items:
            if isinstance(item, Rule | Route) and item.name.lower() == path.stem.lower():
                hypers = " ".join(s.name for s in getattr(item, "body", ()) if hasattr(s, "default"))
                yield f"{path.parent.name:<{family}} {path.stem:<{name}} {hypers or 'route':<52} {item.doc}".rstrip()
