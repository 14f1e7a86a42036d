"""One SQLite file that is a search's cache, lineage, record and way to go on. Its tables are in `schema`.

A round is one transaction, so a search that is killed is found as it was after a whole round. Readers need no lock; a second
writer is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from optlang import __version__
from optlang.search.evolution.rounds import Round
from optlang.search.programs.genome import to_text
from optlang.search.store.files import StoreError, absent, gone, locked, made, telling, there, to_read, to_write
from optlang.search.store.reading import Reading
from optlang.search.store.schema import FORMAT, NAME, SCHEMA
from optlang.search.training.assess import Assessment
from optlang.search.training.levels import Level

__all__ = ["Store", "StoreError"]


class Store(Reading):
    """A search's file. Open one with `create`, `open_` or `read`; each is a context manager's value."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: FileLock | None) -> None:
        super().__init__(path, connection)
        self._lock = lock

    @classmethod
    def create(cls, path: str | Path, settings: Mapping[str, Any]) -> Store:
        """A new store. Raises StoreError where there is one already, or where it cannot be written."""
        path = Path(path)
        absent(path)
        lock = locked(path)
        try:
            absent(path)  # another process may have made it while this one came for the lock
            first = {"format": FORMAT, "made by": NAME, "settings": dict(settings), "versions": _versions(), "created": time.time()}
            made(path, SCHEMA, {name: json.dumps(value) for name, value in first.items()})
            return cls(path, to_write(path), lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open_(cls, path: str | Path) -> Store:
        """A store to go on with. Raises StoreError for a missing, foreign, damaged or newer one, or one that is in use."""
        path = Path(path)
        cls.read(path).close()  # what is not ours is not even locked
        lock = locked(path)
        try:
            store = cls(path, to_write(path), lock)
        except BaseException:
            lock.release()
            raise
        try:
            store.note("opened", {"process": os.getpid(), "versions": _versions()})  # and so shows at once whether it can be written
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def read(cls, path: str | Path) -> Store:
        """A store to look at, also while a search writes to it. Raises StoreError like `open_`."""
        path = Path(path)
        there(path)
        with telling(path):
            store = cls(path, to_read(path), None)
        try:
            store._check()
        except BaseException:
            store.close()
            raise
        return store

    def _check(self) -> None:
        found = {name: self.meta(name) if self.has_meta(name) else None for name in ("made by", "format", "versions")}
        if found["made by"] != NAME:
            raise StoreError(f"{self.path} is not the store of a search. It is left as it is; choose another file")
        if found["format"] != FORMAT:
            theirs = (found["versions"] or {}).get("optlang", "of another version")
            raise StoreError(f"{self.path} has format {found['format']} and was made by optlang {theirs}; this is optlang {__version__}, "
                             f"which reads format {FORMAT}. Use that version, or start a new store")  # fmt: skip
        damage = self.query("PRAGMA quick_check(1)")[0][0]
        if damage != "ok":
            raise StoreError(f"{self.path} is damaged ({damage}). It is left as it is; go on with a copy made earlier")

    def check_tasks(self, tasks: Mapping[str, str]) -> None:
        """Digests of the tasks (their data and code), by name; new ones are remembered. Raises StoreError where one has changed."""
        known = self.meta("tasks") if self.has_meta("tasks") else {}
        for name, digest in tasks.items():
            if known.get(name, digest) != digest:
                raise StoreError(f"{self.path} has results of another task `{name}`: its data or its code has changed since. "
                                 "Give the changed task a name of its own, or start a new store")  # fmt: skip
        if not tasks.keys() <= known.keys():
            self.save_meta("tasks", {**tasks, **known})

    def close(self) -> None:
        """Closes the file; another process may then write to it."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def discard(self) -> None:
        """Closes the file and takes it away, if no program has been trained yet: of a search that could not be set up."""
        empty = self._lock is not None and not self.query("SELECT 1 FROM genomes LIMIT 1")
        self._connection.close()
        if empty:
            gone(self.path)
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises StoreError where the disk is full or the file cannot be written."""
        with telling(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def save_round(self, done: Round, state: Mapping[str, Any], level: Level, seeds: Sequence[int], jobs: Sequence[str]) -> None:
        """Programs, results and the branch's state after a round; the `jobs` that were kept for it are no longer needed."""
        name = done.branch
        rows = [(name, b.number, b.fingerprint, to_text(b.genome), b.parent, b.change, b.born, len(b.genome), b.slots) for b in done.births]
        with self.transaction() as do:
            do.executemany("INSERT INTO genomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            do.executemany(_INSERT_RESULT, [_result(name, b.number, level, seeds, b.assessment) for b in done.births])
            do.execute("INSERT INTO strands VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET state = excluded.state, rounds = rounds + 1",
                       (name, json.dumps(state)))  # fmt: skip
            if done.improved:
                do.execute("INSERT OR REPLACE INTO curve VALUES (?, ?, ?, ?)", (name, done.children, done.spent, done.best.fitness))
            do.executemany("DELETE FROM jobs WHERE digest = ?", [(digest,) for digest in jobs])

    def save_assessments(self, branch: str, level: Level, seeds: Sequence[int], found: Mapping[int, Assessment]) -> None:
        """Results of a later level. One that is there already is kept."""
        with self.transaction() as do:
            do.executemany(_INSERT_RESULT, [_result(branch, n, level, seeds, one) for n, one in found.items()])

    def save_job(self, digest: str, result: Any) -> None:
        """The result of one job of a round that is not over."""
        with self.transaction() as do:
            do.execute("INSERT OR IGNORE INTO jobs VALUES (?, ?)", (digest, json.dumps(result)))

    def drop_jobs(self, digests: Sequence[str]) -> None:
        """Results of jobs that are no longer needed."""
        with self.transaction() as do:
            do.executemany("DELETE FROM jobs WHERE digest = ?", [(digest,) for digest in digests])

    def save_meta(self, name: str, value: Any) -> None:
        with self.transaction() as do:
            do.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))

    def note(self, kind: str, data: Any) -> None:
        """One more event."""
        with self.transaction() as do:
            do.execute("INSERT INTO events (time, kind, data) VALUES (?, ?, ?)", (time.time(), kind, json.dumps(data)))


_INSERT_RESULT = "INSERT INTO assessments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"


def _result(branch: str, number: int, level: Level, seeds: Sequence[int], found: Assessment) -> tuple[Any, ...]:
    values = (found.fitness, found.error, found.worst, found.steps, found.seconds, found.status, json.dumps(dict(found.detail)))
    return (branch, number, level.name, json.dumps(level.tasks), json.dumps(tuple(seeds)), *values)


def _versions() -> dict[str, str]:
    return {"optlang": __version__, "python": platform.python_version(), **{name: version(name) for name in ("torch", "numpy", "sympy")}}
