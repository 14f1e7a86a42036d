"""Long bouts of random programs and texts that go on where the last ones stopped, and what they found.

The record is one JSON file. A find is known by what was said and where, is kept once with its shortest text, and counted.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .chance import Dice

SAVE = 60  # seconds between two writings of the record
Try = Callable[[Any], None]


class Hangs(Exception):
    """Something took far longer than it may."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises Hangs after so many seconds of processor time."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Kind:
    """What is tried: `made` from choices, `tried` (raises what is found), `text_of` and `like`, the same with another text."""

    name: str
    counted: Counter[str]
    made: Callable[[Dice], Any]
    tried: Try
    text_of: Callable[[Any], str]
    like: Callable[[Any, str], Any]
    before: Callable[[list[Any]], Any] = lambda some: None  # for a whole bout
    bout: int = 50
    seconds: float = 60


@dataclass
class Record:
    """What has been done so far in one file; see `docs/trust.md`."""

    path: Path
    kinds: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Record:
        return cls(path, json.loads(path.read_text(encoding="utf-8")) if path.exists() else {})

    def of(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = self.kinds.setdefault(kind, {"next": 0, "seconds": 0.0, "counts": {}, "finds": []})
        return found

    def write(self) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.kinds, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def add(self, kind: str, find: dict[str, Any]) -> bool:
        """Whether it is new: what was mended and comes again is."""
        for known in self.of(kind)["finds"]:
            if known["sort"] == find["sort"] and "mended" not in known:
                known["times"] += 1
                if len(find["text"]) < len(known["text"]):
                    known |= {name: find[name] for name in ("text", "seed", "what")}
                return False
        self.of(kind)["finds"].append(find)
        return True


def run(kind: Kind, record: Record, minutes: float, say: Callable[[str], None]) -> int:
    """Bouts until the time is over. Gives how many finds were new."""
    here, new = record.of(kind.name), 0
    end, written = time.monotonic() + 60 * minutes, time.monotonic()
    while time.monotonic() < end:
        started = time.process_time()
        for find in bout(kind, here["next"]):
            is_new = record.add(kind.name, find)
            new += is_new
            say(f"{'FOUND' if is_new else 'again'} {find['what'][:300]}" + (f"\n{find['text']}\n{find['trace']}" if is_new else ""))
        here["next"] += kind.bout
        here["seconds"] = round(here["seconds"] + time.process_time() - started, 1)
        here["counts"] = dict(sorted((Counter(here["counts"]) + kind.counted).items()))
        kind.counted.clear()
        if time.monotonic() - written > SAVE:
            record.write()
            written = time.monotonic()
    record.write()
    say(f"{kind.name}: {here['next']} so far, {len(here['finds'])} sorts of finds")
    return new


def bout(kind: Kind, first: int) -> Iterator[dict[str, Any]]:
    made = [(seed, kind.made(Dice(f"{kind.name} {seed}"))) for seed in range(first, first + kind.bout)]
    around = kind.before([one for _, one in made])
    for seed, one in made:
        problem = problem_of(kind, one)
        if problem is not None:
            yield find_of(kind, seed, one, problem)
    if around is not None:
        around()


def problem_of(kind: Kind, one: Any) -> BaseException | None:
    try:
        with at_most(kind.seconds):
            kind.tried(one)
    except (Exception, Hangs) as problem:
        return problem
    return None


def find_of(kind: Kind, seed: int, one: Any, problem: BaseException) -> dict[str, Any]:
    sort = sort_of(problem)
    counted = Counter(kind.counted)
    text = shrunk(kind.text_of(one), lambda text: sort_of(problem_of(kind, kind.like(one, text))) == sort)
    kind.counted.clear()
    kind.counted.update(counted)
    trace = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__, limit=-4))
    what = f"{type(problem).__name__}: {problem}"
    found = {"sort": sort, "what": what[:600], "text": text[:3000], "seed": seed, "trace": trace[-1500:], "times": 1}
    return found | {"about": str(one)[:200], "date": datetime.date.today().isoformat()}


def sort_of(problem: BaseException | None) -> str:
    """What was said, without names and numbers, and where."""
    if problem is None:
        return ""
    frames = traceback.extract_tb(problem.__traceback__)
    own = [f for f in frames if f"{os.sep}optlang{os.sep}" in f.filename] or frames
    place = f"{Path(own[-1].filename).stem}.{own[-1].name}" if own else ""
    said = re.sub(r"`[^`]*`|[-+]?[0-9][-+.e0-9]*|step|\[.*\]|\(.*\)", "", f"{type(problem).__name__}: {problem}")
    return f"{' '.join(said.split())[:90]} at {place}"


def shrunk(text: str, fails: Callable[[str], bool], most: int = 240) -> str:
    """Without the rules and functions, lines and words that it fails without."""
    left = most
    for cut in (_items, _lines, _words, _lines):
        place = 0
        while left > 0 and (shorter := cut(text, place)) is not None:
            left -= 1
            if shorter != text and fails(shorter):
                text = shorter
            else:
                place += 1
    return text


def _without(parts: list[str], place: int) -> str | None:
    return "".join(parts[:place] + parts[place + 1 :]) if place < len(parts) else None


def _items(text: str, place: int) -> str | None:
    return _without(re.split(r"(?<=^}\n)", text, flags=re.MULTILINE), place)


def _lines(text: str, place: int) -> str | None:
    return _without(text.splitlines(keepends=True), place)


WORD = re.compile(r"\([^()]*\)|\w+\([^()]*\)")


def _words(text: str, place: int) -> str | None:
    """The innermost brackets as `g`."""
    found = list(WORD.finditer(text))
    return f"{text[: found[place].start()]}g{text[found[place].end() :]}" if place < len(found) else None
