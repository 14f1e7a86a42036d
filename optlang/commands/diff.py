"""`optlang diff`."""

from __future__ import annotations

import argparse
import json
import shutil
import sys

from optlang import library, rules
from optlang.commands.files import read
from optlang.errors import OptError

ABOUT = """\
Shows how the second rule differs from the first: in words, and with their equations side by side.

optlang diff adamw adabelief           two rules of the library
optlang diff adam my.opt               a file beside one
optlang diff my.opt:Fast my.opt:Slow   two rules of one file

What states, settings and equations are called does not count: they are paired by what they do. Exit codes: 0 both take
the same steps, 1 they differ or it could not be decided, 2 a file or a name could not be used."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang diff`."""
    parser.add_argument("a", metavar="A", help="FILE.opt, FILE.opt:Rule, a library name, or - for standard input")
    parser.add_argument("b", metavar="B", help="the same")
    parser.add_argument("--json", action="store_true", help="changes and equations as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Prints what differs; the exit codes are those of `ABOUT`."""
    if arguments.a == arguments.b == "-":
        print("standard input can only be one of both: name a file for the other", file=sys.stderr)
        return 2
    try:
        found = rules.diff(_rule(arguments.a), _rule(arguments.b))
    except (OptError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 2
    print(json.dumps(found.to_json(), indent=2) if arguments.json else found.to_text(shutil.get_terminal_size((120, 24)).columns))
    return 0 if found else 1


def _rule(word: str) -> rules.Rule:
    path, name = library.parted(word)
    return rules.Rule.from_source(read(path), name)
