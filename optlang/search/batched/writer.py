"""A rule's expressions as torch calls that write into tensors made beforehand: one walk, then only calls.

Elementwise work runs over [runs, numel] for the whole model in one call where all operands lie like that, and group by group
(parameters of one shape) where values per parameter, row or column take part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.backends.base import StepError
from optlang.backends.places import shape_of
from optlang.ir import Node
from optlang.search.batched.host import Numbers
from optlang.search.batched.layout import Domain, block, cut
from optlang.search.batched.memory import Memory, Target, Value, listed
from optlang.search.batched.ops import MAPS, MATRICES, REDUCTIONS, joined
from optlang.search.batched.places import Key, Places, needs_matrix
from optlang.types import ELEMENT

Calls = list[Callable[[], Any]]


class Writer:
    """Writes the calls of one list of targets. `leaves`: weights, gradients and states, by their nodes."""

    def __init__(self, places: Places, numbers: Numbers, leaves: Mapping[Node, Value], targets: Sequence[Target]) -> None:
        self.places, self.layout, self.numbers, self.leaves, self.targets = places, places.layout, numbers, leaves, targets
        self.schedule = places.schedule([key for key, _, _ in targets])
        self.memory = Memory(self.layout, numbers.runs, numbers.dtype, self.schedule, targets)
        self.values = self.memory.values
        self.calls: Calls = []

    def written(self) -> Calls:
        """The calls of one step, in order. Raises StepError where a vector meets what needs a matrix."""
        for key in self.schedule.order:
            self.values[key] = self._settled(key)
            self.memory.consume(key)
        self._write_back()
        return self.calls

    def _settled(self, key: Key) -> Value:
        """The tensors of a value; the calls that fill them have been written."""
        node, domain = key
        if self.places.known[node]:
            return self.numbers.tensor(node, domain if self.places.reads_facts[node] else None)
        needs = self.schedule.needs[key]
        if ir.of_matrix(node):
            self._want_matrices(node, domain)
        if needs and needs[0][0] is node:
            self.memory.pin(needs[0])
            return self._cut(self.values[needs[0]], node, needs[0][1], domain)
        if self.places.chooses(node):
            return self._choice(key, needs)
        if node.op in MAPS:
            return self._map(key, needs)
        if node.op in REDUCTIONS:
            return self._reduction(key, needs)
        return self._matrix(key, needs) if needs else self._leaf(key)

    def _want_matrices(self, node: Node, domain: Domain) -> None:
        for group in (self.layout.groups[place] for place in domain):
            if len(group.shape) < 2:
                raise StepError(needs_matrix(self.places.program, group, f"`{node.op}` per {node.type.extent}"))

    # ------------------------------------------------------------------------------------------------- parts of values

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
            room = torch.empty(self.numbers.runs, sum(piece.shape[1] for piece in found), dtype=value.dtype)
            self.calls.append(partial(joined, found, out=room))
            return room
        return found

    def _block(self, value: Value, node: Node, domain: Domain, place: int) -> Tensor:
        """A value's part for one group: [runs, k, …], sharing memory."""
        number, group = domain.index(place), self.layout.groups[place]
        if isinstance(value, list):
            return value[number]
        if node.type.extent.level == "tensor":
            start, end = self.layout.places(domain)[number]
            return value[:, start:end]
        start, end = self.layout.columns(domain)[number]
        return block(value[:, start:end], group)

    def _beside(self, key: Key, place: int, like: Node) -> Tensor:
        """A value for one group of its domain, to be broadcast against the part of `like` there."""
        (node, domain), value = key, self.values[key]
        if isinstance(value, list) or node.type.extent.level == "array":
            return self._block(value, node, domain, place)
        if value.ndim == 0:
            return value
        if not self.places.is_coarse(node):
            value = self._block(value, node, domain, place)
        return _deep(value, 2 + len(shape_of(like.type.extent, self.layout.groups[place].shape)))

    # ------------------------------------------------------------------------------------------------- kinds of values

    def _leaf(self, key: Key) -> Value:
        node, domain = key
        if node.op == "eye":
            eyes = self.memory.fresh(node, domain)
            for eye in listed(eyes):
                eye.copy_(torch.eye(*eye.shape[-2:], dtype=eye.dtype))
            return eyes
        if node.op == "places":
            columns = self.memory.fresh(node, domain)
            for column in listed(columns):
                column.copy_(torch.arange(column.shape[-2], dtype=column.dtype).unsqueeze(-1))
            return columns
        whole = self.places.domains[node.value] if node.op == "state" else self.layout.all
        return self._cut(self.leaves[node], node, whole, domain)

    def _choice(self, key: Key, needs: Sequence[Key]) -> Value:
        """A choice by facts: each side where it is taken."""
        node, domain = key
        if len(needs) == 1 and needs[0][0].type.extent == node.type.extent and not self.places.known[needs[0][0]]:
            self.memory.pin(needs[0])
            value = self.values[needs[0]]
            return value if isinstance(value, list) else value.view_as(value)
        sides = [part for part in self.places.where(node.args[0], domain) if part]
        room = self.memory.fresh(node, domain)
        if self.places.is_coarse(node):  # a setting chooses, for the whole model
            self.calls.append(partial(listed(room)[0].copy_, listed(self.values[needs[0]])[0]))
            return room
        for part, (side, home) in zip(sides, needs, strict=True):
            for place in part:
                source = self._beside((side, home), place, node)
                self.calls.append(partial(self._block(room, node, domain, place).copy_, source))
        return room

    def _map(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        function = MAPS[node.op]
        alike = all(self.places.is_coarse(n) or (n.type.extent == ELEMENT and not self.places.known[n]) for n, _ in needs)
        if node.type.extent.level != "array" or (node.type.extent == ELEMENT and alike):
            operands = _literal(node, [self.values[need] for need in needs])
            room = self.memory.room(key)
            self.calls.append(partial(function, *operands, out=room))
            return room
        blocks = [_literal(node, [self._beside(need, place, node) for need in needs]) for place in domain]
        room = self.memory.room(key)
        for place, operands in zip(domain, blocks, strict=True):
            self.calls.append(partial(function, *operands, out=self._block(room, node, domain, place)))
        return room

    def _reduction(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        room = self.memory.fresh(node, domain)
        function = REDUCTIONS[node.op]
        if node.type.extent.level == "model":
            share = [self.values[need] for need in needs[1:]]
            self.calls.append(partial(function, self._row(needs[0]), (1,), *share, out=room))
            return room
        for place in domain:
            x = self._beside(needs[0], place, node.args[0])
            x = x if x.ndim > 2 else x.unsqueeze(-1)
            share = [_deep(part, x.ndim) if part.ndim else part for part in (self._beside(n, place, node) for n in needs[1:])]
            out = _deep(self._block(room, node, domain, place), x.ndim)
            self.calls.append(partial(function, x, _reduced(node, x), *share, out=out))
        return room

    def _row(self, key: Key) -> Tensor:
        """A value of all parameters as [runs, values]."""
        value = self.values[key]
        if isinstance(value, Tensor):
            return value.expand(self.numbers.runs, 1) if value.ndim == 0 else value
        room = torch.empty(self.numbers.runs, sum(part[0].numel() for part in value), dtype=self.numbers.dtype)
        self.calls.append(partial(joined, value, out=room))
        return room

    def _matrix(self, key: Key, needs: Sequence[Key]) -> Value:
        node, domain = key
        if node.op == "transpose":
            return self._views(key, needs[0], lambda x: x.mT)
        if node.op == "as_matrix":
            return self._views(key, needs[0], lambda x: x.flatten(3) if x.ndim > 3 else x)
        room = self.memory.fresh(node, domain)
        function = MATRICES[node.op]
        for place in domain:
            operands = [self._block(self.values[need], need[0], domain, place) for need in needs]
            self.calls.append(partial(function, *operands, out=self._block(room, node, domain, place)))
        return room

    def _views(self, key: Key, need: Key, view: Callable[[Tensor], Tensor]) -> Value:
        """Another view of a value; what then has the shape of the parameter is copied into rows again."""
        node, domain = key
        views = [view(self._block(self.values[need], need[0], domain, place)) for place in domain]
        if node.type.extent != ELEMENT:
            self.memory.pin(need)
            return views
        room = self.memory.fresh(node, domain)
        for place, part in zip(domain, views, strict=True):
            self.calls.append(partial(self._block(room, node, domain, place).copy_, part))
        return room

    # ------------------------------------------------------------------------------------------------- results

    def _write_back(self) -> None:
        """What was not computed in its place is copied there, after a copy of what lies in another's place."""
        stored = {part.untyped_storage().data_ptr() for _, target, _ in self.targets for part in listed(target)}
        late = [(key, target, leaf) for key, target, leaf in self.targets if self.values[key] is not target]
        sources = [self._copied(self.values[key], stored) for key, _, _ in late]
        for (key, target, leaf), source in zip(late, sources, strict=True):
            self.values[key] = source
            self._assign(target, leaf, key)

    def _copied(self, value: Value, stored: set[int]) -> Value:
        if not any(part.untyped_storage().data_ptr() in stored for part in listed(value)):
            return value
        rooms = [torch.empty_like(part) for part in listed(value)]
        self.calls += [partial(room.copy_, part) for room, part in zip(rooms, listed(value), strict=True)]
        return rooms if isinstance(value, list) else rooms[0]

    def _assign(self, target: Value, leaf: Node, key: Key) -> None:
        node, value = key[0], self.values[key]
        fits = self.places.is_coarse(node) or node.type.extent == leaf.type.extent
        if fits and isinstance(target, Tensor) and isinstance(value, Tensor):
            self.calls.append(partial(target.copy_, value))
            return
        domain = self.places.domains[leaf.value] if leaf is not ir.W else self.layout.all
        for place in domain:
            source = self._beside(key, place, leaf)
            self.calls.append(partial(self._block(target, leaf, domain, place).copy_, source))


def _deep(x: Tensor, dims: int) -> Tensor:
    """With dimensions of size 1 behind."""
    return x.reshape(*x.shape, *(1,) * (dims - x.ndim))


def _reduced(node: Node, x: Tensor) -> tuple[int, ...]:
    """The dimensions of a group's part that a reduction takes away: all of a parameter's, or rows, or columns."""
    extent = node.type.extent
    if extent.level == "tensor":
        return tuple(range(2, x.ndim))
    return tuple(x.ndim + axis for axis, size in ((-2, extent.rows), (-1, extent.cols)) if size == 1)


def _literal(node: Node, operands: list[Any]) -> list[Any]:
    """Constant exponents are quicker as plain numbers."""
    if node.op == "pow" and node.args[1].op == "const":
        operands[1] = node.args[1].value
    return operands
