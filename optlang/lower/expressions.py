"""Written expressions become nodes. Names and calls are asked of the frame that the expression stands in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from optlang import ir, ops
from optlang.errors import Source, Span
from optlang.front import syntax
from optlang.lower.context import OF_A_PASS, Context, Value
from optlang.types import TypeProblem

OPERATORS: dict[str, str] = {row.symbol: row.name for row in ops.ROWS if row.symbol}
COMPARISONS = frozenset(["<", "<=", ">", ">=", "==", "!="])


class Scope(Protocol):
    """What an expression needs of its surroundings."""

    context: Context

    @property
    def source(self) -> Source: ...

    def lookup(self, name: syntax.Name) -> Value: ...

    def call(self, call: syntax.Call) -> Value: ...


def lower(scope: Scope, expr: syntax.Expr) -> Value:
    """The node of an expression; None where an error has been reported."""
    match expr:
        case syntax.Number():
            return number(scope, expr)
        case syntax.Name():
            return scope.lookup(expr)
        case syntax.Call():
            return scope.call(expr)
        case syntax.Binary():
            return _binary(scope, expr)
        case syntax.Unary(op=op, value=value, span=span):
            if op == "-" and isinstance(value, syntax.Number):
                positive = number(scope, value)
                return None if positive is None else ir.const(-positive.value)
            return make(scope, "neg" if op == "-" else "not", [lower(scope, value)], span)
        case syntax.Transpose(value=value, span=span):
            return make(scope, "transpose", [lower(scope, value)], span, code="T07")
        case syntax.Text(span=span):
            scope.context.report(scope.source, "R06", "a text stands where a value is needed", span,
                                 "texts belong after a name or a hyper, and in `named(...)`")  # fmt: skip
    return None


def number(scope: Scope, expr: syntax.Number) -> Value:
    """A literal; whole numbers without point or exponent are of kind int."""
    text = expr.text
    value: float | int = int(text) if text.isdigit() else float(text)
    if isinstance(value, int) and value < 2**53:
        return ir.const(value)
    if float(value) != float("inf"):
        return ir.const(float(value))
    scope.context.report(scope.source, "L03", "the number is too large for a float64", expr.span, "at most about 1.8e308",
                         "write `inf` for infinity")  # fmt: skip
    return None


def _binary(scope: Scope, expr: syntax.Binary) -> Value:
    """Long sums lean to the left, so the left spine is walked and not recursed into."""
    spine: list[syntax.Binary] = []
    node: syntax.Expr = expr
    while isinstance(node, syntax.Binary):
        spine.append(node)
        node = node.left
    result = lower(scope, node)
    for step in reversed(spine):
        result = _operator(scope, step, result, lower(scope, step.right))
    return result


def _operator(scope: Scope, expr: syntax.Binary, left: Value, right: Value) -> Value:
    if expr.op in COMPARISONS and isinstance(expr.left, syntax.Binary) and expr.left.op in COMPARISONS:
        scope.context.report(scope.source, "R08", "comparisons cannot be chained", expr.span, "",
                             "write `a < b and b < c`")  # fmt: skip
        return None
    code = "T07" if expr.op == "@" else "T01"
    return make(scope, OPERATORS[expr.op], [left, right], expr.span, code=code)


SIZED = {  # how matrices of different sizes go together
    "mul": "a product of matrices is written `a @ b`",
    "branch": "both sides of a block need one shape; `x @ eye(cols, 4)` keeps 4 columns",
}


def make(
    scope: Scope, op: str, args: list[Value], span: Span, value: ir.Value = None, code: str = "T01"
) -> Value:
    """`ir.make`, with type problems reported at the place and poison passed on in silence."""
    known = [arg for arg in args if arg is not None]
    if len(known) < len(args):
        return None
    scope.context.made(scope.source, span, OF_A_PASS if op in ops.CALLS else 1)
    try:
        return ir.make(op, known, value)
    except TypeProblem as found:
        joined = known[1:] if op == "branch" else known
        matrices = all(arg.type.kind != "bool" and arg.type.extent.left == "element" for arg in joined)
        scope.context.report(scope.source, code, str(found), span, "", SIZED.get(op, "") if matrices and code == "T01" else "")
        return None


def whole(scope: Scope, node: Value) -> int | None:
    """The whole number that a node is when the rule is built, or None. Hypers that decide it become baked."""
    if node is None:
        return None
    result = constant(scope.context, node)
    if result is None or isinstance(result, bool) or result != result or abs(result) == float("inf") or result != int(result):
        return None
    return int(result)


def constant(context: Context, node: ir.Node) -> float | int | bool | None:
    """The value of a node made of numbers and whole-number hypers, or None."""

    def known(node: ir.Node, args: tuple[float | None, ...]) -> float | int | bool | None:
        if node.op == "const":
            value: float | int | bool = node.value
            return value
        if node.op == "hyper":
            return _bake(context, node.value)
        if any(a is None for a in args) or node.op not in _ARITHMETIC:
            return None
        try:
            return _ARITHMETIC[node.op](*args)
        except (ArithmeticError, ValueError):
            return None

    return ir.fold([node], known)[node]


def _bake(context: Context, name: str) -> float | int | bool | None:
    hyper = context.hypers.get(name)
    if hyper is None or hyper.kind == "real":
        return None
    context.shaping.add(name)
    return context.baked.get(name, hyper.default)


_ARITHMETIC: dict[str, Callable[..., float | None]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "pow": lambda a, b: float(a) ** float(b) if a >= 0 else None,
    "floor": lambda a: a // 1,
    "ceil": lambda a: -(-a // 1),
    "sqrt": lambda a: a**0.5 if a >= 0 else None,
    "maximum": max,
    "minimum": min,
}
