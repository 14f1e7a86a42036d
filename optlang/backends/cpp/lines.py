"""C++ for rules with rows, columns and matrices: chunks are whole rows, and reductions to lines leave an array for each tensor.

What a line needs is computed once for it: of a row before its elements, of a matrix before its rows. A reduction to rows is
over within its chunk. To columns and matrices, each chunk leaves what it found beside, unless it holds the whole matrix, and
these are added in order. A reduction from lines (the mean of a value per row) goes over these between two passes. A tensor of
one chunk goes through all of that by itself: with many small ones, it takes longer to hand out chunks than to compute them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from optlang.backends.cpp import source
from optlang.backends.cpp.kernel_cache import Kernel
from optlang.backends.cpp.layout import Room
from optlang.backends.cpp.skeleton import LINED
from optlang.backends.cpp.source import ADD, START, Writer, clauses, header
from optlang.backends.formats import Packed
from optlang.backends.kernels.lines import DIMENSIONS, LINES, frame_of, over, way
from optlang.backends.kernels.passes import FRAMES, REDUCTIONS, has_lines, kind
from optlang.backends.outputs import Output
from optlang.ir import Node
from optlang.types import Extent

LINE = re.compile(r"\bl(\d+)\b")
LONG = 200  # expressions of an element: more of them take longer to compile twice than short rows gain by it


def generate(outputs: Sequence[Output], slots: Sequence[Node], types: Mapping[Node, str | Packed], double: bool) -> Kernel:
    """The kernel for outputs, see `source.generate`, with rows and columns where they matter."""
    if not has_lines(outputs):
        return source.generate(outputs, slots, types, double)
    return LinedWriter(outputs, slots, types, "double" if double else "float").kernel()


class LinedWriter(Writer):
    """One kernel with rows and columns being written."""

    counted = "c"

    def room(self) -> Room:
        """What the reductions to lines need."""
        count = {name: sum(kind(n.value) == name and n.op != "count" for n in self.sums) for name in LINES}
        frame, size = frame_of([*self.order, *self.types]), 8 if self.number == "double" else 4
        return Room(count["row"], count["col"], count["matrix"], len(self._beside()), frame, size)

    def _beside(self) -> list[Node]:
        """The reductions of elements to columns, which chunks leave beside."""
        return [n for n in self.sums if way(n) == ("element", "col") and n.op != "count"]

    # ------------------------------------------------------------------------------------------------ places

    def index(self, extent: Extent) -> str:
        found = kind(extent)
        return {"element": "i", "tensor": ""}.get(found, f"at_{found}")

    def spell(self, node: Node) -> str:
        if node.op in FRAMES:
            return self.operand(node.args[0])
        if node.op == "count":
            return f"(number)({_product(over(node))})"
        if node.op in REDUCTIONS and kind(node.value) in LINES:
            return f"(number){self._line(node)}[at_{kind(node.value)}]"
        return super().spell(node)

    def function(self, head: str, lines: Sequence[str]) -> str:
        named = {int(place) for line in lines for place in LINE.findall(line)}
        used = [n for n, place in self.sums.items() if place in named]
        return super().function(head, [*map(self._place, used), *lines])

    def _line(self, node: Node) -> str:
        """Where a reduction to lines leaves its values."""
        return f"l{self.sums[node]}"

    def _place(self, node: Node) -> str:
        """Of all reductions, those to rows come first."""
        kinds = [(n, kind(n.value)) for n in self.sums if kind(n.value) in LINES and n.op != "count"]
        before = [name for n, name in kinds if self.sums[n] < self.sums[node]]
        rows = before.count("row")
        if kind(node.value) == "row":
            return f"  number* const {self._line(node)} = rows_of(x, {rows});"
        terms = [f"{before.count(name)} * {_product(DIMENSIONS[name])}" for name in ("col", "matrix") if name in before]
        start = " + ".join([f"behind_rows(x, {sum(name == 'row' for _, name in kinds)})", *terms])
        return f"  double* const {self._line(node)} = {start};"

    def _finished(self, node: Node, text: str) -> str:
        return f"{text} / (double)({_product(over(node))})" if node.op == "mean" else text

    # ---------------------------------------------------------------------------------------------- one pass

    def reductions(self, number: int) -> list[Node]:
        """Those of elements only."""
        return [n for n in super().reductions(number) if way(n)[0] == "element"]

    def pass_(self, number: int) -> str:
        """`pass_K`: the rows of one chunk of one tensor."""
        sums = self.reductions(number)
        body, writes = self.begun(number)
        used = [*self.reread.values(), *(target for _, target in writes)]
        lines = [*self.pointers(body, used), *self._defined(body, "tensor"), *self._begun(sums, "tensor")]
        matrix = [*self._defined(body, "matrix"), *self._begun(sums, "matrix"), *self._begun_columns(sums)]
        row = ["  const i64 at_row = b * x.rows + r;", *self._defined(body, "row"), *self._begun(sums, "row")]
        row += [*self._along_row(body, sums, writes), *self._left(sums, "row", "at_row")]
        lines += [*self._drawing(body), "  for (i64 b = k.first; b < k.last; b++) {", "  const i64 at_matrix = b;", *matrix]
        lines += ["  for (i64 r = k.low; r < k.high; r++) {", *row, "  }", *self._left_of_matrix(sums), "  }"]
        lines += [f"  partial[{self.sums[n]}] = {_total(self.sums[n])};" for n in sums if way(n)[1] == "tensor"]
        return self.function(f"pass_{number}(const Tensor& x, const Chunk& k, double* partial, double* beside)", lines)

    def _begun_columns(self, sums: Sequence[Node]) -> list[str]:
        """Where the columns of a matrix add up: beside it, if other chunks hold parts of it."""
        lines = []
        for n in [n for n in sums if way(n)[1] == "col"]:
            beside = f"beside + {self._beside().index(n)} * x.cols"
            lines.append(f"  double* const c{self.sums[n]} = k.split ? {beside} : {self._line(n)} + b * x.cols;")
            lines.append(f"  for (i64 c = 0; c < x.cols; c++) c{self.sums[n]}[c] = {START[n.op]};")
        return lines

    def _along_row(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]]) -> list[str]:
        """The loop over the elements of a row, with lanes for short rows and for long ones."""
        element = [*self._defined(body, "col"), *self._defined(body, "element"), *map(self._added, sums)]
        element += [f"  {self.stored(target, self.operand(node))}" for node, target in writes]
        adding = clauses([(self.sums[n], n.op) for n in sums if way(n)[1] != "col"])
        place = "  const i64 i = at_row * x.cols + c, at_col = b * x.cols + c;"

        def between(low: str, high: str) -> list[str]:
            loop = [f"  for (i64 c = {low}; c < {high}; c++) {{", place, *element, "  }"]
            short, long = ([f"  #pragma omp simd{lanes}{adding}", *loop] for lanes in (" simdlen(4)", ""))
            once = not adding and len(element) > LONG  # what is added, is added in the lanes of its loop
            return long if once else ["  if (x.cols < SHORT) {", *short, "  } else {", *long, "  }"]

        return self.behind_draws(body, ("0", "x.cols"), between)

    def drawn(self, node: Node) -> list[str]:
        name = self.names[node]
        return [f"  const number* const drawn_{name} = rows_{name}.of(at_row * x.cols + begin, at_row * x.cols + end);"]

    def _drawing(self, body: Sequence[Node]) -> list[str]:
        """What draws for one row after the other."""
        last = "((k.last - 1) * x.rows + k.high) * x.cols"
        draws = [(self.names[n], *n.value) for n in body if n.op == "random"]
        return [f"  Drawn<draw_{kind}, number> rows_{name} = {{x.counter, {site}u, x.cols, {last}}};" for name, kind, site in draws]

    def _defined(self, body: Sequence[Node], name: str) -> list[str]:
        return [self.definition(n) for n in body if kind(n.type.extent) == name]

    def _begun(self, sums: Sequence[Node], name: str) -> list[str]:
        return [f"  double a{self.sums[n]} = {START[n.op]}, n{self.sums[n]} = 0;" for n in sums if way(n)[1] == name]

    def _left(self, sums: Sequence[Node], name: str, place: str) -> list[str]:
        """The finished reductions of one line."""
        return [
            f"  {self._line(n)}[{place}] = {self._finished(n, _total(self.sums[n]))};" for n in sums if way(n)[1] == name
        ]  # fmt: skip

    def _left_of_matrix(self, sums: Sequence[Node]) -> list[str]:
        lines = []
        for n in [n for n in sums if way(n)[1] == "matrix"]:
            place, total = self.sums[n], _total(self.sums[n])
            lines.append(f"  if (k.split) partial[{place}] = {total}; else {self._line(n)}[b] = {self._finished(n, total)};")
        for n in [n for n in sums if way(n)[1] == "col" and n.op == "mean"]:
            lines.append(f"  if (!k.split) for (i64 c = 0; c < x.cols; c++) c{self.sums[n]}[c] /= (double)x.rows;")
        return lines

    def _added(self, node: Node) -> str:
        if way(node)[1] != "col":
            return f"  {self.accumulated(node)}"
        value, total = f"(double)({self.operand(node.args[0])})", f"c{self.sums[node]}[c]"
        return f"  {total} = {ADD[node.op].format(total=total, y=value)};"

    # ------------------------------------------------------------------------------------------- between passes

    def gathered(self, number: int) -> str:
        """`gather_K`: what chunks have left of one tensor, added in order; then the reductions from lines."""
        lines = []
        for n in self.reductions(number):
            lines += self._of_chunks(n)
        wanted = [n for n in super().reductions(number) if way(n)[0] in LINES]
        for name in LINES:
            some = [n for n in wanted if way(n)[0] == name]
            lines += self._of_lines(some, name) if some else []
        head = f"gather_{number}(const Tensor& x, const Shape& shape, const double* partial, const double* beside, double* sums)"
        return self.function(head, lines)

    def _of_chunks(self, node: Node) -> list[str]:
        place, left = self.sums[node], way(node)[1]
        arguments = f"{START[node.op]}, {_product(over(node)) if node.op == 'mean' else '1'}"
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
        loop = [*self._along(name, [*self._defined(body, name), *(f"  {self.accumulated(n)}" for n in sums)])]
        lines = [*self.pointers(body, []), *self._defined(body, "tensor"), *self._begun(sums, "tensor")]
        lines += ["  for (i64 b = 0; b < x.batch; b++) {", "  const i64 at_matrix = b;"]
        lines += [*([] if name == "matrix" else self._defined(body, "matrix")), *self._begun(sums, "matrix"), *loop]
        lines += [*self._left(sums, "matrix", "b"), "  }"]
        lines += [
            f"  sums[{self.sums[n]}] = {self._finished(n, _total(self.sums[n]))};" for n in sums if way(n)[1] == "tensor"
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
            loop = self._along(name, [*self._defined(body, name), *stores])
            outer = [] if name == "matrix" else self._defined(body, "matrix")
            lines += ["  {", *self.pointers(body, [target for _, target in some]), *self._defined(body, "tensor")]
            lines += ["  for (i64 b = 0; b < x.batch; b++) {", "  const i64 at_matrix = b;", *outer, *loop, "  }", "  }"]
        return lines

    def functions(self, returned: int) -> list[str]:
        functions, stages, alone = [], [], []
        for number in range(self.passes):
            if number in self.stages():
                functions.append(self.pass_(number))
                stages.append(f"    all_chunks(all, wave, {str(bool(number % 2)).lower()}, pass_{number});")
                alone.append(f"  pass_{number}(x, chunk_at(shape, 0), partial, beside);")
            if super().reductions(number):
                functions.append(self.gathered(number))
                stages.append(f"    all_tensors(all, wave, gather_{number});")
                alone.append(f"  gather_{number}(x, shape, partial, beside, sums);")
        entry = LINED.replace("@STAGES", "\n".join(stages)).replace("@ALONE", "\n".join(alone))
        headers = ["small.h", "lined.h", *(["lined_draws.h"] if self.draws else [])]
        return [self.constants(returned, len(self._beside())), *map(header, headers), *functions, self.finish(), entry]


def _product(dimensions: Sequence[str]) -> str:
    return " * ".join(f"x.{name}" for name in dimensions)


def _total(place: int) -> str:
    """What has been added up, or NaN where one of the values was: largest and smallest ones do not show it."""
    return f"(n{place} ? NAN : a{place})"
