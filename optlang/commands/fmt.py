"""`optlang fmt`."""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

from optlang.commands.files import counted, exit_code, expand, none_there, read, replace
from optlang.errors import OptError, Source
from optlang.front.format import canonical

ABOUT = """\
Rewrites rule files in the one canonical style; comments are kept.

optlang fmt my.opt                   in place
optlang fmt --check library          say which files would change, and change none
cat my.opt | optlang fmt -           to standard output"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang fmt`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, or - for standard input")
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where something would change")
    parser.add_argument("--diff", action="store_true", help="change nothing; print what would")


def run(arguments: argparse.Namespace) -> int:
    """Formats, or says what would change; 1 where something would or a text is wrong, 2 where a file cannot be read."""
    worst = changed = unread = count = 0
    for name in expand(arguments.files):
        count += 1
        try:
            source = read(name)
            text = canonical(source)
        except OptError as error:
            print(error, file=sys.stderr)
            worst = max(worst, exit_code(error))
            unread += 1
            continue
        changed += text != source.text
        _write(arguments, name, source, text)
    if not count:
        return none_there(arguments.files)
    if arguments.check or arguments.diff:
        print(f"{changed} of {counted(count)} would change" if changed
              else f"{f'{count - unread} of ' * (unread > 0)}{counted(count)} in canonical style")  # fmt: skip
        return max(worst, int(changed > 0))
    return worst


def _write(arguments: argparse.Namespace, name: str, source: Source, text: str) -> None:
    if arguments.diff:
        for line in difflib.unified_diff(source.text.splitlines(True), text.splitlines(True), name, name):
            sys.stdout.write(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    elif name == "-":
        sys.stdout.write(text)
    elif text != source.text:
        if arguments.check:
            print(f"would change {name}")
        else:
            replace(Path(source.name), text)
            print(f"formatted {name}")
