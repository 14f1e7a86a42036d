"""Numbers that kernels are given, and values per model, by generated C++: the host says what is new, one call computes the rest.

In float64, the same numbers as `host.HostScalars` finds: what C++ rounds otherwise than NumPy, that leaves to C's library as well.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import Any

import numpy as np

from optlang.backends.kernels import build
from optlang.backends.repeated.calls import Work
from optlang.backends.repeated.library import Unseen
from optlang.ir import Node, T, walk
from optlang.meaning import number
from optlang.ops import OPS
from optlang.philox import MODEL_STREAM

Array = Any  # numpy.ndarray
LEAVES = ("hyper", "fact", "state", "input", "t", "loss")  # inputs are marks of barriers
OF_ONE = dict.fromkeys(("sum", "mean", "amax", "amin"), "{0}")  # of one number
HEADERS = Path(__file__).parents[1] / "cpp" / "prelude.h", Path(__file__).parent / "draws.h"
FLAGS = ("-O1", "-fno-builtin")  # so that what C's library rounds is not computed otherwise by compilers


class Numbers:
    """Values of some expressions, in one row or several: `given` holds those of leaves, `found` what is made of them.

    `known`: expressions whose values are given like those of leaves. `kind`: the number type of what is found. Raises Unseen where an
    operator is not of single numbers.
    """

    def __init__(self, wanted: Sequence[Node], known: Sequence[Node] = (), kind: Any = np.float64) -> None:
        given = set(known)
        self._order = walk(wanted, lambda node: () if node in given else (T,) if node.op == "random" else node.args)
        leaves = [node for node in self._order if node.op in LEAVES and node not in given]
        self.leaves = [*sorted(leaves, key=lambda node: LEAVES.index(node.op)), *known]
        self.wanted, self.kind = tuple(wanted), kind
        given |= set(leaves)
        self._made = [node for node in self._order if node not in given]
        if any(node.type.window for node in self._order) or not all(n.op in ("const", "random") or _spelled(n) for n in self._made):
            raise Unseen
        self.work: Work | None = None  # see `make`
        self._rooms: dict[int, tuple[Array, Array]] = {}
        self.hold(1)

    def hold(self, rows: int) -> None:
        """Room for so many rows: always the same for as many."""
        if rows not in self._rooms:
            self._rooms[rows] = np.zeros((rows, len(self.leaves))), np.zeros((rows, len(self.wanted)), self.kind)
        self._use(*self._rooms[rows])

    def _use(self, given: Array, found: Array) -> None:
        self.given, self.found = given, found
        self.hypers = [node.value for node in self.leaves if node.op == "hyper"]
        self.picked: Any = itemgetter(*self.hypers) if len(self.hypers) > 1 else lambda settings: [settings[x] for x in self.hypers]
        self._packed = Struct(f"{len(self.hypers)}d").pack_into
        if self.work is not None:
            self.work.give(len(given), given, found)

    def share(self, leaves: Sequence[Node], given: Array) -> None:
        """Reads the leaves from a row that others read, too."""
        self.leaves = list(leaves)
        self._use(given[None], self.found)

    def put(self, row: int, settings: Mapping[str, Any]) -> None:
        """The hypers of a row, which are its first numbers."""
        values = self.picked(settings)
        try:
            self._packed(self.given, row * self.given.strides[0], *values)
        except (OverflowError, StructError):  # whole numbers beyond float64
            self.given[row, : len(values)] = [number(x) for x in values]

    def of(self, op: str) -> list[Any]:
        """The leaves of a kind that are read, in the order of their places."""
        return [node.value for node in self.leaves if node.op == op]

    def compute(self) -> Array:
        """`found`, from what is given now."""
        self.made()
        return self.found

    @property
    def made(self) -> Work:
        """What computes it."""
        assert self.work is not None
        return self.work

    def text(self, name: str) -> str:
        """The function of that name."""
        names = {node: f"x{place}" for place, node in enumerate(self._order)}
        lines = [_defined(node, names[node], f"given[{place}]") for place, node in enumerate(self.leaves) if node in names]
        for node in self._made:
            text = _literal(node.value) if node.op == "const" else _spelled(node).format(*(names[arg] for arg in node.args))
            text = self._drawn(node, names[T]) if node.op == "random" else text
            lines.append(_defined(node, names[node], text))
        lines += [f"found[{place}] = (number){names[node]};" for place, node in enumerate(self.wanted)]
        values = {"NAME": name, "NUMBER": "float" if self.kind == np.float32 else "double", "LINES": "\n    ".join(lines)}
        values |= {"GIVEN": str(len(self.leaves)), "FOUND": str(len(self.wanted))}
        text = FUNCTION
        for key, value in values.items():
            text = text.replace(f"@{key}", value)
        return text

    def _drawn(self, node: Node, t: str) -> str:
        """A draw per model; the seed is the last number that is given."""
        distribution, site = node.value
        return f"draw_{distribution}(philox(0, (u32)(i64){t}, {site}u, (u32)given[{self.given.shape[1] - 1}], {MODEL_STREAM}u))"


FUNCTION = """
extern "C" void @NAME(void* const* words) {
  typedef @NUMBER number;
  const double* given = (const double*)words[1];
  number* found = (number*)words[2];
  for (i64 row = 0; row < (i64)words[0]; row++, given += @GIVEN, found += @FOUND) {
    @LINES
  }
}
"""


def together(some: Sequence[Numbers]) -> tuple[list[Node], Array]:
    """The leaves that some read, and the row of their values, which from now on is one for all. Behind them is room for a value that nobody
    reads, and for the seed of draws."""
    leaves = sorted(dict.fromkeys(leaf for one in some for leaf in one.leaves), key=lambda node: LEAVES.index(node.op))
    given = np.zeros(len(leaves) + 2)
    for one in some:
        one.share(leaves, given)
    return leaves, given


def make(some: Iterable[Numbers]) -> None:
    """One library for all of them. Raises Unseen where there is none."""
    waiting = [numbers for numbers in some if numbers.work is None]
    if not waiting:
        return
    names = [f"numbers_{place}" for place in range(len(waiting))]
    functions = [one.text(name) for one, name in zip(waiting, names, strict=True)]
    headers = HEADERS if any("draw_" in function for function in functions) else HEADERS[:1]
    prelude, *others = [file.read_text(encoding="utf-8") for file in headers]
    text = "".join([_of_library(prelude), prelude, *others, *functions])
    try:
        library = ctypes.PyDLL(build.library(text, names[0], more=FLAGS)._name)  # it is back sooner than others could take over
    except (build.NoCompiler, OSError):
        raise Unseen from None
    for one, name in zip(waiting, names, strict=True):
        one.work = Work(getattr(library, name), len(one.given), one.given, one.found)


def _of_library(prelude: str) -> str:
    """The functions that the prelude leaves to the compiler, and `exp`, of which it has its own: here all are called from C's library."""
    named = {name: "double" for name in ["exp", *re.findall(r"\bFUNCTION\((\w+)\)", prelude)] if name != "name"}
    named |= {name: "double, double" for name in re.findall(r"\bOF_TWO\((\w+)\)", prelude) if name != "name"}
    return "".join(f'extern "C" double {name}({given});\n#define __builtin_{name} ::{name}\n' for name, given in named.items())


def _spelled(node: Node) -> str:
    """An operator in C++; empty where it has no spelling for single numbers. Exponentials are those of C's library, not of kernels."""
    spelled = OPS[node.op].cpp.replace("math::exp(", "::exp(") if OPS[node.op].role in ("map", "select") else ""
    return OF_ONE.get(node.op) or spelled


def _literal(value: Any) -> str:
    plain = number(value).item()
    if isinstance(plain, bool):
        return str(plain).lower()
    return repr(plain) if math.isfinite(plain) else "NAN" if plain != plain else "INFINITY" if plain > 0 else "-INFINITY"


def _defined(node: Node, name: str, text: str) -> str:
    return f"const bool {name} = {text} != 0;" if node.type.kind == "bool" else f"const double {name} = {text};"
