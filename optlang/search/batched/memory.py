"""The tensors that the values of a step lie in. Those that nothing reads any more are used again, so that they stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optlang.backends.places import shape_of
from optlang.ir import Node
from optlang.search.batched.layout import Domain, Layout
from optlang.search.batched.places import Key, Schedule
from optlang.types import ELEMENT

Value = Tensor | list[Tensor]  # a list: one tensor for each group of the domain, for values per row, column or matrix
Target = tuple[Key, Value, Node]  # what is computed, where it belongs, and the leaf whose value that is before the step


def listed(value: Value) -> list[Tensor]:
    return value if isinstance(value, list) else [value]


class Memory:
    """For one list of calls. `values` by key, once they are computed."""

    def __init__(self, layout: Layout, runs: int, dtype: torch.dtype, schedule: Schedule, targets: Sequence[Target]) -> None:
        self.layout, self.runs, self.dtype, self.schedule = layout, runs, dtype, schedule
        self.values: dict[Key, Value] = {}
        self._direct = {key: (value, leaf) for key, value, leaf in targets if key[0] is not leaf}
        self._pool: dict[tuple[int, torch.dtype], list[Tensor]] = {}
        self._pooled: dict[int, Tensor] = {}  # by id, which no other gets while they are kept

    def consume(self, key: Key) -> None:
        """A value's operands have been read; tensors that nothing reads any more are used again."""
        for need in self.schedule.needs[key]:
            self.schedule.uses[need] -= 1
            value = self.values[need]
            if not self.schedule.uses[need] and isinstance(value, Tensor) and id(value) in self._pooled:
                self._pool.setdefault((value.shape[1], value.dtype), []).append(value)
        self.schedule.needs[key] = []

    def pin(self, key: Key) -> None:
        """Its memory is shared with another value: never to be used again."""
        self.schedule.uses[key] += 1

    def fresh(self, node: Node, domain: Domain) -> Value:
        """A tensor for a value."""
        return fresh(node, domain, self.layout, self.runs, self.dtype)

    def room(self, key: Key) -> Value:
        """A tensor for a value of which each element depends on the same element of the operands, which may lie in it."""
        node, domain = key
        self.consume(key)
        target, leaf = self._direct.get(key, (None, None))
        if target is not None and leaf is not None and node.type.extent == leaf.type.extent == ELEMENT and self._is_free(leaf):
            return target
        if node.type.extent != ELEMENT:
            return self.fresh(node, domain)
        kind = (self.layout.width(domain), torch.bool if node.type.kind == "bool" else self.dtype)
        if self._pool.get(kind):
            return self._pool[kind].pop()
        made = torch.empty(self.runs, kind[0], dtype=kind[1])
        self._pooled[id(made)] = made
        return made

    def _is_free(self, leaf: Node) -> bool:
        """Whether nothing reads the old value any more."""
        return not any(self.schedule.uses[key] for key in self.schedule.uses if key[0] is leaf)


def fresh(node: Node, domain: Domain, layout: Layout, runs: int, dtype: torch.dtype) -> Value:
    """A new tensor for a value."""
    extent, dtype = node.type.extent, torch.bool if node.type.kind == "bool" else dtype
    if extent.level in ("host", "model"):
        return torch.empty(runs, 1, dtype=dtype)
    if extent.level == "tensor":
        return torch.empty(runs, layout.count(domain), dtype=dtype)
    if extent == ELEMENT:
        return torch.empty(runs, layout.width(domain), dtype=dtype)
    groups = [layout.groups[place] for place in domain]
    return [torch.empty(runs, g.count, *shape_of(extent, g.shape), dtype=dtype) for g in groups]
