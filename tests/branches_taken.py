"""Which sides the choices of a rule took in the reference interpreter: conditions of `when`, `every` and `where`; `max`, `min` and `clip`.

One element in one step is enough: a side of a bound was taken where it alone gave the value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from optlang import ir
from optlang.backends.places import Place
from optlang.backends.reference.executable import Reference
from optlang.backends.reference.interpreter import Run, Wanted
from optlang.ir import Node, Program
from optlang.printing.equations import definition, definitions

BOUNDS = {"maximum": np.greater, "minimum": np.less}
BOTH = frozenset([True, False])
WORDS = {  # what was seen of a condition (False) or bound (True) that is not both
    (False, frozenset([True])): "never fails", (False, frozenset([False])): "never holds", (False, frozenset()): "not reached",
    (True, frozenset([True])): "always the first", (True, frozenset([False])): "always the second", (True, frozenset()): "always equal",
}  # fmt: skip


class Watch:
    """Of a condition, whether it held and whether it failed; of a bound, whether the first and the second operand gave the value."""

    def __init__(self) -> None:
        self.programs: dict[int, Program] = {}
        self.sides: dict[Node, set[bool]] = defaultdict(set)

    def note(self, node: Node, place: Place) -> None:
        def value(operand: Node) -> Any:
            return place.at[operand.type.extent.level].values[operand]

        if node.op in ("branch", "where"):
            self.sides[node.args[0]].update(np.unique(value(node.args[0])).tolist())
        elif node.op in BOUNDS:
            a, b = (value(operand) for operand in node.args)
            self.sides[node] |= {first for first, x, y in ((True, a, b), (False, b, a)) if np.any(BOUNDS[node.op](x, y))}

    def one_sided(self) -> dict[str, str]:
        """What was not seen of each choice, as it is written with the names of its rule."""
        sides: dict[tuple[str, bool], set[bool]] = defaultdict(set)
        for program in self.programs.values():
            names = {node: name for name, node in reversed(definitions(program))}
            for node in choices(program):
                sides[definition(node, names).text, node.op in BOUNDS] |= self.sides.get(node, set())
        return {text: WORDS[bound, frozenset(taken)] for (text, bound), taken in sides.items() if taken != BOTH}


@contextmanager
def watched() -> Iterator[Watch]:
    """Sees every choice that the reference interpreter makes inside."""
    watch, settle, run = Watch(), Run._settle, Reference._run

    def settled(self: Run, node: Node, place: Place, needed: list[Wanted]) -> None:
        settle(self, node, place, needed)
        watch.note(node, place)

    def begun(self: Reference, step: Any) -> Run:
        watch.programs[id(self.program)] = self.program
        return run(self, step)

    with mock.patch.object(Run, "_settle", settled), mock.patch.object(Reference, "_run", begun):
        yield watch


def choices(program: Program) -> list[Node]:
    """Every condition and bound of a rule, once; those that the text decides left out."""
    found: dict[Node, None] = {}
    for node in ir.walk(program.roots()):
        if node.op in ("branch", "where") and node.args[0].op != "const":
            found[node.args[0]] = None
        elif node.op in BOUNDS:
            found[node] = None
    return list(found)


ROUNDING, EMPTY = "only rounding can bring it there", "a batch without any gradient, for which theirs divides by 0"
SQUARES = "a mean of squares is not below 0"
OPEN = {  # choices of which one side was never taken beside the other implementation, and why
    "rmsprop": {"max(v' - x_1^2, 0)": ROUNDING},
    "rmsproptf": {"max(v' - x_1^2, 0)": ROUNDING},
    "shampoo": {"max(sum(eigenvectors(r')*(r' @ eigenvectors(r')) per col), eps)": ROUNDING},
    "graftedshampoo": {
        "max(sum(eigenvectors(l')*(l' @ eigenvectors(l')) per col), least)": ROUNDING,
        "max(sum(eigenvectors(r')*(r' @ eigenvectors(r')) per col), least)": ROUNDING,
        "max(ridge*beta2^t, 1e-30)": "after thousands of steps",
    },
    "adafactororiginal": {"min(where(warmup, 1e-06*t, lr), 1/sqrt(t))": "after 10,000 steps: theirs fixes the first at 1e-2"},
    "dadaptsgd": {"first' > 0": EMPTY},
    "adadagrad": {"max(sum(g^2 per model), 1e-30)": EMPTY},
    "adadagradnorm": {"max(x_1, 1e-30)": EMPTY},
    "scale_by_agreement": {"max(squares - g^2, 1e-30)": "workers whose gradients agree in every digit"},
    "perparametermlp": {f"max(x_{i} + 1e-09, 1e-09)": SQUARES for i in (4, 8, 12)},
    "mulo": {f"max(x_{i} + 1e-09, 1e-09)": SQUARES for i in (4, 8, 12)},
}
