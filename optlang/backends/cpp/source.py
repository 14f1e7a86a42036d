"""C++ source for many parameters at once: the stages of a plan as passes over chunks of all tensors.

Chunks go to threads; see `passes`. Waves of tensors that the cache holds go through all passes, one wave after the other. Numbers
known before the stage come in a row for each tensor. Nothing of a `.opt` file enters the text but numbers: names are made here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from optlang.backends.cpp.blocks import Buffer, in_blocks
from optlang.backends.cpp.kernel_cache import Kernel
from optlang.backends.cpp.layout import CHUNK, WAVE, Room
from optlang.backends.cpp.skeleton import BACK, ENTRY, GATHER, PASS, SMALL, TOTAL
from optlang.backends.cpp.storage import storage
from optlang.backends.formats import FORMATS, Packed
from optlang.backends.kernels.passes import REDUCTIONS, Passes, whole_power
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import ELEMENT, TENSOR, Extent

OF_CODES, OF_DRAWS = ("-O3",), ("-O2",)  # their functions would be a tenth to a half slower, and up to a tenth
PART = ("from", "until")  # of a block
ALL = 1 << 62  # chunks
QUICK = ("add", "sub", "mul", "neg")  # sooner computed twice than kept
FLOATS = "floats::"  # before the names of what functions.h has
SLOT = re.compile(r"\bs(\d+)\b")
REGISTERS = 32  # of vectors, at most
START = {"sum": "0", "mean": "0", "count": "0", "amax": "-INFINITY", "amin": "INFINITY"}
ADD = {
    "sum": "{total} + {y}", "mean": "{total} + {y}", "count": "{total} + {y}",
    "amax": "larger({y}, {total})", "amin": "smaller({y}, {total})",
}  # fmt: skip


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernel for outputs. `types`: the C++ type of each tensor's elements, or the `Packed` that it comes as; `double`:
    arithmetic in 64 bits.

    `slots`: what is known before the stage, in the order of the rows.
    """
    return Writer(outputs, slots, types, "double" if double else "float").kernel()


