"""What came of the mutants, in numbers, with every one that no test noticed and why."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .sample import part_of

Line = dict[str, Any]
KEYS = ("file", "line", "operator", "old", "new")


def record(lines: Iterable[Line], before: Line, seed: int, commit: str) -> Line:
    """`lines`: the last result of each mutant with `by`, the test that failed. What `before` says of survivors is kept."""
    results = sorted({line["index"]: line for line in lines}.values(), key=lambda line: (line["file"], line["line"], line["index"]))
    said = {tuple(one[key] for key in KEYS): one.get("why", "") for one in before.get("survivors", [])}
    survivors = [{key: line[key] for key in KEYS} for line in results if not line["by"]]
    return {
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
        "all": _counts(results, lambda line: "all")["all"],
        "parts": _counts(results, lambda line: part_of(line["file"])),
        "operators": _counts(results, lambda line: line["operator"]),
        "survivors": [{**one, "why": said.get(tuple(one.values()), "")} for one in survivors],
    }


def read(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _counts(results: list[Line], name: Callable[[Line], str]) -> dict[str, dict[str, int]]:
    tried = Counter(map(name, results))
    killed = Counter(name(line) for line in results if line["by"])
    return {each: {"tried": tried[each], "killed": killed[each]} for each in sorted(tried)}
