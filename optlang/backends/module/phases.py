"""Updates in which parameters depend on each other: collect them, then one loop for each value that needs them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from optlang import ir
from optlang.backends.module.leaves import shared_leaves
from optlang.backends.module.memory import shares_memory
from optlang.backends.module.scene import Path, Scene, Want
from optlang.backends.module.section import write
from optlang.backends.module.spell import quoted, shape_text
from optlang.backends.module.update import PLACES, Lines, Update, indented, mentions
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import Barrier
from optlang.types import TENSOR

FIELDS = ("param", "group", "state", "dtype")
RESULT = {"sum": "total", "mean": "average", "amax": "largest", "amin": "smallest", "grad": "gradient", "hvp": "product",
          "loss_at": "loss_there"}  # fmt: skip
TEAMS = [
    "teams = []",
    "for cell in cells:",
    "    if not teams or teams[-1].group is not cell.group:",
    "        teams.append(SimpleNamespace(group=cell.group, number=cell.number, cells=[]))",
    "    teams[-1].cells.append(cell)",
    "    cell.team = teams[-1]",
]


@dataclass(frozen=True, slots=True)
class Gather:
    """A reduction over parameters: `parts` collects what `result` is made of; both are attributes of a team where per group."""

    barrier: Barrier
    parts: str
    result: str
    per_group: bool

    def owned(self, name: str, owner: str = "team") -> str:
        return f"{owner}.{name}" if self.per_group else name


class Phases(Update):
    """Writes an update in several loops."""

    def body(self, first: Lines, groups: str) -> Lines:
        """The statements after the closure has been called."""
        lines = [*self._collected(first, groups), *self.shared_states()]
        crossed: set[Node] = set()
        nothing = tuple(None for _ in self.plan.conditions)
        for level in self.plan.levels(self.program.roots(), [nothing]):
            crossed |= {b.mark for b in level}
            gathers = [b for b in level if b.op not in CALLS]
            lines += self._gather(gathers, crossed) if gathers else []
            for barrier in level:
                lines += self._ask(barrier, crossed) if barrier.op in CALLS else []
        reports = self.program.reports or {}
        lines += self._reports(reports)
        shared = [s for s in self.program.states if s.type.extent.level in ("group", "model")]
        new = [(s, self.program.updates[s.name]) for s in shared if self.program.updates[s.name] is not s.node]
        lines += self._for_all([node for s, node in new])
        lines += self._loop(self.wants(), ['state["step"] += 1'])
        return [*lines, *self._stored(new, groups)]

    def _collected(self, first: Lines, groups: str) -> Lines:
        fields = ["param=param, group=group, number=number, state=state, dtype=dtype,",
                  f't=int(state["step"]) + 1,{" place=places[param]," if self.draws else ""}',
                  'g=(-param.grad if group["maximize"] else param.grad).to(dtype),']  # fmt: skip
        inner = [*self.before_update(first), "cells.append(SimpleNamespace(", *indented(fields), "))"]
        numbered = f"enumerate({groups})"
        if self.uses_teams and groups != "self.param_groups":  # in a route a group is known by its number among all
            numbered = f"((n, group) for n, group in enumerate(self.param_groups) if any(group is own for own in {groups}))"
        return [
            *([PLACES] if self.draws else []),
            "cells = []",
            f"for number, group in {numbered}:",
            '    for param in group["params"]:',
            *indented(inner, 2),
            "if not cells:",
            "    return loss",
            *(TEAMS if self.uses_teams else []),
        ]

    @property
    def uses_teams(self) -> bool:
        return any(n.type.extent.level == "group" for n in self.everything) or any(
            s.type.extent.level == "group" for s in self.program.states
        )

    # ---------------------------------------------------------------------------------------------------- loops

    def _loop(self, wants: Sequence[Want], more: Lines, later: Sequence[Node] = (), turns: Path = ()) -> Lines:
        """One loop over the cells; what later loops use again stays with the cell."""
        before = self._for_all([want.node for want in wants])
        body, named = write(wants, self.cell_scene(True), self.names)
        body = [*body, *self._kept(named, later, turns)]
        body = [*self.settings(body), *body, *more]
        fields = [f for f in FIELDS if mentions(body, f)]
        head = [f"{', '.join(fields)} = {', '.join(f'cell.{f}' for f in fields)}"] if fields else []
        return [*before, "for cell in cells:", *indented([*head, *body])]

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
                stack.extend(node.args)
        self.cell |= found
        return [f"cell.{name} = {name}" for name in found.values()]

    def _may_be_kept(self, node: Node, turns: Path) -> bool:
        computed = (bool(node.args) or node.op == "random") and node not in self.numbers and node not in self.loops
        return computed and not shares_memory(node) and self.paths.get(node, ())[: len(turns)] == turns

    # -------------------------------------------------------------------------------- values of several parameters

    def _for_all(self, roots: Iterable[Node]) -> Lines:
        """The values per model and per group that some expressions are about to read."""
        needed = self._shared_below(roots)
        per_group = [n for n in needed if n.type.extent.level == "group"]
        per_model = [n for n in needed if n.type.extent.level == "model"]
        per_model += [n for n in self._shared_below(per_group, through_groups=True) if n.type.extent.level == "model"]
        return [*self._model_values(per_model), *self._team_values(per_group)]

    def _shared_below(self, roots: Iterable[Node], through_groups: bool = False) -> list[Node]:
        found: dict[Node, None] = {}
        stack, seen = list(roots), set()
        while stack:
            node = stack.pop()
            if node in seen or node in self.model or node in self.team or node in self.cell:
                continue
            seen.add(node)
            level = node.type.extent.level
            if node not in self.numbers and (level == "model" or (level == "group" and not through_groups)):
                found[node] = None
            else:
                stack.extend(node.args)
        return list(found)

    def _model_values(self, nodes: Iterable[Node]) -> Lines:
        wants = [(n, self.names.fresh(self._wish(n))) for n in dict.fromkeys(nodes) if n not in self.model]
        if not wants:
            return []
        scene = self._unlabelled(self.scene("model", shared_leaves(self.words, "model"), self.model, {}), wants)
        lines, _ = write([Want(n, template=f"{name} = {{}}") for n, name in wants], scene, self.names)
        self.model |= dict(wants)
        return lines

    def _team_values(self, nodes: Iterable[Node]) -> Lines:
        wants = [(n, self.names.fresh(self._wish(n))) for n in dict.fromkeys(nodes) if n not in self.team]
        if not wants:
            return []
        scene = self._unlabelled(self._team_scene(), wants)
        lines, _ = write([Want(n, template=f"team.{name} = {{}}") for n, name in wants], scene, self.names)
        self.team |= dict(wants)
        return ["for team in teams:", *indented(lines)]

    def _team_scene(self) -> Scene:
        leaves = shared_leaves(self.words, "group") | {n: (name, f"team.{name}") for n, name in self.team.items()}
        return self.scene("group", leaves, self.model, {})

    @staticmethod
    def _unlabelled(scene: Scene, wants: Sequence[tuple[Node, str]]) -> Scene:
        """What gets its name from the line that stores it needs no line of its own."""
        asked = {node for node, _ in wants}
        return replace(scene, labels={node: label for node, label in scene.labels.items() if node not in asked})

    def _wish(self, node: Node) -> str:
        if node.op == "state":
            return f"old_{self.words.states[node.value]}"
        if node.op == "input":
            return f"given_{self.words.inputs[node.value]}"
        known = next((n for n, u in self.program.updates.items() if u is node), None)
        return f"new_{self.words.states[known]}" if known else self.labels.get(node, "x")

    # -------------------------------------------------------------------------------------------------- barriers

    def _later(self, crossed: set[Node]) -> list[Node]:
        rest = [a for mark, b in self.plan.barriers.items() if mark not in crossed for a in b.args]
        return [*self.program.roots(), *rest]

    def _gather(self, barriers: Sequence[Barrier], crossed: set[Node]) -> Lines:
        """Parts from every parameter, then one value made of them."""
        gathers = [self._named(b) for b in barriers]
        lines: Lines = []
        for g in gathers:
            for name in [g.parts, *([f"{g.parts}_sizes"] if g.barrier.op == "mean" else [])]:
                lines += ["for team in teams:", f"    team.{name} = []"] if g.per_group else [f"{name} = []"]
        of_teams = [g for g in gathers if g.barrier.args[0].type.extent.level == "group"]
        cells = [want for g in gathers if g not in of_teams for want in self._parts(g)]
        teams = [Want(g.barrier.args[0], template=f"{g.parts}.append({{}})") for g in of_teams]
        if cells:
            lines += self._loop(cells, [], self._later(crossed))
        if teams:
            lines += self._for_all([want.node for want in teams])
            inner, _ = write(teams, self._team_scene(), self.names)
            lines += ["for team in teams:", *indented(inner)]
        for g in gathers:
            lines += self._whole(g)
            (self.team if g.per_group else self.model)[g.barrier.mark] = g.result
        return lines

    def _named(self, barrier: Barrier) -> Gather:
        assert barrier.value is not None
        result = self.names.fresh(RESULT.get(barrier.op, barrier.op))
        return Gather(barrier, self.names.fresh("parts"), result, barrier.value.level == "group")

    def _parts(self, g: Gather) -> list[Want]:
        """What one parameter adds."""
        arg, op = g.barrier.args[0], g.barrier.op
        sink = f"{g.owned(g.parts, 'cell.team')}.append({{}})"
        many = arg.type.extent.level == "array"
        if op == "quantile":
            all_of_it = f"torch.full({shape_text(arg.type.extent)}, {{}}, dtype=torch.float64)"
            return [Want(arg, template=sink.format(all_of_it) if many and arg in self.numbers else sink)]
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

    def _whole(self, g: Gather) -> Lines:
        """The value of all parts together."""
        parts, op = g.owned(g.parts), g.barrier.op
        if op == "quantile":
            return self._quantile(g, parts)
        made = f"_vector({parts}).{'sum' if op in ('mean', 'count') else op}()"
        if op == "mean":
            sizes = f"len({parts})" if g.barrier.args[0].type.extent.level == "group" else f"sum({parts}_sizes)"
            made = f"{made} / {sizes}"
        elif op == "count" and g.barrier.args[0].type.extent.level == "group":
            made = f"torch.tensor(len({parts}), dtype=torch.float64)"
        line = f"{g.owned(g.result)} = {made}"
        return ["for team in teams:", f"    {line}"] if g.per_group else [line]

    def _quantile(self, g: Gather, parts: str) -> Lines:
        want = Want(g.barrier.args[1], template=f"{g.owned(g.result)} = _quantile(_together({parts}), {{}})")
        before = self._for_all([want.node])
        scene = self._team_scene() if g.per_group else self.scene("model", shared_leaves(self.words, "model"), self.model, {})
        lines, _ = write([want], scene, self.names)
        return [*before, "for team in teams:", *indented(lines)] if g.per_group else [*before, *lines]

    def _ask(self, barrier: Barrier, crossed: set[Node]) -> Lines:
        """A gradient or the loss at other weights or a product with the Hessian, for all parameters at once."""
        result = self.names.fresh(RESULT[barrier.op])
        points = self.names.fresh("vectors" if barrier.op == "hvp" else "points")
        turns = self._turns(barrier)
        condition = self._condition(turns)
        before = self._for_all([barrier.args[0]])  # not inside the `if`
        lines = [
            f"{points} = []",
            *self._loop([Want(barrier.args[0], template=f"{points}.append({{}})")], [], self._later(crossed), turns),
            *self._answers(barrier, result, f"(closure, [cell.param for cell in cells], {points}, random_state)"),
        ]
        if condition is None:
            return [*before, *lines]
        unasked = [f"cell.{result} = None"] if barrier.mark in self.cell else []
        start = [] if unasked else [f"{result} = torch.tensor(math.nan, dtype=torch.float64)"]
        asked = self._loop([Want(condition, template="asked = asked or ({})")], unasked)
        return [*before, "asked = False", *start, *asked, "if asked:", *indented(lines)]

    def _answers(self, barrier: Barrier, result: str, given: str) -> Lines:
        """What the model answers, and where it is kept: one loss for all, else a tensor with each cell."""
        if barrier.op == "loss_at":
            self.model[barrier.mark] = result
            return [f"{result} = _loss_at{given}", 'if cells[0].group["maximize"]:', f"    {result} = -{result}"]
        answers = self.names.fresh(f"{result}s")
        self.cell[barrier.mark] = result
        return [
            f"{answers} = {'_gradients' if barrier.op == 'grad' else '_hessian_products'}{given}",
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
            one = condition if side else ir.make("not", (condition,))
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
                for arg in self._below(node):
                    use(arg, path)
        return paths

    def _below(self, node: Node) -> tuple[Node, ...]:
        barrier = self.plan.barriers.get(node)
        return node.args if barrier is None else barrier.args

    # ----------------------------------------------------------------------------------------- shared states, reports

    def shared_states(self) -> Lines:
        """States per group or model: one tensor in the state of every parameter concerned."""
        lines: Lines = []
        for s in self.program.states:
            level = s.type.extent.level
            if level in ("group", "model"):
                key, owner = quoted(s.name), "team.cells" if level == "group" else "cells"
                size = f"({s.type.window},)" if s.type.window else "()"
                want = Want(s.init, template=f"found = [torch.full({size}, {{}}, dtype={_dtype(s)})]")
                start, _ = write([want], self._shared_scene(level), self.names)
                made = [
                    f"found = [cell.state[{key}] for cell in {owner} if {key} in cell.state]",
                    "if not found:",
                    *indented(start),
                    f"for cell in {owner}:",
                    f"    cell.state[{key}] = found[0].cpu()",
                ]
                lines += ["for team in teams:", *indented(made)] if level == "group" else made
        return lines

    def _shared_scene(self, level: str) -> Scene:
        return self._team_scene() if level == "group" else self.scene("model", shared_leaves(self.words, "model"), self.model, {})

    def _stored(self, new: Sequence[tuple[ir.State, Node]], groups: str) -> Lines:
        """The new values of shared states, for every parameter that has a state: those without a gradient included."""
        lines: Lines = []
        for s, node in new:
            level = s.type.extent.level
            window = f".expand({s.type.window}).clone()" if s.type.window else ""
            want = Want(node, template=f"value = torch.as_tensor({{}}, dtype={_dtype(s)}){window}")
            made, _ = write([want], self._shared_scene(level), self.names)
            store = ["    if param in self.state:", f"        self.state[param][{quoted(s.name)}] = value"]
            if level == "group":
                lines += ["for team in teams:", *indented([*made, 'for param in team.group["params"]:', *store])]
            else:
                lines += [*made, f"for group in {groups}:", '    for param in group["params"]:', *indented(store)]
        return lines

    def _reports(self, reports: Mapping[str, Node]) -> Lines:
        if not reports:
            return []
        before = self._for_all([n for n in reports.values() if n not in self.numbers])
        wants = [Want(n, template=f"self.reports[{quoted(name)}] = {_plain(n)}({{}})") for name, n in reports.items()]
        lines, _ = write(wants, self.scene("model", shared_leaves(self.words, "model"), self.model, {}), self.names)
        return [*before, *lines]


def _plain(node: Node) -> str:
    return "bool" if node.type.kind == "bool" else "float"


def _dtype(s: ir.State) -> str:
    return {"bool": "torch.bool", "int": "torch.int64"}.get(s.type.kind, "torch.float64")


def _prefix(a: Path, b: Path) -> Path:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return a[:length]
