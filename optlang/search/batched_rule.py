"""One step of a rule for many copies of a model at once, each with its own hypers: the evaluator of the search.

Every value lies in a tensor whose first dimension counts the runs: per element in one row for the whole model, [runs, numel]
(see `batched_layout`), per parameter [runs, parameters], per model [runs, 1], rows, columns and matrices [runs, k, …] for the
k parameters of one shape. A rule is walked once, when it is bound to tensors; what remains is a list of torch calls that
write into tensors made beforehand, so a step costs little beside its arithmetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import StepError
from optlang.backends.interpreter import MATRIX_OPS
from optlang.backends.places import is_special, shape_of
from optlang.host import MissingFact, evaluate
from optlang.ir import Node, Program
from optlang.live import without_dead
from optlang.plan import is_gathering
from optlang.search.batched_host import LR, Numbers, settings
from optlang.search.batched_layout import Domain, Group, Layout, block, cut
from optlang.search.batched_ops import MAPS, REDUCTIONS, joined, reshaped
from optlang.types import ELEMENT

Key = tuple[Node, Domain]
Value = Tensor | list[Tensor]  # a list: one tensor for each group of the domain, for values per row, column or matrix
REASONS = {
    "grad": "asks for gradients at other points, which a batch of runs does not compute",
    "hvp": "asks for products with the Hessian, which a batch of runs does not compute",
    "loss": "reads the loss, which a batch of runs does not give it",
    "input": "needs values from the training loop, which a batch of runs does not have",
    "random": "draws random numbers, whose stream belongs to one run",
}


class Refused(ValueError):
    """A program that cannot run for many models at once; the message says why."""


def refuses(program: Program) -> str:
    """Why a program cannot run for many models at once, or an empty string."""
    if program.evaluation is not None:
        return "evaluates other weights than it trains"
    for node in ir.walk(program.all_roots()):
        if node.op in REASONS:
            return REASONS[node.op]
        if node.type.window:
            return "remembers a window of values, which only whole optimizers do"
        if node.type.extent.level == "group":
            return "has values per group, and the parameters of a run are not in groups; say `per model`"
    return ""


def compile_batched(program: Program) -> BatchedRule:
    """The rule of a program for many models at once. Raises Refused."""
    reason = refuses(program)
    if reason:
        raise Refused(f"rule `{program.name}` {reason}")
    return BatchedRule(without_dead(program))


@dataclass(frozen=True, eq=False)
class BatchedRule:
    """A rule before it meets tensors."""

    program: Program

    def bind(self, layout: Layout, weights: Tensor, gradients: Tensor, hypers: Mapping[str, Any] | None = None) -> Bound:
        """The rule on flat weights and gradients, [runs, numel] each, which are read and written where they are.

        `hypers`: one value for all runs, or one for each; those not given have their defaults. Raises StepError where a
        vector meets what needs a matrix, ValueError for hypers that do not fit.
        """
        bound = _Writer(self.program, layout, weights, gradients, hypers or {}, 0).bound()
        bound.start()
        return bound


@dataclass(eq=False)
class Bound:
    """A rule with its tensors. `states` by name: in a list where there is one tensor for each group of parameters."""

    program: Program
    layout: Layout
    weights: Tensor
    gradients: Tensor
    hypers: Mapping[str, Any]
    states: dict[str, Value]
    numbers: Numbers
    starts: list[Callable[[], Any]]
    calls: list[Callable[[], Any]]

    @property
    def t(self) -> int:
        """Steps taken."""
        return self.numbers.t

    @torch.no_grad()
    def start(self) -> None:
        """Gives the states their values before the first step."""
        for call in self.starts:
            call()

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """One update of the weights and states of all runs, with `lr` times the scale."""
        self.numbers.advance(scale)
        for call in self.calls:
            call()

    @torch.no_grad()
    def kept(self, runs: Tensor, weights: Tensor, gradients: Tensor) -> Bound:
        """The same rule for some of the runs (their numbers), on their weights and gradients in other tensors."""
        hypers = {name: value[runs.numpy()] for name, value in self.hypers.items()}
        fewer = _Writer(self.program, self.layout, weights, gradients, hypers, self.t).bound()
        for name, state in self.states.items():
            for new, old in zip(_listed(fewer.states[name]), _listed(state), strict=True):
                new.copy_(old[runs])
        return fewer


def _deep(x: Tensor, dims: int) -> Tensor:
    """With dimensions of size 1 behind."""
    return x.reshape(*x.shape, *(1,) * (dims - x.ndim))


def _listed(value: Value) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


@dataclass(eq=False)
class _Schedule:
    """What is computed where, in an order in which it may be, and how often each value is still to be read."""

    order: list[Key] = field(default_factory=list)
    needs: dict[Key, list[Key]] = field(default_factory=dict)
    uses: Counter[Key] = field(default_factory=Counter)


class _Writer:
    """Walks a program once and writes the calls of a step."""

    def __init__(
        self, program: Program, layout: Layout, weights: Tensor, gradients: Tensor, hypers: Mapping[str, Any], t: int
    ) -> None:
        self.program, self.layout, self.weights, self.gradients = program, layout, weights, gradients
        self.runs, self.dtype = weights.shape[0], weights.dtype
        roots = program.all_roots()
        self.known = ir.on_host(roots)
        self.hypers = settings(program, hypers, self.runs)
        self.same = {name: value[0].item() for name, value in self.hypers.items() if name != LR and (value == value[0]).all()}
        self.static = ir.is_static(roots, frozenset(self.same))
        self.reads_facts = ir.fold(roots, lambda node, args: node.op == "fact" or any(args))
        self.numbers = Numbers(program.name, layout, self.hypers, self.runs, self.dtype, t)
        self.domains = {s.name: self._guarded(s) for s in program.states}
        self.states = {s.name: self._empty_state(s) for s in program.states if self.domains[s.name]}
        self.values: dict[Key, Value] = {}
        self.calls: list[Callable[[], Any]] = []
        self.pool: dict[tuple[int, torch.dtype], list[Tensor]] = {}
        self.pooled: set[int] = set()

    def bound(self) -> Bound:
        kept = [s for s in self.program.states if s.name in self.states]
        starts = self._written({s.name: s.init for s in kept}, None)
        calls = self._written({s.name: self.program.updates[s.name] for s in kept}, self.program.weights)
        return Bound(
            self.program, self.layout, self.weights, self.gradients, self.hypers, self.states, self.numbers, starts, calls
        )

    def _guarded(self, state: ir.State) -> Domain:
        """The parameters that have a state."""
        if state.guard is None:
            return self.layout.all
        if not self.static[state.guard]:
            names = " and ".join(f"`{n.value}`" for n in ir.walk([state.guard]) if n.op == "hyper")
            raise ValueError(f"rule `{self.program.name}`: {names} decides what is remembered; give all runs of a batch the same")
        return self._where(state.guard, self.layout.all)[0]

    def _empty_state(self, state: ir.State) -> Value:
        return self._fresh(state.node, self.domains[state.name])

    def _written(self, states: Mapping[str, Node], weights: Node | None) -> list[Callable[[], Any]]:
        """The calls that compute new states and weights and write them where they belong."""
        self.values, self.calls, self.pool, self.pooled = {}, [], {}, set()
        targets: list[tuple[Key, Value, Node]] = [
            (self._home(node, self.domains[name]), self.states[name], self._state(name)) for name, node in states.items()
        ]
        if weights is not None:
            targets.append((self._home(weights, self.layout.all), self.weights, ir.W))
        self.schedule = self._scheduled([key for key, _, _ in targets])
        self.direct = {key: (value, leaf) for key, value, leaf in targets if key[0] is not leaf}
        for key in self.schedule.order:
            self.values[key] = self._settled(key)
            self._consume(key)
        self._write_back(targets)
        return self.calls

    def _state(self, name: str) -> Node:
        return next(s.node for s in self.program.states if s.name == name)

    # ------------------------------------------------------------------------------------------- what and where

    def _home(self, node: Node, domain: Domain) -> Key:
        """Values of the whole model, and numbers without facts, are there once."""
        whole = node.type.extent.level in ("host", "model") or (self.known[node] and not self.reads_facts[node])
        return node, self.layout.all if whole else domain

    def _scheduled(self, roots: Sequence[Key]) -> _Schedule:
        found = _Schedule()
        stack = [(key, False) for key in reversed(roots)]
        done: set[Key] = set()
        while stack:
            key, ready = stack.pop()
            if ready:
                done.add(key)
                found.order.append(key)
            elif key not in found.needs:
                found.needs[key] = self._needs(key, done)
                found.uses.update(found.needs[key])
                stack.append((key, True))
                stack.extend((need, False) for need in reversed(found.needs[key]))
        found.uses.update(roots)
        return found

    def _needs(self, key: Key, done: set[Key]) -> list[Key]:
        """What must be computed before; of what is there for all parameters already, a part is taken."""
        node, domain = key
        if self.known[node] or not node.args:
            return []
        if domain != self.layout.all and (node, self.layout.all) in done:
            return [(node, self.layout.all)]
        if self._chooses(node):
            sides = zip(self._where(node.args[0], domain), node.args[1:], strict=True)
            return [self._home(arg, part) for part, arg in sides if part]
        return [self._home(arg, self.layout.all if is_gathering(node) else domain) for arg in node.args]

    def _chooses(self, node: Node) -> bool:
        """Whether a choice is decided parameter by parameter before the first step."""
        return node.op in ("branch", "where") and self.static[node.args[0]]

    def _where(self, condition: Node, domain: Domain) -> tuple[Domain, Domain]:
        """The parts of a domain where a static condition holds, and where not."""
        truths = {place: self._truth(condition, place) for place in domain}
        return tuple(p for p in domain if truths[p]), tuple(p for p in domain if not truths[p])

    def _truth(self, condition: Node, place: int) -> bool:
        group = self.layout.groups[place]
        try:
            return bool(evaluate(condition, self.same, 1, group.facts))
        except MissingFact as missing:
            raise StepError(self._needs_matrix(group, f"`{missing.fact}`")) from None

    # ------------------------------------------------------------------------------------------- tensors

    def _consume(self, key: Key) -> None:
        """A value's operands have been read; tensors that nothing reads any more are used again."""
        for need in self.schedule.needs[key]:
            self.schedule.uses[need] -= 1
            value = self.values[need]
            if not self.schedule.uses[need] and isinstance(value, Tensor) and id(value) in self.pooled:
                self.pool.setdefault((value.shape[1], value.dtype), []).append(value)
        self.schedule.needs[key] = []

    def _pin(self, key: Key) -> None:
        """Its memory is shared with another value: never to be used again."""
        self.schedule.uses[key] += 1

    def _fresh(self, node: Node, domain: Domain) -> Value:
        """A tensor for a value."""
        extent, dtype = node.type.extent, torch.bool if node.type.kind == "bool" else self.dtype
        if extent.level in ("host", "model"):
            return torch.empty(self.runs, 1, dtype=dtype)
        if extent.level == "tensor":
            return torch.empty(self.runs, self.layout.count(domain), dtype=dtype)
        if extent == ELEMENT:
            return torch.empty(self.runs, self.layout.width(domain), dtype=dtype)
        groups = [self.layout.groups[place] for place in domain]
        return [torch.empty(self.runs, g.count, *shape_of(extent, g.shape), dtype=dtype) for g in groups]

    def _room(self, key: Key) -> Value:
        """A tensor for a value of which each element depends on the same element of the operands, which may lie in it."""
        node, domain = key
        self._consume(key)
        target, leaf = self.direct.get(key, (None, None))
        if target is not None and leaf is not None and node.type.extent == leaf.type.extent == ELEMENT and self._is_free(leaf):
            return target
        if node.type.extent != ELEMENT:
            return self._fresh(node, domain)
        kind = (self.layout.width(domain), torch.bool if node.type.kind == "bool" else self.dtype)
        if self.pool.get(kind):
            return self.pool[kind].pop()
        room = self._fresh(node, domain)
        self.pooled.add(id(room))
        return room

    def _is_free(self, leaf: Node) -> bool:
        """Whether nothing reads the old value any more."""
        return not any(self.schedule.uses[key] for key in self.schedule.uses if key[0] is leaf)

    # ------------------------------------------------------------------------------------------- one value

    def _settled(self, key: Key) -> Value:
        node, domain = key
        if self.known[node]:
            return self.numbers.tensor(node, domain if self.reads_facts[node] else None)
        needs = self.schedule.needs[key]
        if is_special(node.type.extent) or node.op in MATRIX_OPS:
            self._want_matrices(node, domain)
        if needs and needs[0][0] is node:
            return self._part(needs[0], domain)
        if self._chooses(node):
            return self._joined(key, needs)
        if node.op in MAPS:
            return self._map(key, needs)
        if node.op in REDUCTIONS:
            return self._reduction(key, needs)
        if needs:
            return self._matrix(key, needs)
        return self._leaf(key)

    def _leaf(self, key: Key) -> Value:
        node, domain = key
        if node.op == "eye":
            eyes = self._fresh(node, domain)
            for block in _listed(eyes):
                block.copy_(torch.eye(block.shape[-1], dtype=self.dtype))
            return eyes
        if node.op == "state":
            return self._cut(self.states[node.value], node, self.domains[node.value], domain)
        return self._cut(self.weights if node.op == "w" else self.gradients, node, self.layout.all, domain)

    def _part(self, whole: Key, domain: Domain) -> Value:
        self._pin(whole)
        return self._cut(self.values[whole], whole[0], whole[1], domain)

    def _cut(self, value: Value, node: Node, whole: Domain, domain: Domain) -> Value:
        """What a value has for a part of its domain: a view, or a copy where the part is scattered."""
        if whole == domain or node.type.extent.level in ("host", "model"):
            return value
        wanted = [whole.index(place) for place in domain]
        if isinstance(value, list):
            return [value[number] for number in wanted]
        spans = self.layout.places(whole) if node.type.extent.level == "tensor" else self.layout.columns(whole)
        found = cut(value, spans, wanted)
        if isinstance(found, list):
            room = torch.empty(self.runs, sum(piece.shape[1] for piece in found), dtype=value.dtype)
            self.calls.append(partial(torch.cat, found, 1, out=room))
            return room
        return found

    def _joined(self, key: Key, needs: Sequence[Key]) -> Value:
        """A choice by facts: each side where it is taken."""
        node, domain = key
        sides = [part for part in self._where(node.args[0], domain) if part]
        if len(needs) == 1 and needs[0][0].type.extent == node.type.extent and not self.known[needs[0][0]]:
            self._pin(needs[0])
            value = self.values[needs[0]]
            return value if isinstance(value, list) else value.view_as(value)
        room = self._fresh(node, domain)
        for place in domain:
            number = next(n for n, part in enumerate(sides) if place in part)
            source = self._block(needs[number], sides[number], place, node)
            self.calls.append(partial(self._block_of(room, node, domain, place).copy_, source))
        return room

    def _map(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        function = MAPS[node.op]
        wide = [n for n in needs if n[0].type.extent.level not in ("host", "model") or self.reads_facts[n[0]]]
        alike = all(n[0].type.extent == node.type.extent and not self.known[n[0]] for n in wide)
        if node.type.extent.level != "array" or (node.type.extent == ELEMENT and alike):
            operands = self._literal(node, [self.values[n] for n in needs])
            room = self._room(key)
            self.calls.append(partial(function, *operands, out=room))
            return room
        blocks = [self._literal(node, [self._block(n, domain, place, node) for n in needs]) for place in domain]
        room = self._room(key)
        for place, operands in zip(domain, blocks, strict=True):
            self.calls.append(partial(function, *operands, out=self._block_of(room, node, domain, place)))
        return room

    def _literal(self, node: Node, operands: list[Any]) -> list[Any]:
        """Constant exponents are quicker as plain numbers."""
        if node.op == "pow" and node.args[1].op == "const":
            operands[1] = node.args[1].value
        return operands

    def _block(self, key: Key, domain: Domain, place: int, like: Node) -> Tensor:
        """A value for one group of a domain, to be broadcast against a value of `like` there."""
        node = key[0]
        value = self.values[key]
        if isinstance(value, list) or node.type.extent.level == "array":
            return self._block_of(value, node, domain, place)
        dims = len(shape_of(like.type.extent, self.layout.groups[place].shape))
        if value.ndim == 0:
            return value
        if node.type.extent.level == "tensor" and (not self.known[node] or self.reads_facts[node]):
            start, end = self.layout.places(domain)[domain.index(place)]
            value = value[:, start:end]
        return _deep(value, 2 + dims)

    def _block_of(self, value: Value, node: Node, domain: Domain, place: int) -> Tensor:
        """A value's part for one group: [runs, k, …], sharing memory."""
        number, group = domain.index(place), self.layout.groups[place]
        if isinstance(value, list):
            return value[number]
        if node.type.extent.level == "tensor":
            start, end = self.layout.places(domain)[number]
            return value[:, start:end]
        start, end = self.layout.columns(domain)[number]
        return block(value[:, start:end], group)

    # ------------------------------------------------------------------------------------------- reductions, matrices

    def _reduction(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        room = self._fresh(node, domain)
        function, share = REDUCTIONS[node.op], [self.values[n] for n in needs[1:]]
        if node.type.extent.level == "model":
            flat = self._row(needs[0])
            self.calls.append(partial(function, flat, (1,), *share, out=room))
            return room
        for place in domain:
            x = self._block(needs[0], needs[0][1], place, node.args[0])
            more = [self._block(n, n[1], place, node) for n in needs[1:]]
            out = self._block_of(room, node, domain, place)
            if node.type.extent.level == "tensor":
                x = x if x.ndim > 2 else x.unsqueeze(-1)
                dims = tuple(range(2, x.ndim))
                out, more = _deep(out, x.ndim), [m if m.ndim == 0 else _deep(m, x.ndim) for m in more]
            else:
                extent = node.type.extent
                dims = tuple(x.ndim + axis for axis, size in ((-2, extent.rows), (-1, extent.cols)) if size == 1)
            self.calls.append(partial(function, x, dims, *more, out=out))
        return room

    def _row(self, key: Key) -> Tensor:
        """A value of all parameters as [runs, values]."""
        value = self.values[key]
        if isinstance(value, Tensor):
            return value.expand(self.runs, 1) if value.ndim == 0 else value
        room = torch.empty(self.runs, sum(part[0].numel() for part in value), dtype=self.dtype)
        self.calls.append(partial(joined, value, out=room))
        return room

    def _want_matrices(self, node: Node, domain: Domain) -> None:
        for group in (self.layout.groups[place] for place in domain):
            if len(group.shape) < 2:
                raise StepError(self._needs_matrix(group, f"`{node.op}` per {node.type.extent}"))

    def _needs_matrix(self, group: Group, what: str) -> str:
        return (
            f"{group.names[0]} has shape {group.shape}, but rule `{self.program.name}` needs a matrix (rank 2 or more) for {what}; "
            "choose inside the rule with `when rank >= 2 { … } else { … }`"
        )

    def _matrix(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        blocks = [[self._block(n, domain, place, n[0]) for n in needs] for place in domain]
        if node.op == "matmul":
            room = self._fresh(node, domain)
            for place, (a, b) in zip(domain, blocks, strict=True):
                self.calls.append(partial(torch.matmul, a, b, out=self._block_of(room, node, domain, place)))
            return room
        if node.op == "as_param":
            return self._restored(node, domain, [block for (block,) in blocks])
        self._pin(needs[0])
        if node.op == "transpose":
            views = [block.mT for (block,) in blocks]
        else:
            views = [block.flatten(3) if block.ndim > 3 else block for (block,) in blocks]
        return self._gathered(node, domain, views)

    def _restored(self, node: Node, domain: Domain, blocks: Sequence[Tensor]) -> Value:
        room = self._fresh(node, domain)
        for place, part in zip(domain, blocks, strict=True):
            out = self._block_of(room, node, domain, place)
            self.calls.append(partial(reshaped, part, out=out))
        return room

    def _gathered(self, node: Node, domain: Domain, views: list[Tensor]) -> Value:
        """Views as a value; what has the shape of the parameter lies in rows again."""
        if node.type.extent != ELEMENT:
            return views
        room = self._fresh(node, domain)
        for place, view in zip(domain, views, strict=True):
            self.calls.append(partial(self._block_of(room, node, domain, place).copy_, view))
        return room

    # ------------------------------------------------------------------------------------------- results

    def _write_back(self, targets: Sequence[tuple[Key, Value, Node]]) -> None:
        """What was not computed in its place is copied there, after a copy of what lies in another's place."""
        stored = {t.untyped_storage().data_ptr() for _, target, _ in targets for t in _listed(target)}
        late = [(key, target, leaf) for key, target, leaf in targets if self.values[key] is not target]
        sources = []
        for key, _, _ in late:
            value = self.values[key]
            if any(t.untyped_storage().data_ptr() in stored for t in _listed(value)):
                value = self._copied(value)
            sources.append(value)
        for (key, target, leaf), value in zip(late, sources, strict=True):
            self.values[key] = value
            self._assign(target, leaf, key)

    def _copied(self, value: Value) -> Value:
        rooms = [torch.empty_like(block) for block in _listed(value)]
        self.calls += [partial(room.copy_, block) for room, block in zip(rooms, _listed(value), strict=True)]
        return rooms if isinstance(value, list) else rooms[0]

    def _assign(self, target: Value, leaf: Node, key: Key) -> None:
        value, node = self.values[key], key[0]
        domain = self.domains[leaf.value] if leaf.op == "state" else self.layout.all
        coarse = node.type.extent.level in ("host", "model") or (self.known[node] and not self.reads_facts[node])
        if isinstance(target, Tensor) and isinstance(value, Tensor) and (coarse or node.type.extent == leaf.type.extent):
            self.calls.append(partial(target.copy_, value))
            return
        for place in domain:
            source = self._block(key, domain, place, leaf)
            self.calls.append(partial(self._block_of(target, leaf, domain, place).copy_, source))
