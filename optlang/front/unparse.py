"""Expressions and heads of statements as text: fewest parentheses, one way to set spaces. The layout of files is in `format`."""

from __future__ import annotations

from optlang.front import syntax as s
from optlang.ops import ROWS

PRECEDENCE: dict[str, int] = {row.infix[0]: row.infix[1] for row in ROWS if row.infix is not None}
NOT, NEGATION, POWER, POSTFIX, ATOM = 2, 6, 7, 8, 9
COMPARISON = PRECEDENCE["<"]
BREAK = "\v"  # stands where a long line may be broken; becomes a space or the end of a line
LINE_END = BREAK * 2  # where a long function goes on in a new line

Entry = s.Item | s.Statement | s.Branch

# ----------------------------------------------------------------------------------------------------- expressions


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
    apart = ops.count("/") >= 2
    for number, link in enumerate(links):
        parts += [_spaced(link.op, apart and (link.op == "*" or (number > 0 and ops[number - 1] == "/"))), _right(link)]
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


def _spaced(op: str, apart: bool) -> str:
    """The operator with its spaces. Products are set tight, except where two or more divisions need to be told apart:
    `lr/(1 - beta1^t) * m'/h'`, `m'/(1 - beta1^t) / (sqrt(v') + eps)`."""
    if op == "^" or (op in "*/" and not apart):
        return op
    return f"{BREAK}{op} "


# ------------------------------------------------------------------------------------------------------ statements


def head_of(entry: Entry) -> str:
    """A statement up to its body, without alignment. May hold BREAKs."""
    match entry:
        case s.Rule(name=name, doc=doc):
            return f"rule {name}{_doc(doc)}"
        case s.Route(name=name, doc=doc):
            return f"route {name}{_doc(doc)}"
        case s.Def(name=name, parameters=parameters, body=body, short=short):
            head = f"def {name}({f',{BREAK}'.join(map(_parameter, parameters))})"
            return f"{head} ={LINE_END}{head_of(body[0])[len('return '):]}" if short else head
        case s.Import(module=module, names=names):
            return f"from {module} import {f',{BREAK}'.join(name.id for name in names)}"
        case s.Branch(condition=condition, call=call):
            test = "otherwise" if condition is None else f"when {with_breaks(condition)}"
            return f"{test}{BREAK}use {with_breaks(call)}"
        case _:
            return _statement(entry)


def _statement(statement: s.Statement) -> str:
    match statement:
        case s.Hyper():
            return " ".join(cell for cell in hyper_cells(statement) if cell)
        case s.Input(name=name, per=per, doc=doc):
            return f"input {name}{_per(per)}{_doc(doc)}"
        case s.State(name=name, window=window, per=per, init=init, shape=shape):
            sizes = ", ".join(with_breaks(size) for size in shape or ([window] if window else []))
            return f"state {name}{f'[{sizes}]' if sizes else ''}{_per(per)} = {with_breaks(init)}"
        case s.Equation(target=target, value=value):
            return f"{written(target)} = {with_breaks(value)}"
        case s.Eval(value=value):
            return f"eval = {with_breaks(value)}"
        case s.Report(name=name, value=value):
            return f"report {name} = {with_breaks(value)}"
        case s.Every(period=period, start=start):
            return f"every {with_breaks(period)}{f' from {with_breaks(start)}' if start else ''}"
        case s.When(condition=condition):
            return f"when {with_breaks(condition)}"
        case s.Repeat(count=count):
            return f"repeat {with_breaks(count)}"
        case s.Return(value=value):
            return f"return {with_breaks(value)}"


def _doc(doc: str) -> str:
    return f' "{doc}"' if doc else ""


def _per(word: str) -> str:
    return f" per {word}" if word else ""


def _parameter(parameter: s.Parameter) -> str:
    return parameter.name if parameter.default is None else f"{parameter.name} = {with_breaks(parameter.default)}"


def _range(range_: s.Range | None) -> str:
    if range_ is None:
        return ""
    low, high = written(range_.low), written(range_.high)
    return f"in {'(' if range_.low_open else '['}{low}, {high}{')' if range_.high_open else ']'}"


def hyper_cells(hyper: s.Hyper) -> list[str]:
    kind = "" if hyper.kind == "real" else f"{hyper.kind} "
    sizes = f"[{', '.join(map(written, hyper.shape))}]" if hyper.shape else ""
    return [f"hyper {kind}{hyper.name}{sizes}", f"= {written(hyper.default)}", _range(hyper.range), _doc(hyper.doc).strip()]
