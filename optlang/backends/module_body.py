"""Expressions as the statements that one would write by hand: inlined where used once, under `if` where a block decides.

Numbers known before the step become Python floats, everything else torch. A value that only one side of a block needs is
computed inside that side.
"""

from __future__ import annotations

import keyword
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from optlang import ir
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import Extent, needs_matrix

Path = tuple[tuple[Node, bool], ...]  # the sides of blocks that lead to a place
FACTS = {
    "rank": "p.ndim", "rows": "p.shape[-2]", "cols": "p.shape[-1]", "numel": "p.numel()",
    "fan_in": "p.shape[1:].numel()", "fan_out": "(p.numel() // p.shape[1])",
}  # fmt: skip
PYTHON = {"pow": ("**", 7), "and": ("and", 1), "or": ("or", 0)}
TENSOR = {"pow": ("**", 7), "and": ("&", 3.6), "or": ("|", 3.5)}
COMPARED = frozenset(["lt", "le", "gt", "ge", "eq", "ne"])
ATOM, UNARY = 100.0, 6.0
MERGE_UP_TO = 3000  # nodes; beyond, blocks with one condition are left apart
TAKEN = frozenset(["torch", "math", "self", "group", "p", "state", "dtype", "closure", "loss", "ieee", *keyword.kwlist])


def identifier(name: str, used: set[str]) -> str:
    """A Python name like the given one that is not used yet; it is used from now on."""
    base = unicodedata.normalize("NFKC", re.sub(r"\W", "_", name))
    base = base if base.isidentifier() else "x"
    found, number = base, 1
    while found in used or found in TAKEN:
        number += 1
        found = f"{base}_{number}"
    used.add(found)
    return found


