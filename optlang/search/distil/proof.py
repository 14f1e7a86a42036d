"""Exact algebra on a program, in named steps, each of them proved and the whole tried out; no step makes it longer.

A step puts one expression in the place of another, or one slot in the place of two. SymPy proves the two equal over the real
numbers; identities that it does not know (of signs and moduli) are compared on sampled values, among them zeros and extremes.
In the end the program as found and the result take the same steps in closed loop, in the reference interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from optlang import ir
from optlang.analysis.live_states import without_dead
from optlang.analysis.nonnegative import nonnegative
from optlang.compare.trial import STEPS, refute
from optlang.ir import Node, Program, substitute, walk
from optlang.search.distil.collecting import ARITHMETIC, ROUNDING, Polynomial, brackets, forms, polynomial, sign_forms
from optlang.search.distil.listing import aligned, listing, matched, measure, targets
from optlang.search.distil.signs import sign_moves
from optlang.search.distil.slots import slot_moves
from optlang.search.distil.trace import Kind, Step, difference
from optlang.search.programs.genome import WEIGHTS
from optlang.search.programs.moves import Move, folded, is_share, replaced, same
from optlang.simplify.matching import above, instance, matches
from optlang.simplify.rewriting import View, fits
from optlang.simplify.rules import by_root
from optlang.simplify.samples import SAMPLED, Samples
from optlang.types import TypeProblem

MOST_STEPS = 60
TOLERANCE = 1e-9  # relative, of sampled values in float64


def exact(program: Program, scaled: bool = False) -> tuple[Program, list[Step]]:
    """The program after all exact steps that make it smaller, with the steps."""
    found, steps = _descended(program, scaled, lambda _old, _new: True)
    if steps and not agree(program, found):
        found, steps = _descended(program, scaled, agree)
    return found, [replace(s, evidence=f"{s.evidence}; {LOOP}") for s in steps]


LOOP = f"program as found and result agree in closed loop ({STEPS} steps in each of 7 worlds, reference interpreter)"


def begun(program: Program, scaled: bool) -> Program:
    """The live part of a program, its literals computed where that takes no more assignments (`interp(w, 1, -1)` is one, 2·w - 1 two)."""
    alive = without_dead(program)
    return min(folded(alive), alive, key=lambda one: measure(one, scaled))


def _descended(program: Program, scaled: bool, allowed: Callable[[Program, Program], bool]) -> tuple[Program, list[Step]]:
    steps: list[Step] = []
    program = begun(program, scaled)
    while len(steps) < MOST_STEPS:
        now = measure(program, scaled)
        better = [(size, move) for move in moves(program, scaled) if (size := measure(move.program, scaled)) < now and size[1] <= now[1]]
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
    old = listing(before, scaled, names)
    new = listing(after, scaled, aligned(before, after, scaled, names))
    sizes = (len(before.states), len(after.states))
    return Step(name, kind, *difference(old, new), evidence, (measure(before, scaled)[1], measure(after, scaled)[1]), sizes)


def agree(a: Program, b: Program) -> bool:
    """Whether two programs take the same steps on made-up losses, as long as the first gives finite numbers."""
    found, _ = refute(a, b)
    return found is None or not np.isfinite(found.values[0])


def moves(program: Program, scaled: bool) -> Iterator[Move]:
    """Every step that might be taken from a program; some make it longer."""
    yield from slot_moves(program)
    yield from sign_moves(program)
    view = View(program.roots())
    below = {n for _, root in targets(program, scaled) for n in walk([root])}
    for node in [n for n in view.order if n in below and n.args and n is not program.weights]:
        for name, after, leaves in _forms(node):
            if after is not node and fits(after, node.type, node in view.shaped):
                changed = replaced(program, {node: after})
                if changed is not None:
                    yield Move(name, changed, (node, after, leaves))


# ------------------------------------------------------------------------------------------------- one expression anew

Written = tuple[str, Node, frozenset[Node]]  # what it is called, the new expression, what both are made of


def _forms(node: Node) -> Iterator[Written]:
    try:
        if node.op in ARITHMETIC and not node.host:
            yield from _collected(node)
        if node.op == "sign":
            yield from _sign(node)
        yield from _by_identity(node)
        yield from _by_rule(node)
    except TypeProblem:
        return


def _collected(node: Node) -> Iterator[Written]:
    """Multiplied out and written anew; with its brackets opened, and with them left closed."""
    closed = brackets(node)
    for terms in (polynomial(node), *([polynomial(node, closed)] if closed else [])):
        leaves = frozenset(n for monomial in terms for n, _ in monomial) or frozenset(n for n in walk([node]) if not n.args)
        for form in forms(terms):
            yield _name(form, terms), form, leaves


def _name(form: Node, terms: Polynomial) -> str:
    """What a new form is called."""
    if form.op == "add" and all(a.op == "mul" for a in form.args) and is_share(form.args[0].args[0]):
        b = Fraction(form.args[1].args[0].value)
        return f"averages merged: shares {float(1 - b)!r} + {float(b)!r} = 1"
    if len(terms) > 1 and form.op in ("mul", "div"):
        return "common factor taken out"
    return "sums and products collected"


def _sign(node: Node) -> Iterator[Written]:
    leaves = frozenset(n for m in polynomial(node.args[0]) for n, _ in m)
    for after in sign_forms(node):
        yield "positive factor inside a sign left out", after, leaves


def _by_rule(node: Node) -> Iterator[Written]:
    """The rewrite rules of `optlang.simplify`."""
    for rule in by_root().get(node.op, ()):
        for match in matches(rule.left, node):
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
    ("a sign is its own size but at 0, where it is 0", ir.mul(_apply("sign", X), _apply("abs", _apply("sign", X))), _apply("sign", X)),
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


# -------------------------------------------------------------------------------------------------------------- proofs


def proved(program: Program, move: Move) -> str:
    """Why a step is exact; an empty string where that is not known."""
    assert move.claim is not None
    old, new, leaves = move.claim
    if old.op in ARITHMETIC:
        closed = {n for n in leaves if n.op in ARITHMETIC}
        text = _coefficients(polynomial(old), polynomial(new)) or _coefficients(polynomial(old, closed), polynomial(new, closed))
        if text:
            return text
    if same(program, old, new, leaves):
        return "proved by SymPy over the real numbers"
    return _sampled(program, old, new, leaves)


def _coefficients(a: Polynomial, b: Polynomial) -> str:
    """Whether two sums of products have the same coefficients, but for the rounding of a literal to float64."""
    if set(a) != set(b) or any(abs(a[m] - b[m]) > ROUNDING * abs(a[m]) for m in a):
        return ""
    rounded = "" if a == b else ", but for the rounding of literals to float64"
    whole = ", whose sum is 1 exactly" if len(a) > 1 and sum(a.values()) == 1 else ""
    return f"multiplied out over exact fractions, both have the same coefficients{whole}{rounded}"


def _sampled(program: Program, old: Node, new: Node, leaves: frozenset[Node]) -> str:
    """Compared on values from 1e-38 to 1e38 of both signs, zeros of both signs and the largest float32."""
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
    return f"equal within {TOLERANCE:g} at all {int(tested.sum())} sampled values (1e-38 to 1e38, both signs) at which it was finite"
