"""Programs as `.opt` text: `parse` and `lower` give the same program back.

Equations have no order, so only their place matters: a name stands in the innermost block around all its uses. Calls are
written out, dotted names get underscores, and draws count as written anew.
"""

from __future__ import annotations

import re
from collections import Counter

from optlang import ir
from optlang.ir import Node, Program, State
from optlang.ops import BUILTINS, CONSTANTS, FACTS, OPS
from optlang.printing.identifiers import numbered
from optlang.printing.opt_expressions import declared, leaf, number, operation
from optlang.printing.precedence import Piece

Turn = tuple[Node, bool]
Path = tuple[Turn, ...]
LONG = 100
TAKEN = frozenset([
    *BUILTINS, *FACTS, *CONSTANTS, *OPS, "w", "g", "t", "true", "false", "loss", "rule", "def", "route",
    "from", "import", "hyper", "int", "bool", "input", "state", "per", "in", "every", "when", "else", "repeat", "return", "use",
    "otherwise", "report", "eval", "not", "and", "or", "named", "dtype", "element", "row", "col", "matrix", "tensor", "group", "model",
])  # fmt: skip


def to_opt(program: Program, by_hand: bool = False) -> str:
    """The text of a rule with this meaning. `by_hand`: as a person writes it, with `1 - beta` wherever it is read, and with `m'`
    for what is read after it was kept in `m`, and `1e-8`."""
    text = _Rule(program, by_hand).text()
    return re.sub(r"(\de-)0(\d)", r"\1\2", text) if by_hand else text


