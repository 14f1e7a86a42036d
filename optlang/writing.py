"""Files that are written as a whole: what was there stays as it was until all of the new is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Links stay links, files keep their mode; devices and pipes are written into. Raises OSError."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8", newline="\n")
        if path.exists():
            shutil.copymode(path, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
