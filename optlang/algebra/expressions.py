"""Towards SymPy: the expressions of a program as SymPy's, and whether two of them are equal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

from optlang import ir
from optlang.algebra.back import Back
from optlang.algebra.limits import check_size
from optlang.ir import Hyper, Node, on_host, walk
from optlang.ops import OPS

Expr = Any  # a SymPy expression

MOST_CANCELLED = 6
OPAQUE = frozenset(["maximum", "minimum", "mod", "sum", "mean"])  # SymPy has these, but with other or slower habits
MIRRORED: Mapping[str, str] = {"gt": "lt", "ge": "le"}


class Algebra:
    """Expressions of one program as SymPy's. `nonnegative`: nodes known not to be below zero.

    What SymPy lacks becomes a function of its canonical operands, about which nothing is known but that equal operands give
    equal results; with `leaves`, these nodes become symbols whatever they are.
    """

    def __init__(
        self, hypers: Mapping[str, Hyper], nonnegative: Collection[Node] = (), leaves: Collection[Node] = ()
    ) -> None:
        import sympy  # noqa: PLC0415 - half a second that only algebra pays

        self.sympy: Any = sympy
        self.hypers, self.nonnegative, self.leaves = hypers, nonnegative, frozenset(leaves)
        self.symbols: dict[Node, Expr] = {}
        self.nodes: dict[Expr, Node] = {}
        self.known: set[Expr] = set()  # symbols that are the same for every element
        self.host: dict[Node, bool] = {}
        self.found: dict[Node, Expr] = {}
        self._back = Back(sympy, self.nodes, self.known)

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
        return self._back.node(expr)

    # ---------------------------------------------------------------------------------------------------- node by node

    def _symbol(self, node: Node) -> Expr:
        if node.op == "const" and not isinstance(node.value, bool):
            return self._number(node.value)
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
            return {"integer": True, "positive": True}
        bounds = self.hypers[node.value].bounds if node.op == "hyper" and node.value in self.hypers else None
        if node in self.nonnegative or (bounds is not None and bounds.low >= 0):
            return {"nonnegative": True}
        return {"real": True}

    def _number(self, value: float) -> Expr:
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
        args = [self._plain(a) for a in node.args]
        if node.op in ("sum", "mean") and node.value != "window":
            return self._linear(node, args[0])
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

    def _linear(self, node: Node, arg: Expr) -> Expr:
        """Sums and means term by term, without the factors that are the same for every element.

        Over several parameters these are literals only: each parameter has its own `t` and facts.
        """
        known = self.known if node.value.level not in ("model", "group") else set()
        function = self.sympy.Function(f"{node.op}_{node.value}_{node.args[0].type.extent}")
        total = self.sympy.Integer(0)
        for term in self.sympy.Add.make_args(self.sympy.expand(arg)):
            outer, inner = term.as_independent(*(term.free_symbols - known), as_Add=False)
            total += outer * function(inner) if inner != 1 else function(term)
        return total

    def _opaque(self, node: Node, args: list[Expr], place: str = "") -> Expr:
        """A function of its own. `place`: where it reads what is known before the step, if not at the parameter."""
        op = MIRRORED.get(node.op, node.op)
        if op != node.op:
            args = args[::-1]
        if OPS[node.op].commutes:
            args = sorted(args, key=self.sympy.default_sort_key)
        from_ = [str(a.type.extent) for a in node.args if OPS[op].role == "reduce"]
        words = ["where" if op == "branch" else op, place, str(node.value), *from_]
        return self.sympy.Function("_".join(words))(*args)
