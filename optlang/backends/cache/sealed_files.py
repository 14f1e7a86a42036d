"""Files on disk that are all there or not there: shared libraries, and programs as JSON, each under a hash of all that decides it.

A file is whole: it is written under a name of its own and then renamed, so that whoever writes at once does not disturb another,
and its end says that nothing is missing or changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import secrets
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from optlang.resources import cache_file

SEAL = 32  # bytes
MOST, EVERY = 2000, 100  # files of a kind that are kept, and after how many new ones that is looked at
_STORED = count()
_LOADED: list[ctypes.CDLL] = []  # one of those with threads, if there are any: all have the same OpenMP


def _one_thread() -> None:
    """A process that was forked lacks the threads that OpenMP counts on, and would wait for them for ever."""
    for one in _LOADED:
        one.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)


def named(kind: str, *decides: str, ending: str = ".so") -> str:
    """The file name of a library: its kind, and a hash of what decides about it."""
    return f"{kind}-{hashlib.sha256(chr(0).join(decides).encode()).hexdigest()[:32]}{ending}"


def places(name: str) -> list[Path]:
    """Where a file of that name may be: the user's cache, then a folder for temporary files, if there are such."""
    found = [kept] if (kept := cache_file(name)) is not None else []
    with contextlib.suppress(OSError):  # where nothing can be written at all, there is no folder for temporary files either
        spare = Path(tempfile.gettempdir()) / f"optlang-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
        with contextlib.suppress(OSError):
            spare.mkdir(mode=0o700, exist_ok=True)
        found += [spare / name] if _is_ours(spare) else []
    return found


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put a library there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def content(place: Path) -> bytes | None:
    """What was stored there under this name, if all of it is there: loading half of a library would end the process."""
    try:
        found = place.read_bytes()
    except OSError:
        return None
    return found[:-SEAL] if found[-SEAL:] == _seal(found[:-SEAL], place) else None


def store(made: bytes, place: Path) -> None:
    """Raises OSError where there is no room, or no right to write."""
    beside = place.with_suffix(f".{secrets.token_hex(8)}.tmp")  # not the process's number: threads share it, and containers have the same
    try:
        beside.write_bytes(made + _seal(made, place))
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
    if next(_STORED) % EVERY == 0:
        _make_room(place)


def _make_room(new: Path) -> None:
    """Forgets the oldest of a kind: a search for rules makes programs and kernels without end, and few of them are asked for again."""
    kind = new.name.partition("-")[0]
    with contextlib.suppress(OSError):  # another process makes room, too
        dated = sorted((entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(new.parent) if entry.name.startswith(f"{kind}-"))
        for _, path in dated[:-MOST]:
            Path(path).unlink()


def opened(place: Path) -> ctypes.CDLL:
    """The library there, of which `content` has been seen. Raises OSError."""
    found = ctypes.CDLL(str(place))
    if hasattr(found, "omp_set_num_threads"):  # not of a library that needs no threads
        _LOADED[:] = [found]
    return found


def _seal(made: bytes, place: Path) -> bytes:
    """What stands behind a library that was written to its end, under this name; loaders do not look there."""
    return hashlib.sha256(place.name.encode() + made).digest()


@cache
def processor() -> str:
    """What code for the processor at hand depends on."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
    return platform.processor() or platform.machine()
