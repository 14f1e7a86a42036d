"""Statements and names of a stretch of generated code, as it is made."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from optlang.backends.module.memory import Memory
from optlang.backends.module.placing import Places, Sharing
from optlang.backends.module.scene import Line, Path, Reads, Scene, Want
from optlang.backends.module.wishes import name_of
from optlang.ir import Node, walk
from optlang.printing.identifiers import Names
from optlang.printing.precedence import Piece

SHORT, TEST = 14, 40
ON_WEIGHTS = re.compile(r"\bw\.(new_full|dtype)|\blike=w\b|\b_alike\(.*, w\)")  # only the type and the device of `w` matter there


class Statements:
    """What has been written by now, and what it is called."""

    def __init__(self, wants: Sequence[Want], scene: Scene, names: Names, kept: set[Node], sharing: Sharing, guarded: bool) -> None:
        self.wants, self.scene, self.names, self.kept, self.sharing, self.guarded = wants, scene, names, kept, sharing, guarded
        self.order = walk([want.node for want in wants], scene.operands)
        self.places = Places(wants, self.order, scene, sharing)
        self.paths = self.places.paths
        self.uses = Counter(arg for node in self.order for arg in scene.operands(node))
        self.uses.update(want.node for want in wants)
        self.pieces: dict[Node, Piece] = {}
        self.reads: dict[Node, Reads] = {}
        self.named: dict[Node, str] = {}
        self.promised: dict[Node, str] = {}  # the names of choices that a side of theirs has taken
        self.given: dict[tuple[str, str, bool], dict[str, list[Path]]] = {}  # names by wish and kind, and where they are known
        self.made: list[Line] = []
        self.memory = Memory(scene, self.places, self.uses, kept, guarded)
        self.claims = self.memory.claims
        self.lists: dict[tuple[Node, ...], tuple[str, Reads]] = {}  # the names of values that are weighed together
        self.sides: dict[Node, Node] = {}  # what one side of a choice alone computes, and the choice

    def line(self, path: Path, text: str | list[str], reads: Reads, defines: Iterable[Node] = (), writes: Iterable[Node] = (),
             fills: str = "") -> None:  # fmt: skip
        lines = [text] if isinstance(text, str) else text
        self.made.append(Line(path, lines, set(defines), set(reads.needs), set(reads.old), set(writes), len(self.made), fills))

    def _known(self, node: Node, piece: Piece, reads: Reads) -> None:
        self.pieces[node], self.reads[node] = piece, reads

    def _name(self, node: Node, piece: Piece, reads: Reads) -> None:
        """`name = expression` at the expression's place."""
        name = self._fresh(node)
        self.named[node] = name
        self.line(self.paths[node], f"{name} = {piece.text}", reads, [node])
        alias = reads.old if self.memory.is_alias(node) and not self.memory.is_fresh(node) else frozenset()
        self._known(node, Piece(name), Reads(frozenset([node]), alias))

    def _fresh(self, node: Node) -> str:
        """A name for an expression; one without a label that is a side of a choice takes the name of that."""
        if node in self.scene.promised:
            return self.scene.promised[node]
        user = None if node in self.scene.labels else self.sides.get(node)
        if user is None:
            return self._own(node)
        if user not in self.promised:
            self.promised[user] = self._fresh(user)
        return self.promised[user]

    def _own(self, node: Node) -> str:
        """A name of its own; one that is known on the other side of an `if` alone may be had again."""
        wanted, path = self._wish(node), self.paths[node]
        alike = self.given.setdefault((wanted, node.type.kind, node in self.scene.numbers), {})
        free = (name for name, places in alike.items() if all(self.places.excludes(path, other) for other in places))
        name = next(free, "") or self.names.fresh(wanted, node in self.scene.labels)
        alike.setdefault(name, []).append(path)
        return name

    def _wants_a_name(self, node: Node, piece: Piece) -> bool:
        if node in self.scene.labels or node.op in ("random", "eye", "places"):
            return True
        limit = TEST if node.type.kind == "bool" else SHORT
        return self.uses[node] > 1 and not (node in self.scene.numbers and len(piece.text) <= limit)

    def _wish(self, node: Node) -> str:
        """A name for it."""
        return name_of(node, self.scene.labels, self.scene.inner, self.pieces)
