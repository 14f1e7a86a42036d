"""What SymPy may be given, and for how long: size, exponents, the terms that an expansion would have, and a deadline."""

from __future__ import annotations

import gc
import inspect
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optlang.ir import Node, walk

MOST_NODES, MOST_TERMS, MOST_POWER = 300, 400, 12


class TooHard(BaseException):
    """Too large or too slow; not an Exception, so that nothing inside SymPy swallows it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raises TooHard inside after so many seconds of this thread's processor time, however busy the machine is.

    Every call of a Python function looks at the clocks: first at that of the wall, which is five times as quick to read.
    """
    end, soonest, before = time.thread_time() + seconds, time.monotonic() + seconds, sys.getprofile()

    def look(frame: Any, _event: str, _arg: Any) -> None:  # pragma: no cover - nothing is traced in here
        if time.monotonic() > soonest and time.thread_time() > end and not _importing(frame) and not _swallowing(frame):
            raise TooHard

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


def _importing(frame: Any) -> bool:  # pragma: no cover - nor here
    """Whether a module is being loaded further up; broken off, it would stay broken."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _swallowing(frame: Any) -> bool:  # pragma: no cover - nor here
    """Whether an exception would be swallowed here, and the deadline with it: in what the garbage collector calls, in what
    finishes an object or is told of its end, which is handed a weak reference, and in a generator, which may be at its end, too;
    its calls look at the clock."""
    if frame.f_code.co_flags & inspect.CO_GENERATOR:
        return True
    watchers = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        code = frame.f_code
        told = any(isinstance(frame.f_locals.get(name), weakref.ref) for name in code.co_varnames[: code.co_argcount])
        if told or code in watchers or code.co_name == "__del__" or code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


def check_size(roots: Sequence[Node]) -> None:
    """Raises TooHard where an expansion could explode."""
    order = walk(roots)
    if len(order) > MOST_NODES:
        raise TooHard
    terms: dict[Node, int] = {}
    for node in order:
        terms[node] = _terms(node, [terms[a] for a in node.args])
        if terms[node] > MOST_TERMS:
            raise TooHard


def _terms(node: Node, args: list[int]) -> int:
    match node.op:
        case "add" | "sub":
            return sum(args)
        case "mul" | "div":
            return args[0] * args[1]
        case "pow" if node.args[1].op == "const":
            power = abs(node.args[1].value)
            if power > MOST_POWER and args[0] > 1:
                raise TooHard
            return int(args[0] ** max(1, power)) if args[0] > 1 else 1
        case "neg" | "branch" | "where":
            return max(args)
    return 1
