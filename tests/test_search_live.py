"""What is shown while a search runs: lines in a log, a view in a terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from test_search_hunt import LONGER, SHORT, started

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
        assert left(replace(last, done=done), 60.0) == told
    assert left(replace(last, done=1.0), 60.0) == ""
