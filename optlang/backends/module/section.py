"""A stretch of generated code: which lines compute some expressions, in which order, under which `if`.

An expression stands where all that use it can see it: before the `if`, or inside the side that alone needs it. What is used
once is written where it is used. A state changes in place, after everything that reads its old value; where the equations
allow no such order, its new value gets a name of its own first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce

from optlang.backends.module.choices import LONG, Choices
from optlang.backends.module.exposure import exposed
from optlang.backends.module.inplace import in_place
from optlang.backends.module.layout import packed
from optlang.backends.module.order import arranged, in_order, printed
from optlang.backends.module.placing import Sharing
from optlang.backends.module.scene import Cycle, Loop, Path, Reads, Scene, Want, Weighted, common
from optlang.backends.module.spell import chooses_whole, counted, filled, size_text, spell
from optlang.backends.module.statements import ON_WEIGHTS
from optlang.ir import Node, T, W
from optlang.ops import OPS
from optlang.printing.identifiers import Names
from optlang.printing.precedence import ATOM, Piece
from optlang.printing.python_text import call, literal

WAYS: tuple[tuple[Sharing, bool], ...] = (("all", True), ("phase", True), ("none", True), ("none", False))  # the most readable first


def write(wants: Sequence[Want], scene: Scene, names: Names) -> tuple[list[str], dict[Node, str]]:
    """The lines, without indentation, and the names of what was computed outside any `if`. Raises TooDeep."""
    for sharing, guarded in WAYS:
        kept: set[Node] = set()
        while True:
            section = Section(wants, scene, names.copy(), kept, sharing, guarded)
            try:
                lines = section.lines()
            except Cycle as cycle:
                if not cycle.writes - kept:
                    break
                kept.add(min(cycle.writes - kept, key=lambda n: str(n.value)))
                continue
            names.taken |= section.names.taken
            return without_weights(lines, scene), section.outermost()
    raise AssertionError("equations without an order")


def without_weights(lines: list[str], scene: Scene) -> list[str]:
    """Leaves out `w = …` where what changes the parameter in place was all that read it."""
    name, source = scene.leaves.get(W, ("", ""))
    binding = f"{name} = {source}"
    others = [line for line in lines if line.strip() != binding]
    used = not name or any(re.search(rf'(?<![\w."]){name}\b', line) for line in others)
    return lines if used else others


class Section(Choices):
    """All lines of a section."""

    def lines(self) -> list[str]:
        copies = [copy for want in self.wants if want.leaf is not None for copy in self.memory.claim(want.node, (), want.leaf)]
        self.sides = self._sides()
        for node in self.order:
            self._define(node)
        for node, path, leaf in copies:
            self._copy(node, path, leaf)
        for want in self.wants:
            text = self.pieces[want.node].text
            if want.leaf is None and want.template.format(text) != f"{text} = {text}":
                self.line((), want.template.format(text), self.reads[want.node])
        self.scene.exposed.update(exposed(self.made, self.scene.guards, self.reads))
        scene = self.scene.naming(exposed(self.made, self.scene.partial, self.reads))
        return printed(in_order(arranged((), self.made, self.pieces, self.reads)), scene)

    def outermost(self) -> dict[Node, str]:
        return {node: name for node, name in self.named.items() if not self.paths[node] and node not in self.claims}

    def _copy(self, node: Node, path: Path, leaf: Node) -> None:
        """Writes a value that has been computed elsewhere."""
        target = self.scene.targets[leaf]
        verb = "fill_" if node in self.scene.numbers else "copy_"
        text, reads = self.pieces[node].text, self.reads[node]
        if leaf in self.kept and reads.old:
            name = self.names.fresh(f"{target}_new")
            mark = object()
            self.line(path, f"{name} = {text}{'' if self.memory.is_fresh(node) else '.clone()'}", reads, [mark])  # type: ignore[list-item]
            text, reads = name, Reads(frozenset([mark]))  # type: ignore[list-item]
        self.line(path, f"{target}.{verb}({text})", reads, self.memory.around(path, leaf), {leaf})

    def _define(self, node: Node) -> None:
        scene = self.scene
        if node in scene.ready:
            self._known(node, Piece(scene.ready[node]), Reads())
        elif node in scene.leaves:
            self._leaf(node)
        elif not node.args and node.op == "const":
            self._known(node, literal(node.value), Reads())
        elif node in scene.rolled:
            rolled = scene.rolled[node]
            self._loop(node, rolled) if isinstance(rolled, Loop) else self._weighted(node, rolled)
        elif node in self.claims:
            self._in_place(node, self.claims[node])
        elif scene.is_if(node):
            self._branch(node)
        else:
            self._plain(node)

    def _leaf(self, node: Node) -> None:
        text, _ = self.scene.leaves[node]
        old = frozenset([node]) if node in self.scene.targets else frozenset()
        self._known(node, Piece(text), Reads(frozenset([node]), old))

    def _plain(self, node: Node) -> None:
        args = self.scene.operands(node)
        reads = Reads()
        for arg in args:
            reads |= self.reads[arg]
        pieces = [self.pieces[arg] for arg in args]
        if sum(len(p.text) for p in pieces) > LONG:
            pieces, reads = self._shortened(args)
        pieces = self.aligned(node, pieces)
        if node.op == "where" and chooses_whole(node, self.scene.numbers):
            pieces[1:] = [self._as_large(side, node) for side in node.args[1:]]
        if node.op == "random":
            piece, reads = Piece(self.scene.draw(node)), Reads(frozenset([T]))
        elif node.op == "eye":
            sizes = dict.fromkeys(size_text(dim, node.type.extent.frame) for dim in node.value)
            piece = Piece(f"torch.eye({', '.join(sizes)}, dtype=w.dtype, device=w.device)")
        elif node.op == "places":
            piece = Piece(f"torch.arange({size_text(node.value, 'param')}, dtype=w.dtype, device=w.device).unsqueeze(-1)")
        elif node.op == "count" and node in self.scene.numbers:
            first, numbers = node.args[0], self.scene.numbers
            piece = counted(node, filled(first, pieces[0], first in numbers.moving) if first in numbers else pieces[0])
        else:
            piece = spell(node, pieces, self.scene.numbers, self.scene.like)
        if ON_WEIGHTS.search(piece.text):
            reads |= Reads(frozenset([W]))
        if self._wants_a_name(node, piece):
            self._name(node, piece, reads)
        else:
            self._known(node, piece, reads)

    def aligned(self, node: Node, pieces: list[Piece]) -> list[Piece]:
        """A window of single values beside values per element gets their dimensions; a number that alone has all that a value
        has, as a count per run beside a value per row, becomes as many."""
        if node.type.extent.level != "array" or OPS[node.op].role not in ("map", "select"):
            return pieces
        if not node.type.window:
            numbers = self.scene.numbers
            if node in numbers or any(arg.type.extent == node.type.extent and arg not in numbers for arg in node.args):
                return pieces
            large = [arg in numbers and arg.type.extent.level == "array" for arg in node.args]
            return [filled(arg, p, arg in numbers.moving) if fill else p for arg, p, fill in zip(node.args, pieces, large, strict=True)]
        small = [arg.type.window and arg.type.extent.level != "array" for arg in node.args]
        near = ["" if arg.type.extent.level == "tensor" else ".to(param.device)" for arg in node.args]  # others may lie on another device
        return [
            Piece(f"{p.inside(ATOM)}{to}.reshape(-1, *[1] * param.ndim)") if s else p for p, to, s in zip(pieces, near, small, strict=True)
        ]

    def _shortened(self, args: Sequence[Node]) -> tuple[list[Piece], Reads]:
        """Gives the longest operand a name of its own."""
        longest = max(args, key=lambda a: len(self.pieces[a].text))
        if longest not in self.named and self.scene.operands(longest) and longest not in self.claims:
            self._name(longest, self.pieces[longest], self.reads[longest])
        reads = Reads()
        for arg in args:
            reads |= self.reads[arg]
        return [self.pieces[arg] for arg in args], reads

    def _in_place(self, node: Node, leaf: Node) -> None:
        target = self.scene.targets[leaf]
        reads = Reads()
        if self.scene.is_if(node):
            self.scene.whole.update([node] if leaf in self.scene.guards and node.args[0] in self.scene.numbers.moving else [])
        else:
            text = in_place(node, leaf, target, self)
            for arg in self.scene.operands(node):
                reads |= self.reads[arg]
            if ON_WEIGHTS.search(text):
                reads |= Reads(frozenset([W]))
            self.line(self.paths[node], text, reads, {node} | self.memory.around(self.paths[node], leaf), {leaf})
        bound = [leaf] if self.scene.leaves[leaf][0] == target else []  # the name must be there, whatever the `if` did
        self._known(node, Piece(target), Reads(frozenset([node, *bound])))

    def _loop(self, node: Node, loop: Loop) -> None:
        name = self._fresh(node)
        ready = {**self.scene.ready, loop.hole: name, **{n: self.pieces[n].inside(ATOM) for n in loop.outer}}
        scene = Scene(self.scene.leaves, {}, ready, {}, {}, self.scene.numbers, self.scene.draw, self.scene.like,
                      inner=self.scene.inner)  # fmt: skip
        body, _ = write([Want(loop.turn, template=f"{name} = {{}}")], scene, self.names)
        text = [f"{name} = {self.pieces[loop.first].text}", f"for _ in range({loop.count}):", *(f"    {line}" for line in body)]
        reads = self.reads[loop.first]
        for outer in loop.outer:
            reads |= self.reads[outer]
        self.named[node] = name
        self.line(self.paths[node], text, reads, [node])
        self._known(node, Piece(name), Reads(frozenset([node]), self.reads[loop.first].old))

    def _weighted(self, node: Node, total: Weighted) -> None:
        """A sum by a column of a table."""
        table, _, column = self.scene.leaves[total.weight][0].rpartition("[0][")
        listed, reads = self._listed(total.values)
        piece = call("_dense", table, column.rstrip("]"), listed)
        if self._wants_a_name(node, piece):
            self._name(node, piece, reads)
        else:
            self._known(node, piece, reads)

    def _listed(self, values: tuple[Node, ...]) -> tuple[str, Reads]:
        """Values as a list, which has a name where several columns weigh them or it is long."""
        if values in self.lists:
            return self.lists[values]
        reads = Reads()
        for value in values:
            reads |= self.reads[value]
        entries = [self.pieces[value].text for value in values]
        sums = [(node, one) for node, one in self.scene.rolled.items() if isinstance(one, Weighted) and node in self.paths]
        alike = [node for node, one in sums if one.values == values]
        if len(alike) == 1 and len(text := f"[{', '.join(entries)}]") <= LONG:
            return text, reads
        name, mark = self.names.fresh("values"), object()
        path = reduce(common, [self.paths[node] for node in alike])
        self.line(path, packed(f"{name} = [", entries, "]"), reads, [mark])  # type: ignore[list-item]
        self.lists[values] = name, Reads(frozenset([mark]), reads.old)  # type: ignore[list-item]
        return self.lists[values]
