"""Sums of products: an expression multiplied out over exact fractions, and written anew in fewer operations.

A polynomial maps each monomial, the set of (node, exponent), to its coefficient. What is not arithmetic is a symbol in it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import reduce

from optlang import ir
from optlang.ir import Node, on_host, walk
from optlang.search.programs.genome import constant

Monomial = frozenset[tuple[Node, int]]
Polynomial = Mapping[Monomial, Fraction]
ONE: Monomial = frozenset()
ARITHMETIC = frozenset(["add", "sub", "mul", "div", "neg", "pow"])
MOST_TERMS = 12
MOST_DIGITS = 400  # of a coefficient, in bits
ROUNDING = Fraction(1, 2**50)  # two shares that add up to 1 but for this are those of an average


def polynomial(root: Node, symbols: Collection[Node] = ()) -> Polynomial:
    """A node multiplied out; a symbol of its own where that is too long. `symbols` are not looked into."""
    found: dict[Node, Polynomial] = {}
    for node in walk([root]):
        inside = node.op in ARITHMETIC and node not in symbols
        made = _combined(node, [found[arg] for arg in node.args]) if inside else _leaf(node)
        found[node] = _symbol(node) if made is None or _too_long(made) else made
    return found[root]


def brackets(root: Node) -> set[Node]:
    """The sums that are multiplied with something, or divided, below a sum."""
    found: set[Node] = set()
    stack, seen = [(root, False)], set[tuple[Node, bool]]()
    while stack:
        node, inside = stack.pop()
        if (node, inside) in seen or node.op not in ARITHMETIC:
            continue
        seen.add((node, inside))
        if inside and node.op in ("add", "sub"):
            found.add(node)
        else:
            stack.extend((arg, inside or node.op not in ("add", "sub", "neg")) for arg in node.args)
    return found


def _symbol(node: Node) -> Polynomial:
    return {frozenset([(node, 1)]): Fraction(1)}


def _leaf(node: Node) -> Polynomial | None:
    if node.op != "const" or isinstance(node.value, bool) or not math.isfinite(node.value):
        return None
    return {ONE: Fraction(node.value)} if node.value else {}


def _too_long(terms: Polynomial) -> bool:
    return len(terms) > MOST_TERMS or any(c.numerator.bit_length() + c.denominator.bit_length() > MOST_DIGITS for c in terms.values())


def _combined(node: Node, args: list[Polynomial]) -> Polynomial | None:
    match node.op:
        case "add":
            return added(args[0], args[1])
        case "sub":
            return added(args[0], times(args[1], Fraction(-1)))
        case "neg":
            return times(args[0], Fraction(-1))
        case "mul":
            return multiplied(args[0], args[1])
        case "div" if len(args[1]) == 1:
            return multiplied(args[0], _inverse(args[1]))
        case "pow" if node.args[1].op == "const" and node.args[1].value in (-2, -1, 1, 2, 3, 4) and len(args[0]) == 1:
            power = int(node.args[1].value)
            return reduce(multiplied, [args[0] if power > 0 else _inverse(args[0])] * abs(power))
    return None


def added(a: Polynomial, b: Polynomial) -> Polynomial:
    total = dict(a)
    for monomial, factor in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + factor
    return {monomial: factor for monomial, factor in total.items() if factor}


def times(a: Polynomial, by: Fraction) -> Polynomial:
    return {monomial: factor * by for monomial, factor in a.items()}


def multiplied(a: Polynomial, b: Polynomial) -> Polynomial:
    total: Polynomial = {}
    for monomial, factor in a.items():
        total = added(total, {product(monomial, other): factor * by for other, by in b.items()})
    return total


def product(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for node, power in b:
        powers[node] = powers.get(node, 0) + power
    return frozenset((node, power) for node, power in powers.items() if power)


def inverse(a: Monomial) -> Monomial:
    return frozenset((node, -power) for node, power in a)


def _inverse(a: Polynomial) -> Polynomial:
    return {inverse(monomial): 1 / factor for monomial, factor in a.items()}


def common(terms: Iterable[Monomial]) -> Monomial:
    """What every term has as a factor."""
    powers = [dict(term) for term in terms]
    shared = set(powers[0]).intersection(*powers[1:]) if powers else set()
    least = {node: min((p[node] for p in powers), key=abs) for node in shared if len({p[node] > 0 for p in powers}) == 1}
    return frozenset(least.items())


# ------------------------------------------------------------------------------------------------------- written anew


def forms(terms: Polynomial) -> Iterator[Node]:
    """Ways to write a polynomial: its common factor in front, and one of its coefficients with it."""
    if not terms:
        yield ir.const(0)
        return
    shared = common(terms)
    inner = {product(monomial, inverse(shared)): factor for monomial, factor in terms.items()}
    for front in dict.fromkeys([Fraction(1), *(abs(factor) for factor in inner.values())]):
        rest = total(times(inner, 1 / front))
        yield _with_front(front, shared, rest)
        if shared and front == 1:
            yield total(terms)


def sign_forms(node: Node) -> Iterator[Node]:
    """sign(x) without a positive literal, or the step size, as a factor of x; with the brackets in x closed, then opened."""
    closed = brackets(node.args[0])
    for terms in (polynomial(node.args[0], closed), polynomial(node.args[0])):
        shared = frozenset((n, p) for n, p in common(terms) if n.op == "hyper" and n.value == "lr")
        inner = {product(monomial, inverse(shared)): factor for monomial, factor in terms.items()}
        for front in dict.fromkeys(abs(factor) for factor in inner.values()):
            yield ir.make("sign", (total(times(inner, 1 / front)),))


def _with_front(front: Fraction, shared: Monomial, rest: Node) -> Node:
    """A factor times the rest; the hypers and literals in it first."""
    if rest.op == "const" and rest.value == 1:
        return term(shared, front)
    known = on_host([node for node, _ in shared])
    host = frozenset((node, power) for node, power in shared if known[node] and power > 0)
    other = shared - host
    above = [n for n, p in sorted(other, key=_order) for _ in range(p)]
    node = reduce(ir.mul, above, rest)
    below = [(n, -p) for n, p in other if p < 0]
    if below:
        node = ir.div(node, term(frozenset(below), Fraction(1)))
    return node if host == ONE and front == 1 else ir.mul(term(host, front), node)


def total(terms: Polynomial) -> Node:
    """The sum; two terms whose shares add up to 1 as an average."""
    if not terms:
        return ir.const(0)
    average = _average(terms)
    if average is not None:
        return average
    ordered = sorted(terms.items(), key=lambda one: (one[1] < 0, _weight(one[0])))
    (first, factor), *others = ordered
    node = term(first, factor)
    for monomial, by in others:
        node = ir.sub(node, term(monomial, -by)) if by < 0 else ir.add(node, term(monomial, by))
    return node


def _average(terms: Polynomial) -> Node | None:
    """(1 - b)x + by, where b is the share of a state, or the larger one."""
    if len(terms) != 2 or ONE in terms:
        return None
    (x, a), (y, b) = sorted(terms.items(), key=lambda one: (_is_state(one[0]), one[1]))
    if abs(a + b - 1) > ROUNDING or 0 in (a, b):
        return None
    share = constant(float(b))
    return ir.add(ir.mul(ir.sub(ir.const(1), share), term(x, Fraction(1))), ir.mul(share, term(y, Fraction(1))))


def _is_state(monomial: Monomial) -> bool:
    return len(monomial) == 1 and all(node.op == "state" and power == 1 for node, power in monomial)


def term(monomial: Monomial, factor: Fraction) -> Node:
    """A coefficient times powers, with at most one division."""
    above = [_power(node, power) for node, power in sorted(monomial, key=_order) if power > 0]
    below = [_power(node, -power) for node, power in sorted(monomial, key=_order) if power < 0]
    number = constant(float(abs(factor)))
    if abs(factor) != 1 or not above:
        above = [number, *above]
    node = reduce(ir.mul, above)
    node = ir.div(node, reduce(ir.mul, below)) if below else node
    return ir.neg(node) if factor < 0 else node


def _power(node: Node, power: int) -> Node:
    return node if power == 1 else ir.power(node, ir.const(power))


def _order(factor: tuple[Node, int]) -> tuple[int, int, str]:
    """Literals and hypers first, then what is short; the same in every process."""
    node, power = factor
    return (node.type.extent.rank, len(walk([node])), f"{node.op} {node.value} {power} {[a.op for a in node.args]}")


def _weight(monomial: Monomial) -> tuple[int, str]:
    return len(monomial), str(sorted(_order(factor) for factor in monomial))
