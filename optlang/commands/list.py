"""`optlang list`: the library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from optlang import library
from optlang.front import parser
from optlang.front.syntax import Route, Rule

ABOUT = """\
Lists the library: each family with what it is for; name, settings and source of every rule.

optlang list                         all of it
optlang list low memory              rules with both words in their own line or in that of their family
optlang list matrix 2024 --json      for programs"""


class Listed(NamedTuple):
    """A rule or route of the library."""

    family: str
    purpose: str  # of the family
    name: str
    settings: list[str]  # empty for a route, which has those of its rules
    source: str

    @property
    def line(self) -> str:
        return f"{self.name:<{max(map(len, library.names()))}} {' '.join(self.settings) or 'route':<52} {self.source}".rstrip()

    def has(self, word: str) -> bool:
        return word.lower() in f"{self.family}: {self.purpose} {self.line}".lower()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang list`."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="only rules with all of these words: family, purpose, name, setting, year")
    parser.add_argument("--json", action="store_true", help="one list, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Prints the rules with all words; 1 where there are none."""
    found = [rule for rule in _rules() if all(map(rule.has, arguments.words))]
    if arguments.json:
        print(json.dumps([rule._asdict() for rule in found], indent=1, ensure_ascii=False))
    else:
        for (family, purpose), rules in groupby(found, lambda rule: (rule.family, rule.purpose)):
            print(f"{family}: {purpose}", *(f"  {rule.line}" for rule in rules), sep="\n")
    if not found:
        print("no rule fits; `optlang list` prints them all", file=sys.stderr)
    return 0 if found else 1


def _rules() -> Iterator[Listed]:
    """The rule that each file of the library is named after; what else is in a file are parts of it."""
    purposes = library.families()
    for path in map(Path, library.index().values()):
        family = path.parent.name
        for item in parser.parse(library.read(path))[0].items if path.stem != "std" else ():
            if isinstance(item, Rule | Route) and item.name.lower() == path.stem.lower():
                settings = [s.name for s in getattr(item, "body", ()) if hasattr(s, "default")]
                yield Listed(family, purposes[family], path.stem, settings, item.doc)
