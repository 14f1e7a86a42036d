"""A stretch of generated code: which lines compute some expressions, in which order, under which `if`.

An expression stands where all that use it can see it: before the `if`, or inside the side that alone needs it. What is used
once is written where it is used. A state changes in place, after everything that reads its old value; where the equations
allow no such order, its new value gets a name of its own first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from optlang.backends.module.exposure import exposed
from optlang.backends.module.inplace import in_place
from optlang.backends.module.memory import Memory
from optlang.backends.module.order import arranged, in_order, printed
from optlang.backends.module.placing import Places, Sharing
from optlang.backends.module.scene import Cycle, Line, Loop, Path, Reads, Scene, Want
from optlang.backends.module.spell import chooses_whole, counted, filled, is_alone, shape_text, size_text, spell, wrapped
from optlang.ir import Node, T, W, walk
from optlang.ops import OPS
from optlang.printing.identifiers import Names
from optlang.printing.precedence import ATOM, Piece
from optlang.printing.python_text import literal, ternary

SHORT, TEST, LONG = 14, 40, 80
WAYS: tuple[tuple[Sharing, bool], ...] = (("all", True), ("phase", True), ("none", True), ("none", False))  # the most readable first
ON_WEIGHTS = re.compile(r"\bw\.(new_full|dtype)|\blike=w\b|\b_alike\(.*, w\)")  # only the type and the device of `w` matter there

WISHES = {"random": "z", "sqrt": "root", "div": "ratio", "matmul": "product", "mean": "mean", "sum": "total", "sign": "signs",
          "abs": "size", "branch": "chosen", "where": "chosen", "eye": "identity", "places": "places"}  # fmt: skip


def write(wants: Sequence[Want], scene: Scene, names: Names) -> tuple[list[str], dict[Node, str]]:
    """The lines, without indentation, and the names of what was computed outside any `if`. Raises TooDeep."""
    for sharing, guarded in WAYS:
        kept: set[Node] = set()
        while True:
            section = _Section(wants, scene, names.copy(), kept, sharing, guarded)
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


class _Section:
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
        self.made: list[Line] = []
        self.memory = Memory(scene, self.places, self.uses, kept, guarded)
        self.claims = self.memory.claims
        self.sides: dict[Node, Node] = {}  # what one side of a choice alone computes, and the choice

    # ------------------------------------------------------------------------------------------- statements

    def line(self, path: Path, text: str | list[str], reads: Reads, defines: Iterable[Node] = (), writes: Iterable[Node] = (),
             fills: str = "") -> None:  # fmt: skip
        lines = [text] if isinstance(text, str) else text
        self.made.append(Line(path, lines, set(defines), set(reads.needs), set(reads.old), set(writes), len(self.made), fills))

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

    def _sides(self) -> dict[Node, Node]:
        found: dict[Node, Node] = {}
        for node in self.order:
            if self.scene.is_if(node) and node not in self.claims and node.args[0] not in self.scene.numbers.moving:
                for side, holds in zip(node.args[1:], (True, False), strict=True):
                    if self.paths[side] == (*self.paths[node], self.places.turn(node, holds)) and self._is_large(side, node):
                        found.setdefault(side, node)
        return found

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
        elif node in scene.loops:
            self._loop(node, scene.loops[node])
        elif node in self.claims:
            self._in_place(node, self.claims[node])
        elif scene.is_if(node):
            self._branch(node)
        else:
            self._plain(node)

    def _known(self, node: Node, piece: Piece, reads: Reads) -> None:
        self.pieces[node], self.reads[node] = piece, reads

    def _leaf(self, node: Node) -> None:
        text, _ = self.scene.leaves[node]
        old = frozenset([node]) if node in self.scene.targets else frozenset()
        self._known(node, Piece(text), Reads(frozenset([node]), old))

    def _name(self, node: Node, piece: Piece, reads: Reads) -> None:
        """`name = expression` at the expression's place."""
        name = self._fresh(node)
        self.named[node] = name
        self.line(self.paths[node], f"{name} = {piece.text}", reads, [node])
        alias = reads.old if self.memory.is_alias(node) and not self.memory.is_fresh(node) else frozenset()
        self._known(node, Piece(name), Reads(frozenset([node]), alias))

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

    def _fresh(self, node: Node) -> str:
        """A name for an expression; one without a label that is a side of a choice takes the name of that."""
        if node in self.scene.promised:
            return self.scene.promised[node]
        user = None if node in self.scene.labels else self.sides.get(node)
        if user is None:
            return self.names.fresh(self._wish(node), node in self.scene.labels)
        if user not in self.promised:
            self.promised[user] = self._fresh(user)
        return self.promised[user]

    def _wants_a_name(self, node: Node, piece: Piece) -> bool:
        if node in self.scene.labels or node.op in ("random", "eye", "places"):
            return True
        limit = TEST if node.type.kind == "bool" else SHORT
        return self.uses[node] > 1 and not (node in self.scene.numbers and len(piece.text) <= limit)

    def _wish(self, node: Node) -> str:
        """A name for what has none in the rule."""
        if node in self.scene.labels:
            return self.scene.labels[node]
        base = self.pieces[node.args[0]].text if node.args else ""
        if node.op == "pow" and base.isidentifier() and node.args[1].op == "const" and node.args[1].value == 2:
            return f"{base}_squared"
        if node.op == "transpose" and base.isidentifier():
            return f"{base}_t"
        return WISHES.get(node.op, "x")

    # ---------------------------------------------------------------------------------- states, blocks, loops

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
        name, mark = self.names.fresh(self._wish(node), node in self.scene.labels), object()
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

    def _loop(self, node: Node, loop: Loop) -> None:
        name = self.names.fresh(self.scene.labels.get(node, "y"), node in self.scene.labels)
        ready = {**self.scene.ready, loop.hole: name, **{n: self.pieces[n].inside(ATOM) for n in loop.outer}}
        scene = Scene(self.scene.leaves, {}, ready, {}, {}, self.scene.numbers, self.scene.draw, self.scene.like)
        body, _ = write([Want(loop.turn, template=f"{name} = {{}}")], scene, self.names)
        text = [f"{name} = {self.pieces[loop.first].text}", f"for _ in range({loop.count}):", *(f"    {line}" for line in body)]
        reads = self.reads[loop.first]
        for outer in loop.outer:
            reads |= self.reads[outer]
        self.named[node] = name
        self.line(self.paths[node], text, reads, [node])
        self._known(node, Piece(name), Reads(frozenset([node]), self.reads[loop.first].old))
