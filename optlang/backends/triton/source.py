"""Triton source for many parameters at once: a kernel for each pass over the chunks of all tensors (see `passes`).

A program takes one chunk. Chunks that are whole, of tensors whose memory is aligned, are read and written without masks, 16
bytes at a time; the others element by element. After a pass, `gather` adds what its chunks have left, in order; `finish`
writes states per tensor and what is handed out. Nothing of a `.opt` file enters the text but numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optlang.backends.formats import Packed
from optlang.backends.passes import REDUCTIONS, Passes, whole_power
from optlang.backends.torch.code import TENSORS, Output, is_slot
from optlang.backends.triton import packed
from optlang.backends.triton.packed import Tables
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT, TENSOR

BLOCK = 1 << 10  # elements: what four warps hold at once, eight for each thread
CHUNK = 1 << 13
GATHERED = 1 << 7  # chunks whose results are added at once
ARGUMENTS = "chunks, starts, sizes, pointers, rows, counters, sums, partial, results, levels, below"
BESIDE = 2  # columns behind those of pointers: whether all of these are aligned, and the place of the row of numbers
IMPORTED = "".join(f"from optlang.backends.triton.{name} import *\n" for name in ("prelude", "storage"))
HEAD = f"import triton\nimport triton.language as tl\n\n{IMPORTED}"


@dataclass(frozen=True)
class Kernel:
    """`text` defines `pass_0`, `gather_0`, …, and `finish`, all of which take ARGUMENTS.

    `launches`: these in order, each with whether it runs for each chunk or for each tensor. `tables`: what `levels` and `below`
    point to. For the rest see `cpp.source`.
    """

    text: str
    launches: tuple[tuple[str, bool], ...]
    columns: tuple[tuple[Node, int], ...]
    written: tuple[int, ...]
    sums: int
    returned: int
    tables: Tables


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernels for outputs. `types`: Triton's name for the elements of each tensor, or the `Packed` that it comes as;
    `double`: arithmetic in 64 bits."""
    return _Writer(outputs, slots, types, "tl.float64" if double else "tl.float32").kernel()


