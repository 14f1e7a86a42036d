"""The states per group and model of a rule, which belong to no single parameter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from optlang.backends.places import Place
from optlang.backends.reference.executable import exists
from optlang.backends.reference.interpreter import Run
from optlang.backends.torch.conditions import Conditions
from optlang.backends.torch.shared import SharedRun, first_value, of_shape
from optlang.ir import State
from optlang.plan import Plan


class SharedStates:
    """They lie at the places of a run: one for each group, one for the model."""

    def __init__(self, plan: Plan, conditions: Conditions) -> None:
        self.states = [s for s in plan.program.states if s.name in plan.shared]
        self._plan, self._conditions = plan, conditions

    def prepare(self, run: Run, weights: Tensor) -> None:
        """Makes the missing ones, on the device of some weights."""
        for state, place in self._places(run):
            if state.name not in place.states and self._exists(state, place, run):
                place.states[state.name] = first_value(state, run([(state.init, place)])[0], weights)

    def updates(self, run: Run) -> list[tuple[Any, Any]]:
        """Each with its new value; nothing is written yet."""
        found = []
        for state, place in self._there(run):
            [value] = run([(self._plan.program.updates[state.name], place)])
            found.append((place.states[state.name], of_shape(value, place.states[state.name])))
        return found

    def at(self, place: Place, run: Run) -> list[str]:
        """Those that a place has."""
        return [state.name for state, there in self._there(run) if there is place]

    def _there(self, run: Run) -> Iterator[tuple[State, Place]]:
        return ((state, place) for state, place in self._places(run) if self._exists(state, place, run))

    def _places(self, run: Run) -> Iterator[tuple[State, Place]]:
        return ((state, place) for state in self.states for place in run.model.below[state.type.extent.level])

    def _exists(self, state: State, place: Place, run: Run) -> bool:
        """Whether the guard of a state holds, which the host can tell."""
        if state.guard is None or not isinstance(run, SharedRun):
            return exists(state, place, run)
        return any(self._plan.keeps(state, self._conditions.truth(p.cell)) for p in place.cells if p.cell is not None)
