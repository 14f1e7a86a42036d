"""Programs as assignments in the functions of the search, to be read and counted: `c = interp(g, m, 0.9)`.

Every expression becomes the call that says most of it, and each is listed once, also where several read it. The new value of
a slot is written `m'`. What is made of literals alone is a number, and no assignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache

from optlang import ir
from optlang.host import evaluate
from optlang.ir import Node, Program, on_host, walk
from optlang.ops import OPS
from optlang.search.programs.functions import ROWS, Function
from optlang.search.programs.genome import WEIGHTS
from optlang.types import TypeProblem

LETTERS = "abcdefhijklnopqrsxyz"


@dataclass(frozen=True, eq=False)
class Call:
    """One assignment: the node it computes, the function, and the nodes that it reads."""

    node: Node
    function: str
    args: tuple[Node, ...]


def update(program: Program) -> Node:
    """What a step takes away from the weights. Raises ValueError for a program that is not written so."""
    if program.weights.op != "sub" or program.weights.args[0] is not ir.W:
        raise ValueError(f"rule `{program.name}` is not of the form w' = w - u, which the programs of a search have")
    return program.weights.args[1]


def unscaled(node: Node) -> Node:
    """An update without the step size in front of it."""
    lr = ir.hyper("lr")
    return node.args[1 - node.args.index(lr)] if node.op == "mul" and lr in node.args else node


def targets(program: Program, scaled: bool) -> list[tuple[str, Node]]:
    """What a step computes, by name. `scaled`: the step size in front of the update belongs to the form, not to the program."""
    u = update(program)
    return [(f"{name}'", node) for name, node in program.updates.items()] + [("u", unscaled(u) if scaled else u)]


@lru_cache(4096)
def _calls(roots: tuple[Node, ...]) -> tuple[Call, ...]:
    literal = _literals(roots)
    found: dict[Node, Call] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in found and node.args and not literal[node]:
            found[node] = call = call_of(node)
            stack.extend(arg for arg in call.args if arg in literal)
    return tuple(found[node] for node in walk(roots) if node in found)


def calls(program: Program, scaled: bool = False) -> tuple[Call, ...]:
    """The assignments of a step, operands before their readers."""
    return _calls(tuple(node for _, node in targets(program, scaled)))


def _literals(roots: Sequence[Node]) -> dict[Node, bool]:
    """Which nodes are made of literals alone."""
    return ir.fold(roots, lambda node, args: node.op == "const" if not node.args else all(args) and node.op in OPS)


@cache
def _patterns() -> Mapping[str, tuple[tuple[int, Function, Node], ...]]:
    """The functions of the search by the operator at their root, the longest first."""
    found: dict[str, list[tuple[int, Function, Node]]] = {}
    for row in ROWS:
        try:
            pattern = row.build(*(ir.input_(f"operand {n}", WEIGHTS) for n in range(row.operands)))
        except TypeProblem:
            continue  # of products of matrices: one operator, which has its own name
        found.setdefault(pattern.op, []).append((sum(1 for n in walk([pattern]) if n.args), row, pattern))
    return {op: tuple(sorted(rows, key=lambda one: -one[0])) for op, rows in found.items()}


@lru_cache(8192)
def call_of(node: Node) -> Call:
    """The function of the search that says most of an expression, with what it is applied to."""
    for _, row, pattern in _patterns().get(node.op, ()):
        fit = matched(pattern, node)
        if fit is not None:
            return Call(node, row.name, tuple(fit[f"operand {n}"] for n in range(row.operands)))
    return Call(node, node.op, node.args)


def matched(pattern: Node, node: Node) -> dict[str, Node] | None:
    """What the inputs of a pattern stand for where it is a node's form, operands of sums and products in either order."""
    for bound in _fits([(pattern, node)], {}):
        return {str(letter.value): value for letter, value in bound.items() if letter.op == "input"}
    return None


def _fits(pairs: list[tuple[Node, Node]], bound: dict[Node, Node]) -> list[dict[Node, Node]]:
    """All ways to bind; at most one is looked for beyond each choice of order."""
    bound = dict(bound)
    while pairs:
        pattern, node = pairs.pop()
        known = bound.get(pattern)
        if known is not None:
            if known is not node:
                return []
            continue
        if pattern.op != "input":
            if not pattern.args:
                if pattern is not node:
                    return []
                continue
            if pattern.op != node.op or pattern.value != node.value or len(pattern.args) != len(node.args):
                return []
        bound[pattern] = node
        if pattern.op == "input":
            continue
        if OPS[pattern.op].commutes and pattern.args[0] is not pattern.args[1]:
            for order in (node.args, node.args[::-1]):
                found = _fits([*pairs, *zip(pattern.args, order, strict=True)], bound)
                if found:
                    return found
            return []
        pairs.extend(zip(pattern.args, node.args, strict=True))
    return [bound]


def listing(program: Program, scaled: bool = False, names: dict[Node, str] | None = None) -> tuple[str, ...]:
    """The assignments of a step as text, in an order in which they can be computed.

    `names`: those of an earlier listing, which expressions keep that are still there; it takes up the new ones.
    """
    names = {} if names is None else names
    order, ends = calls(program, scaled), targets(program, scaled)
    shown = {node: name for name, node in ends}
    here = {call.node: shown[call.node] if call.node in shown else names.get(call.node, "") for call in order}
    taken = {*here.values(), *(s.name for s in program.states)}
    spare = (letter for letter in (*LETTERS, *(f"x{n}" for n in range(1, 10_000))) if letter not in taken)
    here = {node: name or next(spare) for node, name in here.items()}
    lines = [f"{here[call.node]} = {call.function}({', '.join(_word(arg, here) for arg in call.args)})" for call in order]
    lines += [f"{name} = {_word(node, here)}" for name, node in ends if here.get(node) != name]  # what is handed on as it is
    names.update((node, name) for node, name in here.items() if node not in shown)
    return tuple(lines)


def aligned(before: Program, after: Program, scaled: bool, names: Mapping[Node, str]) -> dict[Node, str]:
    """Names for the expressions of a changed program: those that stand in the same place in the order of calls keep theirs."""
    old, new = calls(before, scaled), calls(after, scaled)
    found = {call.node: names[call.node] for call in new if call.node in names}
    pairs = SequenceMatcher(None, [c.function for c in old], [c.function for c in new], autojunk=False).get_matching_blocks()
    for i, j, size in pairs:
        for was, now in zip(old[i : i + size], new[j : j + size], strict=True):
            name = names.get(was.node)
            if name is not None and now.node not in found and name not in found.values():
                found[now.node] = name
    return found


def _word(node: Node, names: Mapping[Node, str]) -> str:
    if node in names:
        return names[node]
    if not node.args:
        return str(node.value) if node.op in ("hyper", "state", "fact", "input") else number(node) if node.op == "const" else node.op
    return number(node)


def number(node: Node) -> str:
    """An expression of literals as the number that it is."""
    return repr(value_of(node))


def value_of(node: Node) -> float | int | bool:
    """The value of an expression of literals."""
    return evaluate(node, {}) if node.args else node.value


def depth(program: Program) -> int:
    """The longest chain of operations."""
    found = ir.fold(program.roots(), lambda node, args: 1 + max(args) if args else 0)
    return sum(found[node] for node in program.roots())


def measure(program: Program, scaled: bool = False) -> tuple[int, int, int, int]:
    """What is made small: slots, then assignments, operations, and the length of chains."""
    host = on_host(program.roots())
    operations = sum(1 for node in walk(program.roots()) if node.args and not host[node])
    return len(program.states), len(calls(program, scaled)), operations, depth(program)
