"""Random draws in kernels. Those of one distribution come from a loop, some at once: compilers would make them side by side, with
more registers than there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optlang.ir import Node

AT_ONCE = 4  # draws that one loop makes


def loops(nodes: Sequence[Node]) -> dict[Node, list[Node]]:
    """The draws of each loop by the first of them; one alone needs none."""
    kinds: dict[str, list[Node]] = {}
    for node in nodes:
        if node.op == "random":
            kinds.setdefault(node.value[0], []).append(node)
    parts = [some[first : first + AT_ONCE] for some in kinds.values() for first in range(0, len(some), AT_ONCE)]
    return {part[0]: part for part in parts if len(part) > 1}


def loop(draws: Sequence[Node], names: Mapping[Node, str], shape: str, number: str) -> list[str]:
    """The lines of one loop."""
    lines = [f"{names[node]} = tl.zeros({shape}, {number})" for node in draws]
    lines += [f"for turn in range(0, {len(draws)}):", f"    site = {_site(draws[0])}"]
    lines += [f"    site = tl.where(turn == {turn}, {_site(node)}, site)" for turn, node in enumerate(draws[1:], 1)]
    lines.append(f"    drawn = {_words(draws[0].value[0], 'site')}.to({number})")
    return lines + [f"    {names[node]} = tl.where(turn == {turn}, drawn, {names[node]})" for turn, node in enumerate(draws)]


def draw(node: Node, number: str) -> str:
    """One draw for each element of a block."""
    return f"{_words(node.value[0], _site(node))}.to({number})"


def _words(distribution: str, site: str) -> str:
    return f"draw_{distribution}(*philox(i, t, {site}, seed, stream))"


def _site(node: Node) -> str:
    return f"tl.full((), {node.value[1]}, tl.uint32)"
