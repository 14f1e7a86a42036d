"""Bad files and the whole of what is said about them, word for word: `bad/NAME.opt` and `bad/NAME.txt`. (1 s)

After a change of words that is meant: `python tests/test_bad.py` writes the texts anew; read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from optlang.diagnose import diagnose
from optlang.errors import Source

FOLDER = Path(__file__).parent / "bad"
FILES = sorted(FOLDER.glob("*.opt"))


def said(path: Path) -> str:
    found = diagnose(Source(path.read_text(encoding="utf-8"), path.name))
    return "\n\n".join(d.to_text() for d in found) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_bad_file(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert said(path) == expected
    assert "error[" in expected


def test_there_are_bad_files() -> None:
    assert len(FILES) >= 10


if __name__ == "__main__":
    for each in FILES:
        each.with_suffix(".txt").write_text(said(each), encoding="utf-8")
