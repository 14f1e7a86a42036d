"""The passes of C++ kernels with rows, columns and matrices: long rows one by one, and short ones strip by strip.

A strip is as many rows as some vectors hold, so that a loop over elements fills vectors, however short rows are. Before the loop, what
elements need of their rows, matrices and columns is written side by side, once for each element. Behind it, what the loop has left for
each element is added up, row by row and column by column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from optlang.backends.cpp.source import ADD, START, Writer, clauses
from optlang.backends.kernels.lines import DIMENSIONS, LINES, over, way
from optlang.backends.kernels.passes import FRAMES, REDUCTIONS, kind
from optlang.backends.outputs import TENSORS
from optlang.ir import Node
from optlang.types import Extent

APART = "__attribute__((noinline))"  # registers are given out for a whole function
LINE = re.compile(r"\bl(\d+)\b")


class StripWriter(Writer):
    """Writes passes; see `lines` for what is between them."""

    # ------------------------------------------------------------------------------------------------ places

    def _beside(self) -> list[Node]:
        """The reductions of elements to columns, which chunks leave beside."""
        return [n for n in self.sums if way(n) == ("element", "col") and n.op != "count"]

    def index(self, extent: Extent) -> str:
        found = kind(extent)
        return {"element": "i", "tensor": ""}.get(found, f"at_{found}")

    def spell(self, node: Node) -> str:
        if node.op in FRAMES:
            return self.operand(node.args[0])
        if node.op == "count":
            return f"(number)({product(over(node))})"
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
        terms = [f"{before.count(name)} * {product(DIMENSIONS[name])}" for name in ("col", "matrix") if name in before]
        start = " + ".join([f"behind_rows(x, {sum(name == 'row' for _, name in kinds)})", *terms])
        return f"  double* const {self._line(node)} = {start};"

    def _finished(self, node: Node, text: str) -> str:
        return f"{text} / (double)({product(over(node))})" if node.op == "mean" else text

    # ---------------------------------------------------------------------------------------------- one pass

    def reductions(self, number: int) -> list[Node]:
        """Those of elements only."""
        return [n for n in self.all_reductions(number) if way(n)[0] == "element"]

    def all_reductions(self, number: int) -> list[Node]:
        """From lines, too."""
        return super().reductions(number)

    def pass_(self, number: int) -> str:
        """`pass_K`: the rows of one chunk of one tensor."""
        sums = self.reductions(number)
        body, writes = self.begun(number)
        used = [*self.reread.values(), *(target for _, target in writes)]
        lines = [*self.pointers(body, used), *self.defined(body, "tensor"), *self.starting(sums, "tensor")]
        left = [f"  partial[{self.sums[n]}] = {total(self.sums[n])};" for n in sums if way(n)[1] == "tensor"]
        given, limit = "(const Tensor& x, const Chunk& k, double* partial, double* beside)", "STRIP" if self.draws else "SHORT"
        ways = {"short": self._short_rows(body, sums, writes), "long": self._long_rows(body, sums, writes)}
        found = [self.function(f"{APART} {name}_{number}{given}", [*lines, *rows, *left]) for name, rows in ways.items()]
        choice = f"(x.cols < {limit} && x.rows ? short_{number} : long_{number})(x, k, partial, beside);"
        return "\n".join([*found, f"static void pass_{number}{given} {{ {choice} }}"])

    def defined(self, body: Sequence[Node], name: str) -> list[str]:
        return [self.definition(n) for n in body if kind(n.type.extent) == name]

    def starting(self, sums: Sequence[Node], name: str) -> list[str]:
        return [f"  double a{self.sums[n]} = {START[n.op]}, n{self.sums[n]} = 0;" for n in sums if way(n)[1] == name]

    def left(self, sums: Sequence[Node], name: str) -> list[str]:
        """The finished reductions of one line."""
        return [
            f"  {self._line(n)}[at_{name}] = {self._finished(n, total(self.sums[n]))};" for n in sums if way(n)[1] == name
        ]  # fmt: skip

    def _columns(self, sums: Sequence[Node]) -> list[str]:
        """Where the columns of a matrix add up: beside it, if other chunks hold parts of it."""
        lines = []
        for n in [n for n in sums if way(n)[1] == "col"]:
            beside = f"beside + {self._beside().index(n)} * x.cols"
            lines.append(f"  double* const c{self.sums[n]} = k.split ? {beside} : {self._line(n)} + at_matrix * x.cols;")
        return lines

    def _columns_begun(self, sums: Sequence[Node]) -> list[str]:
        starts = [f"c{self.sums[n]}[c] = {START[n.op]};" for n in sums if way(n)[1] == "col"]
        return [f"  for (i64 c = 0; c < x.cols; c++) {start}" for start in starts]

    def _left_of_matrix(self, sums: Sequence[Node]) -> list[str]:
        lines = []
        for n in [n for n in sums if way(n)[1] == "matrix"]:
            place, text = self.sums[n], total(self.sums[n])
            lines.append(f"  if (k.split) partial[{place}] = {text}; else {self._line(n)}[at_matrix] = {self._finished(n, text)};")
        for n in [n for n in sums if way(n)[1] == "col" and n.op == "mean"]:
            lines.append(f"  if (!k.split) for (i64 c = 0; c < x.cols; c++) c{self.sums[n]}[c] /= (double)x.rows;")
        return lines

    # ------------------------------------------------------------------------------------------------ long rows

    def _long_rows(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]]) -> list[str]:
        matrix = [*self.defined(body, "matrix"), *self.starting(sums, "matrix"), *self._columns(sums), *self._columns_begun(sums)]
        lines = ["  for (i64 b = k.first; b < k.last; b++) {", "  const i64 at_matrix = b;", *matrix]
        lines += ["  for (i64 r = k.low; r < k.high; r++) {", "  const i64 at_row = b * x.rows + r, low = at_row * x.cols;"]
        lines += [*self.defined(body, "row"), *self.starting(sums, "row")]
        element = ["  const i64 i = low + c, at_col = b * x.cols + c;", *self.defined(body, "col"), *self.defined(body, "element")]
        element += [*map(self._added, sums), *(f"  {self.stored(target, self.operand(node))}" for node, target in writes)]
        head = f"  #pragma omp simd{clauses([(self.sums[n], n.op) for n in sums if way(n)[1] != 'col'])}"
        lines += self.behind_draws(
            body,
            ("low", "low + x.cols"),
            lambda begin, end: [head, f"  for (i64 c = {begin} - low; c < {end} - low; c++) {{", *element, "  }"],
        )
        return [*lines, *self.left(sums, "row"), "  }", *self._left_of_matrix(sums), "  }"]

    def _added(self, node: Node) -> str:
        if way(node)[1] != "col":
            return f"  {self.accumulated(node)}"
        value, cell = f"(double)({self.operand(node.args[0])})", f"c{self.sums[node]}[c]"
        return f"  {cell} = {ADD[node.op].format(total=cell, y=value)};"

    # ----------------------------------------------------------------------------------------------- short rows

    def _short_rows(self, body: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]]) -> list[str]:
        lined, of_tensor = ([n for n in sums if (way(n)[1] == "tensor") is each] for each in (False, True))
        names = [*(f"of_{self.names[n]}" for n in _told(body)), *(f"y{place}" for place in range(len(_summed(lined))))]
        lines = [*self.starting(sums, "matrix"), *(f"  alignas(64) number {name}[STRIP + SHORT];" for name in names)]
        lines += ["  const i64 last = (k.last - 1) * x.rows + k.high, many = rows_of_strip(x);", "  i64 told = -1;"]
        lines += ["  for (Row top = {k.first * x.rows + k.low, k.first, k.low}; top.row < last;) {"]
        lines += ["  const i64 until = least(top.row + many, last), begin = top.row * x.cols, end = until * x.cols;"]
        lines += [*self._told_rows(body), *self._told_columns(body), *self._elements(body, lined, of_tensor, writes)]
        return [*lines, *self._added_up(lined), "  top.move(x, until);", "  }"]

    def _told_rows(self, body: Sequence[Node]) -> list[str]:
        tell = [f"  tell({self.spell(n)}, x.cols, of_{self.names[n]} + at_row * x.cols - begin);" for n in _told(body, "row")]
        return ["  for (i64 at_row = top.row; at_row < until; at_row++) {", *tell, "  }"] if tell else []

    def _told_columns(self, body: Sequence[Node]) -> list[str]:
        """And matrices: those of a matrix that has been told them are the same in its next strip."""
        place = "at.row * x.cols - begin"
        tell = [f"  tell({self.spell(n)}, x.cols, of_{self.names[n]} + {place});" for n in _told(body, "matrix")]
        if columns := [f"  of_{self.names[n]}[{place} + c] = {self.spell(n)};" for n in _told(body, "col")]:
            tell += ["  for (i64 c = 0; c < x.cols; c++) {", "  const i64 at_col = at_matrix * x.cols + c;", *columns, "  }"]
        if not tell:
            return []
        lines = ["  const i64 only = top.place + until - top.row <= x.rows ? top.matrix : -1;", "  if (only < 0 || told != only)"]
        lines += ["  for (Row at = top; at.row < until; at.next(x)) {", "  const i64 at_matrix = at.matrix;"]
        return [*lines, *tell, "  }", "  told = only;"]

    def _elements(
        self, body: Sequence[Node], lined: Sequence[Node], sums: Sequence[Node], writes: Sequence[tuple[Node, Node]]
    ) -> list[str]:
        """The loop over the elements of a strip."""
        told = set(_told(body))
        lines = [*chain.from_iterable(self.drawn(n) for n in body if n.op == "random")]
        lines += [f"  #pragma omp simd{clauses([(self.sums[n], n.op) for n in sums])}", "  for (i64 i = begin; i < end; i++) {"]
        each = [n for n in body if kind(n.type.extent) != "tensor"]
        lines += [self.definition(n, f"of_{self.names[n]}[i - begin]" if n in told else "") for n in each]
        lines += [f"  {self.accumulated(n)}" for n in sums]
        lines += [f"  y{place}[i - begin] = {self.operand(node)};" for place, node in enumerate(_summed(lined))]
        return [*lines, *(f"  {self.stored(target, self.operand(node))}" for node, target in writes), "  }"]

    def _added_up(self, sums: Sequence[Node]) -> list[str]:
        """What elements have left: of one matrix after the other, what a strip holds."""
        if not sums:
            return []
        summed = _summed(sums)
        add = {n: f"  {self.accumulated(n, f'y{summed.index(n.args[0])}[(r - top.row) * x.cols + c]')}" for n in sums}
        lines = ["  for (Row at = top; at.row < until;) {"]
        lines += ["  const i64 at_matrix = at.matrix, behind = least(at.row + k.high - at.place, until);"]
        lines += [*self._columns(sums), "  if (at.place == k.low) {", *self._columns_begun(sums)]
        lines += [f"  a{self.sums[n]} = {START[n.op]}, n{self.sums[n]} = 0;" for n in sums if way(n)[1] == "matrix"] + ["  }"]
        if of_rows := [n for n in sums if way(n)[1] != "col"]:
            lines += ["  for (i64 r = at.row; r < behind; r++) {", "  const i64 at_row = r;", *self.starting(sums, "row")]
            lanes = f"  #pragma omp simd simdlen(4){clauses([(self.sums[n], n.op) for n in of_rows])}"
            loop = ["  for (i64 c = 0; c < x.cols; c++) {", *(add[n] for n in of_rows), "  }"]
            lines += ["  if (x.cols < 4) {", *loop, "  } else {", lanes, *loop, "  }", *self.left(sums, "row"), "  }"]
        for n in [n for n in sums if way(n)[1] == "col"]:
            place = self.sums[n]
            lines += ["  for (i64 c = 0; c < x.cols; c++) {", f"  double a{place} = c{place}[c], n{place} = 0;"]
            lines += [f"  for (i64 r = at.row; r < behind; r++) {add[n]}", f"  c{place}[c] = {total(place)};", "  }"]
        return [*lines, "  at.move(x, behind);", "  if (at.place == k.high % x.rows) {", *self._left_of_matrix(sums), "  }", "  }"]


def _told(body: Sequence[Node], *names: str) -> list[Node]:
    """What is read of rows, matrices and columns."""
    return [n for n in body if kind(n.type.extent) in (names or LINES) and n.op in (*TENSORS, *REDUCTIONS)]


def _summed(sums: Sequence[Node]) -> list[Node]:
    """What is added up behind the loop over elements, each once."""
    return list(dict.fromkeys(n.args[0] for n in sums))


def total(place: int) -> str:
    """What has been added up, or NaN where one of the values was: largest and smallest ones do not show it."""
    return f"(n{place} ? NAN : a{place})"


def product(dimensions: Sequence[str]) -> str:
    return " * ".join(f"x.{name}" for name in dimensions)
