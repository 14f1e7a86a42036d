"""Steps with values per model that are taken again: kernels reduce, the host computes what parameters share, kernels write it.

Only sums, means and extremes of all parameters, and states per model: what else has to be found out goes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from optlang import ir, philox
from optlang.backends.arrays import read
from optlang.backends.base import Loss, Repeat, Write
from optlang.backends.numbers import Numbers, settled
from optlang.backends.repeat import Counts, Hypers, Known, Tables
from optlang.backends.singles import Singles
from optlang.backends.torch.barriers import question, values_inside
from optlang.backends.torch.work import Pass
from optlang.backends.watch import Unseen
from optlang.ir import Node
from optlang.meaning import OVER_VALUES
from optlang.philox import MODEL_STREAM
from optlang.plan import PARTIAL, Barrier

if TYPE_CHECKING:
    from optlang.backends.torch import TorchExecutable

Array = Any  # numpy.ndarray


class Values:
    """Some values per model by one function. Raises Unseen for those that take more than single numbers."""

    def __init__(self, wanted: Sequence[Node]) -> None:
        self.numbers = Numbers(wanted)
        leaves = self.numbers.leaves
        if any(node.op == "fact" for node in leaves) or any(n.type.extent.level not in ("host", "model") for n in ir.walk(wanted)):
            raise Unseen
        self.hypers, self._states = self.numbers.of("hyper"), self.numbers.of("state")
        self._marks, self._others = ([node for node in leaves if node.op in ops] for ops in (("input",), ("random", "t", "loss")))
        self._truths = [place for place, node in enumerate(wanted) if node.type.kind == "bool"]
        self.reads_loss = any(node.op == "loss" for node in leaves)

    def __call__(self, step: Given, states: Mapping[str, Any], known: Known) -> dict[Node, Any]:
        """Of the states and marks that are known, in a step."""
        given = [*settled([step.hypers[name] for name in self.hypers]), *(states[name] for name in self._states)]
        given += [known[mark] for mark in self._marks] + [step.of(node) for node in self._others]
        self.numbers.given[0] = given
        found = self.numbers.compute()[0].tolist()
        for place in self._truths:
            found[place] = bool(found[place])
        return dict(zip(self.numbers.wanted, found, strict=True))


class Given(NamedTuple):
    """What a step gives."""

    hypers: Mapping[str, Any]
    t: int
    seed: int
    loss: Loss | None

    def of(self, node: Node) -> float:
        match node.op:
            case "random":
                distribution, site = node.value
                return float(philox.draw(distribution, (), self.t, site, self.seed, MODEL_STREAM))
            case "loss":
                assert self.loss is not None
                found = self.loss()
                return float(found.item() if isinstance(found, Tensor) and found.is_floating_point() else read(found).reshape(()))
        return self.t


@dataclass(frozen=True)
class Stage:
    """Barriers that are crossed together: `values` are what its kernels need; `counts` how many values each barrier goes over."""

    values: Values
    tables: Tables
    barriers: Sequence[Barrier]
    counts: Sequence[int]

    def reduced(self, answers: Array) -> dict[Node, float]:
        """The values of marks, from what each parameter contributes."""
        columns = np.ascontiguousarray(answers.T)
        values = {op: reduction(columns, -1)[:, 0].tolist() for op, reduction in self._reductions}
        each = [(mark, values[op][place], count) for place, (mark, op, count) in enumerate(self._marks)]
        return {mark: value if count is None else float(value / count) for mark, value, count in each}

    @cached_property
    def _reductions(self) -> list[tuple[str, Any]]:
        return [(op, OVER_VALUES[op]) for op in {PARTIAL[barrier.op] for barrier in self.barriers}]

    @cached_property
    def _marks(self) -> list[tuple[Node, str, np.float64 | None]]:
        """Each mark, by what it is reduced, and how many values its mean goes over."""
        some = zip(self.barriers, self.counts, strict=True)
        return [(barrier.mark, PARTIAL[barrier.op], np.float64(count) if barrier.op == "mean" else None) for barrier, count in some]


@dataclass
class Staged:
    """`states`: those per model, with what they become; `reports`: what the step tells; `groups`: those of its parameters."""

    stages: Sequence[Stage]
    last: Values
    tables: Tables
    states: Singles
    updates: Mapping[str, Node]
    reports: Mapping[str, Node]
    groups: Sequence[int]
    lacks = False

    def ready(self, hypers: Hypers, counts: Counts, seed: int, loss: Loss | None = None) -> Write | None:
        """The step of the same parameters; None where memory has changed, or values are not to be had in this way."""
        if not all(stage.tables.hold() for stage in self.stages) or not self._agree(hypers) or (self._reads_loss and loss is None):
            return None
        mine = Given(hypers[self.groups[0]], counts if isinstance(counts, int) else int(counts.max()), seed, loss)
        if (states := self.states.read()) is None:
            return None
        known: dict[Node, Any] = {}
        for stage in self.stages:
            known |= stage.values(mine, states, known)
            known |= stage.reduced(stage.tables.answers(hypers, counts, seed, known))
        known |= self.last(mine, states, known)
        write = self.tables.ready(hypers, counts, seed, known=known)
        return None if write is None else partial(self._take, write, known)

    def _take(self, write: Write, known: Mapping[Node, Any]) -> Mapping[str, Any]:
        write()
        self.states.write({name: known[node] for name, node in self.updates.items()})
        return {name: known[node] for name, node in self.reports.items()}

    def _agree(self, hypers: Hypers) -> bool:
        """Whether groups have the same settings where values per model read them."""
        first, *others = [hypers[number] for number in self.groups]
        return not others or all(other[name] == first[name] for other in others for name in self._read)

    @cached_property
    def _read(self) -> set[str]:
        return {name for values in self._values for name in values.hypers}

    @cached_property
    def _reads_loss(self) -> bool:
        return any(values.reads_loss for values in self._values)

    @property
    def _values(self) -> list[Values]:
        return [self.last, *(stage.values for stage in self.stages)]

    @property
    def numbers(self) -> list[Numbers]:
        """See `Repeat`."""
        tables = [self.tables, *(stage.tables for stage in self.stages)]
        return [*(values.numbers for values in self._values), *(numbers for one in tables for numbers in one.numbers)]

    @cached_property
    def looks(self) -> bool:
        """Whether nothing is ready as long as a cell has no gradient."""
        return any(tables.looks for tables in (self.tables, *(stage.tables for stage in self.stages)))

    def learn(self, other: Repeat) -> None:
        """There is one way only to decide such a step."""


def staged(executable: TorchExecutable, now: Pass, tables: Tables, levels: Sequence[Sequence[Barrier]]) -> Staged | None:
    """What takes the step of a pass again, if it is of such a kind. `tables`: its last kernels."""
    program, run = executable.plan.program, now.run
    crossed = [barrier for level in levels for barrier in level]
    if run is None or now.beside or not all(_is_simple(barrier) for barrier in crossed):
        return None
    updates = {name: program.updates[name] for name in executable.shared_by(run.model, run)}
    reports = program.reports or {}
    try:
        stages = []
        for number, level in enumerate(levels):
            again = executable.asked_again(*question(number, level), now)
            if again is None:
                return None
            counts = [values_inside(b.args[0], run.model, now)[1] for b in level]
            stages.append(Stage(Values(again.shared), again, level, counts))
        last = Values([*tables.shared, *updates.values(), *reports.values()])
        states = Singles(run.model.states)
    except Unseen:
        return None
    groups = list(dict.fromkeys(cell.group for cell in now.step.cells))
    return Staged(stages, last, tables, states, updates, reports, groups)


def _is_simple(barrier: Barrier) -> bool:
    return barrier.op in PARTIAL and barrier.asked is not None and barrier.value is not None and barrier.value.level == "model"
