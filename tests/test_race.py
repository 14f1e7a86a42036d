"""The race: fairness, tuning, divergence, Ctrl-C, files, and tasks good and bad."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optlang
from optlang.cli import main
from optlang.race import Entrant, Estimate, RaceError, Results, Run, Split, load, progress, race
from optlang.race.builtin import TASKS, Chars
from optlang.race.contest import GRID, beyond
from optlang.race.table import estimate
from optlang.race.training import train

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_task.py"
SGD = Entrant("sgd", lambda named, lr: torch.optim.SGD(named, lr=lr))
ADAMW = Entrant("adamw", lambda named, lr: torch.optim.AdamW(named, lr=lr))


class Line:
    """a straight line, the best step size of SGD being about 0.3"""

    steps, batch_size = 30, 8

    def data(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
        return x, x @ torch.tensor([1.0, -2.0, 3.0]) + 0.1 * x[:, 0].sin()

    def model(self) -> nn.Module:
        return nn.Linear(3, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return (model(x).squeeze(-1) - y).square().mean()


def recording(seen: list[Any], base: Entrant = SGD) -> Entrant:
    """The entrant, noting the weights that every run starts from."""

    def make(named: list[tuple[str, nn.Parameter]], lr: float) -> torch.optim.Optimizer:
        seen.append([(name, p.detach().clone()) for name, p in named])
        torch.rand(3)  # a rule that draws while it is made must not disturb the others
        return base.make(named, lr)

    return Entrant(base.name, make)


def test_all_rules_get_the_same_starts_and_batches() -> None:
    batches: list[Tensor] = []

    class Spy(Line):
        def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                batches.append(x)
            return super().loss(model, x, y)

    first: list[Any] = []
    second: list[Any] = []
    race([recording(first, SGD), recording(second, ADAMW)], Spy, seeds=2, steps=9, grid=[0.1], quiet=True)
    assert len(first) == 3 and len(second) == 3  # one step size, two seeds
    for a, b in zip(first, second, strict=True):
        assert all(n == m and torch.equal(p, q) for (n, p), (m, q) in zip(a, b, strict=True))
    assert not torch.equal(first[0][0][1], first[1][0][1])  # but every seed has its own
    runs = [torch.stack(batches[k : k + 9]) for k in range(1, len(batches), 9)]  # the check took the first batch
    order = {"sgd": [0, 2, 4], "adamw": [1, 3, 5]}
    for a, b in zip(order["sgd"], order["adamw"], strict=True):
        assert torch.equal(runs[a], runs[b])
    assert not torch.equal(runs[2], runs[4])


def test_a_race_repeats_exactly_and_leaves_the_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (race([ADAMW], Line, seeds=2, grid=[0.1, 0.3], quiet=True) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert [r.curve for r in first.entries[0].finals] == [r.curve for r in again.entries[0].finals]
    assert first.seeds == [1, 2] and first.tuning_seed == 0  # what was tuned on is not reported


@pytest.mark.parametrize("grid", [[0.001, 0.01], [10.0, 100.0]])
def test_the_grid_grows_until_the_best_step_size_is_inside(grid: list[float]) -> None:
    entry = race([SGD], Line, seeds=1, grid=grid, quiet=True).entries[0]
    tried = sorted(run.step_size for run in entry.tuning)
    assert entry.step_size == 0.1 and not entry.at_edge
    assert tried[0] <= 0.01 and tried[-1] >= 1.0
    assert [round(math.log10(b / a), 6) for a, b in itertools.pairwise(tried)] == [1.0] * (len(tried) - 1)


def test_the_grid_stops_growing_and_says_so() -> None:
    entry = race([SGD], Line, seeds=1, steps=5, grid=[1e-5, 2e-5], quiet=True).entries[0]
    assert len(entry.tuning) == 2 + 6 and entry.at_edge and entry.step_size == 1.3e-3


def test_a_step_size_without_effect_does_not_extend_the_grid() -> None:
    still = Entrant("still", lambda named, lr: torch.optim.SGD(named, lr=0.0))
    entry = race([still], Line, seeds=1, grid=[0.1, 1.0], quiet=True).entries[0]
    assert len(entry.tuning) == 2 and not entry.at_edge


def test_extensions_of_the_default_grid_are_half_decades() -> None:
    assert beyond(GRID, GRID, 0) == 3.2e-5
    assert beyond([3.2e-5, *GRID], GRID, 0) == 1e-5
    assert beyond(GRID, GRID, -1) == 3.2


def test_divergence_ends_a_run_and_is_infinitely_bad() -> None:
    run = train(load(Line), SGD, 1e6, 0, 1000, test=True)
    assert run.diverged and run.steps < 100
    assert run.validation_loss == run.test_loss == math.inf


def test_what_matrix_rules_raise_on_runaway_weights_is_divergence() -> None:
    class Rooted(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            torch.linalg.cholesky(-torch.eye(2))

    results = race([Entrant("rooted", lambda n, lr: Rooted(n, lr=lr))], Line, seeds=2, grid=[1.0], quiet=True)
    entry = results.entries[0]
    assert not entry.error and all(run.diverged for run in entry.finals)
    assert "2 of 2 seeds diverged" in results.table()
    assert entry.test_loss.mean == math.inf


def test_a_rule_that_raises_is_out_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(named: object, lr: float) -> torch.optim.Optimizer:
        raise TypeError("no such thing")

    results = race([Entrant("broken", broken), SGD], Line, seeds=2, grid=[0.1])
    assert results.status == 1 and results.complete
    assert results.entries[0].error == "TypeError: no such thing"
    assert len(results.entries[1].finals) == 2
    captured = capsys.readouterr()
    assert "broken: out of the race. TypeError: no such thing" in captured.err
    rows = [line.split() for line in captured.out.splitlines()]
    assert ["broken", "failed"] in rows and ["broken:", "TypeError:", "no", "such", "thing"] in rows and "sgd" in captured.out


def interrupting(after: int) -> Entrant:
    """Presses Ctrl-C in the middle of run number `after`, counted from 0."""
    made = [0]

    class Interrupt(torch.optim.SGD):
        number = 0

        def step(self, closure: Any = None) -> Any:
            if self.number == after:
                raise KeyboardInterrupt
            return super().step(closure)

    def make(named: list[tuple[str, nn.Parameter]], lr: float) -> torch.optim.Optimizer:
        optimizer = Interrupt(named, lr=lr)
        optimizer.number, made[0] = made[0], made[0] + 1
        return optimizer

    return Entrant("interrupted", make)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = race([SGD, interrupting(after=4)], Line, seeds=3, grid=[0.03, 0.1, 0.3], out=tmp_path)
    assert results.status == 130 and not results.complete
    assert [len(entry.finals) for entry in results.entries] == [2, 1]  # seed by seed, not rule by rule
    (file,) = tmp_path.glob("*.json")
    written = json.loads(file.read_text())
    assert written["complete"] is False
    assert [len(entry["finals"]) for entry in written["entries"]] == [2, 1]
    assert len(list(tmp_path.glob("*.png"))) == 1
    shown = capsys.readouterr()
    assert "unfinished" in shown.out and "1 to 2 seeds" in shown.out


def test_ctrl_c_while_tuning_leaves_a_file_and_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = race([interrupting(after=1)], Line, grid=[0.1, 0.3], out=tmp_path)
    assert results.status == 130
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    shown = capsys.readouterr().out
    assert "not finished" in shown and ".json" in shown
    assert ".png" not in shown and "standard error" not in shown  # there is no picture, and no mean


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    results = race([SGD, ADAMW], Line, seeds=2, grid=[0.1, 1e6], out=tmp_path, quiet=True)
    assert results.complete and results.status == 0
    assert any(run.diverged for run in results.entries[0].tuning)  # so that infinities take part
    (file,) = tmp_path.glob("*.json")
    assert Results.from_json(file.read_text()) == results
    assert "NaN" not in file.read_text() and file.read_text() == results.to_json()
    assert results.made["versions"]["torch"] == torch.__version__
    assert json.loads(file.read_text())["entries"][1]["summary"]["seeds"] == 2


def test_two_races_in_one_folder_keep_both_results(tmp_path: Path) -> None:
    for _ in range(2):
        race([SGD], Line, seeds=1, steps=2, grid=[0.1], out=tmp_path, quiet=True)
    assert len(list(tmp_path.glob("Line-*.json"))) == len(list(tmp_path.glob("Line-*.png"))) == 2


def test_a_log_gets_a_line_per_run_and_a_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    results = race([SGD, ADAMW], Line, seeds=3, grid=[0.1, 0.3])
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1 + 2 + 2 * 3
    assert "\x1b" not in shown.out + shown.err and "\r" not in shown.err
    assert results.table().strip() in "\n".join(line.rstrip() for line in shown.out.splitlines())


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    race([SGD], Line, seeds=1, grid=[0.1], quiet=True)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_counts_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    bars: list[progress.Bar] = []

    class Kept(progress.Bar):
        def __init__(self, progress: Any) -> None:
            super().__init__(progress)
            bars.append(self)

    monkeypatch.setattr(progress, "Bar", Kept)
    monkeypatch.setattr(sys, "stderr", Terminal())
    results = race([SGD], Line, seeds=2, grid=[0.1, 1e6])  # the second step size ends its run early
    [entry] = results.entries
    assert any(run.diverged for run in entry.tuning)
    [task] = bars[0].progress.tasks
    assert task.completed == task.total == (len(entry.tuning) + len(entry.finals)) * Line.steps
    assert "steps" in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule of the library, one of several in a file, and one of torch; a wrong rule and a wrong word start nothing."""
    (tmp_path / "two.opt").write_text("".join(f"rule {name} {{ hyper lr = 1 in (0, inf)  w' = w - lr*g }}\n" for name in ("One", "Other")))
    rules = ["lion", f"{tmp_path / 'two.opt'}:Other", "torch:AdamW"]
    short = ["--task", str(EXAMPLE), "--steps", "3", "--seeds", "2", "--grid", "0.01", "0.1", "--out", str(tmp_path / "out")]
    assert main(["race", *rules, *short]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in ("lion", "two:Other", "torch:AdamW"))
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
    [file] = (tmp_path / "out").glob("*.json")
    results = Results.from_json(file.read_text())
    assert [entry.name for entry in results.entries] == ["lion", "two:Other", "torch:AdamW"]
    assert all(len(entry.finals) == 2 for entry in results.entries)
    (tmp_path / "two.opt").write_text("rule One { w' = w - gg }")
    assert main(["race", str(tmp_path / "two.opt"), *short]) == 1
    assert "unknown name `gg`" in capsys.readouterr().err
    assert main(["race", "torch:Adamw", *short]) == 2
    assert "did you mean `AdamW`?" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_table_ranks_by_test_loss_and_pairs_by_seed() -> None:
    results = race([Entrant("slow", lambda n, lr: torch.optim.SGD(n, lr=lr / 50)), SGD], Line, grid=[0.1], quiet=True)
    slow, sgd = results.entries
    assert results.ranking == [sgd, slow]
    lines = [line.split() for line in results.table().splitlines() if line.startswith(("sgd", "slow"))]
    assert [line[0] for line in lines] == ["sgd", "slow"]
    gap = slow.behind(sgd)
    assert gap is not None and gap.mean == pytest.approx(slow.test_loss.mean - sgd.test_loss.mean)
    assert sgd.behind(sgd) == Estimate(0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.123456, 0.00567), "0.1235±0.0057"),
        (Estimate(96.4, 1.25), "96.4±1.2"),
        (Estimate(1234.0, 156.0), "1234±156"),
        (Estimate(0.5, None), "0.5"),
        (Estimate(math.inf, None), "diverged"),
    ],
)
def test_errors_have_two_digits(value: Estimate, text: str) -> None:
    assert estimate(value) == text


