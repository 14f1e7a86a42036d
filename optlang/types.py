"""Types of expressions: what kind of value, and one value per what.

The extents form a ladder, from one value for everything to one value per element:

    host < model < group < tensor < array

`host` is a number known before the step: a literal, a hyper, the step count. An `array` has symbolic trailing
dimensions: `element` is rows x cols, `row` is rows x 1, `col` is 1 x cols, `matrix` is 1 x 1, and a product of matrices
may have any others. Leading dimensions are a batch. `element` also stands for parameters of rank 0 and 1. A *run* is some
elements of any parameter that follow each other in memory; one value per run is rows x 1 where each row is a run.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

Kind = Literal["real", "bool", "int"]
Level = Literal["host", "model", "group", "tensor", "array"]
Frame = Literal["param", "flat"] | int  # flat: `as_matrix` view, every dimension after the first flattened into columns; int: runs
Dim = str | int

BYTES: dict[Kind, int] = {"bool": 1, "int": 8, "real": 4}  # of a value, where reals are float32
LEVELS: tuple[Level, ...] = ("host", "model", "group", "tensor", "array")


class TypeProblem(Exception):
    """Operands that do not fit; the lowering turns it into a diagnostic at the right place."""


class Extent(NamedTuple):
    """One value per what. `rows`, `cols` and `frame` only mean something at level `array`."""

    level: Level
    rows: Dim = 1
    cols: Dim = 1
    frame: Frame = "param"

    @property
    def rank(self) -> int:
        """Place on the ladder; smaller broadcasts to larger."""
        return LEVELS.index(self.level)

    @property
    def run(self) -> int:
        """How many elements that follow each other have a value together; 0 where it is not so."""
        return self.frame if isinstance(self.frame, int) else 0

    @property
    def left(self) -> str:
        """The word behind `per` for a reduction that leaves this: the rows of any matrix are its rows."""
        if self.level != "array":
            return self.level
        if self.run:
            return str(self.run)
        return {(False, True): "row", (True, False): "col", (True, True): "matrix"}.get((self.rows == 1, self.cols == 1), "element")

    def __str__(self) -> str:
        if self.level != "array":
            return self.level
        if self.run:
            return f"{self.run} elements"
        word = WORD_OF.get((self.rows, self.cols), f"{self.rows}×{self.cols}")
        return word if self.frame == "param" else f"{word} of as_matrix"


HOST = Extent("host")
MODEL = Extent("model")
GROUP = Extent("group")
TENSOR = Extent("tensor")
ELEMENT = Extent("array", "rows", "cols")
ROW = Extent("array", "rows", 1)
COL = Extent("array", 1, "cols")
MATRIX = Extent("array", 1, 1)

WORD_OF: dict[tuple[Dim, Dim], str] = {
    ("rows", "cols"): "element", ("rows", 1): "row", (1, "cols"): "col", (1, 1): "matrix",
}  # fmt: skip
EXTENT_OF: dict[str, Extent] = {
    "element": ELEMENT, "row": ROW, "col": COL, "matrix": MATRIX, "tensor": TENSOR, "group": GROUP, "model": MODEL,
}  # fmt: skip


class Type(NamedTuple):
    """The type of a node. `window` is the number of remembered values, 0 where there is no window."""

    kind: Kind
    extent: Extent
    window: int = 0

    def __str__(self) -> str:
        window = f"[{self.window}]" if self.window else ""
        return f"{self.kind}{window} per {self.extent}"

    @property
    def said(self) -> str:
        """The type in a message: numbers that are known before the step are numbers to people."""
        words = {"real": "a real number", "int": "a whole number", "bool": "a truth value"}
        return words[self.kind] if self.extent == HOST and not self.window else str(self)

    def of(self, kind: Kind) -> Type:
        return Type(kind, self.extent, self.window)


REAL_HOST = Type("real", HOST)
BOOL_HOST = Type("bool", HOST)
INT_HOST = Type("int", HOST)


def join_extents(a: Extent, b: Extent) -> Extent:
    """The extent of `a + b`. Raises TypeProblem where neither broadcasts to the other."""
    if a.level != "array" or b.level != "array":
        return a if a.rank >= b.rank else b
    if a.frame != b.frame:
        raise TypeProblem(f"one side is {a}, the other {b}; bring both into one shape with `as_matrix` or `as_param`")
    return Extent("array", _join_dims(a, b, a.rows, b.rows), _join_dims(a, b, a.cols, b.cols), a.frame)


def _join_dims(a: Extent, b: Extent, x: Dim, y: Dim) -> Dim:
    if x == y or y == 1:
        return x
    if x == 1:
        return y
    turned_fits = all(m == n or 1 in (m, n) for m, n in ((a.rows, b.cols), (a.cols, b.rows)))
    advice = "; transpose one with `.T`" if turned_fits else ""
    raise TypeProblem(f"shapes do not fit: {a.rows}×{a.cols} and {b.rows}×{b.cols}{advice}")


def broadcasts_to(small: Extent, large: Extent) -> bool:
    """Whether a value of extent `small` may stand where one of extent `large` is wanted, without a reduction."""
    try:
        return join_extents(small, large) == large
    except TypeProblem:
        return False


def needs_matrix(extent: Extent) -> bool:
    """Whether the extent only exists for parameters of rank 2 or more."""
    return extent.level == "array" and (extent.rows, extent.cols) != ("rows", "cols") and not extent.run


def is_special(extent: Extent) -> bool:
    """Whether an array extent differs from the parameter's own shape; then the parameter must be a matrix."""
    return needs_matrix(extent) or (extent.level == "array" and extent.frame == "flat")


def reduced_dims(whole: Extent, left: Extent) -> tuple[int, ...] | None:
    """The dimensions that a reduction takes away; None: all."""
    if left.level != "array":
        return None
    return tuple(d for d, a, b in ((-2, whole.rows, left.rows), (-1, whole.cols, left.cols)) if a != 1 and b == 1)


def run_of(length: int) -> Extent:
    """One value per so many elements that follow each other, or per the most fewer ones that divide a parameter."""
    return Extent("array", "rows", 1, length)


@cache
def runs(numel: int, length: int) -> tuple[int, int]:
    """How many runs of at most `length` elements a parameter has, all alike, and how long they are."""
    fits = next(n for n in range(min(length, max(numel, 1)), 0, -1) if numel % n == 0)
    return numel // fits, fits
