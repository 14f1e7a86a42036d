"""Forms that no single rule finds: quotients in which something can cancel are handed to SymPy, and the guard judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from optlang.algebra import proposals
from optlang.ir import Node, Program, substitute
from optlang.simplify.matching import Match, above
from optlang.simplify.rewriting import Judge, View, fits, gain, same_place, starts

MOST_CLUSTERS = 6
FEWEST, MOST = 4, 40  # operations in one cluster
RATIONAL = frozenset(["add", "sub", "mul", "div", "neg"])


def better_forms(program: Program, judge: Judge) -> Program:
    """The program with the cheapest allowed form that algebra proposes for each cluster of rational operations."""
    if not judge.judges:
        return program
    view = View([*program.roots(), *starts(program)])
    table: dict[Node, Node] = {}
    for number, (root, match) in enumerate(_clusters(view)):
        if number == MOST_CLUSTERS:
            break
        best = _best(root, match, view, judge)
        if best is not None:
            table[root] = best
    return program.replaced(substitute(program.all_roots(), table)) if table else program


def _clusters(view: View) -> Iterator[tuple[Node, Match]]:
    """Roots, larger first, with the operations below them that nobody else reads. Only such in which something may cancel."""
    taken: set[Node] = set()
    for root in reversed(view.order):
        if root.op not in RATIONAL or root in taken or root.host:
            continue
        inside = _inside(root, view)
        taken.update(inside)
        leaves = dict.fromkeys(arg for node in inside for arg in node.args if arg not in inside)
        if FEWEST <= len(inside) <= MOST and _may_cancel(inside, leaves):
            yield root, Match({f"leaf {i}": leaf for i, leaf in enumerate(leaves)}, tuple(inside))


def _inside(root: Node, view: View) -> dict[Node, None]:
    found: dict[Node, None] = {root: None}
    stack = [root]
    while stack and len(found) <= MOST:
        for arg in stack.pop().args:
            if _rational(arg) and not arg.host and arg not in found and view.users[arg] <= set(found):
                found[arg] = None
                stack.append(arg)
    return found


def _rational(node: Node) -> bool:
    return node.op in RATIONAL or (node.op == "pow" and node.args[1].op == "const" and node.args[1].value in (2, 3, 4))


def _may_cancel(inside: dict[Node, None], leaves: dict[Node, None]) -> bool:
    """Whether some tensor is read below a division line and somewhere else too."""
    reads = Counter(arg for node in inside for arg in node.args)
    below = {leaf for node in inside if node.op == "div" for leaf in _read(node.args[1], frozenset(leaves))}
    return any(reads[leaf] > 1 and leaf.type.extent.level == "array" for leaf in below)


def _read(node: Node, leaves: frozenset[Node]) -> set[Node]:
    if node in leaves:
        return {node}
    return {arg for inner in above(node, leaves) for arg in inner.args if arg in leaves}


def _best(root: Node, match: Match, view: View, judge: Judge) -> Node | None:
    leaves = frozenset(match.letters.values())
    found = proposals(root, leaves, judge.hypers, judge.nonnegative)
    cheaper = [(gain(root, form, match, view), form) for form in found if fits(form, root.type, root in view.shaped)]
    for value, form in sorted(cheaper, key=lambda pair: -pair[0]):
        if value > 0 and same_place(root, form, match) and judge.accepts(root, form, leaves):
            return form
    return None