class Body:
    """Statements that compute some expressions. `leaves` names what is already there; `names` are wishes for the rest."""

    def __init__(
        self, roots: Mapping[Node, Path], leaves: Mapping[Node, str], names: Mapping[Node, str], hypers: Mapping[str, ir.Hyper]
    ) -> None:
        self.roots, self.leaves, self.names, self.hypers = dict(roots), leaves, names, hypers
        self.used = {re.split(r"\W", text)[0] for text in leaves.values()}
        self.order = _reachable(list(self.roots), leaves)
        self.host = ir.on_host(self.roots)
        self.paths = self._paths()
        self.uses = self._uses()
        self.written: dict[Node, str] = {}
        self.helpers: set[str] = set()
        self.calls_ieee = False

    # ---------------------------------------------------------------------------------------------- analysis

    def is_block(self, node: Node) -> bool:
        """Whether a choice is made before the step, by an `if`."""
        return node.op in ("branch", "where") and self.host[node.args[0]] and node not in self.leaves

    def _paths(self) -> dict[Node, Path]:
        """Where each expression must be computed: the innermost block that holds all its uses."""
        paths: dict[Node, Path] = dict(self.roots)
        for node in reversed(self.order):
            if node in self.leaves:
                continue
            for place, arg in enumerate(node.args):
                path = paths[node]
                if self.is_block(node) and place:
                    path = (*path, (node.args[0], place == 1))
                paths[arg] = path if arg not in paths else _common(paths[arg], path)
        return paths

    def _uses(self) -> Counter[Node]:
        uses = Counter(list(self.roots))
        for node in self.order:
            if node not in self.leaves:
                uses.update(node.args)
        return uses

    def _has_statement(self, node: Node) -> bool:
        """Whether an expression gets a line of its own."""
        if node in self.leaves or (not node.args and node.op not in ("random", "eye")):
            return False
        if self.host[node] and node.type.kind == "bool":
            return node in self.names
        return node in self.names or self.uses[node] > 1 or node.op in ("random", "matmul") or len(self.text_of(node)) > 90

    # ---------------------------------------------------------------------------------------------- statements

    def lines(self) -> list[str]:
        """All statements, in an order in which they can run."""
        return self._block(())

    def _block(self, path: Path) -> list[str]:
        lines: list[str] = []
        for node in self.order:
            if node not in self.written and self.paths[node] == path:
                lines += self._statement(node, path)
        return lines

    def _statement(self, node: Node, path: Path) -> list[str]:
        if node in self.written or node in self.leaves:
            return []
        if self.is_block(node):
            return self._choice(node, path)
        if not self._has_statement(node):
            return []
        text = self.text_of(node)
        name = self.written[node] = identifier(self.names.get(node, "x"), self.used)
        return [f"{name} = {text}"]

    def _choice(self, node: Node, path: Path) -> list[str]:
        """One `if` for all choices of one condition that do not wait for each other."""
        together = self._together(node, path)
        lines: list[str] = []
        for other in self.order:  # what they need from outside
            if self.paths[other] == path and any(other in self._below(choice) for choice in together):
                lines += self._statement(other, path)
        condition = self.text(node.args[0])
        targets = [identifier(self.names.get(choice, "x"), self.used) for choice in together]
        sides = []
        for place in (1, 2):
            inside = self._block((*path, (node.args[0], place == 1)))
            values = [self.text(choice.args[place]) for choice in together]
            sides.append([*inside, *(f"{t} = {v}" for t, v in zip(targets, values, strict=True) if t != v)])
        self.written.update(zip(together, targets, strict=True))
        indented = [[f"    {line}" for line in side] for side in sides]
        return [*lines, f"if {condition}:", *(indented[0] or ["    pass"]), "else:", *(indented[1] or ["    pass"])]

    def _together(self, node: Node, path: Path) -> list[Node]:
        if len(self.order) > MERGE_UP_TO:
            return [node]
        same = [n for n in self.order if self.is_block(n) and n.args[0] is node.args[0] and self.paths[n] == path and n not in self.written]
        return [n for n in same if n is node or (not self._below(n) & set(same) and not self._waits(n, same))]

    def _waits(self, node: Node, same: list[Node]) -> bool:
        return any(other in self._below(node) for other in same if other is not node)

    def _below(self, node: Node) -> set[Node]:
        return set(ir.walk(node.args)) - {node}

    # --------------------------------------------------------------------------------------------- expressions

    def text(self, node: Node, least: float = 0) -> str:
        """An expression, in brackets where it binds less tightly than `least`."""
        if node in self.leaves:
            return self.leaves[node]
        if node in self.written:
            return self.written[node]
        written, precedence = self._print(node)
        return written if precedence >= least else f"({written})"

    def reads(self, node: Node) -> set[Node]:
        """The leaves in the text of an expression."""
        found: set[Node] = set()
        stack = [node]
        while stack:
            part = stack.pop()
            if part in self.leaves:
                found.add(part)
            elif part not in self.written:
                stack.extend(part.args)
        return found

    def text_of(self, node: Node) -> str:
        return self._print(node)[0]

    def _print(self, node: Node) -> tuple[str, float]:
        if not node.args:
            return self._leaf(node)
        return self._host(node) if self.host[node] else self._tensor(node)

    def _leaf(self, node: Node) -> tuple[str, float]:
        match node.op:
            case "const":
                return _number(node.value)
            case "fact":
                return FACTS[node.value], ATOM
            case "random":
                self.helpers.add("draw")
                return f"draw({node.value[0]!r}, {node.value[1]}, counter, {self._shape(node.type.extent)}, w)", ATOM
            case "eye":
                size = "p.shape[-2]" if node.value == "rows" else "p.shape[-1]"
                return f"torch.eye({size}, dtype=dtype, device=p.device)", ATOM
        return self.leaves[node], ATOM

    def _shape(self, extent: Extent) -> str:
        if extent.level != "array":
            return "()"
        if not needs_matrix(extent):
            return "w.shape"
        rows, cols = ("p.shape[-2]" if extent.rows == "rows" else "1"), ("p.shape[-1]" if extent.cols == "cols" else "1")
        return f"(*p.shape[:-2], {rows}, {cols})"

    def _host(self, node: Node) -> tuple[str, float]:
        """Python arithmetic; what Python would refuse and IEEE arithmetic allows goes through `ieee`."""
        op, args = node.op, node.args
        if op in ("neg", "not"):
            return ("-" if op == "neg" else "not ") + self.text(args[0], UNARY if op == "neg" else 2.5), UNARY if op == "neg" else 2.0
        if op in ("maximum", "minimum"):
            return f"{op[:3]}({self.text(args[0])}, {self.text(args[1])})", ATOM
        if op == "abs":
            return f"abs({self.text(args[0])})", ATOM
        if (
            op in ("add", "sub", "mul", "and", "or")
            or op in COMPARED
            or (op == "div" and self._positive(args[1]))
            or (op == "pow" and self._safe_power(args))
        ):
            return self._infix(node, PYTHON)
        if op == "mod" and self._positive(args[1]):
            return f"{self.text(args[0], 5)} % {self.text(args[1], 5.5)}", 5
        if op in ("sqrt", "log") and self._positive(args[0]):
            return f"math.{op}({self.text(args[0])})", ATOM
        if op in ("cos", "sin", "tanh", "floor", "ceil"):
            return f"math.{op}({self.text(args[0])})", ATOM
        self.calls_ieee = True
        word = {"div": "true_divide", "mod": "remainder"}.get(op, op)
        return f"ieee(torch.{word}, {', '.join(self.text(arg) for arg in args)})", ATOM

    def _positive(self, node: Node) -> bool:
        """Whether a number is certainly above 0."""
        if node.op == "const":
            return not isinstance(node.value, bool) and node.value > 0
        if node.op in ("t", "fact"):
            return bool(node.value != "numel")
        if node.op == "hyper":
            bounds = self.hypers[node.value].bounds if node.value in self.hypers else None
            return bounds is not None and (bounds.low > 0 or (bounds.low == 0 and bounds.low_open and node.value != "lr"))
        if node.op == "maximum":
            return any(self._positive(arg) for arg in node.args)
        if node.op in ("sqrt", "exp"):
            return node.op == "exp" or self._positive(node.args[0])
        if node.op in ("add", "mul", "div", "minimum"):
            return all(self._positive(arg) for arg in node.args)
        return node.op == "sub" and node.args[0].op == "const" and node.args[0].value == 1 and self._below_one(node.args[1])

    def _below_one(self, node: Node) -> bool:
        if node.op == "pow" and node.args[1].op == "t":
            return self._below_one(node.args[0])
        bounds = self.hypers[node.value].bounds if node.op == "hyper" and node.value in self.hypers else None
        return bounds is not None and bounds.low >= 0 and (bounds.high < 1 or (bounds.high == 1 and bounds.high_open))

    def _safe_power(self, args: Sequence[Node]) -> bool:
        base, exponent = args
        if exponent.op == "t":
            return self._below_one(base)
        return exponent.op == "const" and exponent.value in (2, 3, 0.5) and (exponent.value != 0.5 or self._positive(base))

    def _infix(self, node: Node, table: Mapping[str, tuple[str, float]]) -> tuple[str, float]:
        infix = OPS[node.op].infix
        assert infix is not None
        sign, precedence = table.get(node.op, (infix[0], float(infix[1])))
        left, right = node.args
        if node.op == "pow":
            return f"{self.text(left, 7.5)} ** {self.text(right, 7)}", precedence
        tighter = precedence if node.op in ("add", "mul", "and", "or") and node.op != "mul" else precedence + 0.5
        looser = precedence + 0.5 if node.op in COMPARED else precedence
        return f"{self.text(left, looser)} {sign} {self.text(right, tighter)}", precedence

    def _tensor(self, node: Node) -> tuple[str, float]:
        op, args, row = node.op, node.args, OPS[node.op]
        if row.role == "reduce":
            return self._reduction(node), ATOM
        if op in ("maximum", "minimum") and any(self.host[arg] for arg in args):
            number, tensor = sorted(args, key=lambda arg: not self.host[arg])
            return f"{self.text(tensor, ATOM)}.clamp({'min' if op == 'maximum' else 'max'}={self.text(number)})", ATOM
        if op == "as_matrix":
            return f"{self.text(args[0], ATOM)}.flatten(1)", ATOM
        if op == "as_param":
            return f"{self.text(args[0], ATOM)}.reshape(p.shape)", ATOM
        if op == "transpose":
            return f"{self.text(args[0], ATOM)}.mT", ATOM
        if op == "push":
            self.helpers.add("push")
            return f"push({self.text(args[0])}, {self._as_tensor(args[1])})", ATOM
        if op == "neg":
            return f"-{self.text(args[0], UNARY)}", UNARY
        if op == "not":
            return f"~{self.text(args[0], UNARY)}", UNARY
        if row.infix is not None:
            return self._infix(node, TENSOR) if not self._padded(node) else self._aligned_infix(node)
        if op in ("where", "branch"):
            return f"torch.where({self._as_tensor(args[0])}, {self._as_tensor(args[1])}, {self._as_tensor(args[2])})", ATOM
        if op == "cbrt":
            x = self.text(args[0])
            return f"torch.sign({x}) * torch.abs({x}) ** (1 / 3)", 5
        inside = [self._as_tensor(arg) if len(args) > 1 else self.text(arg) for arg in args]
        return row.torch.format(*inside), ATOM

    def _padded(self, node: Node) -> bool:
        """Whether a window of small values stands beside larger ones."""
        return (
            bool(node.type.window)
            and any(arg.type.window and arg.type.extent.level != "array" for arg in node.args)
            and node.type.extent.level == "array"
        )

    def _aligned_infix(self, node: Node) -> tuple[str, float]:
        infix = OPS[node.op].infix
        assert infix is not None
        sides = []
        for arg in node.args:
            text = self.text(arg, ATOM)
            small = arg.type.window and arg.type.extent.level != "array"
            sides.append(f"{text}.reshape(-1, *[1] * p.ndim)" if small else text)
        return f"({sides[0]} {TENSOR.get(node.op, (infix[0], 0))[0]} {sides[1]})", ATOM

    def _as_tensor(self, node: Node) -> str:
        text = self.text(node)
        return (
            f"torch.tensor({text}, dtype={'torch.bool' if node.type.kind == 'bool' else 'dtype'}, device=p.device)"
            if self.host[node]
            else text
        )

    def _reduction(self, node: Node) -> str:
        value, more = self.text(node.args[0], ATOM), "".join(f", {self._as_tensor(arg)}" for arg in node.args[1:])
        if node.value == "window":
            self.helpers.add(f"window_{node.op}")
            return f"window_{node.op}({self.text(node.args[0])}{more})"
        whole, left = node.args[0].type.extent, node.value
        dims = (
            None
            if left.level != "array"
            else tuple(d for d, a, b in ((-2, whole.rows, left.rows), (-1, whole.cols, left.cols)) if a != 1 and b == 1)
        )
        if node.op in ("count", "quantile"):
            self.helpers.add(node.op)
            return f"{node.op}({self.text(node.args[0])}{more}, {dims})"
        if dims is None:
            return f"{value}.{node.op}()"
        return f"{value}.{node.op}({dims[0] if len(dims) == 1 else dims}, keepdim=True)"


def _reachable(roots: Sequence[Node], leaves: Mapping[Node, str]) -> list[Node]:
    """What must be computed, operands first; what is already there is not entered."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in leaves:
                stack.extend((arg, False) for arg in reversed(node.args))
    return order


def _common(a: Path, b: Path) -> Path:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return a[:length]


def _number(value: float | bool) -> tuple[str, float]:
    if isinstance(value, bool):
        return str(value), ATOM
    if math.isnan(value):
        return "math.nan", ATOM
    if math.isinf(value):
        return ("math.inf", ATOM) if value > 0 else ("-math.inf", UNARY)
    return repr(value), ATOM if value >= 0 else UNARY
