"""Choices between two sides in a stretch of generated code: one expression, an `if`, or both sides for torch to choose from."""

from __future__ import annotations

from collections.abc import Sequence

from optlang.backends.module.scene import Path, Reads
from optlang.backends.module.spell import filled, is_alone, shape_text, wrapped
from optlang.backends.module.statements import ON_WEIGHTS, Statements
from optlang.ir import Node, W
from optlang.printing.precedence import ATOM, Piece
from optlang.printing.python_text import ternary

LONG = 80


class Choices(Statements):
    """Writes the branches that no state takes in place."""

    def _sides(self) -> dict[Node, Node]:
        found: dict[Node, Node] = {}
        for node in self.order:
            if self.scene.is_if(node) and node not in self.claims and node.args[0] not in self.scene.numbers.moving:
                for side, holds in zip(node.args[1:], (True, False), strict=True):
                    if self.paths[side] == (*self.paths[node], self.places.turn(node, holds)) and self._is_large(side, node):
                        found.setdefault(side, node)
        return found

    def _branch(self, node: Node) -> None:
        """`x = a if c else b` where both sides are short, else a name that either side of an `if` sets."""
        condition, yes, no = node.args
        self.scene.whole.update([node] if condition in self.scene.numbers.moving else [])
        reads = self.reads[condition] | self.reads[yes] | self.reads[no]
        sides = [self._as_large(side, node) for side in (yes, no)]
        if any(ON_WEIGHTS.search(side.text) for side in sides):
            reads |= Reads(frozenset([W]))
        inside = [(*self.paths[node], self.places.turn(node, side)) for side in (True, False)]
        if condition in self.scene.numbers.moving:
            self._filled(node, inside, sides)
            return
        busy = any(line.path[: len(path)] == path for line in self.made for path in inside)
        piece = ternary(self.pieces[condition], *sides)
        if not busy and len(piece.text) <= LONG:
            if self._wants_a_name(node, piece) or node not in self.scene.numbers:
                self._name(node, piece, reads)
            else:
                self._known(node, piece, reads)
            return
        name = self.promised.get(node) or self._fresh(node)
        self.named[node] = name
        for path, side, shown in zip(inside, (yes, no), sides, strict=True):
            weights = Reads(frozenset([W])) if ON_WEIGHTS.search(shown.text) else Reads()
            if shown.text == name:  # it has taken this name
                for line in self.made:
                    line.defines.update([node] if side in line.defines else [])
            else:
                self.line(path, f"{name} = {shown.text}", self.reads[side] | weights, [node])
        shared = (self.reads[side].old for side in (yes, no) if not self.memory.is_fresh(side))
        self._known(node, Piece(name), Reads(frozenset([node]), frozenset().union(*shared)))

    def _filled(self, node: Node, inside: Sequence[Path], sides: Sequence[Piece]) -> None:
        """A tensor that is made before the `if` and filled by its sides, by both where torch chooses; or one side is there already."""
        name, mark = self._fresh(node), object()
        kind = ", dtype=torch.bool" * (node.type.kind == "bool")
        made, reads = f"{self.scene.like}.new_empty({shape_text(node.type.extent)}{kind})", Reads(frozenset([W]))
        left = [*zip(node.args[1:], inside, strict=True)]
        for place, side in enumerate(node.args[1:]):
            path = self.paths[side]
            if self.paths[node][: len(path)] == path and side not in self.scene.numbers:
                made, reads, left = f"{sides[place].inside(ATOM)}.clone()", reads | self.reads[side], [left[1 - place]]
                break
        self.line(self.paths[node], f"{name} = {made}", reads, [mark])  # type: ignore[list-item]
        for side, path in left:
            verb = "fill_" if side in self.scene.numbers else "copy_"
            needs = self.reads[side] | Reads(frozenset([mark]))  # type: ignore[list-item]
            self.line(path, f"{name}.{verb}({self.pieces[side].text})", needs, [node], fills=name)
        self.named[node], self.memory.fresh[node] = name, True
        self._known(node, Piece(name), Reads(frozenset([node])))

    def _as_large(self, side: Node, node: Node) -> Piece:
        """One side of a choice in the shape of the whole, so that reductions count as many elements on either."""
        piece, extent = self.pieces[side], node.type.extent
        if self._is_large(side, node):
            return piece
        if extent.level != "array":
            kind = ".bool()" if node.type.kind == "bool" else ""
            return Piece(wrapped(side, piece, self.scene.numbers, self.scene.like).text + kind) if side in self.scene.numbers else piece
        if side in self.scene.numbers:
            return filled(node, piece, moves=side in self.scene.numbers.moving)
        return Piece(f"{piece.inside(ATOM)}.expand({shape_text(extent)})")

    def _is_large(self, side: Node, node: Node) -> bool:
        return node in self.scene.numbers or (
            side.type.extent == node.type.extent and side not in self.scene.numbers and not is_alone(side)
        )