@cache
def header(name: str) -> str:
    """A file that becomes part of kernels."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def of_floats() -> frozenset[str]:
    """The builtins that functions.h computes in float32, by their names; for others, and in float64, their rows say what is called."""
    return frozenset(re.findall(r"^FLOATS float (\w+)\(float", header("functions.h"), re.MULTILINE))


class Writer(Passes):
    """One kernel being written."""

    def __init__(self, outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], number: str) -> None:
        super().__init__(outputs, slots, types)
        self.number = number
        self.draws = any(n.op == "random" for n in self.order)
        self.ahead = self.early(lambda target: self.types[target] == number)
        self.reread: dict[Node, Node] = {}  # what the pass being written reads from these tensors

    def kernel(self) -> Kernel:
        returned = sum(o.target is None for o in self.outputs)
        body = self.functions(returned)
        types = [f"typedef {self.number} number;", "typedef Of<number> Tensor;"]
        forms = {kind.form.name for kind in self.types.values() if isinstance(kind, Packed)}
        rounds_at_random = not all(FORMATS[name].block for name in forms)
        functions = any(FLOATS in part for part in body)
        parts = {
            "prelude.h": True, "philox.h": self.draws or rounds_at_random, "draws.h": self.draws, "functions.h": functions,
        }  # fmt: skip
        text = "\n".join([*(header(name) for name, is_used in parts.items() if is_used), *storage(forms), *types, *body])
        flags = OF_CODES if forms else OF_DRAWS if self.draws else ()
        return Kernel(text, tuple(self.columns), self.written, len(self.sums), returned, self.room(), flags)

    def functions(self, returned: int) -> list[str]:
        """The functions of the kernel, the one that is called as the last."""
        return [*map(self.pass_, self.stages()), self.finish(), self._entry(returned)]

    def stages(self) -> list[int]:
        """The passes that have something to do: what only hands out numbers has no last one."""
        return [number for number in range(self.passes) if self.reductions(number) or (number == self.passes - 1 and self.writes())]

    def room(self) -> Room | None:
        """For values per row and column."""
        return None

    def index(self, extent: Extent) -> str:
        """The place of a value of an extent in its tensor; empty where there is one only."""
        return "i" if extent == ELEMENT else ""

    # ----------------------------------------------------------------------------------------------- one pass

    def pass_(self, number: int) -> str:
        """`pass_K`: the elements of one chunk of one tensor."""
        sums = self.reductions(number)
        body, writes = self.begun(number)
        scalars, elements = ([n for n in body if (n.type.extent == ELEMENT) is each] for each in (False, True))
        read, written = {n for n in elements if n.op in TENSORS}, {target for _, target in writes}
        lines = [*self.pointers(elements, written | set(self.reread.values())), *map(self.definition, scalars)]
        lines += [f"  double a{self.sums[n]} = {START[n.op]}, n{self.sums[n]} = 0;" for n in sums]
        packed = [n for n in self.types if self._is_packed(n) and n in read | written]
        if packed:
            lines += in_blocks([self._buffer(n, read, written) for n in packed], *self._loops(elements, sums, writes))
        else:
            lines += self._loop(elements, sums, writes)
        lines += [f"  partial[{self.sums[n]}] = n{self.sums[n]} ? NAN : a{self.sums[n]};" for n in sums]
        return self.function(f"pass_{number}(const Tensor& x, i64 low, i64 high, double* partial)", lines)

    def _loop(
        self, elements: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]], ends: tuple[str, str] = ("low", "high")
    ) -> list[str]:
        """Over the elements between two ends."""
        lines = [f"  {self.definition(n)}" for n in elements]
        lines += [f"    {self.accumulated(n)}" for n in sums]
        lines += [f"    {self.stored(target, self.operand(node))}" for node, target in writes]
        head = f"  #pragma omp simd{clauses([(self.sums[n], n.op) for n in sums])}"
        return self.behind_draws(elements, ends, lambda low, high: [head, f"  for (i64 i = {low}; i < {high}; i++) {{", *lines, "  }"])

    def behind_draws(self, elements: Sequence[Node], ends: tuple[str, str], loop: Callable[[str, str], list[str]]) -> list[str]:
        """`loop` over elements between two ends; where some are drawn, block by block."""
        draws = [n for n in elements if n.op == "random"]
        if not draws:
            return loop(*ends)
        lines = [f"  for (i64 begin = {ends[0]}; begin < {ends[1]}; begin += DRAWN) {{"]
        lines += [f"  const i64 end = begin + DRAWN < {ends[1]} ? begin + DRAWN : {ends[1]};"]
        return [*lines, *chain.from_iterable(map(self.drawn, draws)), *loop("begin", "end"), "  }"]

    def drawn(self, node: Node) -> list[str]:
        """Draws for the elements from `begin` to `end`."""
        name, (distribution, site) = self.names[node], node.value
        return [f"  number drawn_{name}[DRAWN];", f"  draw<draw_{distribution}>(begin, end, x.counter, {site}u, drawn_{name});"]

    def _loops(
        self, elements: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]]
    ) -> tuple[list[str], list[str]]:
        """The loop over a block, and the part of it that reads new values alone of what is packed: it runs while that is closed."""
        packed, others = ([pair for pair in writes if self._is_packed(pair[1]) is each] for each in (True, False))
        new = dict(packed)
        later = self.computed([*(n.args[0] for n in sums), *(node for node, _ in others)], [*self.reread, *new])
        first = [n for n in self.computed(list(new), list(self.reread)) if n in elements]
        again = [n for n in first if n in later and n not in new and n.op not in (*TENSORS, *QUICK)]
        if not new or not later or again or any(map(self._is_packed, self.types.keys() & later)):
            return self._loop(elements, sums, writes, PART), []
        loop = self._loop(first, [], packed, PART)
        self.reread |= new
        return loop, self._loop([n for n in later if n in elements], sums, others, PART)

    def _buffer(self, node: Node, read: Collection[Node], written: Collection[Node]) -> Buffer:
        kind = self.types[node]
        assert isinstance(kind, Packed)
        return Buffer(kind.form.name, self.tensors[node], kind.place, node in read and not self._is_half(node), node in written)

    def begun(self, number: int) -> tuple[list[Node], list[tuple[Node, Node]]]:
        """What a pass computes, and what it writes into tensors with what."""
        last, targets = self.passes - 1, dict(self.writes())
        self.reread = {node: targets[node] for node, place in self.ahead.items() if place < number}
        places = [self.ahead.get(node, last) if targets[node] is target else last for node, target in self.writes()]
        writes = [pair for pair, place in zip(self.writes(), places, strict=True) if place == number]
        return self.body(number, self.ahead), writes

    def _is_packed(self, node: Node) -> bool:
        return isinstance(self.types[node], Packed)

    def _is_half(self, node: Node) -> bool:
        """Whether what is stored of it is the upper half of each number: that is read where it lies."""
        kind = self.types[node]
        return isinstance(kind, Packed) and kind.form.draws

    def pointers(self, body: Collection[Node], written: Collection[Node]) -> list[str]:
        """Those of the tensors that are read or written element by element."""
        plain = [n for n in self.types if (n in body or n in written) and self.index(n.type.extent) and not self._is_packed(n)]
        words = {n: str(self.types[n]) for n in plain} | {n: "bf16" for n in self.types if n in body and self._is_half(n)}
        return [f"  {word}* p{self.tensors[n]} = ({word}*)x.pointers[{self.tensors[n]}];" for n, word in words.items()]

    def stored(self, target: Node, text: str) -> str:
        place, index = self.tensors[target], self.index(target.type.extent)
        return f"b{place}[i - low] = {text};" if self._is_packed(target) else f"store(p{place}[{index}], {text});"

    def accumulated(self, node: Node, value: str = "") -> str:
        """One more `value`, or what it is computed of, added up."""
        value, total, bad = value or self.operand(node.args[0]), f"a{self.sums[node]}", f"n{self.sums[node]}"
        if node.op in ("sum", "mean"):
            return f"{total} += (double)({value});"
        sign = ">" if node.op == "amax" else "<"
        return f"{{ double y = (double)({value}); {total} = y {sign} {total} ? y : {total}; {bad} += y != y; }}"

    def function(self, head: str, lines: Sequence[str]) -> str:
        """With the numbers known before that it uses as constants: what is written could be them, for all that compilers know. More
        than registers hold are read where they lie: as constants they would first be written into memory, a whole vector of each."""
        used = sorted({int(place) for line in lines for place in SLOT.findall(line)})
        slots = [f"  const number s{place} = x.row[{place}];" for place in used]
        if len(used) > REGISTERS:
            slots, lines = ["  const number* const row = x.row;"], [SLOT.sub(r"row[\1]", line) for line in lines]
        return "\n".join([f"static void {head} {{", *slots, *lines, "}"])

    # -------------------------------------------------------------------------------------------- expressions

    def definition(self, node: Node, text: str = "") -> str:
        """What a node is: how it is computed, or another `text`."""
        kind = "bool" if node.type.kind == "bool" else "number"
        return f"  const {kind} {self.names[node]} = {text or self.spell(node)};"

    def operand(self, node: Node) -> str:
        if node.op == "const" and not isinstance(node.value, bool):
            return _literal(float(node.value), self.number)
        if is_slot(node, self.known):
            return f"(s{self.slots[node]} != 0)" if node.type.kind == "bool" else f"s{self.slots[node]}"
        return self.names[node]

    def spell(self, node: Node) -> str:
        if node in self.reread or node.op in TENSORS:
            is_new, node = node in self.reread, self.reread.get(node, node)
            place = self.tensors[node]
            if self._is_packed(node) and (is_new or not self._is_half(node)):
                return f"b{place}[i - low]" if is_new else f"o{place}[i - from]"
            index = self.index(node.type.extent)
            return f"load(p{place}[{index}])" if index else f"load(*({self.types[node]}*)x.pointers[{place}])"
        if node.op in REDUCTIONS:
            return "(number)x.size" if node.op == "count" else f"(number)x.sums[{self.sums[node]}]"
        if node.op == "random":
            return f"drawn_{self.names[node]}[i - begin]"
        if node.op == "pow" and (exponent := whole_power(node.args[1])):
            return f"whole_power<{exponent}>({self.operand(node.args[0])})"
        given = [self.operand(arg) for arg in node.args]
        if self.number == "float" and node.op in of_floats():
            return f"{FLOATS}{node.op}({', '.join(given)})"
        return OPS[node.op].cpp.format(*given)

    # -------------------------------------------------------------------------------------------------- ends

    def kept(self) -> list[str]:
        """What else is stored when all passes are over, with values per tensor as they were."""
        return []

    def finish(self) -> str:
        """`finish`: the states per tensor and what is handed out, when all passes are over."""
        rest = [o for o in self.outputs if o.target is None or o.target.type.extent == TENSOR]
        lines = [self.definition(n) for n in self.computed([o.node for o in rest])]
        lines += self.kept()
        for target, text in [(o.target, self.operand(o.node)) for o in rest if o.target is not None]:
            place = self.tensors[target]
            lines.append(f"  store(*({self.types[target]}*)x.pointers[{place}], {text});")
        handed = [self.operand(o.node) for o in rest if o.target is None]
        lines += [f"  results[{place}] = (double){text};" for place, text in enumerate(handed)]
        return self.function("finish(const Tensor& x, double* results)", lines)

    def _entry(self, returned: int) -> str:
        """The one function that is called."""
        alone, parts = [], []
        for number in self.stages():
            found = list(map(self._gathered, self.reductions(number)))
            alone += [f"      pass_{number}(tensor, 0, tensor.size, partial + starts[x] * SUMS);", *found]
            parts.append(PASS.replace("@NUMBER", str(number)).replace("@PLACE", BACK if number % 2 else "k"))
            parts += [GATHER.replace("@EACH", "\n".join(found))] if found else []
        small = SMALL.replace("@EACH", "\n".join(alone)) if len(alone) > 1 else ""
        passes = "\n".join(parts).replace("@SKIPPED", "if (is_small(starts, n)) continue;" if small else "")
        entry = ENTRY.replace("@SMALL", small).replace("@PASSES", passes)
        return "\n".join([*([header("small.h")] if small else []), self.constants(returned) + entry])

    def _gathered(self, node: Node) -> str:
        text = TOTAL.replace("@SUM", str(self.sums[node])).replace("@START", START[node.op])
        text = text.replace("@ADD", ADD[node.op].format(total="total", y="y"))
        return text.replace("@SHARE", " / (double)sizes[x]" if node.op == "mean" else "")

    def constants(self, returned: int, beside: int = 0) -> str:
        """Sizes that `step` goes by."""
        sizes = {"TENSORS": len(self.columns), "SUMS": len(self.sums), "RETURNED": returned, "CHUNK": CHUNK, "BESIDE": beside}
        sizes |= {"WAVE": WAVE, "AT_ONCE": 1} if self.passes > 1 else {"WAVE": ALL, "AT_ONCE": 4}
        return "".join(f"const i64 {name} = {size};\n" for name, size in sizes.items())


def clauses(sums: Sequence[tuple[int, str]]) -> str:
    """Lanes may add up on their own; the order of lanes is the same in every run."""
    adds = [f"a{place}" for place, op in sums if op in ("sum", "mean")] + [f"n{place}" for place, op in sums if op in ("amax", "amin")]
    most, least = ([f"a{place}" for place, op in sums if op == name] for name in ("amax", "amin"))
    found = [f" reduction({sign}:{', '.join(names)})" for sign, names in (("+", adds), ("max", most), ("min", least)) if names]
    return "".join(found)


def _literal(value: float, number: str) -> str:
    if math.isnan(value):
        return f"(({number})NAN)"
    if math.isinf(value):
        return f"(({number}){'-' * (value < 0)}INFINITY)"
    return f"(({number}){value!r})"
