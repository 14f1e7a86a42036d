"""What can be wrong with a store or its disk: a clear message, nothing overwritten, finished work kept."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import search_stores as made

from optlang.search.store import files as store_files
from optlang.search.store.database import Store, StoreError

NOBODY = 65534
Spoil = Callable[[Path], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two rounds."""
    found = tmp_path / "run.db"
    with Store.create(found, made.SETTINGS) as store:
        made.advance(store, 2)
    return found


def folder_of(path: Path) -> dict[str, bytes]:
    """Everything there, but for the lock and SQLite's notes on who reads."""
    beside = (".lock", "-shm", "-wal")
    return {one.name: one.read_bytes() for one in path.parent.iterdir() if one.is_file() and not one.name.endswith(beside)}


# ------------------------------------------------------------------------------------------------------- wrong files


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("fitness, rule\n" * 100)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE holidays (day TEXT); INSERT INTO holidays VALUES ('Monday');")


def alike(path: Path) -> None:
    """Somebody else's file with a table of the same name."""
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.executescript("CREATE TABLE meta (name TEXT, value TEXT); INSERT INTO meta VALUES ('owner', '\"me\"');")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_a_few_bytes(path: Path) -> None:
    os.truncate(path, 50)


def scribbled_on(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 3 * 4096))


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE meta SET value = '99' WHERE name = 'format'")
        other.execute("UPDATE meta SET value = '{\"optlang\": \"7.3\"}' WHERE name = 'versions'")


WRONG: list[tuple[Spoil, str]] = [
    (empty, "is empty, not the store of a search"),
    (text, "is not the store of a search"),
    (folder, "is a folder"),
    (foreign, "is not the store of a search"),
    (alike, "is not the store of a search"),
    (cut_in_half, "is damaged"),
    (cut_to_a_few_bytes, "is damaged"),
    (scribbled_on, "is damaged"),
    (newer, r"has format 99 and was made by optlang 7\.3; .* Use that version, or start a new store"),
]


@pytest.mark.parametrize("opened", [Store.open_, Store.read])
@pytest.mark.parametrize(("spoil", "words"), WRONG, ids=lambda one: getattr(one, "__name__", ""))
def test_wrong_files_are_told_apart_and_left_alone(path: Path, spoil: Spoil, words: str, opened: Callable[[Path], Store]) -> None:
    spoil(path)
    before = folder_of(path)
    with pytest.raises(StoreError, match=words) as told:
        opened(path)
    assert str(path) in str(told.value)
    assert folder_of(path) == before


@pytest.mark.parametrize(("spoil", "_"), WRONG, ids=lambda one: getattr(one, "__name__", ""))
def test_a_new_search_overwrites_nothing_of_any_kind(path: Path, spoil: Spoil, _: str) -> None:
    spoil(path)
    before = folder_of(path)
    with pytest.raises(StoreError, match="is there already: `optlang search resume"):
        Store.create(path, {})
    assert folder_of(path) == before


def test_no_file_at_all(tmp_path: Path) -> None:
    for opened in (Store.open_, Store.read):
        with pytest.raises(StoreError, match="there is no store .*; start one with"):
            opened(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    Store.create(tmp_path / "searches" / "run.db", {}).close()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match="Choose a folder"):
        Store.create(tmp_path / "file" / "run.db", {})


def test_names_with_signs_that_mean_something_in_a_uri(tmp_path: Path) -> None:
    path = tmp_path / "what? 100% #1.db"
    with Store.create(path, made.SETTINGS) as store:
        made.advance(store, 1)
    with Store.read(path) as store:
        assert len(store.known(made.BRANCH, "search")) == made.SIZE


def test_what_a_deleted_store_left_beside_it_does_not_get_into_a_new_one(path: Path) -> None:
    with Store.open_(path) as store:
        made.advance(store, 3)
        wal = Path(f"{path}-wal").read_bytes()
    path.unlink()
    Path(f"{path}-wal").write_bytes(wal)
    with Store.create(path, {}) as store:
        assert store.branches() == []


# ----------------------------------------------------------------------------------------------------------- in use


def test_a_second_writer_is_told_who_is_first(path: Path) -> None:
    with Store.open_(path):
        imports = "from optlang.search.store.database import Store, StoreError"
        code = f"{imports}\ntry: Store.open_({str(path)!r})\nexcept StoreError as e: print(e)"
        said = output(sys.executable, "-c", code)
        assert said.strip() == f"{path} is in use by process {os.getpid()}; wait for it or stop it"
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
            Store.open_(path)
        with Store.read(path) as reader:
            assert reader.meta("settings") == made.SETTINGS
    Store.open_(path).close()


def test_the_lock_of_a_dead_process_is_taken_over(path: Path) -> None:
    code = f"import os; from optlang.search.store.database import Store; s = Store.open_({str(path)!r}); print(os.getpid()); os._exit(9)"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    assert Path(f"{path}.lock").read_text() == dead
    with Store.open_(path) as store:
        made.advance(store, 3)
        assert [event["process"] for event in store.events("opened")] == [int(dead), os.getpid()]


