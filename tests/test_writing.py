"""Files that are written as a whole: where the disk is full, what was there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import full_disk

from optlang import writing
from optlang.bench.measure import Spread
from optlang.bench.results import Bench
from optlang.race.results import Results
from optlang.search import looking
from optlang.search.distil.trace import Trace
from optlang.search.shortening import Short

TEXT = "what is written now, and longer than there is room for"
WRITERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda path: writing.replace(path, TEXT),
    "a bench": lambda path: Bench("CPU", Spread(1.0, 1.0, 1.0), "float32").write(path),
    "a race": lambda path: Results("digits", "digits", 1, 1, [0.1], 0, [1], [], {}).save(path),
    "a report": lambda path: looking._written(TEXT, str(path)),
    "a rule": lambda path: Short("Found1", TEXT, Trace("Found1", "", "", (), 0.0)).write(path),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_was_there_stays_until_all_of_the_new_is_there(what: str, tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("before")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        WRITERS[what](path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    WRITERS[what](path)
    assert path.read_text() != "before"
