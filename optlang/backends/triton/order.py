"""In which order the values of an element are computed, so that few of them are alive at once: a thread has 255 registers.

A learned network reads dozens of values of each element. Computed one behind the other, all are kept until the last neuron has read them.
Here each goes into all neurons at once, before the next one is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from optlang.ir import Node


def used_at_once(nodes: Sequence[Node]) -> list[Node]:
    """The same values, operands first: behind each one what has waited for it."""
    return _Order(nodes).order


class _Order:
    """`order` grows. A term of a sum, computed of one value, is not computed before the sum takes it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = dict.fromkeys(nodes)
        self.users: dict[Node, list[Node]] = {node: [] for node in nodes}
        for node in nodes:
            for arg in dict.fromkeys(self._args(node)):
                self.users[arg].append(node)
        self.order: list[Node] = []
        self.there: set[Node] = set()
        for node in nodes:
            if not self._is_term(node):
                self._make(node)
        for node in nodes:  # terms of nothing
            self._make(node)

    def _args(self, node: Node) -> list[Node]:
        return [arg for arg in node.args if arg in self.nodes]

    def _is_term(self, node: Node) -> bool:
        return len(self.users[node]) == 1 and len(set(self._args(node))) == 1

    def _make(self, node: Node) -> None:
        """A value, and what can be computed since it is there."""
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one in self.there:
                continue
            late = [arg for arg in self._args(one) if arg not in self.there]
            if late:
                waiting += [one, *late]
                continue
            self.order.append(one)
            self.there.add(one)
            waiting += [user for user in reversed(self._takers(one)) if self._is_ready(user) and self._is_worth(user)]

    def _takers(self, node: Node) -> list[Node]:
        """Who reads a value, or a term of it."""
        return [self.users[user][0] if self._is_term(user) else user for user in self.users[node]]

    def _is_worth(self, node: Node) -> bool:
        """Whether it is part of a sum, or something is read by it for the last time."""
        if len(self.users[node]) == 1 and not self._is_term(node):
            return True
        known = [arg for arg in self._args(node) if arg in self.there]
        return any(self.there.issuperset(user for user in self.users[arg] if user is not node) for arg in known)

    def _is_ready(self, node: Node) -> bool:
        return all(arg in self.there or (self._is_term(arg) and self.there.issuperset(self._args(arg))) for arg in self._args(node))
