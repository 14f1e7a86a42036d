"""The catalogue of diagnostic codes: title, explanation, a wrong example and its corrected form. The data is `catalogue.toml`."""

from __future__ import annotations

import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

FAMILIES: dict[str, str] = {
    "S": "syntax", "N": "names", "T": "kinds and extents", "R": "rules", "L": "limits", "U": "files and names of rules",
    "P": "lints, shown by `check --pedantic`",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One code. `example` is a text that gives it, `remedy` the same text put right."""

    code: str
    title: str
    explanation: str
    example: str
    remedy: str

    def to_text(self, width: int = 100) -> str:
        """The entry as `optlang explain` prints it."""
        parts = [f"{self.code}: {self.title}", textwrap.fill(self.explanation, width)]
        parts += [f"wrong:\n\n{textwrap.indent(self.example, '    ')}"] if self.example else []
        return "\n\n".join([*parts, f"right:\n\n{textwrap.indent(self.remedy, '    ')}"])


def _read() -> dict[str, Entry]:
    data = tomllib.loads((Path(__file__).parent / "catalogue.toml").read_text(encoding="utf-8"))
    return {
        code: Entry(code, row["title"], " ".join(row["explanation"].split()), row["wrong"].strip("\n"), row["right"].strip("\n"))
        for code, row in data.items()
    }


CATALOGUE = _read()  # the entries by code
