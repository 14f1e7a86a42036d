"""Barriers in generated modules: loops that collect from every parameter, and one value made of what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from optlang import ir
from optlang.backends.module.layout import Lines, indented, mentions
from optlang.backends.module.memory import shares_memory
from optlang.backends.module.scene import Path, Want
from optlang.backends.module.section import write
from optlang.backends.module.shared import Shared
from optlang.backends.module.spell import chooses_whole, is_alone, shape_text
from optlang.backends.module.wishes import wish
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import Barrier
from optlang.types import TENSOR

FIELDS = ("param", "key", "group", "state", "dtype")


@dataclass(frozen=True, slots=True)
class Gather:
    """A reduction over parameters: `parts` collects what `result` is made of; both are attributes of a team where per group."""

    barrier: Barrier
    parts: str
    result: str
    per_group: bool

    def owned(self, name: str, owner: str = "team") -> str:
        return f"{owner}.{name}" if self.per_group else name


class Crossing(Shared):
    """Writes what must be known of all parameters before any of them goes on."""

    def _loop(self, wants: Sequence[Want], more: Lines, later: Sequence[Node] = (), turns: Path = (), cells: str = "cells") -> Lines:
        """One loop over the cells, or over those of all rules of a route; what later loops use again stays with the cell."""
        before = self._for_all([want.node for want in wants])
        scene = self.cell_scene(True)
        if cells == "everyone":  # others keep nothing
            scene = replace(scene, leaves={node: text for node, text in scene.leaves.items() if node not in self.cell})
        body, named = write(wants, scene, self.names)
        body = [*body, *(self._kept(named, later, turns) if cells == "cells" else [])]
        body = [*self.settings(body), *body, *more]
        fields = [f for f in FIELDS if mentions(body, f)]
        head = [f"{', '.join(fields)} = {', '.join(f'cell.{f}' for f in fields)}"] if fields else []
        return [*before, f"for cell in {cells}:", *indented([*head, *body])]

    def _kept(self, named: Mapping[Node, str], later: Sequence[Node], turns: Path) -> Lines:
        """Named tensors that a later loop needs, if it needs them in the same blocks only."""
        found: dict[Node, str] = {}
        stack, seen = list(later), set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in named and node not in self.cell and self._may_be_kept(node, turns):
                found[node] = named[node]
            else:
                stack.extend(self.operands(node))
        self.cell |= found
        return [f"cell.{name} = {name}" for name in found.values()]

    def _may_be_kept(self, node: Node, turns: Path) -> bool:
        computed = (bool(node.args) or node.op == "random") and node not in self.numbers and node not in self.rolled
        own = not shares_memory(node) and not chooses_whole(node, self.numbers)
        return computed and own and self.paths.get(node, ())[: len(turns)] == turns

    # ----------------------------------------------------------------------------------------------------- reductions

    def _later(self, crossed: set[Node]) -> list[Node]:
        rest = [a for mark, b in self.plan.barriers.items() if mark not in crossed for a in b.args]
        return [*self.program.roots(), *rest]

    def _gather(self, barriers: Sequence[Barrier], crossed: set[Node]) -> Lines:
        """Parts from every parameter, then one value made of them."""
        gathers = [self._named(b) for b in barriers]
        lines: Lines = []
        for g in gathers:
            for name in [g.parts, *([f"{g.parts}_sizes"] if g.barrier.op == "mean" else [])]:
                lines += self._each(g, f"{g.owned(name)} = []")
        for common in (True, False):
            lines += self._collect([g for g in gathers if (g.barrier.mark in self.of_all) is common], crossed, common)
        for g in gathers:
            lines += self._whole(g)
            (self.team if g.per_group else self.model)[g.barrier.mark] = g.result
        return lines

    def _each(self, g: Gather, line: str) -> Lines:
        """A line for the value of a reduction: for each group, or one."""
        return [f"for team in {self._owners(g.barrier.mark)}:", f"    {line}"] if g.per_group else [line]

    def _collect(self, gathers: Sequence[Gather], crossed: set[Node], common: bool) -> Lines:
        """The loops that collect parts: from the parameters of one rule or of all."""
        of_teams = [g for g in gathers if g.barrier.args[0].type.extent.level == "group"]
        cells = [want for g in gathers if g not in of_teams for want in self._parts(g)]
        teams = [Want(g.barrier.args[0], template=f"{g.parts}.append({{}})") for g in of_teams]
        lines = self._loop(cells, [], self._later(crossed), cells="everyone" if common else "cells") if cells else []
        if teams:
            lines += self._for_all([want.node for want in teams])
            inner, _ = write(teams, self._team_scene(), self.names)
            lines += [f"for team in {'all_teams' if common else 'teams'}:", *indented(inner)]
        return lines

    def _named(self, barrier: Barrier) -> Gather:
        assert barrier.value is not None
        result = self._result(barrier)
        return Gather(barrier, self.names.fresh(f"{result}_parts"), result, barrier.value.level == "group")

    def _result(self, barrier: Barrier) -> str:
        made = ir.make(barrier.op, barrier.args, barrier.value)
        return self.names.fresh(self._called(barrier.mark) or wish(made, self._called), barrier.mark in self.labels)

    def _parts(self, g: Gather) -> list[Want]:
        """What one parameter adds."""
        arg, op = g.barrier.args[0], g.barrier.op
        sink = f"{g.owned(g.parts, 'cell.team')}.append({{}})"
        many = arg.type.extent.level == "array"
        if op == "quantile":
            return [Want(arg, template=sink.format(self._all_of_it(arg)) if many else sink)]
        if op == "count":
            size = ir.make("count", (arg,), TENSOR) if many else ir.const(1)
            self.numbers.known[size] = True
            return [Want(size, template=sink)]
        inner = ir.make("sum" if op == "mean" else op, (arg,), TENSOR) if many else arg
        self.numbers.known.setdefault(inner, inner in self.numbers)
        wants = [Want(inner, template=sink)]
        if op == "mean":
            size = ir.make("count", (arg,), TENSOR) if many else ir.const(1)
            self.numbers.known[size] = True
            wants.append(Want(size, template=sink.replace(g.parts, f"{g.parts}_sizes", 1)))
        return wants

    def _all_of_it(self, arg: Node) -> str:
        """A value of matrices with as many elements as its extent says, where it is written with fewer."""
        shape = shape_text(arg.type.extent)
        if arg in self.numbers:
            return f"_alike({{}}, home).expand({shape})" if arg in self.numbers.moving else f"home.new_full({shape}, {{}})"
        return f"torch.broadcast_to({{}}, {shape})" if is_alone(arg) else "{}"

    def _whole(self, g: Gather) -> Lines:
        """The value of all parts together."""
        parts, op = g.owned(g.parts), g.barrier.op
        if op == "quantile":
            return self._quantile(g, parts)
        made = f"_vector({parts}, home).{'sum' if op in ('mean', 'count') else op}()"
        if op == "mean":
            sizes = f"len({parts})" if g.barrier.args[0].type.extent.level == "group" else f"sum({parts}_sizes)"
            made = f"{made} / {sizes}"
        elif op == "count" and g.barrier.args[0].type.extent.level == "group":
            made = f"home.new_full((), len({parts}))"
        return self._each(g, f"{g.owned(g.result)} = {made}")

    def _quantile(self, g: Gather, parts: str) -> Lines:
        want = Want(g.barrier.args[1], template=f"{g.owned(g.result)} = _quantile(_together({parts}, home), {{}})")
        before = self._for_all([want.node])
        scene = self._shared_scene("group" if g.per_group else "model", [want.node])
        lines, _ = write([want], scene, self.names)
        return [*before, f"for team in {self._owners(g.barrier.mark)}:", *indented(lines)] if g.per_group else [*before, *lines]

    # ----------------------------------------------------------------------------------------------- asking the model

    def _ask(self, barrier: Barrier, crossed: set[Node]) -> Lines:
        """A gradient or the loss at other weights or a product with the Hessian, for all parameters at once."""
        result = self._result(barrier)
        points = self.names.fresh("vectors" if barrier.op == "hvp" else "points")
        turns = self._turns(barrier)
        condition = self._condition(turns)
        before = self._for_all([barrier.args[0]])  # not inside the `if`
        lines = [
            f"{points} = []",
            *self._loop([Want(barrier.args[0], template=f"{points}.append({{}})")], [], self._later(crossed), turns),
            *self._answers(barrier, result, f"self, closure, [cell.param for cell in cells], {points}, random_state"),
        ]
        if condition is None:
            return [*before, *lines]
        unasked = [f"cell.{result} = None"] if barrier.mark in self.cell else []
        start = [] if unasked else [f"{result} = home.new_full((), math.nan)"]
        asked = self._loop([Want(condition, template="asked = asked or ({})")], unasked)
        return [*before, "asked = False", *start, *asked, "if asked:", *indented(lines)]

    def _answers(self, barrier: Barrier, result: str, given: str) -> Lines:
        """What the model answers, and where it is kept: one loss for all, else a tensor with each cell."""
        if barrier.op == "loss_at":
            self.model[barrier.mark] = result
            return [f"{result} = _loss_at({given}, home)", 'if cells[0].group["maximize"]:', f"    {result} = -{result}"]
        answers = self.names.fresh(f"{result}s")
        self.cell[barrier.mark] = result
        return [
            f"{answers} = {'_gradients' if barrier.op == 'grad' else '_hessian_products'}({given})",
            f"for cell, {result} in zip(cells, {answers}):",
            f'    cell.{result} = (-{result} if cell.group["maximize"] else {result}).to(cell.dtype)',
        ]

    def _turns(self, barrier: Barrier) -> Path:
        """The blocks on numbers known before the step that hold all uses of a barrier, from the outside."""
        path = self.paths.get(barrier.mark, ())
        certain = next((i for i, (condition, _, _) in enumerate(path) if condition not in self.numbers), len(path))
        return path[:certain]

    def _condition(self, turns: Path) -> Node | None:
        """What must hold for a parameter to be in these blocks; None: nothing."""
        whole: Node | None = None
        for condition, side, _ in turns:
            one = condition if side else _opposite(condition)
            whole = one if whole is None else ir.make("and", (whole, one))
        for node in ir.walk([whole] if whole is not None else []):
            self.numbers.known.setdefault(node, True)
        return whole

    @cached_property
    def paths(self) -> dict[Node, Path]:
        """For each expression the blocks around all its uses, those by way of barriers included."""
        scene, roots = self.cell_scene(True), self.program.roots()
        paths: dict[Node, Path] = dict.fromkeys(roots, ())

        def use(node: Node, path: Path) -> None:
            paths[node] = _prefix(paths[node], path) if node in paths else path

        for node in reversed(ir.walk(roots, self._below)):
            path = paths[node]
            if scene.is_if(node):
                use(node.args[0], path)
                use(node.args[1], (*path, (node.args[0], True, None)))
                use(node.args[2], (*path, (node.args[0], False, None)))
            else:
                gathered = node in self.plan.barriers and self.plan.barriers[node].op not in CALLS  # in every step
                for arg in self._below(node):
                    use(arg, () if gathered else path)
        return paths

    def _below(self, node: Node) -> tuple[Node, ...]:
        barrier = self.plan.barriers.get(node)
        return self.operands(node) if barrier is None else barrier.args


def _prefix(a: Path, b: Path) -> Path:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return a[:length]


def _opposite(condition: Node) -> Node:
    """Where it does not hold, as one would write it."""
    other = {"eq": "ne", "ne": "eq"}.get(condition.op)
    return ir.make("not", (condition,)) if other is None else ir.make(other, condition.args)
