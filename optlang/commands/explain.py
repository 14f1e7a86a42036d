"""`optlang explain`: the catalogue of codes."""

from __future__ import annotations

import argparse
import sys

from optlang.catalogue import CATALOGUE
from optlang.errors import did_you_mean

ABOUT = """\
Explains a code such as N02: what it means, an example, and the example put right. Without a code, lists them all.

optlang explain N02"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang explain`."""
    parser.add_argument("code", nargs="?", metavar="CODE", help="as printed in brackets after `error`")


def run(arguments: argparse.Namespace) -> int:
    """Prints an entry, or the titles of all; 2 for a code that there is not."""
    if arguments.code is None:
        for code, entry in CATALOGUE.items():
            print(f"{code}  {entry.title}")
        return 0
    wanted = arguments.code.strip().upper()
    if wanted not in CATALOGUE:
        near = did_you_mean(wanted, CATALOGUE)
        print(f"there is no code `{arguments.code[:80]}`{f'; did you mean `{near}`?' if near else ''}", file=sys.stderr)
        print("`optlang explain` lists them", file=sys.stderr)
        return 2
    print(CATALOGUE[wanted].to_text())
    return 0
