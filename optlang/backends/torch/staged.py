"""Steps with values per model, or that ask the model, taken again: kernels reduce and hand out points, the host computes what parameters
share, the model answers, kernels write it.

Only sums, means and extremes of all parameters, states per model, inputs and questions element by element: the rest goes the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from optlang.backends.base import NOTHING_GIVEN, Cell, Given, Repeat, Write
from optlang.backends.outputs import handed_out, is_handed_out
from optlang.backends.repeated.calls import Whole, in_order
from optlang.backends.repeated.new_tensors import Column, Points, Weights
from optlang.backends.repeated.numbers import Numbers
from optlang.backends.repeated.rows import Counts, Hypers, Row
from optlang.backends.repeated.singles import Reduction, Singles
from optlang.backends.repeated.tables import Table, Tables, kept
from optlang.backends.repeated.watch import Watches, grip
from optlang.backends.torch.barriers import count_of, inside_of, question
from optlang.backends.torch.questions import Asked, Input, Question
from optlang.backends.torch.work import TorchStep, computing
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import PARTIAL, Barrier, Plan
from optlang.types import ELEMENT, Type

if TYPE_CHECKING:
    from optlang.backends.torch.executable import TorchExecutable


PER_ELEMENT = Type("real", ELEMENT)
Piece = tuple[Callable[[], None], Asked | None]  # what is done, and what the model is asked then


@dataclass(frozen=True)
class Stage:
    """Barriers that are crossed together: `numbers` are what its kernels need; `reduction` is what becomes of the numbers that they answer,
    and `questions` of the points."""

    numbers: Numbers
    tables: Tables
    reduction: Reduction
    questions: Sequence[Question] = ()


@dataclass
class Staged:
    """`last`: what the kernels that write need, then what the states per model become, then what the step tells; `groups`: those of its
    parameters; `weights`: theirs, where the model is asked of them."""

    row: Row
    stages: Sequence[Stage]
    last: Numbers
    tables: Tables
    states: Singles
    reports: Mapping[str, Node]
    groups: Sequence[int]
    inputs: Sequence[Input] = ()
    weights: Weights | None = None
    lacks = False

    def __post_init__(self) -> None:
        self._settled: Hypers | None = None  # those that tables know
        moved = [] if self.weights is None else [self.weights.watch]
        self.watch = Watches([self.states.watch, *moved, *(table.watch for table in self._each)])

    def ready(self, hypers: Hypers, counts: Counts, seed: int, given: Given = NOTHING_GIVEN) -> Write | None:
        """The step of the same parameters; None where memory has changed, or values are not to be had in this way."""
        keep = grip()
        held = [keep, *(one.point(given.inputs) for one in self.inputs)]  # by what writes, until it is gone
        if None in held[1:] or not self.watch.hold(keep) or not self._agree(hypers) or (self._needs_batch and given.batch is None):
            return None
        self.row.give(hypers[self.groups[0]], counts if isinstance(counts, int) else int(counts.max()), seed, given.batch)
        self._settle(hypers, counts, seed)
        quick = self._quick if isinstance(counts, int) else None
        for work, asked in quick[0] if quick else self._pieces(hypers, counts, seed):
            if asked is not None and given.batch is not None:
                if (found := asked.ask(given.batch, work, keep)) is None:
                    return None
                held += found
            else:
                work()
        return kept(held, quick[1] if quick else self._prepared(hypers, counts, seed))

    def _settle(self, hypers: Hypers, counts: Counts, seed: int) -> None:
        """Tables that read neither `t` nor draw are as they were where settings are."""
        if isinstance(counts, int):
            for table in self._each if hypers is not self._settled else self._changing:
                table.settle(hypers, counts, seed)
        self._settled = hypers if isinstance(counts, int) else None

    def _pieces(self, hypers: Hypers, counts: Counts, seed: int) -> Iterator[Piece]:
        """All that comes before the last kernels."""
        self.states.read()
        for stage, asked in zip(self.stages, self._asked, strict=True):
            yield partial(self._cross, stage, hypers, counts, seed), asked

    def _cross(self, stage: Stage, hypers: Hypers, counts: Counts, seed: int) -> None:
        stage.reduction.of(stage.tables.answers(hypers, counts, seed, stage.numbers.compute()[0]))
        stage.reduction.work()

    @cached_property
    def _needs_batch(self) -> bool:
        return self.row.reads_loss or any(stage.questions for stage in self.stages)

    @cached_property
    def _each(self) -> list[Table]:
        return [table for tables in self._tables for table in tables.each]

    @cached_property
    def _changing(self) -> list[Table]:
        return [table for table in self._each if table.draws or table.own_rows.reads_t]

    @cached_property
    def _asked(self) -> list[Asked | None]:
        """What each stage asks the model. Looked at again is what kernels read before the next question, but for weights, which were
        looked at when they were put back."""
        found, but = list[Asked | None](), [] if self.weights is None else self.weights.tensors
        read = [self.states.watch, *(table.watch for table in self.tables.each)]
        for stage in reversed(self.stages):
            found.append(Asked(stage.questions, Watches(read, but)) if stage.questions else None)
            read = [*([] if stage.questions else read), *(table.watch for table in stage.tables.each)]
        return found[::-1]

    @cached_property
    def _quick(self) -> tuple[list[Piece], Whole] | None:
        """The same where Python has no part in it: one call up to each question, and one that does the rest and writes."""
        done, pieces = [self.states.fetch], list[Piece]()
        for stage, asked in zip(self.stages, self._asked, strict=True):
            table, *others = stage.tables.each
            works, answers = table.works(stage.numbers.found[0]), table.answered()
            if others or answers is None or not works:
                return None
            stage.reduction.of(answers)
            done += [stage.numbers.made, *works, stage.reduction.work]
            if asked is not None:
                pieces.append((in_order(done), asked))
                done = []
        last = self.tables.works(self.last.found[0])
        if not (last and self.states.are_here):
            return None
        return pieces, Whole([*done, self.last.made, *last, *self.states.writing], self._told if self.reports else None)

    def _prepared(self, hypers: Hypers, counts: Counts, seed: int) -> Write | None:
        """What comes after the last question, in the long way."""
        write = self.tables.prepared(hypers, counts, seed, self.last.compute()[0])
        return None if write is None else partial(self._take, write)

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
        return [*(stage.tables for stage in self.stages), self.tables]

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


def staged(executable: TorchExecutable, now: TorchStep, tables: Tables, levels: Sequence[Sequence[Barrier]]) -> Staged | None:
    """What takes the step of a pass again, if it is of such a kind. `tables`: its last kernels. Raises Unseen."""
    plan, run = executable.plan, now.run
    if run is None or now.beside or not all(_is_simple(barrier) for level in levels for barrier in level):
        return None
    names, reports = executable.shared_by(run.model, run), plan.program.reports or {}
    asked = [executable.asked_again(*question(number, level), now) for number, level in enumerate(levels)]
    if None in asked:
        return None
    numbers = [Numbers(again.shared) for again in asked]
    last = Numbers([*tables.shared, *(plan.program.updates[name] for name in names), *reports.values()])
    row = Row([*numbers, last])
    if any(leaf.op == "input" and leaf not in plan.barriers for leaf in row.leaves):
        return None
    weights = Weights([work.cell.weights for work in now.works]) if any(b.op in CALLS for level in levels for b in level) else None
    stages = []
    for place, (mine, again, level) in enumerate(zip(numbers, asked, levels, strict=True)):
        questions = [] if weights is None else _questions(level, again, [*asked[place + 1 :], tables], weights, row, now)
        stages.append(Stage(mine, again, _reduction(level, row, now), questions))
    read = {state.name: row.place(state.node) for state in plan.program.states if state.name in run.model.states}
    written = {name: place for place, name in enumerate(names, len(tables.shared))}
    states = Singles(run.model.states, (row.given, read), (last.found[0], written))
    groups = list(dict.fromkeys(cell.group for cell in now.step.cells))
    return Staged(row, stages, last, tables, states, reports, groups, _inputs(plan, [*asked, tables], now.step.cells), weights)


def _reduction(level: Sequence[Barrier], row: Row, now: TorchStep) -> Reduction:
    """What becomes of the numbers that kernels answer."""
    assert now.run is not None
    some = [barrier for barrier in level if barrier.op not in CALLS]
    inside = inside_of(now.run.model, now) if some else []
    shares = [float(count_of(inside, barrier.args[0], now)) if barrier.op == "mean" else 1.0 for barrier in some]
    return Reduction([PARTIAL[barrier.op] for barrier in some], shares, row.given, [row.place(barrier.mark) for barrier in some])


def _questions(
    level: Sequence[Barrier], asking: Tables, reading: Sequence[Tables], weights: Weights, row: Row, now: TorchStep,
) -> list[Question]:  # fmt: skip
    """What becomes of the points that kernels hand out."""
    found = []
    for place, barrier in enumerate(level):
        if barrier.op in CALLS:
            points = Points(handed_out(place, PER_ELEMENT), asking, weights, computing(weights.dtype))
            types = [work.marks[barrier.mark].dtype for work in now.works if barrier.op != "loss_at"]
            answer = Column(barrier.mark, reading, weights.tensors, types) if types else None
            found.append(Question(barrier.op, points, answer, row.given, row.place(barrier.mark)))
    return found


def _inputs(plan: Plan, tables: Sequence[Tables], cells: Sequence[Cell]) -> list[Input]:
    """What tables read that neither kernels nor the model make."""
    new = dict.fromkeys(node for some in tables for table in some.each for node in table.new)
    return [Input(node, tables, cells) for node in new if node not in plan.barriers and not is_handed_out(node)]


def _is_simple(barrier: Barrier) -> bool:
    """Whether it is crossed once for the model: by a reduction, or by a question of which kernels hand out the points."""
    if barrier.asked is None:
        return False
    if barrier.op in CALLS:
        return barrier.asked.type == PER_ELEMENT
    return barrier.op in PARTIAL and barrier.value is not None and barrier.value.level == "model"
