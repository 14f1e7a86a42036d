"""Scaling degrees: how every value scales with the loss and with the parameter.

`w` has degree 1 in the parameter, `g` degree 1 in the loss and -1 in the parameter. Sums want equal degrees, products add
them, so the degrees of hypers and states follow from a system of linear equations over the rationals. Literals are pure
numbers, but for zero, infinities and NaN, and for small ones that are added (`+ 1e-8`): these carry whatever is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from optlang.analysis.linear_equations import PURE, ZERO, Degree, Equations, Pair, pair_of
from optlang.analysis.units import CURVATURE, GRADIENT, LOSS, PARAMETER, Conflict, Degrees, words
from optlang.ir import Node, Program, on_host, walk
from optlang.ops import OPS

SMALL = 1e-3
MOST_TERMS = 1_000_000  # of all degrees together: five times those of the largest rule of the library


class TooManyTerms(Exception):
    """A program that no person wrote, of which solving the equations would take long."""


def degrees(program: Program) -> Degrees:
    """The degrees of everything that a program reads. Conflicts are reported, not raised. Raises TooManyTerms."""
    return System(program).solved()


class System:
    """The equations that a program brings, and what follows from them."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.equations = Equations()
        self.conflicts: list[tuple[Node, Pair]] = []
        self.free = 0
        self.degree: dict[Node, Degree] = {}
        self.defaults = {h.name: h.default for h in program.hypers}

    def solved(self) -> Degrees:
        # states first: their equations are simple, and say best what is meant when others conflict with them
        roots = [*self.program.updates.values(), *(s.init for s in self.program.states), *self.program.roots()]
        self.host = on_host(roots)
        terms = 0
        for node in walk(roots):
            self.degree[node] = self._of(node)
            terms += len(self.degree[node].unknown) + len(self.equations.solution)
            if terms > MOST_TERMS:
                raise TooManyTerms
        for state in self.program.states:
            own = Degree(ZERO, {("state", state.name): Fraction(1)})
            self._same(state.node, own, self.program.updates[state.name])
            self._same(state.node, own, state.init)
        self._same(self.program.weights, Degree(PARAMETER), self.program.weights)
        if self.program.evaluation is not None:
            self._same(self.program.evaluation, Degree(PARAMETER), self.program.evaluation)
        return Degrees(
            self.program.name,
            {h.name: self._found("hyper", h.name) for h in self.program.hypers if h.kind != "bool"},
            {s.name: self._found("state", s.name) for s in self.program.states},
            {i.name: self._found("input", i.name) for i in self.program.inputs},
            tuple(self._conflict(node, off) for node, off in self.conflicts),
            _added(self.program),
            {node: pair_of(self.equations.reduced(degree)) for node, degree in self.degree.items()},
        )

    # ------------------------------------------------------------------------------------------------------- equations

    def _of(self, node: Node) -> Degree:
        """The degree of a node from those of its operands, with the equations that it brings."""
        args = [self.degree[a] for a in node.args]
        match node.op:
            case "w":
                return Degree(PARAMETER)
            case "g" | "grad":
                if args:
                    self._equal(node, args[0], Degree(PARAMETER))
                return Degree(GRADIENT)
            case "hvp":
                return args[0].plus(Degree(CURVATURE))
            case "loss" | "loss_at":
                return Degree(LOSS)
            case "hyper" | "state" | "input":
                return PURE if node.type.kind == "bool" else Degree(ZERO, {(node.op, node.value): Fraction(1)})
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne" | "atan2":
                self._alike(node, node.args)
                return PURE
            case "pow":
                return self._power(node)
        return self._by_row(node, args)

    def _by_row(self, node: Node, args: list[Degree]) -> Degree:
        """The operator table says what the degree does."""
        match OPS[node.op].degree:
            case "same":
                return self._alike(node, node.args)
            case "select":
                return self._alike(node, node.args[1:])
            case "product":
                return args[0].plus(args[1])
            case "quotient":
                return args[0].plus(args[1], Fraction(-1))
            case "keep":
                return args[0]
            case "half":
                return args[0].times(Fraction(1, 2))
            case "third":
                return args[0].times(Fraction(1, 3))
            case "none" if node.args:
                for arg in node.args:
                    self._equal(node, self.degree[arg], PURE)
        return PURE

    def _power(self, node: Node) -> Degree:
        base, exponent = node.args
        self._equal(node, self.degree[exponent], PURE)
        value = self._constant(exponent)
        if value is not None:
            return self.degree[base].times(value)
        self._equal(node, self.degree[base], PURE)
        return PURE

    def _constant(self, exponent: Node) -> Fraction | None:
        """An exponent as a number; a hyper counts at its default."""
        if exponent.op == "neg" and (inner := self._constant(exponent.args[0])) is not None:
            return -inner
        value = exponent.value if exponent.op == "const" else self.defaults.get(exponent.value) if exponent.op == "hyper" else None
        return None if value is None or abs(value) > 1000 else Fraction(value).limit_denominator(1000)

    def _alike(self, node: Node, sides: Iterable[Node]) -> Degree:
        """All sides have one degree, which is the result's; carriers take that of the others."""
        heavy = [side for side in sides if not carries(side)]
        if not heavy:
            self.free += 1
            return Degree(ZERO, {("free", self.free): Fraction(1)})
        for side in heavy[1:]:
            self._equal(node, self.degree[heavy[0]], self.degree[side])
        return self.degree[heavy[0]]

    def _equal(self, node: Node, a: Degree, b: Degree) -> None:
        off = self.equations.equal(a, b)
        if off is not None and len(self.conflicts) < 20:
            self.conflicts.append((node, off))

    def _same(self, where: Node, wanted: Degree, value: Node) -> None:
        if not carries(value):
            self._equal(where, wanted, self.degree[value])

    # --------------------------------------------------------------------------------------------------------- results

    def _found(self, kind: str, name: str) -> Pair | None:
        return pair_of(self.equations.reduced(Degree(ZERO, {(kind, name): Fraction(1)})))

    def _conflict(self, node: Node, off: Pair) -> Conflict:
        place = equation_of(self.program, node)
        if node in (self.program.weights, self.program.evaluation) or node.op == "state":
            found = pair_of(self.equations.reduced(self.degree[self.program.weights]))
            if node.op == "state":
                place = f"{node.value}'"
                return Conflict(place, node, f"a state that {words(self._found('state', node.value))}", f"a value {_apart(off)}")
            return Conflict(place, node, "a weight", "a value that " + (words(found) if found is not None else _apart(off)))
        compared = node.args[1:] if OPS[node.op].degree == "select" else node.args
        heavy = [pair_of(self.equations.reduced(self.degree[a])) for a in compared if not carries(a)]
        want, found = (heavy[0], heavy[-1]) if len(heavy) > 1 else (ZERO, heavy[0] if heavy else None)
        return Conflict(place, node, f"what {words(want)}", f"what {words(found)}")


