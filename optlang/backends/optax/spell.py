"""One operator as Python text: what is known when JAX traces with Python's own arithmetic, everything else with jax.numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optlang import ir
from optlang.ir import Node
from optlang.ops import OPS
from optlang.printing.precedence import ATOM, Piece, chained
from optlang.printing.python_text import BIT_AND, BIT_OR, COMPARE, COMPARISONS, MINUS, NOT, PRODUCT, call, infix, ternary
from optlang.types import Dim, Extent, needs_matrix, reduced_dims

IN_MATH = frozenset(["sqrt", "exp", "log", "floor", "ceil", "isnan", "isfinite"])
STATIC = COMPARISONS | IN_MATH | {"and", "or", "not", "neg", "add", "sub", "mul", "div", "pow", "mod", "maximum", "minimum", "abs",
                                  "where", "branch"}  # fmt: skip
OWN = frozenset(["eigenvectors", "orthonormal", "descending", "inverse", "push"])


@dataclass(frozen=True)
class Kinds:
    """Which expressions are Python's: `static` ones are known whenever JAX traces, `plain` ones unless settings are traced."""

    static: dict[Node, bool]
    plain: dict[Node, bool]


def kinds_of(roots: Sequence[Node]) -> Kinds:
    """The kinds of all expressions below some roots."""
    return Kinds(ir.fold(roots, _is_static), ir.fold(roots, _is_plain))


def _is_static(node: Node, args: tuple[bool, ...]) -> bool:
    """Facts, whole numbers, truths, and what is computed of them."""
    if not node.args:
        return node.op in ("const", "fact") or (node.op == "hyper" and node.type.kind != "real")
    if node.op == "count" and node.value != "window":
        return node.value.level not in ("group", "model")
    return node.op in STATIC and all(args)


def _is_plain(node: Node, args: tuple[bool, ...]) -> bool:
    return all(args) if node.args else node.op in ("const", "fact", "hyper")


def spell(node: Node, args: Sequence[Piece], kinds: Kinds) -> Piece:
    """The text of an operator over the texts of its operands."""
    row = OPS[node.op]
    if node.op == "count" and kinds.static[node]:
        return _counted(node)
    if kinds.static[node]:
        return _static(node, args)
    if node.op in ("and", "or"):
        symbol, level = ("&", BIT_AND) if node.op == "and" else ("|", BIT_OR)
        return chained(args[0], symbol, args[1], level)
    if node.op == "not":
        return call("jnp.logical_not", args[0].text)
    if node.op == "neg":
        return Piece(f"-{args[0].inside(MINUS)}", MINUS)
    if kinds.plain[node] and _may_raise(node):
        return call("jnp.divide" if node.op == "div" else "jnp.power", args[0].text, args[1].text)
    if row.infix is not None and node.op != "mod":
        return infix(node, args)
    return _function(node, args)


def _may_raise(node: Node) -> bool:
    """Whether Python would raise where mathematics says infinite or undefined: numbers that a setting decides."""
    if node.op == "div":
        return node.args[1].op != "const" or node.args[1].value == 0
    return node.op == "pow" and not (node.args[1].op == "const" and isinstance(node.args[1].value, int) and node.args[1].value >= 0)


def _static(node: Node, args: Sequence[Piece]) -> Piece:
    match node.op:
        case "not":
            return Piece(f"not {args[0].inside(NOT)}", NOT)
        case "neg":
            return Piece(f"-{args[0].inside(MINUS)}", MINUS)
        case "where" | "branch":
            return ternary(*args)
        case "maximum" | "minimum":
            return call(node.op[:3], args[0].text, args[1].text)
        case "abs":
            return call("abs", args[0].text)
        case op if op in IN_MATH:
            return call(f"math.{op}", args[0].text)
    return infix(node, args)


def _counted(node: Node) -> Piece:
    """`count(x)`: a number that the shape tells."""
    extent = node.args[0].type.extent
    dims = reduced_dims(extent, node.value)
    if dims is None:
        return Piece(f"math.prod({shape_text(extent)})" if needs_matrix(extent) or extent.run else "w.size")
    if node.value.run and not extent.run:
        return Piece(f"_runs(w, {node.value.run}).shape[1]")
    sizes = [size_text((extent.rows, extent.cols)[d], extent) for d in dims]
    return Piece(" * ".join(sizes) or "1", PRODUCT if len(sizes) > 1 else ATOM)


def _function(node: Node, args: Sequence[Piece]) -> Piece:
    texts = [a.text for a in args]
    if OPS[node.op].role == "reduce":
        return _reduction(node, texts)
    match node.op:
        case "where" | "branch":
            return call("jnp.where", *texts)
        case "sign":
            return call("_sign", texts[0])
        case "transpose":
            return call("jnp.matrix_transpose", texts[0])
        case "as_matrix":
            return Piece(f"{args[0].inside(ATOM)}.reshape(w.shape[0], -1)")
        case "as_param":
            return Piece(f"{args[0].inside(ATOM)}.reshape(w.shape)")
        case "spread":
            return call("_spread", texts[0], "w")
        case op if op in OWN:
            return call(f"_{op}", *texts)
    return call(_in_jax(node.op), *texts)


def _reduction(node: Node, texts: list[str]) -> Piece:
    if node.value == "window":
        return call(f"_window_{node.op}", *texts)
    dims = reduced_dims(node.args[0].type.extent, node.value)
    if dims == ():
        return Piece(texts[0], 0)
    if node.value.run and not node.args[0].type.extent.run:
        texts = [f"_runs({texts[0]}, {node.value.run})", *texts[1:]]
    axis = "" if dims is None else f"axis={dims[0] if len(dims) == 1 else dims}"
    if node.op == "quantile":
        return call("_quantile", *texts, *([axis] if axis else []))
    return call(_in_jax(node.op), texts[0], *([axis, "keepdims=True"] if axis else []))


def _in_jax(name: str) -> str:
    return OPS[name].jax or f"jnp.{OPS[name].numpy or name}"


def shape_text(extent: Extent) -> str:
    """The shape of one value of an extent, for the parameter `w`."""
    if extent.level != "array":
        return "()"
    if extent.run:
        return f"(len(_runs(w, {extent.run})), 1)"
    rows, cols = size_text(extent.rows, extent), size_text(extent.cols, extent)
    if extent.frame == "flat":
        return f"({rows}, {cols})"
    return f"(*w.shape[:-2], {rows}, {cols})" if needs_matrix(extent) else "w.shape"


def size_text(dim: Dim, extent: Extent) -> str:
    """The size of one dimension of a matrix."""
    sizes = {"rows": "w.shape[-2]", "cols": "w.shape[-1]"}
    if extent.frame == "flat":
        sizes = {"rows": "w.shape[0]", "cols": "(w.size // w.shape[0])"}
    return sizes.get(str(dim), str(dim))


FACTS = {
    "rank": "w.ndim", "numel": "w.size", "rows": "w.shape[-2]", "cols": "w.shape[-1]", "fan_in": "math.prod(w.shape[1:])",
    "fan_out": "w.shape[0] * math.prod(w.shape[2:])",
}  # fmt: skip


def fact(name: str) -> Piece:
    """A static fact; those of matrices are NaN for a parameter that is none, so that no comparison with them holds."""
    if name in ("rank", "numel"):
        return Piece(FACTS[name])
    return ternary(Piece("w.ndim > 1", COMPARE), Piece(FACTS[name], PRODUCT if " * " in FACTS[name] else ATOM), Piece("math.nan"))
