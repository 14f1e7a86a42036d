"""One step of a rule for many copies of a model at once, each with its own hypers: the evaluator of the search.

Every value lies in a tensor whose first dimension counts the runs: per element in one row for the whole model, [runs, numel]
(see `layout`), per parameter [runs, parameters], per model [runs, 1], rows, columns and matrices [runs, k, …] for the
k parameters of one shape. A rule is walked once, when it is bound to tensors; what remains is a list of torch calls that
write into tensors made beforehand, so a step costs little beside its arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optlang import ir
from optlang.analysis.live_states import without_dead
from optlang.ir import Node, Program
from optlang.search.batched.host import Numbers, settings
from optlang.search.batched.layout import Layout
from optlang.search.batched.memory import Target, Value, fresh, listed
from optlang.search.batched.places import Places
from optlang.search.batched.writer import Writer

REASONS = {
    "grad": "asks for gradients at other points, which a batch of runs does not compute",
    "hvp": "asks for products with the Hessian, which a batch of runs does not compute",
    "loss_at": "asks for losses at other points, which a batch of runs does not compute",
    "loss": "reads the loss, which a batch of runs does not give it",
    "input": "needs values from the training loop, which a batch of runs does not have",
    "random": "draws random numbers, whose stream belongs to one run",
}


class Refused(ValueError):
    """A program that cannot run for many models at once; the message says why."""


def refuses(program: Program) -> str:
    """Why a program cannot run for many models at once, or an empty string."""
    if program.evaluation is not None:
        return "evaluates other weights than it trains"
    for node in ir.walk(program.all_roots()):
        if node.op in REASONS:
            return REASONS[node.op]
        if node.type.window:
            return "remembers a window of values, which only whole optimizers do"
        if node.type.extent.run:
            return "takes elements together that follow each other, which only whole optimizers do"
        if node.type.extent.level == "group":
            return "has values per group, and the parameters of a run are not in groups; say `per model`"
    return ""


def compile_batched(program: Program) -> BatchedRule:
    """The rule of a program for many models at once. Raises Refused."""
    reason = refuses(program)
    if reason:
        raise Refused(f"rule `{program.name}` {reason}")
    return BatchedRule(without_dead(program))


@dataclass(frozen=True, eq=False)
class BatchedRule:
    """A rule before it meets tensors."""

    program: Program

    def bind(self, layout: Layout, weights: Tensor, gradients: Tensor, hypers: Mapping[str, Any] | None = None) -> Bound:
        """The rule on flat weights and gradients, [runs, numel] each, which are read and written where they are.

        `hypers`: one value for all runs, or one for each; those not given have their defaults. Raises StepError where a
        vector meets what needs a matrix, ValueError for hypers that do not fit.
        """
        bound = _bound(self.program, layout, weights, gradients, hypers or {}, 0)
        bound.start()
        return bound


@dataclass(eq=False)
class Bound:
    """A rule with its tensors. `states` by name: in a list where there is one tensor for each group of parameters."""

    program: Program
    layout: Layout
    weights: Tensor
    gradients: Tensor
    hypers: Mapping[str, Any]
    states: dict[str, Value]
    numbers: Numbers
    starts: list[Callable[[], Any]]
    calls: list[Callable[[], Any]]

    @property
    def t(self) -> int:
        """Steps taken."""
        return self.numbers.t

    @torch.no_grad()
    def start(self) -> None:
        """Gives the states their values before the first step."""
        for call in self.starts:
            call()

    @torch.no_grad()
    def step(self, scale: float = 1.0) -> None:
        """One update of the weights and states of all runs, with `lr` times the scale."""
        self.numbers.advance(scale)
        for call in self.calls:
            call()

    @torch.no_grad()
    def kept(self, runs: Tensor, weights: Tensor, gradients: Tensor) -> Bound:
        """The same rule for some of the runs (their numbers), on their weights and gradients in other tensors."""
        hypers = {name: value[runs.numpy()] for name, value in self.hypers.items()}
        fewer = _bound(self.program, self.layout, weights, gradients, hypers, self.t)
        for name, state in self.states.items():
            for new, old in zip(listed(fewer.states[name]), listed(state), strict=True):
                new.copy_(old[runs])
        return fewer


def _bound(
    program: Program, layout: Layout, weights: Tensor, gradients: Tensor, given: Mapping[str, Any], t: int
) -> Bound:
    """The calls of a rule on tensors, states with room but without values."""
    runs, dtype = weights.shape[0], weights.dtype
    hypers = settings(program, given, runs)
    places = Places(program, layout, hypers)
    numbers = Numbers(program.name, layout, hypers, runs, dtype, t)
    kept = [state for state in program.states if places.domains[state.name]]
    states = {s.name: fresh(s.node, places.domains[s.name], layout, runs, dtype) for s in kept}
    leaves: dict[Node, Value] = {ir.W: weights, ir.G: gradients, **{s.node: states[s.name] for s in kept}}

    def targets(new: Mapping[str, Node]) -> list[Target]:
        return [(places.home(new[s.name], places.domains[s.name]), states[s.name], s.node) for s in kept]

    starts = Writer(places, numbers, leaves, targets({s.name: s.init for s in kept})).written()
    last: Target = (places.home(program.weights, layout.all), weights, ir.W)
    calls = Writer(places, numbers, leaves, [*targets(program.updates), last]).written()
    return Bound(program, layout, weights, gradients, hypers, states, numbers, starts, calls)
