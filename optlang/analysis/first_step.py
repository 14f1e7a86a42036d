"""The first step of a rule in one number for each array, to see whether it is defined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optlang.host import MAPS
from optlang.ir import Node, Program
from optlang.meaning import OVER_VALUES, OVER_WINDOW, number

SIZE = 3  # rows and columns
ROUNDING = 1e-14  # of float64: what is left of a number where another that is as large on paper is subtracted
FACTS: Mapping[str, int] = {"rank": 2, "rows": SIZE, "cols": SIZE, "numel": SIZE * SIZE, "fan_in": SIZE, "fan_out": SIZE}


def is_sign(node: Node) -> bool:
    """Whether it is the sign of a difference of which rounding errors may be all that is left; of `w - min(w, 1)` they cannot be."""
    if node.op != "sign" and not (node.op in ("lt", "le", "gt", "ge") and node.args[1].op == "const" and node.args[1].value == 0):
        return False
    difference = node.args[0]
    is_of_elements = difference.op == "sub" and difference.type.extent.level != "host"
    return is_of_elements and any(arg.op in ("add", "sub", "mul", "div") for arg in difference.args)


class First:
    """The first step of a rule for a parameter with one and the same weight everywhere, and such a gradient.

    All elements are then alike, so one number stands for every array. What cannot be said so is unknown (None).
    """

    def __init__(self, program: Program, weight: float, gradient: float = 0.0) -> None:
        self.program, self.weight, self.gradient = program, weight, gradient
        self.settings = {h.name: h.default for h in program.hypers}
        self.first = {s.name: s for s in program.states}
        self.values: dict[Node, Any] = {}

    def undefined(self) -> Node | None:
        """The 0/0 that makes the new weights NaN, or the infinity times 0 that a number divided by 0 becomes."""
        with np.errstate(all="ignore"):
            self._demand(self.program.weights)
            value = self.values[self.program.weights]
            if value is None or not np.any(np.isnan(value)):
                return None
            return next((node for node in self.values if node.op in ("div", "mul") and self._makes_nan(node)), None)

    def rounded_signs(self) -> set[Node]:
        """Signs, and comparisons with 0, of differences that are 0 but for rounding."""
        with np.errstate(all="ignore"):
            self._demand(self.program.weights)
            return {node for node in self.values if is_sign(node) and self._is_rounding(node.args[0])}

    def _is_rounding(self, difference: Node) -> bool:
        value, whole = self.values.get(difference), self.values.get(difference.args[0])
        if value is None or whole is None:
            return False
        return float(np.max(np.abs(value))) <= ROUNDING * float(np.max(np.abs(whole))) > 0

    def _makes_nan(self, node: Node) -> bool:
        value, args = self.values[node], [self.values[a] for a in node.args]
        if value is None or not np.all(np.isnan(value)):
            return False
        return sorted(float(np.max(np.abs(a))) for a in args) == ([0, 0] if node.op == "div" else [0, np.inf])

    def _demand(self, root: Node) -> None:
        """Evaluates what is asked for and nothing else, so that only the chosen side of a choice counts."""
        stack = [root]
        while stack:
            node = stack[-1]
            missing = [arg for arg in self._needed(node) if arg not in self.values]
            if missing:
                stack.extend(missing)
            else:
                stack.pop()
                self.values.setdefault(node, self._value(node))

    def _needed(self, node: Node) -> Sequence[Node]:
        if node.op == "state":
            return [self.first[node.value].init]
        if node.op in ("branch", "where") and not node.type.window:
            condition = node.args[0]
            if condition not in self.values:
                return [condition]
            return [] if self.values[condition] is None else [self._chosen(node)]
        return node.args

    def _chosen(self, node: Node) -> Node:
        return node.args[1] if np.all(self.values[node.args[0]]) else node.args[2]

    def _value(self, node: Node) -> Any:
        args = [self.values.get(arg) for arg in node.args]
        match node.op:
            case "const":
                return number(node.value)
            case "hyper":
                return number(self.settings[node.value])
            case "w":
                return np.float64(self.weight)
            case "g" | "grad" | "hvp":
                return np.float64(self.gradient)
            case "t" | "loss" | "loss_at":
                return np.float64(1)
            case "fact":
                return np.float64(FACTS[node.value])
            case "state":
                start = self.values[self.first[node.value].init]
                return start if start is None or not node.type.window else np.full(min(node.type.window, 4), start, np.float64)
            case "branch" | "where" if not node.type.window:
                return None if args[0] is None else self.values[self._chosen(node)]
            case "input" | "random" | "eye" | "places" | "inverse" | "eigenvectors" | "orthonormal" | "descending":
                return None
        return None if any(arg is None for arg in args) else self._computed(node, args)

    def _computed(self, node: Node, args: list[Any]) -> Any:
        if node.op in MAPS:
            return MAPS[node.op](*args)
        if node.op in OVER_VALUES and node.value == "window":
            return OVER_WINDOW[node.op](args[0], 0, *args[1:])[0]
        if node.op in OVER_VALUES:
            return OVER_VALUES[node.op](np.full(SIZE * SIZE, args[0]), 0, *args[1:])[0]
        if node.op == "push":
            return np.append(args[0][1:], args[1])
        if node.op == "matmul":
            return SIZE * args[0] * args[1]
        return args[0]  # transpose, as_matrix, as_param, spread