def _apart(off: Pair) -> str:
    return f"that is off by loss^{off[0]} parameter^{off[1]}"


def carries(node: Node) -> bool:
    """Whether a literal takes any units: zero, infinities, NaN, and small numbers that keep others from zero."""
    inner = node.args[0] if node.op == "neg" else node
    if inner.op == "pow" and inner.args[0].op == "const":
        return carries(inner.args[0])
    if inner.op != "const" or isinstance(inner.value, bool):
        return False
    size = abs(inner.value)
    return not 0 < size < float("inf") or size < SMALL


def _added(program: Program) -> frozenset[str]:
    found = {h.name for h in program.hypers if h.kind == "real" and 0 <= h.default <= SMALL}
    for node in walk(program.roots()):
        if node.op not in ("add", "maximum"):
            square = node.op == "pow" and node.args[1].op == "const"
            found -= {a.value for a in node.args if a.op == "hyper" and not square}
    return frozenset(found)


def equation_of(program: Program, node: Node) -> str:
    """The name of the first equation, in the order of computation, that contains a node."""
    equations = [*program.names, *((f"{name}'", new) for name, new in program.updates.items()), ("w'", program.weights)]
    if program.evaluation is not None:
        equations.append(("eval", program.evaluation))
    seen: set[Node] = set()
    for name, root in equations:
        found = walk([root], lambda x: () if x in seen else x.args)
        if node in found:
            return name
        seen.update(found)
    return next((s.name for s in program.states if node in walk([s.init])), "w'")
