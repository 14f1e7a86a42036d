"""What is known about the Python numbers of a generated module: which they are, and where Python would raise for them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from optlang import ir
from optlang.ir import Node, Program
from optlang.ops import OPS
from optlang.types import Extent

LEAVES = frozenset(["const", "hyper", "t", "fact"])
TOTAL = frozenset(["spread", "add", "sub", "mul", "neg", "abs", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "where", "branch",
                   "maximum", "minimum", "isnan", "isfinite", "atan", "tanh", "cbrt", "count", *LEAVES])  # fmt: skip


def is_number(node: Node, operands_are: Iterable[bool]) -> bool:
    """Whether a value is a Python number in generated code, not a tensor."""
    if not node.args:
        return node.op in LEAVES
    if isinstance(node.value, Extent):
        return node.op == "count" and node.value.level not in ("group", "model") and node.args[0].type.extent.level == "array"
    return node.value != "window" and OPS[node.op].role != "matrix" and all(operands_are)


class Numbers:
    """The numbers among some expressions. `wild` ones may be infinite or NaN, or need IEEE arithmetic to be computed."""

    def __init__(self, program: Program, roots: Iterable[Node]) -> None:
        self.bounds = {h.name: h.bounds for h in program.hypers if h.bounds is not None}
        roots = list(roots)
        self.known: dict[Node, bool] = ir.fold(roots, is_number)
        self.positive: set[Node] = set()
        self.nonnegative: set[Node] = set()
        self.below_one: set[Node] = set()  # from 0 to less than 1
        self.moving: set[Node] = set()  # those that are tensors where a group is `capturable`
        self.learned: set[Node] = set()  # those that may be tensors where it is `differentiable`: made of settings
        self.raises: set[Node] = set()
        self.wild: set[Node] = set()
        for node in ir.walk(roots):
            if self.known[node]:
                self._judge(node)
                if (node.op == "hyper" and node.type.kind == "real") or not self.learned.isdisjoint(node.args):
                    self.learned.add(node)

    def __contains__(self, node: Node) -> bool:
        return self.known.get(node, False) or (node not in self.known and not node.args and node.op in LEAVES)

    def _judge(self, node: Node) -> None:
        if self._is_below_one(node):
            self.below_one.add(node)
        if self._is_positive(node):
            self.positive.add(node)
        if node in self.positive or node in self.below_one or self._is_nonnegative(node):
            self.nonnegative.add(node)
        if not self._is_total(node):
            self.raises.add(node)
        if node in self.raises or any(arg in self.wild for arg in node.args) or (node.op == "const" and not math.isfinite(node.value)):
            self.wild.add(node)

    def _is_below_one(self, node: Node) -> bool:
        args = node.args
        match node.op:
            case "const":
                return not isinstance(node.value, bool) and 0 <= node.value < 1
            case "hyper":
                b = self.bounds.get(node.value)
                return b is not None and b.low >= 0 and (b.high < 1 or (b.high == 1 and b.high_open))
            case "pow":
                return args[0] in self.below_one and args[1] in self.positive
            case "mul":
                return all(arg in self.below_one for arg in args)
        return False

    def _is_positive(self, node: Node) -> bool:
        args = node.args
        match node.op:
            case "const":
                return not isinstance(node.value, bool) and node.value > 0
            case "hyper":
                b = self.bounds.get(node.value)
                may_be_zero = node.value.rpartition(".")[2] == "lr"
                return b is not None and (b.low > 0 or (b.low == 0 and b.low_open and not may_be_zero))
            case "t":
                return True
            case "fact":
                return node.value in ("rows", "cols", "numel", "fan_in", "fan_out")
            case "sub":
                return args[0].op == "const" and args[0].value == 1 and args[1] in self.below_one
            case "add":
                return all(a in self.nonnegative for a in args) and any(a in self.positive for a in args)
            case "mul" | "div" | "minimum":
                return all(a in self.positive for a in args)
            case "maximum":
                return any(a in self.positive for a in args)
            case "sqrt" | "pow":
                return args[0] in self.positive
            case "exp":
                return True
        return False

    def _is_nonnegative(self, node: Node) -> bool:
        args = node.args
        match node.op:
            case "const":
                return not isinstance(node.value, bool) and node.value >= 0
            case "hyper":
                b = self.bounds.get(node.value)
                return b is not None and b.low >= 0
            case "fact" | "abs" | "sqrt" | "count":
                return True
            case "sub":
                return args[0].op == "t" and args[1].op == "const" and args[1].value <= 1
            case "add" | "mul" | "div" | "minimum":
                return all(a in self.nonnegative for a in args)
            case "maximum":
                return any(a in self.nonnegative for a in args)
            case "pow":
                return args[0] in self.nonnegative
            case "where" | "branch":
                return all(a in self.nonnegative for a in args[1:])
        return False

    def _is_total(self, node: Node) -> bool:
        """Whether Python computes a number without an exception, as tensors would."""
        args = node.args
        tame = not any(a in self.wild for a in args)
        match node.op:
            case "maximum" | "minimum":
                return tame  # NaN is lost in Python's max
            case "div" | "mod":
                return args[1] in self.positive and (tame or node.op == "div")
            case "sqrt":
                return tame and args[0] in self.nonnegative
            case "log":
                return tame and args[0] in self.positive
            case "sin" | "cos" | "floor" | "ceil" | "round" | "atan2":
                return tame
            case "exp":
                return tame and args[0].op == "const" and args[0].value < 700
            case "pow":
                return tame and self._is_tame_power(*args)
        return node.op in TOTAL

    def _is_tame_power(self, base: Node, exponent: Node) -> bool:
        if base in self.below_one and (exponent in self.nonnegative or base in self.positive):
            return True
        if exponent.op == "const" and isinstance(exponent.value, int):
            return 0 <= exponent.value <= 64
        return base in self.positive and not any(map(_grows, ir.walk([exponent])))


def _grows(node: Node) -> bool:
    """Whether an exponent made of it may be large: Python's integers would fill the memory where floats are infinite."""
    return node.op in ("t", "pow", "exp", "mul") or (node.op == "const" and abs(node.value) > 64)
