"""What commands have in common: the files they are given and write, and what they say and return where these cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from optlang import library, writing
from optlang.errors import OptError, Source

UNUSABLE = {"U01", "U02", "L02"}  # codes of files, or names of rules, that cannot be read at all


def is_a_rule_file(word: str) -> bool:
    """Whether a first word that is no command may be a file to check."""
    return word == "-" or word.endswith(".opt") or ".opt:" in word or os.path.exists(word) or word.lower() in library.index()


def read(name: str) -> Source:
    """Standard input, a file or a library rule. Raises OptError."""
    return library.standard_input() if name == "-" else library.find(name)


def expand(names: list[str]) -> Iterator[str]:
    """Folders become the `.opt` files below them."""
    for name in names:
        if name != "-" and os.path.isdir(name):
            yield from map(str, sorted(Path(name).rglob("*.opt")))
        else:
            yield name


def counted(count: int) -> str:
    """So many files."""
    return f"{count} file{'s' * (count != 1)}"


def none_there(folders: list[str]) -> int:
    """Says that folders have no rule files; returns the exit code."""
    print(f"no .opt files below {', '.join(folders)}", file=sys.stderr)
    return 2


def refused(refusal: ValueError) -> int:
    """Says why a rule cannot be had in a form or for a target; returns the exit code."""
    print(f"optlang: {refusal}", file=sys.stderr)
    return 1


def exit_code(error: OptError) -> int:
    """2 where a file could not be used, 1 where its text is wrong."""
    return 2 if UNUSABLE & {d.code for d in error.diagnostics} else 1


def replace(path: Path, text: str) -> None:
    """What was there is never half overwritten. Raises OptError."""
    try:
        writing.replace(path, text)
    except OSError as error:
        raise library.problem("U02", f"the file cannot be written: {error.strerror or error}", "", str(path)) from None
