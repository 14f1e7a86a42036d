"""Are two rules the same? Refuted by running both, proved by algebra, or left open.

Both rules are run with the reference interpreter from the same start, on the same gradients and settings, some of which
change between steps as a scheduler would change them. A difference that is not rounding is a counterexample. Where there
is none, SymPy is asked for a proof by induction over steps: the states of one rule are paired with those of the other, up
to a constant factor, so that starts and updates agree and the new weights are equal. The proof is over the real numbers, case
by case where rules choose by signs. What stays open although nobody sees a difference: one state for two, a power of a setting
that is kept as a running product (the two part when the setting changes, which refutes it), and guards of 1/0 that no run meets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, permutations
from typing import Any, Literal

from optlang import ir
from optlang.algebra import SECONDS, Algebra, Cases, TooHard, deadline
from optlang.analysis.live_states import without_dead
from optlang.analysis.nonnegative import nonnegative
from optlang.compare.trial import Counterexample, refute
from optlang.ir import Bounds, Node, Program, State, substitute, walk
from optlang.printing import as_printed
from optlang.types import TypeProblem

Status = Literal["same", "different", "open"]
MOST_PAIRINGS = 24
JUMPS = frozenset(["sign", "floor", "ceil", "round", "mod", "lt", "le", "gt", "ge", "eq", "ne", "atan2"])


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status` is "same", "different" or "open"; true where it is "same". `notes` tell of differing defaults and names."""

    status: Status
    reason: str
    counterexample: Counterexample | None = None
    notes: tuple[str, ...] = ()

    _repr_pretty_ = as_printed

    def __bool__(self) -> bool:
        return self.status == "same"

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self) -> str:
        """The verdict with its reason, the counterexample where there is one, and the notes."""
        shown = [] if self.counterexample is None else [self.counterexample.to_text()]
        return "\n".join([f"{self.status}: {self.reason}", *shown, *(f"note: {note}" for note in self.notes)])


def equivalent(a: Program, b: Program) -> Verdict:
    """Whether two rules take the same steps for every value of the hypers, which correspond by name.

    Defaults and ranges may differ, which is noted only. Rules that draw at different places are never called the same.
    """
    notes = _notes(a, b)
    a, b = without_dead(a), without_dead(b)
    if _are_one(a, b):
        return Verdict("same", "their equations are the same", None, notes)
    found, problem = refute(a, b)
    if found is not None:
        if _is_of_zeros(found.values) and _proof(a, b) is not None:
            return Verdict("open", "equal by algebra, but they divide by zeros of different signs", found, notes)
        if found.is_finite and _jumps(a, b) and _proof(a, b) is not None:
            return Verdict("open", "equal by algebra, but rounding decides on which side of a jump they land", found, notes)
        return Verdict("different", found.summary(), found, notes)
    if _draws(a) != _draws(b):
        return Verdict("open", "their random draws come from different places, so no common step can be compared", None, notes)
    pairing = _proof(a, b)
    if pairing is not None:
        return Verdict("same", pairing, None, notes)
    return Verdict("open", problem or "no difference was found in any run, and algebra found no proof", None, notes)


def _have_one_shape(a: Program, b: Program) -> bool:
    return (a.evaluation is None) == (b.evaluation is None) and set(a.reports or {}) == set(b.reports or {})


def _are_one(a: Program, b: Program) -> bool:
    """Whether nothing needs a proof: expressions are interned."""
    return _have_one_shape(a, b) and a.states == b.states and a.roots() == b.roots() and a.updates == b.updates


def _jumps(a: Program, b: Program) -> bool:
    """Whether a rounding error can have a large effect."""
    return any(node.op in JUMPS for node in walk([*a.roots(), *b.roots()]))


def _draws(program: Program) -> frozenset[Any]:
    return frozenset(node.value for node in walk(program.roots()) if node.op == "random")


def _notes(a: Program, b: Program) -> tuple[str, ...]:
    mine, other = ({h.name: h for h in p.hypers} for p in (a, b))
    notes = [
        f"`{name}` is {mine[name].default:g} in {a.name} by default, {other[name].default:g} in {b.name}"
        for name in mine
        if name in other and mine[name].default != other[name].default
    ]
    for owner, names in ((a, [n for n in mine if n not in other]), (b, [n for n in other if n not in mine])):
        if names:
            notes.append(f"only {owner.name} has {', '.join(f'`{n}`' for n in names)}")
    return tuple(notes)


# ------------------------------------------------------------------------------------------------------------ the proof


def _proof(a: Program, b: Program) -> str | None:
    """How the rules correspond, in words; None where no proof was found."""
    if not _have_one_shape(a, b):
        return None
    Algebra({})  # loads SymPy before the clock starts
    try:
        with deadline(SECONDS):
            for pairs in islice(_pairings(a, b), MOST_PAIRINGS):
                found = _scales(a, b, pairs)
                if found is not None and _holds(a, b, pairs, found):
                    return _words(pairs, found)
    except (TooHard, ArithmeticError, ValueError, TypeError, NotImplementedError, RecursionError):
        return None
    return None


