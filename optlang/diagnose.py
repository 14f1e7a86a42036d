"""Every finding about a text in one run: characters, syntax, names, types, and lints where asked for."""

from __future__ import annotations

import re

from optlang import lower
from optlang.errors import MOST_FINDINGS, Diagnostic, Source
from optlang.front import parser
from optlang.front.syntax import File

FOLLOW_FROM = ("N02", "N06", "N07", "N13", "R01", "R07", "R11")  # what a statement that could not be read may cause


def diagnose(source: Source, pedantic: bool = False) -> list[Diagnostic]:
    """The findings in the order of their places."""
    return read(source, pedantic)[1]


def read(source: Source, pedantic: bool = False, lowered: lower.Lowered | None = None) -> tuple[File, list[Diagnostic]]:
    """The tree of all that can be read, and the findings, MOST_FINDINGS of them at most. What nothing is wrong with goes into
    `lowered`."""
    file, found = parser.parse(source)
    if any(d.code == "L02" for d in found):
        return file, found
    broken = _words_of_lines(source, found)
    deeper = lower.check(file, pedantic and not found, lowered)  # lints would speak of what could not be read
    findings = [*found, *(d for d in deeper if not (found and _follows(d, broken)))]
    return file, sorted(findings, key=lambda d: (d.source is not source, d.span))[:MOST_FINDINGS]


def _words_of_lines(source: Source, found: list[Diagnostic]) -> set[str]:
    """Names that stand in lines with a syntax error: their definitions may be what could not be read."""
    words: set[str] = set()
    for finding in found:
        first, last = (source.position(offset)[0] for offset in (finding.span.start, finding.span.end))
        for number in range(first, min(last, first + 5) + 1):
            words.update(re.findall(r"\w+", source.line(number)))
    return words


def _follows(finding: Diagnostic, broken: set[str]) -> bool:
    if finding.code not in FOLLOW_FROM or not broken:
        return False
    if finding.code in ("R01", "R07", "R11"):
        return finding.code == "R11" or "w" in broken or "return" in broken
    name = finding.source.text[finding.span.start : finding.span.end]
    return not set(re.findall(r"\w+", name)).isdisjoint(broken)
