"""Lines of the canonical text: neighbours set in columns, and long lines broken between their terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optlang.front import syntax as s
from optlang.front.unparse import BREAK, LINE_END, Entry, head_of, hyper_cells, with_breaks, written

WIDTH = 120
SHORTEST_LINE = 40  # a long line is not broken before this column where it can be broken after it
WIDEST_CELL = 28  # a longer name or default sticks out of its column and does not push the others
INDENT = "  "


def heads(entries: Sequence[Entry], gap: Callable[[int, int], bool]) -> list[str]:
    """The heads of a sequence; neighbouring hypers and neighbouring equations are set in columns."""
    heads: list[str] = []
    run: list[Entry] = []
    for entry in entries:
        if run and (type(entry) is not type(run[-1]) or gap(run[-1].span.end, entry.span.start)):
            heads += _run(run)
            run = []
        run.append(entry)
    return heads + _run(run)


def _run(run: Sequence[Entry]) -> list[str]:
    if run and isinstance(run[0], s.Hyper):
        return _columns(_hyper_table([hyper for hyper in run if isinstance(hyper, s.Hyper)]))
    if run and isinstance(run[0], s.Equation):
        return _columns([[written(e.target), f"= {with_breaks(e.value)}"] for e in run if isinstance(e, s.Equation)])
    return [head_of(entry) for entry in run]


def _hyper_table(hypers: Sequence[s.Hyper]) -> list[list[str]]:
    """Names, defaults with their ranges, texts. A default without a range may reach into the column of ranges."""
    table = [hyper_cells(hyper) for hyper in hypers]
    width = max((len(default) for _, default, range_, _ in table if range_ and len(default) <= WIDEST_CELL), default=0)
    return [[name, f"{default:<{width}} {range_}".rstrip(), doc] for name, default, range_, doc in table]


def _columns(table: list[list[str]]) -> list[str]:
    """Rows of cells as lines; all but the last column are padded, and a column that is empty throughout is left out."""
    widths = [max((len(cell) for cell in column if len(cell) <= WIDEST_CELL), default=0) for column in zip(*table, strict=True)]
    used = [number for number, column in enumerate(zip(*table, strict=True)) if any(column)]
    return [" ".join(f"{cells[k]:<{widths[k] if k != used[-1] else 0}}" for k in used).rstrip() for cells in table]


def wrapped(text: str, indent: str) -> list[str]:
    """Lines of at most WIDTH where that can be had, broken first between the outermost terms."""
    if LINE_END in text:
        head, rest = text.split(LINE_END)
        return [*_filled(indent + head, indent + 2 * INDENT), *_filled(indent + INDENT + rest, indent + 3 * INDENT)]
    return _filled(indent + text, indent + 2 * INDENT)


def _filled(text: str, indent: str) -> list[str]:
    lines: list[str] = []
    while len(text) > WIDTH and (at := _best_break(text)) > 0:
        lines.append(text[:at].replace(BREAK, " "))
        text = indent + text[at + 1 :]
    return [*lines, text.replace(BREAK, " ")]


def _best_break(text: str) -> int:
    """The outermost place to break, the last of them that fits; 0 where there is none."""
    depth, places = 0, []
    for at, char in enumerate(text):
        depth += (char in "([") - (char in ")]")
        if char == BREAK:
            places.append((depth, -at))
        if at > WIDTH and places:
            break
    good = [place for place in places if -place[1] >= SHORTEST_LINE] or places
    return -min(good)[1] if good else 0
