"""Pieces of Triton's text: what begins a file, functions with their lines, and reductions from start to end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optlang.ir import Node

ARGUMENTS = "work, starts, sizes, pointers, rows, counters, sums, partial, results, levels, bins"
IMPORTED = "".join(f"from optlang.backends.triton.{name} import *\n" for name in ("prelude", "storage"))
HEAD = f"import triton\nimport triton.language as tl\n\n{IMPORTED}"
START = {"sum": "0.0", "mean": "0.0", "amax": 'float("-inf")', "amin": 'float("inf")'}
ADD = {"sum": "a{0} + y", "mean": "a{0} + y", "amax": "larger(a{0}, y)", "amin": "smaller(a{0}, y)"}
REDUCE = {"sum": "total", "mean": "total", "amax": "largest", "amin": "smallest"}


def added(op: str, place: int) -> str:
    return f"a{place} = {ADD[op].format(place)}"


def reduced(op: str, text: str, *axes: int, keeps: bool = False) -> str:
    """Values reduced along some axes, the last one first."""
    for axis in axes:
        text = f"{REDUCE[op]}({text}, {axis}, {keeps})"
    return text


def finished(node: Node, text: str, count: str) -> str:
    """A reduction of so many values."""
    return f"{text} / ({count}).to(tl.float64)" if node.op == "mean" else text


def function(name: str, lines: Sequence[str], arguments: str = ARGUMENTS) -> str:
    return "\n".join(["@triton.jit", f"def {name}({arguments}):", *deeper(lines)])


def deeper(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def literal(value: float) -> str:
    """A number as Triton reads it."""
    return repr(value) if math.isfinite(value) else f'float("{value}")'
