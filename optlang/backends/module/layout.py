"""Lines of a generated file: indented, and not too long."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

Lines = list[str]


def indented(lines: Iterable[str], depth: int = 1) -> Lines:
    return [f"{'    ' * depth}{line}" if line else "" for line in lines]


def mentions(lines: Iterable[str], word: str) -> bool:
    """Whether a name is read or written in some lines, not merely an attribute or a key."""
    near = [line for line in lines if word in line]  # a pattern takes longer to be made than all these to be looked at
    return bool(near) and any(map(re.compile(rf'(?<![\w."]){re.escape(word)}\b').search, near))


def documentation(text: str) -> str:
    """Text for the inside of a docstring."""
    printable = text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else " " for c in text)
    return printable.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace('"', '\\"' if printable.endswith('"') else '"')


def bracketed(head: str, entries: Lines, tail: str) -> Lines:
    """On one line, or an entry a line."""
    one = f"{head}{', '.join(entries)}{tail}"
    return [one] if len(one) <= 110 else [head, *indented([f"{e}," for e in entries]), tail]


def packed(head: str, entries: Lines, tail: str) -> Lines:
    """On one line, or as many entries to a line as it takes."""
    one = f"{head}{', '.join(entries)}{tail}"
    return [one] if len(one) <= 110 else [head, *indented(textwrap.wrap(f"{', '.join(entries)},", 105)), tail]


def broken(line: str) -> Lines:
    """A line with many strings, over several lines where it is long."""
    first, *others = re.split(r'(?<="), (?=")', line)
    lines = [first]
    for word in others:
        if len(lines[-1]) + len(word) > 105:
            lines[-1] += ","
            lines.append(f"        {word}")
        else:
            lines[-1] += f", {word}"
    return lines


def wrapped(line: str) -> Lines:
    """The head of a function, its arguments over several lines where they are many."""
    if len(line) <= 120:
        return [line]
    head, _, rest = line.partition("(")
    arguments, _, end = rest.rpartition(")")
    wanted = arguments + ("" if "**" in arguments else ",")
    lines, start = [], ""
    for word in re.split(r", (?![^\[(]*[\])])", wanted):  # an argument is not torn
        if len(start) + len(word) > 105:
            lines.append(f"{start},")
            start = ""
        start += f", {word}" if start else word
    return [f"{head}(", *indented([*lines, start]), f"){end}"]
