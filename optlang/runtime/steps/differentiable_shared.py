"""Values per group and model that autograd goes through, and the numbers that they and one parameter's equations start from.

A *site* is one parameter, one group or the model in one step, with the values known there, each a torch number of one element.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from optlang import philox
from optlang.backends.base import Cell, Step, StepError
from optlang.backends.places import shape_of
from optlang.backends.torch.shared import applied, together
from optlang.ir import Node
from optlang.philox import MODEL_STREAM
from optlang.plan import Barrier

SHARED = ("group", "model")
HOST = torch.device("cpu")


@dataclass(eq=False)
class Site:
    """Where a value is known. `cells` are the parameters that it concerns, the first one's settings count."""

    name: str
    cells: list[Cell]
    states: MutableMapping[str, Any]
    inputs: Mapping[str, Any]
    key: tuple[int, int] = (0, 0)  # of random draws: the seed and the stream
    homes: dict[str, Site] = field(default_factory=dict)  # the group's and the model's
    values: dict[Node, Tensor] = field(default_factory=dict)

    def home(self, node: Node) -> Site:
        """Where a value that is needed here is known."""
        return self.homes.get(node.type.extent.level, self)

    @property
    def t(self) -> int:
        return max(cell.t for cell in self.cells)


class Sites:
    """All sites of one step."""

    def __init__(self, step: Step) -> None:
        self.model = Site("the model", list(step.cells), step.model, step.inputs, (step.seed, MODEL_STREAM))
        self.model.homes["model"] = self.model
        self.groups: dict[int, Site] = {}
        self.cells: list[Site] = []
        for cell in step.cells:
            if cell.group not in self.groups:
                own = [c for c in step.cells if c.group == cell.group]
                key = step.seed, MODEL_STREAM - cell.group
                made = Site(f"group {cell.group}", own, step.groups.get(cell.group, {}), _of_group(step.inputs, cell.group), key)
                made.homes |= {"group": made, "model": self.model}
                self.groups[cell.group] = made
            self.cells.append(Site(cell.name, [cell], {}, {}, homes=dict(self.groups[cell.group].homes)))

    def of(self, level: str) -> list[Site]:
        """The sites of values per group or per model."""
        return [self.model] if level == "model" else list(self.groups.values())

    def gather(self, barrier: Barrier, partials: Sequence[Tensor]) -> None:
        """One value for each group, or the model, of what every parameter adds to it; none where that can be counted."""
        assert barrier.value is not None
        arg = barrier.args[0]
        for site in self.of(barrier.value.level):
            share = [value(more, site) for more in barrier.args[1:]]
            inside = [i for i, cell in enumerate(self.cells) if cell.cells[0] in site.cells]
            if arg.type.extent.level == "group":
                groups = [self.groups[number] for number in dict.fromkeys(cell.group for cell in site.cells)]
                parts, count = [value(arg, group) for group in groups], len(groups)
            else:
                parts = [partials[i].reshape(-1) for i in inside] if partials else []
                count = sum(prod(shape_of(arg.type.extent, tuple(cell.weights.shape))) for cell in site.cells)
            site.values[barrier.mark] = together(barrier.op, parts, count, share, HOST)


def _of_group(inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {name: given.get(number) if isinstance(given, Mapping) else given for name, given in inputs.items()}


def value(wanted: Node, site: Site) -> Tensor:
    """The value of an expression at a site, float64: one number or a window of them; hangs on hypers, states and what was gathered."""
    stack = [(wanted, site.home(wanted))]
    while stack:
        node, home = stack[-1]
        missing = [(arg, home.home(arg)) for arg in node.args if arg not in home.home(arg).values]
        if node in home.values or not missing:
            stack.pop()
        if node not in home.values:
            stack += missing
            if not missing:
                args = _settled(node.op, [home.home(arg).values[arg] for arg in node.args])
                home.values[node] = applied(node, args) if node.args else _leaf(node, home)
    return site.home(wanted).values[wanted]


def _settled(op: str, args: list[Tensor]) -> list[Tensor]:
    """Operands without a slope where autograd would have NaN: those of a product with an infinite number, as a bound that is left
    open, which stays so, and the side that a choice does not take, as the root of a distance that is 0 at first."""
    if op in ("where", "branch") and args[0].numel() == 1:
        yes, no = args[1:]
        return [args[0], yes, no.detach()] if args[0] else [args[0], yes.detach(), no]
    is_open = op == "mul" and any(not x.requires_grad and bool(x.isinf().any()) for x in args)
    return [x.detach() for x in args] if is_open else args


def _leaf(node: Node, site: Site) -> Tensor:
    cell = site.cells[0]
    if node.op == "random":
        return torch.tensor(philox.draw(node.value[0], (), site.t, node.value[1], *site.key), dtype=torch.float64)
    found: Any = {"const": node.value, "t": site.t}.get(node.op)
    if found is None:
        places: Mapping[str, Any] = {"hyper": cell.hypers, "state": site.states, "input": site.inputs}.get(node.op, cell.facts)
        found = places.get(node.value)
    if found is None:
        raise StepError(f"{site.name}: `{node.value}` is needed, and this parameter has none (its shape is {tuple(cell.weights.shape)})")
    if isinstance(found, Tensor):
        return (found if node.type.window else found.reshape(())).to("cpu", torch.float64)
    return torch.tensor(found, dtype=torch.bool if node.type.kind == "bool" else torch.float64)
