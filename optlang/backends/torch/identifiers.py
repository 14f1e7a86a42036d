"""Names of the values in a generated function."""

from __future__ import annotations

import keyword
import re
import unicodedata

from optlang.printing.identifiers import numbered

TAKEN = frozenset(["torch", "ops", "s", "counter", "first", "inf", "nan", *keyword.kwlist])


class Identifiers:
    """Names that nothing else has. What no equation names takes that of a value of no more use, so that its memory is free from
    then on."""

    def __init__(self) -> None:
        self._used = set(TAKEN)
        self._spare: dict[str, list[str]] = {}  # that others can have, by how they begin

    def fresh(self, wish: str) -> str:
        """An identifier like the wish that nothing else has."""
        base = unicodedata.normalize("NFKC", re.sub(r"\W", "_", wish))
        base = base if base.isidentifier() else "x_" + "".join(c for c in base if c.isascii() and c.isalnum())
        name = numbered(base, self._used)
        self._used.add(name)
        return name

    def spare(self, begin: str) -> str:
        """A name that was given back, the shortest of those that begin so; a new one where there is none."""
        spare = self._spare.setdefault(begin, [])
        return spare.pop(spare.index(min(spare, key=lambda name: (len(name), name)))) if spare else self.fresh(begin)

    def give_back(self, begin: str, name: str) -> None:
        """A value of no more use gives up its name."""
        self._spare.setdefault(begin, []).append(name)
