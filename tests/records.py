"""Records of the library: a JSON with a line for each rule, in the order of the library.

An entry says of what it was found: `mark` stands for what the rule says, `code` for the texts of each backend that stepped it, so
that only entries are asked anew whose rule or kernels have changed, and a stale one is told from a fresh one. `options` stands
for what was tried with kernels that spill, in entries that have such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gallery_facts import mark
from marks import code_of

from optlang import library

DOCS = Path(__file__).resolve().parents[1] / "docs"
CODE = {  # what each record tells of
    "triton": ("triton",), "loops": ("cpp", "torch"), "conformance": ("cpp", "torch", "triton", "module"), "inductor": ("torch",),
    "inductor-numbers": ("torch",),
}  # fmt: skip


def recorded(path: Path | None) -> dict[str, Any]:
    """By rule."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
    return found


def save(path: Path, found: dict[str, Any]) -> None:
    entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in library.names() if name in found)
    path.write_text(f"{{\n{entries}\n}}\n", encoding="utf-8")


def marked(rule: str, backends: Sequence[str] = ()) -> dict[str, Any]:
    """What an entry begins with; `backends`: whose code it tells of."""
    return {"mark": mark(rule), **({"code": {name: code_of(rule, name) for name in backends}} if backends else {})}


def is_fresh(entry: Mapping[str, Any], rule: str, backends: Sequence[str] = ()) -> bool:
    """Whether an entry is of the rule and of the code as they are now."""
    return entry.get("mark") == mark(rule) and not moved(entry, rule, backends)


def moved(entry: Mapping[str, Any], rule: str, backends: Sequence[str]) -> list[str]:
    """The backends whose code is another now, or is not told of."""
    told = entry.get("code", {})
    tried = ["options"] if backends and "options" in told else []
    return [name for name in [*backends, *tried] if told.get(name) != code_of(rule, name)]


def stale(found: Mapping[str, Any], backends: Sequence[str] = (), rules: Iterable[str] = ()) -> list[str]:
    """The rules of the library, or those of `rules`, that a record does not have as they are now: missing ones first."""
    wanted = [rule for rule in rules or library.names() if not is_fresh(found.get(rule, {}), rule, backends)]
    return sorted(wanted, key=lambda rule: rule in found)
