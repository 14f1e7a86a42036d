"""What a race prints while it runs: nothing, lines, or lines above a bar; and its table and files at the end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from optlang.race.results import Entry, Results
from optlang.race.table import WIDTH, number, table


class Watch:
    """Follows a race and says nothing."""

    def plan(self, steps: int) -> None:
        """More training steps lie ahead."""

    def begin(self, text: str) -> None:
        """A run starts."""

    def tick(self) -> None:
        """A step was done."""

    def skip(self, steps: int) -> None:
        """Planned steps that will not be done."""

    def tuned(self, entry: Entry) -> None: ...

    def finished(self, entry: Entry) -> None: ...

    def failed(self, entry: Entry) -> None: ...

    def report(self, results: Results, path: Path | None, shown: bool = True) -> None:
        """The end: the table, where it is to be `shown`, and curves as PNG beside the JSON."""
        if path and results.ranking:
            from optlang.race.curves import plot  # matplotlib takes a second to import

            plot(results, path.with_suffix(".png"))


class Lines(Watch):
    """For logs and notebooks: one line when a rule is tuned and one for every seed, on standard error."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {text}", file=sys.stderr, flush=True)

    def tuned(self, entry: Entry) -> None:
        best = entry.best
        tail = " (at the edge of those tried)" if entry.at_edge else ""
        self.say(
            f"{entry.name}: best of {len(entry.tuning)} step sizes is {best.step_size:.2g}, "
            f"validation loss {number(best.validation_loss)}{tail}"
        )

    def finished(self, entry: Entry) -> None:
        run = entry.finals[-1]
        self.say(f"{entry.name}: seed {run.seed}, test loss {number(run.test_loss or 0.0)}")

    def failed(self, entry: Entry) -> None:
        self.say(f"{entry.name}: out of the race. {entry.error}")

    def report(self, results: Results, path: Path | None, shown: bool = True) -> None:
        if results.interrupted:
            self.say("interrupted; what follows is what was finished")
        if shown:
            Console(width=None if sys.stdout.isatty() else WIDTH).print(table(results), highlight=False)
        super().report(results, path)
        if path and results.ranking:
            print(f"curves {path.with_suffix('.png')}")
        if path:
            print(f"results {path}")


class Bar(Lines):
    """For terminals: the same lines above a progress bar that counts training steps."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.total = 0
        self.task = progress.add_task("", total=0)

    def say(self, text: str) -> None:
        self.progress.console.print(escape(text), highlight=False)

    def plan(self, steps: int) -> None:
        self.total += steps
        self.progress.update(self.task, total=self.total)

    def begin(self, text: str) -> None:
        self.progress.update(self.task, description=escape(text))

    def tick(self) -> None:
        self.progress.advance(self.task)

    def skip(self, steps: int) -> None:
        self.progress.advance(self.task, steps)


@contextlib.contextmanager
def watching(results: Results, quiet: bool) -> Iterator[Watch]:
    """The watch that fits where standard error goes."""
    if quiet:
        yield Watch()
        return
    if not sys.stderr.isatty():
        yield _opened(Lines(), results)
        return
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), "steps")
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        yield _opened(Bar(progress), results)


def _opened(watch: Lines, results: Results) -> Lines:
    names = ", ".join(entry.name for entry in results.entries)
    watch.say(f"{names} on {results.task}: {results.about}; {results.steps} steps of {results.batch_size} examples")
    for note in results.notes:
        watch.say(f"note: {note}")
    return watch
