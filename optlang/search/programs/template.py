"""Templates: programs with holes. What stands there is frozen, the search fills the rest.

    ? 0-3                    between none and three statements; `?` alone is any number, `? 2` exactly two
    m = interp(g, m, ?)      an argument that is a constant or a name
    u = sign(m)

A genome fills a template where its frozen statements are the template's, in order, apart from arguments that are holes, and
where as many free statements as each hole allows stand between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from optlang.search.programs.genome import Genome, GenomeError, Statement, from_text, line

HOLE = "?"
ANY = 10_000
_HOLE_LINE = re.compile(r"\?\s*(?:(\d+)\s*(?:-\s*(\d+))?)?")


@dataclass(frozen=True)
class Template:
    """`fixed` are the statements that stand there, `gaps` (least, most) free statements before each of them and at the end."""

    fixed: Genome
    gaps: tuple[tuple[int, int], ...]

    @classmethod
    def from_text(cls, text: str) -> Template:
        """Raises GenomeError that names the line."""
        fixed: list[Statement] = []
        gaps = [(0, 0)]
        for number, written in enumerate(text.splitlines(), 1):
            content = written.split("#")[0].strip()
            if content.startswith(HOLE):
                gaps[-1] = _wider(gaps[-1], _counts(content, number))
            elif content:
                fixed.append(_fixed(content, number))
                gaps.append((0, 0))
        if not any(map(_is_open, fixed)) and all(most == 0 for _, most in gaps):
            raise GenomeError("the template has no hole; write `?` for an argument or on a line of its own for statements")
        return cls(tuple(fixed), tuple(gaps))

    def to_text(self) -> str:
        """One line for each statement and hole."""
        lines = []
        for gap, statement in zip(self.gaps, (*self.fixed, None), strict=True):
            lines += [_gap_line(*gap)] if gap[1] else []
            lines += [line(statement._replace(frozen=False))] if statement is not None else []
        return "\n".join(lines)

    @cached_property
    def least(self) -> int:
        """Statements of the shortest program that fills it."""
        return len(self.fixed) + sum(least for least, _ in self.gaps)

    def problem(self, genome: Genome) -> str:
        """Why a genome does not fill the template; empty where it does."""
        frozen = [statement for statement in genome if statement.frozen]
        if len(frozen) < len(self.fixed):
            missing = line(self.fixed[len(frozen)]._replace(frozen=False))
            return f"does not fill the template: `{missing}` is missing; change one of them"
        if len(frozen) > len(self.fixed):
            return f"has {len(frozen)} frozen statements, the template {len(self.fixed)}"
        for mine, wanted in zip(frozen, self.fixed, strict=True):
            if not _fills(mine, wanted):
                return f"has `{line(mine)}` where the template has `{line(wanted)}`"
        for place, (count, (least, most)) in enumerate(zip(gap_sizes(genome), self.gaps, strict=True)):
            if not least <= count <= most:
                return f"has {count} statements in place {place + 1} of the template, which takes {_words(least, most)}"
        return ""

    def holes(self, number: int) -> tuple[int, ...]:
        """The arguments of a fixed statement, counted from 0, that are holes."""
        return tuple(place for place, arg in enumerate(self.fixed[number].args) if arg == HOLE)

    def marked(self, genome: Genome) -> Genome:
        """The genome with each statement that stands in the template marked as frozen, where it has no marks yet."""
        if any(statement.frozen for statement in genome):
            return genome
        wanted = list(self.fixed)
        found = []
        for statement in genome:
            fits = bool(wanted) and _fills(statement, wanted[0])
            found.append(statement._replace(frozen=fits))
            del wanted[: int(fits)]
        return tuple(found)


def gap_sizes(genome: Genome) -> list[int]:
    """How many free statements stand before each frozen one, and at the end."""
    sizes = [0]
    for statement in genome:
        if statement.frozen:
            sizes.append(0)
        else:
            sizes[-1] += 1
    return sizes


def _fills(mine: Statement, wanted: Statement) -> bool:
    same = mine.function == wanted.function and mine.target == wanted.target and len(mine.args) == len(wanted.args)
    return same and all(b in (a, HOLE) for a, b in zip(mine.args, wanted.args, strict=True))


def _is_open(statement: Statement) -> bool:
    return HOLE in statement.args


def _wider(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Two holes beside each other are one."""
    return a[0] + b[0], min(a[1] + b[1], ANY)


def _counts(content: str, number: int) -> tuple[int, int]:
    found = _HOLE_LINE.fullmatch(content)
    if found is None:
        raise GenomeError(f"line {number}, `{content}`: write `?`, `? 2` or `? 0-3` for a hole that takes statements")
    least, most = found.groups()
    if least is None:
        return 0, ANY
    bounds = int(least), int(least if most is None else most)
    if bounds[0] > bounds[1] or bounds[1] == 0:
        raise GenomeError(f"line {number}, `{content}`: no number of statements is from {bounds[0]} to {bounds[1]}; write `? 0-3`")
    return bounds


def _fixed(content: str, number: int) -> Statement:
    """A statement whose holes are read as a name that no genome can have."""
    stand_in = "__hole__"
    try:
        (statement,) = from_text(content.replace(HOLE, stand_in))
    except GenomeError as problem:
        message = re.sub(r"^line 1", f"line {number}", str(problem).replace(stand_in, HOLE))
        raise GenomeError(f"in the template, {message}") from None
    args = tuple(HOLE if arg == stand_in else arg for arg in statement.args)
    return Statement(statement.function, statement.target, args, True)


def _gap_line(least: int, most: int) -> str:
    if most == ANY and least == 0:
        return HOLE
    return f"{HOLE} {least}" if least == most else f"{HOLE} {least}-{most}"


def _words(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} or more" if most == ANY else f"{least} to {most}"


def names_read(statements: Iterable[Statement]) -> set[str]:
    """Every name that stands as an argument."""
    return {arg for statement in statements for arg in statement.args if isinstance(arg, str) and arg != HOLE}
