"""Extents as they are written: `per row`, `per 64`, `[rows, 4]`, and the whole numbers that shapes are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optlang.errors import Span, did_you_mean
from optlang.front import syntax
from optlang.front.foreign import EXTENTS
from optlang.lower.context import Value
from optlang.lower.expressions import whole
from optlang.types import ELEMENT, EXTENT_OF, Dim, Extent, run_of

if TYPE_CHECKING:
    from optlang.lower.frames import Frame

HOW_KNOWN = "use a number or an `int` hyper"  # to have a whole number when the rule is built


def extent_of(frame: Frame, word: str, span: Span) -> Extent | None:
    """The extent that `per WORD` names, a run of as many elements as it says; `element` where nothing is said."""
    if not word:
        return ELEMENT
    if word[0].isdigit() or (word not in EXTENT_OF and frame.holds_anywhere(word)):
        return _run(frame, word, span)
    if word not in EXTENT_OF:
        near = EXTENTS.get(word.lower()) or did_you_mean(word, EXTENT_OF)
        words = f"the words are {', '.join(EXTENT_OF)}; or say how many elements, as in `per 64`"
        frame.report("T04", f"`per {word}`: there is no such extent", span, "", f"did you mean `{near}`?" if near else words)
    return EXTENT_OF.get(word)


def _run(frame: Frame, word: str, span: Span) -> Extent | None:
    node = frame.lower(syntax.Number(span, word) if word[0].isdigit() else syntax.Name(span, word))
    length = _number_known(frame, node, span, f"`per {word}` needs a whole number of elements")
    return None if length is None else run_of(length)


def shape_of(frame: Frame, sizes: Sequence[syntax.Expr], help: str = HOW_KNOWN) -> Extent | None:
    """The extent of a matrix whose two sizes are written out, as in `[rows, 4]`. None where they are none, which is reported with
    `help`, once."""
    rows = _size(frame, sizes[0], help)
    cols = None if rows is None else _size(frame, sizes[1], help)
    return None if rows is None or cols is None else Extent("array", rows, cols)


def _size(frame: Frame, expr: syntax.Expr, help: str) -> Dim | None:
    node = frame.lower(expr)
    if node is not None and node.op == "fact" and node.value in ("rows", "cols"):
        return str(node.value)
    return _number_known(frame, node, expr.span, "the size of a matrix is `rows`, `cols`, or a whole number", help)


def window_length(frame: Frame, expr: syntax.Expr) -> int | None:
    return _number_known(frame, frame.lower(expr), expr.span, "a window needs a whole number of values")


def _number_known(frame: Frame, node: Value, span: Span, wanted: str, help: str = HOW_KNOWN) -> int | None:
    """A whole number that shapes may be made of; None where it is none, which is reported unless the expression has been already."""
    number = whole(frame, node)
    if node is not None and (number is None or not 1 <= number <= 1_000_000):
        frame.report("R05", f"{wanted} that is known when the rule is built", span, "from 1 to 1000000", help)
        return None
    return number
