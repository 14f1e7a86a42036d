"""Finding `.opt` files: the library that comes with the package, and files on disk."""

from __future__ import annotations

import os
import select
from functools import cache
from pathlib import Path
from typing import BinaryIO

from optlang.errors import Diagnostic, OptError, Source, Span, did_you_mean
from optlang.resources import folder

MOST_BYTES = 1_000_000
PATIENCE = 1.5  # seconds


def problem(code: str, message: str, help: str = "", name: str = "<optlang>") -> OptError:
    """An OptError about a file as a whole."""
    return OptError([Diagnostic(code, message, Span(0, 0), help=help, source=Source("", name))])


@cache
def index() -> dict[str, Path]:
    """Every library file by its stem in lower case, families in alphabetical order."""
    return {path.stem.lower(): path for path in sorted(folder("library").rglob("*.opt"))}


def names() -> list[str]:
    """The library's rules and routes, `std` left out."""
    return [name for name in index() if name != "std"]


def find(name: str) -> Source:
    """A library name (`adamw`) or a path (`my.opt`). Raises OptError that says what is wrong with it."""
    if name.lower() in index():
        return read(index()[name.lower()])
    path = Path(name)
    if path.suffix == ".opt" or os.path.exists(name):
        return read(path)
    near = did_you_mean(name.lower(), index())
    raise problem("U01", f"there is no rule `{name[:80]}` in the library, and no such file",
                  f"did you mean `{near}`?" if near else "`optlang list` prints the library; a path ends in .opt")  # fmt: skip


def find_import(name: str, beside: Source) -> Source:
    """`from NAME import …`: the file beside the importing one, else the library's."""
    neighbour = Path(beside.name).parent / f"{name}.opt"
    if beside.name.endswith(".opt") and neighbour.is_file():
        return read(neighbour)
    if name.lower() in index():
        return read(index()[name.lower()])
    near = did_you_mean(name.lower(), index())
    raise problem("N08", f"there is no file `{name}.opt` beside it or in the library", f"did you mean `{near}`?" if near else "")


def read(path: Path) -> Source:
    """The text of a file as a Source. Raises OptError for a directory, an unreadable, too large or undecodable file."""
    try:
        if path.is_dir():
            raise problem("U02", "this is a directory, not a file", "name a .opt file in it", str(path))
        with _opened(path) as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise problem("U02", f"the file cannot be read: {getattr(error, 'strerror', None) or error}", "", str(path)) from None
    return decode(data, str(path))


def _opened(path: Path) -> BinaryIO:
    """A file to read. A pipe that nobody writes into would be waited for without an end."""
    if not path.is_fifo():
        return path.open("rb")
    pipe = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not select.select([pipe], [], [], PATIENCE)[0]:
        pipe.close()
        raise problem("U02", "this is a pipe, and nothing comes out of it", "write into it, or name a .opt file", str(path))
    os.set_blocking(pipe.fileno(), True)
    return pipe


def decode(data: bytes, name: str) -> Source:
    """Bytes as a Source. Raises OptError where they are too many or not UTF-8."""
    if len(data) > MOST_BYTES:
        raise problem("L02", f"the file is larger than {MOST_BYTES // 1_000_000} MB", "a rule file has a few hundred lines", name)
    try:
        return Source(data.decode(), name)
    except UnicodeDecodeError as error:
        raise problem("U02", f"this is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}",
                      "save the file as UTF-8", name) from None  # fmt: skip
