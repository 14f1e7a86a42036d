"""What is kept of a search's store, small enough to lie beside the page: the best programs, all that later levels have seen, their
ancestors, and what the search needs to go on. Programs that are left out would be trained again if they came again."""

from __future__ import annotations

import lzma
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from optlang.search.store.database import Store

BEST = 100
TRAINED = "trained until"  # what became of all programs, by branch and level, which the kept ones do not tell

KEEP = f"""
CREATE TEMP TABLE keep AS
WITH RECURSIVE chosen(branch, number) AS (
  SELECT * FROM (SELECT branch, number FROM assessments GROUP BY branch, number ORDER BY MAX(fitness) DESC LIMIT {BEST})
  UNION SELECT branch, number FROM assessments GROUP BY branch, number HAVING COUNT(DISTINCT level) > 1
  UNION SELECT branch, number FROM genomes WHERE change = 'seed'
  UNION SELECT genomes.branch, genomes.parent FROM genomes JOIN chosen USING (branch, number) WHERE genomes.parent IS NOT NULL)
SELECT DISTINCT branch, number FROM chosen;
DELETE FROM genomes WHERE (branch, number) NOT IN (SELECT branch, number FROM keep);
DELETE FROM assessments WHERE (branch, number) NOT IN (SELECT branch, number FROM keep);
"""


def keep(store: Path, kept: Path) -> None:
    """Writes what is to be kept of a store, packed."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "run.db"
        with closing(sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)) as whole, closing(sqlite3.connect(small)) as copy:
            whole.backup(copy)
        with Store.open_(small) as copied:
            if not copied.events(TRAINED):
                query = "SELECT branch, level, status, COUNT(*) FROM assessments GROUP BY 1, 2, 3 ORDER BY 4 DESC"
                copied.note(TRAINED, [list(row) for row in copied.query(query)])
        with closing(sqlite3.connect(small)) as copy:
            copy.executescript(KEEP)
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("VACUUM")
        kept.write_bytes(lzma.compress(small.read_bytes(), preset=9))


def unpack(kept: Path, store: Path) -> None:
    """The store again."""
    store.write_bytes(lzma.decompress(kept.read_bytes()))


def trained_until(store: Store, branch: str, level: str) -> dict[str, int]:
    """How many programs got how far on a level, most first; of a store that is whole or kept."""
    if told := store.events(TRAINED):
        return {status: count for one, on, status, count in told[-1] if (one, on) == (branch, level)}
    query = "SELECT status, COUNT(*) FROM assessments WHERE level = ? AND branch = ? GROUP BY status ORDER BY COUNT(*) DESC"
    return dict(store.query(query, level, branch))
