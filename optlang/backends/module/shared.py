"""Values per group and per model in generated modules: computed once for all parameters concerned, and kept in the state of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from optlang import ir
from optlang.backends.module.capturing import is_rate
from optlang.backends.module.layout import Lines, bracketed, indented
from optlang.backends.module.leaves import Words, shared_leaves
from optlang.backends.module.scene import Rolled, Scene, Want
from optlang.backends.module.section import write
from optlang.backends.module.update import Update
from optlang.backends.module.wishes import wish
from optlang.ir import Node, Program
from optlang.plan import Barrier
from optlang.printing.python_text import quoted

KINDS = {"bool": "torch.bool", "int": "torch.int64"}


class Shared(Update):
    """What several parameters share. In a route, a rule that looks around shares some of it with the parameters of all rules."""

    def __init__(
        self, program: Program, words: Words, always_matrix: bool, rolled: Mapping[Node, Rolled], looks_around: bool = False
    ) -> None:
        super().__init__(program, words, always_matrix, rolled)
        self.looks_around = looks_around
        self.agreed: set[str] = set()  # settings that are known to be the same in all groups, and bound
        common = [b for level in self.levels() for b in level if b.mark in self.plan.common] if looks_around else []
        self.roots_of_all = [b.args[0] for b in common]
        self.of_all = {b.mark for b in common}.union(ir.walk(self.roots_of_all, self.operands))  # what others have as well

    def levels(self) -> list[list[Barrier]]:
        """What has to be known of several parameters, in the order in which it can be."""
        return self.plan.levels(self.program.roots(), [tuple(None for _ in self.plan.conditions)])

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
                stack.extend(self.operands(node))
        return list(found)

    def _model_values(self, nodes: Iterable[Node]) -> Lines:
        wants = [(n, self.names.fresh(self._wish(n), n in self.labels)) for n in dict.fromkeys(nodes) if n not in self.model]
        if not wants:
            return []
        scene = self._unlabelled(self._shared_scene("model", [n for n, _ in wants]), wants)
        lines, named = write([Want(n, template=f"{name} = {{}}") for n, name in wants], scene, self.names)
        self.agreed |= self._bound(lines)
        self.model |= {n: name for n, name in named.items() if n.type.extent.level == "model"} | dict(wants)
        return lines

    def _bound(self, lines: Lines) -> set[str]:
        """The settings and states of all parameters that some lines bind, outside of any `if`."""
        heads = [line.partition(" = ") for line in lines if not line.startswith(" ")]
        bound = {word for names, _, value in heads if value.startswith(("_agreed(", "cells[0].state[")) for word in names.split(", ")}
        return bound & {*self.words.hypers.values(), *self.words.states.values()}

    def _team_values(self, nodes: Iterable[Node]) -> Lines:
        missing = [n for n in dict.fromkeys(nodes) if n not in self.team]
        lines: Lines = []
        for some in ([n for n in missing if n in self.of_all], [n for n in missing if n not in self.of_all]):
            wants = [(n, self.names.fresh(self._wish(n), n in self.labels)) for n in some]
            scene = self._unlabelled(self._team_scene(), wants)
            made, _ = write([Want(n, template=f"team.{name} = {{}}") for n, name in wants], scene, self.names)
            self.team |= dict(wants)
            lines += [f"for team in {self._owners(some[0])}:", *indented(made)] if some else []
        return lines

    def _owners(self, node: Node) -> str:
        """The groups that have a value per group."""
        return "all_teams" if node in self.of_all else "teams"

    def _shared_scene(self, level: str, nodes: Iterable[Node]) -> Scene:
        """Of code for these values of a group, or of all parameters."""
        if level == "group":
            return self._team_scene()
        certain = set(ir.walk(nodes, lambda node: node.args[:1] if node.op == "branch" else self.operands(node)))
        leaves = shared_leaves(self.words, "model", certain)
        leaves |= {node: (text, "") for node, (text, line) in leaves.items() if line and text in self.agreed and not is_rate(node)}
        return self.scene("model", leaves, self.model, {})

    def _team_scene(self) -> Scene:
        leaves = shared_leaves(self.words, "group") | {n: (name, f"team.{name}") for n, name in self.team.items()}
        return self.scene("group", leaves, self.model, {})

    @staticmethod
    def _unlabelled(scene: Scene, wants: Sequence[tuple[Node, str]]) -> Scene:
        """What gets its name from the line that stores it needs no other."""
        asked = {node for node, _ in wants}
        labels = {node: label for node, label in scene.labels.items() if node not in asked}
        return replace(scene, labels=labels, promised=dict(wants))

    def _wish(self, node: Node) -> str:
        if node.op == "state":
            return f"old_{self.words.states[node.value]}"
        if node.op == "input":
            return f"given_{self.words.inputs[node.value]}"
        known = next((n for n, u in self.program.updates.items() if u is node), None)
        return f"new_{self.words.states[known]}" if known else self._called(node) or wish(node, self._called)

    def _called(self, node: Node) -> str:
        """What the rule calls a value, or nothing."""
        return self.labels.get(node) or self.inner.get(node) or self.model.get(node, "")

    # ------------------------------------------------------------------------------------------------ states, reports

    def shared_states(self) -> Lines:
        """States per group or model: one tensor in the state of every parameter concerned."""
        lines: Lines = []
        for s in self.program.states:
            level = s.type.extent.level
            if level in ("group", "model"):
                key, owner = quoted(s.name), "team.cells" if level == "group" else "cells"
                more = f", size=({s.type.window},)" * bool(s.type.window)
                more += f", dtype={KINDS[s.type.kind]}" if s.type.kind in KINDS else ""
                want = Want(s.init, template=f"_share({owner}, {key}, home, lambda: {{}}{more})")
                start, _ = write([want], self._shared_scene(level, []), self.names)
                lines += ["for team in teams:", *indented(start)] if level == "group" else start
        return lines

    def _stored(self, new: Sequence[tuple[ir.State, Node]], groups: str) -> Lines:
        """The new values of shared states, for every parameter that has a state: those without a gradient included."""
        lines: Lines = []
        for level, own, cells in (("group", "[team.group]", "team.cells"), ("model", groups, "cells")):
            made: Lines = []
            entries = []
            for s, node in (one for one in new if one[0].type.extent.level == level):
                before, text = self._value(node, level)
                made += before
                entries.append(f"{quoted(s.name)}: {text}")
            made += bracketed(f"_store(self.state, {own}, {cells}, {{", entries, "})")
            if entries:
                lines += ["for team in teams:", *indented(made)] if level == "group" else made
        return lines

    def _value(self, node: Node, level: str) -> tuple[Lines, str]:
        """A value of a group or of all, and the lines that compute it where it is not known by now."""
        if node in self.model or node in self.team:
            return [], self.model[node] if node in self.model else f"team.{self.team[node]}"
        name = self.names.fresh("value")
        lines, _ = write([Want(node, template=f"{name} = {{}}")], self._shared_scene(level, [node]), self.names)
        return lines, name

    def _reports(self, reports: Mapping[str, Node]) -> Lines:
        if not reports:
            return []
        before = self._for_all([n for n in reports.values() if n not in self.numbers])
        wants = [Want(n, template=f"self.reports[{quoted(name)}] = _report({{}})") for name, n in reports.items()]
        lines, _ = write(wants, self._shared_scene("model", reports.values()), self.names)
        return [*before, *lines]


