"""What a step costs, before and after simplification: operations by kind, bytes per parameter, passes over the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from optlang.ir import Program, walk
from optlang.ops import OPS
from optlang.printing import columns
from optlang.simplify.cost import SHARE
from optlang.types import BYTES

Where = str  # "element", "slice" (per row, column or matrix), "tensor" (or group or model), "host"
WHERES: tuple[Where, ...] = ("element", "slice", "tensor", "host")
KINDS: Mapping[str, str] = {
    "add": "add, subtract", "sub": "add, subtract", "neg": "add, subtract", "mul": "multiply", "div": "divide",
    "sqrt": "roots", "cbrt": "roots", "matmul": "matrix products", "random": "draws", "grad": "", "hvp": "", "loss_at": "",
    "where": "compare, choose", "branch": "compare, choose", "maximum": "compare, choose", "minimum": "compare, choose",
}  # fmt: skip
ORDER = ("add, subtract", "multiply", "divide", "roots", "powers, functions", "compare, choose", "reductions", "matrix products",
         "views", "draws")  # fmt: skip

Counts = Mapping[tuple[str, Where], int]


@dataclass(frozen=True, slots=True)
class Report:
    """`before` and `after`: operations by (kind, per what). Bytes are per element of the parameter, with float32 states."""

    name: str
    math: str
    before: Counts
    after: Counts
    read: float
    written: float
    gradients: int
    products: int
    losses: int

    def to_text(self) -> str:
        """A small table, and a line on memory and one on passes."""
        kinds = [k for k in ORDER if any((k, w) in self.before or (k, w) in self.after for w in WHERES)]
        wheres = [w for w in WHERES if any((k, w) in self.before or (k, w) in self.after for k in kinds)]
        cells = [["operations", *(f"per {w}" if w != "host" else "on host" for w in wheres)]]
        cells += [[kind, *(self._cell(kind, w) for w in wheres)] for kind in kinds]
        head = f"{self.name}, math {self.math}: operations as written → simplified"
        moved = f"memory per parameter element: {self.read:g} bytes read, {self.written:g} written"
        passes = f"passes over the model: {_passes(self.gradients, self.products, self.losses)}"
        return "\n".join([head, *columns(cells, numbers=True), moved, passes])

    def _cell(self, kind: str, where: Where) -> str:
        was, now = self.before.get((kind, where), 0), self.after.get((kind, where), 0)
        return f"{was} → {now}" if was != now else str(was) if was else "-"


def _passes(gradients: int, products: int, losses: int) -> str:
    extra = [f"{gradients} more gradient{'s' * (gradients > 1)}"] if gradients else []
    extra += [f"{products} Hessian product{'s' * (products > 1)}"] if products else []
    extra += [f"{losses} more loss{'es' * (losses > 1)}"] if losses else []
    return ", ".join(["the gradient", *extra])


def report(program: Program, simple: Program, math: str = "safe") -> Report:
    """Operation counts of a program and of its simplified form, what this moves, and how often it calls the model."""
    read, written = _bytes(simple)
    calls = Counter(node.op for node in walk(simple.roots()))
    return Report(program.name, math, counts(program), counts(simple), read, written, calls["grad"], calls["hvp"], calls["loss_at"])


def counts(program: Program) -> Counts:
    """Operations by kind and by what there is one per. Both sides of a branch count."""
    found: Counter[tuple[str, Where]] = Counter()
    for node in walk(program.roots()):
        kind = _kind(node.op)
        if kind and (node.args or node.op == "random"):
            extent = node.args[0].type.extent if OPS[node.op].role == "reduce" else node.type.extent
            where = "host" if node.host else "tensor" if extent.level != "array" else "slice"
            full = (extent.level == "array" and (extent.rows, extent.cols) not in SHARE) or (extent.rows, extent.cols) == ("rows", "cols")
            found[kind, "element" if where == "slice" and full else where] += 1
    return dict(found)


def _kind(op: str) -> str:
    if op in KINDS:
        return KINDS[op]
    role = OPS[op].role
    if role == "reduce":
        return "reductions"
    if role in ("matrix", "window"):
        return "views" if op not in ("eye", "places") else ""
    return "compare, choose" if OPS[op].degree == "lost" else "powers, functions"


def _bytes(program: Program) -> tuple[float, float]:
    """Read and written per element: weights, gradient, and the states that have a value for every element."""
    sizes = {s.name: BYTES[s.type.kind] * max(1, s.type.window) for s in program.states if str(s.type.extent) == "element"}
    used = walk(program.roots())
    read = sum(sizes[n.value] for n in used if n.op == "state" and n.value in sizes)
    read += BYTES["real"] * sum(n.op in ("w", "g") for n in used)
    changed = [s.name for s in program.states if s.name in sizes and program.updates[s.name] is not s.node]
    return read, BYTES["real"] + sum(sizes[name] for name in changed)
