"""Rules on disk as programs, and programs as they are simplified: a new process need not read and simplify them again.

A file lies beside the kernels (see `sealed_files`), under a hash of all that decides about it: the texts of the rule and of all that
it imports, and the files of this package, by their sizes and dates. What cannot be read is made again.
What is generated of a program is kept in the same way (`kept`), under the name of the program (`mark`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from optlang import library
from optlang.backends.cache import sealed_files
from optlang.errors import OptError, Source
from optlang.ir import Program, Routing
from optlang.ir.serialization import from_json, to_json
from optlang.resources import PACKAGE, folder

LEFT_OUT = ("backends", "bench", "compare", "race", "runtime", "search", "__pycache__")  # folders that only take programs
BESIDE = ("module", "optax", "triton", "__pycache__")  # folders of backends that C++ does without
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
Made = TypeVar("Made")


def lowered(source: Source, rule: str | None, make: Callable[[], Program | Routing]) -> Program | Routing:
    """The program of a rule, which `make` makes. Raises what that raises."""
    try:
        read = {source.name: source.text} | {one.name: one.text for _, one in library.imported(source)}
        name = sealed_files.named("rule", _ours(), *(part for one in read.items() for part in one), repr(rule), ending=".json")
    except (OptError, UnicodeEncodeError):  # an import that is not there, or no text at all, for which `make` has words
        return make()
    return kept(name, make, to_json, from_json)


def mark(program: Program, math: str) -> str:
    """The file of a program as it is simplified; empty where it has none."""
    try:
        return sealed_files.named("simple", _ours(), to_json(program), math, ending=".json")
    except TypeError:
        return ""


def simplified(program: Program, math: str, name: str | None = None) -> Program:
    """See `simplify`. `name`: its `mark`, where that is known."""

    def make() -> Program:
        from optlang.simplify import simplify  # noqa: PLC0415 - only who simplifies pays for it

        return simplify(program, math)

    name = mark(program, math) if name is None else name
    found = kept(name, make, to_json, from_json) if name else make()
    assert isinstance(found, Program)
    return found


def generated(kind: str, *decides: str) -> str:
    """The file of what is generated of a program, whose `mark` is among what decides about it."""
    return sealed_files.named(kind, _backends(), *decides, ending=".json")


def kept(name: str, make: Callable[[], Made], write: Callable[[Made], str], read: Callable[[str], Made]) -> Made:
    """What an earlier process has kept under a name, or what `make` makes, which is kept."""
    for place in sealed_files.places(name):
        content = sealed_files.content(place)
        if content is not None:
            with contextlib.suppress(*UNREADABLE):
                return read(content.decode())
    made = make()
    for place in sealed_files.places(name):
        with contextlib.suppress(OSError, TypeError):  # no room, no right to write, or a value that has no form
            sealed_files.store(write(made).encode(), place)
            break
    return made


@cache
def _ours() -> str:
    """The files that make programs."""
    return _dated((PACKAGE, folder("grammar")), LEFT_OUT)


@cache
def _backends() -> str:
    """The files that make functions and C++ of programs."""
    return _dated((PACKAGE / "backends",), BESIDE)


def _dated(places: Iterable[Path], left_out: Sequence[str]) -> str:
    """Files: names, sizes and dates."""
    found = [(entry.path, entry.stat()) for place in places for entry in _files(str(place), left_out)]
    return repr(sorted((path, about.st_size, about.st_mtime_ns) for path, about in found))


def _files(place: str, left_out: Sequence[str]) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(place):
        if entry.is_dir():
            if entry.name in left_out:
                continue
            yield from _files(entry.path, left_out)
        elif entry.name.endswith((".py", ".h", ".lark")):
            yield entry
