"""Statements in an order in which they may run, and their text with its indentation."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from optlang.backends.module.scene import Cycle, If, Item, Line, Path, Reads, Scene
from optlang.ir import Node
from optlang.printing.precedence import Piece

LONG = 100
HOLDS = "holds"  # a condition that may be a tensor, on each of its sides


def arranged(path: Path, made: Sequence[Line], pieces: Mapping[Node, Piece], reads: Mapping[Node, Reads]) -> list[Item]:
    """The statements of a block, those of deeper blocks inside their `if`."""
    items: list[Item] = []
    deeper: dict[tuple[Node, Node | int | None], list[Line]] = {}
    for line in made:
        if line.path == path:
            items.append(line)
        elif line.path[: len(path)] == path:
            condition, _, own = line.path[len(path)]
            deeper.setdefault((condition, own), []).append(line)
    for (condition, own), inside in deeper.items():
        known = reads[condition]
        head = Line(path, [pieces[condition].text], set(), set(known.needs), set(known.old), set(), inside[0].rank)
        sides = [arranged((*path, (condition, side, own)), inside, pieces, reads) for side in (True, False)]
        items.append(_if(condition, head, (sides[0], sides[1]), inside))
    return items


def _if(condition: Node, head: Line, sides: tuple[list[Item], list[Item]], inside: Sequence[Line]) -> If:
    found = If(condition, sides, head, rank=min(line.rank for line in inside))
    found.fills = [*dict.fromkeys(line.fills for line in inside if line.fills and len(line.path) == len(head.path) + 1)]
    for line in inside:
        found.defines |= line.defines
        found.writes |= line.writes
    found.needs = head.needs.union(*(line.needs for line in inside)) - found.defines
    found.old = head.old.union(*(line.old for line in inside))
    return found


def in_order(items: list[Item]) -> list[Item]:
    """Definitions before uses, reads of old states before their writes; else as they were made. Raises Cycle."""
    before = _before(items)
    users: dict[int, list[int]] = {}
    for place, needed in enumerate(before):
        for other in needed:
            users.setdefault(other, []).append(place)
    waiting = [len(needed) for needed in before]
    heap = [(items[i].rank, i) for i, count in enumerate(waiting) if not count]
    heapq.heapify(heap)
    order: list[Item] = []
    while heap:
        _, place = heapq.heappop(heap)
        order.append(items[place])
        for user in users.get(place, []):
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(heap, (items[user].rank, user))
    if len(order) < len(items):
        raise Cycle({leaf for item, count in zip(items, waiting, strict=True) if count for leaf in item.writes})
    for item in order:
        if isinstance(item, If):
            item.sides = (in_order(item.sides[0]), in_order(item.sides[1]))
    return order


def _before(items: Sequence[Item]) -> list[set[int]]:
    """For each statement those that must come before it."""
    makers: dict[Node, list[int]] = {}
    writers: dict[Node, list[int]] = {}
    for place, item in enumerate(items):
        for node in item.defines:
            makers.setdefault(node, []).append(place)
        for leaf in item.writes:
            writers.setdefault(leaf, []).append(place)
    before: list[set[int]] = [set() for _ in items]
    for place, item in enumerate(items):
        for node in item.needs:
            before[place].update(other for other in makers.get(node, []) if other != place)
        for leaf in item.old:
            for other in writers.get(leaf, []):
                if other != place:
                    before[other].add(place)
    return before


# -------------------------------------------------------------------------------------------------------- printing


def printed(items: Sequence[Item], scene: Scene, bound: frozenset[Node] = frozenset()) -> list[str]:
    """The lines of a block; leaves are bound where the first block begins that needs them."""
    here = _to_bind(items, scene, bound)
    bound |= frozenset(here)
    lines = bindings([scene.leaves[leaf] for leaf in here])
    for item in items:
        if isinstance(item, Line):
            lines.extend(item.text)
        else:
            inner = _printed_if(item, scene, bound)
            lines.extend(_parted(item, inner, scene) if _is_parted(item, scene) else inner)
    return lines


def _parted(item: If, lines: list[str], scene: Scene) -> list[str]:
    """An `if` by a number that may lie on the device, where torch chooses what the two sides leave."""
    written = [scene.targets[leaf] for leaf in scene.targets if leaf in item.writes]
    return [f"for {HOLDS} in _sides({', '.join([item.head.text[0], *written, *item.fills])}):", *(f"    {line}" for line in lines)]


def _is_parted(item: If, scene: Scene) -> bool:
    return item.condition in scene.numbers.moving


def _printed_if(item: If, scene: Scene, bound: frozenset[Node]) -> list[str]:
    sides = [printed(side, scene, bound) for side in item.sides]
    condition = HOLDS if _is_parted(item, scene) else item.head.text[0]
    condition = condition if item.condition in scene.numbers else f"_holds({condition})"
    if not sides[0]:
        sides, condition = [sides[1], []], f"not {condition}" if condition.isidentifier() else f"not ({condition})"
    if not sides[1] and _is_one_if(sides[0]):
        inner = sides[0][0].removeprefix("if ").removesuffix(":")
        return [f"if {_joined(condition)} and {_joined(inner)}:", *sides[0][1:]]
    lines = [f"if {condition}:", *(f"    {line}" for line in sides[0])]
    if not sides[1]:
        return lines
    if len(item.sides[1]) == 1 and isinstance(item.sides[1][0], If) and sides[1][0].startswith("if "):
        return [*lines, f"el{sides[1][0]}", *sides[1][1:]]
    return [*lines, "else:", *(f"    {line}" for line in sides[1])]


def _is_one_if(lines: list[str]) -> bool:
    """Whether a block is one `if` without an `else`."""
    return lines[0].startswith("if ") and lines[0].endswith(":") and all(line.startswith("    ") for line in lines[1:])


def _joined(condition: str) -> str:
    """A condition as an operand of `and`."""
    return f"({condition})" if " or " in condition or " if " in condition else condition


def _to_bind(items: Sequence[Item], scene: Scene, bound: frozenset[Node]) -> list[Node]:
    """The leaves that this block itself needs, or things under different conditions in it."""
    own: dict[Node, set[str]] = {}
    direct: set[Node] = set()
    for item in items:
        for leaf in item.needs | _rewritten(item, scene):
            if leaf in scene.leaves and leaf not in bound and scene.leaves[leaf][1]:
                own.setdefault(leaf, set()).add("" if isinstance(item, Line) else item.head.text[0])
                named = isinstance(item, If) and _is_parted(item, scene) and leaf in _rewritten(item, scene)
                if isinstance(item, Line) or leaf in item.head.needs or named or _on_both_sides(item, leaf, scene):
                    direct.add(leaf)
    order = list(scene.leaves)
    return sorted((leaf for leaf, conditions in own.items() if len(conditions) > 1 or leaf in direct), key=order.index)


def _on_both_sides(item: If, leaf: Node, scene: Scene) -> bool:
    return all(any(leaf in x.needs | _rewritten(x, scene) for x in side) for side in item.sides)


def _rewritten(item: Item, scene: Scene) -> set[Node]:
    """States that are changed under the name under which they are read."""
    return {leaf for leaf in item.writes if scene.targets[leaf] == scene.leaves[leaf][0]}


def bindings(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`a, b = state["a"], state["b"]`: up to four values of one kind in a line that is not too long."""
    lines: list[str] = []
    group: list[tuple[str, str]] = []
    for name, value in pairs:
        alike = bool(group) and _kind(value) == _kind(group[0][1]) != ""
        if group and (not alike or len(group) == 4 or len(_together([*group, (name, value)])) > LONG):
            lines.append(_together(group))
            group = []
        group.append((name, value))
    return [*lines, _together(group)] if group else lines


def _kind(value: str) -> str:
    return value.partition("[")[0] if value.endswith("]") else ""


def _together(group: Sequence[tuple[str, str]]) -> str:
    pair = group[0][1].removesuffix("[0]")
    if [value for _, value in group] == [f"{pair}[0]", f"{pair}[1]"]:  # two of two: both betas
        return f"{group[0][0]}, {group[1][0]} = {pair}"
    return f"{', '.join(name for name, _ in group)} = {', '.join(value for _, value in group)}"
