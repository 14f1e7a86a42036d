"""Finding `.opt` files: the library that comes with the package, and files on disk."""

from __future__ import annotations

import os
import re
import select
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from optlang.errors import MOST_COMPARED, Diagnostic, OptError, Source, Span, did_you_mean
from optlang.resources import folder

MOST_BYTES = 1_000_000
IMPORT = re.compile(r"\bfrom\s+(\w+)\s+import\b")
PATIENCE = 1.5  # seconds


def too_large(name: str) -> Diagnostic:
    message = f"the file is larger than {MOST_BYTES // 1_000_000} MB"
    return Diagnostic("L02", message, Span(0, 0), help="a rule file has a few hundred lines", source=Source("", name))


def problem(code: str, message: str, help: str = "", name: str = "<optlang>") -> OptError:
    """An OptError about a file as a whole."""
    return OptError([Diagnostic(code, message, Span(0, 0), help=help, source=Source("", name))])


@cache
def index() -> dict[str, str]:
    """The path of every library file by its stem in lower case, families in alphabetical order."""
    found = sorted((place, name) for place, _, names in os.walk(folder("library")) for name in names if name.endswith(".opt"))
    return {name.removesuffix(".opt").lower(): os.path.join(place, name) for place, name in found}


def names() -> list[str]:
    """The library's rules and routes, `std` left out."""
    return [name for name in index() if name != "std"]


def families() -> dict[str, str]:
    """What the rules of each folder of the library are for."""
    import tomllib  # noqa: PLC0415 - loading a rule does without

    return tomllib.loads(Path(folder("library"), "families.toml").read_text(encoding="utf-8"))


def find(name: str) -> Source:
    """A library name (`adamw`) or a path (`my.opt`). Raises OptError that says what is wrong with it."""
    if name.lower() in index():
        return read(Path(index()[name.lower()]))
    path = Path(name)
    if os.path.exists(name):
        return read(path)
    if any(mark in name for mark in "{\n"):
        raise problem("U01", "this is the text of a rule, where a library name or a path is wanted",
                      "save it as a .opt file; in Python, `optlang.loads` takes texts")  # fmt: skip
    if path.suffix == ".opt":
        return read(path, _instead(name, path))
    file, rule = parted(name)
    if rule is not None and os.path.exists(file):
        raise problem("U01", f"`{name[:80]}` is a file and a rule",
                      f'name the rule apart: `rule="{rule}"` in Python, `--rule {rule}` of `show` and `build`')  # fmt: skip
    near = f"{name}.opt" if os.path.exists(f"{name}.opt") else did_you_mean(name.lower(), index())
    raise problem("U01", f"there is no rule `{name[:80]}` in the library, and no such file",
                  f"did you mean `{near}`?" if near else "`optlang list` prints the library; a path ends in .opt")  # fmt: skip


def parted(word: str) -> tuple[str, str | None]:
    """`my.opt:Rule`, one of the rules of a file, as the file and the rule; any other word is no file with a rule."""
    if ".opt:" in word and not os.path.exists(word):
        path, _, rule = word.rpartition(":")
        return path, rule
    return word, None


def _instead(name: str, path: Path) -> str:
    """What may be meant by the name of a file that is not there."""
    if "://" in name:
        return "nothing is fetched from the net: save it as a file"
    if name.startswith("~"):
        return "`~` is what a shell writes out: give the whole path"
    if path.stem.lower() in index():
        return f"the rule of the library is called `{path.stem}`, without an ending"
    near = did_you_mean(path.name, (one.name for one in islice(path.parent.glob("*.opt"), MOST_COMPARED)))
    return f"did you mean `{path.with_name(near)}`?" if near else "a path counts from the folder that you are in"


def find_import(name: str, beside: Source) -> Source:
    """`from NAME import …`: the file beside the importing one, else the library's."""
    if (beside.name, name) in beside.imports:
        return beside.imports[beside.name, name]
    neighbour = Path(beside.name).parent / f"{name}.opt"
    if beside.name.endswith(".opt") and neighbour.is_file():
        return read(neighbour)
    if name.lower() in index():
        return read(Path(index()[name.lower()]))
    near = did_you_mean(name.lower(), index())
    raise problem("N08", f"there is no file `{name}.opt` beside it or in the library", f"did you mean `{near}`?" if near else "")


def imported(source: Source) -> Iterator[tuple[tuple[str, str], Source]]:
    """All that a text imports, itself or through others; what only looks like an import is one, too. Raises OptError."""
    waiting, seen = [source], {source.name}
    while waiting:
        importer = waiting.pop()
        for name in IMPORT.findall(importer.text):
            found = find_import(name, importer)
            yield (importer.name, name), found
            if found.name not in seen:
                seen.add(found.name)
                waiting.append(found)


def pinned(source: Source) -> Source:
    """The source with the texts of files beside it as they are now: it stays the same rule when they change. The library's do not."""
    if source.imports:
        return source
    try:
        found = {key: one for key, one in imported(source) if not one.name.startswith(f"{folder('library')}{os.sep}")}
    except OptError:  # about which there will be words where it is read
        return source
    return with_imports(source, found)


def with_imports(source: Source, found: Mapping[tuple[str, str], Source]) -> Source:
    kept: dict[tuple[str, str], Source] = {}
    kept.update({key: Source(one.text, one.name, kept) for key, one in found.items()})
    return Source(source.text, source.name, kept)


def read(path: Path, instead: str = "") -> Source:
    """The text of a file as a Source. Raises OptError for a directory, an unreadable, too large or undecodable file, and, with what
    may be meant `instead`, for one that is not there."""
    try:
        if path.is_dir():
            raise problem("U02", "this is a directory, not a file", "name a .opt file in it", str(path))
        with _opened(path) as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise problem("U02", "there is no such file", instead, str(path)) from None
    except (OSError, ValueError) as error:
        raise problem("U02", f"the file cannot be read: {getattr(error, 'strerror', None) or error}", "", str(path)) from None
    return decode(data, str(path))


def standard_input() -> Source:
    """All of it as a Source. Raises OptError where it is too much or not UTF-8."""
    return decode(sys.stdin.buffer.read(MOST_BYTES + 1), "<stdin>")


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
        raise OptError([too_large(name)])
    try:
        return Source(data.decode(), name)
    except UnicodeDecodeError as error:
        raise problem("U02", f"this is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}",
                      "save the file as UTF-8", name) from None  # fmt: skip
