"""`python -m tests.fuzz.guided --minutes 5 --record fuzz.json`: hostile texts that are led to new branches of parser, formatter and
checker, with atheris (`pip install -e ".[guided]"`; Linux). The record counts them as another kind; what is found lies in FOLDER."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path("build/guided")
READERS = ["optlang.front", "optlang.lower", "optlang.diagnose", "optlang.errors", "optlang.lints", "optlang.ops", "optlang.types"]
LIMITS = ["-timeout=10", "-rss_limit_mb=4000", "-max_len=2000", "-print_final_stats=1"]
DONE, COVERED = (re.compile(text) for text in (r"stat::number_of_executed_units:\s+(\d+)", r"cov: (\d+)"))


def texts(arguments: list[str]) -> None:
    """Reads texts until libFuzzer, which gets the arguments, ends the process."""
    import atheris

    with atheris.instrument_imports(include=READERS):
        from . import hostile

    def one(data: bytes) -> None:
        hostile.read(data.decode("utf-8", "replace"), printers=False)

    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def prepared(folder: Path) -> list[str]:
    """What libFuzzer begins with: texts to change, and words to put into them."""
    from . import hostile

    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(hostile.SHORT):
        (corpus / f"text-{number}").write_text(text, encoding="utf-8", errors="replace")
    quoted = ["".join(f"\\x{byte:02x}" for byte in word.encode("utf-8", "replace")) for word in hostile.WORDS]
    (folder / "words").write_text("".join(f'"{word}"\n' for word in dict.fromkeys(quoted)), encoding="utf-8")
    return [f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/", str(corpus)]


def told(said: str, seconds: int, found: list[Path]) -> dict[str, Any]:
    """The record of one run, from what libFuzzer said."""
    count, covered = DONE.search(said), COVERED.findall(said)
    return {
        "date": datetime.date.today().isoformat(), "seconds": seconds, "counts": {"texts": int(count.group(1)) if count else 0},
        "branches at the start and end": [int(covered[0]), int(covered[-1])] if covered else [],
        "finds": [path.read_bytes().decode("utf-8", "replace") for path in found],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--record", type=Path, default=Path("fuzz.json"))
    asked = parser.parse_args()
    seconds, given = int(60 * asked.minutes), prepared(FOLDER)
    known = {*FOLDER.glob("*-*")}
    command = [sys.executable, "-m", "tests.fuzz.guided", "--read", f"-max_total_time={seconds}", *LIMITS, *given]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = sorted({*FOLDER.glob("*-*")} - known)
    kinds = json.loads(asked.record.read_text(encoding="utf-8")) if asked.record.exists() else {}
    kinds["guided"] = told(done.stderr, seconds, found)
    asked.record.write_text(json.dumps(kinds, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    print(done.stderr[-3000:] if found or done.returncode else json.dumps(kinds["guided"]))
    return 1 if found else done.returncode


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        texts(sys.argv[2:])
    else:
        sys.exit(main())
