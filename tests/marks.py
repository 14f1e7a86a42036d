"""Marks of rules in the records in docs: a rule whose equations, defaults or route have changed since is asked anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256

import optlang
from optlang.ir import Case, Routing
from optlang.printing.fingerprint import fingerprint_of


@cache
def mark_of(rule: str) -> str:
    """Eight digits that stand for a rule of the library, or of a text, as it is now."""
    made = optlang.Rule(rule).program
    cases = made.cases if isinstance(made, Routing) else (Case(None, made, {}),)
    said = [(repr(c.condition), sorted(c.settings.items()), fingerprint_of(c.program), [(h.name, h.default) for h in c.program.hypers])
            for c in cases]  # fmt: skip
    return sha256(repr(said).encode()).hexdigest()[:8]


def changed(rules: Iterable[str], marks: Mapping[str, str]) -> list[str]:
    """The rules that a record does not have as they are now."""
    return [rule for rule in rules if marks.get(rule) != mark_of(rule)]
