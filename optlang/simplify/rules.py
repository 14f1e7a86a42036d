"""The rewrite rules, as data in the language's own syntax, and the reader that turns them into patterns.

A rule is (left, right, meaning). In it `x y z` stand for any value, `a b c` for numbers known before the step, `p q` for
truth values and `k` for a literal power of two; the same letter twice means the same expression twice. A reduction on the
right keeps what the one on the left reduces to. `exact` rules give the same bits in float32, for infinities, NaN and
signed zeros too. `real` rules hold for real numbers only, and need the accuracy guard's consent in `safe` mathematics.
Every rule must lower the cost of something; the tests hold each to its value and its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from optlang.errors import Source
from optlang.front import syntax
from optlang.front.parser import parse
from optlang.ops import OPS, REDUCTIONS, ROWS

Meaning = Literal["exact", "real"]
Text = tuple[str, str, Meaning]

TEXTS: tuple[Text, ...] = (
    # neutral elements and signs
    ("x*1", "x", "exact"), ("x/1", "x", "exact"), ("x^1", "x", "exact"), ("x - 0", "x", "exact"), ("x + 0", "x", "real"),
    ("--x", "x", "exact"), ("x*(-1)", "-x", "exact"), ("x/(-1)", "-x", "exact"), ("0 - x", "-x", "real"),
    ("x + -y", "x - y", "exact"), ("x - -y", "x + y", "exact"), ("(-x)*(-y)", "x*y", "exact"), ("(-x)/(-y)", "x/y", "exact"),
    ("x + (-y)*z", "x - y*z", "exact"), ("x - (-y)*z", "x + y*z", "exact"),
    ("x + (-y)/z", "x - y/z", "exact"), ("x - (-y)/z", "x + y/z", "exact"),
    ("-(a*x)", "(-a)*x", "exact"), ("-(x/a)", "x/(-a)", "exact"), ("a*(-x)", "(-a)*x", "exact"), ("-(x - y)", "y - x", "real"),
    ("(-x)^2", "x^2", "exact"), ("abs(x)^2", "x^2", "exact"), ("abs(x^2)", "x^2", "exact"),
    ("abs(-x)", "abs(x)", "exact"), ("abs(abs(x))", "abs(x)", "exact"), ("abs(sqrt(x))", "sqrt(x)", "real"),
    ("sign(sign(x))", "sign(x)", "exact"), ("floor(floor(x))", "floor(x)", "exact"), ("ceil(ceil(x))", "ceil(x)", "exact"),
    ("round(round(x))", "round(x)", "exact"), ("x/k", "x*(1/k)", "exact"),
    # what cancels: right for numbers, wrong for infinities and NaN, so `safe` refuses where those can come
    ("x - x", "0", "real"), ("x*0", "0", "real"), ("0/x", "0", "real"), ("x/x", "1", "real"), ("x + y - y", "x", "real"),
    ("x*y/y", "x", "real"), ("(x - y) + y", "x", "real"),
    # choices
    ("where(true, x, y)", "x", "exact"), ("where(false, x, y)", "y", "exact"), ("where(p, x, x)", "x", "exact"),
    ("branch(true, x, y)", "x", "exact"), ("branch(false, x, y)", "y", "exact"), ("branch(p, x, x)", "x", "exact"),
    ("where(not p, x, y)", "where(p, y, x)", "exact"), ("branch(not p, x, y)", "branch(p, y, x)", "exact"),
    ("where(p, where(p, x, y), z)", "where(p, x, z)", "exact"), ("where(p, x, where(p, y, z))", "where(p, x, z)", "exact"),
    ("branch(p, branch(p, x, y), z)", "branch(p, x, z)", "exact"), ("branch(p, x, branch(p, y, z))", "branch(p, x, z)", "exact"),
    ("not not p", "p", "exact"), ("p and p", "p", "exact"), ("p or p", "p", "exact"), ("p and true", "p", "exact"),
    ("p or false", "p", "exact"), ("p and false", "false", "exact"), ("p or true", "true", "exact"),
    ("max(x, x)", "x", "exact"), ("min(x, x)", "x", "exact"), ("max(x, max(x, y))", "max(x, y)", "real"),
    ("min(x, min(x, y))", "min(x, y)", "real"), ("max(a, max(b, x))", "max(max(a, b), x)", "real"),
    ("min(a, min(b, x))", "min(min(a, b), x)", "real"), ("max(-x, -y)", "-min(x, y)", "real"), ("min(-x, -y)", "-max(x, y)", "real"),
    # powers and roots
    ("sqrt(x^2)", "abs(x)", "real"), ("sqrt(x)^2", "x", "real"), ("sqrt(x)*sqrt(x)", "x", "real"), ("x/sqrt(x)", "sqrt(x)", "real"),
    ("x^0.5", "sqrt(x)", "real"), ("x^(1/2)", "sqrt(x)", "real"), ("x^(-0.5)", "1/sqrt(x)", "real"), ("x^(-1/2)", "1/sqrt(x)", "real"),
    ("x^(-1)", "1/x", "real"), ("x^(-2)", "1/x^2", "real"), ("x^3", "x^2*x", "real"), ("x^4", "(x^2)^2", "real"),
    ("x^1.5", "x*sqrt(x)", "real"), ("(x^a)^b", "x^(a*b)", "real"), ("x^a*x^b", "x^(a + b)", "real"), ("x*x^a", "x^(1 + a)", "real"),
    ("sqrt(x)*sqrt(y)", "sqrt(x*y)", "real"), ("sqrt(x)/sqrt(y)", "sqrt(x/y)", "real"), ("sqrt(x/a)", "(1/sqrt(a))*sqrt(x)", "real"),
    ("exp(x)*exp(y)", "exp(x + y)", "real"), ("log(exp(x))", "x", "real"), ("exp(log(x))", "x", "real"),
    # numbers known before the step meet each other, where they cost nothing
    ("a*(b*x)", "(a*b)*x", "real"), ("a*(x/b)", "(a/b)*x", "real"), ("(a*x)/b", "(a/b)*x", "real"), ("(x/a)/b", "x/(a*b)", "real"),
    ("a/(b*x)", "(a/b)/x", "real"), ("a/(x/b)", "(a*b)/x", "real"), ("a*(b/x)", "(a*b)/x", "real"), ("(b/x)/a", "(b/a)/x", "real"),
    ("x/a", "(1/a)*x", "real"), ("a + (b + x)", "(a + b) + x", "real"), ("a + (x - b)", "(a - b) + x", "real"),
    ("a - (b + x)", "(a - b) - x", "real"), ("a - (x - b)", "(a + b) - x", "real"), ("(x + a) - b", "x + (a - b)", "real"),
    ("(x - a) - b", "x - (a + b)", "real"), ("(a*x)*(b*y)", "(a*b)*(x*y)", "real"), ("(x/a)*(y/b)", "(1/(a*b))*(x*y)", "real"),
    ("(a*x)/(b*y)", "((a/b)*x)/y", "real"), ("(x/a)/(y/b)", "((b/a)*x)/y", "real"),
    ("a*((b*x)/y)", "((a*b)*x)/y", "real"), ("a*((x/b)/y)", "((a/b)*x)/y", "real"), ("a*(x/(b*y))", "((a/b)*x)/y", "real"),
    ("((x/a)/y)/b", "((1/(a*b))*x)/y", "real"), ("(x/a)/y", "((1/a)*x)/y", "real"), ("a*((b*x)*y)", "((a*b)*x)*y", "real"),
    ("a*((x/b)*y)", "((a/b)*x)*y", "real"), ("a*((x/b)/y + c*z)", "((a/b)*x)/y + (a*c)*z", "real"),
    ("(a*x)/(sqrt(y/b) + c)", "((a*sqrt(b))*x)/(sqrt(y) + c*sqrt(b))", "real"),
    ("x/(sqrt(y/b) + c)", "(sqrt(b)*x)/(sqrt(y) + c*sqrt(b))", "real"), ("(a*x)/sqrt(y/b)", "((a*sqrt(b))*x)/sqrt(y)", "real"),
    ("x/sqrt(y/b)", "(sqrt(b)*x)/sqrt(y)", "real"),
    # common factors
    ("x + x", "2*x", "exact"), ("a*(x + x)", "(2*a)*x", "real"), ("x + a*x", "(1 + a)*x", "real"), ("x - a*x", "(1 - a)*x", "real"),
    ("a*x + b*x", "(a + b)*x", "real"), ("a*x - b*x", "(a - b)*x", "real"), ("a*x - x", "(a - 1)*x", "real"),
    ("a*x + a*y", "a*(x + y)", "real"), ("a*x - a*y", "a*(x - y)", "real"), ("x*y + x*z", "x*(y + z)", "real"),
    ("x*y - x*z", "x*(y - z)", "real"), ("x/y + z/y", "(x + z)/y", "real"), ("x/y - z/y", "(x - z)/y", "real"),
    ("x - a*(y + b*x)", "(1 - a*b)*x - a*y", "real"), ("x - a*(b*x + y)", "(1 - a*b)*x - a*y", "real"),
    # fewer divisions
    ("x/y/z", "x/(y*z)", "real"), ("x/(y/z)", "(x*z)/y", "real"), ("(x/y)*(z/y)", "(x*z)/y^2", "real"), ("x*(1/y)", "x/y", "real"),
    ("1/(1/x)", "x", "real"), ("(x*y)/(x*z)", "y/z", "real"), ("(x/z)/(y/z)", "x/y", "real"),
    # reductions: one operation per result instead of one per value
    ("sum(-x)", "-sum(x)", "real"), ("mean(-x)", "-mean(x)", "real"),
    ("amax(-x)", "-amin(x)", "real"), ("amin(-x)", "-amax(x)", "real"),
    ("sum(a*x)", "a*sum(x)", "real"), ("mean(a*x)", "a*mean(x)", "real"), ("sum(x/a)", "sum(x)/a", "real"),
    ("mean(x/a)", "mean(x)/a", "real"),
    ("sqrt(sum((a*x)^2))", "abs(a)*sqrt(sum(x^2))", "real"), ("sqrt(mean((a*x)^2))", "abs(a)*sqrt(mean(x^2))", "real"),
    # matrices
    ("x.T.T", "x", "exact"), ("as_param(as_matrix(x))", "x", "exact"), ("as_matrix(as_param(x))", "x", "exact"),
    ("y.T @ x.T", "(x @ y).T", "real"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pattern:
    """`op` is an operator, or `var` with a letter or `const` with a number as its value."""

    op: str
    args: tuple[Pattern, ...] = ()
    value: str | float | bool | None = None


@dataclass(frozen=True)
class Rule:
    left: Pattern
    right: Pattern
    meaning: Meaning
    text: str

    @cached_property
    def below(self) -> frozenset[str]:
        """The operators right below the root, by which most expressions are told apart at once."""
        return frozenset(arg.op for arg in self.left.args if arg.op != "var")


INFIX: Mapping[str, str] = {row.symbol: row.name for row in ROWS if row.symbol}
CHAINS: Mapping[str, str] = {"max": "maximum", "min": "minimum"}


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule as patterns; read once."""
    sides = [side for left, right, _ in TEXTS for side in (left, right)]
    file, found = parse(Source("\n".join(f"def side() = {side}" for side in sides), "<rewrite rules>"))
    if found:
        raise ValueError(found[0].to_text())
    bodies = [item.body[0] for item in file.items if isinstance(item, syntax.Def)]
    patterns = iter([_pattern(body.value) for body in bodies if isinstance(body, syntax.Return)])
    return tuple(Rule(next(patterns), next(patterns), meaning, f"{left} → {right}") for left, right, meaning in TEXTS)


