"""Single operators, leaves and numbers as text of the language; `rule_text` makes whole rules of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from optlang.ir import Node
from optlang.ops import OPS
from optlang.printing.precedence import ATOM, Piece, chained
from optlang.types import ELEMENT, WORD_OF, Extent

NOT, MINUS, POSTFIX = 2, 6, 8  # how tightly these bind, beside the levels of the operator table
SURFACE = {"maximum": "max", "minimum": "min", "amax": "max", "amin": "min"}


def operation(node: Node, args: list[Piece], tight: str = "^") -> Piece:
    """One operator over the texts of its operands, without blanks around those of `tight`."""
    row = OPS[node.op]
    if row.infix is not None:
        return _infix(row.infix, args, tight)
    if node.op == "neg":
        return Piece(f"-{args[0].inside(MINUS + 1)}", MINUS)
    if node.op == "not":
        return Piece(f"not {args[0].inside(NOT)}", NOT)
    if node.op == "transpose":
        return Piece(f"{args[0].inside(POSTFIX)}.T", POSTFIX)
    if node.op == "spread":
        return args[0]
    texts = [a.text for a in args]
    if row.role == "reduce" and node.value != "window":
        texts[-1] += f" per {node.value.left}"
    return Piece(f"{SURFACE.get(node.op, node.op)}({', '.join(texts)})")


def leaf(node: Node, hypers: Mapping[str, str], states: Mapping[str, str], inputs: Mapping[str, str]) -> Piece:
    """What has no operands, by the names that its rule gives it."""
    match node.op:
        case "const":
            return number(node.value)
        case "hyper":
            return Piece(hypers[node.value])
        case "state":
            return Piece(states[node.value])
        case "input":
            return Piece(inputs[node.value])
        case "fact":
            return Piece(node.value)
        case "places":
            return Piece(f"places({node.value})")
        case "eye":
            return Piece(f"eye({node.value[0]}, {node.value[1]})" if node.value[0] != node.value[1] else f"eye({node.value[0]})")
        case "random":
            return Piece(f"{node.value[0]}({declared(node.type.extent).strip(' []')})")
    return Piece(node.op)


def _infix(infix: tuple[str, int], args: list[Piece], tight: str) -> Piece:
    """No minus stands after an operator, and comparisons stand alone."""
    symbol, level = infix
    left, right = args
    right = Piece(f"({right.text})") if right.text.startswith("-") else right
    sides = "right" if symbol == "^" else "none" if symbol in ("<", "<=", ">", ">=", "==", "!=") else "left"
    return chained(left, symbol, right, level, tight=symbol in tight, associates=sides)


def number(value: float | bool) -> Piece:
    if isinstance(value, bool):
        return Piece(str(value).lower())
    if math.isnan(value):
        return Piece("nan")
    text = "inf" if math.isinf(value) else repr(abs(value))
    negative = value < 0 or (value == 0 and math.copysign(1, value) < 0)
    return Piece(f"-{text}", MINUS) if negative else Piece(text, ATOM)


def declared(extent: Extent) -> str:
    """What stands behind the name of a state."""
    if extent.level != "array" or (extent.rows, extent.cols) in WORD_OF:
        return "" if extent == ELEMENT else f" per {extent.left}"
    return f"[{extent.rows}, {extent.cols}]"
