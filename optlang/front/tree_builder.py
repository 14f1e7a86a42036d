"""The syntax tree, made by the parser at each reduction. One method per rule of the grammar; children hold all lexemes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lark import Transformer

from optlang.errors import Span
from optlang.front import syntax as s
from optlang.front.scan import Lexeme

Children = list[Any]


def span_of(children: Children) -> Span:
    """From the first to the last child that is there."""
    there = [c for c in children if c is not None]
    return there[0].span.to(there[-1].span)


def text_of(lexeme: Lexeme | None) -> str:
    """What stands between the quotes; empty where there is nothing."""
    return "" if lexeme is None else lexeme.text[1:-1]


class Builder(Transformer[Lexeme, Any]):
    """Lark calls the method named like the rule."""

    def __init__(self) -> None:
        super().__init__(visit_tokens=False)

    def start(self, c: Children) -> list[s.Item]:
        return c

    # -------------------------------------------------------------------------------------------------- top level

    def rule(self, c: Children) -> s.Rule:
        _, name, doc, _, *body, _ = c
        return s.Rule(span_of(c), name.text, name.span, text_of(doc), tuple(body))

    def def_(self, c: Children) -> s.Def:
        _, name, _, parameters, _, (body, short, end) = c
        return s.Def(c[0].span.to(end), name.text, name.span, parameters or (), body, short)

    def short(self, c: Children) -> tuple[tuple[s.Statement, ...], bool, Span]:
        return (s.Return(c[1].span, c[1]),), True, c[1].span

    def body(self, c: Children) -> tuple[tuple[s.Statement, ...], bool, Span]:
        statements, span = c[0]
        return statements, False, span

    def block(self, c: Children) -> tuple[tuple[s.Statement, ...], Span]:
        return tuple(c[1:-1]), c[-1].span

    def parameters(self, c: Children) -> tuple[s.Parameter, ...]:
        return tuple(x for x in c if isinstance(x, s.Parameter))

    def parameter(self, c: Children) -> s.Parameter:
        name, _, default = c
        return s.Parameter(span_of(c), name.text, default)

    def route(self, c: Children) -> s.Route:
        _, name, doc, _, *branches, _ = c
        return s.Route(span_of(c), name.text, name.span, text_of(doc), tuple(branches))

    def when_use(self, c: Children) -> s.Branch:
        return s.Branch(span_of(c), c[1], c[3])

    def otherwise_use(self, c: Children) -> s.Branch:
        return s.Branch(span_of(c), None, c[2])

    def import_(self, c: Children) -> s.Import:
        return s.Import(span_of(c), c[1].text, c[1].span, tuple(x for x in c if isinstance(x, s.Name)))

    def imported(self, c: Children) -> s.Name:
        return s.Name(c[0].span, c[0].text)

    # ------------------------------------------------------------------------------------------------- statements

    def hyper(self, c: Children) -> s.Hyper:
        _, first, second, shape, _, default, range_, doc = c
        name = first if second is None else second
        return s.Hyper(span_of(c), "real" if second is None else first.text, name.text, name.span, default, range_, text_of(doc), shape)

    def range(self, c: Children) -> s.Range:
        _, opening, low, _, high, closing = c
        return s.Range(opening.span.to(closing.span), low, high, opening.text == "(", closing.text == ")")

    def opening(self, c: Children) -> Lexeme:
        return c[0]

    closing = opening

    def input(self, c: Children) -> s.Input:
        _, name, per, doc = c
        return s.Input(span_of(c), name.text, name.span, per.text if per else "", text_of(doc))

    def state(self, c: Children) -> s.State:
        _, name, window, per, _, init = c
        shape, window = (window, None) if isinstance(window, tuple) else (None, window)
        return s.State(span_of(c), name.text, name.span, window, per.text if per else "", init, shape)

    def window(self, c: Children) -> s.Expr:
        return c[1]

    def shape(self, c: Children) -> tuple[s.Expr, s.Expr]:
        return c[1], c[3]

    def per(self, c: Children) -> Lexeme:
        return c[1]

    def equation(self, c: Children) -> s.Equation:
        target = c[0] if isinstance(c[0], s.Name) else s.Name(c[0].span, f"…{c[0].span.start}")  # a name that nobody reads
        return s.Equation(span_of(c), target, c[2])

    def eval(self, c: Children) -> s.Eval:
        return s.Eval(span_of(c), c[2])

    def report(self, c: Children) -> s.Report:
        return s.Report(span_of(c), c[1].text, c[1].span, c[3])

    def every(self, c: Children) -> s.Every:
        every, period, _, start, (body, end), otherwise = c
        rest, end = otherwise or ((), end)
        return s.Every(every.span.to(end), period, start, body, rest)

    def when(self, c: Children) -> s.When:
        when, condition, (body, end), otherwise = c
        rest, end = otherwise or ((), end)
        return s.When(when.span.to(end), condition, body, rest)

    def repeat(self, c: Children) -> s.Repeat:
        repeat, count, (body, end) = c
        return s.Repeat(repeat.span.to(end), count, body)

    def return_(self, c: Children) -> s.Return:
        return s.Return(span_of(c), c[1])

    def otherwise(self, c: Children) -> tuple[tuple[s.Statement, ...], Span]:
        return c[1]

    # ------------------------------------------------------------------------------------------------ expressions

    def binary(self, c: Children) -> s.Binary:
        return s.Binary(span_of(c), c[1].text, c[0], c[2])

    compared = binary

    def unary(self, c: Children) -> s.Unary:
        return s.Unary(span_of(c), c[0].text, c[1])

    def transpose(self, c: Children) -> s.Transpose:
        return s.Transpose(span_of(c), c[0])

    def group(self, c: Children) -> s.Expr:
        return replace(c[1], span=span_of(c))

    def number(self, c: Children) -> s.Number:
        return s.Number(c[0].span, c[0].text)

    def text(self, c: Children) -> s.Text:
        return s.Text(c[0].span, text_of(c[0]))

    def name(self, c: Children) -> s.Expr:
        return s.Name(c[0].span, c[0].text) if c[0].text else s.Broken(c[0].span)  # the parser mends with nameless names

    def primed(self, c: Children) -> s.Name:
        return s.Name(c[0].span, c[0].text, primed=True)

    def call(self, c: Children) -> s.Expr:
        if not c[0].text:
            return s.Broken(span_of(c))
        return s.Call(span_of(c), c[0].text, c[0].span, c[2] or ())

    def args(self, c: Children) -> tuple[s.Arg, ...]:
        return tuple(x for x in c if isinstance(x, s.Arg))

    def plain(self, c: Children) -> s.Arg:
        return s.Arg(span_of(c), c[0], per=c[1].text if c[1] else "")

    def named(self, c: Children) -> s.Arg:
        return s.Arg(span_of(c), c[2], name=c[0].text)

    def bare_per(self, c: Children) -> s.Arg:
        return s.Arg(c[0].span, None, per=c[0].text)
