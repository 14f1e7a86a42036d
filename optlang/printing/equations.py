"""The equations of a program as people read them: names as written, new states with a prime, and a name for what is large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count

from optlang import ir
from optlang.ir import Node, Program
from optlang.printing.opt_expressions import leaf, operation
from optlang.printing.precedence import Piece

LOOSEST = -1
LARGE = 4  # operators of an unnamed expression that is used more than once, from which on it gets a name


def definitions(program: Program) -> list[tuple[str, Node]]:
    """Named equations, new states, what is large and used twice, and the new weights, in an order to compute them in."""
    wanted = [*program.names, *((f"{name}'", node) for name, node in program.updates.items())]
    known = {node for _, node in wanted}
    roots = [*program.roots()]
    others = [*(name for name, _ in wanted), *(s.name for s in program.states), *(h.name for h in program.hypers)]
    taken = {name.replace("_", "") for name in others}
    free = (f"x_{i}" for i in count(1) if f"x{i}" not in taken)  # `x1` and `x_1` are one sign in LaTeX
    wanted += zip(free, _shared([*roots, *known], known), strict=False)
    place = {node: number for number, node in enumerate(ir.walk([*(node for _, node in wanted), *roots]))}
    wanted.sort(key=lambda item: place[item[1]])
    return [*wanted, ("w'", program.weights)]


def _shared(roots: Iterable[Node], named: set[Node]) -> list[Node]:
    """Large expressions and draws without a name that are used more than once."""
    roots = list(roots)
    order = ir.walk(roots)
    uses = Counter(arg for node in order for arg in node.args)
    sizes: dict[Node, int] = {}
    found = []
    for node in order:
        sizes[node] = 1 + sum(1 if arg in named else sizes[arg] for arg in node.args)
        again = uses[node] > 1 and (sizes[node] >= LARGE or node.op == "random")  # a draw written twice would be two
        if node not in named and (again or (node.args and sizes[node] > 80)):
            found.append(node)
            sizes[node] = 1
    return found


def large(node: Node) -> list[Node]:
    """The parts of an expression that get a name of their own, each after those that it is made of."""
    return _shared([node], set())


def texts(roots: Iterable[Node], names: Mapping[Node, str]) -> dict[Node, Piece]:
    """The expressions below the roots as they are written in a `.opt` file, down to what has a name in `names`."""
    found: dict[Node, Piece] = {}
    for node in ir.walk(roots, lambda node: () if node in names else node.args):
        found[node] = Piece(names[node]) if node in names else _written(node, tuple(found[arg] for arg in node.args))
    return found


def definition(node: Node, names: Mapping[Node, str]) -> Piece:
    """An expression written out, even where it has a name itself."""
    if not node.args and node.op != "random":
        return texts([node], names)[node]
    pieces = texts(node.args, names)
    return _written(node, tuple(pieces[arg] for arg in node.args))


def _written(node: Node, args: tuple[Piece, ...]) -> Piece:
    if node.op == "branch":  # a block of the language; as an expression it would be evaluated on both sides
        condition, yes, no = (arg.inside(LOOSEST + 1) for arg in args)
        return Piece(f"{yes} when {condition} else {no}", LOOSEST)
    return operation(node, list(args), "^*/") if node.args else leaf(node, _SELF, _SELF, _SELF)


class _Self(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name


_SELF: Mapping[str, str] = _Self()

__all__ = ["definition", "definitions", "large", "texts"]
