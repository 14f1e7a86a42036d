"""Expressions as statements of JAX, in order, under the conditions of their blocks.

Blocks that facts, whole numbers or truths decide become an `if`, others that hold matrix work a `jax.lax.cond`, so that it is only
done when it is due; the rest chooses element by element with `jnp.where`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from optlang import ir
from optlang.backends.module.layout import indented
from optlang.backends.module.scene import Loop
from optlang.backends.module.wishes import name_of
from optlang.backends.optax.spell import Kinds, shape_text, size_text, spell
from optlang.ir import Node
from optlang.printing.identifiers import Names
from optlang.printing.precedence import Piece
from optlang.printing.python_text import literal, ternary
from optlang.types import Type

LONG = 90
COSTLY = frozenset(["matmul", "eigenvectors", "orthonormal", "inverse", "descending"])


@dataclass(frozen=True)
class Words:
    """What all stretches of one module share."""

    labels: Mapping[Node, str]
    inner: Mapping[Node, str]  # what others are called inside blocks and functions
    kinds: Kinds
    loops: Mapping[Node, Loop]
    draw: Callable[[Node], str]
    dtype: str = "w.dtype"


class Emitter:
    """One stretch of code. `known` are the texts of what is there already, `assumed` the conditions of the blocks around it."""

    def __init__(self, words: Words, names: Names, known: Mapping[Node, Piece], assumed: Mapping[Node, bool] | None = None) -> None:
        self.words, self.names = words, names
        self.known = dict(known)
        self.assumed = dict(assumed or {})
        self.lines: list[str] = []
        self.uses: Counter[Node] = Counter()
        self.blocks: set[Node] = set()

    def compute(self, roots: Sequence[Node]) -> list[Piece]:
        """The texts of expressions, after the statements that they need."""
        self.uses = Counter(roots)
        self.uses.update(arg for node in self._order(roots, lazily=False) for arg in self._operands(node))
        pending = self._order(roots, lazily=True)
        self.blocks = {node for node in pending if self._is_block(node)}
        for place, node in enumerate(pending):
            if node in self.known:
                continue
            if node in self.blocks:
                self._block(node, pending[place:])
            else:
                self._plain(node)
        return [self.known[root] for root in roots]

    # ------------------------------------------------------------------------------------------------- what is needed

    def _operands(self, node: Node) -> tuple[Node, ...]:
        if node in self.known:
            return ()
        if node in self.words.loops:
            loop = self.words.loops[node]
            return (loop.first, *loop.outer)
        truth = self._truth(node.args[0]) if node.op == "branch" else None
        return node.args if truth is None else (node.args[1] if truth else node.args[2],)

    def _truth(self, condition: Node) -> bool | None:
        """What the blocks around say of a condition."""
        if condition.op == "not":
            inner = self._truth(condition.args[0])
            return None if inner is None else not inner
        return self.assumed.get(condition)

    def _order(self, roots: Sequence[Node], lazily: bool) -> list[Node]:
        """Operands first. `lazily`: blocks are not entered."""

        def operands(node: Node) -> Sequence[Node]:
            return (_positive(node),) if lazily and self._is_block(node) else self._operands(node)

        return ir.walk(roots, operands)

    def _is_block(self, node: Node) -> bool:
        if node.op != "branch" or node in self.known or self._truth(node.args[0]) is not None:
            return False
        if self.words.kinds.static[node.args[0]]:
            return not self.words.kinds.static[node]
        return any(n.op in COSTLY for n in self._order(node.args[1:], lazily=False) if n not in self.known)

    # --------------------------------------------------------------------------------------------------------- blocks

    def _block(self, first: Node, pending: Sequence[Node]) -> None:
        """All blocks of one condition at once, after everything that needs none of them."""
        condition = _positive(first)
        together = [n for n in pending if n in self.blocks and _positive(n) is condition and n not in self.known]
        waits = {n for n in pending if n in self.blocks and n not in self.known}
        for node in pending:
            if node in waits or any(arg in waits for arg in self._operands(node)):
                waits.add(node)
            elif node not in self.known and node not in self.blocks:
                self._plain(node)
        write = self._if if self.words.kinds.static[condition] else self._cond
        write(condition, together)

    def _sides(self, condition: Node, together: Sequence[Node], targets: Sequence[str]) -> list[tuple[list[str], list[Piece]]]:
        """Statements and values of both sides; a name of one may be that of another thing in the other."""
        found = []
        for side in (True, False):
            names = self.names.copy()
            names.taken |= set(targets)
            inner = Emitter(self.words, names, self.known, {**self.assumed, condition: side})
            nodes = [n.args[1 if side == (n.args[0] is condition) else 2] for n in together]
            values = inner.compute(nodes)
            found.append((inner.lines, [self.shaped(v, n, b.type) for v, n, b in zip(values, nodes, together, strict=True)]))
        return found

    def _targets(self, together: Sequence[Node]) -> list[str]:
        trial = self.names.copy()
        return [trial.fresh(self._wish(n), n in self.words.labels) for n in together]

    def _done(self, together: Sequence[Node], targets: Sequence[str]) -> None:
        self.names.taken |= set(targets)
        self.known |= {n: Piece(target) for n, target in zip(together, targets, strict=True)}

    def _if(self, condition: Node, together: Sequence[Node]) -> None:
        test, targets = self.known[condition], self._targets(together)
        (lines, values), (other_lines, others) = self._sides(condition, together, targets)
        if not lines and not other_lines:
            for node, value, other in zip(together, values, others, strict=True):
                self._settle(node, ternary(test, value, other))
            return
        self.lines += [f"if {test.text}:", *indented([*lines, *_assigned(targets, values)])]
        self.lines += ["else:", *indented([*other_lines, *_assigned(targets, others)])]
        self._done(together, targets)

    def _cond(self, condition: Node, together: Sequence[Node]) -> None:
        targets = self._targets(together)
        trial = self.names.copy()
        trial.taken |= set(targets)
        calls = []
        for (lines, values), called in zip(self._sides(condition, together, targets), ("due", "otherwise"), strict=True):
            types = ["bool" if node.type.kind == "bool" else self.words.dtype for node in together]  # both sides must be of one
            result = ", ".join(f"jnp.asarray({v.text}, {type_})" for v, type_ in zip(values, types, strict=True))
            if lines:
                calls.append(trial.fresh(called))
                self.lines += ["", f"def {calls[-1]}():", *indented([*lines, f"return {result}"]), ""]
            else:
                calls.append(f"lambda: {result if len(values) == 1 else f'({result})'}")
        self.names.taken |= {call for call in calls if call.isidentifier()}
        self.lines.append(f"{', '.join(targets)} = jax.lax.cond({self.known[condition].text}, {', '.join(calls)})")
        self._done(together, targets)

    def shaped(self, piece: Piece, node: Node, wanted: Type) -> Piece:
        """A value in the full shape and number type of what it is for."""
        if node.op in ("const", "w") and wanted.extent.level == "array":
            return self._first(node, wanted)
        if wanted.extent.level == "array" and node.type.extent != wanted.extent:
            inner = shape_text(wanted.extent)
            shape = f"({wanted.window}, *{inner})" if wanted.window else inner
            return Piece(f"jnp.broadcast_to({piece.inside(0)}, {shape}).astype({'bool' if wanted.kind == 'bool' else self.words.dtype})")
        if wanted.extent.level in ("host", "tensor", "model", "group") and node.type.extent.level == "host":
            return Piece(f"jnp.asarray({piece.inside(0)}, {'bool' if wanted.kind == 'bool' else self.words.dtype})")
        return piece

    def _first(self, node: Node, wanted: Type) -> Piece:
        """A value that a state starts with: an array of its own."""
        inner = shape_text(wanted.extent)
        if node.op == "w":
            return Piece("jnp.array(w)") if not wanted.window else Piece(f"jnp.array(jnp.broadcast_to(w, ({wanted.window}, *{inner})))")
        shape = f"({wanted.window}, *{inner})" if wanted.window else inner
        if node.value == 0 and not isinstance(node.value, bool):
            return Piece("jnp.zeros_like(w)" if shape == "w.shape" else f"jnp.zeros({shape}, w.dtype)")
        return Piece(f"jnp.full({shape}, {_number(node).text}, {'bool' if wanted.kind == 'bool' else 'w.dtype'})")

    # ------------------------------------------------------------------------------------------------ one expression

    def _plain(self, node: Node) -> None:
        if node in self.known:
            return
        if node in self.words.loops:
            self._loop(node, self.words.loops[node])
            return
        if node.op == "const":
            self.known[node] = _number(node)
            return
        args = self._operands(node)
        if len(args) == 1 and node.op == "branch":
            piece = self.shaped(self.known[args[0]], args[0], node.type)
            self.known[node] = piece
            if not piece.text.isidentifier():
                self._settle(node, piece)
            return
        if sum(len(self.known[arg].text) for arg in args) > LONG:
            self._shorten(args)
        self._settle(node, self._spelled(node, [self.known[arg] for arg in args]))

    def _spelled(self, node: Node, args: list[Piece]) -> Piece:
        extent = node.type.extent
        if node.op == "random":
            return Piece(self.words.draw(node))
        if node.op == "eye":
            sizes = ", ".join(size_text(dim, extent) for dim in node.value)
            return Piece(f"jnp.broadcast_to(jnp.eye({sizes}, dtype=w.dtype), {shape_text(extent)})")
        if node.op == "places":
            return Piece(f"jnp.broadcast_to(jnp.arange({size_text(node.value, extent)}, dtype=w.dtype)[:, None], {shape_text(extent)})")
        if node.type.window and extent.level == "array" and node.op != "push":
            small = [arg.type.window and arg.type.extent.level != "array" for arg in node.args]
            args = [Piece(f"{p.inside(100)}.reshape(-1, *[1] * w.ndim)") if s else p for p, s in zip(args, small, strict=True)]
        return spell(node, args, self.words.kinds)

    def _shorten(self, args: Sequence[Node]) -> None:
        longest = max(args, key=lambda arg: len(self.known[arg].text))
        if not self.known[longest].text.isidentifier():
            self._name(longest, self.known[longest])

    def _settle(self, node: Node, piece: Piece) -> None:
        """Names what is used more than once, or has a name in the rule."""
        repeated = self.uses[node] > 1 and not (self.words.kinds.static.get(node) and len(piece.text) < 14)
        if repeated or node in self.words.labels or node.op in ("random", "eye"):
            self._name(node, piece)
        else:
            self.known[node] = piece

    def _name(self, node: Node, piece: Piece) -> None:
        name = self.names.fresh(self._wish(node), node in self.words.labels)
        self.lines.append(f"{name} = {piece.text}")
        self.known[node] = Piece(name)

    def _wish(self, node: Node) -> str:
        return name_of(node, self.words.labels, self.words.inner, self.known)

    def _loop(self, node: Node, loop: Loop) -> None:
        name = self.names.fresh(self._wish(node), node in self.words.labels)
        self.lines.append(f"{name} = {self.known[loop.first].text}")
        inner = Emitter(self.words, self.names, {**self.known, loop.hole: Piece(name)}, self.assumed)
        [value] = inner.compute([loop.turn])
        self.lines += [f"for _ in range({loop.count}):", *indented([*inner.lines, f"{name} = {value.text}"])]
        self.known[node] = Piece(name)


def _positive(node: Node) -> Node:
    """The condition of a block, without a `not` before it."""
    return node.args[0].args[0] if node.args[0].op == "not" else node.args[0]


def _number(node: Node) -> Piece:
    piece = literal(node.value)
    return replace(piece, text=piece.text.replace("math.", "jnp."))


def _assigned(targets: Sequence[str], values: Sequence[Piece]) -> list[str]:
    return [f"{target} = {value.text}" for target, value in zip(targets, values, strict=True) if target != value.text]
