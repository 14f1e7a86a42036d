"""Tables: settings of many numbers, such as the weights of a network, and the sums that are weighted by their columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optlang import ir
from optlang.errors import Span
from optlang.front import syntax
from optlang.lower.context import Table, Value
from optlang.lower.declarations import setting
from optlang.lower.expressions import make

if TYPE_CHECKING:
    from optlang.lower.frames import Frame


def named(frame: Frame | None, name: str) -> Table | None:
    """The table of that name here, or in a frame around."""
    while frame is not None:
        if name in frame.tables:
            return frame.tables[name]
        frame = frame.parent
    return None


def refuse(frame: Frame, name: str, span: Span) -> None:
    """A table where a value is wanted."""
    frame.report("T01", f"`{name}` is a table, not a value", span, "", f"its columns weigh values: `dense({name}, 1, x, …)`")


def dense(frame: Frame, call: syntax.Call) -> Value:
    """`dense(table, n, x, …)`: values times the n-th column, and its last number where that is one more. None where reported."""
    args = [arg.value for arg in call.args if arg.value is not None and not arg.name and not arg.per]
    if len(args) < len(call.args) or len(args) < 3:
        frame.report("N10", "`dense` takes a table, the number of a column and values", call.span, "", "as in `dense(weights, 1, g, m')`")
        return None
    table = _table(frame, args[0])
    column = setting(frame, args[1], "int", "the number of a column")
    values = [frame.lower(arg) for arg in args[2:]]
    if table is None or column is None or any(value is None for value in values):
        return None
    if not 1 <= column <= table.cols:
        frame.report("R02", f"the table has columns 1 to {table.cols}", args[1].span, "no such column", "")
        return None
    if len(values) not in (table.rows, table.rows - 1):
        frame.report("N10", f"a table of {table.rows} rows weighs {table.rows} values, or {table.rows - 1} and a constant", call.span,
                     f"{len(values)} values", "")  # fmt: skip
        return None
    return _weighted(frame, call, table, int(column), values)


def _table(frame: Frame, expr: syntax.Expr) -> Table | None:
    name = expr.id if isinstance(expr, syntax.Name) and not expr.primed else ""
    table = named(frame, name)
    if table is None and frame.lower(expr) is not None:
        frame.report("T01", "the first argument of `dense` is a table", expr.span, "not a table", "declare it: `hyper weights[8, 4] = 0`")
    return table


def _weighted(frame: Frame, call: syntax.Call, table: Table, column: int, values: list[Value]) -> Value:
    total: Value = None
    for row, value in enumerate([*values, *[ir.const(1)] * (table.rows - len(values))], 1):
        weight = ir.hyper(ir.cell(table.name, row, column), "real")
        term = weight if row > len(values) else make(frame, "mul", [weight, value], call.span)
        total = term if total is None else make(frame, "add", [total, term], call.span)
    return total
