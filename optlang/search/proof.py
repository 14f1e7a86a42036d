"""Exact algebra on a program, in named steps, each of them proved and the whole tried out; no step makes it longer.

A step puts one expression in the place of another, or one slot in the place of two. SymPy proves the two equal over the real
numbers; identities that it does not know (of signs and moduli) are compared on sampled values, among them zeros and extremes.
In the end the program as found and the result take the same steps in closed loop, in the reference interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from optlang import ir
from optlang.algebra import Algebra, TooHard, deadline
from optlang.ir import Node, Program, substitute, walk
from optlang.live import nonnegative, without_dead
from optlang.search.collecting import ARITHMETIC, ONE, ROUNDING, Polynomial, common, forms, inverse, polynomial, product, times, total
from optlang.search.genome import WEIGHTS, constant
from optlang.search.listing import listing, matched, measure, targets, value_of
from optlang.search.trace import Kind, Step, difference
from optlang.simplify.guard import SAMPLED, Samples
from optlang.simplify.matching import above, instance, matches
from optlang.simplify.rewriting import View, fits
from optlang.simplify.rules import by_root
from optlang.trial import STEPS, refute
from optlang.types import TypeProblem

MOST_STEPS = 60
SECONDS = 0.5  # for one proof
TOLERANCE = 1e-9  # relative, of sampled values in float64


@dataclass(frozen=True, eq=False)
class Move:
    """A step that might be taken: what it is called, and the program after it. `claim`: (old, new, what both are made of)."""

    name: str
    program: Program
    claim: tuple[Node, Node, frozenset[Node]] | None = None
    evidence: str = ""


def exact(program: Program, scaled: bool = False) -> tuple[Program, list[Step]]:
    """The program after all exact steps that make it smaller, with the steps."""
    found, steps = _descended(program, scaled, lambda _old, _new: True)
    if steps and not agree(program, found):
        found, steps = _descended(program, scaled, agree)
    return found, [replace(s, evidence=f"{s.evidence}; {LOOP}") for s in steps]


LOOP = f"program as found and result agree in closed loop ({STEPS} steps in each of 7 worlds, reference interpreter)"


def _descended(program: Program, scaled: bool, allowed: Callable[[Program, Program], bool]) -> tuple[Program, list[Step]]:
    program, steps = _folded(without_dead(program)), []
    while len(steps) < MOST_STEPS:
        now = measure(program, scaled)
        better = [(size, move) for move in moves(program, scaled) if (size := measure(move.program, scaled)) < now]
        for _, move in sorted(better, key=lambda one: one[0]):
            evidence = move.evidence or proved(program, move)
            if evidence and allowed(program, move.program):
                steps.append(step(move.name, "exact", program, move.program, evidence, scaled))
                program = move.program
                break
        else:
            break
    return program, steps


def step(name: str, kind: Kind, before: Program, after: Program, evidence: str, scaled: bool) -> Step:
    """A step between two programs, with what changed."""
    names: dict[Node, str] = {}
    old, new = listing(before, scaled, names), listing(after, scaled, names)
    sizes = (len(before.states), len(after.states))
    return Step(name, kind, *difference(old, new), evidence, (measure(before, scaled)[1], measure(after, scaled)[1]), sizes)


def agree(a: Program, b: Program) -> bool:
    """Whether two programs take the same steps on made-up losses, as long as the first gives finite numbers."""
    found, _ = refute(a, b)
    return found is None or not np.isfinite(found.values[0])


def moves(program: Program, scaled: bool) -> Iterator[Move]:
    """Every step that might be taken from a program; some make it longer."""
    yield from _slots(program)
    view = View(program.roots())
    below = {n for _, root in targets(program, scaled) for n in walk([root])}
    for node in [n for n in view.order if n in below and n.args and n is not program.weights]:
        for name, after, leaves in _forms(node, view):
            if after is not node and fits(after, node.type, node in view.shaped):
                changed = replaced(program, {node: after})
                if changed is not None:
                    yield Move(name, changed, (node, after, leaves))


def replaced(program: Program, table: Mapping[Node, Node]) -> Program | None:
    """The program with other nodes in some places; None where they do not fit."""
    try:
        return without_dead(_folded(program.replaced(substitute(program.all_roots(), table))))
    except TypeProblem:
        return None


def _folded(program: Program) -> Program:
    """Literals that meet are computed, but for the share 1 - b of an average."""

    def new(node: Node, args: tuple[Node, ...]) -> Node:
        fresh = ir.rebuild(node, args)
        if not args or any(a.op != "const" and not _is_share(a) for a in args) or _is_share(fresh) or fresh.type.kind == "bool":
            return fresh
        value = value_of(fresh) if fresh.type.extent.level == "host" else np.nan
        return constant(float(value)) if np.isfinite(value) else fresh

    try:
        return program.replaced(ir.fold(program.all_roots(), new))
    except TypeProblem:
        return program


def _is_share(node: Node) -> bool:
    return node.op == "sub" and all(a.op == "const" for a in node.args) and node.args[0].value == 1


# ------------------------------------------------------------------------------------------------- one expression anew

Written = tuple[str, Node, frozenset[Node]]  # what it is called, the new expression, what both are made of


def _forms(node: Node, view: View) -> Iterator[Written]:
    try:
        if node.op in ARITHMETIC and not view.host[node]:
            yield from _collected(node)
        if node.op == "sign":
            yield from _sign(node)
        yield from _by_identity(node)
        yield from _by_rule(node, view)
    except TypeProblem:
        return


def _collected(node: Node) -> Iterator[Written]:
    terms = polynomial(node)
    leaves = frozenset(n for monomial in terms for n, _ in monomial) or frozenset(n for n in walk([node]) if not n.args)
    for form in forms(terms):
        share = form.args[1] if form.op == "add" and form.args[1].op == "mul" else None
        average = share is not None and _is_share(form.args[0].args[0] if form.args[0].args else form)
        name = "sums and products collected"
        if average:
            assert share is not None
            kept = Fraction(share.args[0].value)
            name = f"averages merged: shares {float(1 - kept)!r} + {float(kept)!r} = 1"
        yield name, form, leaves


def _sign(node: Node) -> Iterator[Written]:
    """A positive factor does not change a sign."""
    terms = polynomial(node.args[0])
    shared = frozenset((n, p) for n, p in common(terms) if n.op == "hyper" and n.value == "lr")
    inner = {product(monomial, inverse(shared)): factor for monomial, factor in terms.items()}
    for front in dict.fromkeys(abs(factor) for factor in inner.values()):
        after = ir.make("sign", (total(times(inner, 1 / front)),))
        yield "positive factor inside a sign left out", after, frozenset(n for m in terms for n, _ in m)


def _by_rule(node: Node, view: View) -> Iterator[Written]:
    """The rewrite rules of `optlang.simplify`."""
    for rule in by_root().get(node.op, ()):
        for match in matches(rule.left, node, view.host):
            try:
                yield rule.text, instance(rule.right, match), frozenset(match.letters.values())
            except TypeProblem:
                continue


def _input(name: str) -> Node:
    return ir.input_(name, WEIGHTS)


def _apply(op: str, *args: Node) -> Node:
    return ir.make(op, args)


X, Y = _input("x"), _input("y")
ODD = ("tanh", "atan", "asinh", "sinh", "cbrt", "expm1")  # rising functions through 0
IDENTITIES: tuple[tuple[str, Node, Node], ...] = (
    ("squares are not negative", _apply("abs", ir.mul(X, X)), ir.mul(X, X)),
    ("root of a square is the absolute value", _apply("sqrt", ir.mul(X, X)), _apply("abs", X)),
    ("root of a square is the absolute value", _apply("sqrt", _apply("abs", ir.mul(X, X))), _apply("abs", X)),
    ("root of a square is the absolute value", _apply("sqrt", _apply("abs", ir.square(X))), _apply("abs", X)),
    ("a value over its size is its sign", ir.div(X, _apply("abs", X)), _apply("sign", X)),
    ("a value over its size is its sign", ir.div(ir.mul(Y, X), _apply("abs", X)), ir.mul(Y, _apply("sign", X))),
    ("size over value is the sign", ir.div(_apply("abs", X), X), _apply("sign", X)),
    ("a value times its sign is its size", ir.mul(X, _apply("sign", X)), _apply("abs", X)),
    ("size times sign is the value", ir.mul(_apply("abs", X), _apply("sign", X)), X),
    *((f"{name} keeps the sign", _apply("sign", _apply(name, X)), _apply("sign", X)) for name in ODD),
    ("cube keeps the sign", _apply("sign", ir.power(X, ir.const(3))), _apply("sign", X)),
    ("larger and smaller of two", ir.add(_apply("maximum", X, Y), _apply("minimum", X, Y)), ir.add(X, Y)),
    ("root of a size squared again", ir.mul(_apply("sqrt", X), _apply("sqrt", X)), X),
)


def _by_identity(node: Node) -> Iterator[Written]:
    for name, left, right in IDENTITIES:
        fit = matched(left, node) if left.op == node.op else None
        if fit is not None:
            table = {_input(letter): value for letter, value in fit.items()}
            yield name, substitute([right], table)[right], frozenset(fit.values())


# -------------------------------------------------------------------------------------------------------------- slots


def _slots(program: Program) -> Iterator[Move]:
    yield from _silent(program)
    for place, kept in enumerate(program.states):
        for other in program.states[place + 1 :]:
            yield from _merged(program, kept, other)
    for state in program.states:
        yield from _averaged(program, state)


def _starts_at_zero(state: ir.State) -> bool:
    return state.init is ir.const(0) and state.type == WEIGHTS and state.guard is None


def _silent(program: Program) -> Iterator[Move]:
    """A slot that begins at 0 and stays there."""
    for state in filter(_starts_at_zero, program.states):
        nothing = substitute([program.updates[state.name]], {state.node: ir.const(0)})
        if not polynomial(nothing[program.updates[state.name]]):
            changed = replaced(program, {state.node: ir.const(0)})
            if changed is not None:
                yield Move(f"slot {state.name} stays 0", changed, None, "by induction: it begins at 0, and is 0 after a step where it was")


def _merged(program: Program, kept: ir.State, other: ir.State) -> Iterator[Move]:
    """Two slots that always hold the same, up to a factor."""
    if not (_starts_at_zero(kept) and _starts_at_zero(other)):
        return
    for factor in _ratios(program, kept, other):
        same = kept.node if factor == 1 else ir.mul(constant(float(factor)), kept.node)
        try:
            claim = substitute([program.updates[other.name]], {other.node: same})[program.updates[other.name]]
        except TypeProblem:
            return
        mine = program.updates[kept.name]
        wanted = mine if factor == 1 else ir.mul(constant(float(factor)), mine)
        if wanted is not claim and not _same(program, wanted, claim):
            continue
        changed = replaced(program, {other.node: same})
        if changed is not None:
            text = f"by induction: both begin at 0, and {other.name} = {float(factor):g}·{kept.name} holds after a step where it held before"
            yield Move(f"slots {kept.name} and {other.name} merged", changed, None, text)


def _ratios(program: Program, kept: ir.State, other: ir.State) -> list[Fraction]:
    """What could be the factor: 1, or the ratio of what enters the slots."""
    silent = {kept.node: ir.const(0), other.node: ir.const(0)}
    try:
        entering = [polynomial(substitute([program.updates[s.name]], silent)[program.updates[s.name]]) for s in (kept, other)]
    except TypeProblem:
        return [Fraction(1)]
    shared = set(entering[0]) & set(entering[1])
    return list(dict.fromkeys([Fraction(1), *(entering[1][m] / entering[0][m] for m in list(shared)[:1])]))


def _averaged(program: Program, state: ir.State) -> Iterator[Move]:
    """A decaying sum, m' = bm + ax, is an average times a/(1 - b): the slot then holds the average."""
    if not _starts_at_zero(state):
        return
    terms = polynomial(program.updates[state.name])
    own = frozenset([(state.node, 1)])
    others = [m for m in terms if m != own]
    if own not in terms or len(others) != 1 or not 0 < terms[own] < 1 or others[0] == ONE:
        return
    factor = terms[others[0]] / (1 - terms[own])
    if factor == 1 or any(state.node in walk([n]) for n, _ in others[0]):
        return
    changed = replaced(program, {state.node: ir.mul(constant(float(factor)), state.node)})
    if changed is None or state.name not in changed.updates:
        return
    changed = replace(changed, updates={**changed.updates, state.name: total({own: terms[own], others[0]: 1 - terms[own]})})
    text = f"by a change of variable: what {state.name} held is {float(factor):g} times what it holds now"
    yield Move(f"slot {state.name} holds an average", changed, None, text)


