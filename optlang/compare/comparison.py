"""How one rule becomes another: by structure, whatever their states, settings and equations are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from optlang import ir
from optlang.compare.alignment import Aligner, Change, Changes
from optlang.compare.difference import Difference, Edit, Row
from optlang.compare.pairing import Side, compared, distance, extents, in_common_names, pair, with_points
from optlang.ir import Node, Program
from optlang.printing.equations import definition, definitions
from optlang.printing.precedence import Piece

LEVELS = {"+": 4, "-": 5, "*": 5, "/": 6, "": -1}  # how tightly an operand of a sign must bind

Around = tuple[Node, Node] | None


def difference(a: Program, b: Program) -> Difference:
    """How the second rule differs from the first, by structure alone."""
    aligner = Aligner()
    return _compared(aligner, *pair(aligner, a, b))


def decided(a: Program, b: Program) -> Difference:
    """With the verdict on whether both take the same steps, settings corresponding as found."""
    from optlang.compare.equivalence import equivalent  # noqa: PLC0415 - NumPy, and SymPy where a proof is wanted

    aligner = Aligner()
    sides = pair(aligner, a, b)
    return replace(_compared(aligner, *sides), verdict=equivalent(*map(in_common_names, sides)))


def _compared(aligner: Aligner, a: Side, b: Side) -> Difference:
    length = distance(aligner, a, b)
    size = sum(aligner.size(node) for side in (a, b) for node in side.equations.values())
    finer = with_points(aligner, a, b)
    changes = compared(aligner, *finer)
    old, new = _Text(finer[0]), _Text(finer[1])
    names = a.program.name, b.program.name
    return Difference(names, _edits(changes, old, new), _rows(changes, old, new), _renamed(finer[1]), length, size)


def _renamed(second: Side) -> dict[str, str]:
    """Partners of different names, by those of the first rule."""
    points = [(name, point.rstrip(":")) for name, point in second.points.items()]
    pairs = [*second.states.items(), *second.hypers.items(), *points]
    return {mine: other for other, mine in pairs if mine != other and not mine.startswith("+")}


class _Text:
    """The equations of one side in its own words."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.own = {new: old for old, new in side.states.items()} | {point: name for name, point in side.points.items()}
        self.listed = definitions(side.program)
        named = [(name, node) for name, node in self.listed if (node.args or node.op == "random") and name != "w'"]
        names = {side.cut[node]: name for name, node in reversed(named)}
        roots = [*side.equations.values(), *side.cut.values()]
        self.names = names | self._leaves(roots)

    def _leaves(self, roots: list[Node]) -> dict[Node, str]:
        hypers = {new: old for old, new in self.side.hypers.items()}
        leaves = [node for node in ir.walk(roots) if node.op in ("state", "hyper")]
        return {node: self.name(node.value) if node.op == "state" else hypers.get(node.value) or node.value for node in leaves}

    def name(self, equation: str) -> str:
        """An equation's name in the rule's own words."""
        word, blank, rest = equation.partition(" ")
        if word.endswith("'"):
            return f"{self.own.get(word[:-1], word[:-1])}'"
        return self.own.get(word, word) + blank + rest

    def expression(self, node: Node) -> Piece:
        return definition(node, self.names)

    def part(self, node: Node | None, sign: str = "") -> str | None:
        """An expression, with the sign that it has as a part of a sum or product."""
        if node is None:
            return None
        written = Piece(self.names[node]) if sign and node in self.names else self.expression(node)
        return f"{sign} {written.inside(LEVELS[sign])}".lstrip()

    def lines(self, changes: Mapping[str, Changes]) -> Iterator[tuple[str, str]]:
        """Each equation with its key among `changes`, empty where it has no partner; starts of states only where they differ."""
        for name, node in self.listed:
            key = self._key(name)
            yield key, self.equation(key) if key else f"{name} = {self.expression(self.side.cut[node]).text}"
        for key, node in self.side.equations.items():
            if key.startswith(("eval", "report ")) or (" " in key and changes[key].cost and node is not ir.const(0)):
                yield key, self.equation(key)

    def _key(self, name: str) -> str:
        return f"{self.side.states.get(name[:-1], name[:-1])}'" if name.endswith("'") else self.side.points.get(name, "")

    def equation(self, key: str) -> str:
        """As a line."""
        text, name = self.expression(self.side.equations[key]).text, self.name(key)
        if key.endswith(" at first"):
            return f"{name.removesuffix(' at first')} = {text} at first"
        return f"{name} {text}" if key.endswith(" where") else f"{name} = {text}"


def _edits(changes: Mapping[str, Changes], old: _Text, new: _Text) -> tuple[Edit, ...]:
    where: dict[Change, list[str]] = {}
    around: dict[Change, set[Around]] = {}
    for name, one in changes.items():
        if name in old.side.equations and name in new.side.equations:
            for part in one.parts:
                where.setdefault(part, []).append(new.name(name))
                around.setdefault(part, set()).add(part.wider)
    found = [_edit(_shown(part, around[part]), old, new, tuple(names)) for part, names in where.items()]
    per = [Edit(f"{s.name} per {s.type.extent}", f"{other.name} per {other.type.extent}") for _, s, other in extents(old.side, new.side)]
    return (*_summed(found), *per, *_alone(old, new))


def _shown(part: Change, around: set[Around]) -> Change:
    """With what is around it, where it has the same around it everywhere."""
    [one] = around if len(around) == 1 else [None]
    return part if one is None else replace(part, old=one[0], new=one[1])


def _edit(part: Change, old: _Text, new: _Text, where: tuple[str, ...]) -> Edit:
    return Edit(old.part(part.old, part.sign), new.part(part.new, part.sign), where)


def _summed(edits: list[Edit]) -> list[Edit]:
    """Terms that come into one sum, or go out of it, together."""
    found: list[Edit] = []
    for edit in edits:
        last = found[-1] if found else None
        if last is not None and _is_term(last) and _is_term(edit) and (last.old is None, last.where) == (edit.old is None, edit.where):
            edit = replace(edit, old=edit.old and f"{last.old} {edit.old}", new=edit.new and f"{last.new} {edit.new}")
            found.pop()
        found.append(edit)
    return found


def _is_term(edit: Edit) -> bool:
    return None in (edit.old, edit.new) and (edit.old or edit.new or "").startswith(("+ ", "- "))


def _alone(old: _Text, new: _Text) -> Iterator[Edit]:
    """States and outputs that only one rule has."""
    for name in old.side.equations:
        if name not in new.side.equations and not name.endswith((" at first", " where")):
            yield Edit(old.equation(name), None)
    for name in new.side.equations:
        if name not in old.side.equations and not name.endswith((" at first", " where")):
            yield Edit(None, new.equation(name))


def _rows(changes: Mapping[str, Changes], old: _Text, new: _Text) -> tuple[Row, ...]:
    """In the order of the second rule, with what only the first has where it was."""
    mine = list(old.lines(changes))
    place = {key: i for i, (key, _) in enumerate(mine) if key}
    found: list[Row] = []
    done = 0
    for key, line in new.lines(changes):
        partner = place.get(key)
        if partner is not None:
            found += [Row(text, None, False) for other, text in mine[done:partner] if other not in new.side.equations]
            done = max(done, partner + 1)
        found.append(Row(None if partner is None else mine[partner][1], line, partner is not None and not changes[key].cost))
    return (*found, *(Row(text, None, False) for other, text in mine[done:] if other not in new.side.equations))


__all__ = ["decided", "difference"]
