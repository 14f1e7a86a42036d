"""Bad files and the whole of what is said about them, word for word: `bad/NAME.opt` and `bad/NAME.txt`. (8 s)

After a change of words that is meant: `python tests/test_bad.py` writes the texts anew; read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from optlang.catalogue import CATALOGUE
from optlang.diagnose import diagnose
from optlang.errors import Source

FOLDER = Path(__file__).parent / "bad"
FILES = sorted(FOLDER.rglob("*.opt"))


def said(path: Path) -> str:
    found = diagnose(Source(path.read_text(encoding="utf-8"), path.relative_to(FOLDER).as_posix()))
    return "\n\n".join(d.to_text() for d in found) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(FOLDER).as_posix())
def test_bad_file(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert said(path) == expected
    assert "error[" in expected


def test_there_are_bad_files() -> None:
    assert len(FILES) >= 300


def test_every_error_of_a_text_is_there() -> None:
    """U01 and U02 are about names and files, L02 about a megabyte, R09 about the name that is asked for; P are lints."""
    texts = "".join(path.with_suffix(".txt").read_text(encoding="utf-8") for path in FILES)
    missing = {code for code in CATALOGUE if f"error[{code}]" not in texts and not code.startswith("P")}
    assert missing <= {"U01", "U02", "L02", "R09"}


if __name__ == "__main__":
    for each in FILES:
        each.with_suffix(".txt").write_text(said(each), encoding="utf-8")