class _Writer(Passes):
    """Kernels being written."""

    def __init__(self, outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], number: str) -> None:
        super().__init__(outputs, slots, types)
        self.number = number
        self.looked_into = packed.tables(packed.names(self.types.values()))
        self.draws = any(n.op == "random" for n in self.order) or bool(packed.drawn(self.types.values()))
        self.returned = sum(o.target is None for o in self.outputs)

    def kernel(self) -> Kernel:
        texts, launches = [HEAD], []
        for number in range(self.passes):
            if self.found(number) or (number == self.passes - 1 and self.writes()):
                texts.append(self._pass(number))
                launches.append((f"pass_{number}", True))
            if any(self.depth[n] == number + 1 for n in self.sums):
                texts.append(self._gather(number))
                launches.append((f"gather_{number}", False))
        if any(o.target is None or o.target.type.extent == TENSOR for o in self.outputs):
            texts.append(self._finish())
            launches.append(("finish", False))
        text = "\n\n".join(texts)
        return Kernel(text, tuple(launches), tuple(self.columns), self.written, len(self.sums), self.returned, self.looked_into)

    # ----------------------------------------------------------------------------------------------- kernels

    def _pass(self, number: int) -> str:
        """One chunk of one tensor."""
        sums, writes = self.found(number), self.writes() if number == self.passes - 1 else []
        body = self.computed([*(n.args[0] for n in sums), *(node for node, _ in writes)])
        scalars = [n for n in body if n.type.extent != ELEMENT]
        lines = ["chunk = tl.program_id(0).to(tl.int64)", "n = tl.load(chunks + 3 * chunk)"]
        lines += [*self._numbers(), *map(self._definition, scalars)]
        for n in sums:
            place = self.sums[n]
            lines.append(f"a{place} = tl.full([{BLOCK}], {_START[n.op]}, tl.float64)")
            lines += [f"n{place} = tl.zeros([{BLOCK}], tl.float64)"] if n.op in ("amax", "amin") else []
        lines.append(f"aligned = tl.load(pointers + n * {self.width} + {len(self.columns)})")
        lines.append("if (tl.load(chunks + 3 * chunk + 2) != 0) & (aligned != 0):")
        lines += _deeper(self._chunk(body, sums, writes, whole=True))
        lines.append("else:")
        lines += _deeper(self._chunk(body, sums, writes, whole=False))
        lines += [f"tl.store(partial + chunk * {len(self.sums)} + {self.sums[n]}, {_reduced(n.op, self.sums[n])})" for n in sums]
        return _function(f"pass_{number}", lines)

    def _chunk(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]], whole: bool) -> list[str]:
        """The blocks of a chunk. Pointers are told to be aligned only where they are."""
        used = {n for n in body if n.op in TENSORS and n.type.extent == ELEMENT} | {target for _, target in writes}
        lines = [line for node in self.types if node in used for line in self._pointers(node, whole)]
        start = "tl.load(chunks + 3 * chunk + 1)"
        lines.append(f"low = tl.multiple_of({start}, {CHUNK})" if whole else f"low = {start}")
        elements = [n for n in body if n.type.extent == ELEMENT]
        inside = [] if whole else ["inside = i < size"]
        block = ["at = low + step", f"i = at + tl.arange(0, {BLOCK})", *inside]
        block += [f"{self.names[n]} = {self._spell(n, whole)}" for n in elements]
        block += [line for n in sums for line in self._accumulated(n, whole)]
        block += packed.drawn([self.types[target] for _, target in writes])
        block += [self._stored(target, node, whole) for node, target in writes]
        if whole:
            return [*lines, f"for step in range(0, {CHUNK}, {BLOCK}):", *_deeper(block)]
        return [*lines, "step = 0", f"while (step < {CHUNK}) & (low + step < size):", *_deeper([*block, f"step += {BLOCK}"])]

    def _gather(self, number: int) -> str:
        """The reductions of one tensor, when all of its chunks have been passed."""
        lines = ["n = tl.program_id(0).to(tl.int64)", "size = tl.load(sizes + n)"]
        lines += ["first = tl.load(starts + n)", "last = tl.load(starts + n + 1)"]
        for node in [n for n in self.sums if self.depth[n] == number + 1]:
            place = self.sums[node]
            to = f"sums + n * {len(self.sums)} + {place}"
            if node.op == "count":
                lines.append(f"tl.store({to}, size.to(tl.float64))")
                continue
            lines.append(f"a{place} = tl.full([{GATHERED}], {_START[node.op]}, tl.float64)")
            lines += [f"n{place} = tl.zeros([{GATHERED}], tl.float64)"] if node.op in ("amax", "amin") else []
            lines += ["c = first", "while c < last:"]
            read = f"tl.load(partial + i * {len(self.sums)} + {place}, mask=i < last, other={_START[node.op]})"
            lines += _deeper([f"i = c + tl.arange(0, {GATHERED})", f"y = {read}", *_added(node.op, place), f"c += {GATHERED}"])
            found = _reduced(node.op, place)
            lines.append(f"tl.store({to}, {f'{found} / size.to(tl.float64)' if node.op == 'mean' else found})")
        return _function(f"gather_{number}", lines)

    def _finish(self) -> str:
        rest = [o for o in self.outputs if o.target is None or o.target.type.extent == TENSOR]
        lines = ["n = tl.program_id(0).to(tl.int64)", *self._numbers(), *map(self._definition, self.computed([o.node for o in rest]))]
        for target, text in [(o.target, self._operand(o.node)) for o in rest if o.target is not None]:
            lines += [*self._pointers(target, False), f"tl.store(p{self.tensors[target]}, {self._fitting(target, text)})"]
        handed = [self._operand(o.node) for o in rest if o.target is None]
        lines += [f"tl.store(results + n * {self.returned} + {place}, ({text}).to(tl.float64))" for place, text in enumerate(handed)]
        return _function("finish", lines)

    # --------------------------------------------------------------------------------------------- expressions

    def _numbers(self) -> list[str]:
        """What is known of a tensor before the pass."""
        place = f"tl.load(pointers + n * {self.width} + {len(self.columns) + 1})"
        lines = ["size = tl.load(sizes + n)", f"row = rows + {place} * {len(self.slots)}"]
        lines += [f"s{place} = tl.load(row + {place})" for place in self.slots.values()]
        counter = enumerate(("t", "seed", "stream") if self.draws else ())
        return lines + [f"{name} = tl.load(counters + 3 * n + {place}).to(tl.uint32)" for place, name in counter]

    @property
    def width(self) -> int:
        """Of the table of pointers."""
        return len(self.columns) + BESIDE

    def _pointers(self, node: Node, aligned: bool) -> list[str]:
        """Those of a tensor, one for each part that it is stored in."""
        kind, first = self.types[node], self.tensors[node]
        words = [packed.pointer(kind, part) for part in range(len(kind.parts))] if isinstance(kind, Packed) else [kind]
        lines = []
        for place, word in enumerate(words, first):
            pointer = f"tl.load(pointers + n * {self.width} + {place}).to(tl.pointer_type(tl.{word}))"
            lines.append(f"p{place} = tl.multiple_of({pointer}, 16)" if aligned else f"p{place} = {pointer}")
        return lines

    def _definition(self, node: Node) -> str:
        """A value per tensor."""
        if node.op in TENSORS:
            [pointer] = self._pointers(node, False)
            return f"{pointer}\n    {self.names[node]} = {self._read(node, f'tl.load(p{self.tensors[node]})')}"
        return f"{self.names[node]} = {self._spell(node, True)}"

    def _read(self, node: Node, text: str) -> str:
        return f"{text} != 0" if node.type.kind == "bool" else f"{text}.to({self.number})"

    def _operand(self, node: Node) -> str:
        if node.op == "const" and not isinstance(node.value, bool):
            return f"tl.full((), {literal(float(node.value))}, {self.number})"
        if is_slot(node, self.known):
            return f"(s{self.slots[node]} != 0)" if node.type.kind == "bool" else f"s{self.slots[node]}"
        return self.names[node]

    def _spell(self, node: Node, whole: bool) -> str:
        if node.op in TENSORS and isinstance(kind := self.types[node], Packed):
            return packed.opened(kind, self.tensors[node], self.looked_into, _block(whole))
        if node.op in TENSORS:
            mask = "" if whole else ", mask=inside, other=0"
            return self._read(node, f"tl.load(p{self.tensors[node]} + i{mask})")
        if node.op in REDUCTIONS:
            return f"tl.load(sums + n * {len(self.sums)} + {self.sums[node]}).to({self.number})"
        if node.op == "random":
            distribution, site = node.value
            return f"draw_{distribution}(*philox(i, t, {site}, seed, stream)).to({self.number})"
        if node.op == "pow" and (exponent := whole_power(node.args[1])):
            return f"whole_power({self._operand(node.args[0])}, {exponent})"
        return OPS[node.op].triton.format(*(self._operand(arg) for arg in node.args))

    def _accumulated(self, node: Node, whole: bool) -> list[str]:
        value = f"({self._operand(node.args[0])}).to(tl.float64) + tl.zeros([{BLOCK}], tl.float64)"  # of one number, too
        return [f"y = {value if whole else f'tl.where(inside, {value}, {_START[node.op]})'}", *_added(node.op, self.sums[node])]

    def _stored(self, target: Node, node: Node, whole: bool) -> str:
        text = self._operand(node)
        mask = "" if whole else ", mask=inside"
        if isinstance(kind := self.types[target], Packed):
            value = text if node.type.extent == ELEMENT else f"{text} + tl.zeros([{BLOCK}], tl.float32)"
            return packed.closed(kind, self.tensors[target], self.looked_into, _block(whole), value)
        return f"tl.store(p{self.tensors[target]} + i, {self._fitting(target, text)}{mask})"

    def _fitting(self, target: Node, text: str) -> str:
        return f"to_bf16({text})" if self.types[target] == "bfloat16" else f"({text}).to(tl.{self.types[target]})"


_START = {"sum": "0.0", "mean": "0.0", "amax": 'float("-inf")', "amin": 'float("inf")'}


def _added(op: str, place: int) -> list[str]:
    if op in ("sum", "mean"):
        return [f"a{place} += y"]
    sign = ">" if op == "amax" else "<"
    return [f"a{place} = tl.where(y {sign} a{place}, y, a{place})", f"n{place} += (y != y).to(tl.float64)"]


def _reduced(op: str, place: int) -> str:
    if op in ("sum", "mean"):
        return f"tl.sum(a{place}, 0)"
    return f'tl.where(tl.sum(n{place}, 0) > 0, float("nan"), tl.{"max" if op == "amax" else "min"}(a{place}, 0))'


def _block(whole: bool) -> str:
    return f"at, size, {whole}, {BLOCK}"


def _function(name: str, lines: Sequence[str]) -> str:
    return "\n".join(["@triton.jit", f"def {name}({ARGUMENTS}):", *_deeper(lines)])


def _deeper(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def literal(value: float) -> str:
    """A number as Triton reads it."""
    return repr(value) if math.isfinite(value) else f'float("{value}")'
