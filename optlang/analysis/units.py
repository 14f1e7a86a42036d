"""Scaling degrees in words: `has gradient units`, and what a program's degrees and conflicts say of its update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from optlang.analysis.linear_equations import ZERO, Pair
from optlang.ir import Node
from optlang.ops import OPS

LOSS: Pair = (Fraction(1), Fraction(0))
PARAMETER: Pair = (Fraction(0), Fraction(1))
GRADIENT: Pair = (Fraction(1), Fraction(-1))
CURVATURE: Pair = (Fraction(1), Fraction(-2))
WORDS: Mapping[Pair, str] = {
    ZERO: "is a pure number", PARAMETER: "has parameter units", GRADIENT: "has gradient units", LOSS: "has loss units",
    CURVATURE: "has curvature units", (Fraction(2), Fraction(-2)): "has squared gradient units",
    (Fraction(0), Fraction(-1)): "has units of 1/parameter", (Fraction(-1), Fraction(2)): "has units of 1/curvature",
    (Fraction(0), Fraction(2)): "has squared parameter units", (Fraction(-1), Fraction(1)): "has units of 1/gradient",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sides that cannot have the same degree. `place` is the equation, `node` the operation, `want` and `found` words."""

    place: str
    node: Node
    want: str
    found: str

    def __str__(self) -> str:
        return f"in `{self.place}`: {self.want} meets {self.found}{_where(self.node)}"


@dataclass(frozen=True, slots=True)
class Degrees:
    """Degrees in (loss, parameter) of hypers, states and inputs; None where the equations leave one open."""

    name: str
    hypers: Mapping[str, Pair | None]
    states: Mapping[str, Pair | None]
    inputs: Mapping[str, Pair | None]
    conflicts: tuple[Conflict, ...]
    added: frozenset[str] = frozenset()  # small hypers that are only ever added to something, or bound it from below
    nodes: Mapping[Node, Pair | None] = field(default_factory=dict, repr=False)

    @property
    def with_loss(self) -> tuple[str, ...]:
        """The hypers that would have to change with the scale of the loss."""
        return tuple(name for name, pair in self.hypers.items() if pair is not None and pair[0])

    def to_text(self) -> str:
        """One line per hyper and state, what the update does when the loss is scaled, and every conflict."""
        rows = [f"scaling of {self.name}:"]
        rows += [f"  {name} {words(pair)}" for name, pair in {**self.hypers, **self.inputs}.items()]
        rows += [f"  state {name} {words(pair)}" for name, pair in self.states.items()]
        rows += [f"  conflict {conflict}" for conflict in self.conflicts]
        return "\n".join([*rows, f"  {self._scale()}"])

    def _scale(self) -> str:
        if self.conflicts:
            return "no statement on the scale of the loss: see the conflicts"
        needed = [name for name in self.with_loss if name not in self.added]
        if needed:
            return f"the update depends on the scale of the loss, unless {_listed(needed)} follow{'s' * (len(needed) == 1)} it"
        return "the update does not depend on the scale of the loss" + (f", {_listed(self.with_loss)} apart" if self.with_loss else "")


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _where(node: Node) -> str:
    """The operator at which two degrees meet, where that says more than the equation's name."""
    return f", at `{OPS[node.op].symbol or node.op}`" if node.args else ""


def words(pair: Pair | None) -> str:
    """A degree as the end of a sentence."""
    if pair is None:
        return "may have any units"
    if pair in WORDS:
        return WORDS[pair]
    parts = [f"{what}^{power}" if power != 1 else what for what, power in zip(("loss", "parameter"), pair, strict=True) if power]
    return "has units of " + " ".join(parts)
