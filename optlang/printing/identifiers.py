"""Identifiers for the names of a rule: words that Python takes, each once."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence


class Names:
    """Identifiers that look like the names of a rule, never twice and never words of Python."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.reserved = frozenset([*taken, *keyword.kwlist, *keyword.softkwlist])
        self.taken = set(self.reserved)
        self.promised: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last of each name that was asked for again

    def copy(self) -> Names:
        """Names that may be given up again."""
        other = Names(self.reserved)
        other.taken, other.promised, other._numbers = set(self.taken), self.promised, dict(self._numbers)
        return other

    def promise(self, words: Iterable[str]) -> None:
        """Keeps names for those who have them in the rule."""
        self.promised.update(map(identifier, words))

    def fresh(self, wish: str, promised: bool = False) -> str:
        """An identifier like the wish: itself where it can be had, else with an underscore or a number. `promised`: it may be one that
        is kept for who has it in the rule."""
        base = identifier(wish)
        base = f"{base}_" if base in self.reserved else base
        name, number = base, self._numbers.get(base, 1)
        while name in self.taken or (name in self.promised and not promised):
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        self._numbers[base] = number
        return name

    def short(self, full: Sequence[str]) -> dict[str, str]:
        """Dotted names without the call that they come from, where no other ends alike."""
        ends = [name.rpartition(".")[2] for name in full]
        return {n: self.fresh(e if ends.count(e) == 1 else n) for n, e in zip(full, ends, strict=True)}


def numbered(wish: str, taken: Collection[str]) -> str:
    """A name that is not taken: the wish itself where it can be had, else `wish_2`, `wish_3`, …"""
    name, number = wish, 1
    while name in taken:
        number += 1
        name = f"{wish}_{number}"
    return name


def identifier(wish: str) -> str:
    """A word that Python takes as a name; not checked against keywords."""
    base = unicodedata.normalize("NFKC", re.sub(r"\W", "_", wish))
    if not base.isidentifier():
        base = "x_" + "".join(c for c in base if c.isascii() and c.isalnum())
    # single letters that look like digits, and names that classes treat in their own way
    return f"{base}_" if base in ("l", "O", "I") else "x" + base if base.startswith("_") else base
