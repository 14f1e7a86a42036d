"""Triton source for many parameters at once: a kernel for each pass over the chunks of all tensors (see `passes`).

A program takes one chunk. Chunks that are whole, of tensors whose memory is aligned, are read and written without masks, 16
bytes at a time; the others element by element. After a pass, `gather` adds what its chunks have left, in order; `finish`
writes states per tensor and what is handed out. Nothing of a `.opt` file enters the text but numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optlang.backends.formats import Packed
from optlang.backends.kernels.passes import REDUCTIONS, Passes, whole_power
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.backends.triton import draws, packed
from optlang.backends.triton.layout import BLOCK, CHUNK, CHUNKS, EACH, Room
from optlang.backends.triton.order import used_at_once
from optlang.backends.triton.packed import LevelTables
from optlang.backends.triton.texts import ARGUMENTS, HEAD, START, added, deeper, finished, function, literal, reduced
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT, TENSOR, Extent

CROWDED = 100  # numbers known before the pass: more of them, as of a network, are read where they are used, as registers are few
GATHERED = 1 << 7  # chunks whose results are added at once
BESIDE = 2  # columns behind those of pointers: whether all of these are aligned, and the place of the row of numbers
Done = tuple[Node, Node | None, list[str]]  # what is done with a value, and the tensor that is written into


@dataclass(frozen=True)
class Kernel:
    """`text` defines `pass_0`, `gather_0`, …, and `finish`, which take `arguments`.

    `launches`: these in order, each with what there is a program for, such as chunks or tensors (see `layout`). `tables`: what
    `levels` and `bins` point to. For the rest see `cpp.source`.
    """

    text: str
    launches: tuple[tuple[str, str], ...]
    columns: tuple[tuple[Node, int], ...]
    written: tuple[int, ...]
    sums: int
    returned: int
    tables: LevelTables
    arguments: str = ARGUMENTS
    room: Room | None = None


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernels for outputs. `types`: Triton's name for the elements of each tensor, or the `Packed` that it comes as;
    `double`: arithmetic in 64 bits."""
    return Writer(outputs, slots, types, "tl.float64" if double else "tl.float32").kernel()


