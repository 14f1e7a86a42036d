"""Rules on disk as programs, and programs as they are simplified: a new process need not read and simplify them again.

A file lies beside the kernels (see `stored`), under a hash of all that decides about it: the texts of the rule and of all that
it imports, and the files of this package, by their sizes and dates. What cannot be read is made again; the oldest are forgotten.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

from optlang import library
from optlang.backends.cache import stored
from optlang.errors import OptError, Source
from optlang.ir import Program, Routing
from optlang.ir.written import from_json, to_json
from optlang.resources import PACKAGE, folder

MOST, EVERY = 2000, 100  # files of a kind that are kept, and after how many new ones that is looked at
LEFT_OUT = ("backends", "bench", "compare", "race", "runtime", "search", "__pycache__")  # folders that only take programs
_STORED = count()
UNREADABLE = (ValueError, TypeError, KeyError, IndexError)


def lowered(source: Source, rule: str | None, make: Callable[[], Program | Routing]) -> Program | Routing:
    """The program of a rule, which `make` makes. Raises what that raises."""
    try:
        read = {source.name: source.text} | {one.name: one.text for _, one in library.imported(source)}
        name = stored.named("rule", _ours(), *(part for one in read.items() for part in one), repr(rule), ending=".json")
    except (OptError, UnicodeEncodeError):  # an import that is not there, or no text at all, for which `make` has words
        return make()
    return _kept(name, make)


def simplified(program: Program, math: str) -> Program:
    """See `simplify`."""

    def make() -> Program:
        from optlang.simplify import simplify  # noqa: PLC0415 - only who simplifies pays for it

        return simplify(program, math)

    try:
        found = _kept(stored.named("simple", _ours(), to_json(program), math, ending=".json"), make)
    except TypeError:
        return make()
    assert isinstance(found, Program)
    return found


def _kept(name: str, make: Callable[[], Program | Routing]) -> Program | Routing:
    for place in stored.places(name):
        content = stored.content(place)
        if content is not None:
            with contextlib.suppress(*UNREADABLE):
                return from_json(content.decode())
    made = make()
    for place in stored.places(name):
        with contextlib.suppress(OSError, TypeError):  # no room, no right to write, or a value that has no form
            stored.store(to_json(made).encode(), place)
            _make_room(place)
            break
    return made


def _make_room(new: Path) -> None:
    """Forgets the oldest: a search for rules makes programs without end, and few of them are asked for again."""
    if next(_STORED) % EVERY:
        return
    kind = new.name.partition("-")[0]
    dated = sorted((entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(new.parent) if entry.name.startswith(f"{kind}-"))
    for _, path in dated[:-MOST]:
        Path(path).unlink(missing_ok=True)


@cache
def _ours() -> str:
    """The files that make programs: names, sizes and dates."""
    found = [(entry.path, entry.stat()) for place in (PACKAGE, folder("grammar")) for entry in _files(str(place))]
    return repr(sorted((path, about.st_size, about.st_mtime_ns) for path, about in found))


def _files(place: str) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(place):
        if entry.is_dir():
            if entry.name in LEFT_OUT:
                continue
            yield from _files(entry.path)
        elif entry.name.endswith((".py", ".lark")):
            yield entry
