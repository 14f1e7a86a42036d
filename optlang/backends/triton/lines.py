"""Triton for rules with rows, columns and matrices: a program goes down a strip of tiles, of [matrices, rows, columns], and where
nothing is summed per column over some beside each other, too.

What a strip finds of each row, column and matrix it leaves beside, in the number type of the kernel, where the next pass leaves
its own; `lines_K` adds that up, in order. What is read from a row is one value for its part of a tile. Reductions from lines go
over these: to matrices `matrices_K`, to tensors `gather_K`. States per line are written when all passes are over. `batch`,
`height` and `width` are a tensor's matrices, rows and columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from optlang.backends.formats import Packed
from optlang.backends.kernels.lines import DIMENSIONS, LINES, frame_of, over, way
from optlang.backends.kernels.passes import FRAMES, REDUCTIONS, has_lines, kind
from optlang.backends.outputs import TENSORS, Output
from optlang.backends.triton import source
from optlang.backends.triton.layout import ALONG, BLOCK, CHUNKS, EACH, LINES_EACH, MATRICES, Room
from optlang.backends.triton.source import Done, Kernel, Writer
from optlang.backends.triton.texts import ARGUMENTS, START, added, deeper, finished, function, reduced
from optlang.ir import G, Node, W
from optlang.types import Extent

LINED = f"{ARGUMENTS}, shapes, lines"
CONSTANTS = {CHUNKS: ("many", "high", "wide"), MATRICES: ("many",)}
WORDS = {"batch": "batch", "rows": "height", "cols": "width"}
PARTS = {"row": "across", "col": "down", "matrix": "down * across"}  # how many values chunks leave for each line
PART = {"row": "left // {wide}", "col": "top // (high * deep)", "matrix": "(top // (high * deep) * across + left // {wide})"}
TILE = "[many, high, wide]"
PLACES = {
    "matrix": ["at_matrix = first + tl.arange(0, many)[:, None, None]"],
    "col": ["c = {left} + tl.arange(0, wide)[None, None, :]", "at_col = at_matrix * width + c"],
    "row": ["r = top + step * high + tl.arange(0, high)[None, :, None]", "at_row = at_matrix * height + r"],
    "element": ["i = at_row * width + c"],
}
MASKS = {
    "matrix": "in_matrix = at_matrix < batch", "col": "in_col = in_matrix & (c < width)", "row": "in_row = in_matrix & (r < height)",
    "element": "inside = in_row & in_col",
}  # fmt: skip
AXES = {"row": (2,), "col": (1,), "matrix": (2, 1)}  # of a tile, which a reduction goes over
SHAPE = ("batch", "height", "width", "down", "across", "deep", "room")


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernels for outputs, see `source.generate`, with rows and columns where they matter."""
    if not has_lines(outputs):
        return source.generate(outputs, slots, types, double)
    return LinedWriter(outputs, slots, types, "tl.float64" if double else "tl.float32").kernel()


