"""Kernels compiled by the system's C++ compiler, kept on disk. A file that cannot be loaded is made again."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from optlang.backends import stored

FLAGS = (  # later standards make <cmath> twice as long to read
    "-std=gnu++14", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared",
)  # fmt: skip
# Where vectors matter, loops ask for them: steps are no shorter with -O3, which takes twice as long, or for long texts with -O2.
LEVEL, LEVEL_OF_LONG, LONG = ("-O2",), ("-O1", "-fstrict-aliasing", "-finline-small-functions"), 30_000  # characters
SECONDS = 60  # after which a compiler hangs


class NoCompiler(Exception):
    """C++ cannot be compiled here; the message says why, in one line."""


def library(text: str, entry: str = "step", more: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The shared library of a source text, which has a function of that name; `more` flags stand behind those of all.
    Raises NoCompiler."""
    compiler, flags = _compiler(), (*FLAGS, *(LEVEL if len(text) < LONG else LEVEL_OF_LONG), *more)
    name = stored.named("kernel", text, *flags, compiler, _version(compiler), stored.processor())
    for place in stored.places(name):
        found = _loaded(place, entry)
        if found is not None:
            return found
        try:
            _compile(compiler, flags, text, place)
        except OSError:  # no room, or no right to write: the next place
            continue
        found = _loaded(place, entry)
        if found is not None:
            return found
    raise NoCompiler("what the C++ compiler made cannot be stored or loaded")


def _loaded(place: Path, entry: str = "step") -> ctypes.CDLL | None:
    """The library, if it is whole."""
    if stored.content(place) is None:
        return None
    try:
        found = stored.opened(place)
        getattr(found, entry).restype = None
    except (OSError, AttributeError):
        return None
    return found


def _compile(compiler: str, flags: Sequence[str], text: str, place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="optlang-") as folder:
        source, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([compiler, *flags, str(source), "-o", str(made)], capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise NoCompiler(f"{compiler} took more than {SECONDS} s") from None
        except OSError as problem:
            raise NoCompiler(f"{compiler} cannot be run: {problem}") from problem
        if done.returncode:
            raise NoCompiler(f"{compiler} failed: {_complaint(done.stderr) or f'exit code {done.returncode}'}")
        stored.store(made.read_bytes(), place)


def _complaint(told: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")


def _compiler() -> str:
    wanted = os.environ.get("CXX", "")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if shutil.which(name):
            return name
    raise NoCompiler(f"there is no C++ compiler{f' {wanted!r}' if wanted else ''} on the path")


@cache
def _version(compiler: str) -> str:
    """The file of a compiler, where links lead, by its size and date: asking the compiler itself takes longer than a step."""
    file = os.path.realpath(shutil.which(compiler) or compiler)
    try:
        found = os.stat(file)
    except OSError as problem:
        raise NoCompiler(f"{compiler} cannot be run: {problem}") from problem
    return f"{file} {found.st_size} {found.st_mtime_ns}"