@cache
def by_root() -> Mapping[str, tuple[Rule, ...]]:
    """The rules by the operator at the root of their left side."""
    found: dict[str, list[Rule]] = {}
    for rule in rules():
        found.setdefault(rule.left.op, []).append(rule)
    return {op: tuple(group) for op, group in found.items()}


def _pattern(expr: syntax.Expr) -> Pattern:
    match expr:
        case syntax.Number(text=text):
            return Pattern("const", (), int(text) if text.isdigit() else float(text))
        case syntax.Name(id="true" | "false" as word):
            return Pattern("const", (), word == "true")
        case syntax.Name(id=letter):
            return Pattern("var", (), letter)
        case syntax.Unary(op=op, value=value):
            inside = _pattern(value)
            if op == "-" and inside.op == "const" and isinstance(inside.value, (int, float)):
                return Pattern("const", (), -inside.value)
            return Pattern("neg" if op == "-" else "not", (inside,))
        case syntax.Binary(op=op, left=left, right=right):
            return _folded(Pattern(INFIX[op], (_pattern(left), _pattern(right))))
        case syntax.Transpose(value=value):
            return Pattern("transpose", (_pattern(value),))
        case syntax.Call(func=func, args=args):
            given = tuple(_pattern(arg.value) for arg in args if arg.value is not None)
            return Pattern(_operator(func, len(given)), given)
    raise ValueError(f"{expr} cannot stand in a rewrite rule")


def _folded(pattern: Pattern) -> Pattern:
    """`1/2` in a rule is the number; quotients of letters stay."""
    values = [arg.value for arg in pattern.args if arg.op == "const" and isinstance(arg.value, (int, float))]
    return Pattern("const", (), values[0] / values[1]) if pattern.op == "div" and len(values) == 2 else pattern


def _operator(name: str, operands: int) -> str:
    if operands > 1 and name in CHAINS:
        return CHAINS[name]
    return name if name in OPS else REDUCTIONS[name]
