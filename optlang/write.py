"""Expressions as text: fewest parentheses, one way to set spaces. The layout of files is in `format`."""

from __future__ import annotations

from collections.abc import Sequence

from optlang import syntax as s
from optlang.ops import ROWS

PRECEDENCE: dict[str, int] = {row.infix[0]: row.infix[1] for row in ROWS if row.infix is not None}
NOT, NEGATION, POWER, POSTFIX, ATOM = 2, 6, 7, 8, 9
COMPARISON, PRODUCT = PRECEDENCE["<"], PRECEDENCE["*"]
BREAK = "\v"  # stands where a long line may be broken; becomes a space or the end of a line


def written(expr: s.Expr) -> str:
    """The text of an expression on one line."""
    return with_breaks(expr).replace(BREAK, " ")


def with_breaks(expr: s.Expr) -> str:
    """The text of an expression with BREAK for every space at which a line may end."""
    match expr:
        case s.Number(text=text):
            return text
        case s.Text(value=value):
            return f'"{value}"'
        case s.Name(id=name, primed=primed):
            return name + "'" * primed
        case s.Broken():
            return "…"
        case s.Unary(op=op, value=value):
            return f"not {_inside(value, NOT)}" if op == "not" else f"-{_inside(value, POWER)}"
        case s.Transpose(value=value):
            return (f"({with_breaks(value)})" if isinstance(value, s.Number) else _inside(value, POSTFIX)) + ".T"
        case s.Call(func=func, args=args):
            return f"{func}({f',{BREAK}'.join(map(_arg, args))})"
        case s.Binary():
            return _chain(expr)


def _arg(arg: s.Arg) -> str:
    words = [f"{arg.name} ="] if arg.name else []
    words += [with_breaks(arg.value)] if arg.value is not None else []
    return " ".join(words + ([f"per {arg.per}"] if arg.per else []))


def _level(expr: s.Expr) -> int:
    match expr:
        case s.Binary(op=op):
            return PRECEDENCE[op]
        case s.Unary(op=op):
            return NOT if op == "not" else NEGATION
        case s.Transpose():
            return POSTFIX
        case _:
            return ATOM


def _inside(expr: s.Expr, least: int) -> str:
    """An operand, in parentheses if it binds less tightly than `least`."""
    text = with_breaks(expr)
    return f"({text})" if _level(expr) < least else text


def _chain(expr: s.Binary) -> str:
    """A chain of operators of one precedence, such as `a - b + c`. Long chains lean to the left and are walked, not recursed."""
    level = PRECEDENCE[expr.op]
    links: list[s.Binary] = [expr]
    while isinstance(left := links[-1].left, s.Binary) and _continues(left, links[-1], level):
        links.append(left)
    links.reverse()
    parts = [_inside(links[0].left, _left_least(links[0]))]
    ops = [link.op for link in links]
    for number, link in enumerate(links):
        parts += [_spaced(ops, number), _right(link)]
    return "".join(parts)


def _continues(left: s.Binary, above: s.Binary, level: int) -> bool:
    """`a < b < c` is kept as it was written, for the message about it; with parentheses it is another thing."""
    if PRECEDENCE[left.op] != level or level == POWER:
        return False
    return level != COMPARISON or above.span.start == left.span.start == left.left.span.start


def _left_least(link: s.Binary) -> int:
    return POSTFIX if link.op == "^" else PRECEDENCE[link.op] + (PRECEDENCE[link.op] == COMPARISON)


def _right(link: s.Binary) -> str:
    """The right operand. A minus after an arithmetic operator stands in parentheses: `t^(-decay)`."""
    level = PRECEDENCE[link.op]
    if level > COMPARISON and isinstance(link.right, s.Unary):
        return f"({with_breaks(link.right)})"
    return _inside(link.right, level if level == POWER else level + 1)


def _spaced(ops: Sequence[str], number: int) -> str:
    """The operator with its spaces. Products are set tight, except where two or more divisions need to be told apart:
    `lr/(1 - beta1^t) * m'/h'`, `m'/(1 - beta1^t) / (sqrt(v') + eps)`."""
    op = ops[number]
    if op == "^":
        return op
    if op not in "*/":
        return f"{BREAK}{op} "
    if ops.count("/") >= 2 and (op == "*" or (number and ops[number - 1] == "/")):
        return f"{BREAK}{op} "
    return op
