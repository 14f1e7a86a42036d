"""`optlang check`, which is also `optlang FILE`."""

from __future__ import annotations

import argparse
import json

from optlang import diagnose, ir, lower, ops
from optlang.commands.files import counted, expand, none_there, read
from optlang.errors import MOST_FINDINGS, Diagnostic, OptError

ABOUT = """\
Checks rule files and prints every finding with its place and what to do.

optlang check my.opt                 one file
optlang check library                every .opt file below a folder
cat my.opt | optlang check -         standard input
optlang check my.opt --json          for an editor"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang check`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, a library name, or - for standard input")
    parser.add_argument("--pedantic", action="store_true", help="also point at what is legal but looks like a mistake")
    parser.add_argument("--json", action="store_true", help="findings as a JSON list")


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings: 0 where there are none, 1 where a text is wrong, 2 where a file cannot be read."""
    found: list[Diagnostic] = []
    notes: list[str] = []
    unread = False
    count = 0
    for name in expand(arguments.files):
        count += 1
        try:
            lowered: lower.Lowered = {}
            _, about = diagnose.read(read(name), arguments.pedantic, lowered)
            found.extend(about)
            notes.extend([] if about else _extra_passes(lowered))
            notes.extend([f"{name}: reading stopped after {MOST_FINDINGS} findings"] * (len(about) == MOST_FINDINGS))
        except OptError as error:
            found.extend(error.diagnostics)
            unread = True
    if arguments.json:
        print(json.dumps([d.to_json() for d in found], indent=2))
    elif count:
        _print_findings(found, count)
        print("".join(f"{note}\n" for note in notes), end="")
    if not count:
        return none_there(arguments.files)
    wrong = any(d.severity != "lint" for d in found) or (arguments.pedantic and found)
    return 2 if unread else 1 if wrong else 0


def _extra_passes(lowered: lower.Lowered) -> list[str]:
    """What each rule asks of the model in a step besides one gradient."""
    asking = [p for p in lowered.values() if isinstance(p, ir.Program) and any(p.uses(op) for op in ops.ASKING)]
    if not asking:
        return []
    from optlang.printing.render import asked  # noqa: PLC0415 - most files ask for nothing

    return [f"{p.name} asks the model for {asked(p)} in a step; `step` needs a closure" for p in asking]


def _print_findings(found: list[Diagnostic], count: int) -> None:
    for finding in found:
        print(finding.to_text() + "\n")
    print(f"{counted(count)}: {len(found)} finding{'s' * (len(found) != 1)}" if found else f"{counted(count)} checked, nothing wrong")
