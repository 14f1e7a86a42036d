"""Steps with values per model that are taken again: kernels reduce, the host computes what parameters share, kernels write it.

Only sums, means and extremes of all parameters, and states per model: what else has to be found out goes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from optlang import ir
from optlang.backends.again.calls import Work, in_order
from optlang.backends.again.numbers import Numbers, together
from optlang.backends.again.repeat import Table, Tables, kept
from optlang.backends.again.rows import Counts, Hypers
from optlang.backends.again.singles import Reduction, Singles
from optlang.backends.again.watch import Unseen, Watches, grip
from optlang.backends.arrays import read
from optlang.backends.base import Loss, Repeat, Write
from optlang.backends.torch.barriers import count_of, inside_of, question
from optlang.backends.torch.work import Pass
from optlang.ir import Node
from optlang.philox import MASK
from optlang.plan import PARTIAL, Barrier

if TYPE_CHECKING:
    from optlang.backends.torch import TorchExecutable


@dataclass(frozen=True)
class Stage:
    """Barriers that are crossed together: `numbers` are what its kernels need; `reduction` is what becomes of their answers."""

    numbers: Numbers
    tables: Tables
    reduction: Reduction


class Row:
    """What all values per model of a step are made of. Raises Unseen where that is more than single numbers."""

    def __init__(self, numbers: Sequence[Numbers]) -> None:
        self.leaves, self.given = together(numbers)
        everything = ir.walk(node for one in numbers for node in one.wanted)
        if any(node.op == "fact" or node.type.extent.level not in ("host", "model") for node in everything):
            raise Unseen
        self._numbers = numbers[0]  # that has the same row as all of them
        self.hypers = self._numbers.hypers
        self._t, self._loss = ([place for place, node in enumerate(self.leaves) if node.op == op] for op in ("t", "loss"))
        self.reads_loss = bool(self._loss)
        self._hypers: Mapping[str, Any] | None = None  # those that were given the last time

    def place(self, leaf: Node) -> int:
        """Where the value of a leaf belongs: behind all others where nobody reads it."""
        return self.leaves.index(leaf) if leaf in self.leaves else len(self.leaves)

    def give(self, hypers: Mapping[str, Any], t: int, seed: int, loss: Loss | None) -> None:
        """What a step begins with, but for the states."""
        if hypers is not self._hypers:
            self._hypers = hypers
            self._numbers.put(0, hypers)
        for place in self._t:
            self.given[place] = t
        self.given[-1] = seed & MASK
        for place in self._loss:
            assert loss is not None
            found = loss()
            self.given[place] = found.item() if isinstance(found, Tensor) and found.is_floating_point() else read(found).reshape(())


@dataclass
class Staged:
    """`last`: what the kernels that write need, then what the states per model become, then what the step tells; `groups`: those of its
    parameters."""

    row: Row
    stages: Sequence[Stage]
    last: Numbers
    tables: Tables
    states: Singles
    reports: Mapping[str, Node]
    groups: Sequence[int]
    lacks = False

    def __post_init__(self) -> None:
        self.watch = Watches([self.states.watch, *(table.watch for table in self._each)])

    def ready(self, hypers: Hypers, counts: Counts, seed: int, loss: Loss | None = None) -> Write | None:
        """The step of the same parameters; None where memory has changed, or values are not to be had in this way."""
        keep = grip()
        if not self.watch.hold(keep) or not self._agree(hypers) or (self.row.reads_loss and loss is None):
            return None
        self.row.give(hypers[self.groups[0]], counts if isinstance(counts, int) else int(counts.max()), seed, loss)
        if isinstance(counts, int) and self._at_once is not None:
            for table in self._each:
                table.settle(hypers, counts, seed)
            self._at_once()
            return kept(keep, partial(self._take, self.tables.take))
        self.states.read()
        for stage in self.stages:
            known = stage.numbers.compute()[0]
            stage.reduction.of(stage.tables.answers(hypers, counts, seed, known))
            stage.reduction.work()
        write = self.tables.prepared(hypers, counts, seed, self.last.compute()[0])
        return None if write is None else kept(keep, partial(self._take, write))

    @cached_property
    def _each(self) -> list[Table]:
        return [table for tables in self._tables for table in tables.each]

    @cached_property
    def _at_once(self) -> Work | None:
        """All that comes before writing, where Python has no part in it."""
        done = [self.states.fetch]
        for stage in self.stages:
            table, *others = stage.tables.each
            works, answers = table.works(stage.numbers.found[0]), table.answered()
            if others or answers is None or not works:
                return None
            stage.reduction.of(answers)
            done += [stage.numbers.made, *works, stage.reduction.work]
        done.append(self.last.made)
        last = [table.works(self.last.found[0])[:-1] for table in self.tables.each]  # without the kernels, which write
        return in_order([*done, *chain.from_iterable(last)]) if self.states.are_here and all(last) else None

    def _take(self, write: Write) -> Mapping[str, Any]:
        write()
        self.states.write()
        return self._told() if self.reports else {}

    def _told(self) -> dict[str, Any]:
        found = self.last.found[0, len(self.last.wanted) - len(self.reports) :].tolist()
        pairs = zip(self.reports.items(), found, strict=True)
        return {name: bool(value) if node.type.kind == "bool" else value for (name, node), value in pairs}

    def _agree(self, hypers: Hypers) -> bool:
        """Whether groups have the same settings where values per model read them."""
        if len(self.groups) == 1:
            return True
        first, *others = [hypers[number] for number in self.groups]
        return all(other[name] == first[name] for other in others for name in self.row.hypers)

    @property
    def _tables(self) -> list[Tables]:
        return [self.tables, *(stage.tables for stage in self.stages)]

    @property
    def numbers(self) -> list[Numbers]:
        """See `Repeat`."""
        return [self.last, *(stage.numbers for stage in self.stages), *(numbers for tables in self._tables for numbers in tables.numbers)]

    @cached_property
    def looks(self) -> bool:
        """Whether nothing is ready as long as a cell has no gradient."""
        return any(tables.looks for tables in self._tables)

    def learn(self, other: Repeat) -> None:
        """There is one way only to decide such a step."""


def staged(executable: TorchExecutable, now: Pass, tables: Tables, levels: Sequence[Sequence[Barrier]]) -> Staged | None:
    """What takes the step of a pass again, if it is of such a kind. `tables`: its last kernels. Raises Unseen."""
    program, run = executable.plan.program, now.run
    if run is None or now.beside or not all(_is_simple(barrier) for level in levels for barrier in level):
        return None
    names, reports = executable.shared_by(run.model, run), program.reports or {}
    asked = [executable.asked_again(*question(number, level), now) for number, level in enumerate(levels)]
    if None in asked:
        return None
    numbers = [Numbers(again.shared) for again in asked]
    last = Numbers([*tables.shared, *(program.updates[name] for name in names), *reports.values()])
    row = Row([*numbers, last])
    stages = [
        Stage(mine, again, _reduction(row, level, [count_of(inside_of(run.model, now), b.args[0], now) for b in level]))
        for mine, again, level in zip(numbers, asked, levels, strict=True)
    ]
    read = {state.name: row.place(state.node) for state in program.states if state.name in run.model.states}
    written = {name: place for place, name in enumerate(names, len(tables.shared))}
    states = Singles(run.model.states, (row.given, read), (last.found[0], written))
    return Staged(row, stages, last, tables, states, reports, list(dict.fromkeys(cell.group for cell in now.step.cells)))


def _reduction(row: Row, level: Sequence[Barrier], counts: Sequence[int]) -> Reduction:
    """`counts`: how many values each barrier goes over."""
    shares = [float(count) if barrier.op == "mean" else 1.0 for barrier, count in zip(level, counts, strict=True)]
    return Reduction([PARTIAL[barrier.op] for barrier in level], shares, row.given, [row.place(barrier.mark) for barrier in level])


def _is_simple(barrier: Barrier) -> bool:
    return barrier.op in PARTIAL and barrier.asked is not None and barrier.value is not None and barrier.value.level == "model"
