"""The surface syntax tree: what was written, with spans. Only the parser, the formatter and `lower` see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from optlang.errors import Source, Span

# ---------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Number:
    span: Span
    text: str  # as written, so that the formatter can print it back


@dataclass(frozen=True, slots=True)
class Text:
    span: Span
    value: str


@dataclass(frozen=True, slots=True)
class Name:
    span: Span
    id: str  # NFC, without the prime
    primed: bool = False


@dataclass(frozen=True, slots=True)
class Unary:
    span: Span
    op: Literal["-", "not"]
    value: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`op` is one of + - * / ^ @ < <= > >= == != and or."""

    span: Span
    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Transpose:
    span: Span
    value: Expr


@dataclass(frozen=True, slots=True)
class Arg:
    """`x`, `lr = x`, `x per row` or the bare `per model` of a draw (value None)."""

    span: Span
    value: Expr | None
    name: str = ""
    per: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    span: Span
    func: str
    func_span: Span
    args: tuple[Arg, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """Stands for an expression that could not be read and has been reported; nothing more is said about it."""

    span: Span


Expr = Number | Text | Name | Unary | Binary | Transpose | Call | Broken

# ----------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Range:
    span: Span
    low: Expr
    high: Expr
    low_open: bool
    high_open: bool


@dataclass(frozen=True, slots=True)
class Hyper:
    span: Span
    kind: Literal["real", "int", "bool"]
    name: str
    name_span: Span
    default: Expr
    range: Range | None
    doc: str
    shape: tuple[Expr, Expr] | None = None


@dataclass(frozen=True, slots=True)
class Input:
    span: Span
    name: str
    name_span: Span
    per: str
    doc: str


@dataclass(frozen=True, slots=True)
class State:
    span: Span
    name: str
    name_span: Span
    window: Expr | None
    per: str  # empty: element
    init: Expr
    shape: tuple[Expr, Expr] | None = None


@dataclass(frozen=True, slots=True)
class Equation:
    span: Span
    target: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Eval:
    """`eval = expr`: the weights to evaluate with."""

    span: Span
    value: Expr


@dataclass(frozen=True, slots=True)
class Report:
    """`report name = expr`: a scalar that the training loop may read."""

    span: Span
    name: str
    name_span: Span
    value: Expr


@dataclass(frozen=True, slots=True)
class Every:
    span: Span
    period: Expr
    start: Expr | None
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class When:
    span: Span
    condition: Expr
    body: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    span: Span
    count: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Return:
    span: Span
    value: Expr


Statement = Hyper | Input | State | Equation | Eval | Report | Every | When | Repeat | Return

# ------------------------------------------------------------------------------------------------------ top level


@dataclass(frozen=True, slots=True)
class Rule:
    span: Span
    name: str
    name_span: Span
    doc: str
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    span: Span
    name: str
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Def:
    """A function. `def f(x) = expr` is kept as a body of one Return with `short` set."""

    span: Span
    name: str
    name_span: Span
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    short: bool


@dataclass(frozen=True, slots=True)
class Branch:
    """`when cond use Rule(...)`; the condition of `otherwise use` is None."""

    span: Span
    condition: Expr | None
    call: Call


@dataclass(frozen=True, slots=True)
class Route:
    span: Span
    name: str
    name_span: Span
    doc: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Import:
    span: Span
    module: str
    module_span: Span
    names: tuple[Name, ...]


Item = Rule | Def | Route | Import


@dataclass(frozen=True, slots=True)
class Comment:
    span: Span  # from `#` to the end of the line
    text: str


@dataclass(frozen=True, slots=True)
class File:
    source: Source
    items: tuple[Item, ...]
    comments: tuple[Comment, ...]
