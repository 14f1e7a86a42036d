"""Numbers that are known before the step: hypers, the step count, facts and what is computed from them, in float64.

A fact that a parameter does not have (`rows` of a vector) may be read where it does not matter: on the side of a `when`
that is not taken, or beside the `false` of an `and`. Elsewhere it is an error that names the fact.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from optlang import floats
from optlang.ir import Node, on_host, walk
from optlang.meaning import OVER_VALUES, maps, number

Scalar = float | bool
Work = tuple[Callable[..., Any], int, list[int]]  # an operator, the place of its value, and those of its operands
MAPS = maps()
FEW = 3  # times that values are computed before a function is made for them
OF_NUMBERS = {**floats.MAPS, "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv}  # quicker


class MissingFact(LookupError):
    """A fact is needed that this parameter does not have; `fact` is its name."""

    def __init__(self, fact: str) -> None:
        self.fact = fact
        super().__init__(f"`{fact}` is needed, and this parameter has none")


class Missing(NamedTuple):
    """Stands for the value of whatever depends on a fact that is not there."""

    fact: str


def combine(op: str, args: Sequence[Any]) -> Any:
    """The value of a map, `where` or `branch` from its operands, any of which may be `Missing`."""
    if op == "branch":
        return args[0] if isinstance(args[0], Missing) else args[1] if args[0] else args[2]
    lacking = [a for a in args if isinstance(a, Missing)]
    if not lacking:
        return MAPS[op](*args)
    known = [a for a in args if not isinstance(a, Missing)]
    decisive = {"and": False, "or": True}.get(op)
    if decisive is not None and known and np.all(known[0] == decisive):
        return known[0]
    if op == "where" and not isinstance(args[0], Missing):
        return _where(*args)
    return lacking[0]


def _where(condition: Any, a: Any, b: Any) -> Any:
    """`where` with a missing alternative: defined when it is nowhere chosen."""
    lost, kept = (a, b) if isinstance(a, Missing) else (b, a)
    chosen = condition if lost is a else np.logical_not(condition)
    if isinstance(kept, Missing) or np.any(chosen):
        return lost
    return np.where(chosen, np.float64(0) if kept.dtype != bool else np.bool_(False), kept)


class HostScalars:
    """Some host expressions of one program, to be evaluated again and again.

    `scalars(hypers, t, facts)` gives their values in order, as Python numbers. The last `size` different settings are
    remembered; only the hypers and facts that are read count as settings. Raises `MissingFact`, and `KeyError` for a hyper.
    """

    def __init__(self, nodes: Iterable[Node], size: int = 256) -> None:
        self.nodes = tuple(nodes)
        self._order = walk(self.nodes)
        _refuse_others(self.nodes)
        self.hypers = _leaves(self._order, "hyper")
        self.facts = _leaves(self._order, "fact")
        self.reads_t = any(node.op == "t" for node in self._order)
        slots = {node: slot for slot, node in enumerate(self._order)}
        moving = _moving(self._order)
        self._constants = [number(node.value) if node.op == "const" else None for node in self._order]
        self._given = [(node, slot) for node, slot in slots.items() if node.op in ("hyper", "fact")]
        self._t = [slot for node, slot in slots.items() if node.op == "t"]
        self._still, self._moving = ([_work(slots, moving, each, lacks) for lacks in (False, True)] for each in (False, True))
        self._places = [slots[node] for node in self.nodes]
        self._moved = [place for place, node in enumerate(self.nodes) if node in moving]
        self._computed = 0
        self._evaluate = lru_cache(size)(self._compute)
        self._settled = lru_cache(8)(self._settle)  # what `t` does not change

    def __call__(self, hypers: Mapping[str, Any], t: int, facts: Mapping[str, int]) -> tuple[Scalar, ...]:
        read_hypers = tuple(hypers[name] for name in self.hypers)
        return self._evaluate(read_hypers, t if self.reads_t else 0, tuple(facts.get(name) for name in self.facts))

    def _compute(self, hypers: tuple[Any, ...], t: int, facts: tuple[int | None, ...]) -> tuple[Scalar, ...]:
        self._computed += 1
        with np.errstate(all="ignore"):
            if self._computed > FEW and self._in_floats is not None and None not in facts:
                with suppress(*floats.NO_ANSWER):
                    return self._in_floats(*hypers, *facts, *(t,) * self.reads_t)
            settled, known = self._settled(hypers, facts)
            values = self._at(t, settled, None in facts)
        found = known.copy()
        for place in self._moved:
            found[place] = _plain(values[self._places[place]])
        return tuple(found)

    @cached_property
    def _in_floats(self) -> floats.Function | None:
        """Takes hypers, facts and `t`, those that are read."""
        leaves = {(node.op, node.value): node for node in self._order if not node.args}
        given = [leaves[op, name] for op, names in (("hyper", self.hypers), ("fact", self.facts)) for name in names]
        return floats.function(self._order, self.nodes, [*given, *(node for node in self._order if node.op == "t")])

    def _at(self, t: Any, settled: list[Any], lacks: bool) -> list[Any]:
        """All values at one `t`."""
        values = settled.copy()
        for slot in self._t:
            values[slot] = number(t)
        _fill(values, self._moving[lacks])
        return values

    def _settle(self, hypers: tuple[Any, ...], facts: tuple[int | None, ...]) -> tuple[list[Any], list[Any]]:
        """What `t` does not change: values, and those of them that are asked for."""
        leaves: dict[tuple[str, Any], Any] = {("hyper", name): value for name, value in zip(self.hypers, hypers, strict=True)}
        leaves |= {("fact", name): value for name, value in zip(self.facts, facts, strict=True)}
        values, lacks = self._constants.copy(), None in facts
        for node, slot in self._given:
            value = leaves[node.op, node.value]
            values[slot] = np.float64(value) if type(value) is float else _leaf(node, value)
        _fill(values, self._still[lacks])
        return values, [None if k in self._moved else _plain(values[place]) for k, place in enumerate(self._places)]


def _moving(order: Sequence[Node]) -> set[Node]:
    """What depends on `t`."""
    found: set[Node] = set()
    for node in order:
        if node.op == "t" or not found.isdisjoint(node.args):
            found.add(node)
    return found


def _work(slots: Mapping[Node, int], moving: set[Node], each: bool, lacks: bool) -> list[Work]:
    """What is computed of nodes that move, or of those that do not. `lacks`: facts are missing, so values may be."""
    maps = {} if lacks else OF_NUMBERS  # where nothing is missing, there is nothing to look for
    return [
        (maps[node.op] if node.op in maps else partial(_value, node), slot, [slots[arg] for arg in node.args])
        for node, slot in slots.items() if node.args and (node in moving) is each
    ]  # fmt: skip


def _fill(values: list[Any], work: Sequence[Work]) -> None:
    """Values in order, each into its place."""
    for function, place, slots in work:
        values[place] = function(*[values[slot] for slot in slots])


def _value(node: Node, *args: Any) -> Any:
    if node.op in OVER_VALUES:  # one number only: the mean of a number is the number
        lacking = next((a for a in args if isinstance(a, Missing)), None)
        return lacking or OVER_VALUES[node.op](args[0], (), *args[1:])
    return combine(node.op, args)


def _refuse_others(nodes: tuple[Node, ...]) -> None:
    known = on_host(nodes)
    for node in nodes:
        if not known[node]:
            raise ValueError(f"{node} is not known before the step")


def _leaves(order: Sequence[Node], op: str) -> tuple[str, ...]:
    return tuple(sorted({node.value for node in order if node.op == op}))


def _leaf(node: Node, value: Any) -> Any:
    """A hyper or fact as a value."""
    if value is None:
        return Missing(node.value)
    return np.bool_(value) if node.type.kind == "bool" else number(float(value) if isinstance(value, bool) else value)


def _plain(value: Any) -> Scalar:
    if isinstance(value, Missing):
        raise MissingFact(value.fact)
    plain: Scalar = value.item()
    return plain


def evaluate(node: Node, hypers: Mapping[str, Any], t: int = 1, facts: Mapping[str, int] | None = None) -> Scalar:
    """The value of one host expression. Raises `MissingFact`, and `KeyError` for a hyper that is not given."""
    return HostScalars((node,))(hypers, t, facts or {})[0]
