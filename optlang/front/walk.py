"""The parts of a syntax tree, in source order."""

from __future__ import annotations

from collections.abc import Iterable

from optlang.front import syntax


def calls_of(body: Iterable[syntax.Statement]) -> list[tuple[str, syntax.Call]]:
    """Every call below some statements in source order, each with the name of the equation that holds it ('' if primed)."""
    found: list[tuple[str, syntax.Call]] = []
    for statement in body:
        holder = statement.target.id if isinstance(statement, syntax.Equation) and not statement.target.primed else ""
        found.extend((holder, call) for call in _calls(expressions_of(statement)))
        for inner in blocks_of(statement):
            found.extend(calls_of(inner))
    return found


def expressions_of(statement: syntax.Statement) -> list[syntax.Expr]:
    """The expressions of a statement itself, those of its blocks left out."""
    match statement:
        case syntax.Hyper(default=default):
            return [default]
        case syntax.State(window=window, init=init, shape=shape):
            return [*([] if window is None else [window]), *(shape or ()), init]
        case syntax.Every(period=period, start=start):
            return [period] if start is None else [period, start]
        case syntax.When(condition=condition):
            return [condition]
        case syntax.Repeat(count=count):
            return [count]
        case syntax.Input():
            return []
        case _:
            return [statement.value]


def blocks_of(statement: syntax.Statement) -> list[tuple[syntax.Statement, ...]]:
    """The bodies inside a statement."""
    match statement:
        case syntax.Every(body=body, otherwise=otherwise) | syntax.When(body=body, otherwise=otherwise):
            return [body, otherwise]
        case syntax.Repeat(body=body):
            return [body]
        case _:
            return []


def parts(expr: syntax.Expr) -> list[syntax.Expr]:
    """The operands of a written expression, left to right."""
    match expr:
        case syntax.Binary(left=left, right=right):
            return [left, right]
        case syntax.Unary(value=value) | syntax.Transpose(value=value):
            return [value]
        case syntax.Call(args=args):
            return [arg.value for arg in args if arg.value is not None]
        case _:
            return []


def every_part(roots: Iterable[syntax.Expr]) -> list[syntax.Expr]:
    """All expressions below the roots, in source order."""
    found: list[syntax.Expr] = []
    stack = list(roots)[::-1]
    while stack:
        expr = stack.pop()
        found.append(expr)
        stack.extend(reversed(parts(expr)))
    return found


def _calls(roots: Iterable[syntax.Expr]) -> list[syntax.Call]:
    found = [e for e in every_part(roots) if isinstance(e, syntax.Call)]
    return sorted(found, key=lambda call: call.span.start)
