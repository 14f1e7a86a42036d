"""Charts as SVG inside the page: step curves and scattered points, with axes, units and labels beside what they name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 14, 44
LABEL = 70, 14  # what the name of a rule takes, width and height
COLOURS = ("var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)")  # told apart by colour-blind readers too (Okabe & Ito)
XY = tuple[float, float]


def curves(
    lines: Mapping[str, Sequence[XY]], x: str, y: str, *, steps: bool = True, level: tuple[float, str] | None = None,
    mark: XY | None = None, marked: str = "",
) -> str:  # fmt: skip
    """Lines with their names at their ends. `steps`: the value holds until the next point. `level`: a height to compare with, where it is
    in sight, with words; `mark`: one place with words."""
    lines = {name: points for name, points in lines.items() if points}
    frame = _Frame([point for points in lines.values() for point in points])
    parts = [frame.axes(x, y)]
    if level is not None and frame.ys[0] <= level[0] <= frame.ys[1]:
        height, right = frame.y(level[0]), WIDTH - RIGHT
        parts.append(f'<path d="M{LEFT} {height:.1f} H{right}" stroke="var(--soft)" stroke-dasharray="3 4"/>')
        parts.append(f'<text x="{right - 6}" y="{height + 13:.1f}" text-anchor="end" class="tick">{escape(level[1])}</text>')
    ends = _apart({name: frame.y(points[-1][1]) for name, points in lines.items()})
    for place, (name, points) in enumerate(lines.items()):
        colour, again = COLOURS[place % len(COLOURS)], place // len(COLOURS)
        dash = f' stroke-dasharray="{6 / again:g} 4"' if again else ""  # where there are more lines than colours
        path = _stepped([frame.at(p) for p in points]) if steps else [frame.at(p) for p in points]
        drawn = " ".join(f"{'M' if n == 0 else 'L'}{a:.1f} {b:.1f}" for n, (a, b) in enumerate(path))
        parts.append(f'<path d="{drawn}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if len(path) == 1:
            parts.append(f'<circle cx="{path[0][0]:.1f}" cy="{path[0][1]:.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 8}" y="{ends[name] + 4:.1f}" fill="{colour}">{escape(name)}</text>')
    if mark is not None:
        a, b = frame.at(mark)
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="none" stroke="currentColor" stroke-width="2"/>')
        parts.append(f'<text x="{a:.1f}" y="{b - 10:.1f}" text-anchor="middle">{escape(marked)}</text>')
    return _svg(parts)


def scatter(points: Sequence[tuple[float, float, str]], x: str, y: str) -> str:
    """Points with their names beside, above or below them, where there is room for a name."""
    frame = _Frame([(a, b) for a, b, _ in points])
    parts = [frame.axes(x, y)]
    places = sorted((*frame.at((a, b)), name) for a, b, name in points)
    labels: list[XY] = []
    for h, v, name in places:
        parts.append(f'<circle cx="{h:.1f}" cy="{v:.1f}" r="4" fill="var(--c1)"/>')
        free = [at for at in ((h + 7, v + 4), (h - 4, v - 9), (h - 4, v + 18)) if not _covers(at, labels, places)]
        if free:
            labels.append(free[0])
            parts.append(f'<text x="{free[0][0]:.1f}" y="{free[0][1]:.1f}">{escape(name)}</text>')
    return _svg(parts)


def _covers(label: XY, others: Sequence[XY], points: Sequence[tuple[float, float, str]]) -> bool:
    """Whether a label that begins there lies on another or on a point."""
    (left, base), (width, height) = label, LABEL
    on_label = any(abs(left - a) < width and abs(base - b) < height for a, b in others)
    return on_label or any(left - 4 < a < left + width + 4 and base - height < b < base + 6 for a, b, _ in points)


class _Frame:
    """The part of the plane that is shown."""

    def __init__(self, points: Sequence[XY]) -> None:
        xs, ys = [a for a, _ in points], [b for _, b in points if math.isfinite(b)]
        self.xs, self.ys = _span(xs, 0.0), _span(ys, 0.08)

    def x(self, value: float) -> float:
        low, high = self.xs
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.ys
        return HEIGHT - BOTTOM - (min(max(value, low), high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def at(self, point: XY) -> XY:
        return self.x(point[0]), self.y(point[1])

    def axes(self, x: str, y: str) -> str:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = [f'<path d="M{LEFT} {TOP} V{bottom} H{right}" fill="none" stroke="var(--line)"/>']
        for value in _ticks(*self.xs):
            parts.append(f'<text x="{self.x(value):.1f}" y="{bottom + 18}" text-anchor="middle" class="tick">{_number(value)}</text>')
        for value in _ticks(*self.ys):
            parts.append(f'<text x="{LEFT - 8}" y="{self.y(value) + 4:.1f}" text-anchor="end" class="tick">{_number(value)}</text>')
            parts.append(f'<path d="M{LEFT} {self.y(value):.1f} H{right}" stroke="var(--faint)"/>')
        parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
        middle = (TOP + bottom) / 2
        parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y)}</text>')
        return "".join(parts)


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _stepped(points: Sequence[XY]) -> list[XY]:
    found = [points[0]]
    for a, b in points[1:]:
        found += [(a, found[-1][1]), (a, b)]
    return found


def _span(values: Sequence[float], room: float) -> XY:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    size = (high - low) or abs(high) or 1.0
    if low == high:
        low, high = low - size / 2, high + size / 2  # one value stands in the middle
    return low - room * size, high + max(room, 1e-9) * size


def _ticks(low: float, high: float) -> list[float]:
    """Some round numbers inside a span."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(k for k in (1, 2, 5, 10) if (high - low) / (k * step) <= 6)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}"
    return f"{round(value, 10):g}"


def _apart(ends: Mapping[str, float]) -> dict[str, float]:
    """Labels at the ends of lines, moved so that none covers another."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, height in sorted(ends.items(), key=lambda one: one[1]):
        last = found[name] = max(height, last + 16)
    return found
