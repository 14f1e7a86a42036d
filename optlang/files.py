"""The files that commands are given: rules by name, path or standard input, all of a folder, and files that are written whole."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from optlang import library
from optlang.errors import Source


def is_a_rule_file(word: str) -> bool:
    """Whether a first word that is no command may be a file to check."""
    return word == "-" or word.endswith(".opt") or os.path.exists(word) or word.lower() in library.index()


def read(name: str) -> Source:
    """Standard input, a file or a library rule. Raises OptError."""
    if name == "-":
        return library.decode(sys.stdin.buffer.read(library.MOST_BYTES + 1), "<stdin>")
    return library.find(name)


def expand(names: list[str]) -> Iterator[str]:
    """Folders become the `.opt` files below them."""
    for name in names:
        if name != "-" and os.path.isdir(name):
            yield from map(str, sorted(Path(name).rglob("*.opt")))
        else:
            yield name


def replace(path: Path, text: str) -> None:
    """What was there is never half overwritten. Links stay links; devices and pipes are written into."""
    path = Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            _write_beside(path, text)
    except OSError as error:
        raise library.problem("U02", f"the file cannot be written: {error.strerror or error}", "", str(path)) from None


def _write_beside(path: Path, text: str) -> None:
    """Writes another file, then moves it."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
