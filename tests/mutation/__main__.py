"""`python -m tests.mutation COPIES --coverage .coverage --times times.json --results mutants.jsonl --record docs/mutants.json`

Mutants tried one after another in copies of the project that nobody uses meanwhile, one process for each. `--results` has a line for
each mutant and is gone on with; `--again` gives those that survived other tests, and more. The record sums up, and keeps what it says
of survivors.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

from .choice import Choice
from .record import Line, read, record
from .sample import SEED, sample
from .server import Server
from .sites import Mutant


def main() -> None:
    asked = _asked()
    choice = Choice(asked.measured.resolve(), asked.coverage, asked.times)
    Server(asked.copies[0]).read(choice.files)
    every = [*enumerate(sample(asked.copies[0], asked.seed))]
    workers = []
    for place, copy in enumerate(asked.copies):
        start = len(every) * place // len(asked.copies)
        if (worker := os.fork()) == 0:
            _work(Server(copy), choice, every[start:] + every[:start], asked)
            os._exit(0)
        workers.append(worker)
    for worker in workers:
        os.waitpid(worker, 0)
    if asked.record:
        before = json.loads(asked.record.read_text(encoding="utf-8")) if asked.record.exists() else {}
        made = record(read(asked.results), before, asked.seed, asked.commit or _commit())
        asked.record.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _work(server: Server, choice: Choice, todo: list[tuple[int, Mutant]], asked: argparse.Namespace) -> None:
    for index, mutant in todo:
        if asked.unchanged:
            print(index, server.run(choice.tests(mutant), 600), flush=True)
        elif _wanted(asked.results, index, asked.again):
            line = json.dumps({"index": index, **tried(server, choice, mutant, asked.again)})
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("copies", nargs="+", type=lambda text: Path(text).resolve())
    parser.add_argument("--coverage", type=Path, required=True, help="of a run with `-p mutation.contexts`")
    parser.add_argument("--measured", type=Path, default=Path(), help="where the project was in that run")
    parser.add_argument("--times", type=Path, nargs="+", required=True)
    parser.add_argument("--results", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--record", type=lambda text: Path(text).resolve())
    parser.add_argument("--commit", help="of the copy, by default this one")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--unchanged", action="store_true", help="the tests of each mutant with nothing changed: none may fail")
    return parser.parse_args()


def _wanted(results: Path, index: int, again: bool) -> bool:
    """Whether a mutant has not been tried, by another process either, or has survived fewer tests."""
    said = [line for line in read(results) if line["index"] == index]
    return not said if not again else bool(said) and not any(line["by"] or line["again"] for line in said)


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def tried(server: Server, choice: Choice, mutant: Mutant, again: bool) -> Line:
    """The file is changed, the tests are run, the file is as before. Twice the time that they took and 15 s are enough."""
    chosen = choice.tests(mutant, again)
    path = server.root / mutant.file
    before = path.read_bytes()
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        stale.unlink()
    path.write_bytes(mutant.applied(before))
    try:
        outcome = server.run(chosen, 2 * choice.seconds(chosen) + 15)
    finally:
        path.write_bytes(before)
    words = {key: value for key, value in asdict(mutant).items() if key in ("file", "operator", "line", "old", "new")}
    return {**words, "tests": sum(len(tests) for _, tests in chosen), "again": again, **asdict(outcome)}


main()
