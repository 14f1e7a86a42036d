"""Steps that are exact but for a protection, the small number that keeps a divisor from zero; each says where it matters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optlang import ir
from optlang.analysis.nonnegative import nonnegative
from optlang.ir import Node, Program, walk
from optlang.search.distil.collecting import Monomial, polynomial, product, term
from optlang.search.distil.listing import measure, targets
from optlang.search.programs.moves import Move, replaced
from optlang.simplify.rewriting import View, fits
from optlang.simplify.samples import Samples
from optlang.types import TypeProblem

LARGEST = 1e-4  # a literal above it is no protection
UNSEEN = 1e-7  # relative: less than float32 can show
SHOWN = 0.01


def bounded(program: Program, scaled: bool = False) -> list[Move]:
    """Shorter programs that are equal but for a protection, the shortest first; `evidence` holds the bound, which was checked."""
    view = View(program.roots())
    below = {n for _, root in targets(program, scaled) for n in walk([root])}
    now = measure(program, scaled)
    found = []
    for node in [n for n in view.order if n in below]:
        for name, after, evidence in [*_signs(node), *_idle(node, program)]:
            changed = replaced(program, {node: after}) if fits(after, node.type, node in view.shaped) else None
            if changed is not None and measure(changed, scaled) < now:
                found.append(Move(name, changed, None, evidence))
    return sorted(found, key=lambda move: measure(move.program, scaled))


Bounded = tuple[str, Node, str]


def _signs(node: Node) -> Iterator[Bounded]:
    """x/(|x| + e) and x/√(x² + e), and products with them, as a sign."""
    if node.op != "div":
        return
    divisor = node.args[1]
    size, tiny, root = _protected(divisor)
    if size is None or tiny is None:
        return
    terms = polynomial(node.args[0], {size})
    if len(terms) != 1:
        return
    [(monomial, factor)] = terms.items()
    if dict(monomial).get(size, 0) < 1:
        return
    evidence = _ratio_bound(size, divisor, tiny, root)
    if not evidence:
        return
    rest: Monomial = product(monomial, frozenset([(size, -1)]))
    sign = ir.make("sign", (size,))
    try:
        after = sign if not rest and factor == 1 else ir.mul(term(rest, factor), sign)
    except TypeProblem:
        return
    yield "a value over its own protected size is its sign", after, evidence


def _protected(divisor: Node) -> tuple[Node | None, float | None, bool]:
    """x and e of |x| + e, √(x·x) + e, or √(x² + e); and whether e is under the root."""
    if divisor.op == "add":
        inner, tiny = _apart(divisor)
        if inner is not None and inner.op == "abs":
            return inner.args[0], tiny, False
        if inner is not None and inner.op == "sqrt":
            return _squared(inner.args[0]), tiny, False
    if divisor.op == "sqrt" and divisor.args[0].op == "add":
        inner, tiny = _apart(divisor.args[0])
        return (None if inner is None else _squared(inner)), tiny, True
    return None, None, False


def _apart(node: Node) -> tuple[Node | None, float | None]:
    """A sum with a small positive literal: the other part, and the literal."""
    for a, b in (node.args, node.args[::-1]):
        if b.op == "const" and not isinstance(b.value, bool) and 0 < b.value <= LARGEST:
            return a, float(b.value)
    return None, None


def _squared(node: Node) -> Node | None:
    if node.op == "abs":
        node = node.args[0]
    if node.op == "mul" and node.args[0] is node.args[1]:
        return node.args[0]
    return node.args[0] if node.op == "pow" and node.args[1].op == "const" and node.args[1].value == 2 else None


def _ratio_bound(x: Node, divisor: Node, tiny: float, root: bool) -> str:
    """x/divisor against sign(x) on samples: the difference is at most e/(|x| + e), or e/x² under a root. Empty where it is not."""
    leaves = frozenset([x])
    with np.errstate(all="ignore"):
        samples = Samples(ir.div(x, divisor), ir.make("sign", (x,)), leaves, (), frozenset())
        value = np.asarray(samples.leaves[x], dtype=np.float64)
        ratio = np.asarray(samples.values(ir.div(x, divisor), np.float64))
        limit = tiny / value**2 if root else tiny / (np.abs(value) + tiny)
        tested = np.isfinite(ratio) & np.isfinite(value) & (np.abs(value) < 1e150)
        apart = np.abs(ratio - np.sign(value))[tested] > np.minimum(limit, 1.0)[tested] + 1e-12
    if not tested.any() or apart.any():
        return ""
    bound = "e/x²" if root else "e/(|x| + e)"
    needed = np.sqrt(tiny * (0.5 / SHOWN)) if root else tiny * (1 / SHOWN - 1)
    return (f"with e = {tiny:g}, the quotient differs from sign(x) by at most {bound}: by less than {SHOWN:.0%} where |x| ≥ {needed:.2g}, "
            f"and both are 0 at 0; held at {int(tested.sum())} sampled x from 1e-38 to 1e38 of both signs, zeros among them")  # fmt: skip


def _idle(node: Node, program: Program) -> Iterator[Bounded]:
    """y + e where y is never small."""
    if node.op != "add":
        return
    inner, tiny = _apart(node)
    if inner is None or tiny is None:
        return
    low = least(inner, nonnegative(program))
    if low > 0 and tiny / low <= UNSEEN:
        evidence = f"what {tiny:g} is added to is never below {low:g}: it changes at most {tiny / low:.1g} of the value, unseen in float32"
        yield "a protection that never matters", inner, evidence


def _power_of_t(node: Node) -> float | None:
    """|c| in 1 - c^t, where it is below 1 and so never exceeded by the power."""
    one, power = node.args
    if one.op != "const" or one.value != 1 or power.op != "pow" or power.args[1] is not ir.T or power.args[0].op != "const":
        return None
    return abs(float(power.args[0].value)) if abs(power.args[0].value) < 1 else None


def least(root: Node, known: frozenset[Node]) -> float:
    """A number that a value is never below; `known` are the nodes that are never below zero."""

    def low(node: Node, args: tuple[float, ...]) -> float:
        match node.op:
            case "const" if not isinstance(node.value, bool):
                return float(node.value)
            case "t" | "fact":
                return 1.0
            case "sub" if (share := _power_of_t(node)) is not None:
                return 1.0 - share
            case "add":
                return args[0] + args[1]
            case "maximum":
                return max(args)
            case "minimum":
                return min(args)
            case "cosh":
                return 1.0
            case "exp" | "exp2" if args[0] >= 0:
                return 1.0
            case "sqrt" if args[0] > 0:
                return float(np.sqrt(args[0]))
            case "mul" if min(args) > 0:
                return args[0] * args[1]
        return 0.0 if node in known else -np.inf

    return ir.fold([root], low)[root]
