"""Reductions of one value per tensor to one per tensor: there is nothing to reduce, and a Python number could not be asked to."""

from __future__ import annotations

from optlang import ir
from optlang.ir import Node, Program
from optlang.types import Extent

ONE = ir.make("pow", (ir.fact("numel"), ir.const(0)))  # still a value of each tensor: what counts or adds them up again may


def without_lone(program: Program) -> Program:
    """The program with such reductions written as what they are."""
    return program.replaced(ir.rewrite(program.all_roots(), _lone))


def _lone(node: Node) -> Node | None:
    if not (isinstance(node.value, Extent) and node.args and node.value.level == "tensor" == node.args[0].type.extent.level):
        return None
    x = node.args[0]
    match node.op:
        case "sum" | "mean" | "amax" | "amin":
            return x
        case "count":
            return ONE
        case "quantile":
            share = node.args[1]
            if share.op == "const":
                return x if 0 <= share.value <= 1 else ir.const(float("nan"))
            inside = ir.make("and", (ir.make("le", (ir.const(0), share)), ir.make("le", (share, ir.const(1)))))
            return ir.make("where", (inside, x, ir.const(float("nan"))))
    return None
