"""Kernels compiled by the system's C++ compiler, kept on disk under a hash of all that decides the machine code.

A file in the cache is whole: it is written under another name and then renamed, so processes that compile at once do not
disturb each other. A file that cannot be loaded is made again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from optlang.resources import cache_file

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fPIC", "-shared")
SECONDS = 60  # after which a compiler hangs
SEAL = 32  # bytes


class NoCompiler(Exception):
    """C++ cannot be compiled here; the message says why, in one line."""


_LOADED: list[ctypes.CDLL] = []  # one of them, if there are any: all have the same OpenMP


def _one_thread() -> None:
    """A process that was forked lacks the threads that OpenMP counts on, and would wait for them for ever."""
    for one in _LOADED:
        with contextlib.suppress(AttributeError):  # of a kernel that needed none
            one.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)


def library(text: str) -> ctypes.CDLL:
    """The shared library of a source text. Raises NoCompiler."""
    compiler = _compiler()
    digest = hashlib.sha256("\0".join([text, *FLAGS, compiler, _version(compiler), _processor()]).encode()).hexdigest()[:32]
    for place in _places(f"kernel-{digest}.so"):
        found = _loaded(place)
        if found is not None:
            return found
        try:
            _compile(compiler, text, place)
        except OSError:  # no room, or no right to write: the next place
            continue
        found = _loaded(place)
        if found is not None:
            return found
    raise NoCompiler("what the C++ compiler made cannot be stored or loaded")


def _places(name: str) -> list[Path]:
    """The user's cache, then a folder for temporary files."""
    kept = cache_file(name)
    spare = Path(tempfile.gettempdir()) / f"optlang-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with contextlib.suppress(OSError):
        spare.mkdir(mode=0o700, exist_ok=True)
    return [*([kept] if kept is not None else []), *([spare / name] if _is_ours(spare) else [])]


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put a library there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _loaded(place: Path) -> ctypes.CDLL | None:
    """The library, if it is whole: loading half of one would end the process."""
    try:
        content = place.read_bytes()
        if content[-SEAL:] != _seal(content[:-SEAL], place):
            return None
        found = ctypes.CDLL(str(place))
        found.step.restype = None
        _LOADED[:] = [found]
    except (OSError, AttributeError):
        return None
    return found


def _seal(content: bytes, place: Path) -> bytes:
    """What stands behind a library that was written to its end, under this name; loaders do not look there."""
    return hashlib.sha256(place.name.encode() + content).digest()


def _compile(compiler: str, text: str, place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="optlang-") as folder:
        source, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([compiler, *FLAGS, str(source), "-o", str(made)], capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise NoCompiler(f"{compiler} took more than {SECONDS} s") from None
        except OSError as problem:
            raise NoCompiler(f"{compiler} cannot be run: {problem}") from problem
        if done.returncode:
            raise NoCompiler(f"{compiler} failed: {_complaint(done.stderr) or f'exit code {done.returncode}'}")
        beside = place.with_suffix(f".{os.getpid()}.tmp")
        try:
            content = made.read_bytes()
            beside.write_bytes(content + _seal(content, place))
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)


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
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as problem:
        raise NoCompiler(f"{compiler} cannot be run: {problem}") from problem


@cache
def _processor() -> str:
    """What `-march=native` depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
    return platform.processor() or platform.machine()
