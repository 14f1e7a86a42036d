"""What a statement of a searched program may call: one row per function, from the operator table and a few of its own.

A function has a name, a number of operands, the weight with which mutation picks it, and `build`, which makes the expression
from its operands. Its type rule is that expression's: nothing about types is written here. Lion's search (arXiv:2302.06675)
protects division, roots and logarithms; those forms are functions beside the plain ones, so both kinds of rule can be said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from optlang import ir
from optlang.ir import Node
from optlang.macros import MACROS
from optlang.ops import OPS
from optlang.types import COL, MODEL, ROW, TENSOR, Extent

TINY = 1e-8  # what a protected division adds to its divisor
POLYNOMIAL = (3.4445, -4.7750, 2.0315)  # Newton-Schulz as in Muon (Jordan et al. 2024)
ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class Function:
    """One function. `weight` 0: never picked by mutation unless a space gives it a weight, but legal in seeds and templates."""

    name: str
    operands: int
    weight: float
    build: Callable[..., Node]
    doc: str
    commutes: bool = False


def _op(name: str, weight: float) -> Function:
    """A function that is one row of the operator table."""
    row = OPS[name]
    return Function(name, row.operands, weight, lambda *args: ir.make(name, args), row.doc, row.commutes)


def _reduction(name: str, word: str, extent: Extent, weight: float) -> Function:
    """A reduction to one value per tensor, model, row or column; those per row and column leave vectors as they are."""
    macro = MACROS.get(name)
    operands, doc = (macro.operands[0], macro.doc) if macro else (OPS[name].operands, OPS[name].doc)

    def plain(*args: Node) -> Node:
        return macro.expand(ir, args, extent) if macro else ir.make(name, args, extent)

    build = (lambda *args: _of_matrices(plain(*args), args[0])) if extent in (ROW, COL) else plain
    return Function(f"{name}_{word}", operands, weight, build, f"{doc}, one per {word}")


def _is_matrix() -> Node:
    return ir.make("ge", (ir.fact("rank"), ir.const(2)))


def _of_matrices(value: Node, otherwise: Node) -> Node:
    """A value for parameters that are matrices; vectors take the other."""
    return ir.branch(_is_matrix(), value, otherwise)


def _apply(name: str, *args: Node) -> Node:
    return ir.make(name, args)


def _norm(x: Node, extent: Extent) -> Node:
    return MACROS["norm"].expand(ir, (x,), extent)


def _protected_div(a: Node, b: Node) -> Node:
    return ir.div(a, ir.add(b, ir.const(TINY)))


def _of_absolute(name: str) -> Callable[[Node], Node]:
    return lambda x: ir.make(name, (_apply("abs", x),))


def _interp(x: Node, y: Node, a: Node) -> Node:
    return ir.add(ir.mul(ir.sub(ir.const(1), a), x), ir.mul(a, y))


def _clip_norm(x: Node, size: Node, extent: Extent) -> Node:
    """x, scaled down where its norm is above a size."""
    return ir.mul(x, _apply("minimum", ir.const(1.0), _protected_div(size, _norm(x, extent))))


def _normalized(x: Node, extent: Extent) -> Node:
    return _protected_div(x, MACROS["rms"].expand(ir, (x,), extent))


def _cosine(x: Node, y: Node, extent: Extent) -> Node:
    return _protected_div(MACROS["dot"].expand(ir, (x, y), extent), ir.mul(_norm(x, extent), _norm(y, extent)))


def _unbiased(x: Node, decay: Node) -> Node:
    return ir.div(x, ir.sub(ir.const(1), ir.power(decay, ir.T)))


def _agreeing(x: Node, y: Node) -> Node:
    return ir.make("where", (ir.make("gt", (ir.mul(x, y), ir.const(0))), x, ir.const(0.0)))


def _transpose(x: Node) -> Node:
    return _apply("transpose", x)


def _orthogonal(x: Node) -> Node:
    """Newton-Schulz towards the nearest orthogonal matrix, as Muon does it, on the shorter side; vectors are left as they are."""
    flat = _apply("as_matrix", x)
    is_tall = ir.make("gt", (ir.fact("numel"), ir.square(ir.fact("fan_in"))))
    return _of_matrices(_apply("as_param", ir.branch(is_tall, _transpose(_newton_schulz(_transpose(flat))), _newton_schulz(flat))), x)


def _newton_schulz(flat: Node) -> Node:
    a, b, c = map(ir.const, POLYNOMIAL)
    size = MACROS["norm"].expand(ir, (flat,), Extent("array", 1, 1, "flat"))
    y = ir.div(flat, _apply("maximum", size, ir.const(1e-7)))
    for _ in range(ITERATIONS):
        gram = _apply("matmul", y, _transpose(y))
        y = ir.add(ir.mul(a, y), _apply("matmul", ir.add(ir.mul(b, gram), ir.mul(c, _apply("matmul", gram, gram))), y))
    return y


def _factored(x: Node) -> Node:
    """The best rank-one estimate of a nonnegative matrix from its row and column means (Adafactor, arXiv:1804.04235)."""
    rows, cols = ir.make("mean", (x,), ROW), ir.make("mean", (x,), COL)
    return _of_matrices(_protected_div(ir.mul(rows, cols), ir.make("mean", (rows,), Extent("array", 1, 1))), x)


_WORDS: tuple[tuple[str, Extent, float], ...] = (("tensor", TENSOR, 0.2), ("model", MODEL, 0.1), ("row", ROW, 0.1), ("col", COL, 0.1))
_PICKED = ("map", "select")
_REDUCTIONS = ("norm", "rms", "mean", "sum", "amax", "dot")

ROWS: tuple[Function, ...] = (
    *(_op(row.name, row.weight) for row in OPS.values() if row.role in _PICKED and row.operands),
    *(_op(row.name, 0.0) for row in OPS.values() if row.role == "matrix" and row.operands),
    *(_reduction(name, word, extent, weight if name in ("norm", "rms", "mean") else 0.0)
      for name in _REDUCTIONS for word, extent, weight in _WORDS),
    *(_reduction(name, word, extent, 0.0) for name in ("amin", "count", "quantile") for word, extent, _ in _WORDS),
    Function("square", 1, 1.0, ir.square, "x²"),
    Function("cube", 1, 0.3, lambda x: ir.power(x, ir.const(3)), "x³"),
    Function("reciprocal", 1, 0.3, lambda x: _protected_div(ir.const(1.0), x), "1/(x + 1e-8)"),
    Function("complement", 1, 0.3, lambda x: ir.sub(ir.const(1), x), "1 - x"),
    Function("exp10", 1, 0.1, lambda x: ir.power(ir.const(10.0), x), "power of 10"),
    Function("protected_div", 2, 1.0, _protected_div, "x/(y + 1e-8)"),
    *(Function(f"protected_{name}", 1, OPS[name].weight, _of_absolute(name), f"{OPS[name].doc} of the absolute value")
      for name in ("sqrt", "log", "log2", "log10", "log1p")),
    Function("interp", 3, 2.0, _interp, "(1 - a)x + ay"),
    Function("global_norm", 1, 0.1, partial(_norm, extent=MODEL), "norm over the whole model"),
    Function("global_dot", 2, 0.1, lambda x, y: MACROS["dot"].expand(ir, (x, y), MODEL), "inner product over the whole model", True),
    Function("global_cosine", 2, 0.1, partial(_cosine, extent=MODEL), "cosine of the angle, over the whole model", True),
    Function("clip_global_norm", 2, 0.3, partial(_clip_norm, extent=MODEL), "x scaled so that the whole model's norm is at most y"),
    Function("clip_norm", 2, 0.2, partial(_clip_norm, extent=TENSOR), "x scaled so that each tensor's norm is at most y"),
    Function("cosine", 2, 0.1, partial(_cosine, extent=TENSOR), "cosine of the angle, per tensor", True),
    Function("normalize", 1, 0.3, partial(_normalized, extent=TENSOR), "x over its root mean square, per tensor"),
    Function("unbiased", 2, 0.3, _unbiased, "x/(1 - y^t): an average that began at 0, corrected"),
    Function("agreeing", 2, 0.3, _agreeing, "x where its sign is that of y, else 0"),
    Function("factored", 1, 0.1, _factored, "product of row and column means over the mean: a matrix of rank one"),
    Function("orthogonalize", 1, 0.1, _orthogonal, "nearest orthogonal matrix by five Newton-Schulz iterations, as in Muon"),
)  # fmt: skip

FUNCTIONS: dict[str, Function] = {row.name: row for row in ROWS}

# The functions of Lion's search, under our names; its constants pi, e and 1e-8 are numbers in arguments.
LION: tuple[str, ...] = (
    "add", "sub", "mul", "protected_div", "maximum", "minimum", "abs", "cos", "sin", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "asinh", "acosh", "atanh", "exp", "exp2", "exp10", "expm1", "protected_log", "protected_log10", "protected_log2", "protected_log1p",
    "square", "protected_sqrt", "cube", "cbrt", "sign", "reciprocal", "complement", "neg", "norm_tensor", "global_norm", "global_dot",
    "global_cosine", "clip_global_norm", "interp", "pow",
)  # fmt: skip
