"""Programs from outside: whoever can write a file may propose rules to a search under way, and gets their fitness back.

Beside a store `run.db` lies the folder `run.db.proposals`. A file NAME.opt that is put there, whole (written under another name,
then renamed), goes into the next round like a child of the search's own: read as any rule, checked, compared with all that is known,
trained by the same tasks, seeds and hurdles, and taken into the population. The answer is NAME.json, and NAME.opt is gone; who is
killed in between answers later. A search may also live on proposals alone (`Pace.own`). What was proposed, word for word, and what
came of it are events of the store.

Texts are a stranger's: they are data, may import from the library alone, and can do no more than not be taken.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optlang import library
from optlang.search.store.files import StoreError, in_use, there

if TYPE_CHECKING:
    from optlang.rules import Rule
    from optlang.search.evolution.rounds import Round
    from optlang.search.evolution.strand import Strand
    from optlang.search.programs.genome import Genome
    from optlang.search.programs.space import Space
    from optlang.search.store.database import Store
    from optlang.search.training.levels import Level

KIND = "proposal"  # of the event
NAME = re.compile(r"[\w.+-]{1,100}\.opt", re.ASCII)  # of a file; others are left alone
LOOK = 0.2  # seconds between two looks for an answer
OFTEN = 5.0  # seconds between two looks whether the search is still under way


@dataclass(frozen=True)
class Answer:
    """What became of a proposal. `trained`: a program that is new; `known`: one that behaves as `program`, which was there before;
    `rejected`: one that was not trained, for a `reason`. `tasks`: value, error, step size and loss by task. `rule`: `program` as the
    search writes it. `best`: the best one so far, its number, fitness, error and rule."""

    name: str
    outcome: Literal["trained", "known", "rejected"]
    program: int | None = None
    fitness: float | None = None
    error: float | None = None
    status: str = ""
    reason: str = ""
    tasks: Mapping[str, Any] = field(default_factory=dict)
    rule: str = ""
    best: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.outcome == "rejected":
            return f"{self.name}: rejected: {self.reason}"
        status = f", {self.status}" if self.status != "ok" else ""
        was = ", which the search had already" if self.outcome == "known" else ""
        return f"{self.name}: program {self.program}{was}, fitness {self.fitness:.4f} ± {self.error:.4f}{status}"


def folder(store: str | Path) -> Path:
    """Where proposals to a search lie."""
    return Path(f"{store}.proposals")


# ----------------------------------------------------------------------------------------------------- who proposes


def propose(store: str | Path, text: str, minutes: float | None = None, name: str = "") -> Answer:
    """The text of a `.opt` file proposed to a search that another process runs, and what became of it.

    Waits for so many minutes, or as long as the search is under way. Raises StoreError where there is no answer by then; the
    proposal stays, and is answered when the search goes on.
    """
    return answer(store, put(store, text, name), minutes)


def put(store: str | Path, text: str, name: str = "") -> str:
    """Leaves a proposal and returns its name, for `answer`. Raises StoreError."""
    there(Path(store))
    name = f"{name}{'-' if name else ''}{uuid.uuid4().hex[:12]}"
    place = folder(store)
    try:
        place.mkdir(exist_ok=True)
        (place / f"{name}.new").write_text(text, encoding="utf-8")
        (place / f"{name}.new").rename(place / f"{name}.opt")
    except OSError as problem:
        raise StoreError(f"nothing can be proposed to {store}: {problem}. May you write in its folder, and is there room?") from problem
    return name


def answer(store: str | Path, name: str, minutes: float | None = None) -> Answer:
    """The answer to a proposal, waited for; see `propose`."""
    path, started, looked = folder(store) / f"{name}.json", time.monotonic(), -OFTEN
    while not path.exists():
        now = time.monotonic()
        if minutes is None and now - looked > OFTEN:
            looked = now
            if not in_use(Path(store)) and not path.exists():
                raise StoreError(f"no search is under way on {store}; {name}.opt waits until `optlang search resume {store}`")
        if minutes is not None and now - started > 60 * minutes:
            raise StoreError(f"{name}.opt has no answer after {minutes:g} minutes; it waits in {folder(store)}")
        time.sleep(LOOK)
    return Answer(**json.loads(path.read_text(encoding="utf-8")))


# --------------------------------------------------------------------------------------------------- who searches


class Inbox:
    """The proposals to a search, as the search sees them."""

    def __init__(self, store: Store, space: Space, level: Level, seeds: tuple[int, ...]) -> None:
        self.store, self.space, self.level, self.seeds = store, space, level, seeds
        self.folder, self.stuck = folder(store.path), set[str]()
        self._best: dict[str, Any] = {}

    def take(self, strand: Strand) -> None:
        """Hands what waits to a branch; what it does not take is answered at once. Where the branch makes children, too, proposals get
        no more than half of a round."""
        from optlang.search.evolution.population import Proposal
        from optlang.search.store.found import PROPOSED

        busy, room = strand.guests_named, max(1, strand.pace.trained // 2) if strand.pace.own else strand.pace.trained
        for name in self._waiting(busy, room - len(strand.guests)):
            try:
                rule, genome = read(self.folder / f"{name}.opt", self.space)
            except Exception as problem:  # whatever a stranger's text brings about: the search goes on
                self._reject(strand, name, str(problem) or type(problem).__name__)
                continue
            doc = f" ({rule.doc[:200]})" if rule.doc else ""
            if reason := strand.welcome(Proposal(genome, None, f"{PROPOSED}{rule.name}{doc}", source=name)):
                self._reject(strand, name, f"rule `{rule.name}` {reason}")

    def _reject(self, strand: Strand, name: str, reason: str) -> None:
        self._tell(Answer(name, "rejected", reason=reason, best=self._best_of(strand.name, strand.best.number)))

    def answer(self, done: Round) -> None:
        """Tells who proposed what a round has shown."""
        born = {birth.number for birth in done.births}
        for source, number in done.answered:
            found = self.store.assessments(done.branch, self.level, self.seeds, number)[number]
            outcome: Literal["trained", "known"] = "trained" if number in born else "known"
            more = {"tasks": dict(found.detail), "rule": self._told(done.branch, number)["rule"]}
            best = self._best_of(done.branch, done.best.number)
            self._tell(Answer(source, outcome, number, found.fitness, found.error, found.status, **more, best=best))

    def _best_of(self, branch: str, number: int) -> dict[str, Any]:
        if self._best.get("program") != number:
            self._best = self._told(branch, number)
        return self._best

    def _told(self, branch: str, number: int) -> dict[str, Any]:
        """A program with its fitness and its rule."""
        from optlang.search.store.found import as_rule

        found = self.store.assessments(branch, self.level, self.seeds, number)[number]
        text = as_rule(self.store.text(branch, number), self.space.form, branch, number, found)
        return {"program": number, "fitness": found.fitness, "error": found.error, "rule": text}

    def _waiting(self, busy: Collection[str], most: int) -> list[str]:
        """The oldest of the files that wait."""
        try:
            files = [entry for entry in os.scandir(self.folder) if NAME.fullmatch(entry.name) and not entry.is_dir(follow_symlinks=False)]
            found = sorted((entry.stat(follow_symlinks=False).st_mtime, entry.name.removesuffix(".opt")) for entry in files)
        except OSError:  # there is no folder before the first proposal; and one may be taken back
            return []
        return [name for _, name in found if name not in busy and name not in self.stuck][: max(most, 0)]

    def _tell(self, one: Answer) -> None:
        """First the store, then the answer, then the question goes: whoever is cut off does the rest again."""
        path = self.folder / f"{one.name}.opt"
        fields = {key: value for key, value in asdict(one).items() if key not in ("tasks", "rule", "best")}
        with suppress(OSError):  # taken back
            fields["text"] = _bytes(path).decode(errors="replace")
        self.store.note(KIND, fields)
        try:
            beside = self.folder / f"{one.name}.json.new"
            beside.write_text(json.dumps(asdict(one), indent=1) + "\n", encoding="utf-8")
            beside.replace(self.folder / f"{one.name}.json")
            path.unlink(missing_ok=True)
        except OSError:  # in a folder of somebody else's: the store has the answer
            self.stuck.add(one.name)


def read(path: Path, space: Space) -> tuple[Rule, Genome]:
    """A proposed rule as a program of a space. Raises OptError, GenomeError with what is wrong."""
    from optlang.rules import Rule
    from optlang.search.programs.genome import GenomeError
    from optlang.search.programs.seeds import from_rule

    rule = Rule.from_source(library.decode(_bytes(path), path.stem))  # a name without .opt: nothing beside it can be imported
    genome = from_rule(rule, space.form)
    if problem := space.problem(genome):
        raise GenomeError(f"rule `{rule.name}` is not in the space of this search: it {problem}")
    return rule, genome


def _bytes(path: Path) -> bytes:
    """What was proposed. Raises OSError for what is no plain file: a link may lead to what is not the proposer's."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(f"{path.name} is no plain file")
    with path.open("rb") as file:
        return file.read(library.MOST_BYTES + 1)
