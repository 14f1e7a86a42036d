"""What a simplification did, step by step, as data: for the report, for reading, and to be checked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["exact", "bounded", "measured"]
MEANING: dict[Kind, str] = {
    "exact": "equal for all real numbers at which the rule as found is defined",
    "bounded": "equal up to a protection such as 1e-8; the evidence says where, and by how much",
    "measured": "another rule, with which training ends alike: within a tolerance on both sides, on every task, over paired seeds",
}


@dataclass(frozen=True)
class Step:
    """One step. `before` and `after` are what it changed; `statements` and `slots` the whole program's, before and after."""

    name: str
    kind: Kind
    before: str
    after: str
    evidence: str
    statements: tuple[int, int]
    slots: tuple[int, int]


@dataclass(frozen=True)
class Trace:
    """All steps in order. `start` and `end`: the programs, one assignment per line.

    `seconds`: processor time spent on algebra; loading SymPy and training left out.
    """

    name: str
    start: str
    end: str
    steps: tuple[Step, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "steps": [asdict(step) for step in self.steps]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trace:
        steps = [Step(**{**s, "statements": tuple(s["statements"]), "slots": tuple(s["slots"])}) for s in values["steps"]]
        return cls(**{**values, "steps": tuple(steps)})

    def summary(self) -> str:
        """Sizes before and after, and how many steps of which kind."""
        counts = ", ".join(f"{n} {kind}" for kind in MEANING if (n := sum(s.kind == kind for s in self.steps)))
        if not self.steps:
            return f"{self.name}: nothing to simplify"
        first, last = self.steps[0], self.steps[-1]
        return (f"{self.name}: {first.statements[0]} → {last.statements[1]} statements, {first.slots[0]} → {last.slots[1]} slots, "
                f"in {len(self.steps)} steps ({counts}); {self.seconds:.2f} s of algebra")  # fmt: skip

    def to_text(self) -> str:
        """For terminals."""
        lines = [self.summary(), *_indented(self.start)]
        for number, step in enumerate(self.steps, 1):
            lines += ["", f"{number}. {step.name} [{step.kind}; {_sizes(step)}]", *_indented(_change(step.before, step.after)),
                      f"   {step.evidence}"]  # fmt: skip
        return "\n".join([*lines, "", "result", *_indented(self.end)]) + "\n"

    def to_markdown(self) -> str:
        """A page: the program as found, every step with its evidence, the result."""
        kinds = [f"- *{kind}*: {MEANING[kind]}" for kind in MEANING if any(s.kind == kind for s in self.steps)]
        parts = [f"# {self.name}", self.summary(), *(["\n".join(kinds)] if kinds else []), _block(self.start)]
        for number, step in enumerate(self.steps, 1):
            parts += [f"## {number}. {step.name}", f"*{step.kind}*; {_sizes(step)}.", _block(_change(step.before, step.after)),
                      f"{step.evidence}."]  # fmt: skip
        return "\n\n".join([*parts, "## Result", _block(self.end)]) + "\n"


def _sizes(step: Step) -> str:
    return f"{_arrow(step.statements)} statements, {_arrow(step.slots)} slot{'s' * (step.slots[1] != 1)}"


def _arrow(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} → {pair[1]}"


def _change(before: str, after: str) -> str:
    return "\n".join([*(f"- {x}" for x in before.splitlines()), *(f"+ {x}" for x in after.splitlines())])


def _indented(text: str) -> list[str]:
    return [f"   {line}" for line in text.splitlines()]


def _block(text: str) -> str:
    return f"```\n{text}\n```"


def difference(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """The lines that only one of two listings has."""
    return "\n".join(x for x in before if x not in after), "\n".join(x for x in after if x not in before)
