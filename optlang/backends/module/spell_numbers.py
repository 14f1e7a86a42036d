"""Operators on numbers as Python text: with Python's own arithmetic, or torch's where a number may be a tensor or Python would raise."""

from __future__ import annotations

from collections.abc import Sequence

from optlang.backends.module.numbers import Numbers
from optlang.ir import Node
from optlang.printing.precedence import Piece, chained
from optlang.printing.python_text import (
    BIT_AND,
    BIT_OR,
    BIT_XOR,
    LEVELS,
    MINUS,
    NOT,
    POWER,
    PRODUCT,
    call,
    infix,
    is_one_call,
    ternary,
)

MATH = frozenset(["sqrt", "cbrt", "exp", "log", "sin", "cos", "atan", "tanh", "atan2", "isnan", "isfinite", "floor", "ceil"])
LEARNED = MATH - {"isnan", "isfinite", "floor", "ceil"}  # those that have derivatives
IN_TORCH = {"div": "div", "mod": "remainder", "pow": "pow"}


def root(x: Piece) -> Piece:
    """A square root of a number that may be a tensor."""
    return chained(x, "**", Piece("0.5"), POWER, tight=True, associates="right")


def number(node: Node, args: Sequence[Piece], numbers: Numbers) -> Piece:
    if node in numbers.raises and node.op not in ("sum", "mean"):
        return _in_torch(node, args, numbers)
    match node.op:
        case "and" | "or":
            return chained(args[0], node.op, args[1], LEVELS[node.op])
        case "not":
            return Piece(f"not {args[0].inside(NOT)}", NOT)
        case "neg":
            return Piece(f"-{args[0].inside(MINUS)}", MINUS)
        case "where" | "branch":
            return ternary(*args)
        case "spread":
            return args[0]
        case "maximum" | "minimum":
            name = node.op[:3]
            first = args[0].text
            inner = first[4:-1] if node.args[0].op == node.op and first.startswith(f"{name}(") and is_one_call(first) else first
            return call(name, inner, args[1].text)
        case "abs" | "round":
            return call(node.op, args[0].text)
        case "mod":
            return chained(args[0], "%", args[1], PRODUCT)
        case op if op in MATH:
            return _function(op, args, op in LEARNED and node in numbers.learned)
    return infix(node, args)


def _function(op: str, args: Sequence[Piece], is_learned: bool) -> Piece:
    """A function of Python's, or one that goes through gradients of numbers."""
    match op if is_learned else "":
        case "":
            return call(f"math.{op}", *(a.text for a in args))
        case "sqrt":
            return root(args[0])
        case "cbrt":
            return chained(call("_ieee", "torch.sign", args[0].text), "*", Piece(f"abs({args[0].text})**(1 / 3)", POWER), PRODUCT)
    return call("_ieee", f"torch.{op}", *(a.text for a in args))


def _in_torch(node: Node, args: Sequence[Piece], numbers: Numbers) -> Piece:
    """A function of numbers as torch computes it."""
    function = "_moving" if node in numbers.moving else "_ieee"
    return call(function, f"torch.{IN_TORCH.get(node.op, node.op)}", *(a.text for a in args))


def moving_number(node: Node, args: Sequence[Piece], numbers: Numbers) -> Piece:
    """As Python's numbers and torch's tensors have it, either of which it may be."""
    texts = [a.text for a in args]
    match node.op:
        case "where" | "branch" if node.args[0] in numbers.moving:
            return call("_where", *texts)
        case "maximum" | "minimum" if node not in numbers.raises:
            return call(f"_{node.op[:3]}", *texts)
        case "sqrt" if node not in numbers.raises:
            return root(args[0])
        case "and" | "or":
            return chained(args[0], "&" if node.op == "and" else "|", args[1], BIT_AND if node.op == "and" else BIT_OR)
        case "not":
            return chained(args[0], "^", Piece("True"), BIT_XOR)
        case op if op == "round" or (op in MATH and op != "sqrt"):
            return _in_torch(node, args, numbers)
    return number(node, args, numbers)