class LinedWriter(Writer):
    """Kernels with rows and columns being written."""

    def kernel(self) -> Kernel:
        frame, beside = frame_of([*self.order, *self.types]), [_counted(self.reductions(number)) for number in range(self.passes)]
        weight = next((kind for node in (W, G) if isinstance(kind := self.types.get(node), str)), self.number)
        room = Room(_counted(self._values), beside, frame, _bytes(self.number), _bytes(weight), 8 * len(self.sums))
        return replace(super().kernel(), arguments=LINED, room=room)

    def functions(self) -> list[tuple[str, str, str]]:
        made = []
        for number in range(self.passes):
            found = super().reductions(number)
            if self.goes_over_elements(number):
                made.append((f"pass_{number}", CHUNKS, self.pass_(number)))
            if any(way(n)[1] in LINES for n in self.reductions(number)):
                made.append((f"lines_{number}", ALONG, self._lines(number)))
            if any(way(n)[0] in LINES and way(n)[1] == "matrix" for n in found):
                made.append((f"matrices_{number}", MATRICES, self._matrices(number)))
            if any(way(n)[1] == "tensor" for n in found):
                made.append((f"gather_{number}", EACH, self.gather(number)))
        kept = [name for name in LINES if self._states(name)]
        return [*made, *((f"keep_{name}", ALONG, self._keep(name)) for name in kept), *self.last()]

    def reductions(self, number: int) -> list[Node]:
        """Those of elements only."""
        return [n for n in super().reductions(number) if way(n)[0] == "element"]

    # ------------------------------------------------------------------------------------------------- places

    @cached_property
    def _values(self) -> list[Node]:
        """The reductions to lines."""
        return [n for n in self.sums if way(n)[1] in LINES and n.op != "count"]

    def place(self, extent: Extent) -> tuple[str, str]:
        name = kind(extent)
        return ("i", "inside") if name == "element" else (f"at_{name}", f"in_{name}")

    def _function(self, name: str, over: str, item: Sequence[str], lines: Sequence[str]) -> str:
        """A kernel whose programs have a row each of what there is to do, the numbers in `item`; lines find where values per line are."""
        head = ["program = tl.program_id(0).to(tl.int64)"]
        head += [f"{word} = tl.load(work + {len(item)} * program + {place})" for place, word in enumerate(item)]
        head += [f"{word} = tl.load(shapes + {len(SHAPE)} * n + {place})" for place, word in enumerate(SHAPE)]
        constants = "".join(f", {word}: tl.constexpr" for word in CONSTANTS.get(over, ()))
        return function(name, [*head, *self.numbers(), *lines], LINED + constants)

    def _line(self, node: Node) -> str:
        """Where the values of a reduction to lines begin."""
        return f"lines + {_room(_counted(self._values[: self._values.index(node)]))}"

    def _part(self, node: Node, part: str) -> str:
        """Where a part of a reduction of elements begins: the first one where the whole will, others behind the values of all."""
        number, name = self.depth[node] - 1, way(node)[1]
        same = [n for n in self.reductions(number) if way(n)[1] in LINES]
        before = Counter(f"{_count(way(n)[1])} * ({PARTS[way(n)[1]]} - 1)" for n in same[: same.index(node)])
        others = " + ".join([_room(_counted(self._values)), *(f"{count} * {room}" for room, count in before.items())])
        own = _room(_counted(self._values[: self._values.index(node)]))
        return f"lines + tl.where({part} == 0, {own}, {others} + ({part} - 1) * {_count(name)})"

    # ---------------------------------------------------------------------------------------------- one pass

    def pass_(self, number: int) -> str:
        """`pass_K`: a strip of tiles of some matrices of one tensor."""
        sums, writes = self.reductions(number), self.writes() if number == self.passes - 1 else []
        body = self.computed([*(n.args[0] for n in sums), *(node for node, _ in writes)])
        lines = self._defined(body, "tensor", True)
        lines += ["steps = tl.minimum(deep, (height - top + high - 1) // high)"]
        if self._goes_right:
            lines.append("broad = (width + wide * across - 1) // (wide * across)")
            lines.append("strips = tl.minimum(broad, (width - left + wide - 1) // wide)")
        lines += self.either("whole", lambda whole: self._strip(body, sums, writes, whole))
        return self._function(f"pass_{number}", CHUNKS, ("chunk", "n", "first", "top", "left", "whole"), lines)

    def _strip(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]], whole: bool) -> list[str]:
        used = [n for n in body if n.op in TENSORS and kind(n.type.extent) != "tensor"] + [target for _, target in writes]
        lines = [line for node in self.types if node in used for line in self.pointers(node, whole)]
        if whole:
            lines += ["width = tl.multiple_of(width, 16)", "left = tl.multiple_of(left, 16)"]
        lines += self._levels(body, ("matrix",) if self._goes_right else ("matrix", "col"), whole)
        lines += [self.begun(n, TILE) for n in sums if way(n)[1] != "row"]
        lines += ["for step in range(0, steps):", *deeper(self._tiles(body, sums, writes, whole))]
        lines += [self._left(n, whole) for n in sums if way(n)[1] in ("col", "matrix")]
        return [*lines, *(self.left_of_chunk(n, reduced(n.op, f"a{self.sums[n]}", 2, 1, 0)) for n in sums if way(n)[1] == "tensor")]

    def _tiles(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]], whole: bool) -> list[str]:
        """A tile, or those beside each other."""
        done: list[Done] = [(n.args[0], None, self._taken(n, whole)) for n in sums]
        done += [(node, target, [self.stored(target, node, whole)]) for node, target in writes]
        elements = self.elements([n for n in body if kind(n.type.extent) == "element"], done, TILE, whole)
        if not self._goes_right:
            return [*self._levels(body, ("row", "element"), whole), *elements]
        rows = [n for n in sums if way(n)[1] == "row"]
        tile = ["begin = left + strip * wide", *self._levels(body, ("col", "element"), whole, "begin"), *elements]
        lines = [*self._levels(body, ("row",), whole), *(self.begun(n, TILE) for n in rows)]
        return [*lines, "for strip in range(0, strips):", *deeper(tile), *(self._left(n, whole) for n in rows)]

    def _levels(self, body: Sequence[Node], names: Sequence[str], whole: bool, left: str = "left") -> list[str]:
        """Where lines or elements of a tile are, which of them exist, and what is computed for each line."""
        lines = [line.format(left=left) for name in names for line in PLACES[name]]
        lines += [] if whole else [MASKS[name] for name in names]
        return lines + [line for name in names if name in LINES for line in self._defined(body, name, whole)]

    @cached_property
    def _goes_right(self) -> bool:
        return not any(way(n) == ("element", "col") for n in self._values)

    def _taken(self, node: Node, whole: bool) -> list[str]:
        """A tile's share of a reduction. Rows are over with it, if there are no others beside it."""
        lines = self.accumulated(node, TILE, "" if whole else "inside")
        if way(node)[1] != "row" or self._goes_right:
            return lines
        return [self.begun(node, TILE), *lines, self._left(node, whole)]

    def _defined(self, body: Sequence[Node], name: str, whole: bool) -> list[str]:
        nodes = [n for n in body if kind(n.type.extent) == name]
        return [self.definition(n) if name == "tensor" else f"{self.names[n]} = {self.spell(n, whole)}" for n in nodes]

    def _left(self, node: Node, whole: bool) -> str:
        """Leaves beside what a chunk has found for lines; of a mean its share, which float32 holds where it holds the mean."""
        name = way(node)[1]
        found = reduced(node.op, f"a{self.sums[node]}", *AXES[name], keeps=True)
        found += f" * (1.0 / ({_product(over(node))}).to(tl.float64))" if node.op == "mean" else ""
        mask, part = "" if whole else f", mask=in_{name}", PART[name].format(wide="(wide * broad)" if self._goes_right else "wide")
        return f"tl.store({self._part(node, part)} + at_{name}, {found}{mask})"

    def spell(self, node: Node, whole: bool) -> str:
        if node.op in FRAMES:
            return self.operand(node.args[0])
        if node.op == "count":
            return f"({_product(over(node))}).to({self.number})"
        if node.op in REDUCTIONS and way(node)[1] in LINES:
            name = way(node)[1]
            mask = "" if whole else f", mask=in_{name}, other=0"
            return f"tl.load({self._line(node)} + at_{name}{mask}).to({self.number})"
        return super().spell(node, whole)

    # ------------------------------------------------------------------------------------------ between passes

    def _lines(self, number: int) -> str:
        """`lines_K`: what chunks have left of some lines of one tensor, added in order."""
        lines = [f"l = first + tl.arange(0, {LINES_EACH})"]
        for n in [n for n in self.reductions(number) if way(n)[1] in LINES]:
            name = way(n)[1]
            lines += [f"inside = l < {_count(name)}", self.begun(n, f"[{LINES_EACH}]")]
            lines.append(f"for part in range(0, tl.where(size > 0, {PARTS[name]}, 0)):")
            read = f"tl.load({self._part(n, 'part')} + l, mask=inside, other={START[n.op]}).to(tl.float64)"
            lines += deeper([f"y = {read}", added(n.op, self.sums[n])])
            whole = finished(n, f"a{self.sums[n]}", f"({_product(over(n))} > 0)")  # shares of a mean; that of nothing is no number
            lines.append(f"tl.store({self._line(n)} + l, {whole}, mask=inside)")
        return self._function(f"lines_{number}", ALONG, ("n", "first"), lines)

    def _matrices(self, number: int) -> str:
        """`matrices_K`: reductions from the rows and columns of some matrices of one tensor."""
        lines = [f"long: tl.constexpr = {BLOCK} // many"]
        lines += ["at_matrix = first + tl.arange(0, many)[:, None]", "in_matrix = at_matrix < batch"]
        found = [n for n in super().reductions(number) if way(n)[1] == "matrix" and way(n)[0] in LINES]
        body = self.computed([n.args[0] for n in found])
        lines += [*self._pointed(body), *self._defined(body, "tensor", False), *self._defined(body, "matrix", False)]
        for name, length in (("row", "height"), ("col", "width")):
            some = [n for n in found if way(n)[0] == name]
            lines += [self.begun(n, "[many, long]") for n in some]
            inner = ["l = step * long + tl.arange(0, long)[None, :]", f"at_{name} = at_matrix * {length} + l"]
            inner += [f"in_{name} = in_matrix & (l < {length})", *self._defined(body, name, False)]
            inner += [line for n in some for line in self.accumulated(n, "[many, long]", f"in_{name}")]
            lines += [f"for step in range(0, ({length} + long - 1) // long):", *deeper(inner)] if some else []
            for n in some:
                text = finished(n, reduced(n.op, f"a{self.sums[n]}", 1, keeps=True), _product(over(n)))
                lines.append(f"tl.store({self._line(n)} + at_matrix, {text}, mask=in_matrix)")
        return self._function(f"matrices_{number}", MATRICES, ("n", "first"), lines)

    def gather(self, number: int) -> str:
        """`gather_K`: reductions to one tensor, of what its chunks have left and of its lines."""
        lines = []
        found = [n for n in super().reductions(number) if way(n)[1] == "tensor"]
        for n in [n for n in found if way(n)[0] == "element"]:
            lines += self.of_chunks(n, _product(over(n)))
        for name in LINES:
            some = [n for n in found if way(n)[0] == name]
            body = self.computed([n.args[0] for n in some])
            lines += [*self._pointed(body), *self._defined(body, "tensor", False), *(self.begun(n, f"[{BLOCK}]") for n in some)]
            inner = [*self._block(f"step + tl.arange(0, {BLOCK})", name), *self._defined(body, "matrix", False)]
            inner += [] if name == "matrix" else self._defined(body, name, False)
            inner += [line for n in some for line in self.accumulated(n, f"[{BLOCK}]", f"in_{name}")]
            lines += [f"for step in range(0, {_count(name)}, {BLOCK}):", *deeper(inner)] if some else []
            lines += [self.gathered(n, finished(n, reduced(n.op, f"a{self.sums[n]}", 0), _product(over(n)))) for n in some]
        return self.of_tensors(f"gather_{number}", lines)

    def of_tensors(self, name: str, lines: Sequence[str]) -> str:
        return self._function(name, EACH, ("n",), lines)

    def _pointed(self, body: Sequence[Node], targets: Sequence[Node] = ()) -> list[str]:
        used = [n for n in self.types if (n in body or n in targets) and kind(n.type.extent) in LINES]
        return [line for node in used for line in self.pointers(node, False)]

    @staticmethod
    def _block(at: str, name: str) -> list[str]:
        """Some lines of a tensor that follow each other, and the matrices that they are in."""
        lines = [f"at_{name} = {at}", f"in_{name} = at_{name} < {_count(name)}"]
        inner = {"row": "height", "col": "width"}.get(name)
        return [*lines, f"at_matrix = at_{name} // {inner}", f"in_matrix = in_{name}"] if inner else lines

    # ---------------------------------------------------------------------------------------------------- ends

    def _states(self, name: str) -> list[tuple[Node, Node]]:
        return [(o.node, o.target) for o in self.outputs if o.target is not None and kind(o.target.type.extent) == name]

    def _keep(self, name: str) -> str:
        """`keep_NAME`: states per line, all computed from old ones; those of matrices last, which rows and columns may read."""
        states = self._states(name)
        body = self.computed([node for node, _ in states])
        lines = [*self._pointed(body, [target for _, target in states]), *self._defined(body, "tensor", False)]
        lines += [*self._block(f"first + tl.arange(0, {LINES_EACH})", name), *self._defined(body, "matrix", False)]
        lines += [] if name == "matrix" else self._defined(body, name, False)
        lines += [self.stored(target, node, False) for node, target in states]
        return self._function(f"keep_{name}", ALONG, ("n", "first"), lines)


def _bytes(word: str) -> int:
    """Of a number, by Triton's name for its type."""
    return int(word.rpartition("loat")[2]) // 8


def _product(dimensions: Sequence[str]) -> str:
    return " * ".join(WORDS[name] for name in dimensions)


def _count(name: str) -> str:
    """How many lines of a kind a tensor has."""
    return _product(DIMENSIONS[name])


def _counted(nodes: Sequence[Node]) -> dict[str, int]:
    """How many of some reductions are to each kind of lines."""
    return {name: sum(way(n)[1] == name for n in nodes) for name in LINES}


def _room(counts: Mapping[str, int]) -> str:
    """Where values for lines of a tensor end, of so many of each kind."""
    return " + ".join(["room", *(f"{count} * {_count(name)}" for name, count in counts.items() if count)])
