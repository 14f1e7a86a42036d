"""Reductions of a single value, as the sum per model of what there is one of per model: they are left out.

Every backend adds up over the parameters of a step, where such a value would count once for each of them.
"""

from __future__ import annotations

from optlang import ir
from optlang.ir import Node, Program
from optlang.types import Extent


def without_lone_reductions(program: Program) -> Program:
    """The program with such reductions written as what they are."""
    roots = program.all_roots()
    return program.replaced(ir.rewrite(roots, _value)) if any(map(_is_lone, ir.walk(roots))) else program


def _is_lone(node: Node) -> bool:
    return isinstance(node.value, Extent) and bool(node.args) and node.value.level == node.args[0].type.extent.level != "array"


def _value(node: Node) -> Node | None:
    if not _is_lone(node):
        return None
    x = node.args[0]
    match node.op:
        case "sum" | "mean" | "amax" | "amin":
            return x
        case "count":
            return ir.make("pow", (x, ir.const(0)))  # 1, and still one of each: what adds them up again may
        case "quantile":
            share = node.args[1]
            if share.op == "const":
                return x if 0 <= share.value <= 1 else ir.make("mul", (x, ir.const(float("nan"))))
            inside = ir.make("eq", (ir.make("minimum", (ir.make("maximum", (share, ir.const(0))), ir.const(1))), share))
            return ir.make("where", (inside, x, ir.const(float("nan"))))
    return None
