"""Two expressions side by side: the little that must be replaced, added or left out to make the second of the first.

Sums are compared term by term and products factor by factor, in any order; everything else operand by operand. A change costs
as many nodes as it touches. Expressions are interned, so that what is the same is found at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from optlang.ir import Node, make, walk
from optlang.ops import OPS
from optlang.types import TypeProblem

DEEPEST = 60  # levels that are compared; whatever lies deeper is one piece
MOST_WORK = 300_000  # nodes, parts and pairs that are looked at; what is left then is one piece, too. Adam and AdEMAMix need 3,000
SMALL = 8  # nodes around a change that are shown with it
SIGNS = {"+": "-", "-": "+", "*": "/", "/": "*"}

Part = tuple[str, Node]  # a term with + or -, a factor with * or /


@dataclass(frozen=True, slots=True)
class Change:
    """`new` stands for `old`; where one is None the other comes in or goes out with a sign, as a term or a factor.

    `wider` is the same change with what is around it, where that is short.
    """

    old: Node | None
    new: Node | None
    sign: str = ""
    wider: tuple[Node, Node] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Changes:
    """What turns one expression into another, and how much of both it touches."""

    cost: int
    parts: tuple[Change, ...] = ()


SAME = Changes(0)
NEVER = Changes(1 << 40)


class Aligner:
    """Compares expressions, each pair once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Node, Node], Changes] = {}
        self._sizes: dict[Node, int] = {}
        self._work = 0

    @property
    def is_done(self) -> bool:
        """Whether nothing finer is looked for any more, since both rules are long and unlike."""
        return self._work > MOST_WORK

    def size(self, node: Node) -> int:
        """How many nodes an expression has, each counted once."""
        if node not in self._sizes:
            self._sizes[node] = len(walk([node]))
            self._work += self._sizes[node]
        return self._sizes[node]

    def align(self, old: Node, new: Node, depth: int = 0) -> Changes:
        """The cheapest changes that were found. States are the same where their names are, whatever they are one of."""
        if old is new or (old.op == new.op == "state" and old.value == new.value):
            return SAME
        self._work += 1
        if (old, new) not in self._known:
            if depth > DEEPEST or self.is_done:
                return self._replaced(old, new)
            self._known[old, new] = min(self._ways(old, new, depth + 1), key=lambda changes: changes.cost)
        return self._known[old, new]

    def _ways(self, old: Node, new: Node, depth: int) -> Iterator[Changes]:
        yield self._replaced(old, new)
        if _is_sum(old) or _is_sum(new):
            yield self._by_parts(old, new, terms(old), terms(new), depth)
        if _is_product(old) or _is_product(new):
            yield self._by_parts(old, new, factors(old), factors(new), depth)
        if old.args and (old.op, old.value, len(old.args)) == (new.op, new.value, len(new.args)):
            yield self._by_operands(old, new, depth)
        for inner, outer in ((old, new), (new, old)):
            if inner.args and any(inner in arg.args or inner is arg for arg in outer.args):
                yield Changes(self.size(outer) - self.size(inner), (Change(old, new),))

    def _replaced(self, old: Node, new: Node) -> Changes:
        return Changes(self.size(old) + self.size(new), (Change(old, new),))

    # ------------------------------------------------------------------------------------------------------ operands

    def _by_operands(self, old: Node, new: Node, depth: int) -> Changes:
        orders = [new.args, new.args[::-1]] if OPS[old.op].commutes and len(new.args) == 2 else [new.args]
        best = min(
            (_joined([self.align(a, b, depth) for a, b in zip(old.args, order, strict=True)]) for order in orders), key=lambda c: c.cost
        )
        return Changes(best.cost, tuple(self._widened(change, old, new) for change in best.parts))

    def _widened(self, change: Change, old: Node, new: Node) -> Change:
        """With a map of one operand around it, or a power."""
        one, other = change.wider or (change.old, change.new)
        if one not in old.args or other not in new.args or not (len(old.args) == 1 or old.op == "pow"):
            return change
        if self.size(old) + self.size(new) > self.size(one) + self.size(other) + SMALL:
            return change
        return Change(change.old, change.new, change.sign, (old, new))

    # --------------------------------------------------------------------------------------------- sums and products

    def _by_parts(self, old: Node, new: Node, all_old: list[Part], all_new: list[Part], depth: int) -> Changes:
        """The parts of two sums or products, paired as cheaply as a greedy choice does."""
        self._work += len(all_old) + len(all_new)
        olds, news = _unshared(all_old, all_new)
        whole = self._of_rests(olds, news, len(all_old) - len(olds), depth)
        pairs, left, right = self._paired(olds, news, depth)
        if len(left) == len(right) == 1 and left[0][0] == right[0][0]:
            return _joined([*pairs, self._replaced(left[0][1], right[0][1])])
        inside = _joined(pairs)
        if whole.cost <= inside.cost + sum(self.size(node) for _, node in [*left, *right]):
            return whole
        cost = inside.cost + sum(self.size(node) + 1 for _, node in [*left, *right])
        grows = (len(all_old) == 1 and not left) or (len(all_new) == 1 and not right)
        if grows and not inside.cost and min(self.size(old), self.size(new)) < SMALL:
            return Changes(cost, (Change(old, new),))
        gone = tuple(Change(node, None, sign) for sign, node in left)
        come = tuple(Change(None, node, sign) for sign, node in right)
        return Changes(cost, (*inside.parts, *gone, *come))

    def _of_rests(self, olds: list[Part], news: list[Part], shared: int, depth: int) -> Changes:
        """What is left of the one side as a whole beside the only part that is left of the other."""
        if not shared or not olds or not news or 1 not in (len(olds), len(news)) or len(olds) == len(news):
            return NEVER
        try:
            old, new = _whole(olds), _whole(news)
        except TypeProblem:
            return NEVER
        return NEVER if old is None or new is None else self.align(old, new, depth)

    def _paired(self, olds: list[Part], news: list[Part], depth: int) -> tuple[list[Changes], list[Part], list[Part]]:
        """Pairs with something in common, and what is left over on both sides."""
        found = []
        for (i, (sign, a)), (j, (other, b)) in product(enumerate(olds), enumerate(news)):
            if self.is_done:
                break
            if sign == other:
                changes = self.align(a, b, depth)
                found.append((changes.cost - self.size(a) - self.size(b), i, j, changes))
        pairs: list[Changes] = []
        free_old, free_new = set(range(len(olds))), set(range(len(news)))
        for gain, i, j, changes in sorted(found, key=lambda item: item[:3]):
            if gain < 0 and i in free_old and j in free_new:
                pairs.append(changes)
                free_old.discard(i)
                free_new.discard(j)
        return pairs, [olds[i] for i in sorted(free_old)], [news[j] for j in sorted(free_new)]


