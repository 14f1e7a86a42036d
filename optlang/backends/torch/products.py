"""Products of matrices in bfloat16: which sums a product is added to before it is rounded, and what is needed in full beside.

A sum that is a factor of products is rounded to bfloat16 for them; so one call adds the product to the other term, itself a factor
and rounded already, and rounds once. As sums of Newton-Schulz iterations are: y' = 3.4 y + p @ y and p = -4.8 a + 2.0 a @ a.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from optlang.ir import Node
from optlang.ops import OPS

SYMMETRIC = ", symmetric=True"  # what functions of `multiplied` are told


class Added(NamedTuple):
    """share * term + factor * (left @ right)."""

    term: Node
    left: Node
    right: Node
    share: float
    factor: float

    def spelled(self, operands: Sequence[str]) -> str:
        """What `multiplied.added` is given for the term and both factors, in 16 bits."""
        return f"{', '.join(operands)}, {self.share!r}, {self.factor!r}"


class Solved(NamedTuple):
    """inverse(a) @ b or, `right`, b @ inverse(a); `turned`: the inverse is transposed."""

    a: Node
    b: Node
    turned: bool
    right: bool

    def spelled(self, operands: Sequence[str]) -> str:
        return f"ops.solved({', '.join(operands)}{', turned=True' * self.turned}{', right=True' * self.right})"


class Products(NamedTuple):
    """`sums` that are one call; `inside`: what is not computed by itself; `wide`: products and sums that are needed in full, too;
    `lone`: transposed matrices that are read beside no others until they are factors, so that their memory need not be in order;
    `solved`: products with an inverse that nothing else reads."""

    sums: Mapping[Node, Added]
    inside: Collection[Node]
    wide: Collection[Node]
    lone: Collection[Node]
    solved: Mapping[Node, Solved]

    def operands(self, node: Node) -> Sequence[Node]:
        return self.sums[node][:3] if node in self.sums else self.solved[node][:2] if node in self.solved else node.args


def products(order: Sequence[Node], results: Collection[Node]) -> Products:
    """Of expressions to compute, operands first; `results` are needed in full."""
    users, factors = _users(order), _factors(order)
    added = added_products(order, results)

    def is_rounded(node: Node) -> bool:
        """Whether nothing but products, and sums with them, read it."""
        return node in factors and node not in results and all(
            user.op == "matmul" or user in added or (_times(user)[1] is node and users[user] and all(one in added for one in users[user]))
            or (user.op == "transpose" and _is_factor(user, users, results))
            for user in users[node]
        )  # fmt: skip

    sums = {node: one for node, one in added.items() if is_rounded(node)}
    inside = {part for node in sums for part in _parts(node, sums[node]) if set(users[part]) == {node} or part.op == "matmul"}
    inside |= {node for node in order if node.op == "transpose" and _is_factor(node, users, results)}
    read = {arg for n in order if n not in inside and n not in sums and n.op != "matmul" for arg in n.args}
    quiet = _quiet(order, users, {*sums, *inside}, results)
    return Products(sums, inside, read | set(results), {n for n in order if n.op == "transpose" and n in quiet}, {})


def unrounded(order: Sequence[Node], results: Collection[Node]) -> Products:
    """The same where products are in full."""
    users = _users(order)
    found: dict[Node, Solved] = {}
    inside: set[Node] = set()
    for node in [n for n in order if n.op == "matmul"]:
        for place, arg in enumerate(node.args):
            turned = arg.op == "transpose"
            whole = arg.args[0] if turned else arg
            if whole.op == "inverse" and node not in found and all(len(users[n]) == 1 and n not in results for n in {whole, arg}):
                found[node] = Solved(whole.args[0], node.args[1 - place], turned, right=place == 1)
                inside |= {whole, arg}
    return Products({}, inside, (), (), found)


def added_products(order: Sequence[Node], results: Collection[Node]) -> dict[Node, Added]:
    """Sums of a factor and a product, whether others read them or not."""
    users, factors = _users(order), _factors(order)
    return {node: found for node in order if (found := _added(node, users, factors, results))}


def _users(order: Sequence[Node]) -> dict[Node, list[Node]]:
    users: dict[Node, list[Node]] = {node: [] for node in order}
    for node in order:
        for arg in node.args:
            users.setdefault(arg, []).append(node)
    return users


def _factors(order: Sequence[Node]) -> set[Node]:
    return {_turned(arg) for node in order if node.op == "matmul" for arg in node.args}


def _quiet(
    order: Sequence[Node], users: Mapping[Node, Sequence[Node]], multiplied: Collection[Node], results: Collection[Node]
) -> set[Node]:  # fmt: skip
    """Matrices that meet others in products alone, and so do those that are computed of them element by element."""
    found: set[Node] = set()
    for node in reversed(order):
        if node not in results and all(
            user.op == "matmul" or user in multiplied or OPS[user.op].role == "reduce" or (user in found and _is_alone(node, user))
            for user in users[node]
        ):
            found.add(node)
    return found


def _is_alone(node: Node, user: Node) -> bool:
    """Whether a matrix is the only one that something is computed of, and that of each of its elements."""
    return user.type == node.type and all(arg is node or arg.type.extent != node.type.extent for arg in user.args)


def _added(node: Node, users: Mapping[Node, Sequence[Node]], factors: Collection[Node], results: Collection[Node]) -> Added | None:
    """A sum of a factor and a product that nothing else reads, each times a number or not."""
    if node.op not in ("add", "sub"):
        return None
    signs = (1.0, -1.0 if node.op == "sub" else 1.0)
    terms = [(arg, *_times(arg, sign)) for arg, sign in zip(node.args, signs, strict=True)]
    for (term, share, x), (whole, factor, y) in (terms, terms[::-1]):
        alone = all(len(users[part]) == 1 and part not in results for part in {whole, y})
        if y.op == "matmul" and alone and x in factors and term is not whole and x.type == node.type == y.type:
            left, right = y.args
            return Added(x, left, right, share, factor)
    return None


def _times(node: Node, sign: float = 1.0) -> tuple[float, Node]:
    """A number and what it is multiplied with."""
    for number, other in (node.args, node.args[::-1]) if node.op == "mul" else ():
        if number.op == "const" and number.value and math.isfinite(number.value):  # 0 would hide what is no number
            return sign * float(number.value), other
    return sign, node


def _parts(node: Node, one: Added) -> Iterator[Node]:
    """What lies between a sum and what its call takes."""
    for arg in node.args:
        if arg is not one.term:
            yield from {arg, _times(arg)[1]} - {one.term}


def _turned(node: Node) -> Node:
    return _turned(node.args[0]) if node.op == "transpose" else node


def _is_factor(node: Node, users: Mapping[Node, Sequence[Node]], results: Collection[Node]) -> bool:
    """Whether a transposed matrix is in products alone."""
    return node not in results and all(
        user.op == "matmul" or (user.op == "transpose" and _is_factor(user, users, results)) for user in users[node]
    )


def symmetric(order: Iterable[Node]) -> set[Node]:
    """The matrices that equal their transposes whatever the numbers are; `order`: operands first."""
    found: set[Node] = set()
    for node in order:
        if node.op == "matmul":
            (left, turned), (right, turned_too) = (_unscaled(arg, side) for arg, side in zip(node.args, ("rows", "cols"), strict=True))
            mirrored = left is right and (turned != turned_too or left in found)
        else:
            alike = all(arg in found or _is_one(arg) for arg in node.args)
            square = node.op == "eye" and node.value[0] == node.value[1]
            mirrored = square or (alike and (node.op == "transpose" or OPS[node.op].role == "map"))
        if mirrored and node.type.extent.level == "array" and not node.type.window:
            found.add(node)
    return found


def _is_one(node: Node) -> bool:
    """Whether it is the same for all elements of a matrix."""
    extent = node.type.extent
    return extent.level != "array" or (not extent.run and extent.rows == extent.cols == 1)


def _unscaled(node: Node, side: str) -> tuple[Node, bool]:
    """A factor without what multiplies its rows or columns, those that the product sums over, and whether it is transposed."""
    if node.op == "transpose":
        inside, turned = _unscaled(node.args[0], "cols" if side == "rows" else "rows")
        return inside, not turned
    for arg, other in {"mul": (node.args, node.args[::-1]), "div": (node.args,)}.get(node.op, ()):
        extent = other.type.extent
        if extent.level != "array" or (not extent.run and getattr(extent, side) == 1):
            return _unscaled(arg, side)
    return node, False
