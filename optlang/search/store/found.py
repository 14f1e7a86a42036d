"""What a search found, as rules: the hall of fame, the Pareto front, and files to keep."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang import writing
from optlang.ir import Program
from optlang.search.programs.genome import Form, from_text, to_program
from optlang.search.store.database import Store, StoreError
from optlang.simplify import simplify

if TYPE_CHECKING:
    from optlang.search.distil.ablation import Trainer
    from optlang.search.distil.distillation import Distilled
    from optlang.search.training.assess import Assessment

BYTES = 4  # of a float32
PROPOSED = "proposed as "  # how the change begins that brought in a rule from outside


@dataclass(frozen=True)
class Found:
    """One program with what the search knows of it. `lr`: the best step size on the first task. `size`: bytes per element and step."""

    branch: str
    number: int
    fitness: float
    error: float
    statements: int
    slots: int
    text: str
    lr: float
    change: str = ""  # what made it of its parent
    origin: str = ""  # how the first of its line came from outside, where it did

    @property
    def doc(self) -> str:
        """Where the rule is from."""
        origin = f", from one {self.origin}" if self.origin else ""
        return f"found by optlang search, branch {self.branch}, program {self.number}{origin}"

    @property
    def size(self) -> int:
        """Bytes that a step moves for each element: gradient read, weight and slots read and written."""
        return BYTES * (3 + 2 * self.slots)

    @property
    def name(self) -> str:
        return f"Found{self.number}"

    def to_json(self, form: Form) -> dict[str, Any]:
        """Plain values, with the rule as the text of a `.opt` file."""
        kept = {"rule": self.name, "fitness": self.fitness, "error": self.error, "statements": self.statements, "slots": self.slots}
        return {**kept, "bytes": self.size, "lr": self.lr, "change": self.change, "text": self.rule(form)}

    def program(self, form: Form) -> Program:
        return to_program(from_text(self.text), form, self.name, self.doc, self.lr)

    def rule(self, form: Form) -> str:
        """The text of a `.opt` file, quickly: shortened by what optlang does to every rule."""
        from optlang.search.distil.naming import named
        from optlang.search.distil.wording import written

        return written(simplify(named(self.program(form))))

    def distilled(
        self, form: Form, trainer: Trainer | None = None, seeds: Sequence[int] = (), seconds: float = math.inf,
        tell: Callable[[str], None] = lambda _: None,
    ) -> Distilled:  # fmt: skip
        """The rule as a person would write it, with the proof of every step: about a second, or with a trainer minutes."""
        from optlang.search.distil.distillation import distil

        genome = from_text(self.text)
        return distil(genome, form, name=self.name, doc=self.doc, trainer=trainer, seeds=seeds, lr=self.lr, seconds=seconds, tell=tell)

    def written(self, form: Form) -> str:
        """The text of a `.opt` file as a person would write it; quickly where it diverges, so that no proof can compare."""
        try:
            return self.distilled(form).opt()
        except ValueError:
            return self.rule(form)


def as_rule(genome: str, form: Form, branch: str, number: int, found: Assessment) -> str:
    """A program that has been trained, as the text of a `.opt` file; one that could not be, too."""
    lr = next((float(score["lr"]) for score in found.detail.values()), 1e-3)
    return Found(branch, number, found.fitness, found.error, 0, 0, genome, lr).rule(form)


def hall_of_fame(store: Store, level: str, count: int = 10, branch: str = "evolution") -> list[Found]:
    """The fittest programs of a level, best first. Of those that trained alike to the last bit, the shortest: they are one rule."""
    found: dict[tuple[float, float], Found] = {}
    for one in sorted(_rows(store, level, branch), key=lambda one: (-one.fitness, one.change != "seed", one.statements, one.number)):
        found.setdefault((one.fitness, one.error), one)
    return [_with_origin(store, one) for one in list(found.values())[:count]]


def pareto(store: Store, level: str) -> list[Found]:
    """Programs that no other beats in fitness with no more statements and no more slots; the fittest first."""
    front: list[Found] = []
    for one in sorted(_rows(store, level, "evolution"), key=lambda found: (-found.fitness, found.statements, found.slots, found.number)):
        if all(one.statements < other.statements or one.slots < other.slots for other in front):
            front.append(one)
    return [_with_origin(store, one) for one in front]


def _with_origin(store: Store, one: Found) -> Found:
    [(_, first, _), *_] = store.lineage(one.branch, one.number)
    return replace(one, origin=first) if first.startswith(PROPOSED) else one


def _rows(store: Store, level: str, branch: str) -> list[Found]:
    rows = store.query(
        "SELECT g.number, a.fitness, a.error, g.statements, g.slots, g.text, a.detail, g.change FROM genomes g JOIN assessments a "
        "USING (branch, number) WHERE branch = ? AND a.level = ? AND a.status = 'ok'", branch, level)  # fmt: skip
    return [
        Found(branch, number, fitness, error, length, slots, text, _lr(detail), change)
        for number, fitness, error, length, slots, text, detail, change in rows
    ]


def _lr(detail: str) -> float:
    """The step size in the JSON of scores by task: that of the first."""
    found = re.search(r'"lr": ([-+.e\d]+)', detail)
    return float(found.group(1)) if found else 1e-3


def find(store: Store, name: str, level: str, branch: str = "evolution") -> Found:
    """The program of a name such as `Found12`, a number, or `best`. Raises StoreError where there is none."""
    rows = _rows(store, level, branch)
    if name == "best" and rows:
        return _with_origin(store, max(rows, key=lambda one: (one.fitness, -one.number)))
    number = re.sub(r"\D", "", name)
    for one in rows:
        if str(one.number) == number:
            return _with_origin(store, one)
    raise StoreError(f"{store.path} has no rule {name!r}; `optlang search pick {store.path}` lists the best")


def write_hall(store: Store, level: str, form: Form, folder: Path) -> list[Path]:
    """The hall of fame as `.opt` files, one for each rank; files of earlier calls are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for rank, one in enumerate(hall_of_fame(store, level), 1):
        path = folder / f"{rank:02}.opt"
        writing.replace(path, f"# fitness {one.fitness:.4f} ± {one.error:.4f}; program {one.number}\n{one.rule(form)}")
        paths.append(path)
    return paths


def table(rows: Sequence[Found]) -> str:
    """A plain table for terminals and logs."""
    if not rows:
        return "no program has been trained to the end yet"
    lines = ["rule           fitness         statements  slots  bytes/element"]
    lines += [f"{r.name:<14} {r.fitness:.4f} ±{r.error:.4f} {r.statements:>10} {r.slots:>6} {r.size:>14}" for r in rows]
    return "\n".join(lines)
