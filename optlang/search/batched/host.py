"""Numbers that hypers, `t` and facts decide, for many runs at once: in float64, kept in tensors that a step reads.

What depends on neither `t` nor `lr`, which a schedule may scale, is computed once. Facts differ from one shape of parameter
to the next, hypers from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optlang import host, ir
from optlang.backends.base import StepError
from optlang.host import Missing
from optlang.ir import Node
from optlang.meaning import OVER_VALUES, number
from optlang.search.batched.layout import Domain, Group, Layout

Array = Any


LR = "lr"  # the hyper that schedules write to


class Numbers:
    """Host values of one program for the runs that share it. `hypers`: float64 or bool arrays of shape [runs, 1]."""

    def __init__(self, rule: str, layout: Layout, hypers: Mapping[str, Array], runs: int, dtype: torch.dtype, t: int) -> None:
        self.rule, self.layout, self.hypers, self.runs, self.dtype, self.t = rule, layout, hypers, runs, dtype, t
        self._scale = 1.0
        self._moving: list[tuple[Node, Domain | None, Array]] = []  # with the memory of their tensors
        self._settled: dict[int, dict[Node, Any]] = {}  # values by the column of the group that they are for
        self._orders: dict[Node, list[Node]] = {}
        self._moves: dict[Node, bool] = {}

    def tensor(self, node: Node, domain: Domain | None) -> Tensor:
        """0-d, [runs, 1], or with a domain [runs, its parameters]; `advance` keeps it up to date."""
        value = self._value(node, domain)
        found = torch.tensor(value, dtype=torch.bool if node.type.kind == "bool" else self.dtype)
        if self._moves[node]:
            self._moving.append((node, domain, found.numpy()))
        return found

    def advance(self, scale: float = 1.0) -> None:
        """The next step, with `lr` times the scale."""
        self.t += 1
        self._scale = scale
        for node, domain, memory in self._moving:
            memory[...] = self._value(node, domain)

    def _value(self, node: Node, domain: Domain | None) -> Array:
        with np.errstate(all="ignore"):
            if domain is None:
                return self._at(node, None)
            columns = []
            for place in domain:
                group = self.layout.groups[place]
                columns.append(np.broadcast_to(self._at(node, group), (self.runs, group.count)))
            return np.concatenate(columns, axis=1)

    def _at(self, wanted: Node, group: Group | None) -> Array:
        """The value for one shape of parameter."""
        facts = group.facts if group is not None else {}
        values = self._settled.setdefault(group.column if group is not None else -1, {})
        for node in self._order(wanted):
            if node not in values or self._moves[node]:
                values[node] = self._leaf(node, facts) if not node.args else _combine(node, [values[a] for a in node.args])
        value = values[wanted]
        if isinstance(value, Missing):
            assert group is not None
            raise StepError(
                f"{group.names[0]}: `{value.fact}` is needed, and a parameter of shape {group.shape} has none; "
                "choose with `when rank >= 2 { … } else { … }`"
            )
        return value

    def _order(self, wanted: Node) -> list[Node]:
        if wanted not in self._orders:
            self._orders[wanted] = ir.walk([wanted])
            self._moves |= ir.fold([wanted], lambda node, args: _is_moving(node) or any(args))
        return self._orders[wanted]

    def _leaf(self, node: Node, facts: Mapping[str, int]) -> Any:
        match node.op:
            case "const":
                return number(node.value)
            case "t":
                return np.float64(self.t)
            case "hyper" if node.value == LR:
                return self.hypers[LR] * self._scale
            case "fact":
                return np.float64(facts[node.value]) if node.value in facts else Missing(node.value)
        return self.hypers[node.value]


def _is_moving(leaf: Node) -> bool:
    return leaf.op == "t" or (leaf.op == "hyper" and leaf.value == LR)


def _combine(node: Node, args: Sequence[Any]) -> Any:
    if node.op in OVER_VALUES:  # of one number: the mean of a number is the number
        lacking = next((a for a in args if isinstance(a, Missing)), None)
        return lacking or OVER_VALUES[node.op](args[0], (), *args[1:])
    if node.op == "branch" and np.size(args[0]) > 1:  # runs differ in what they choose
        lacking = next((a for a in args if isinstance(a, Missing)), None)
        return lacking or np.where(*args)
    value = host.combine(node.op, args)
    if node.op == "branch" and not isinstance(value, Missing):  # the other side may be the one that differs from run to run
        return np.broadcast_to(value, np.broadcast_shapes(*(np.shape(a) for a in args[1:] if not isinstance(a, Missing))))
    return value


def settings(program: ir.Program, given: Mapping[str, Any], runs: int) -> dict[str, Array]:
    """The hypers of a program as [runs, 1] arrays, those not given at their defaults. Raises ValueError."""
    unknown = sorted(set(given) - {h.name for h in program.hypers})
    if unknown:
        raise ValueError(f"rule `{program.name}` has no hyper `{unknown[0]}`; it has {', '.join(h.name for h in program.hypers)}")
    found: dict[str, Array] = {}
    for hyper in program.hypers:
        values = np.asarray(given.get(hyper.name, hyper.default)).reshape(-1)
        if values.size not in (1, runs):
            raise ValueError(f"rule `{program.name}`: {values.size} values of `{hyper.name}` for {runs} runs; give one for each")
        if hyper.baked and np.any(values != hyper.default):
            raise ValueError(f"rule `{program.name}`: `{hyper.name}` shapes the program; lower the rule again with another value")
        kind = np.bool_ if hyper.kind == "bool" else np.float64
        found[hyper.name] = np.broadcast_to(values.astype(kind), (runs,)).reshape(runs, 1)
    return found
