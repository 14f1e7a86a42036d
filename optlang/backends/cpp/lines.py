"""C++ for rules with rows, columns and matrices: chunks are whole rows, and reductions to lines leave an array for each tensor.

What a line needs is computed once for it; see `strips` for how a chunk is gone over. A reduction to rows is
over within its chunk. To columns and matrices, each chunk leaves what it found beside, unless it holds the whole matrix, and
these are added in order. A reduction from lines (the mean of a value per row) goes over these between two passes. A tensor of
one chunk goes through all of that by itself: with many small ones, it takes longer to hand out chunks than to compute them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optlang.backends.cpp import source
from optlang.backends.cpp.kernel_cache import Kernel
from optlang.backends.cpp.layout import Room
from optlang.backends.cpp.skeleton import LINED
from optlang.backends.cpp.source import ADD, START, header
from optlang.backends.cpp.strips import StripWriter, product, total
from optlang.backends.formats import Packed
from optlang.backends.kernels.lines import LINES, frame_of, over, way
from optlang.backends.kernels.passes import has_lines, kind
from optlang.backends.outputs import Output
from optlang.ir import Node


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernel for outputs, see `source.generate`, with rows and columns where they matter."""
    if not has_lines(outputs):
        return source.generate(outputs, slots, types, double)
    return LinedWriter(outputs, slots, types, "double" if double else "float").kernel()


class LinedWriter(StripWriter):
    """One kernel with rows and columns being written."""

    def room(self) -> Room:
        """What the reductions to lines need."""
        count = {name: sum(kind(n.value) == name and n.op != "count" for n in self.sums) for name in LINES}
        frame, size = frame_of([*self.order, *self.types]), 8 if self.number == "double" else 4
        return Room(count["row"], count["col"], count["matrix"], len(self._beside()), frame, size)

    # ------------------------------------------------------------------------------------------- between passes

    def gathered(self, number: int) -> str:
        """`gather_K`: what chunks have left of one tensor, added in order; then the reductions from lines."""
        lines = []
        for n in self.reductions(number):
            lines += self._of_chunks(n)
        wanted = [n for n in self.all_reductions(number) if way(n)[0] in LINES]
        for name in LINES:
            some = [n for n in wanted if way(n)[0] == name]
            lines += self._of_lines(some, name) if some else []
        head = f"gather_{number}(const Tensor& x, const Shape& shape, const double* partial, const double* beside, double* sums)"
        return self.function(head, lines)

    def _of_chunks(self, node: Node) -> list[str]:
        place, left = self.sums[node], way(node)[1]
        arguments = f"{START[node.op]}, {product(over(node)) if node.op == 'mean' else '1'}"
        add = f"[](double total, double y) {{ return {ADD[node.op].format(total='total', y='y')}; }}"
        if left == "tensor":
            return [f"  sums[{place}] = of_chunks(partial + {place}, shape.chunks, {arguments}, {add});"]
        if left == "matrix":
            return [f"  of_matrices(x, shape, partial + {place}, {self._line(node)}, {arguments}, {add});"]
        if left == "col":
            return [f"  of_columns(x, shape, beside + {self._beside().index(node)} * x.cols, {self._line(node)}, {arguments}, {add});"]
        return []

    def _of_lines(self, sums: Sequence[Node], name: str) -> list[str]:
        """Reductions from the lines of one kind; the lines of a matrix follow each other."""
        body = self.computed([n.args[0] for n in sums])
        loop = [*self._along(name, [*self.defined(body, name), *(f"  {self.accumulated(n)}" for n in sums)])]
        lines = [*self.pointers(body, []), *self.defined(body, "tensor"), *self.starting(sums, "tensor")]
        lines += ["  for (i64 b = 0; b < x.batch; b++) {", "  const i64 at_matrix = b;"]
        lines += [*([] if name == "matrix" else self.defined(body, "matrix")), *self.starting(sums, "matrix"), *loop]
        lines += [*self.left(sums, "matrix"), "  }"]
        lines += [
            f"  sums[{self.sums[n]}] = {self._finished(n, total(self.sums[n]))};" for n in sums if way(n)[1] == "tensor"
        ]  # fmt: skip
        return ["  {", *lines, "  }"]

    @staticmethod
    def _along(name: str, lines: Sequence[str]) -> list[str]:
        """Lines of code for each row or column of matrix `b`, or for the matrix itself."""
        if name == "matrix":
            return list(lines)
        count = f"x.{name}s"
        return [f"  for (i64 l = 0; l < {count}; l++) {{", f"  const i64 at_{name} = b * {count} + l;", *lines, "  }"]

    # -------------------------------------------------------------------------------------------------- ends

    def kept(self) -> list[str]:
        """States per line, each computed from old ones: those of matrices last, which rows and columns may read."""
        lines = []
        for name in LINES:
            some = [(o.node, o.target) for o in self.outputs if o.target is not None and kind(o.target.type.extent) == name]
            if not some:
                continue
            body = self.computed([node for node, _ in some])
            stores = [f"  {self.stored(target, self.operand(node))}" for node, target in some]
            loop = self._along(name, [*self.defined(body, name), *stores])
            outer = [] if name == "matrix" else self.defined(body, "matrix")
            lines += ["  {", *self.pointers(body, [target for _, target in some]), *self.defined(body, "tensor")]
            lines += ["  for (i64 b = 0; b < x.batch; b++) {", "  const i64 at_matrix = b;", *outer, *loop, "  }", "  }"]
        return lines

    def functions(self, returned: int) -> list[str]:
        functions, stages, alone = [], [], []
        for number in range(self.passes):
            if number in self.stages():
                functions.append(self.pass_(number))
                stages.append(f"    all_chunks(all, wave, {str(bool(number % 2)).lower()}, pass_{number});")
                alone.append(f"  pass_{number}(x, chunk_at(shape, 0), partial, beside);")
            if self.all_reductions(number):
                functions.append(self.gathered(number))
                stages.append(f"    all_tensors(all, wave, gather_{number});")
                alone.append(f"  gather_{number}(x, shape, partial, beside, sums);")
        entry = LINED.replace("@STAGES", "\n".join(stages)).replace("@ALONE", "\n".join(alone))
        return [self.constants(returned, len(self._beside())), *map(header, ("small.h", "lined.h")), *functions, self.finish(), entry]
