"""Expressions as a person writes them: literals in front of what they multiply, and no minus where a sum or difference says it.

Every change is exact in floating point: products and sums of two may be turned round, and a minus may go from a term to its sum.
"""

from __future__ import annotations

from optlang import ir
from optlang.errors import Source
from optlang.front.format import canonical
from optlang.ir import Node, Program
from optlang.printing.rule_text import to_opt
from optlang.search.distil.listing import update, value_of
from optlang.search.programs.genome import constant
from optlang.types import TypeProblem


def worded(program: Program) -> Program:
    """The same program, better to read."""
    try:
        table = ir.rewrite(program.all_roots(), _step)
        return program.replaced({**table, program.weights: ir.sub(ir.W, table[update(program)])})
    except (TypeProblem, ValueError):  # not of the form w' = w - u
        return program


def written(program: Program) -> str:
    """The text of a `.opt` file, in canonical style."""
    return canonical(Source(to_opt(worded(program), by_hand=True)))


def _step(node: Node) -> Node | None:
    """One change, if there is one."""
    if node.op in ("add", "sub") and all(map(_is_number, node.args)):
        return constant(float(value_of(node)))
    match node.op:
        case "mul" if _is_number(node.args[1]) and not _is_number(node.args[0]):
            return ir.mul(node.args[1], node.args[0])
        case "add" | "sub" if (positive := _without_minus(node.args[1])) is not None:
            return ir.make("sub" if node.op == "add" else "add", (node.args[0], positive))
        case "add" if (positive := _without_minus(node.args[0])) is not None:
            return ir.sub(node.args[1], positive)
        case "minimum" | "maximum":
            return ir.make(node.op, [constant(float(arg.value)) if _is_number(arg) else arg for arg in node.args])
    return None


def _without_minus(node: Node) -> Node | None:
    """What is below a minus: of -x, of a negative literal, or of such a literal times x."""
    if node.op == "neg":
        return node.args[0]
    if _is_number(node) and node.value < 0:
        return ir.const(-node.value)
    if node.op == "mul" and _is_number(node.args[0]) and node.args[0].value < 0:
        return node.args[1] if node.args[0].value == -1 else ir.mul(ir.const(-node.args[0].value), node.args[1])
    return None


def _is_number(node: Node) -> bool:
    return node.op == "const" and not isinstance(node.value, bool)
