"""The file under a store: who may write to it, how it is opened, and what to do when SQLite refuses."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

WAIT = 10.0  # seconds for another program that has locked the file for a moment


class StoreError(Exception):
    """A store that cannot be used; the message says which, why, and what to do. What was finished is kept."""


_AGAIN = "What was finished is kept; then `optlang search resume {path}`"
_REFUSALS = {
    sqlite3.SQLITE_FULL: "{path} cannot grow: the disk is full. Make room. " + _AGAIN,
    sqlite3.SQLITE_IOERR: "{path} cannot be read or written: the disk reports an error ({problem}). Is it full, or gone? " + _AGAIN,
    sqlite3.SQLITE_READONLY: "{path} cannot be written: you may only read it. Get the right to write to it and its folder. " + _AGAIN,
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened: may you read and write in its folder? " + _AGAIN,
    sqlite3.SQLITE_BUSY: "{path} is locked by another program for more than {wait:g} seconds. End it. " + _AGAIN,
    sqlite3.SQLITE_CORRUPT: "{path} is damaged ({problem}). It is left as it is; go on with a copy made earlier",
    sqlite3.SQLITE_NOTADB: "{path} is not the store of a search, or its beginning is damaged ({problem}). It is left as it is",
    sqlite3.SQLITE_ERROR: "{path} is not the store of a search ({problem}). It is left as it is; choose another file",
}
_OTHER = "{path} cannot be used: {problem}. " + _AGAIN


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """SQLite's refusals as StoreError."""
    try:
        yield
    except sqlite3.Error as problem:
        words = _REFUSALS.get(_code(problem), _OTHER)
        raise StoreError(words.format(path=path, problem=problem, wait=WAIT)) from problem


def _code(problem: sqlite3.Error) -> int:
    """The primary one of SQLite's codes, 0 where the error is not SQLite's."""
    code: int | None = getattr(problem, "sqlite_errorcode", None)
    return (code or 0) & 0xFF


def there(path: Path) -> None:
    """Raises StoreError where there is no file."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not the store of a search")
    if not path.exists():
        raise StoreError(f"there is no store {path}; start one with `optlang search adamw --store {path}`")
    if path.stat().st_size == 0:
        raise StoreError(f"{path} is empty, not the store of a search. It is left as it is; choose another file")


def absent(path: Path) -> None:
    """Raises StoreError where there is a file already: no search is ever overwritten."""
    if path.exists() or path.is_symlink():
        raise StoreError(f"{path} is there already: `optlang search resume {path}` goes on with it; or choose another name")


def in_use(path: Path) -> bool:
    """Whether a process writes to a store."""
    try:
        locked(path).release()
    except StoreError:
        return True
    return False


def locked(path: Path) -> FileLock:
    """The right to write. The lock goes with the process, however that ends."""
    note = Path(f"{path}.lock")
    lock = FileLock(note)
    try:
        lock.acquire(timeout=0.2, poll_interval=0.05)  # whoever only asks whether it is in use has it for a moment
        note.write_text(str(os.getpid()))
    except Timeout:
        raise StoreError(f"{path} is in use by process {note.read_text() or 'unknown'}; wait for it or stop it") from None
    except OSError as problem:
        lock.release()
        raise StoreError(f"{path} cannot be locked: {problem}. Choose a folder with room that you may write to") from problem
    return lock


def made(path: Path, schema: str, meta: Mapping[str, str]) -> None:
    """A new file with its first rows, there as a whole or not at all. The caller holds the lock."""
    fresh = Path(f"{path}.new")
    for end in ("-wal", "-shm", ".new", ".new-journal", ".new-wal", ".new-shm"):  # of a store that was deleted, or never finished
        Path(f"{path}{end}").unlink(missing_ok=True)
    try:
        with telling(path), contextlib.closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
            connection.executescript(schema)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it
        os.rename(fresh, path)
    except OSError as problem:
        raise StoreError(f"{path} cannot be made: {problem}. Choose a folder with room that you may write to") from problem
    finally:
        fresh.unlink(missing_ok=True)


def gone(path: Path) -> None:
    """Takes a store away. The caller holds the lock."""
    for end in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def to_write(path: Path) -> sqlite3.Connection:
    """The caller holds the lock. Every commit is on the disk when it returns."""
    connection = _connected(path, "mode=rw")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def to_read(path: Path) -> sqlite3.Connection:
    """Beside a writer, or where nothing may be written, not even SQLite's own notes beside the file."""
    connection = _connected(path, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_schema").fetchall()
    except sqlite3.OperationalError as problem:
        connection.close()
        log = Path(f"{path}-wal")
        if _code(problem) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or (log.exists() and log.stat().st_size):
            raise
        return _connected(path, "immutable=1")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connected(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None, timeout=WAIT)
