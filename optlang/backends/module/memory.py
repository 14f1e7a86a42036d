"""Which states take their new values where these are computed, and which results share memory with an operand."""

from __future__ import annotations

from collections import Counter

from optlang.backends.module.placing import Places, is_static
from optlang.backends.module.scene import Path, Scene
from optlang.backends.module.spell import chooses_whole
from optlang.ir import Node
from optlang.ops import OPS
from optlang.types import reduced_dims

ALIASES = frozenset(["transpose", "as_matrix", "as_param", "spread", "branch"])


class Memory:
    """Of one section. `kept`: states whose old values are needed to the end; `guarded`: branches may hold states that do not exist."""

    def __init__(self, scene: Scene, places: Places, uses: Counter[Node], kept: set[Node], guarded: bool) -> None:
        self.scene, self.places, self.uses, self.kept, self.guarded = scene, places, uses, kept, guarded
        self.claims: dict[Node, Node] = {}  # by expression the state, or `w`, that takes it in place
        self.fresh: dict[Node, bool] = {}

    def claim(self, node: Node, path: Path, leaf: Node) -> list[tuple[Node, Path, Node]]:
        """Lets a state take its new value where it is computed, side by side; answers with what must be copied instead."""
        copies = []
        stack = [(node, path)]
        while stack:
            node, path = stack.pop()
            if node is leaf:
                continue
            apart = leaf in self.kept and not self._guards(node, leaf)
            free = not apart and node not in self.claims and self.places.paths[node] == path and bool(self.scene.operands(node))
            free = free and (self.uses[node] == 1 or (leaf.op != "w" and node.type.extent == leaf.type.extent))  # others meet the shape
            if free and self.scene.is_if(node):
                self.claims[node] = leaf
                stack += [(node.args[2], (*path, self.places.turn(node, False))), (node.args[1], (*path, self.places.turn(node, True)))]
            elif free and leaf not in self.kept and self._has_own_memory(node):
                self.claims[node] = leaf
            else:
                copies.append((node, path, leaf))
        return copies

    def _has_own_memory(self, node: Node) -> bool:
        """Whether an expression is a tensor that is computed, so that a state may take it in place."""
        return node not in self.scene.numbers and node not in self.scene.rolled and node.op != "random" and not shares_memory(node)

    def _guards(self, node: Node, leaf: Node) -> bool:
        """Whether a branch holds a state where a static condition fails: there it may not exist at all."""
        if not (self.guarded and self.scene.is_if(node) and leaf in node.args[1:]):
            return False
        return is_static(node.args[0])

    def is_fresh(self, node: Node) -> bool:
        """Whether a value has memory of its own."""
        if not self.scene.operands(node) or node in self.scene.rolled or node in self.claims:
            return False
        if node not in self.fresh:
            self.fresh[node] = not self.is_alias(node) or all(self.is_fresh(n) for n in self._shared_with(node))
        return self.fresh[node]

    @staticmethod
    def _shared_with(alias: Node) -> tuple[Node, ...]:
        """The operands whose memory an alias may have."""
        return alias.args[1:] if alias.op in ("branch", "where") else alias.args

    def is_alias(self, node: Node) -> bool:
        """Whether a result shares memory with an operand; a choice that is made for each element has its own."""
        if node.op == "where":
            return chooses_whole(node, self.scene.numbers)
        return shares_memory(node) and (node.op != "branch" or self.scene.is_if(node))

    def around(self, path: Path, leaf: Node) -> set[Node]:
        """The branches around a block whose new value a state takes."""
        return {n for n, claimed in self.claims.items() if claimed is leaf and self.scene.is_if(n) and self.places.holds(n, path)}


def shares_memory(node: Node) -> bool:
    """Whether a result may lie in the memory of an operand: so does the sum of one value each."""
    if OPS[node.op].role != "reduce":
        return node.op in ALIASES
    return node.value != "window" and node.op not in ("count", "quantile") and reduced_dims(node.args[0].type.extent, node.value) == ()
