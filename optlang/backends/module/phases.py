"""Updates in which parameters depend on each other: collect them, then one loop for each value that needs them all."""

from __future__ import annotations

from optlang.backends.module.crossing import Crossing
from optlang.backends.module.elements import TOUCHED
from optlang.backends.module.layout import Lines, indented, mentions
from optlang.backends.module.update import ALONE, PLACES, treats_matrices
from optlang.ir import Node
from optlang.ops import CALLS

WHOLE = "self.param_groups"  # not in a route
WAIT = "yield  # all rules of the route look around before anything moves"


class Phases(Crossing):
    """Writes an update in several loops."""

    def body(self, first: Lines, groups: str) -> Lines:
        """The statements after the closure has been called."""
        collected = self._collected(first, groups)
        lines = [*self.shared_states(), *self._states_alone(groups)]
        crossed: set[Node] = set()
        for level in self.levels():
            crossed |= {b.mark for b in level}
            gathers = [b for b in level if b.op not in CALLS]
            lines += self._gather(gathers, crossed) if gathers else []
            for barrier in level:
                lines += self._ask(barrier, crossed) if barrier.op in CALLS else []
        lines += [WAIT] if self.looks_around else []
        reports = self.program.reports or {}
        lines += self._reports(reports)
        shared = [s for s in self.program.states if s.type.extent.level in ("group", "model")]
        new = [(s, self.program.updates[s.name]) for s in shared if self.program.updates[s.name] is not s.node]
        lines += self._for_all([node for s, node in new])
        put_back = ["if cell.put_back is not None:", "    cell.put_back()"] * self.takes_sparse
        lines += self._loop(self.wants(), ['state["step"] += 1', *put_back])
        lines += self._stored(new, groups)
        return [*collected, *["home = _home(cells)"] * mentions(lines, "home"), *lines]

    def _collected(self, first: Lines, groups: str) -> Lines:
        fields = [f"param=param, group=group,{' number=number,' if self.uses_teams else ''} state=state, dtype=dtype,",
                  f't={self.count} + 1,{f" place=places[{self.key}]," * self.draws}{" key=key," * (self.key == "key")}',
                  'g=(-param.grad if group["maximize"] else param.grad).to(dtype),']  # fmt: skip
        fields += ["put_back=put_back,"] * self.takes_sparse
        inner = [*self.before_update(first), *TOUCHED * self.takes_sparse, "cells.append(_Cell(", *indented(fields), "))"]
        each = f"number, group in enumerate({groups})" if self.uses_teams else f"group in {groups}"
        numbered = []
        if self.uses_teams and groups != WHOLE:  # in a route a group is known by its number among all
            each = f"group in {groups}"
            numbered = ['    number = next(n for n, other in enumerate(self.param_groups) if other["params"] is group["params"])']
        return [
            *([PLACES] if self.draws else []),
            "cells: list[Any] = []",
            f"for {each}:",
            *numbered,
            '    for param in group["params"]:',
            *indented(inner, 2),
            "if not cells:",
            "    return" + " loss" * (groups == WHOLE),
            *(["teams = _teams(cells)"] if self.uses_teams else []),
            *self._everyone(),
        ]

    def _states_alone(self, groups: str) -> Lines:
        """What asks the model again cannot take a step without a closure, nor what reads inputs without them, but has all states by now."""
        if not self.asks and not self.program.inputs:
            return []
        lacks = "closure is None" if self.asks else ALONE
        return [f"if {lacks}:  # a step of size 0, by which distributed checkpoints ask which states there are",
                "    return" + " loss" * (groups == WHOLE)]  # fmt: skip

    def _everyone(self) -> Lines:
        """The parameters of all rules of a route, where some values are of all of them."""
        if not self.of_all:
            return []
        lines = ["others = _others(self, groups)", "everyone = [*cells, *others]"]
        if treats_matrices(self.roots_of_all):
            message = f"{self.program.name} takes values of all parameters as matrices, not a parameter of shape"
            lines += ["for cell in others:", "    if cell.param.ndim < 2:",
                      f'        raise ValueError(f"{message} {{tuple(cell.param.shape)}}")']  # fmt: skip
        grouped = any(node.type.extent.level == "group" for node in self.of_all)
        return [*lines, "all_teams = [*teams, *_teams(others)]"] if grouped else lines

    @property
    def uses_teams(self) -> bool:
        return any(n.type.extent.level == "group" for n in self.everything) or any(
            s.type.extent.level == "group" for s in self.program.states
        )
