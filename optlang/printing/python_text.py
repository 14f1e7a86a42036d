"""Python text: how tightly its operators bind, strings, numbers, calls and choices; for writers of modules with torch and with JAX."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from optlang.ir import Node
from optlang.ops import OPS
from optlang.printing.precedence import ATOM, Piece, chained

OR, AND, NOT, COMPARE, BIT_OR, BIT_XOR, BIT_AND, SUM, PRODUCT, MINUS, POWER = 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12
LEVELS = {"or": OR, "and": AND, "add": SUM, "sub": SUM, "mul": PRODUCT, "div": PRODUCT, "matmul": PRODUCT, "pow": POWER, "mod": PRODUCT}
COMPARISONS = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
SYMBOLS = {"pow": "**", "mod": "%"}


def quoted(text: str) -> str:
    """A Python string of any text."""
    try:
        text.encode()
        return json.dumps(text, ensure_ascii=False)
    except UnicodeEncodeError:
        return json.dumps(text)


def literal(value: float | bool) -> Piece:
    """A constant as a Python number."""
    if value == math.pi:
        return Piece("math.pi")
    if isinstance(value, bool) or math.isfinite(value):
        text = repr(value)
        return Piece(text, ATOM if not text.startswith("-") else MINUS)
    if math.isnan(value):
        return Piece("math.nan")
    return Piece("math.inf") if value > 0 else Piece("-math.inf", MINUS)


def call(function: str, *args: str) -> Piece:
    return Piece(f"{function}({', '.join(args)})")


def ternary(condition: Piece, yes: Piece, no: Piece) -> Piece:
    return Piece(f"{yes.inside(OR)} if {condition.inside(OR)} else {no.inside(0)}", 0)


def infix(node: Node, args: Sequence[Piece]) -> Piece:
    """An operator that is written between its operands."""
    symbol = SYMBOLS.get(node.op, OPS[node.op].symbol)
    level = COMPARE if node.op in COMPARISONS else LEVELS[node.op]
    associates = "none" if node.op in COMPARISONS else "right" if node.op == "pow" else "left"
    return chained(args[0], symbol, args[1], level, tight=node.op == "pow", associates=associates)


def is_one_call(text: str) -> bool:
    """Whether the first parenthesis closes at the end: `max(a, b)`, not `max(a, b)*max(c, d)`."""
    depth = 0
    for place, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if char == ")" and depth == 0:
            return place == len(text) - 1
    return False
