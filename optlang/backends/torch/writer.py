"""The body of a function of the torch backend, one operator a line, in the order in which they are computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from optlang import ir
from optlang.backends.outputs import TENSORS, Output, is_slot
from optlang.backends.torch.identifiers import Identifiers
from optlang.backends.torch.ops import SYMBOLS
from optlang.backends.torch.ordering import last_uses, order_of
from optlang.backends.torch.products import SYMMETRIC, products, symmetric, unrounded
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import Dim, Extent, needs_matrix, reduced_dims

VIEWS = TENSORS | {"transpose", "as_matrix", "as_param", "spread"}  # their results share memory with an operand
HEAVY = frozenset(["matmul", "eigenvectors", "orthonormal", "inverse", "quantile"])  # fusing the rest would gain little
COMMUTING = frozenset(["add", "mul"])
IN_PLACE = COMMUTING | {"sub", "div"}
FRESH = IN_PLACE | {"matmul", "pow", "sqrt", "abs"}  # their results have memory of their own


class Writer:
    """One function being written. `low`, `double`, `rounds` and `in_place` are those of `generate`."""

    def __init__(
        self, outputs: Sequence[Output], names: Mapping[Node, str], low: bool, double: bool, rounds: bool, in_place: bool
    ) -> None:
        self.outputs, self.names, self.low, self.rounds, self.in_place = outputs, names, low, rounds, in_place
        self.results_of = {o.node for o in outputs}
        self.dtype = "torch.float64" if double else "torch.float32"
        roots = [o.node for o in outputs]
        self.known = ir.on_host(roots)
        computed = [n for n in order_of(roots, products_first=rounds) if not self.is_slot(n)]
        self.computed = set(computed)
        self.products = (products if rounds else unrounded)(computed, self.results_of)
        self.symmetric = symmetric(computed)
        self.order = [n for n in computed if n not in self.products.inside]
        self.multiplies = any(n.op in HEAVY and n.value != "window" for n in computed)
        self.shaped = any(map(ir.of_matrix, computed))
        self.in_order = {arg for n in computed if n.op not in ("matmul", "transpose") for arg in n.args if arg.op == "transpose"}
        self.runs = tuple(sorted({n.type.extent.run for n in computed if n.type.extent.run}))
        self.lines: list[str] = []
        self.spelled: dict[Node, str] = {}
        self.slots: dict[Node, int] = {}
        self.tensors: dict[Node, str] = {}
        self.identifiers = Identifiers()
        self.nameless: set[Node] = set()  # what no equation names and nobody is handed
        self.factors: dict[Node, str] = {}  # operands of products, in bfloat16

    def is_slot(self, node: Node) -> bool:
        return is_slot(node, self.known)

    def body(self) -> list[str]:
        """All lines of the function."""
        last = last_uses(self.order, self.products)
        for node in self.order:
            self._write(node, last.get(node, ()))
            self._forget(last.get(node, ()))
        results = self._results()
        return [*self.lines, *results]

    # ------------------------------------------------------------------------------------------------ operands

    def tensor(self, node: Node) -> str:
        """The argument that holds `w`, `g`, a state, an input or a window."""
        if node not in self.tensors:
            self.tensors[node] = self.identifiers.fresh(str(node.value) if node.value is not None and node.op in TENSORS else node.op)
        return self.tensors[node]

    def operand(self, node: Node, literal: bool = False) -> str:
        """How an operand is written. `literal`: a number may stand there as it is."""
        if literal and node.op == "const" and not isinstance(node.value, bool):
            return _literal(node.value)
        if self.is_slot(node):
            place = self.slots.setdefault(node, len(self.slots))
            return f"(s[{place}] != 0)" if node.type.kind == "bool" else f"s[{place}]"
        return self.spelled[node]

    # -------------------------------------------------------------------------------------------- operators

    def _write(self, node: Node, dying: Collection[Node]) -> None:
        """Computes one expression, under the name of its equation where it has one. `dying`: operands that nothing later needs."""
        if node.op in TENSORS or node.type.extent.level in ("group", "model"):
            self.spelled[node] = self._read(node)
            return
        if node in self.products.sums or (node.op == "matmul" and self.rounds):
            self._multiply(node)
            if node not in self.products.wide:
                return
            text = f"{self.factors[node]}.to({self.dtype})"
        elif node in self.products.solved:
            text = self.products.solved[node].spelled(list(map(self.operand, self.products.operands(node))))
        elif node.op == "matmul" and node in self.symmetric:
            text = f"ops.product({', '.join(map(self.operand, node.args))}{SYMMETRIC})"
        else:
            text = (self._in_place(node, dying) if self.multiplies and self.in_place else "") or self._spell(node)
        self.spelled[node] = self.identifiers.fresh(self.names[node]) if node in self.names else self.identifiers.spare("x")
        if node not in self.names and node not in self.results_of:
            self.nameless.add(node)
        self.lines.append(f"{self.spelled[node]} = {text}")

    def _forget(self, nodes: Iterable[Node]) -> None:
        """These are of no more use."""
        for node in nodes:
            if node in self.nameless:
                self.identifiers.give_back("x", self.spelled[node])
            if node in self.factors:
                self.identifiers.give_back("x_bf16", self.factors.pop(node))

    def _read(self, node: Node) -> str:
        """A tensor to compute with: those of 16 bits in 32."""
        name = self.tensor(node)
        if not self.low or node.type.kind == "bool":
            return name
        wide = self.identifiers.fresh(f"{name}_wide")
        self.lines.append(f"{wide} = {name}.to({self.dtype})")
        return wide

    def _in_batch(self, text: str, node: Node) -> str:
        """One for each matrix of a batch, as reductions count them."""
        return f"{text}.expand({self._shape(node.type.extent)})"

    def _spell(self, node: Node) -> str:
        row = OPS[node.op]
        if node.op == "random":
            return f"ops.draw({node.value[0]!r}, {node.value[1]}, counter, {self._shape(node.type.extent)}, {self._like()})"
        if node.op == "eye":
            sizes = ", ".join(self._size(dim) for dim in node.value)
            return self._in_batch(f"torch.eye({sizes}, dtype={self.dtype}, device={self.tensor(ir.W)}.device)", node)
        if node.op == "places":
            column = f"torch.arange({self._size(node.value)}, dtype={self.dtype}, device={self.tensor(ir.W)}.device).unsqueeze(-1)"
            return self._in_batch(column, node)
        if row.role == "reduce":
            return self._reduction(node)
        if node.op == "as_matrix":
            return f"ops.flat({self.operand(node.args[0])}, {self._first()})"
        if node.op == "spread":
            return f"ops.spread({self.operand(node.args[0])}, {self.tensor(ir.W)}.shape)"
        if node.op == "as_param":
            return f"{self.operand(node.args[0])}.reshape({self.tensor(ir.W)}.shape)"
        if node.op == "push":
            return f"ops.push({self.operand(node.args[0])}, {self.operand(node.args[1])})"
        if node.op == "branch":
            return f"torch.where({', '.join(self._aligned(node, arg, False) for arg in node.args)})"
        if node in self.in_order:  # beside other matrices, one whose memory is turned would slow down each operator that follows
            return f"{self.operand(node.args[0])}.mT{'' if node in self.products.lone else '.contiguous()'}"
        if row.symbol:
            left, right = (self._aligned(node, arg, True) for arg in node.args)
            return f"{left} {SYMBOLS.get(node.op, row.symbol)} {right}"
        return row.torch.format(*(self._aligned(node, arg, False) for arg in node.args))

    def _in_place(self, node: Node, dying: Collection[Node]) -> str:
        """A sum or product in the memory of an operand that is of no more use: that is in the cache, where new memory is not even
        there yet. Empty where there is none of which it is sure that nothing else shares its memory."""
        for place, arg in enumerate(node.args if node.op in IN_PLACE else ()):
            free = arg in dying and arg in self.nameless and arg.op in FRESH and arg not in self.shared
            if free and arg.type == node.type and node.args[1 - place] is not arg and (place == 0 or node.op in COMMUTING):
                return f"{self.operand(arg)}.{node.op}_({self.operand(node.args[1 - place], literal=True)})"
        return ""

    @cached_property
    def shared(self) -> set[Node]:
        """What others may share memory with, but for transposes in products, and what no tensor of the parameter is behind."""
        views = {arg for n in self.computed if n.op in VIEWS and (n.op != "transpose" or n in self.in_order) for arg in n.args}
        deep: set[Node] = set()
        for node in ir.walk(self.computed):
            deep |= {node} if node.op in TENSORS or not deep.isdisjoint(node.args) else set()
        return views | self.computed - deep

    def _multiply(self, node: Node) -> None:
        """A product in bfloat16, or the sum that it is a part of."""
        operands, added = list(map(self._factor, self.products.operands(node))), self.products.sums.get(node)
        given = (added.spelled(operands) if added else ", ".join(operands)) + SYMMETRIC * (node in self.symmetric)
        text = f"ops.{'added' if added else 'product'}({given})"
        self.factors[node] = self.identifiers.spare("x_bf16")
        self.lines.append(f"{self.factors[node]} = {text}")

    def _first(self, run: int = 0) -> str:
        """The first dimension of the parameter, or how many runs of such a length there are."""
        place = self.runs.index(run) + 1 if run else 0
        return f"first[{place}]" if self.runs else "first"

    def _factor(self, node: Node) -> str:
        """An operand in bfloat16, rounded once for all products that it is in."""
        if node.op == "transpose":
            return f"{self._factor(node.args[0])}.mT"
        if node not in self.factors:
            self.factors[node] = self.identifiers.spare("x_bf16")
            self.lines.append(f"{self.factors[node]} = {self.operand(node)}.to(torch.bfloat16)")
        return self.factors[node]

    def _aligned(self, node: Node, arg: Node, literal: bool) -> str:
        """An operand; a window of small values beside those of larger ones gets their dimensions."""
        text = self.operand(arg, literal)
        missing = self._dims(node) - self._dims(arg) if arg.type.window else 0
        return f"{text}.reshape({text}.shape[0]{', 1' * missing})" if missing else text

    def _dims(self, node: Node) -> int:
        extent = node.type.extent
        return 0 if extent.level != "array" else 2 if extent.run else 3 if self.shaped else 1

    def _reduction(self, node: Node) -> str:
        value, more = self.operand(node.args[0]), "".join(f", {self.operand(arg)}" for arg in node.args[1:])
        if node.value == "window":
            return f"ops.window_{node.op}({value}{more})"
        if node.value.run and not node.args[0].type.extent.run:
            value = f"ops.runs({value}, {self._first(node.value.run)})"
        dims = reduced_dims(node.args[0].type.extent, node.value)
        if dims == ():  # one value each; to torch, no dimensions are all of them
            return {"count": f"torch.ones_like({value})", "quantile": f"ops.lone({value}{more})"}.get(node.op, value)
        if node.op in ("amax", "amin", "count", "quantile"):
            return f"ops.{node.op}({value}{more}, {dims})"
        return f"{value}.{node.op}()" if dims is None else f"{value}.{node.op}({dims}, keepdim=True)"

    def _shape(self, extent: Extent) -> str:
        w = self.tensor(ir.W)
        if extent.level != "array":
            return "()"
        if extent.run:
            return f"({self._first(extent.run)}, 1)"
        if not self.shaped or not needs_matrix(extent):
            return f"{w}.shape"
        return f"({w}.shape[0], {self._size(extent.rows)}, {self._size(extent.cols)})"

    def _size(self, dim: Dim) -> str:
        return {"rows": f"{self.tensor(ir.W)}.shape[-2]", "cols": f"{self.tensor(ir.W)}.shape[-1]"}.get(str(dim), str(dim))

    def _like(self) -> str:
        return f"torch.empty(0, dtype={self.dtype}, device={self.tensor(ir.W)}.device)"

    # ---------------------------------------------------------------------------------------------- results

    def _results(self) -> list[str]:
        """Everything has been computed before anything is written."""
        written = [(o.target, self._value(o)) for o in self.outputs if o.target is not None and o.target is not o.node]
        returned = [self._value(o) for o in self.outputs if o.target is None]
        last = f"return {', '.join(returned)}{',' * (len(returned) == 1)}" if returned else "return None"
        return [*(f"{self.tensor(target)}.copy_({value})" for target, value in written), last]

    def _value(self, output: Output) -> str:
        """A result; one that shares memory with something that is written is copied first."""
        text = self.operand(output.node)
        if self.is_slot(output.node) or output.node.op not in VIEWS:
            return text
        name = self.identifiers.fresh("kept")
        self.lines.append(f"{name} = {text}.clone()")
        return name


def _literal(value: float) -> str:
    if math.isnan(value):
        return "torch.nan"
    if math.isinf(value):
        return "torch.inf" if value > 0 else "(-torch.inf)"
    return f"({value!r})" if value < 0 else repr(value)