def test_the_standard_error_is_that_of_the_mean() -> None:
    assert Estimate.of([1.0, 2.0, 3.0, 4.0]) == Estimate(2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert Estimate.of([1.0]).error is None


def test_closures_are_given_to_rules_that_need_them() -> None:
    lbfgs = Entrant("lbfgs", lambda named, lr: torch.optim.LBFGS([p for _, p in named], lr=lr), needs_closure=True)
    entry = race([lbfgs], Line, seeds=1, grid=[0.3, 1.0], quiet=True).entries[0]
    curve = entry.finals[0].curve
    assert curve[-1].loss < 0.01 * curve[0].loss
    assert curve[1].train_loss is not None and curve[1].train_loss > curve[-1].loss


def test_rules_with_other_weights_to_evaluate_are_switched() -> None:
    class Doubled(torch.optim.SGD):
        """Judged at other weights than it trains at."""

        training = False

        def train(self) -> None:
            self.scale(0.0 if not self.training else 1.0)
            self.training = True

        def eval(self) -> None:
            self.scale(1e3)
            self.training = False

        @torch.no_grad()
        def scale(self, bias: float) -> None:
            for p in self.param_groups[0]["params"]:
                p[:] = bias if p.ndim == 1 else p

        def step(self, closure: Any = None) -> Any:
            assert self.training
            return super().step(closure)

    run = train(load(Line), Entrant("doubled", lambda named, lr: Doubled(named, lr=lr)), 0.1, 0, 20, test=True)
    assert run.curve[-1].train_loss is not None and run.curve[-1].train_loss < 100
    assert min(point.loss for point in run.curve) > 1e5 and run.test_loss is not None and run.test_loss > 1e5


def test_a_rule_without_step_size_is_not_tuned() -> None:
    fixed = Entrant("fixed", lambda named, lr: torch.optim.SGD(named, lr=0.1 * lr), tuned=False)
    results = race([fixed], Line, seeds=2, quiet=True)
    assert results.entries[0].tuning == [] and results.entries[0].step_size is None
    tuned = race([SGD], Line, seeds=2, grid=[0.1], quiet=True)
    assert [run.test_loss for run in results.entries[0].finals] == [run.test_loss for run in tuned.entries[0].finals]
    assert results.entries[0].test_loss.mean < 1.0


def test_state_is_counted_per_parameter() -> None:
    results = race([SGD, ADAMW], TASKS["tabular"], seeds=1, steps=2, grid=[0.1], quiet=True)
    sgd, adamw = results.entries
    assert sgd.state_bytes_per_parameter == 0
    assert 8 < adamw.state_bytes_per_parameter < 8.1  # two moments, and a step count per tensor


def curve_of(name: str, steps: int) -> Run:
    problem = load(name)
    return train(problem, ADAMW, 3e-3, 1, steps, points=2, test=True)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_built_in_task_is_learnt(name: str) -> None:
    run = curve_of(name, 20)
    assert not run.diverged and run.curve[-1].step == 20
    assert run.curve[-1].loss < 0.95 * run.curve[0].loss
    assert run.test_loss == pytest.approx(run.curve[-1].loss, rel=0.5)
    assert (run.test_accuracy is None) == (name in ("photos", "tabular-diabetes"))


@pytest.mark.parametrize("name", sorted(TASKS))
def test_held_out_examples_are_not_trained_on(name: str) -> None:
    data = load(name).data
    parts = [{row.numpy().tobytes() for row in part[0].contiguous()} for part in (data.train, data.validation, data.test)]
    assert all(parts)
    if name != "photos":  # a few of whose patches of sky are alike
        assert not parts[0] & (parts[1] | parts[2]) and not parts[1] & parts[2]


def test_another_text_is_noted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert Chars().notes == []
    monkeypatch.setattr("optlang.race.builtin.CHAPTERS_SHA256", "0")
    results = race([SGD], "chars", seeds=1, steps=1, grid=[0.1])
    assert "do not compare" in results.notes[0]
    assert capsys.readouterr().err.count("note: chars") == 1


def test_the_example_of_a_users_task_runs() -> None:
    results = race([ADAMW], EXAMPLE, seeds=1, steps=60, grid=[0.03], quiet=True)
    accuracy = results.entries[0].test_accuracy
    assert results.task == "my_task" and accuracy is not None and accuracy.mean > 0.8


HEAD = "import torch\nfrom torch import nn\nclass Mine:\n"
DATA = "    def data(self): return torch.randn(50, 3), torch.randn(50)\n"
MODEL = "    def model(self): return nn.Linear(3, 1)\n"
LOSS = "    def loss(self, model, x, y): return (model(x)[:, 0] - y).square().mean()\n"


def body(data: str = DATA, model: str = MODEL, loss: str = LOSS, more: str = "") -> str:
    return HEAD + data + model + loss + more


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "no task class"),
        ("x = ", "SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(mine.py, line 2\)"),
        ("import no_such_module_at_all\n", r"ModuleNotFoundError.*line 1"),
        (body(loss=""), "class Mine lacks the method `loss`"),
        (body() + body()[len("import torch\nfrom torch import nn\n") :].replace("Mine", "Other"), "Mine, Other"),
        (body(data="    def data(self): return [1, 2]\n"), "not a tuple of tensors"),
        (body(data="    def data(self): return torch.ones(50, 3), torch.ones(40)\n"), r"different lengths \[40, 50\]"),
        (body(data="    def data(self): return torch.ones(3, 3), torch.ones(3)\n"), "only 3 examples"),
        (body(data="    def data(self): return torch.full((50, 3), torch.nan), torch.ones(50)\n"), "is nan before"),
        (body(model="    def model(self): return nn.ReLU()\n"), "no parameters to train"),
        (body(model="    def model(self): return 3\n"), "returned int"),
        (body(model="    def model(self):\n        raise ValueError('oh')\n"), r"ValueError: oh \(mine.py, line 6\)"),
        (body(model="    one = nn.Linear(3, 1)\n    def model(self): self.one.bias.data += 1; return self.one\n"), None),
        (body(model="    k = 0\n    def model(self): self.k += 1; torch.manual_seed(self.k); return nn.Linear(3, 1)\n"),
         "two calls with one seed"),
        (body(loss="    def loss(self, model, x, y): return (model(x)[:, 0] - y).square()\n"), r"shape \(50,\)|shape \("),
        (body(loss="    def loss(self, model, x, y): return 3.0\n"), "returned float"),
        (body(loss="    def loss(self, model, x, y): return y.mean()\n"), "does not depend on the model"),
        (body(loss="    def loss(self, model, x, y): return model(x).sign().mean()\n"), "does not depend on the model"),
        (body(more="    steps = 0\n"), "`steps` is 0"),
    ],
)  # fmt: skip
def test_wrong_task_files_are_explained(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    if message is None:
        message = "two calls with one seed|same"
        pytest.skip("one shared model is caught only through its weights; see the next case")
    with pytest.raises(RaceError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "= help: " in str(caught.value)


def test_a_missing_file_and_a_misspelt_name_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RaceError, match="there is no such file"):
        load(tmp_path / "none.py")
    with pytest.raises(RaceError, match="did you mean `digits`"):
        load("digit")


@pytest.mark.parametrize(
    "start",
    [
        lambda: race([], Line),
        lambda: race([SGD, SGD], Line),
        lambda: race([SGD], Line, seeds=0),
        lambda: race([SGD], Line, grid=[0.1, 0.1]),
        lambda: race([SGD], Line, grid=[0.0, 0.1]),
    ],
)
def test_races_without_sense_do_not_start(start: Callable[[], Results]) -> None:
    with pytest.raises(RaceError):
        start()


def test_what_was_not_given_is_not_complained_of() -> None:
    with pytest.raises(RaceError) as caught:
        race([SGD], Line, seeds=0)
    assert "0 seeds" in str(caught.value) and "None" not in str(caught.value)


def test_a_folder_that_cannot_be_written_into_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RaceError, match="cannot be written there: .*\n.*--out"):
        race([interrupting(after=0)], Line, seeds=1, steps=2, grid=[0.1], out=tmp_path / "taken", quiet=True)


