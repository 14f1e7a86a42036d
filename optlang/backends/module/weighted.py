"""Sums that a column of a table weighs: lowering writes them out, and a reader wants to see the `dense(weights, 1, x, …)` of the rule."""

from __future__ import annotations

from collections.abc import Mapping

from optlang import ir
from optlang.backends.module.leaves import place_in_table
from optlang.backends.module.scene import Weighted
from optlang.ir import Node, Program
from optlang.types import ELEMENT


def weighted(program: Program) -> tuple[Program, dict[Node, Weighted]]:
    """The program with marks in place of sums over all rows of a table, and these sums."""
    rows = {h.table: place_in_table(h.name)[0] for h in program.hypers if h.table}  # the last number of each table has the last row
    marks: dict[Node, Node] = {}
    sums: dict[Node, Weighted] = {}

    def marked(node: Node) -> Node | None:
        if node not in marks and (found := _weighted(node, rows)) is not None:
            marks[node] = ir.input_(f"sum {len(marks)}", node.type)
            sums[marks[node]] = found
        return marks.get(node)

    return (program.replaced(ir.rewrite(program.all_roots(), marked)), sums) if rows else (program, {})


def _weighted(node: Node, rows: Mapping[str, int]) -> Weighted | None:
    """`weights[1,n]*x + weights[2,n]*y + …` for each element, to the last row, which may stand alone."""
    if node.op != "add" or node.type.extent != ELEMENT:
        return None
    terms, left = [], node
    while left.op == "add":
        left, term = left.args
        terms.append(term)
    first, *others = reversed([*terms, left])
    alone = [others.pop()] if others[-1].op == "hyper" else []
    products = [first, *others]
    if not all(product.op == "mul" and product.args[0].op == "hyper" for product in products):
        return None
    weights = [*(product.args[0] for product in products), *alone]
    values = tuple(product.args[1] for product in products)
    table = str(weights[0].value).partition("[")[0]
    column = place_in_table(str(weights[0].value))[1] if table in rows else 0
    whole = [ir.cell(table, row, column) for row in range(1, rows.get(table, 0) + 1)]
    fit = all(v.type.extent == ELEMENT or v.type.extent.level in ("host", "tensor") for v in values) and not node.type.window
    return Weighted(weights[0], values, node) if [weight.value for weight in weights] == whole and fit else None