def test_locked_by_a_program_that_knows_nothing_of_us(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_files, "WAIT", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"is locked by another program .* resume"):
            Store.open_(path)
        other.execute("ROLLBACK")
    Store.open_(path).close()


# ----------------------------------------------------------------------------------------------- disks that fill up


def assert_goes_on(path: Path, rounds: int) -> None:
    """Whole rounds are there, and the search ends as one that had no trouble."""
    with Store.create(path.with_name("whole.db"), made.SETTINGS) as whole, Store.open_(path) as store:
        assert store.state(made.BRANCH)
        made.advance(store, rounds)
        made.advance(whole, rounds)
        assert made.contents(store) == made.contents(whole)


def test_a_file_that_may_not_grow(path: Path) -> None:
    with Store.open_(path) as store:
        pages = store.query("PRAGMA page_count")[0][0]
        store.query(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match=r"the disk is full\. Make room\. What was finished is kept"):
            made.advance(store, 1_000)
        kept = made.contents(store)
        done = store.state(made.BRANCH)["done"]
        assert len(kept["genomes"]) == made.SIZE * done
        store.query("PRAGMA max_page_count = 1000000")
        made.advance(store, done + 1)
    assert_goes_on(path, done + 3)


def output(*command: str, **environment: str) -> str:
    """What a program that can import our helpers prints."""
    paths = os.pathsep.join([str(Path(made.__file__).parent), os.environ.get("PYTHONPATH", "")])
    everything = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=everything).stdout


LIMITED = """
import resource, sys
import search_stores as made
from optlang.search.store.database import Store, StoreError
with Store.open_(sys.argv[1]) as store:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        made.advance(store, 1_000)
    except StoreError as problem:
        print(problem)
"""


def test_a_disk_that_refuses_while_writing(path: Path) -> None:
    """As a full disk does: a write that comes back short."""
    said = output(sys.executable, "-c", LIMITED, str(path))
    assert str(path) in said
    assert "What was finished is kept" in said
    with Store.read(path) as store:
        done = store.state(made.BRANCH)["done"]
    assert done >= 2
    assert_goes_on(path, done + 2)


def can_mount(folder: Path) -> bool:
    return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True, check=False).returncode == 0


FULL = """
import sys
import search_stores as made
from optlang.search.store.database import Store, StoreError
path = sys.argv[1] + "/run.db"
Store.create(path, made.SETTINGS).close()
try:
    with Store.open_(path) as store:
        made.advance(store, 1_000)
except StoreError as problem:
    print(problem)
with Store.read(path) as store:
    print(store.state(made.BRANCH)["done"], len(store.known(made.BRANCH, "search")))
"""


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs the right to mount a small disk")
def test_a_real_full_disk(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("no right to mount a small disk")
    mount = f"mount -t tmpfs -o size=600k none {tmp_path} && exec {sys.executable} -c \"$CODE\" {tmp_path}"
    message, counts = output("unshare", "-m", "sh", "-c", mount, CODE=FULL).strip().splitlines()
    assert "What was finished is kept" in message
    done, known = map(int, counts.split())
    assert known == made.SIZE * done > 0


def test_a_store_that_cannot_even_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_192, hard))
    try:
        with pytest.raises(StoreError, match=r"run\.db"):
            Store.create(tmp_path / "run.db", {"much": "x" * 100_000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {one.name for one in tmp_path.iterdir()} <= {"run.db.lock"}
    Store.create(tmp_path / "run.db", {"much": "x" * 100_000}).close()


# --------------------------------------------------------------------------------------------------------- no rights


@contextmanager
def without_rights() -> Iterator[Path]:
    """A folder that others may read; inside, this process is nobody."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    user = os.geteuid()
    try:
        with Store.create(folder / "run.db", made.SETTINGS) as store:
            made.advance(store, 2)
        for one in folder.iterdir():
            one.chmod(0o444)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(NOBODY)
        yield folder / "run.db"
    finally:
        if user == 0:
            os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_where_nothing_may_be_written_a_store_can_be_read() -> None:
    with without_rights() as path:
        with Store.read(path) as store:
            assert len(store.known(made.BRANCH, "search")) == 2 * made.SIZE
            with pytest.raises(StoreError, match="you may only read it"):
                made.advance(store, 3)
        with pytest.raises(StoreError, match=r"cannot be locked: .*Choose a folder"):
            Store.open_(path)
        with pytest.raises(StoreError, match=r"cannot be locked: .*Choose a folder"):
            Store.create(path.with_name("other.db"), {})


def test_a_file_that_may_only_be_read() -> None:
    with without_rights() as path:
        os.seteuid(os.getuid())
        path.parent.chmod(0o777)
        Path(f"{path}.lock").unlink()
        if os.getuid() == 0:
            os.seteuid(NOBODY)
        with pytest.raises(StoreError, match=r"you may only read it\. Get the right to write"):
            Store.open_(path)
        with Store.read(path) as store:
            assert len(store.known(made.BRANCH, "search")) == 2 * made.SIZE