class _Rule:
    def __init__(self, program: Program, by_hand: bool = False) -> None:
        self.program, self.by_hand = program, by_hand
        self.taken = set(TAKEN)
        self.hypers = {h.name: self.fresh(h.name) for h in program.hypers}
        self.inputs = {i.name: self.fresh(i.name) for i in program.inputs}
        self.states = {s.name: self.fresh(s.name) for s in program.states}
        self.homes = {s.name: _home(s, program.updates[s.name]) for s in program.states}
        self.roots: list[tuple[str, Node, Path]] = [
            *((f"{self.states[s.name]}'", self.homes[s.name][1], self.homes[s.name][0]) for s in program.states),
            ("w'", program.weights, ()),
            *((f"report {name}", node, ()) for name, node in (program.reports or {}).items()),
        ]
        self.order = ir.walk([node for _, node, _ in self.roots])
        self.paths = self._places()
        self.uses = Counter(arg for node in self.order for arg in node.args)
        self.uses.update(node for _, node, _ in self.roots)
        self.kept = self._kept() if by_hand else {}
        self.labels = {node: name for name, node in reversed(program.names) if node.args}
        self.pieces: dict[Node, Piece] = {}
        self.lines: list[tuple[Path, str]] = []

    def fresh(self, wish: str) -> str:
        base = re.sub(r"\W", "_", wish)
        base = base if re.match(r"[^\W\d]", base) else f"x{base}"
        name = numbered(base, self.taken)
        self.taken.add(name)
        return name

    def _kept(self) -> dict[Node, str]:
        """The new values of states that are read elsewhere, and can be by the names of these."""
        ends = [(s, self.homes[s.name][1]) for s in reversed(self.program.states) if s.guard is None and not s.type.window]
        return {
            end: f"{self.states[s.name]}'"
            for s, end in ends
            if end.args and end.op != "branch" and end.type == s.type and self.uses[end] > 1
        }

    def _places(self) -> dict[Node, Path]:
        """For each expression the innermost block around all its uses."""
        paths: dict[Node, Path] = {}

        def use(node: Node, path: Path) -> None:
            paths[node] = _common(paths[node], path) if node in paths else path

        for _, node, path in self.roots:
            use(node, path)
        for node in reversed(self.order):
            path = paths[node]
            for place, arg in enumerate(node.args):
                inside = (*path, (node.args[0], place == 1)) if node.op == "branch" and place else path
                use(arg, inside)
        return paths

    # ---------------------------------------------------------------------------------------------------- text

    def text(self) -> str:
        p = self.program
        for s in p.states:
            window = f"[{s.type.window}]" if s.type.window else ""
            per = declared(s.type.extent)
            self.lines.append((self.homes[s.name][0], f"state {self.states[s.name]}{window}{per} = {self.written_out(s.init)}"))
        for node in self.order:
            self._define(node)
        for target, node, path in self.roots:
            if self.kept.get(node) != target:
                self.lines.append((path, f"{target} = {self.pieces[node].text}"))
        if p.evaluation is not None:
            self.lines.append(((), f"eval = {self.written_out(p.evaluation, stored=True)}"))
        head = [self._hyper(h) for h in p.hypers]
        head += [f"input {self.inputs[i.name]} per {i.type.extent.left}{_doc(i.doc)}" for i in p.inputs]
        body = [*head, *self._block((), list(self.lines))]
        return "\n".join([f"rule {p.name}{_doc(p.doc)} {{", *(f"  {line}" for line in body), "}"]) + "\n"

    def _hyper(self, h: ir.Hyper) -> str:
        kind = "" if h.kind == "real" else f"{h.kind} "
        low_high = "" if h.bounds is None else " in {}{}, {}{}".format(
            "(" if h.bounds.low_open else "[", number(h.bounds.low).text, number(h.bounds.high).text, ")" if h.bounds.high_open else "]"
        )  # fmt: skip
        return f"hyper {kind}{self.hypers[h.name]} = {number(h.default).text}{low_high}{_doc(h.doc)}"

    def _block(self, path: Path, lines: list[tuple[Path, str]]) -> list[str]:
        """The statements of a block, deeper ones inside their `when`."""
        found = [text for place, text in lines if place == path]
        deeper: dict[Node, list[tuple[Path, str]]] = {}
        for place, text in lines:
            if place != path:
                deeper.setdefault(place[len(path)][0], []).append((place, text))
        for condition, inside in deeper.items():
            sides = [self._block((*path, (condition, side)), [x for x in inside if x[0][len(path)][1] == side]) for side in (True, False)]
            found += [f"when {self.pieces[condition].text} {{", *(f"  {line}" for line in sides[0]), "}"]
            if sides[1]:
                found[-1] = "} else {"
                found += [*(f"  {line}" for line in sides[1]), "}"]
        return found

    # --------------------------------------------------------------------------------------------- expressions

    def _define(self, node: Node) -> None:
        if node.op == "branch":
            name = self.fresh(self.labels.get(node, "x"))
            for side in (True, False):
                self.lines.append(((*self.paths[node], (node.args[0], side)), f"{name} = {self.pieces[node.args[2 - side]].text}"))
            self.pieces[node] = Piece(name)
            return
        piece = self.piece(node, [self.pieces[arg] for arg in node.args])
        self.pieces[node] = piece
        if node in self.kept:
            self.lines.append(((), f"{self.kept[node]} = {piece.text}"))
            self.pieces[node] = Piece(self.kept[node])
            return
        computed = bool(node.args) or node.op == "random"
        if self.by_hand and node.args and all(arg.op in ("hyper", "const") for arg in node.args):
            return
        if computed and (node in self.labels or self.uses[node] > 1 or node.op == "random" or len(piece.text) > LONG):
            name = self.fresh(self.labels.get(node, "x"))
            self.lines.append((self.paths[node], f"{name} = {piece.text}"))
            self.pieces[node] = Piece(name)

    def written_out(self, root: Node, stored: bool = False) -> str:
        """An expression without names. `stored`: states and weights mean their new values."""
        pieces: dict[Node, Piece] = {}
        for node in ir.walk([root]):
            piece = self.piece(node, [pieces[arg] for arg in node.args])
            pieces[node] = Piece(f"{piece.text}'") if stored and node.op in ("state", "w") else piece
        return pieces[root].text

    def piece(self, node: Node, args: list[Piece]) -> Piece:
        """One operator over the texts of its operands."""
        return operation(node, args) if node.args else leaf(node, self.hypers, self.states, self.inputs)


def _home(s: State, update: Node) -> tuple[Path, Node]:
    """The block that a state with a guard is declared in, and its new value there."""
    path: list[Turn] = []
    guard: Node | None = None
    value = update
    while s.guard is not None and guard is not s.guard and value.op == "branch":
        condition, yes, no = value.args
        side = no is s.node
        turn = condition if side else ir.make("not", (condition,))
        guard = turn if guard is None else ir.make("and", (guard, turn))
        path.append((condition, side))
        value = yes if side else no
    return (tuple(path), value) if guard is s.guard else ((), update)


def _common(a: Path, b: Path) -> Path:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return a[:length]


def _doc(text: str) -> str:
    plain = " ".join(text.replace('"', "'").split())
    return f' "{plain}"' if plain else ""
