"""Kernels compiled by the system's C++ compiler, kept on disk. A file that cannot be loaded is made again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from optlang.backends.cache import sealed_files

FLAGS = (
    "-std=gnu++14", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fno-exceptions",
    "-fPIC", "-shared",
    # where vectors matter, loops ask for them: steps are no shorter with -O2, which takes a third longer, or -O3, which takes twice as long
    "-O1", "-fstrict-aliasing", "-finline-small-functions", "-ftree-slp-vectorize",  # the last for sums: lanes are added as ever
)  # fmt: skip
# What GCC alone understands. What makes it quicker: registers are given out once for a whole function, and libstdc++ is not looked
# through, of which there is nothing in kernels; what would be missing then is found at once, not when the library is loaded. And lanes
# of sums begin without a loop: what it writes one by one, processors cannot read as a vector before all of it has left for the cache.
# With expensive optimizations alone it clears the upper halves of vectors where a function ends: Intel's processors take ten times as
# long for the C library's functions, and for all that follows, where these are left full.
OF_GCC = ("-fira-region=one", "-fpeel-loops", "-fexpensive-optimizations", "-nodefaultlibs", "-Wl,-z,defs")
# Of texts of so many lines: elements that fill no vector go one by one, addresses are computed where they are needed, and lanes of sums
# begin with a loop. That takes a fifth less time, and their steps no longer, which are all arithmetic.
LONG, OF_LONG = 1000, ("--param=vect-epilogues-nomask=0", "-fno-ivopts", "-fno-peel-loops")
LIBRARIES = ("-lm", "-lgcc", "-lc")
ELF = struct.Struct("@16s2HI3PI6H")  # how a library of Linux begins
SECONDS = 120  # of the clock, after which a compiler hangs: on a machine with much else to do it may wait for most of them


class NoCompiler(Exception):
    """C++ cannot be compiled here; the message says why, in one line."""


def library(text: str, entry: str = "step", more: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The shared library of a source text, which has a function of that name; `more` flags stand behind those of all.
    Raises NoCompiler."""
    compiler = _compiler()
    ways = [(*way, *more, *(LIBRARIES if OF_GCC[0] in way else ())) for way in _ways(compiler, text)]
    names = [sealed_files.named("kernel", text, *way, compiler, _version(compiler), sealed_files.processor()) for way in ways]
    for way, name in zip(ways, names, strict=True):
        for place in sealed_files.places(name):
            if (found := _loaded(place, entry)) is not None:
                return _told(found, text, way, place)
    made, taken = _compiled(compiler, ways, text)
    for place in sealed_files.places(names[taken]):
        with contextlib.suppress(OSError):  # no room, or no right to write: the next place
            sealed_files.store(made, place)
        if (found := _loaded(place, entry)) is not None:
            return _told(found, text, ways[taken], place)
    raise NoCompiler("what the C++ compiler made cannot be stored or loaded")


def _ways(compiler: str, text: str) -> list[tuple[str, ...]]:
    """Sets of flags, the best first: clang often comes without the library of OpenMP, and Apple's does not know of it."""
    one = tuple("-fopenmp-simd" if flag == "-fopenmp" else flag for flag in FLAGS)
    of_gcc = (*FLAGS, *OF_GCC, *(OF_LONG if text.count("\n") > LONG else ()))
    return [*([of_gcc] if _is_gcc(compiler) else []), FLAGS, one]


def _told(found: ctypes.CDLL, text: str, way: Sequence[str], place: Path) -> ctypes.CDLL:
    """Says once where steps have one thread and could have more."""
    if "-fopenmp" not in way and "omp parallel" in text and torch.get_num_threads() > 1:
        warnings.warn(
            f"optlang steps on one thread: {_compiler()} has no OpenMP here. Install its library (libomp-dev or libomp) or set CXX to"
            f" another compiler, and delete {place.parent}",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip
    return found


def _loaded(place: Path, entry: str = "step") -> ctypes.CDLL | None:
    """The library, if it is whole."""
    if sealed_files.content(place) is None:
        return None
    try:
        found = sealed_files.opened(place)
        getattr(found, entry).restype = None
    except (OSError, AttributeError):
        return None
    return found


def _compiled(compiler: str, ways: Sequence[Sequence[str]], text: str) -> tuple[bytes, int]:
    """The library of the first set of flags that the compiler takes, and which one that was."""
    try:
        with tempfile.TemporaryDirectory(prefix="optlang-", ignore_cleanup_errors=True) as folder:
            source, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
            source.write_text(text, encoding="utf-8")
            for number, flags in enumerate(ways):
                done = _run([compiler, str(source), "-o", str(made), *flags])
                if not done.returncode:
                    return _whole(made.read_bytes() if made.exists() else b"", compiler), number
    except OSError as problem:
        raise NoCompiler(f"{compiler} has no room for temporary files (TMPDIR): {problem}") from problem
    raise NoCompiler(f"{compiler} failed: {_complaint(done.stderr) or f'exit code {done.returncode}'}")


def _whole(made: bytes, compiler: str) -> bytes:
    """A library of which nothing is missing: the system ends who loads half of one, as a full disk may leave it. On Linux its
    last part is the table of sections, whose place stands in front; other systems look for themselves."""
    if made.startswith(b"\x7fELF"):
        place, size, number = (ELF.unpack(made[: ELF.size].ljust(ELF.size))[field] for field in (6, 11, 12))
        last = made[place + (number - 1) * size : place + number * size] if number else b"there are no sections"
        if len(last) < size or not any(last):
            raise NoCompiler(f"{compiler} reports success, but the end of its library is missing")
    return made


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """In a group of its own: who hangs is ended with all that it has started, also where Ctrl-C ends the waiting."""
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace", process_group=0
        ) as running:
            try:
                told = running.communicate(timeout=SECONDS)
            except BaseException:
                _end(running)
                raise
    except subprocess.TimeoutExpired:
        raise NoCompiler(f"{command[0]} took more than {SECONDS} s") from None
    except OSError as problem:
        raise NoCompiler(f"{command[0]} cannot be run: {problem}") from problem
    return subprocess.CompletedProcess(command, running.returncode, *told)


def _end(running: subprocess.Popen[str]) -> None:
    """A compiler starts others, for each part of its work."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them have ended
        os.killpg(running.pid, signal.SIGKILL) if hasattr(os, "killpg") else running.kill()


def _complaint(told: str) -> str:
    """The line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in told.splitlines() if line.strip() and "linker command failed" not in line]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")


def _compiler() -> str:
    wanted = os.environ.get("CXX", "")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if shutil.which(name):
            return name
    raise NoCompiler(f"there is no C++ compiler{f' {wanted!r}' if wanted else ''} on the path")


def _is_gcc(compiler: str) -> bool:
    """Whether that is the name of the file behind a compiler: others do not know all of its flags."""
    return "g++" in Path(os.path.realpath(shutil.which(compiler) or compiler)).name.replace("clang++", "")


@cache
def _version(compiler: str) -> str:
    """The file of a compiler, where links lead, by its size and date: asking the compiler itself takes longer than a step."""
    file = os.path.realpath(shutil.which(compiler) or compiler)
    try:
        found = os.stat(file)
    except OSError as problem:
        raise NoCompiler(f"{compiler} cannot be run: {problem}") from problem
    return f"{file} {found.st_size} {found.st_mtime_ns}"
