"""What a race found: runs, their summary, and the JSON they are kept in. No torch here."""

from __future__ import annotations

import html
import io
import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from optlang import writing
from optlang.printing import as_printed

INFINITY = "Infinity"
INTERRUPTED = 130  # what a shell reports after Ctrl-C


@dataclass(frozen=True)
class Point:
    """One place on a learning curve. Losses are infinite after divergence, `train_loss` is the mean since the last point."""

    step: int
    train_loss: float | None  # None before the first step
    loss: float  # of the validation data
    accuracy: float | None


@dataclass(frozen=True)
class Run:
    """One training from start to end. `test_loss` is None in tuning runs, which never see the test data."""

    step_size: float
    seed: int
    steps: int  # fewer than asked for after divergence
    diverged: bool
    curve: list[Point]
    test_loss: float | None
    test_accuracy: float | None
    seconds_per_step: float  # median
    state_bytes: int
    parameters: int

    @property
    def validation_loss(self) -> float:
        """Mean over the last quarter of the run, as one point of a noisy curve can be luck."""
        return mean(point.loss for point in self.curve if point.step > 0.75 * self.steps or point is self.curve[-1])


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error (None for a single seed)."""

    mean: float
    error: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Estimate:
        if len(values) < 2 or not all(map(math.isfinite, values)):
            return Estimate(mean(values), None)
        return Estimate(mean(values), stdev(values) / math.sqrt(len(values)))


@dataclass
class Entry:
    """All runs of one rule. `tuned`: whether it has a step size; `error`: why there are no more runs, where the rule raised."""

    name: str
    tuned: bool = True
    tuning: list[Run] = field(default_factory=list)
    finals: list[Run] = field(default_factory=list)
    error: str = ""

    @property
    def best(self) -> Run:
        """The tuning run with the lowest validation loss."""
        return min(self.tuning, key=lambda run: run.validation_loss)

    @property
    def step_size(self) -> float | None:
        """The one tuned, None before tuning and for a rule without."""
        if self.finals:
            return self.finals[0].step_size if self.tuned else None
        return self.best.step_size if self.tuning else None

    @property
    def at_edge(self) -> bool:
        """Whether the best step size lies at an end of those tried, so that a better one may lie beyond."""
        return edge_of(self.tuning) is not None

    @property
    def test_loss(self) -> Estimate:
        return Estimate.of([run.test_loss for run in self.finals if run.test_loss is not None])

    @property
    def test_accuracy(self) -> Estimate | None:
        values = [run.test_accuracy for run in self.finals if run.test_accuracy is not None]
        return Estimate.of(values) if values and len(values) == len(self.finals) else None

    @property
    def seconds_per_step(self) -> float:
        return median(run.seconds_per_step for run in self.finals)

    @property
    def state_bytes_per_parameter(self) -> float:
        return max(run.state_bytes for run in self.finals) / self.finals[0].parameters

    def behind(self, other: Entry) -> Estimate | None:
        """Test loss above another rule's, paired by seed: same start and same batches, so most of the noise cancels."""
        theirs = {run.seed: run.test_loss for run in other.finals}
        pairs = [(run.test_loss, theirs.get(run.seed)) for run in self.finals]
        gaps = [a - b for a, b in pairs if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)]
        return Estimate.of(gaps) if gaps and len(gaps) == len(pairs) else None

    def summary(self) -> dict[str, Any]:
        """What the table shows, for the JSON."""
        if not self.finals:
            return {}
        return {
            "step_size": self.step_size,
            "at_edge": self.at_edge,
            "seeds": len(self.finals),
            "diverged": sum(run.diverged for run in self.finals),
            "test_loss": asdict(self.test_loss),
            "test_accuracy": asdict(self.test_accuracy) if self.test_accuracy else None,
            "seconds_per_step": self.seconds_per_step,
            "state_bytes_per_parameter": self.state_bytes_per_parameter,
        }


def edge_of(tuning: Sequence[Run]) -> int | None:
    """0 or -1: the end of the sorted step sizes where the best lies, None when it is inside.

    A tie with the neighbour is inside: there the loss no longer depends on the step size. When every run diverged, the
    lower end counts."""
    runs = sorted(tuning, key=lambda run: run.step_size)
    losses = [run.validation_loss for run in runs]
    if len(runs) < 2:
        return None
    if not math.isfinite(min(losses)) or losses[0] < min(losses[1:]):
        return 0
    return -1 if losses[-1] < min(losses[:-1]) else None


@dataclass
class Results:
    """A race, whole or in part."""

    task: str
    about: str
    steps: int
    batch_size: int
    grid: list[float]
    tuning_seed: int
    seeds: list[int]
    entries: list[Entry]
    made: dict[str, Any]  # date, versions, machine
    notes: list[str] = field(default_factory=list)
    complete: bool = False
    interrupted: bool = False

    @property
    def status(self) -> int:
        """The exit code: 0, 1 when a rule raised, 130 after Ctrl-C."""
        return INTERRUPTED if self.interrupted else int(any(entry.error for entry in self.entries))

    @property
    def ranking(self) -> list[Entry]:
        """Rules with finished runs, lowest mean test loss first."""
        return sorted((e for e in self.entries if e.finals), key=lambda e: e.test_loss.mean)

    def table(self) -> str:
        """The final table as plain text."""
        from optlang.race.table import plain_table

        return plain_table(self)

    __str__ = table
    _repr_pretty_ = as_printed

    def _repr_html_(self) -> str:
        """For notebooks: the table, and the curves where a rule was finished."""
        picture = io.BytesIO()
        if self.ranking:
            from optlang.race.curves import plot

            plot(self, picture)
        curves = f'<img width="900" src="data:image/png;base64,{b64encode(picture.getvalue()).decode()}">' if self.ranking else ""
        return f"<pre>{html.escape(self.table())}</pre>{curves}"

    def to_json(self) -> str:
        """All of it. An infinite loss, which JSON lacks, is the text "Infinity", as float() and JavaScript's Number read it."""
        content = asdict(self)
        for entry, written in zip(self.entries, content["entries"], strict=True):
            written["summary"] = entry.summary()
        return json.dumps(_spell_infinity(content), indent=1, allow_nan=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Results:
        """The inverse of `to_json`."""
        content = json.loads(text, object_pairs_hook=_read_infinity)
        content["entries"] = [_entry(entry) for entry in content["entries"]]
        return Results(**content)

    def save(self, path: Path) -> None:
        """Writes the JSON so that a crash leaves the old file or the new one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.replace(path, self.to_json())


def _spell_infinity(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else INFINITY
        case dict():
            return {key: _spell_infinity(item) for key, item in value.items()}
        case list():
            return [_spell_infinity(item) for item in value]
    return value


def _read_infinity(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: math.inf if value == INFINITY else value for key, value in pairs}


def _entry(written: dict[str, Any]) -> Entry:
    runs = {phase: [_run(run) for run in written[phase]] for phase in ("tuning", "finals")}
    return Entry(**({key: value for key, value in written.items() if key != "summary"} | runs))


def _run(written: dict[str, Any]) -> Run:
    return Run(**(written | {"curve": [Point(**point) for point in written["curve"]]}))
