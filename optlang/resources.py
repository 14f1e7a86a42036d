"""Where the grammar and the library lie, inside an installed package or beside it in a checkout; room for recursion, and to make much."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: str) -> Path:
    """The folder `grammar` or `library`. Raises FileNotFoundError where an installation lacks it."""
    for place in (PACKAGE / "_data" / name, PACKAGE.parent / name):
        if place.is_dir():
            return place
    packed = next((place for place in PACKAGE.parents if place.is_file()), None)
    why = "the installation is incomplete" if packed is None else f"{packed} is an archive; unpack it, or install it with pip"
    raise FileNotFoundError(f"optlang's folder {name!r} is missing beside {PACKAGE}: {why}")


def cache_file(name: str) -> Path | None:
    """A file in the user's cache, whose folder is made; None where there is no place to write."""
    try:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optlang"
        place.mkdir(parents=True, exist_ok=True)
        return place / name if os.access(place, os.W_OK) else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None


def without(extra: str, *packages: str) -> str:
    """What to do where one of the packages that a command comes to need is missing; empty where all are there."""
    missing = next((name for name in packages if find_spec(name) is None), "")
    return missing and f"this needs {missing}: pip install 'optlang-rules[{extra}]'"


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Room for nested calls of nested expressions; both depths are bounded, and such frames are not on the C stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 60_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


@contextmanager
def uncollected() -> Iterator[None]:
    """Python does not search for garbage in here: of all that loading a rule and its first step make none is, and each search looks
    at all of it."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
