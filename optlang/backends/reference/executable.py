"""The reference backend: NumPy float64, exactly as written. It is the meaning of every program, and what all else is tested by.

Weights, gradients and states may be NumPy arrays or torch tensors of any number type and device; they are read as float64,
and rounded to their own type once, when they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optlang.backends import arrays
from optlang.backends.base import Backend, Executable, Math, Step, StepError, Way
from optlang.backends.places import Place, Value, read, spread
from optlang.backends.reference.interpreter import Code, Run
from optlang.ir import Node, Program, State, walk
from optlang.ops import OPS
from optlang.types import ELEMENT, Type, broadcasts_to

WEIGHTS = Type("real", ELEMENT)


class Reference:
    """An executable that evaluates a program node by node. Every method raises StepError and then has changed nothing."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.code = Code(program.all_roots())

    def prepare(self, step: Step) -> None:
        """Creates missing states in float32, or float64 beside such parameters; of truth values in bool."""
        if self._complete(step):
            return
        with np.errstate(all="ignore"):
            if step.cells:
                run = self._run(step)
                missing = [(s, p) for s, p in self._kept(run) if s.name not in p.states]
                values = self._values(run, [(s.init, p, s.type) for s, p in missing])
                made = [_new_state(s, p, value) for (s, p), value in zip(missing, values, strict=True)]
                for (state, place), array in zip(missing, made, strict=True):
                    place.states[state.name] = array

    def _complete(self, step: Step) -> bool:
        """Whether every state is there already; where guards decide about one, this is not known so easily."""
        shared = {"model": [step.model], "group": [step.groups.get(cell.group, {}) for cell in step.cells]}
        own = [cell.state for cell in step.cells]
        return all(s.name in holder for s in self.program.states for holder in shared.get(s.type.extent.level, own))

    def step(self, step: Step) -> None:
        """One update of all cells, of the states they share, and of `step.reports`."""
        self.begin(step)()

    def begin(self, step: Step) -> Callable[[], None]:
        """Everything is computed; what this returns writes it."""
        with np.errstate(all="ignore"):
            return self._computed(step) if step.cells else _nothing

    def _computed(self, step: Step) -> Callable[[], None]:
        run = self._run(step)
        kept = self._kept(run)
        wanted = [(self.program.weights, p, WEIGHTS) for p in run.model.cells]
        wanted += [(self.program.updates[s.name], p, s.type) for s, p in kept]
        values = self._values(run, wanted)
        reports = self._reports(run)
        targets = [cell.weights for cell in step.cells] + [self._target(s, p) for s, p in kept]
        sources = [arrays.like(target, value) for target, value in zip(targets, values, strict=True)]

        def write() -> None:
            for target, source in zip(targets, sources, strict=True):
                arrays.write(target, source)
            step.reports.update(reports)

        return write

    def way(self, index: int) -> Way:
        """Always the same."""
        return Way("reference", "it was asked for")

    def evaluation(self, step: Step) -> list[arrays.Array]:
        """New arrays like the weights: those to evaluate with, or the stored ones where the rule has no others."""
        with np.errstate(all="ignore"):
            if not step.cells:
                return []
            run = self._run(step)
            node = self.program.evaluation
            values = self._values(run, [(node, p, WEIGHTS) for p in run.model.cells]) if node is not None else None
            values = values or [read(cell.weights, p) for cell, p in zip(step.cells, run.model.cells, strict=True)]
            return [arrays.like(cell.weights, value) for cell, value in zip(step.cells, values, strict=True)]

    def _run(self, step: Step) -> Run:
        return Run(self.program.name, self.code, step)

    def _kept(self, run: Run) -> list[tuple[State, Place]]:
        """Every state with every place that has it."""
        return [(s, p) for s in self.program.states for p in run.model.below[s.type.extent.level] if exists(s, p, run)]

    def _values(self, run: Run, wanted: list[tuple[Node, Place, Type]]) -> list[Value]:
        """Values in the full shape of what they are for."""
        found = run([(node, place) for node, place, _ in wanted])
        return [spread(value, node.type, type_, place.shape) for value, (node, place, type_) in zip(found, wanted, strict=True)]

    def _reports(self, run: Run) -> Mapping[str, float | bool]:
        reports = self.program.reports or {}
        return {name: value.item() for name, value in zip(reports, run([(n, run.model) for n in reports.values()]), strict=True)}

    def _target(self, state: State, place: Place) -> Any:
        if state.name not in place.states:
            raise StepError(f"{place.name}: the state `{state.name}` is not there; call `prepare` before the step")
        return place.states[state.name]


def _nothing() -> None:
    """What there is to write where nothing is stepped."""


def exists(state: State, place: Place, run: Run) -> bool:
    """Whether the guard of a state holds; of a shared state, for any of those that share it."""
    if state.guard is None:
        return True
    return any(run([(state.guard, p) for p in place.below[state.guard.type.extent.level]]))


def _new_state(state: State, place: Place, value: Value) -> arrays.Array:
    first = place.cells[0].cell
    assert first is not None
    return arrays.kept(first.weights, value, state.type.kind)


class ReferenceBackend:
    """NumPy float64."""

    def refuses(self, program: Program) -> str:
        """Only programs that are not well formed."""
        for state in program.states:
            update = program.updates[state.name]
            if not broadcasts_to(update.type.extent, state.type.extent) or update.type.window != state.type.window:
                return f"the state `{state.name}` is {state.type}, its new value {update.type}"
        for name, node in (program.reports or {}).items():
            if node.type.extent.level not in ("host", "model") or node.type.window:
                return f"the report `{name}` is {node.type}, not one number"
        unknown = sorted({node.op for node in walk(program.all_roots())} - set(OPS))
        return f"unknown operators: {', '.join(unknown)}" if unknown else ""

    def compile(self, program: Program, math: Math, storage: Any = None) -> Executable:
        """`math` and `storage` are ignored: everything is computed as it is written, and kept in float64."""
        return Reference(program)


BACKEND: Backend = ReferenceBackend()
