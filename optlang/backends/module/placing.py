"""Where the expressions of a section stand: before an `if`, or inside the side that alone needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from optlang.backends.module.scene import Path, Scene, TooDeep, Turn, Want, common
from optlang.ir import Node, walk

Sharing = Literal["all", "phase", "none"]  # which branches of one condition stand under one `if`
DEEPEST = 60


class Places:
    """For each expression the innermost block that holds all its uses: `paths`. Raises TooDeep."""

    def __init__(self, wants: Sequence[Want], order: Sequence[Node], scene: Scene, sharing: Sharing) -> None:
        self.scene, self.sharing = scene, sharing
        self.phases = self._phases(order) if sharing == "phase" else {}
        self.paths = self._paths(wants, order)

    def turn(self, node: Node, side: bool) -> Turn:
        return node.args[0], side, self.phases.get(node) if self.sharing != "none" else node

    def holds(self, branch: Node, path: Path) -> bool:
        """Whether a path lies inside one of the sides of a branch."""
        outer = self.paths[branch]
        inside = len(path) > len(outer) and path[: len(outer)] == outer
        return inside and path[len(outer)] in (self.turn(branch, True), self.turn(branch, False))

    def excludes(self, one: Path, other: Path) -> bool:
        """Whether of two blocks only one is run: they are the two sides of an `if`. By a number on the device both may be."""
        for a, b in zip(one, other, strict=False):
            if a[:2] != b[:2]:
                return a[0] is b[0] and a[0] not in self.scene.numbers.moving
        return False

    def _phases(self, order: Sequence[Node]) -> dict[Node, int]:
        """How many blocks of the same condition must be over before each block begins."""
        below: dict[Node, dict[Node, int]] = {}  # for each expression: the blocks under it that come last, by condition
        found: dict[Node, int] = {}
        for node in order:
            last: dict[Node, int] = {}
            for arg in self.scene.operands(node):
                for condition, phase in below[arg].items():
                    last[condition] = max(phase, last.get(condition, 0))
            if self.scene.is_if(node):
                found[node] = last[node.args[0]] = last.get(node.args[0], -1) + 1
            below[node] = last
        return found

    def _paths(self, wants: Sequence[Want], order: Sequence[Node]) -> dict[Node, Path]:
        paths: dict[Node, Path] = {}

        def use(node: Node, path: Path) -> None:
            if node not in paths:
                paths[node] = path
                return
            shared = common(paths[node], path)
            guards = _guards(paths[node][len(shared) :], path[len(shared) :])
            if self.sharing == "none":  # an `if` of its own, too
                guards = tuple((condition, side, node) for condition, side, _ in guards)
            paths[node] = (*shared, *guards)
            for part in walk([condition for condition, _, _ in guards]):  # which are known as far out
                paths[part] = common(paths.get(part, shared), shared)

        for want in wants:
            use(want.node, ())
        for node in reversed(order):
            path = paths[node]
            if len(path) > DEEPEST:
                raise TooDeep
            if self.scene.is_if(node):
                use(node.args[0], path)
                use(node.args[1], (*path, self.turn(node, True)))
                use(node.args[2], (*path, self.turn(node, False)))
            else:
                for arg in self.scene.operands(node):
                    use(arg, path)
        return paths


def _guards(a: Path, b: Path) -> Path:
    """What holds in both of two blocks that differ and is known before the step: elsewhere a value may have no meaning, as a product
    of vectors, or read a state that is not there."""
    others = {turn[:2] for turn in b}
    return tuple(turn for turn in a if turn[:2] in others and is_static(turn[0]))


def is_static(condition: Node) -> bool:
    """Whether shapes and settings decide."""
    return all(node.args or node.op in ("const", "fact", "hyper") for node in walk([condition]))
