"""The operator table: one row per builtin, and everything else reads it.

A row gives the name, the number of operands, the type rule, its NumPy meaning (an attribute of `numpy`, or of `optlang.meaning`
where NumPy has no such function), how JAX, torch, C++ and Triton spell it, SymPy's name, LaTeX, scaling degree, the weight with which a
program search picks it, what it costs, and one line of documentation. A builtin that can be said in others stands in `macros` instead.
Grammar, lowering, printers, backends, conformance tests and search pick a row up by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from optlang.macros import MACROS
from optlang.type_rules import (
    at_weights,
    branch,
    choice,
    comparison,
    each_of_run,
    flattened,
    given,
    logic,
    numeric,
    per_model,
    product,
    pushed,
    real,
    reduction,
    restored,
    sorting,
    square_matrix,
    tall,
    transposed,
)

if TYPE_CHECKING:
    from optlang.types import Type

TypeRule = Callable[["Sequence[Type]", Any], "Type"]
Role = Literal["leaf", "map", "select", "reduce", "spread", "matrix", "window", "draw", "model"]

# How a result scales when the operands do: `same` wants equal degrees and keeps them, `product` adds, `quotient` subtracts,
# `power` multiplies by a constant exponent, `none` wants pure numbers, `lost` forgets (sign, comparisons).
Degree = Literal["same", "product", "quotient", "power", "keep", "none", "lost", "select", "half", "third", "square"]


class Op(NamedTuple):
    """One builtin. `infix` is (symbol, precedence) for operators that are written between their operands."""

    name: str
    operands: int
    role: Role
    typing: TypeRule
    doc: str
    numpy: str = ""
    jax: str = ""  # empty: the function of `jax.numpy` that is called as NumPy's
    torch: str = ""
    cpp: str = ""
    triton: str = ""
    sympy: str = ""
    latex: str = ""
    degree: Degree = "none"
    infix: tuple[str, int] | None = None
    weight: float = 0.0
    cost: float = 1.0  # of one value, in additions; see `simplify.cost`
    surface: bool = True  # may be called by name in a `.opt` file
    commutes: bool = False

    @property
    def symbol(self) -> str:
        """What is written between its operands; empty where nothing is."""
        return self.infix[0] if self.infix else ""


# ------------------------------------------------------------------------------------------------------ the table


def _map(name: str, doc: str, **more: Any) -> Op:
    more.setdefault("typing", real)
    more.setdefault("numpy", name)
    more.setdefault("torch", f"torch.{name}({{0}})")
    more.setdefault("cpp", f"math::{name}({{0}})")
    more.setdefault("triton", more["cpp"].replace("math::", "libdevice."))
    more.setdefault("sympy", name)
    more.setdefault("latex", rf"\{name}\left({{0}}\right)")
    return Op(name, more.pop("operands", 1), "map", doc=doc, **more)


def _leaf(name: str, doc: str, **more: Any) -> Op:
    return Op(name, 0, "leaf", given, doc, surface=False, **more)


CPP_SYMBOLS = {"and": "&", "or": "|"}


def _infix(name: str, symbol: str, precedence: int, doc: str, **more: Any) -> Op:
    more.setdefault("typing", numeric)
    more.setdefault("cpp", f"({{0}} {CPP_SYMBOLS.get(symbol, symbol)} {{1}})")
    more.setdefault("triton", more["cpp"])
    return Op(name, 2, "map", doc=doc, infix=(symbol, precedence), surface=False, **more)


def _reduce(name: str, doc: str, **more: Any) -> Op:
    return Op(name, more.pop("operands", 1), "reduce", reduction, doc, **more)


ROWS: tuple[Op, ...] = (
    # leaves
    _leaf("const", "a number or truth value"),
    _leaf("hyper", "a setting; one number per parameter group"),
    _leaf("w", "the parameter", latex="w"),
    _leaf("g", "its gradient", latex="g"),
    _leaf("t", "step number of this parameter, 1 on the first", latex="t"),
    _leaf("state", "the value that a state had before this step"),
    _leaf("input", "a value that the training loop supplies"),
    _leaf("fact", "a static fact of the parameter: rank, rows, cols, numel, fan_in, fan_out"),
    _leaf("loss", "the loss of this step's batch", latex=r"\mathcal{L}"),
    Op("random", 0, "draw", given, "a random draw; the value is (distribution, site)", surface=False, cost=30.0),
    # arithmetic
    _infix("add", "+", 4, "sum", numpy="add", sympy="Add", degree="same", weight=1.0, commutes=True),
    _infix("sub", "-", 4, "difference", numpy="subtract", degree="same", weight=1.0),
    _infix("mul", "*", 5, "product", numpy="multiply", sympy="Mul", degree="product", weight=1.0, commutes=True),
    _infix("div", "/", 5, "quotient of reals", numpy="divide", typing=real, triton="libdevice.div_rn({0}, {1})",
           degree="quotient", weight=1.0, cost=4.0),
    _infix("pow", "^", 7, "power", numpy="power", typing=real, cpp="power({0}, {1})",
           triton="libdevice.pow({0}, {1})", sympy="Pow", degree="power", weight=0.5, cost=20.0),
    Op("neg", 1, "map", numeric, "negation", numpy="negative", torch="-{0}", cpp="(-{0})", triton="(-{0})",
       degree="keep", weight=0.5, surface=False, cost=0.9),
    # comparisons and logic
    _infix("lt", "<", 3, "less than", numpy="less", typing=comparison, degree="lost"),
    _infix("le", "<=", 3, "at most", numpy="less_equal", typing=comparison, degree="lost"),
    _infix("gt", ">", 3, "more than", numpy="greater", typing=comparison, degree="lost"),
    _infix("ge", ">=", 3, "at least", numpy="greater_equal", typing=comparison, degree="lost"),
    _infix("eq", "==", 3, "equal", numpy="equal", typing=comparison, degree="lost", commutes=True),
    _infix("ne", "!=", 3, "not equal", numpy="not_equal", typing=comparison, degree="lost", commutes=True),
    _infix("and", "and", 1, "both", numpy="logical_and", typing=logic, degree="lost", commutes=True),
    _infix("or", "or", 0, "either", numpy="logical_or", typing=logic, degree="lost", commutes=True),
    Op("not", 1, "map", logic, "negation of a truth value", numpy="logical_not", torch="torch.logical_not({0})",
       cpp="(!{0})", triton="({0} == 0)", degree="lost", surface=False),
    # choice
    Op("where", 3, "select", choice, "`where(c, a, b)`: a where c holds, else b, element by element", numpy="where",
       torch="torch.where({0}, {1}, {2})", cpp="({0} ? {1} : {2})", triton="tl.where({0}, {1}, {2})", degree="select", weight=0.3),
    Op("branch", 3, "select", branch, "`when c { a } else { b }`: only the chosen side is computed", surface=False,
       cpp="({0} ? {1} : {2})", triton="tl.where({0}, {1}, {2})", degree="select"),
    # maps of one operand
    _map("abs", "absolute value", typing=numeric, sympy="Abs", latex=r"\left|{0}\right|", degree="keep", weight=1.0, cost=0.9),
    _map("sign", "-1, 0 or 1; 0 of what is not a number", numpy="signum", cpp="sign({0})",
         latex=r"\operatorname{sign}\left({0}\right)",
         degree="lost", weight=1.0),
    _map("sqrt", "square root", triton="libdevice.sqrt_rn({0})", latex=r"\sqrt{{{0}}}", degree="half", weight=1.0, cost=4.0),
    _map("cbrt", "cube root", torch="torch.sign({0}) * torch.abs({0}) ** (1 / 3)", latex=r"\sqrt[3]{{{0}}}", degree="third",
         weight=0.3, cost=15.0),
    _map("exp", "exponential", weight=0.5, cost=8.0),
    _map("exp2", "power of 2", sympy="", latex=r"2^{{{0}}}", weight=0.1, cost=8.0),
    _map("expm1", "exp(x) - 1, exact near 0", sympy="", latex=r"\left(e^{{{0}}} - 1\right)", weight=0.2, cost=10.0),
    _map("log", "natural logarithm", weight=0.5, cost=8.0),
    _map("log2", "logarithm to base 2", sympy="", latex=r"\log_2\left({0}\right)", weight=0.1, cost=8.0),
    _map("log10", "logarithm to base 10", sympy="", latex=r"\log_{{10}}\left({0}\right)", weight=0.1, cost=8.0),
    _map("log1p", "log(1 + x), exact near 0", sympy="", latex=r"\log\left(1 + {0}\right)", weight=0.2, cost=10.0),
    _map("sin", "sine", weight=0.2, cost=12.0),
    _map("cos", "cosine", weight=0.2, cost=12.0),
    _map("tan", "tangent", weight=0.1, cost=15.0),
    _map("asin", "inverse sine", numpy="arcsin", latex=r"\arcsin\left({0}\right)", weight=0.1, cost=15.0),
    _map("acos", "inverse cosine", numpy="arccos", latex=r"\arccos\left({0}\right)", weight=0.1, cost=15.0),
    _map("atan", "inverse tangent", numpy="arctan", latex=r"\arctan\left({0}\right)", weight=0.2, cost=15.0),
    _map("sinh", "hyperbolic sine", weight=0.1, cost=12.0),
    _map("cosh", "hyperbolic cosine", weight=0.1, cost=12.0),
    _map("tanh", "hyperbolic tangent", weight=0.5, cost=12.0),
    _map("asinh", "inverse hyperbolic sine", numpy="arcsinh", latex=r"\operatorname{asinh}\left({0}\right)", weight=0.2, cost=15.0),
    _map("acosh", "inverse hyperbolic cosine", numpy="arccosh", latex=r"\operatorname{acosh}\left({0}\right)", weight=0.1, cost=15.0),
    _map("atanh", "inverse hyperbolic tangent", numpy="arctanh", latex=r"\operatorname{atanh}\left({0}\right)", weight=0.1, cost=15.0),
    _map("floor", "largest integer not above", typing=numeric, latex=r"\lfloor {0} \rfloor"),
    _map("ceil", "smallest integer not below", typing=numeric, sympy="ceiling", latex=r"\lceil {0} \rceil"),
    _map("round", "nearest integer, halves to even", typing=numeric, cpp="math::nearbyint({0})", triton="libdevice.rint({0})", sympy="",
         latex=r"\operatorname{round}\left({0}\right)"),
    _map("isnan", "whether a value is not a number", typing=comparison, cpp="({0} != {0})", sympy="",
         latex=r"\operatorname{isnan}\left({0}\right)", degree="lost"),
    _map("isfinite", "whether a value is neither infinite nor not a number", typing=comparison, cpp="is_finite({0})", sympy="",
         latex=r"\operatorname{isfinite}\left({0}\right)", degree="lost"),
    # maps of two operands
    _map("maximum", "the larger; NaN if either is", operands=2, typing=numeric, torch="torch.maximum({0}, {1})", sympy="Max",
         cpp="larger({0}, {1})", latex=r"\max\left({0}, {1}\right)", degree="same", weight=0.5, surface=False, commutes=True),
    _map("minimum", "the smaller; NaN if either is", operands=2, typing=numeric, torch="torch.minimum({0}, {1})", sympy="Min",
         cpp="smaller({0}, {1})", latex=r"\min\left({0}, {1}\right)", degree="same", weight=0.5, surface=False, commutes=True),
    _map("mod", "remainder with the sign of the divisor", operands=2, typing=numeric, torch="torch.remainder({0}, {1})",
         cpp="modulo({0}, {1})", sympy="Mod", latex=r"\left({0} \bmod {1}\right)", degree="same", cost=6.0),
    _map("atan2", "angle of the point (x, y) given as atan2(y, x)", operands=2, numpy="arctan2",
         torch="torch.atan2({0}, {1})", cpp="math::atan2({0}, {1})",
         latex=r"\operatorname{atan2}\left({0}, {1}\right)", degree="lost", weight=0.1, cost=20.0),
    # reductions: the value is the extent that remains, or "window"
    _reduce("sum", "sum of all values", degree="keep", weight=0.2, latex=r"\sum {0}"),
    _reduce("mean", "average", degree="keep", weight=0.3, latex=r"\operatorname{mean}\left({0}\right)"),
    _reduce("amax", "largest value", jax="jnp.max", degree="keep", weight=0.2, surface=False, latex=r"\max\left({0}\right)"),
    _reduce("amin", "smallest value", jax="jnp.min", degree="keep", weight=0.1, surface=False, latex=r"\min\left({0}\right)"),
    _reduce("count", "how many values (in a window: how many that are not NaN)", degree="lost",
            latex=r"\operatorname{count}\left({0}\right)"),
    _reduce("quantile", "`quantile(x, q)`: linear interpolation, q from 0 to 1", operands=2, degree="keep",
            latex=r"\operatorname{quantile}_{{{1}}}\left({0}\right)", cost=50.0),
    Op("spread", 1, "spread", each_of_run, "a value per run, once for each of its elements", degree="keep", surface=False, latex="{0}",
       cost=0.1),
    # matrices
    Op("matmul", 2, "matrix", product, "matrix product", infix=("@", 5), degree="product", surface=False, weight=0.3, cost=500.0),
    Op("transpose", 1, "matrix", transposed, "transposed matrix", degree="keep", surface=False,
       torch="{0}.mT", latex=r"{0}^{{\top}}", weight=0.1, cost=0.5),
    Op("as_matrix", 1, "matrix", flattened, "rows × everything else: a convolution as a matrix", degree="keep",
       latex=r"\operatorname{mat}\left({0}\right)", cost=0.1),
    Op("as_param", 1, "matrix", restored, "undoes `as_matrix`", degree="keep",
       latex=r"\operatorname{mat}^{{-1}}\left({0}\right)", cost=0.1),
    Op("eye", 0, "matrix", given, "`eye(rows)`: identity matrix; `eye(cols, 4)`: 4 columns of it; the value is its sizes", surface=False,
       latex="I"),
    Op("eigenvectors", 1, "matrix", square_matrix, "of a symmetric matrix: a column each, that of the largest eigenvalue first, its "
       "largest element positive", torch="ops.eigenvectors({0})", latex=r"\operatorname{eigenvectors}\left({0}\right)", degree="lost"),
    Op("orthonormal", 1, "matrix", tall, "orthonormal columns that span those of a matrix: Q of its QR decomposition, R with a positive "
       "diagonal", torch="ops.orthonormal({0})", latex=r"\operatorname{orthonormal}\left({0}\right)", degree="lost"),
    Op("descending", 1, "matrix", sorting, "of one value per column: the permutation of columns that puts them in descending order, as "
       "in `x @ descending(x)`", torch="ops.descending({0})", latex=r"\operatorname{descending}\left({0}\right)", degree="lost"),
    Op("inverse", 1, "matrix", square_matrix, "inverse of a square matrix; NaN where it has none", torch="ops.inverse({0})",
       latex=r"{0}^{{-1}}", degree="lost"),
    Op("places", 0, "matrix", given, "`places(rows)`: a column of 0, 1, 2, …; the value is its size", surface=False,
       latex=r"\operatorname{places}"),
    # windows
    Op("push", 2, "window", pushed, "`push(h, x)`: h without its oldest value and with x as its newest", degree="same",
       latex=r"\operatorname{push}\left({0}, {1}\right)"),
    # calls on the training loop
    Op("grad", 1, "model", at_weights, "gradient of the same batch at another point", degree="lost",
       latex=r"\nabla\mathcal{L}\left({0}\right)", cost=1e6),
    Op("hvp", 1, "model", at_weights, "Hessian at w times a vector", degree="lost",
       latex=r"\nabla^2\mathcal{L}\,{0}", cost=2e6),
    Op("loss_at", 1, "model", per_model, "loss of the same batch at another point", degree="lost",
       latex=r"\mathcal{L}\left({0}\right)", cost=3e5),
)  # fmt: skip

CALLS: dict[str, str] = {  # what is asked of the model in the middle of a step
    "grad": "gradients at other points", "hvp": "products with the Hessian", "loss_at": "losses at other points",
}  # fmt: skip
ASKING = (*CALLS, "loss")  # what needs a closure
MATRIX_OPS: frozenset[str] = frozenset(row.name for row in ROWS if row.role == "matrix")
OPS: dict[str, Op] = {row.name: row for row in ROWS}

DRAWS: dict[str, str] = {
    "rademacher": "-1 or 1, equally likely",
    "normal": "standard normal",
    "uniform": "uniform on [0, 1)",
    "exponential": "exponential with mean 1",
}
FACTS: dict[str, str] = {
    "rank": "number of dimensions of the parameter",
    "rows": "size of the dimension before the last",
    "cols": "size of the last dimension",
    "numel": "number of elements",
    "fan_in": "inputs of one unit: elements of one slice along the first dimension",
    "fan_out": "outputs: size of the first dimension times the receptive field",
}
CONSTANTS: dict[str, float] = {"pi": 3.141592653589793, "inf": float("inf"), "nan": float("nan")}
REDUCTIONS: dict[str, str] = {  # surface name -> operator or macro
    "sum": "sum", "mean": "mean", "max": "amax", "min": "amin", "count": "count", "quantile": "quantile",
    "norm": "norm", "rms": "rms", "dot": "dot", "var": "var", "std": "std",
}  # fmt: skip

BUILTINS: frozenset[str] = frozenset(
    [row.name for row in ROWS if row.surface] + [*MACROS, *REDUCTIONS, *DRAWS, "eye", "places", "dense"],
)
