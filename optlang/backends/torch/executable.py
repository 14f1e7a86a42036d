"""The torch backend: one function for each kind of parameter, fused by `torch.compile`, on any device.

A *kind* is the decided blocks of the rule, the number types, the device, and whether rows and columns matter. One function
serves every parameter of its kind, whatever its size. Hypers, `t`, facts and values per group and model come in a small
tensor, so nothing is compiled again when they change. Small models run the same functions as they are: there, compiling
would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from optlang import ir
from optlang.backends.arrays import write
from optlang.backends.base import NOT_YET, Cell, Step, Way
from optlang.backends.device_scalars import is_on_device
from optlang.backends.formats import PLAIN, REST, Storage
from optlang.backends.outputs import Output
from optlang.backends.overflow import SCALE, unscaled_gradient
from optlang.backends.places import Place
from optlang.backends.reference.interpreter import Code, Run
from optlang.backends.repeated.library import Unseen
from optlang.backends.repeated.numbers import make
from optlang.backends.repeated.tables import same
from optlang.backends.torch.barriers import cross
from optlang.backends.torch.binding import Binding
from optlang.backends.torch.bound import Bound
from optlang.backends.torch.code import CellCode
from optlang.backends.torch.conditions import Conditions
from optlang.backends.torch.functions import COMPILE_FROM, Functions, mixed
from optlang.backends.torch.shared import SharedRun
from optlang.backends.torch.shared_states import SharedStates
from optlang.backends.torch.views import like
from optlang.backends.torch.work import TorchStep, Work, new_state
from optlang.backends.writing import write_all
from optlang.ir import Node, Program
from optlang.plan import Barrier, Plan, Truth, plan
from optlang.types import ELEMENT, Type

WEIGHTS = Type("real", ELEMENT)
STATE = attrgetter("state")


class TorchExecutable:
    """A program on torch tensors. Every method raises StepError before anything has been written."""

    def __init__(
        self, program: Program, compile_from: int = COMPILE_FROM, functions: Functions | None = None, storage: Storage = PLAIN,
        parts: bool = False, mark: str = "",
    ) -> None:  # fmt: skip
        self.plan: Plan = plan(program, parts)
        self.compile_from, self.storage = compile_from, storage
        self._conditions = Conditions(self.plan.conditions)
        self._functions = functions or Functions()
        self._bound = Binding(self.plan.program.name, self._functions, storage).bound
        self._functions.rounds, self._functions.mark = storage.products == "bf16", mark
        self._levels: dict[tuple[Truth, ...], list[list[Barrier]]] = {}
        self._needed: dict[Truth, frozenset[Node]] = {}
        roots = self.plan.program.all_roots() + [arg for b in self.plan.barriers.values() for arg in b.args]
        self._code = Code(roots)
        self._own = [s for s in self.plan.program.states if s.name not in self.plan.shared]
        self._shared = SharedStates(self.plan, self._conditions)
        self._shares = parts or bool(self._shared.states) or any(n.type.extent.level in ("group", "model") for n in ir.walk(roots))
        self._is_plain = not (self.plan.barriers or self._shares or self.plan.program.reports or self.plan.program.inputs)
        self._gradient = [unscaled_gradient()] if any(h.name == SCALE for h in program.hypers) else []  # goes where it came from
        self._ways: dict[int, Way] = {}
        self._passed: set[frozenset[Truth]] = set()  # how steps were decided of which the next was decided otherwise
        self._prepared: tuple[list[Any], list[int]] = [], []  # the cells of the last step, not kept alive, and how many states they had

    # ------------------------------------------------------------------------------------------------- steps

    @torch.no_grad()
    def prepare(self, step: Step) -> None:
        """Missing states: float32, or float64 beside such parameters; of truth values bool. See also `formats`."""
        if not (self._shared.states or step.beside) and self._is_prepared(step.cells):
            return
        for cell in (*step.cells, *step.beside) if self.storage.weights else ():
            if self.storage.is_compensated(cell.weights) and REST not in cell.state:
                cell.state[REST] = torch.zeros_like(cell.weights)
        now = self._begin(step, compiled=False) if any(s.name not in c.state for s in self._own for c in step.cells) else None
        made = [(work, self._initial(work, now)) for work in now.works] if now else []
        if self._shared.states and step.cells:
            with np.errstate(all="ignore"):
                self._shared.prepare(self._run(step), step.cells[0].weights)
        for work, states in made:
            work.cell.state.update(states)
        self._prepared = list(map(ref, step.cells)), [len(cell.state) for cell in step.cells]

    def _is_prepared(self, cells: Sequence[Cell]) -> bool:
        """Whether these are the cells of the last step, with as many states."""
        known, sizes = self._prepared
        return list(map(len, map(STATE, cells))) == sizes and same(cells, [one() for one in known])

    def _initial(self, work: Work, now: TorchStep) -> dict[str, Tensor]:
        missing = [s for s in self._own if s.name not in work.cell.state and self.plan.keeps(s, work.truth)]
        weights = work.cell.weights
        made = {s.name: new_state(s, weights) for s in missing}
        for state in missing:
            if state.init.op == "const":
                made[state.name].fill_(state.init.value)
                continue
            outputs = partial(_decided, self.plan, [state.init], work.truth, [state.node])
            code = self._functions.code(("init", state.name, work.truth, *mixed(work.cell)), weights.dtype, outputs)
            self._call(code, work, now, made)
        return self.storage.new(made, weights)

    def _run(self, step: Step) -> Run:
        kind = SharedRun if any(map(is_on_device, step.cells)) else Run
        return kind(self.plan.program.name, self._code, step)

    def shared_by(self, place: Place, run: Run) -> list[str]:
        """The states that a place has."""
        return self._shared.at(place, run)

    def step(self, step: Step) -> None:
        """One update of all cells, of the states they share, and of `step.reports`."""
        self.begin(step)()

    @torch.no_grad()
    def begin(self, step: Step) -> Callable[[], None]:
        """Crosses the barriers and gathers what the last functions need; what this returns runs them, which writes."""
        if not step.cells:
            return _nothing
        with np.errstate(all="ignore"):
            now = self._begin(step, compiled=sum(c.facts["numel"] for c in step.cells) >= self.compile_from)
            levels = self._levels_of(tuple(dict.fromkeys(work.truth for work in now.works + now.beside)))
            for number, level in enumerate(levels):
                cross(self, now, number, level)
            shared = self._shared.updates(now.run) if now.run else []
            reports = self._reports(now)
            calls = self._final(now)
            ways = [self._functions.way(x, now.compiled, self.compile_from) for x in calls]  # compiles kernels: writing is not interrupted
        if step.comes_again and not is_on_device(step.cells[0]):
            self._expect(step, now, calls, levels)

        @torch.no_grad()
        def finish() -> None:
            self._ways.update((cell.index, way) for cell, way in zip(step.cells, ways, strict=True))
            step.left = write_all(calls, step.cells, lambda some: self._functions.run_all(some, now.compiled))
            for target, value in shared:
                write(target, value)
            step.reports.update(reports)

        return finish

    def _expect(self, step: Step, now: TorchStep, calls: Sequence[Bound], levels: Sequence[Sequence[Barrier]]) -> None:
        """Finds what takes the same step again, if another one is like it. What is kept for that takes as long as it saves."""
        if self._passes(step, now):
            step.passes = True
            return
        with suppress(Unseen):
            again: Any = self._functions.tables(step.cells, calls, now.compiled)
            now.run = now.run or self._run(step)
            if again and not self._is_plain:
                from optlang.backends.torch.staged import staged  # noqa: PLC0415 - with the first rule that needs it

                again = staged(self, now, again, levels)
            if again and self._conditions.changing:
                from optlang.backends.torch.decided import Decided  # noqa: PLC0415

                again = Decided(again, self._conditions.changing, step.cells)
            make(again.numbers if again else ())
            step.again = again

    def _passes(self, step: Step, now: TorchStep) -> bool:
        """Whether the next step will be decided otherwise, and none was decided like this one before."""
        decided = frozenset(work.truth for work in now.works)
        if not self._conditions.changing or decided in self._passed:
            return False
        from optlang.backends.torch.decided import lasts  # noqa: PLC0415

        if lasts(self._conditions.changing, step.cells):
            return False
        self._passed.add(decided)
        return True

    def _begin(self, step: Step, compiled: bool) -> TorchStep:
        run = self._run(step) if self._shares else None
        places = [None] * len(step.cells) if run is None else run.model.cells
        others = () if run is None else run.model.beside.get("tensor", ())
        truths = self._conditions.truths(step.cells)
        works = [Work(cell, truth, place) for cell, truth, place in zip(step.cells, truths, places, strict=True)]
        beside = [Work(place.cell, self._conditions.truth(place.cell), place) for place in others if place.cell is not None]
        return TorchStep(step, works, beside, run, compiled)

    def _levels_of(self, truths: tuple[Truth, ...]) -> list[list[Barrier]]:
        """The barriers that parameters of such conditions need crossed."""
        if not self.plan.barriers:
            return []
        if truths not in self._levels:
            program = self.plan.program
            roots = [program.weights, *(program.updates[s.name] for s in self._own)]
            found = [root for truth in truths for root in self.plan.decided(roots, truth)]
            found += [*(program.updates[s.name] for s in self._shared.states), *(program.reports or {}).values()]
            self._levels[truths] = self.plan.levels(found, truths)
        return self._levels[truths]

    def takes_part(self, work: Work) -> frozenset[Node]:
        """The marks of the barriers that ask a parameter for something."""
        if work.truth not in self._needed:
            roots = [self.plan.program.weights, *(self.plan.program.updates[s.name] for s in self._own if self.plan.keeps(s, work.truth))]
            self._needed[work.truth] = self.plan.needed(roots, work.truth)
        return self._needed[work.truth]

    def _final(self, now: TorchStep) -> list[Bound]:
        """What writes the new weights and states of each parameter."""
        codes: dict[Any, CellCode] = {}
        calls = []
        for work in now.works:
            kind = work.truth, work.cell.weights.dtype, mixed(work.cell)
            if kind not in codes:
                codes[kind] = self._final_code(*kind)
            calls.append(self._bound(codes[kind], work, now, work.cell.state))
        return calls

    def _final_code(self, truth: Truth, dtype: torch.dtype, more: tuple[str, ...]) -> CellCode:
        program = self.plan.program
        states = [s for s in self._own if self.plan.keeps(s, truth)]
        roots = [program.weights, *(program.updates[s.name] for s in states), *self._gradient]
        targets = [ir.W, *(s.node for s in states), *(ir.G for _ in self._gradient)]
        return self._functions.code(
            ("final", truth, *more), dtype, partial(_decided, self.plan, roots, truth, targets), partial(_named, self.plan, truth)
        )

    def _reports(self, now: TorchStep) -> dict[str, Any]:
        reports = self.plan.program.reports or {}
        if not reports:
            return {}
        run = now.run or self._run(now.step)
        found = {name: run([(node, run.model)])[0] for name, node in reports.items()}
        return found if isinstance(run, SharedRun) else {name: value.item() for name, value in found.items()}

    def way(self, index: int) -> Way:
        """How the parameter was stepped the last time."""
        return self._ways.get(index, NOT_YET)

    @torch.no_grad()
    def evaluation(self, step: Step) -> list[Tensor]:
        """New tensors like the weights: those to evaluate with, or the stored ones where the rule has no others."""
        if not step.cells:
            return []
        now = self._begin(step, compiled=False)
        node = self.plan.program.evaluation
        if node is None:
            return [work.cell.weights.detach().clone() for work in now.works]
        found = []
        for work in now.works:
            outputs = partial(_decided, self.plan, [node], work.truth)
            code = self._functions.code(("evaluation", work.truth), work.cell.weights.dtype, outputs)
            [value] = self._call(code, work, now, work.cell.state)
            found.append(like(work.cell.weights, value, WEIGHTS, code.shaped))
        return found

    # ------------------------------------------------------------------------------------------------- calls

    def answers(self, key: Any, nodes: Sequence[Node], works: Sequence[Work], now: TorchStep) -> list[tuple[CellCode, Sequence[Tensor]]]:
        """The values of expressions for each of some parameters, with the function that computed them."""
        calls = self.asking(key, nodes, works, now)
        found = self._functions.answers(calls, now.compiled)
        return [(bound.code, values) for bound, values in zip(calls, found, strict=True)]

    def asking(self, key: Any, nodes: Sequence[Node], works: Sequence[Work], now: TorchStep) -> list[Bound]:
        """What computes them, one for each parameter."""
        codes: dict[Any, CellCode] = {}
        calls = []
        for work in works:
            kind = work.truth, work.cell.weights.dtype, mixed(work.cell)
            if kind not in codes:
                outputs = partial(_decided, self.plan, nodes, work.truth)
                codes[kind] = self._functions.code((*key, work.truth, *mixed(work.cell)), work.cell.weights.dtype, outputs)
            calls.append(self._bound(codes[kind], work, now, work.cell.state))
        return calls

    def asked_again(self, key: Any, nodes: Sequence[Node], now: TorchStep) -> Any:
        """What computes them in later steps, of all parameters; None where nothing does."""
        return self._functions.tables(now.step.cells, self.asking(key, nodes, now.works, now), now.compiled, answering=True)

    def _call(self, code: CellCode, work: Work, now: TorchStep, states: Any) -> Any:
        return self._functions.run(self._bound(code, work, now, states), now.compiled)


def _decided(plan: Plan, roots: Sequence[Node], truth: Truth, targets: Sequence[Node] = ()) -> list[Output]:
    """Expressions that go into targets, or are returned."""
    found = plan.decided(roots, truth)
    return list(map(Output, found, targets)) if targets else list(map(Output, found))


def _named(plan: Plan, truth: Truth) -> list[tuple[str, Node]]:
    """The equations by their names."""
    names, roots = zip(*plan.program.names, strict=True) if plan.program.names else ((), ())
    return list(zip(names, plan.decided(roots, truth), strict=True))


def _nothing() -> None:
    """What there is to write where nothing is stepped."""