class Writer(Passes):
    """Kernels being written."""

    def __init__(self, outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], number: str) -> None:
        super().__init__(outputs, slots, types)
        self.number = number
        self.looked_into = packed.tables(packed.names(self.types.values()))
        self.draws = any(n.op == "random" for n in self.order) or any(map(packed.drawn, self.types.values()))
        self.returned = sum(o.target is None for o in self.outputs)
        self.is_crowded = len(self.slots) > CROWDED

    def kernel(self) -> Kernel:
        made = self.functions()
        text = "\n\n".join([HEAD, *(text for _, _, text in made)])
        launches = tuple((name, each) for name, each, _ in made)
        return Kernel(text, launches, tuple(self.columns), self.written, len(self.sums), self.returned, self.looked_into)

    def functions(self) -> list[tuple[str, str, str]]:
        """Names and texts of the kernels in order, and what there is a program for."""
        made = []
        for number in range(self.passes):
            if self.goes_over_elements(number):
                made.append((f"pass_{number}", CHUNKS, self.pass_(number)))
            if any(self.depth[n] == number + 1 for n in self.sums):
                made.append((f"gather_{number}", EACH, self.gather(number)))
        return made + self.last()

    def goes_over_elements(self, number: int) -> bool:
        return bool(self.reductions(number) or (number == self.passes - 1 and self.writes()))

    def last(self) -> list[tuple[str, str, str]]:
        """What writes values per tensor, if there are any."""
        wanted = any(o.target is None or o.target.type.extent == TENSOR for o in self.outputs)
        return [("finish", EACH, self._finish())] if wanted else []

    # ----------------------------------------------------------------------------------------------- kernels

    def pass_(self, number: int) -> str:
        """One chunk of one tensor."""
        sums, writes = self.reductions(number), self.writes() if number == self.passes - 1 else []
        body = self.computed([*(n.args[0] for n in sums), *(node for node, _ in writes)])
        scalars = [n for n in body if n.type.extent != ELEMENT]
        lines = ["chunk = tl.program_id(0).to(tl.int64)", "n = tl.load(work + 3 * chunk)"]
        lines += [*self.numbers(), *map(self.definition, scalars)]
        lines += [self.begun(n, "()" if self.is_crowded else f"[{BLOCK}]") for n in sums]
        lines += self.either("tl.load(work + 3 * chunk + 2)", lambda whole: self._chunk(body, sums, writes, whole))
        lines += [self.left_of_chunk(n, reduced(n.op, f"a{self.sums[n]}", *(() if self.is_crowded else (0,)))) for n in sums]
        return function(f"pass_{number}", lines)

    def either(self, whole: str, lines: Callable[[bool], Sequence[str]]) -> list[str]:
        """Lines for chunks that are whole, of memory that is aligned, and for others."""
        aligned = f"tl.load(pointers + n * {self.width} + {len(self.columns)})"
        return [f"if ({whole} != 0) & ({aligned} != 0):", *deeper(lines(True)), "else:", *deeper(lines(False))]

    def begun(self, node: Node, shape: str) -> str:
        return f"a{self.sums[node]} = tl.full({shape}, {START[node.op]}, tl.float64)"

    def left_of_chunk(self, node: Node, text: str) -> str:
        return f"tl.store(partial + chunk * {len(self.sums)} + {self.sums[node]}, {text})"

    def _chunk(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]], whole: bool) -> list[str]:
        """The blocks of a chunk. Pointers are told to be aligned only where they are."""
        used = {n for n in body if n.op in TENSORS and n.type.extent == ELEMENT} | {target for _, target in writes}
        lines = [line for node in self.types if node in used for line in self.pointers(node, whole)]
        start = "tl.load(work + 3 * chunk + 1)"
        lines.append(f"low = tl.multiple_of({start}, {CHUNK})" if whole else f"low = {start}")
        elements = [n for n in body if n.type.extent == ELEMENT]
        inside = [] if whole else ["inside = i < size"]
        block = ["at = low + step", f"i = at + tl.arange(0, {BLOCK})", *inside]
        done: list[Done] = [(n.args[0], None, self._summed(n, "" if whole else "inside")) for n in sums]
        done += [(node, target, [*packed.drawn(self.types[target]), self.stored(target, node, whole)]) for node, target in writes]
        block += self.elements(elements, done, f"[{BLOCK}]", whole)
        if whole:
            return [*lines, f"for step in range(0, {CHUNK}, {BLOCK}):", *deeper(block)]
        return [*lines, "step = 0", f"while (step < {CHUNK}) & (low + step < size):", *deeper([*block, f"step += {BLOCK}"])]

    def _summed(self, node: Node, inside: str) -> list[str]:
        """A block's share of a reduction: where registers are few, one number."""
        value, add = self.accumulated(node, f"[{BLOCK}]", inside)
        return [value, f"y = {reduced(node.op, 'y', 0)}", add] if self.is_crowded else [value, add]

    def elements(self, nodes: Sequence[Node], done: Sequence[Done], shape: str, whole: bool) -> list[str]:
        """The values of a block, and what is done with them: before more is drawn, if it can be, as registers are few."""
        lines: list[str] = []
        if self.is_crowded:  # where they are is told by each round, so that they are read in it, and not kept from the first one on
            lines, nodes = [f"near = row + step // (size + {CHUNK})"], used_at_once(nodes)
        left, made = list(done), {node for node, _, _ in done}.difference(nodes)
        loops = draws.loops(nodes)
        for place, node in enumerate(nodes):
            if node in loops or self.is_crowded:
                ready = [one for one in left if one[0] in made and one[1] not in nodes[place:]]
                lines += [line for one in ready for line in one[2]]
                left = [one for one in left if one not in ready]
            if node in loops:
                lines += draws.loop(loops[node], self.names, shape, self.number)
                made.update(loops[node])
            elif node not in made:
                lines.append(f"{self.names[node]} = {self.spell(node, whole)}")
            made.add(node)
        return lines + [line for one in left for line in one[2]]

    def gather(self, number: int) -> str:
        """The reductions of one tensor, when all of its chunks have been passed."""
        lines = []
        for node in [n for n in self.sums if self.depth[n] == number + 1]:
            lines += [self.gathered(node, "size.to(tl.float64)")] if node.op == "count" else self.of_chunks(node, "size")
        return self.of_tensors(f"gather_{number}", lines)

    def of_chunks(self, node: Node, size: str) -> list[str]:
        """What the chunks of a tensor have left is added in order."""
        place = self.sums[node]
        lines = ["c = tl.load(starts + n)", "last = tl.load(starts + n + 1)", self.begun(node, f"[{GATHERED}]"), "while c < last:"]
        read = f"tl.load(partial + i * {len(self.sums)} + {place}, mask=i < last, other={START[node.op]})"
        lines += deeper([f"i = c + tl.arange(0, {GATHERED})", f"y = {read}", added(node.op, place), f"c += {GATHERED}"])
        return [*lines, self.gathered(node, finished(node, reduced(node.op, f"a{place}", 0), size))]

    def gathered(self, node: Node, text: str) -> str:
        return f"tl.store(sums + n * {len(self.sums)} + {self.sums[node]}, {text})"

    def _finish(self) -> str:
        rest = [o for o in self.outputs if o.target is None or o.target.type.extent == TENSOR]
        lines = [self.definition(n) for n in self.computed([o.node for o in rest])]
        for target, text in [(o.target, self.operand(o.node)) for o in rest if o.target is not None]:
            lines += [*self.pointers(target, False), f"tl.store(p{self.tensors[target]}, {self._fitting(target, text)})"]
        handed = [self.operand(o.node) for o in rest if o.target is None]
        lines += [f"tl.store(results + n * {self.returned} + {place}, ({text}).to(tl.float64))" for place, text in enumerate(handed)]
        return self.of_tensors("finish", lines)

    def of_tensors(self, name: str, lines: Sequence[str]) -> str:
        """A kernel with a program for each tensor."""
        return function(name, ["n = tl.program_id(0).to(tl.int64)", *self.numbers(), *lines])

    # --------------------------------------------------------------------------------------------- expressions

    def numbers(self) -> list[str]:
        """What is known of a tensor before the pass."""
        place = f"tl.load(pointers + n * {self.width} + {len(self.columns) + 1})"
        lines = ["size = tl.load(sizes + n)", f"row = rows + {place} * {len(self.slots)}"]
        lines += ["near = row"] if self.is_crowded else [f"s{place} = tl.load(row + {place})" for place in self.slots.values()]
        counter = enumerate(("t", "seed", "stream") if self.draws else ())
        return lines + [f"{name} = tl.load(counters + 3 * n + {place}).to(tl.uint32)" for place, name in counter]

    @property
    def width(self) -> int:
        """Of the table of pointers."""
        return len(self.columns) + BESIDE

    def pointers(self, node: Node, aligned: bool) -> list[str]:
        """Those of a tensor, one for each part that it is stored in."""
        kind, first = self.types[node], self.tensors[node]
        words = [packed.pointer(kind, part) for part in range(len(kind.parts))] if isinstance(kind, Packed) else [kind]
        lines = []
        for place, word in enumerate(words, first):
            pointer = f"tl.load(pointers + n * {self.width} + {place}).to(tl.pointer_type(tl.{word}))"
            lines.append(f"p{place} = tl.multiple_of({pointer}, 16)" if aligned else f"p{place} = {pointer}")
        return lines

    def definition(self, node: Node) -> str:
        """A value per tensor."""
        if node.op in TENSORS:
            [pointer] = self.pointers(node, False)
            return f"{pointer}\n    {self.names[node]} = {self._read(node, f'tl.load(p{self.tensors[node]})')}"
        return f"{self.names[node]} = {self.spell(node, True)}"

    def _read(self, node: Node, text: str) -> str:
        return f"{text} != 0" if node.type.kind == "bool" else f"{text}.to({self.number})"

    def operand(self, node: Node) -> str:
        if node.op == "const" and not isinstance(node.value, bool):
            return f"tl.full((), {literal(float(node.value))}, {self.number})"
        if is_slot(node, self.known):
            found = f"tl.load(near + {self.slots[node]})" if self.is_crowded else f"s{self.slots[node]}"
            return f"({found} != 0)" if node.type.kind == "bool" else found
        return self.names[node]

    def spell(self, node: Node, whole: bool) -> str:
        if node.op in TENSORS and isinstance(kind := self.types[node], Packed):
            return packed.opened(kind, self.tensors[node], self.looked_into, _block(whole))
        if node.op in TENSORS:
            at, inside = self.place(node.type.extent)
            mask = "" if whole else f", mask={inside}, other=0"
            return self._read(node, f"tl.load(p{self.tensors[node]} + {at}{mask})")
        if node.op in REDUCTIONS:
            return f"tl.load(sums + n * {len(self.sums)} + {self.sums[node]}).to({self.number})"
        if node.op == "random":
            return draws.draw(node, self.number)
        if node.op == "pow" and (exponent := whole_power(node.args[1])):
            return f"whole_power({self.operand(node.args[0])}, {exponent})"
        return OPS[node.op].triton.format(*(self.operand(arg) for arg in node.args))

    def place(self, extent: Extent) -> tuple[str, str]:
        """Where values of an extent are in their tensor, and which of them exist."""
        return "i", "inside"

    def accumulated(self, node: Node, shape: str, inside: str) -> list[str]:
        """Values are added to those of earlier blocks; `inside`: which of them exist, if not all."""
        value = f"({self.operand(node.args[0])}).to(tl.float64) + tl.zeros({shape}, tl.float64)"  # of one number, too
        return [f"y = {f'tl.where({inside}, {value}, {START[node.op]})' if inside else value}", added(node.op, self.sums[node])]

    def stored(self, target: Node, node: Node, whole: bool) -> str:
        text = self.operand(node)
        at, inside = self.place(target.type.extent)
        mask = "" if whole else f", mask={inside}"
        if isinstance(kind := self.types[target], Packed):
            value = text if node.type.extent == ELEMENT else f"{text} + tl.zeros([{BLOCK}], tl.float32)"
            return packed.closed(kind, self.tensors[target], self.looked_into, _block(whole), value)
        return f"tl.store(p{self.tensors[target]} + {at}, {self._fitting(target, text)}{mask})"

    def _fitting(self, target: Node, text: str) -> str:
        return f"to_bf16({text})" if self.types[target] == "bfloat16" else f"({text}).to(tl.{self.types[target]})"


def _block(whole: bool) -> str:
    return f"at, size, {whole}, {BLOCK}"
