"""What is asked of a store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optlang.search.evolution.rounds import Known
from optlang.search.store.files import telling
from optlang.search.training.assess import Assessment
from optlang.search.training.levels import Level

FIELDS = ("fitness", "error", "worst", "steps", "seconds", "status", "detail")


class Reading:
    """The questions that a search, its report and its exports ask of a store's file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of one SELECT of ours."""
        with telling(self.path):
            return self._connection.execute(text, values).fetchall()

    def meta(self, name: str) -> Any:
        """Raises KeyError where it has not been saved."""
        found = self.query("SELECT value FROM meta WHERE name = ?", name)
        if not found:
            raise KeyError(name)
        return json.loads(found[0][0])

    def has_meta(self, name: str) -> bool:
        return bool(self.query("SELECT 1 FROM meta WHERE name = ?", name))

    def job(self, digest: str) -> Any:
        """The result of a job that was finished before; None where there is none."""
        found = self.query("SELECT result FROM jobs WHERE digest = ?", digest)
        return json.loads(found[0][0]) if found else None

    def state(self, branch: str) -> dict[str, Any] | None:
        """A branch after its last whole round; None before its first."""
        found = self.query("SELECT state FROM strands WHERE branch = ?", branch)
        return json.loads(found[0][0]) if found else None

    def known(self, branch: str, level: str) -> dict[str, Known]:
        """What a branch has trained, by fingerprint."""
        rows = self.query(
            "SELECT g.fingerprint, g.number, a.fitness FROM genomes g JOIN assessments a USING (branch, number) "
            "WHERE g.branch = ? AND a.level = ? ORDER BY g.number", branch, level)  # fmt: skip
        return {fingerprint: Known(number, fitness) for fingerprint, number, fitness in rows}

    def details(self, branch: str, level: str) -> dict[int, Any]:
        """The details of what a branch has trained, by number."""
        rows = self.query("SELECT number, detail FROM assessments WHERE branch = ? AND level = ?", branch, level)
        return {number: json.loads(detail) for number, detail in rows}

    def assessments(self, branch: str, level: Level, seeds: Sequence[int], number: int | None = None) -> dict[int, Assessment]:
        """What is there of a level, by number; of one program, if it is named."""
        rows = self.query(
            f"SELECT number, {', '.join(FIELDS)} FROM assessments WHERE branch = ? AND level = ? AND tasks = ? AND seeds = ? "
            "AND number = coalesce(?, number)", branch, level.name, json.dumps(level.tasks), json.dumps(tuple(seeds)), number)  # fmt: skip
        return {number: _assessment(rest) for number, *rest in rows}

    def text(self, branch: str, number: int) -> str:
        """A program's text. Raises KeyError."""
        found = self.query("SELECT text FROM genomes WHERE branch = ? AND number = ?", branch, number)
        if not found:
            raise KeyError(number)
        return str(found[0][0])

    def lineage(self, branch: str, number: int) -> list[tuple[int, str, str]]:
        """From the seed to a program: number, what changed, text."""
        rows: list[tuple[int, str, str]] = []
        following: int | None = number
        while following is not None:
            where = "WHERE branch = ? AND number = ?"
            [(parent, change, text)] = self.query(f"SELECT parent, change, text FROM genomes {where}", branch, following)
            rows.append((following, change, text))
            following = parent
        return rows[::-1]

    def events(self, kind: str) -> list[Any]:
        return [json.loads(data) for (data,) in self.query("SELECT data FROM events WHERE kind = ? ORDER BY number", kind)]

    def branches(self) -> list[str]:
        return [name for (name,) in self.query("SELECT branch FROM strands ORDER BY branch")]


def _assessment(values: Sequence[Any]) -> Assessment:
    return Assessment(**dict(zip(FIELDS, [*values[:-1], json.loads(values[-1])], strict=True)))
