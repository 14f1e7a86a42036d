"""What the README and the pages beside it show is what there is."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import textwrap
from importlib import import_module
from typing import Any

import counts
import pytest
import torch
from pages import ARCHITECTURE, COSTS, PAGES, README, ROOT, TORCH

import optlang
from optlang import cli, library
from optlang.race.api import race
from optlang.search.api import search


def test_the_rule_is_that_of_the_library() -> None:
    assert (ROOT / "library" / "sign" / "lion.opt").read_text().strip() in README


def test_the_message_is_what_is_said() -> None:
    lines = (ROOT / "library" / "adam" / "adam.opt").read_text().splitlines()
    lines[8] = "  m' = beta3*m + (1 - beta1)*g"
    lines[9] = ""
    [finding] = [d for d in optlang.check("\n".join(lines), name="my.opt") if "beta3" in d.message]
    assert finding.to_text() in README


def test_the_module_is_what_is_generated() -> None:
    (shown,) = re.findall(r"```python\n(        for group in self.param_groups:.*?)```", README, re.DOTALL)
    assert shown in optlang.build("lion")


BLOCKS = [block for page in PAGES.values() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


def test_the_first_lines_of_python_train() -> None:
    model = torch.nn.Linear(3, 2)
    before = model.weight.tolist()
    known: dict[str, Any] = {"model": model}
    exec(BLOCKS[0], known)
    model(torch.ones(3)).sum().backward()
    known["optimizer"].step()
    assert model.weight.tolist() != before


def test_the_lines_of_python_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for ten minutes, and a race, are asked for with arguments that they take."""
    [shown] = [block for block in BLOCKS if "optlang.loads" in block]
    searching, racing = inspect.signature(search), inspect.signature(race)
    monkeypatch.setattr(optlang, "search", lambda *given, **named: [searching.bind(*given, **named)])
    monkeypatch.setattr(optlang, "race", lambda *given, **named: racing.bind(*given, **named))
    exec(shown, {"optlang": optlang, "text": "rule Name { hyper lr = 1e-3 in (0, inf) w' = w - lr*g }"})
    [said] = re.findall(r'diff\("adamw", "adabelief"\).sentence\(\) +# (.*)', shown)
    assert optlang.diff("adamw", "adabelief").sentence().startswith(said)


def test_all_lines_of_python_are_python() -> None:
    for block in BLOCKS:
        compile(textwrap.dedent(block), "a page", "exec")


TEXT = "\n".join(PAGES.values())
COMMANDS = re.findall(r"^optlang (.*?)(?:  +.*)?(?: +#.*)?$", TEXT, re.MULTILINE) + re.findall(r"`optlang ([^`]+)`", TEXT)
HELPS = [cli.ABOUT, *(import_module(module).ABOUT for module, _ in cli.COMMANDS.values())]
HELPED = [line for text in HELPS for line in text.splitlines()]
COMMANDS += [found.group(1) for line in HELPED if (found := re.match(r" *(?:cat \S+ \| )?optlang (.+?)(?:  +.*)?(?: \|.*)?$", line))]


@pytest.mark.parametrize("line", sorted(set(COMMANDS) - set(cli.COMMANDS)))
def test_a_command_that_is_shown_is_one(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the pages, and those of the helps."""
    words = shlex.split(re.sub(r"(\w+)(\|\w+)+", r"\1", line))
    if words[0] not in cli.COMMANDS:
        assert words[0].endswith(".opt")
        words.insert(0, "check")
    try:
        cli._parser(words[0]).parse_args(words)
    except SystemExit as ended:
        if ended.code:  # else it has shown its help
            raise AssertionError(capsys.readouterr().err) from ended


def test_the_race_is_the_one_in_docs() -> None:
    results = json.loads((ROOT / "docs" / "race.json").read_text())
    for entry in results["entries"]:
        summary = entry["summary"]
        [row] = [line for line in README.splitlines() if line.startswith(f"{entry['name']} ")]
        assert f"{100 * summary['test_accuracy']['mean']:.2f}" in row
        assert f"{summary['test_loss']['mean']:.3f}"[:4] in row


def test_the_commands_are_those_of_the_makefile() -> None:
    made = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([\w-]+)", TEXT, re.MULTILINE):
        assert re.search(rf"^{target}:", made, re.MULTILINE)


def test_what_must_pass_on_a_clean_checkout_is_the_command_for_tests() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines and lines[-1] == "make test"
    assert re.search(r"^make test +# all tests", README, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_costs_that_the_readme_shows_are_rows_of_their_page() -> None:
    table = README.partition("## What it costs")[2].partition("## A search")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) > 5 and set(rows) <= set(COSTS.splitlines())


def test_the_map_names_what_is_there() -> None:
    """Every file and folder that the page names exists, it names all files beside the folders, and draws every stage of the pipeline."""
    named = set(re.findall(r"[a-z]\w*(?:/\w+)*\.(?:py|toml|h)|(?<=`)[a-z_]+/\w+(?=`)", ARCHITECTURE))
    assert len(named) > 20
    for name in named:
        assert any(base.joinpath(name).exists() for base in (ROOT, ROOT / "optlang", ROOT / "optlang" / "simplify", ROOT / "tests")), name
    assert not [path.name for path in (ROOT / "optlang").glob("[a-z]*.py") if path.name not in named]
    drawn = re.findall(r"optlang/(\w+)", ARCHITECTURE.split("```")[1])
    assert drawn == ["front", "lower", "simplify", "plan", "backends", "runtime"]


def test_the_folders_are_those_that_are_there() -> None:
    table = README.partition("## Where things are")[2].partition("\n\nA new rule")[0]
    named = set(re.findall(r"`([a-z/]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))))
    packages = {f"optlang/{path.parent.name}" for path in (ROOT / "optlang").glob("*/__init__.py")}
    assert named == {"examples", "grammar", "library", "tests", "docs"} | packages


def test_the_found_rule_is_the_one_in_examples() -> None:
    assert (ROOT / "examples" / "search" / "raw_lion" / "lion_found.opt").read_text().strip() in README


def test_what_several_processes_did_is_as_it_says() -> None:
    found = json.loads((ROOT / "docs" / "sharded.json").read_text())
    assert found["different"] == 0
    for world in ("2", "4"):
        assert len(library.names()) == len(found["rules"][world].keys() - {"Clipped", "Windowed", "Drawn"})  # which are not of the library
        assert sum("refused" in row for row in found["modules"][world].values()) == counts.refused()
        assert not any("refused" in row for row in found["rules"][world].values())


def test_what_torchs_own_tests_found_is_as_it_says() -> None:
    rules, modules = (json.loads((ROOT / "docs" / f"torch-suite{name}.json").read_text()) for name in ("", "-modules"))
    assert rules["rules"] == len(library.names())
    assert not rules["not run"] and not rules["failed"] + modules["failed"]
    missing = len(modules["not run"])
    assert missing == 0 or f"the other {missing} have not been asked" in TORCH
