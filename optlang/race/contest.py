"""The race: every rule tuned on the same grid, then trained on the same fresh seeds."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optlang.race.entrants import Entrant
from optlang.race.errors import RaceError
from optlang.race.progress import Watch, watching
from optlang.race.results import Entry, Results, Run, edge_of

if TYPE_CHECKING:
    from optlang.race.tasks import Problem

# half decades: finer steps drown in the noise of the seeds
GRID = (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1, 3.2e-1, 1.0)
EXTENSIONS = 6  # step sizes tried beyond the grid: three decades
TUNING_SEED = 0  # final runs take 1, 2, …: what was tuned on is not reported


@dataclass
class Contest:
    """A race under way; `results` grows, and is saved after every run."""

    problem: Problem
    entrants: Sequence[Entrant]
    results: Results
    watch: Watch
    path: Path | None  # of the JSON
    tried: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> None:
        """Tuning of all rules, then the seeds in turn, so that a race cut short has the same seeds for every rule."""
        self.watch.plan(self.results.steps * self._runs_at_least())
        for entrant, entry in zip(self.entrants, self.results.entries, strict=True):
            with self._blaming(entry):
                self._tune(entrant, entry)
        for seed in self.results.seeds:
            for entrant, entry in zip(self.entrants, self.results.entries, strict=True):
                with self._blaming(entry):
                    self._final(entrant, entry, seed)
        self.results.complete = True

    def _runs_at_least(self) -> int:
        tuned = sum(entrant.tuned for entrant in self.entrants)
        return len(self.entrants) * len(self.results.seeds) + tuned * len(self.results.grid)

    def _tune(self, entrant: Entrant, entry: Entry) -> None:
        if not entrant.tuned:
            return
        for step_size in self.results.grid:
            self._tuning_run(entrant, entry, step_size)
        for _ in range(EXTENSIONS):
            edge = edge_of(entry.tuning)
            if edge is None:
                break
            self.watch.plan(self.results.steps)
            self._tuning_run(
                entrant, entry, beyond([run.step_size for run in entry.tuning], self.results.grid, edge)
            )
        self.watch.tuned(entry)

    def _tuning_run(self, entrant: Entrant, entry: Entry, step_size: float) -> None:
        self.watch.begin(f"{entrant.name}: step size {step_size:.2g}")
        entry.tuning.append(self._train(entrant, step_size, self.results.tuning_seed, test=False))
        self.save()

    def _final(self, entrant: Entrant, entry: Entry, seed: int) -> None:
        if entry.error:
            return
        step_size = entry.best.step_size if entrant.tuned else 1.0
        self.watch.begin(f"{entrant.name}: seed {seed} of {len(self.results.seeds)}")
        entry.finals.append(self._train(entrant, step_size, seed, test=True))
        self.save()
        self.watch.finished(entry)

    def _train(self, entrant: Entrant, step_size: float, seed: int, *, test: bool) -> Run:
        from optlang.race.training import train

        run = train(self.problem, entrant, step_size, seed, self.results.steps, test=test, tick=self.watch.tick)
        self.watch.skip(self.results.steps - run.steps)
        return run

    @contextlib.contextmanager
    def _blaming(self, entry: Entry) -> Iterator[None]:
        """A rule that raises is out of the race; the others go on."""
        try:
            yield
        except RaceError:
            raise
        except Exception as error:  # whatever a rule raises
            entry.error = f"{type(error).__name__}: {error}"
            self.watch.failed(entry)
            self.save()

    def save(self) -> None:
        if self.path:
            self.results.save(self.path)


def beyond(tried: Sequence[float], grid: Sequence[float], edge: int) -> float:
    """The next step size outside those tried, at the mean ratio of the grid, with two digits."""
    ratio = (grid[-1] / grid[0]) ** (1 / (len(grid) - 1))
    return float(f"{max(tried) * ratio:.2g}" if edge else f"{min(tried) / ratio:.2g}")


def race(
    entrants: Sequence[Entrant],
    task: str | Path | type = "digits",
    seeds: int = 5,
    steps: int | None = None,
    grid: Sequence[float] | None = None,
    out: str | Path | None = None,
    quiet: bool = False,
    shown: bool = True,
) -> Results:
    """Trains the task's model with every rule from the same starts on the same batches.

    `task` is a built-in name, the path of a Python file or a task class, `seeds` the number of final runs per rule, `steps` their
    length (the task's own by default), `grid` the step sizes to tune over. JSON and learning curves go to the folder
    `out`, if given. `quiet` prints nothing; without `shown` the table is not printed at the end. Ctrl-C ends the race; what is finished
    is returned and written all the same.

    Raises RaceError for a race that cannot start."""
    from optlang.race.loading import load

    _check(entrants, seeds, steps, grid)
    problem = load(task)
    results = _blank(problem, entrants, seeds, steps, sorted(grid or GRID))
    path = _fresh(Path(out), problem.name) if out else None
    with _threads(problem.threads), watching(results, quiet) as watch:
        contest = Contest(problem, entrants, results, watch, path)
        try:
            contest.run()
        except KeyboardInterrupt:
            results.interrupted = True
        contest.save()
    watch.report(results, path, shown)
    return results


def _check(entrants: Sequence[Entrant], seeds: int, steps: int | None, grid: Sequence[float] | None) -> None:
    names = [entrant.name for entrant in entrants]
    if not names:
        raise RaceError("race", "no rules", "name at least one")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RaceError("race", f"`{twice[0]}` twice", "name every rule once")
    if seeds < 1 or (steps is not None and steps < 1):
        given = [f"{seeds} seeds", *([] if steps is None else [f"{steps} steps"])]
        raise RaceError("race", ", ".join(given), "give at least 1 of each")
    if grid is not None and (
        not grid or len(set(grid)) < len(grid) or not all(0 < s < math.inf for s in grid)
    ):
        raise RaceError("race", f"the grid {list(grid)}", "give different step sizes above 0")


def _blank(
    problem: Problem, entrants: Sequence[Entrant], seeds: int, steps: int | None, grid: list[float]
) -> Results:
    return Results(
        task=problem.name,
        about=problem.about,
        steps=steps or problem.steps,
        batch_size=problem.batch_size,
        grid=grid,
        tuning_seed=TUNING_SEED,
        seeds=list(range(TUNING_SEED + 1, TUNING_SEED + 1 + seeds)),
        entries=[Entry(entrant.name, entrant.tuned) for entrant in entrants],
        made=_circumstances(problem),
        notes=problem.notes,
    )


def _circumstances(problem: Problem) -> dict[str, Any]:
    """Where and with what: for whoever compares two files."""
    import torch

    packages = {name: _version(name) for name in ("optlang", "torch", "scikit-learn", "numpy")}
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **packages},
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": problem.threads or torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fresh(folder: Path, task: str) -> Path:
    """A file that is not there yet: results of earlier races stay."""
    stem = f"{task}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    _try_to_write(path)
    return path


def _try_to_write(path: Path) -> None:
    """Before anything is trained: what cannot be kept would be lost after minutes."""
    tried = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tried.touch()
        tried.unlink()
    except OSError as error:
        what = f"results cannot be written there: {error.strerror}"
        raise RaceError(str(path.parent), what, "name another folder with `--out`") from None
