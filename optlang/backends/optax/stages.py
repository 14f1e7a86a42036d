"""A step as stages: what every parameter adds to the values of all, these values, and then the parameters one by one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from optlang import ir
from optlang.analysis.live_states import without_dead
from optlang.backends.module.layout import indented
from optlang.backends.module.loops import Relower, rolled
from optlang.backends.optax.emitter import Emitter, Words
from optlang.backends.optax.spell import fact, kinds_of, shape_text
from optlang.ir import Node, Program, State
from optlang.ops import FACTS
from optlang.philox import MODEL_STREAM
from optlang.plan import Barrier, Plan, plan
from optlang.printing.identifiers import Names
from optlang.printing.precedence import Piece
from optlang.printing.python_text import PRODUCT, SUM
from optlang.types import Type

RESERVED = (
    "w", "g", "t", "ws", "gs", "params", "updates", "state", "tree", "init", "update", "value", "place", "dtype", "count", "jax", "jnp",
    "optax", "math", "NamedTuple", "seed", "name", "changes", "leaves", "zip", "len", "sum", "range", "max", "min", "abs", "float", "int",
    "bool", "list", "path", "label", "rules", "isinstance", "ValueError", "getattr", "weights", "fnmatchcase",
)  # fmt: skip
SHARED = ("group", "model")
CHANGES: dict[str, Callable[[Piece], str]] = {  # how new weights become what is added to them
    "": lambda piece: piece.text, "minus": lambda piece: f"-{piece.inside(PRODUCT)}", "less w": lambda piece: f"{piece.inside(SUM)} - w",
}  # fmt: skip
SIZES = {
    "element": "w.size", "row": "w.size // w.shape[-1]", "col": "w.size // w.shape[-2]", "matrix": "w.size // w.shape[-1] // w.shape[-2]",
}  # fmt: skip


class Parts:
    """One program, ready to be written: its plan, names, loops."""

    def __init__(self, program: Program, relower: Relower | None) -> None:
        short, loops, self.counts = rolled(without_dead(program), relower)
        if any(node.type.extent.level in SHARED for loop in loops.values() for node in ir.walk([loop.first, loop.turn, *loop.outer])):
            short, loops, self.counts = without_dead(program), {}, {}
        self.plan: Plan = plan(short)
        self.program = self.plan.program
        self.names = Names(RESERVED)
        self.hypers = self.names.short([h.name for h in program.hypers])
        self.states = self.names.short([s.name for s in self.program.states])
        self.inputs = {i.name: self.names.fresh(i.name.rpartition(".")[2]) for i in program.inputs}
        self.reports = {name: self.names.fresh(name) for name in self.program.reports or {}}
        self.lists = {word: self.names.fresh(f"{word}s") for word in (*self.states.values(), *self.inputs.values())}
        everything = [*self.program.all_roots(), *(a for b in self.plan.barriers.values() for a in b.args)]
        everything += [b.asked for b in self.plan.barriers.values() if b.asked is not None]
        everything += [n for loop in loops.values() for n in (loop.first, loop.turn, *loop.outer)]
        everything += [f(s, self.program) for s in self.program.states for f in (started, updated)]
        self.everything = ir.walk(everything)
        self.draws = any(node.op == "random" for node in self.everything)
        table = dict(zip(short.all_roots(), self.program.all_roots(), strict=True))
        named = [(label.rpartition(".")[2], node) for label, node in reversed(short.names) if node.args or node in loops]
        labels = {table.get(node, node): label for label, node in named}
        self.names.promise(labels[node] for node in self.everything if node in labels)
        for name, node in self.program.updates.items():
            if node.args:
                labels.setdefault(node, f"{self.states[name]}_new")
        counted = {mark: replace(loop, count=self.hypers.get(loop.count, loop.count)) for mark, loop in loops.items()}
        inner = {started(s, self.program): self.states[s.name] for s in self.program.states if s.guard is not None}
        inner |= {updated(s, self.program): f"{self.states[s.name]}_new" for s in self.program.states}
        inner |= {node: name for name, node in self.program.inner}
        self.words = Words(labels, inner, kinds_of(self.everything), counted, self._draw)
        self.own = [s for s in self.program.states if s.type.extent.level not in SHARED]
        self.shared = [s for s in self.program.states if s.type.extent.level in SHARED]
        self.own_inputs = [i for i in self.program.inputs if i.type.extent.level not in SHARED]
        self.shared_inputs = [i for i in self.program.inputs if i.type.extent.level in SHARED]

    def _draw(self, node: Node) -> str:
        distribution, site = node.value
        shared = node.type.extent.level in SHARED
        place, dtype = (str(MODEL_STREAM), "dtype") if shared else ("place", "w.dtype")
        return f'_draw("{distribution}", {site}, {place}, t, seed, {shape_text(node.type.extent)}, {dtype})'


class Stage:
    """The body of one function over all parameters: `init`, `update` or the weights to evaluate with."""

    def __init__(self, parts: Parts, stored: bool) -> None:
        self.parts, self.stored = parts, stored
        self.names = parts.names.copy()
        self.lines: list[str] = []
        self.lists: set[str] = set()  # of the values of all parameters that are needed
        known: dict[Node, Piece] = {ir.T: Piece("t"), ir.LOSS: Piece("value")}
        known |= {ir.hyper(h.name, h.kind): Piece(parts.hypers[h.name]) for h in parts.program.hypers}
        known |= {s.node: Piece(f"state.{parts.states[s.name]}") for s in parts.shared}
        known |= {ir.input_(i.name, i.type): Piece(parts.inputs[i.name]) for i in parts.shared_inputs}
        self.body = Emitter(replace(parts.words, dtype="dtype"), self.names, known)

    def cross(self, wanted: Sequence[Node]) -> None:
        """Computes the values of all parameters that some expressions wait for."""
        for level in self.parts.plan.levels(wanted, [(None,) * len(self.parts.plan.conditions)]):
            asked = [b for b in level if b.asked is not None and b.args[0].type.extent.level != "group"]
            results = self._asked(asked) if asked else {}
            for barrier in level:
                self._gather(barrier, results)

    def _asked(self, barriers: Sequence[Barrier]) -> dict[Node, str]:
        """What each parameter contributes, as lists by the marks of the barriers."""
        targets = [self.names.fresh(f"{b.op}s") for b in barriers]
        nodes = [b.asked for b in barriers if b.asked is not None]
        self.each("parts", "What a parameter adds to the values of all.", nodes, targets, [node.type for node in nodes])
        return {b.mark: target for b, target in zip(barriers, targets, strict=True)}

    def _gather(self, barrier: Barrier, results: dict[Node, str]) -> None:
        arg, found = barrier.args[0], results.get(barrier.mark, "")
        if arg.type.extent.level == "group":  # there is one group
            [piece] = self.body.compute([arg if barrier.op != "count" else ir.const(1)])
        else:
            share = [p.text for p in self.body.compute(list(barrier.args[1:]))]
            piece = Piece(self._reduced(barrier, found, share))
        self.body.known[barrier.mark] = piece
        self.body._name(barrier.mark, piece)
        self._flush()

    def _reduced(self, barrier: Barrier, found: str, share: list[str]) -> str:
        extent = barrier.args[0].type.extent
        size = f"len(_runs(w, {extent.run}))" if extent.run else SIZES.get(extent.left, "")
        count = f"sum({size} for w in ws)" if extent.level == "array" else "len(ws)"
        match barrier.op:
            case "sum":
                return f"sum({found})"
            case "mean":
                return f"sum({found}) / {count}"
            case "count":
                return count
            case "quantile":
                return f"_quantile(jnp.concatenate([jnp.ravel(x) for x in {found}]), {share[0]})"
        return f"jnp.{barrier.op[1:]}(jnp.stack({found}))"

    def shared_values(self, nodes: Iterable[Node]) -> None:
        """Statements for the values per group and model that expressions of one parameter read."""
        needed: dict[Node, None] = {}
        stack, seen = list(nodes), set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node.type.extent.level in SHARED:
                needed[node] = None
            else:
                loop = self.parts.words.loops.get(node)
                stack += node.args if loop is None else [loop.first, loop.turn, *loop.outer]
        wanted = [node for node in reversed(needed) if node not in self.body.known]
        for node, piece in zip(wanted, self.body.compute(wanted), strict=True):
            if node.args and not piece.text.isidentifier():
                self.body._name(node, piece)
        self._flush()

    def _flush(self) -> None:
        self.lines += self.body.lines
        self.body.lines = []

    def each(
        self, name: str, about: str, nodes: Sequence[Node], targets: Sequence[str], wanted: Sequence[Type], change: str = ""
    ) -> None:
        """A function of one parameter, called for all: `targets` are lists of its results."""
        self.shared_values(nodes)
        names = self.names.copy()
        inner = Emitter(self.parts.words, names, {**self.body.known, **self._leaves()})
        found = [inner.shaped(p, n, t) for p, n, t in zip(inner.compute(list(nodes)), nodes, wanted, strict=True)]
        pieces = [CHANGES[change](found[0]), *(p.inside(0) for p in found[1:])]
        text = "\n".join([*inner.lines, *pieces])
        facts = [f"{word} = {fact(word).text}" for word in FACTS if word not in ("rank", "numel") and _mentions(text, word)]
        arguments = [(word, where) for word, where in self._arguments() if _mentions(text, word)]
        if not any(word == "w" for word, _ in arguments):
            arguments.insert(0, ("w", "ws"))
        self.lists |= {where for _, where in arguments}
        call = self.names.fresh(name)
        self.lines += ["", f"def {call}({', '.join(word for word, _ in arguments)}):", f'    """{about}"""']
        self.lines += indented([*facts, *inner.lines, *_returned(pieces)])
        many = f"[{targets[0]}]" if len(targets) == 1 else ", ".join(targets)
        self.lines += ["", f"{many} = _each({len(targets)}, {call}, {', '.join(where for _, where in arguments)})"]

    def _leaves(self) -> dict[Node, Piece]:
        """What the function of one parameter calls its values."""
        parts = self.parts
        leaves = {ir.W: Piece("w"), ir.G: Piece("g")} | {ir.fact(name): Piece(name) for name in FACTS}
        leaves |= {ir.fact("rank"): fact("rank"), ir.fact("numel"): fact("numel")}
        leaves |= {s.node: Piece(parts.states[s.name]) for s in parts.own} | {absent(s): Piece("optax.MaskedNode()") for s in parts.own}
        return leaves | {ir.input_(i.name, i.type): Piece(parts.inputs[i.name]) for i in parts.own_inputs}

    def _arguments(self) -> list[tuple[str, str]]:
        """Every argument that such a function may have, with the list of its values."""
        found = [("w", "ws"), ("g", "gs")]
        words = [self.parts.states[s.name] for s in self.parts.own if self.stored]
        words += [self.parts.inputs[i.name] for i in self.parts.own_inputs]
        found += [(word, self.parts.lists[word]) for word in words]
        return [*found, ("place", "range(len(ws))")]

    def shared_roots(self, nodes: Sequence[Node]) -> list[str]:
        """The texts of values per model."""
        found = [p.text for p in self.body.compute(list(nodes))]
        self._flush()
        return found


def _returned(pieces: Sequence[str]) -> list[str]:
    one = f"return {', '.join(pieces)}" if len(pieces) > 1 else f"return ({pieces[0]},)"
    return [one] if len(one) < 110 else ["return (", *(f"    {piece}," for piece in pieces), ")"]


def _mentions(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w.\"]){re.escape(word)}\b", text) is not None


def updated(state: State, program: Program) -> Node:
    """The new value of a state; what stands for one that a parameter does not have stays."""
    node = program.updates[state.name]
    return node if state.guard is None else ir.branch(state.guard, node, state.node)


def started(state: State, _program: Program) -> Node:
    """The first value of a state, or what stands for one that a parameter does not have."""
    return state.init if state.guard is None else ir.branch(state.guard, state.init, absent(state))


def absent(state: State) -> Node:
    """A leaf that is no value."""
    return ir.input_("absent", state.type)
