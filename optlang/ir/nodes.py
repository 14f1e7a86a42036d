"""Nodes: an interned, immutable expression graph, and the walks over it.

Two nodes with the same operator, operands and value are the same object, so equality is identity and sharing is free:
a chain of a hundred doublings stays a hundred nodes. Types are computed by the operator's row when a node is made.
All walks are iterative, for a program may be deep.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from optlang.ops import OPS
from optlang.types import BOOL_HOST, ELEMENT, HOST, INT_HOST, MODEL, REAL_HOST, TENSOR, Dim, Extent, Frame, Kind, Type, TypeProblem

R = TypeVar("R")
Value = Any  # a hashable constant that belongs to the node: a number, a name, an extent, (distribution, site)
Key = tuple[Any, ...]
KNOWN = ("const", "hyper", "t", "fact")  # leaves that are known before a step
SPREADING = ("map", "select", "window", "model")  # operators that take values per run as values per element where they must


class Node:
    """One expression. Made by `make` and the short forms below, never by the constructor.

    `host`: whether hypers, `t` and static facts alone decide it, so that it is computed once per step in float64.
    """

    __slots__ = ("__weakref__", "args", "host", "op", "type", "value")

    op: str
    args: tuple[Node, ...]
    value: Value
    type: Type
    host: bool

    def __init__(self, op: str, args: tuple[Node, ...], value: Value, type_: Type) -> None:
        self.op, self.args, self.value, self.type = op, args, value, type_
        inside = type_.extent.level != "array" and all(a.host for a in args)
        self.host = inside and not self.gathers if args else op in KNOWN

    @property
    def gathers(self) -> bool:
        """Whether it reduces over several parameters or groups: of these it takes all to know it."""
        return isinstance(self.value, Extent) and bool(self.args) and self.value.rank < self.args[0].type.extent.rank

    def __repr__(self) -> str:
        inside = ", ".join([*([repr(self.value)] if self.value is not None else []), *(f"<{a.op}>" for a in self.args)])
        return f"{self.op}({inside}): {self.type}"

    def __reduce__(self) -> tuple[Callable[..., Node], tuple[Any, ...]]:
        return make, (self.op, self.args, self.value, self.type)

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        return self


_interned: weakref.WeakValueDictionary[Key, Node] = weakref.WeakValueDictionary()


def make(op: str, args: Sequence[Node] = (), value: Value = None, type_: Type | None = None) -> Node:
    """The node `op(args)`. `type_` is given for leaves only; else the row computes it. Raises TypeProblem."""
    args = tuple(args)
    if op == "spread" and not args[0].type.extent.run:
        return args[0]
    # -0.0 == 0.0, True == 1 and nan != nan, so constants are told apart by how they print
    key: Key = (op, args, type(value), repr(value) if isinstance(value, float) else value, None if args else type_)
    found = _interned.get(key)
    if found is None:
        try:
            found = Node(op, args, value, _typed(op, tuple([a.type for a in args]), value) if args else type_ or REAL_HOST)
        except TypeProblem:
            if OPS[op].role not in SPREADING or not any(a.type.extent.run for a in args):
                raise
            found = make(op, [spread(a) for a in args], value)
        _interned[key] = found
    return found


@lru_cache(1024)
def _typed(op: str, args: tuple[Type, ...], value: Value) -> Type:
    """Programs have many nodes, and few kinds of them."""
    return OPS[op].typing(args, value)


def const(value: float | bool) -> Node:
    """A literal. Whole numbers are of kind int, which is a kind of real."""
    kind: Kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "real"
    return make("const", (), value, Type(kind, HOST))


def hyper(name: str, kind: Kind = "real") -> Node:
    return make("hyper", (), name, Type(kind, HOST))


def state(name: str, type_: Type) -> Node:
    return make("state", (), name, type_)


def fact(name: str) -> Node:
    return make("fact", (), name, Type("int", TENSOR))


def input_(name: str, type_: Type) -> Node:
    return make("input", (), name, type_)


def random(distribution: str, site: int, extent: Extent = ELEMENT) -> Node:
    """A draw. Two draws written at different places differ by `site` and are never merged."""
    return make("random", (), (distribution, site), Type("real", extent))


def eye(rows: Dim, frame: Frame = "param", cols: Dim | None = None) -> Node:
    """Ones on the diagonal, else zeros; square where nothing is said of columns."""
    cols = rows if cols is None else cols
    return make("eye", (), (rows, cols), Type("real", Extent("array", rows, cols, frame)))


def places(size: Dim) -> Node:
    """0, 1, 2, … as a column."""
    return make("places", (), size, Type("real", Extent("array", size, 1)))


W = make("w", (), None, Type("real", ELEMENT))
G = make("g", (), None, Type("real", ELEMENT))
T = make("t", (), None, INT_HOST)
LOSS = make("loss", (), None, Type("real", MODEL))
TRUE = const(True)
FALSE = const(False)
assert TRUE.type == BOOL_HOST


def spread(x: Node) -> Node:
    """A value per run as one per element; any other as it is."""
    return make("spread", (x,))


def add(a: Node, b: Node) -> Node:
    return make("add", (a, b))


def sub(a: Node, b: Node) -> Node:
    return make("sub", (a, b))


def mul(a: Node, b: Node) -> Node:
    return make("mul", (a, b))


def div(a: Node, b: Node) -> Node:
    return make("div", (a, b))


def power(a: Node, b: Node) -> Node:
    return make("pow", (a, b))


def square(a: Node) -> Node:
    return make("pow", (a, const(2)))


def neg(a: Node) -> Node:
    return make("neg", (a,))


def branch(condition: Node, a: Node, b: Node) -> Node:
    """`a` where the condition of a `when` or `every` holds, else `b`; only the chosen side is computed."""
    return a if a is b else make("branch", (condition, a, b))


# ---------------------------------------------------------------------------------------------------------- walks


ARGS: Callable[[Node], Sequence[Node]] = attrgetter("args")


def walk(roots: Iterable[Node], operands: Callable[[Node], Sequence[Node]] = ARGS) -> list[Node]:
    """Every node below the roots once, operands before their users. `operands`: what of a node is entered, by default all."""
    return list(_below(tuple(roots)) if operands is ARGS else _ordered(roots, operands))


@lru_cache(32)
def _below(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    """The same expressions are walked again and again by what asks about them."""
    return tuple(_ordered(roots, ARGS))


def _ordered(roots: Iterable[Node], operands: Callable[[Node], Sequence[Node]]) -> dict[Node, None]:
    order: dict[Node, None] = {}
    entered: set[Node] = set()
    stack = list(reversed(list(roots)))
    while stack:
        node = stack[-1]
        if node in entered:  # all below it are done
            order[stack.pop()] = None
        else:
            entered.add(node)
            for arg in reversed(operands(node)):
                if arg not in entered:
                    stack.append(arg)
    return order


def fold(roots: Iterable[Node], combine: Callable[[Node, tuple[R, ...]], R]) -> dict[Node, R]:
    """`combine(node, results of its operands)` for every node below the roots."""
    results: dict[Node, R] = {}
    for node in walk(roots):
        results[node] = combine(node, tuple(results[arg] for arg in node.args))
    return results


def rebuild(node: Node, args: tuple[Node, ...]) -> Node:
    """The same operator over other operands."""
    return node if args == node.args else make(node.op, args, node.value)


def rewrite(roots: Iterable[Node], rule: Callable[[Node], Node | None]) -> dict[Node, Node]:
    """Bottom-up: each node is rebuilt over its rewritten operands, then replaced by `rule` where it answers."""

    def step(node: Node, args: tuple[Node, ...]) -> Node:
        fresh = rebuild(node, args)
        return rule(fresh) or fresh

    return fold(roots, step)


def substitute(roots: Iterable[Node], mapping: Mapping[Node, Node]) -> dict[Node, Node]:
    """Replaces whole nodes; what is put in is not searched again."""
    return rewrite_top(roots, mapping.get)


def rewrite_top(roots: Iterable[Node], rule: Callable[[Node], Node | None]) -> dict[Node, Node]:
    """Like `rewrite`, but `rule` sees each node as it was."""
    return fold(roots, lambda node, args: rule(node) or rebuild(node, args))