# -------------------------------------------------------------------------------------------------------------- proofs


def proved(program: Program, move: Move) -> str:
    """Why a step is exact; an empty string where that is not known."""
    assert move.claim is not None
    old, new, leaves = move.claim
    if old.op in ARITHMETIC and (text := _coefficients(polynomial(old), polynomial(new))):
        return text
    if _same(program, old, new, leaves):
        return "proved by SymPy over the real numbers"
    return _sampled(program, old, new, leaves)


def _coefficients(a: Polynomial, b: Polynomial) -> str:
    """Whether two sums of products have the same coefficients, but for the rounding of a literal to float64."""
    if set(a) != set(b) or any(abs(a[m] - b[m]) > ROUNDING * abs(a[m]) for m in a):
        return ""
    rounded = "" if a == b else ", but for the rounding of literals to float64"
    whole = ", whose sum is 1 exactly" if len(a) > 1 and sum(a.values()) == 1 else ""
    return f"multiplied out over exact fractions, both have the same coefficients{whole}{rounded}"


def _same(program: Program, a: Node, b: Node, leaves: frozenset[Node] = frozenset()) -> bool:
    algebra = Algebra({h.name: h for h in program.hypers}, nonnegative(program), leaves)  # loads SymPy before the clock starts
    try:
        with deadline(SECONDS):
            return algebra.same(a, b)
    except (TooHard, ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError, AttributeError):
        return False


def _sampled(program: Program, old: Node, new: Node, leaves: frozenset[Node]) -> str:
    """Compared on values from 1e-44 to 1e38 of both signs, zeros of both signs and the largest float32."""
    if any(n.op not in SAMPLED for root in (old, new) for n in above(root, leaves) if n.args):
        return ""
    settings = tuple(sorted((h.name, h.default, h.bounds, h.kind) for h in program.hypers))
    with np.errstate(all="ignore"):
        samples = Samples(old, new, leaves, settings, leaves & nonnegative(program))
        was, now = (np.broadcast_arrays(samples.values(old, np.float64), samples.values(new, np.float64))[i] for i in (0, 1))
        tested = np.isfinite(was)
        apart = np.abs(now[tested] - was[tested]) > TOLERANCE * np.abs(was[tested])
    if not tested.any() or apart.any():
        return ""
    return f"equal within {TOLERANCE:g} at all {int(tested.sum())} sampled values (1e-44 to 1e38, both signs) at which it was finite"
