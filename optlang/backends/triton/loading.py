"""Generated texts as functions of Triton."""

from __future__ import annotations

import linecache
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=256)
def load(text: str) -> dict[str, Any]:
    """The functions of a generated text, which Triton reads again by its name. Raises ImportError without Triton."""
    name = f"<optlang triton {hash(text):x}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": name}
    exec(compile(text, name, "exec"), namespace)
    return namespace
