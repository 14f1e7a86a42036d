"""Records of the library: a JSON with a line for each rule, in the order of the library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optlang import library


def recorded(path: Path | None) -> dict[str, Any]:
    """By rule."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
    return found


def save(path: Path, found: dict[str, Any]) -> None:
    entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(found[name])}" for name in library.names() if name in found)
    path.write_text(f"{{\n{entries}\n}}\n", encoding="utf-8")
