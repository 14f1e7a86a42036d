"""Towards SymPy: the expressions of a program as SymPy's, and whether two of them are equal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from optlang import ir
from optlang.algebra.from_sympy import FromSympy
from optlang.algebra.limits import check_size
from optlang.algebra.products import Products
from optlang.algebra.reductions import Reductions
from optlang.ir import Hyper, Node, on_host, walk
from optlang.ops import OPS
from optlang.types import Extent

Expr = Any  # a SymPy expression

MOST_CANCELLED = 6
OPAQUE = frozenset(["maximum", "minimum", "mod"])  # SymPy has these, but with other or slower habits
MIRRORED: Mapping[str, str] = {"gt": "lt", "ge": "le"}
REDUCED = frozenset(["sum", "mean", "count", "amax", "amin"])
EXACT: Mapping[str, Callable[[Any, Expr], Expr]] = {  # what SymPy lacks, or has for complex numbers, by what it has
    "exp2": lambda sympy, x: 2**x, "expm1": lambda sympy, x: sympy.exp(x) - 1, "log1p": lambda sympy, x: sympy.log(1 + x),
    "tanh": lambda sympy, x: 1 - 2 / (sympy.exp(2 * x) + 1), "cbrt": lambda sympy, x: sympy.sign(x) * sympy.cbrt(sympy.Abs(x)),
    "log2": lambda sympy, x: sympy.log(x) / sympy.log(2), "log10": lambda sympy, x: sympy.log(x) / sympy.log(10),
}  # fmt: skip


class Algebra:
    """Expressions of one program as SymPy's. `nonnegative`: nodes known not to be below zero.

    What SymPy lacks becomes a function of its canonical operands, about which nothing is known but that equal operands give
    equal results; with `leaves`, these nodes become symbols whatever they are. `plain`: functions stay what they are called, for people;
    else, for proofs, some are said in others.
    """

    def __init__(
        self, hypers: Mapping[str, Hyper], nonnegative: Collection[Node] = (), leaves: Collection[Node] = (), plain: bool = False
    ) -> None:
        import sympy  # noqa: PLC0415 - half a second that only algebra pays

        self.sympy: Any = sympy
        self.plain = plain
        self.hypers, self.nonnegative, self.leaves = hypers, nonnegative, frozenset(leaves)
        self.symbols: dict[Node, Expr] = {}
        self.nodes: dict[Expr, Node] = {}
        self.known: set[Expr] = set()  # symbols that are the same for every element
        self.host: dict[Node, bool] = {}
        self.found: dict[Node, Expr] = {}
        self._from_sympy = FromSympy(sympy, self.nodes, self.known)
        self.extents: dict[Expr, Extent] = {}  # of applications of functions: one value per what
        self._reductions, self._products = Reductions(self), Products(self)

    def expression(self, root: Node) -> Expr:
        """A node as a SymPy expression; operands of functions are in canonical form."""
        check_size([root])
        self.host |= on_host([root])
        for node in walk([root], self._operands):
            if node not in self.found:
                self.found[node] = self._symbol(node) if node in self.leaves or not node.args else self._made(node)
        return self.found[root]

    def _operands(self, node: Node) -> Sequence[Node]:
        return () if node in self.leaves else node.args

    def same(self, a: Node, b: Node) -> bool:
        """Whether two expressions are equal by algebra; False says nothing."""
        if a is b:
            return True
        left, right = self.expression(a), self.expression(b)
        if a.type.kind == "bool" or b.type.kind == "bool":
            return bool(left == right)
        return self.is_zero(left - right)

    def is_zero(self, difference: Expr) -> bool:
        if difference.is_zero:
            return True
        top, _ = self.sympy.fraction(self.sympy.together(difference))
        return bool(self.sympy.expand(top) == 0)

    def canonical(self, expr: Expr) -> Expr:
        """One form for equal rational functions of symbols and function values."""
        if expr.is_Symbol or expr.is_Number:
            return expr
        joined = self.sympy.together(expr)
        if len(joined.free_symbols) <= MOST_CANCELLED:  # of many variables, finding common factors takes too long
            joined = self.sympy.cancel(joined)
        top, bottom = self.sympy.fraction(joined)
        return self.sympy.factor_terms(self.sympy.expand(top)) / self.sympy.factor_terms(self.sympy.expand(bottom))

    def node(self, expr: Expr) -> Node | None:
        """A SymPy expression as a node; None where it holds what has no operator."""
        return self._from_sympy.node(expr)

    def made_of(self, expr: Expr, allowed: Callable[[Extent], bool]) -> bool:
        """Whether all symbols, and values that are not looked into, have one value per what is allowed."""
        if expr in self.extents or expr in self.nodes:
            return allowed(self.extents[expr] if expr in self.extents else self.nodes[expr].type.extent)
        applied = isinstance(expr, self.sympy.core.function.AppliedUndef)
        return bool(expr.is_Number or (expr.args and not applied and all(self.made_of(arg, allowed) for arg in expr.args)))

    def divided(self, term: Expr, leaves: Callable[[Expr], bool]) -> tuple[Expr, Expr]:
        """The factors of a product that leave it, and the others."""
        outer = inner = self.sympy.Integer(1)
        for factor in self.sympy.Mul.make_args(term):
            if leaves(factor):
                outer *= factor
            else:
                inner *= factor
        return outer, inner

    # ---------------------------------------------------------------------------------------------------- node by node

    def _symbol(self, node: Node) -> Expr:
        if node.op == "const" and not isinstance(node.value, bool):
            return self.number(node.value)
        if node not in self.symbols:
            symbol = self.sympy.Symbol(f"x{len(self.symbols)}", **self._assumed(node))
            self.symbols[node], self.nodes[symbol] = symbol, node
            if self.host.get(node, False):
                self.known.add(symbol)
        return self.symbols[node]

    def _assumed(self, node: Node) -> dict[str, bool]:
        if node.type.kind == "bool":
            return {}
        if node.op == "t" or node.op == "fact":
            return {"integer": True, "nonnegative" if node.value == "rank" else "positive": True}
        bounds = self.hypers[node.value].bounds if node.op == "hyper" and node.value in self.hypers else None
        if node in self.nonnegative or (bounds is not None and bounds.low >= 0):
            return {"nonnegative": True}
        return {"real": True}

    def number(self, value: float) -> Expr:
        """A literal, as the fraction that it was written as; infinities and NaN are symbols of which nothing is known."""
        if value != value:
            return self.sympy.Symbol("nan")
        if abs(value) == float("inf"):
            return self.sympy.Symbol("inf", positive=True) * (1 if value > 0 else -1)
        exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
        return self.sympy.Rational(exact.numerator, exact.denominator)

    def _made(self, node: Node) -> Expr:
        args = [self.found[a] for a in node.args]
        if node.type.extent.level in ("model", "group") and any(self.host[a] and self.found[a].free_symbols for a in node.args):
            return self._opaque(node, [self._plain(a) for a in node.args], f"at_{node.type.extent.level}")
        arithmetic: dict[str, Callable[[], Expr]] = {
            "add": lambda: args[0] + args[1], "sub": lambda: args[0] - args[1], "mul": lambda: args[0] * args[1],
            "div": lambda: self._quotient(args[0], args[1]), "neg": lambda: -args[0], "pow": lambda: self._power(node, args),
        }  # fmt: skip
        if node.op in arithmetic:
            return arithmetic[node.op]()
        if node.op == "sqrt":
            return self._root(node.args[0])
        args = [self._plain(a) for a in node.args]
        if node.op in EXACT and not self.plain:
            return EXACT[node.op](self.sympy, args[0])
        if node.op in (("sum", "mean") if self.plain else REDUCED) and (found := self._reductions.expression(node, args[0])) is not None:
            return found
        if node.op in ("matmul", "transpose") and not self.plain and (found := self._products.expression(node, args)) is not None:
            return found
        name = OPS[node.op].sympy
        if name and node.op not in OPAQUE and hasattr(self.sympy, name):
            return getattr(self.sympy, name)(*args)
        return self._opaque(node, args)

    def _plain(self, node: Node) -> Expr:
        expr = self.found[node]
        return expr if node.type.kind == "bool" else self.canonical(expr)

    def _quotient(self, a: Expr, b: Expr) -> Expr:
        if b == 0:
            return self.sympy.Function("quotient")(a, b)
        return a / b

    def _power(self, node: Node, args: list[Expr]) -> Expr:
        base, exponent = node.args
        if exponent.op == "t" and self._below_one(base):
            return 1 - self._correction(base)
        if exponent.op == "add" and ir.T in exponent.args and self._below_one(base):  # the exponents of schedules
            [more] = [arg for arg in exponent.args if arg is not ir.T] or [ir.T]
            if more.op == "const" and more.type.kind == "int" and more.value > 0:
                return args[0] ** more.value * (1 - self._correction(base))
        if args[1].is_Integer:
            return args[0] ** args[1] if args[0] != 0 or args[1] > 0 else self.sympy.Function("power")(*args)
        return self.canonical(args[0]) ** args[1]

    def _below_one(self, base: Node) -> bool:
        bounds = self.hypers[base.value].bounds if base.op == "hyper" and base.value in self.hypers else None
        return bounds is not None and bounds.low >= 0 and (bounds.high < 1 or (bounds.high == 1 and bounds.high_open))

    def _correction(self, base: Node) -> Expr:
        """`1 - beta^t` is a positive symbol of its own, so that roots of it can be taken apart."""
        whole = ir.sub(ir.const(1), ir.power(base, ir.T))
        if whole not in self.symbols:
            symbol = self.sympy.Symbol(f"x{len(self.symbols)}", positive=True)
            self.symbols[whole], self.nodes[symbol] = symbol, whole
            self.known.add(symbol)
        return self.symbols[whole]

    def _root(self, node: Node) -> Expr:
        """A root of a product is taken apart where no factor is below zero."""
        if node.op in ("mul", "div") and all(arg in self.nonnegative for arg in node.args):
            first, second = map(self._root, node.args)
            return first * second if node.op == "mul" else self._quotient(first, second)
        if node.op == "pow" and node.args[1].op == "const" and node.args[1].value == 2:
            return self.sympy.Abs(self._plain(node.args[0]))
        return self.sympy.sqrt(self._plain(node))

    def _opaque(self, node: Node, args: list[Expr], place: str = "") -> Expr:
        """A function of its own. `place`: where it reads what is known before the step, if not at the parameter."""
        op = MIRRORED.get(node.op, node.op)
        if op != node.op:
            args = args[::-1]
        if OPS[node.op].commutes:
            args = sorted(args, key=self.sympy.default_sort_key)
        from_ = [str(a.type.extent) for a in node.args if OPS[op].role == "reduce"]
        words = ["where" if op == "branch" else op, place, str(node.value), *from_]
        found = self.sympy.Function("_".join(words))(*args)
        self.extents[found] = node.type.extent
        return found