Pairs = tuple[tuple[State, State], ...]  # (of a, of b)


def _pairings(a: Program, b: Program) -> Iterator[Pairs]:
    """Ways to pair the states, by name first, then by order."""
    if len(a.states) != len(b.states):
        return
    named = {s.name: s for s in b.states}
    if set(named) == {s.name for s in a.states}:
        yield tuple((s, named[s.name]) for s in a.states)
    for order in permutations(b.states):
        if all(s.type == other.type for s, other in zip(a.states, order, strict=True)):
            yield tuple(zip(a.states, order, strict=True))


def _settings(a: Program, b: Program) -> dict[str, ir.Hyper]:
    """Hypers of both; one of both may be in either's range."""
    found = {h.name: h for h in a.hypers}
    for hyper in b.hypers:
        mine = found.setdefault(hyper.name, hyper)
        found[hyper.name] = mine._replace(bounds=_both(mine.bounds, hyper.bounds))
    return found


def _both(x: Bounds | None, y: Bounds | None) -> Bounds | None:
    """The smallest range that holds two."""
    if x is None or y is None:
        return None
    low, high = min(x.low, y.low), max(x.high, y.high)
    low_open = all(r.low_open for r in (x, y) if r.low == low)
    return Bounds(low, high, low_open, all(r.high_open for r in (x, y) if r.high == high))


def _scales(a: Program, b: Program, pairs: Pairs) -> list[Any] | None:
    """For each pair the constant factor between the states: 1, or the ratio of what enters them where that is a number."""
    algebra = Algebra(_settings(a, b))
    silent = {s.node: ir.const(0) for p in (a, b) for s in p.states if s.type.kind != "bool" and not s.type.window}
    found = []
    for mine, other in pairs:
        entering = [_entering(p.updates[s.name], silent) for p, s in ((a, mine), (b, other))]
        found.append(_ratio(algebra, entering, mine, other))
    return found


def _entering(update: Node, silent: Mapping[Node, Node]) -> Node | None:
    try:
        return substitute([update], silent)[update]
    except TypeProblem:
        return None


def _ratio(algebra: Algebra, entering: list[Node | None], mine: State, other: State) -> Any:
    one = algebra.sympy.Integer(1)
    if mine.type.kind == "bool" or mine.type.window or entering[0] is None or entering[1] is None:
        return one
    first, second = (algebra.expression(node) for node in entering if node is not None)
    if algebra.is_zero(first):
        first, second = algebra.expression(mine.init), algebra.expression(other.init)
    if algebra.is_zero(first):
        return one
    ratio = algebra.sympy.cancel(second / first)
    return ratio if ratio.is_Rational and ratio != 0 else one


def _holds(a: Program, b: Program, pairs: Pairs, scales: list[Any]) -> bool:
    """The induction: starts, updates, weights, weights to evaluate with and reports agree when the old states do."""
    factors = [ir.const(int(c)) if c.is_Integer else ir.const(float(c)) for c in scales]
    swap = {
        other.node: mine.node if c == 1 else ir.mul(factor, mine.node)
        for (mine, other), c, factor in zip(pairs, scales, factors, strict=True)
    }
    table = substitute(b.all_roots(), swap)
    settings = _settings(a, b)
    algebra = Algebra(settings, nonnegative(replace(a, hypers=tuple(settings.values())), table.values()))
    cases = Cases(algebra)
    claims = [(a.weights, table[b.weights])]
    if a.evaluation is not None and b.evaluation is not None:
        claims.append((a.evaluation, table[b.evaluation]))
    claims += [(node, table[(b.reports or {})[name]]) for name, node in (a.reports or {}).items()]
    for (mine, other), c, factor in zip(pairs, scales, factors, strict=True):
        for left, right in ((mine.init, other.init), (a.updates[mine.name], b.updates[other.name])):
            claims.append((left if c == 1 else ir.mul(factor, left), table[right]))
        if (mine.guard is None) != (other.guard is None):
            return False
        if mine.guard is not None and other.guard is not None:
            claims.append((mine.guard, table[other.guard]))
    return all(algebra.same(left, right) or cases.same(left, right) for left, right in claims)


def _words(pairs: Pairs, scales: list[Any]) -> str:
    renamed = [
        f"`{other.name}` is {'' if c == 1 else f'{c} times '}`{mine.name}`"
        for (mine, other), c in zip(pairs, scales, strict=True)
        if c != 1 or mine.name != other.name
    ]
    return "equal by algebra" + (f", where {', '.join(renamed)}" if renamed else "")


def _is_of_zeros(values: tuple[float, float]) -> bool:
    """Whether two results are infinite and differ in sign, as 1/0 and 1/-0 do: algebra knows one zero only."""
    return all(map(math.isinf, values)) and values[0] == -values[1]
