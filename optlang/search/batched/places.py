"""Which parameters an expression of a rule is computed for, and in which order: decided before the first step.

A block that asks for facts (`when rank >= 2`) is decided parameter by parameter: each side is computed for its own domain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optlang import ir
from optlang.backends.base import StepError
from optlang.host import MissingFact, evaluate
from optlang.ir import Node, Program
from optlang.plan import is_gathering
from optlang.search.batched.host import LR
from optlang.search.batched.layout import Domain, Group, Layout

Key = tuple[Node, Domain]


@dataclass(eq=False)
class Schedule:
    """What is computed where, in an order in which it may be, and how often each value is still to be read."""

    order: list[Key] = field(default_factory=list)
    needs: dict[Key, list[Key]] = field(default_factory=dict)
    uses: Counter[Key] = field(default_factory=Counter)


class Places:
    """A program on a layout. `hypers`: arrays [runs, 1]; those that are the same in all runs may decide blocks."""

    def __init__(self, program: Program, layout: Layout, hypers: Mapping[str, Any]) -> None:
        self.program, self.layout = program, layout
        roots = program.all_roots()
        self.same = {name: value[0].item() for name, value in hypers.items() if name != LR and (value == value[0]).all()}
        self.known = ir.on_host(roots)
        self.static = ir.is_static(roots, frozenset(self.same))
        self.reads_facts = ir.fold(roots, lambda node, args: node.op == "fact" or any(args))
        self.domains = {s.name: self._guarded(s) for s in program.states}

    def is_coarse(self, node: Node) -> bool:
        """Whether there is one value for the whole model: [runs, 1] or 0-d."""
        return node.type.extent.level in ("host", "model") or (self.known[node] and not self.reads_facts[node])

    def home(self, node: Node, domain: Domain) -> Key:
        """The key of an expression wanted in a domain."""
        return node, self.layout.all if self.is_coarse(node) else domain

    def chooses(self, node: Node) -> bool:
        """Whether a choice is decided parameter by parameter before the first step."""
        return node.op in ("branch", "where") and self.static[node.args[0]]

    def where(self, condition: Node, domain: Domain) -> tuple[Domain, Domain]:
        """The parts of a domain where a static condition holds, and where not. Raises StepError."""
        truths = {place: self._truth(condition, place) for place in domain}
        return tuple(p for p in domain if truths[p]), tuple(p for p in domain if not truths[p])

    def _truth(self, condition: Node, place: int) -> bool:
        group = self.layout.groups[place]
        try:
            return bool(evaluate(condition, self.same, 1, group.facts))
        except MissingFact as missing:
            raise StepError(needs_matrix(self.program, group, f"`{missing.fact}`")) from None

    def _guarded(self, state: ir.State) -> Domain:
        """The parameters that have a state."""
        if state.guard is None:
            return self.layout.all
        if not self.static[state.guard]:
            names = " and ".join(f"`{n.value}`" for n in ir.walk([state.guard]) if n.op == "hyper")
            raise ValueError(f"rule `{self.program.name}`: {names} decides what is remembered; give all runs of a batch the same")
        return self.where(state.guard, self.layout.all)[0]

    def schedule(self, roots: Sequence[Key]) -> Schedule:
        """The order in which keys are computed so that the roots can be."""
        found = Schedule()
        stack = [(key, False) for key in reversed(roots)]
        done: set[Key] = set()
        while stack:
            key, ready = stack.pop()
            if ready:
                done.add(key)
                found.order.append(key)
            elif key not in found.needs:
                found.needs[key] = self._needs(key, done)
                found.uses.update(found.needs[key])
                stack.append((key, True))
                stack.extend((need, False) for need in reversed(found.needs[key]))
        found.uses.update(roots)
        return found

    def _needs(self, key: Key, done: set[Key]) -> list[Key]:
        """What must be computed before; of what is there for all parameters already, a part is taken."""
        node, domain = key
        if self.known[node] or not node.args:
            return []
        if domain != self.layout.all and (node, self.layout.all) in done:
            return [(node, self.layout.all)]
        if self.chooses(node):
            sides = zip(self.where(node.args[0], domain), node.args[1:], strict=True)
            return [self.home(arg, part) for part, arg in sides if part]
        return [self.home(arg, self.layout.all if is_gathering(node) else domain) for arg in node.args]


def needs_matrix(program: Program, group: Group, what: str) -> str:
    """The message for a vector where a matrix is needed."""
    return (
        f"{group.names[0]} has shape {group.shape}, but rule `{program.name}` needs a matrix (rank 2 or more) for {what}; "
        "choose inside the rule with `when rank >= 2 { … } else { … }`"
    )