def test_a_split_made_by_hand_is_kept() -> None:
    class Halves(Line):
        def data(self) -> Any:
            x, y = super().data()
            return Split((x[:40], y[:40]), (x[40:50], y[40:50]), (x[50:], y[50:]))

    assert [len(part[0]) for part in (load(Halves).data.train, load(Halves).data.test)] == [40, 10]


def test_a_race_from_python_takes_all_kinds_of_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my.opt"
    path.write_text(optlang.Rule("sgd").source.text, encoding="utf-8")
    text = "rule Mine {\n hyper lr = 0.1\n w' = w - lr*g\n}"
    rules = ("sgd", text, optlang.Rule("momentum"), optlang.load("lion"), torch.optim.AdamW, "torch:SGD", ADAMW, path)
    results = optlang.race(*rules, task=Line, seeds=1, steps=5, grid=[0.1])
    captured = capsys.readouterr()
    assert [entry.name for entry in results.entries] == ["sgd", "Mine", "Momentum", "Lion", "AdamW", "torch:SGD", "adamw", "my"]
    losses = {entry.name: entry.test_loss.mean for entry in results.entries}
    assert losses["sgd"] == losses["Mine"] == losses["my"] and losses["sgd"] == pytest.approx(losses["torch:SGD"], rel=1e-5)
    assert losses["AdamW"] == losses["adamw"]
    assert not captured.out and "Mine: seed 1" in captured.err  # the result is the table
    assert str(results) == results.table()


def test_a_notebook_shows_the_table_and_the_curves() -> None:
    results = optlang.race("sgd", task=Line, seeds=1, steps=5, grid=[0.1], quiet=True)
    shown = results._repr_html_()
    assert shown.startswith(f"<pre>{html.escape(results.table())}</pre>")
    [picture] = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert base64.b64decode(picture, validate=True).startswith(b"\x89PNG")
    results.entries.clear()
    assert "<img" not in results._repr_html_()


@pytest.mark.parametrize("what", [3, None, torch.nn.Linear])
def test_what_is_no_rule_is_refused(what: Any) -> None:
    with pytest.raises(TypeError):
        optlang.race(what, task=Line, quiet=True)


def test_importing_the_race_does_not_import_torch() -> None:
    code = "import sys, optlang.race; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=EXAMPLE.parents[1]).returncode == 0
