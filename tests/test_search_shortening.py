"""Found rules are made short once, by algebra and by training; an end in between loses nothing, and what went is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_search_hunt import SHORT, started
from test_search_proof import assert_same_steps

from optlang import ir
from optlang.cli import main
from optlang.ir import Program
from optlang.printing.rule_text import to_opt
from optlang.rules import Rule
from optlang.search import shortening
from optlang.search.api import Search
from optlang.search.distil.naming import named
from optlang.search.distil.proof import exact
from optlang.search.distil.trained import Training
from optlang.search.final_pieces import fixed, work
from optlang.search.programs.genome import Form, from_text, to_program
from optlang.search.shortening import by_algebra, by_training
from optlang.search.store.database import Store
from optlang.search.store.found import Found, find
from optlang.search.workers.executor import Serial

FORM = Form()
SEEDS = range(800_001, 800_017)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortening, "SEEDS", tuple(SEEDS))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Search]:
    with started(tmp_path / "run.db", children=500, funnel=(SHORT,)) as search:
        list(search)
        yield search


class Counted(Serial):
    """Serves so many trainings, then ends as Ctrl-C does."""

    def __init__(self, most: int = 10_000) -> None:
        super().__init__(work)
        self.most, self.done = most, 0

    def collect(self, ticket: int) -> Any:
        if self.done == self.most:
            raise KeyboardInterrupt
        self.done += 1
        return super().collect(ticket)


def padded(found: Found) -> Found:
    """The rule with a decay that is too small to be seen."""
    return Found(**{**found.__dict__, "text": f"{found.text}\na = mul(w, 1e-9)\nu = add(u, a)"})


def test_an_end_in_between_loses_nothing(run: Search) -> None:
    one, settings = padded(run.best()), run.hunt.settings
    whole = Counted()
    plain = by_algebra(one, settings)
    with pytest.raises(KeyboardInterrupt):
        by_training(run.store, one, settings, Counted(3))
    assert run.store.query("SELECT COUNT(*) FROM jobs")[0][0] == 3 and not run.store.events("shortened")
    short = by_training(run.store, one, settings, whole)
    assert len(short.trace.end.splitlines()) < len(plain.trace.end.splitlines())
    assert "weight_decay = 1e-9" in " ".join(plain.text.split()) and "decay" not in short.text
    assert run.store.query("SELECT COUNT(*) FROM jobs")[0][0] == 0, "the rule is kept, so what led to it need not be"
    assert by_training(run.store, one, settings, Counted(0)) == short
    with run.store.transaction() as do:
        do.execute("DELETE FROM events WHERE kind = 'shortened'")
    alone = Counted()
    assert by_training(run.store, one, settings, alone).text == short.text
    assert alone.done == whole.done + 3


def test_the_trace_tells_the_difference_with_its_error(run: Search, tmp_path: Path) -> None:
    short = by_training(run.store, padded(run.best()), run.hunt.settings)
    path, beside = short.write(tmp_path / "found.opt")
    assert Rule(path).name == short.name and beside.name == "found.trace.md"
    measured = [step for step in short.trace.steps if step.kind == "measured"]
    assert measured and all("±" in step.evidence and "on planted-momentum over" in step.evidence for step in measured)
    assert all(step.evidence in beside.read_text() for step in short.trace.steps)


def test_after_the_minutes_it_is_as_short_as_it_has_become(run: Search) -> None:
    one, settings = padded(run.best()), run.hunt.settings
    cut = by_training(run.store, one, settings, seconds=0.0)
    assert all(step.kind != "measured" for step in cut.trace.steps) and not run.store.events("shortened")
    assert "asked again, it goes on" in cut.remark
    whole = by_training(run.store, one, settings)
    assert len(whole.trace.steps) > len(cut.trace.steps) and not whole.remark


def test_what_diverges_is_shortened_by_algebra_and_says_so(run: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "result", lambda job: [[float("nan")] * len(job.seeds)] * len(job.programs))
    short = by_training(run.store, run.best(), run.hunt.settings)
    assert "algebra alone" in short.remark and "diverges on 16 of 16 runs of planted-momentum" in short.remark
    assert by_training(run.store, run.best(), run.hunt.settings) == short


def test_from_the_command_line(run: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.store.close()
    store, out = str(run.store.path), tmp_path / "short.opt"
    assert main(["search", "export", store, "best", "--ablate", "--workers", "1", "-o", str(out)]) == 0
    told = capsys.readouterr()
    assert str(out) in told.out and "short.trace.md" in told.out and "shorter rules on planted-momentum" in told.err
    with Store.read(store) as kept:
        assert Rule(out).name == find(kept, "best", "search").name and kept.events("shortened")[0]["text"] == out.read_text()
    assert main(["search", "export", store, "best", "--ablate", "--quiet", "--workers", "1"]) == 0
    told = capsys.readouterr()
    assert told.out == out.read_text() and not told.err


# -------------------------------------------------------------------------------------------------------------- wording


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = interp(g, m, -0.2)\nm = interp(g, m, 0.9)\nu = sign(a)", "1.2*g - 0.2*m"),
        ("a = interp(g, m, 1.5)\nm = interp(g, m, 0.9)\nu = sign(a)", "1.5*m - 0.5*g"),
        ("a = interp(g, -0.5, m)\nm = interp(g, m, 0.9)\nu = tanh(a)", "(1 - m)*g - 0.5*m"),
        ("a = minimum(1.0, g)\nu = mul(a, 3.0)\nm = interp(g, m, 0.9)\nu = add(m, u)", "min(1, g)"),
        ("u = protected_div(g, 2.0)\nu = tanh(u)\nu = neg(u)\nu = sub(g, u)", "g + tanh("),
        ("m = interp(g, m, 0.9)\nv = abs(m)\nu = protected_div(g, v)", "g/(abs(m') + eps)"),
        ("m = interp(g, m, 0.9)\na = unbiased(m, 0.4)\nb = unbiased(m, 0.9)\nu = add(a, b)", "m'/(1 - correction^t) + m'/(1 - beta^t)"),
    ],
)
def test_rules_read_as_if_written_by_hand(text: str, wanted: str) -> None:
    program, _ = exact(to_program(from_text(text), FORM), True)
    rule = named(program, "Found")
    written = to_opt(rule, by_hand=True).replace(" * ", "*").replace(" / ", "/")
    assert wanted in written and "1.0" not in written.replace("in (0", "") and "-(" not in written and "(-" not in written
    assert_same_steps(program, fixed(rule))
    again = Rule(to_opt(rule, by_hand=True)).program
    assert isinstance(again, Program)
    assert_same_steps(program, fixed(again))


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        ("m = interp(g, m, 0.9)\na = unbiased(m, -0.5)\nu = sign(a)", True),
        ("m = interp(g, m, 0.9)\na = unbiased(m, 0.9)\nu = sign(a)", True),
        ("m = interp(g, m, 0.9)\na = unbiased(m, -1.0)\nu = sign(a)", False),  # 0/0 in every second step, where m is 0
        ("v = interp(g, v, 0.9)\na = square(v)\na = protected_div(g, a)\nu = sign(a)", True),
        ("v = interp(g, v, 0.9)\na = protected_div(g, v)\nu = sign(a)", False),
        ("a = cosh(w)\na = mul(a, g)\nu = sign(a)", True),
        ("a = exp(w)\na = mul(a, g)\nu = sign(a)", False),  # 0 in float32 below -104
    ],
)
def test_a_sign_needs_no_factor_that_is_positive(text: str, goes: bool) -> None:
    before = to_program(from_text(text), FORM)
    after, steps = exact(before, True)
    [sign] = [n for n in ir.walk(after.roots()) if n.op == "sign"]
    assert (sign.args[0].op not in ("mul", "div")) == goes
    assert any("by its form" in step.evidence for step in steps) == goes
    assert_same_steps(before, after)
