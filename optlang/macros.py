"""Builtins that are said in other builtins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from optlang.ir import Node


class Macro(NamedTuple):
    """A builtin written in others. `expand(build, args, extent)` gets the `ir` module, the operands and the extent."""

    name: str
    operands: tuple[int, int]
    reduces: bool
    expand: Callable[[Any, Sequence[Node], Any], Node]
    doc: str


def _chain(op: str) -> Callable[[Any, Sequence[Node], Any], Node]:
    def expand(ir: Any, args: Sequence[Node], _extent: Any) -> Node:
        result = args[0]
        for arg in args[1:]:
            result = ir.make(op, (result, arg))
        return result

    return expand


def _variance(ir: Any, x: Node, extent: Any) -> Node:
    squares = ir.make("sum", (ir.square(ir.sub(x, ir.make("mean", (x,), extent))),), extent)
    result: Node = ir.div(squares, ir.sub(ir.make("count", (x,), extent), ir.const(1)))
    return result


MACROS: dict[str, Macro] = {
    m.name: m
    for m in (
        Macro("max", (2, 9), False, _chain("maximum"), "largest of its operands; with one operand, of its values"),
        Macro("min", (2, 9), False, _chain("minimum"), "smallest of its operands; with one operand, of its values"),
        Macro("clip", (3, 3), False, lambda ir, a, _: ir.make("minimum", (ir.make("maximum", (a[0], a[1])), a[2])),
              "`clip(x, low, high)`"),
        Macro("square", (1, 1), False, lambda ir, a, _: ir.square(a[0]), "x^2"),
        Macro("reciprocal", (1, 1), False, lambda ir, a, _: ir.div(ir.const(1), a[0]), "1/x"),
        Macro("norm", (1, 1), True, lambda ir, a, e: ir.make("sqrt", (ir.make("sum", (ir.square(a[0]),), e),)),
              "Euclidean norm"),
        Macro("rms", (1, 1), True, lambda ir, a, e: ir.make("sqrt", (ir.make("mean", (ir.square(a[0]),), e),)),
              "root of the mean square"),
        Macro("dot", (2, 2), True, lambda ir, a, e: ir.make("sum", (ir.mul(a[0], a[1]),), e), "sum of the products"),
        Macro("var", (1, 1), True, lambda ir, a, e: _variance(ir, a[0], e), "variance, divided by n - 1"),
        Macro("std", (1, 1), True, lambda ir, a, e: ir.make("sqrt", (_variance(ir, a[0], e),)),
              "standard deviation, divided by n - 1"),
    )
}  # fmt: skip
