"""What is shown while a search runs: lines in a log, a view in a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from test_search_hunt import LONGER, SHORT, started

from optlang.search.api import resume
from optlang.search.evolution.hunt import Progress
from optlang.search.live_view import View, left, watching


def test_lines_in_a_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    with started(tmp_path / "run.db", children=1500, funnel=(SHORT, LONGER), validate_every=1) as run, watching(run, stream=stream) as view:
        rounds = list(run)
        for progress in rounds:
            view.tell(progress)
    shown = stream.getvalue().splitlines()
    assert len(shown) == len(rounds), "each made a point of the validation curve"
    assert all("evolution: " in one and "on validation tasks" in one for one in shown)
    assert f"(program {rounds[-1].round.best.number})" in shown[-1]


def test_quiet(tmp_path: Path) -> None:
    stream = io.StringIO()
    with started(tmp_path / "run.db", children=300) as run, watching(run, quiet=True, stream=stream) as view:
        for progress in run:
            view.tell(progress)
    assert stream.getvalue() == ""


def test_the_view_of_a_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with started(tmp_path / "run.db", children=1500) as run:
        [*_, last] = run
        view = View(run, console)
        console.print(view.drawn(last))
        best = run.best()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in (best.text.splitlines()[0], f"fitness {best.fitness:.4f}", "canonical", "trained", "bytes/element", "Ctrl-C ends"):
        assert text in shown
    [bar] = [one for one in shown.splitlines() if "━" in one]
    assert bar.rstrip().endswith("%"), "the bar has a line of its own"
    assert "per second" in shown
    assert str(last).startswith("100%") or "%" in str(last)
    for done, told in ((0.999, ", about 1 minute left"), (0.2, ", about 4 minutes left")):
        assert left(replace(last, done=done, seconds=60.0)) == told
    assert left(replace(last, done=1.0)) == ""


def test_what_is_left_counts_all_sittings(tmp_path: Path) -> None:
    """Taken up again after ten minutes in which half was done, a search does not promise to end in a moment."""
    stream = io.StringIO()
    with started(tmp_path / "run.db", children=4000) as run:
        for progress in run:
            if progress.done > 0.2:
                break
        run.store.save_meta("seconds", 600.0)
    with resume(tmp_path / "run.db", workers=1) as run, watching(run, stream=stream) as view:
        progress = next(iter(run))
        assert progress.seconds > 600
        view.tell(progress)
        assert all(float(row.split()[-1].replace(",", "")) < 20 for row in _rates(view, progress))
    minutes = int(re.findall(r", about (\d+) minutes left$", stream.getvalue().strip())[0])
    assert 10 * (1 - progress.done) / progress.done <= minutes < 11 / progress.done


def _rates(view: View, progress: Progress) -> list[str]:
    """The rows of what was screened, of which a few thousand in ten minutes are a few a second."""
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(view.drawn(progress))
    shown = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return [row for row in shown if row.split()[:1] in (["dead"], ["canonical"], ["trained"])]