def _joined(changes: Sequence[Changes]) -> Changes:
    parts = tuple(dict.fromkeys(part for one in changes for part in one.parts))
    return Changes(sum(one.cost for one in changes), parts)


def _unshared(olds: Sequence[Part], news: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Both without the parts that both have."""
    rest = list(news)
    mine = []
    for part in olds:
        if part in rest:
            rest.remove(part)
        else:
            mine.append(part)
    return mine, rest


def _whole(parts: list[Part]) -> Node | None:
    """The sum or product of parts; None where it does not begin with one that is added or multiplied."""
    sign, node = parts[0]
    for other, part in parts[1:]:
        node = make({"+": "add", "-": "sub", "*": "mul", "/": "div"}[other], (node, part))
    return node if sign in "+*" else None


def _is_sum(node: Node) -> bool:
    return node.op in ("add", "sub", "neg")


def _is_product(node: Node) -> bool:
    return node.op in ("mul", "div")


def terms(node: Node) -> list[Part]:
    """The terms of a sum, or what is none as its only term."""
    return _flat(node, "+", {"add": ("+", "+"), "sub": ("+", "-"), "neg": ("-",)})


def factors(node: Node) -> list[Part]:
    """The factors of a product, those below the line with /."""
    return _flat(node, "*", {"mul": ("*", "*"), "div": ("*", "/")})


def _flat(node: Node, first: str, signs: dict[str, tuple[str, ...]]) -> list[Part]:
    found: list[Part] = []
    stack = [(first, node)]
    while stack:
        sign, part = stack.pop()
        if part.op not in signs or len(found) + len(stack) > 200:
            found.append((sign, part))
            continue
        for arg, own in reversed(list(zip(part.args, signs[part.op], strict=True))):
            stack.append((sign if own == first else SIGNS[sign], arg))
    return found


__all__ = ["SAME", "Aligner", "Change", "Changes", "factors", "terms"]
