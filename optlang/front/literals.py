"""Numbers and quoted texts of a rule file, and what people write in their place."""

from __future__ import annotations

import re

from optlang.errors import Span
from optlang.front.lexemes import LONGEST_NUMBER, Scan, match_span, normal


def number(found: Scan, match: re.Match[str]) -> None:
    tail, (start, end) = match.group("tail"), match.span()
    digits = match.group()[: len(match.group()) - len(tail)]
    if len(digits) > LONGEST_NUMBER:
        found.report("L01", f"a number of {len(digits)} characters", Span(start, start + LONGEST_NUMBER),
                     f"at most {LONGEST_NUMBER}; a float64 has 17 digits")  # fmt: skip
        digits = digits[:LONGEST_NUMBER]
    middle = start + len(digits)
    if not tail:
        found.add("NUMBER", digits, start, end)
    elif tail.isidentifier() and tail not in _SUFFIXES and not re.fullmatch(r"[eE]|_+\d[\d_]*|[xXbBoO][\da-fA-F]+", tail):
        found.report("S07", "a `*` is missing between a number and a name", Span(start, end), f"write `{digits}*{tail}`",
                     f"{digits}*{tail}")  # fmt: skip
        found.add("NUMBER", digits, start, middle)
        found.add("TIMES", "*", middle, middle)
        found.add(found.fixed.get(tail, "NAME"), normal(tail), middle, end)
    else:
        _bad_number(found, match.group(), digits, tail, Span(start, end))
        found.add("NUMBER", digits, start, end)


_SUFFIXES = frozenset(["f", "F", "d", "L", "l", "j", "J", "u", "f32", "f64"])


def _bad_number(found: Scan, text: str, digits: str, tail: str, span: Span) -> None:
    shown = text if len(text) < 40 else text[:40] + "…"
    if tail == "." or re.fullmatch(r"\.[eE][+\-]?\d+", tail):
        found.report("S06", f"`{shown}` ends in a point without digits", span, f"write `{digits}.0{tail[1:]}`", f"{digits}.0{tail[1:]}")
    elif re.fullmatch(r"[eE]", tail):
        found.report("S06", f"`{shown}` has no exponent", span, f"write a whole number behind it: `{digits}e-3`")
    elif re.fullmatch(r"_+\d[\d_]*", tail):
        plain = text.replace("_", "")
        found.report("S06", f"`{shown}`: numbers are written without `_`", span, f"write `{plain}`", plain)
    elif tail in _SUFFIXES:
        found.report("S06", f"`{shown}`: numbers have no suffix", span, f"write `{digits}`", digits)
    elif "e" in digits.lower() and tail.startswith("."):
        found.report("S06", f"`{shown}`: the exponent of a number is whole", span, "for other powers write `10^(-3.5)`")
    else:
        found.report("S06", f"`{shown}` is not a number", span, "numbers look like `10`, `0.999` or `1e-8`")


def string(found: Scan, match: re.Match[str]) -> None:
    found.add("STRING", match.group(), *match.span())


def quoted(found: Scan, match: re.Match[str]) -> None:
    text, span = match.group(), match_span(match)
    inner = re.sub(r"\s+", " ", text.strip("\"'“”„")).strip()
    if text.startswith('"') and not text.startswith('"""'):
        found.report("S05", "this text has no closing quotation mark", span, 'close it with `"` on the same line', pointer="")
    else:
        found.report("S05", "this is not how a text is quoted", span, f'write `"{inner[:60]}"`, in one line', f'"{inner}"')
    found.add("STRING", f'"{inner}"', *match.span())
