"""What the README shows is what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import optlang
from optlang import library

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_the_race_is_the_one_in_docs() -> None:
    results = json.loads((ROOT / "docs" / "race.json").read_text())
    for entry in results["entries"]:
        summary = entry["summary"]
        [row] = [line for line in README.splitlines() if line.startswith(f"{entry['name']} ")]
        assert f"{100 * summary['test_accuracy']['mean']:.2f}" in row
        assert f"{summary['test_loss']['mean']:.3f}"[:4] in row


def test_the_commands_are_those_of_the_makefile() -> None:
    made = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", made, re.MULTILINE)


def test_what_must_pass_on_a_clean_checkout_is_the_command_for_tests() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines and lines[-1] == "make test"
    assert re.search(r"^make test +# all tests", README, re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_found_rule_is_the_one_in_examples() -> None:
    assert (ROOT / "examples" / "search" / "raw_lion" / "lion_found.opt").read_text().strip() in README


def test_the_number_of_rules_is_that_of_the_library() -> None:
    count = sum(path.stem != "std" for path in (ROOT / "library").rglob("*.opt"))
    [claimed] = re.findall(r"The library: (\d+) rules and routes", (ROOT / "CHANGELOG.md").read_text())
    assert int(claimed) == count


def test_what_several_processes_did_is_as_it_says() -> None:
    found = json.loads((ROOT / "docs" / "sharded.json").read_text())
    [rules] = re.findall(r"All (\d+) rules take the steps of one process on 2 and 4", README)
    assert "but for nine that refuse parts" in README and found["different"] == 0
    for world in ("2", "4"):
        assert int(rules) == len(found["rules"][world].keys() - {"Clipped", "Windowed", "Drawn"})  # which are not of the library
        assert sum("refused" in row for row in found["modules"][world].values()) == 9
        assert not any("refused" in row for row in found["rules"][world].values())


def test_what_torchs_own_tests_found_is_as_it_says() -> None:
    rules, modules = (json.loads((ROOT / "docs" / f"torch-suite{name}.json").read_text()) for name in ("", "-modules"))
    assert f"All {len(library.names())} rules pass torch's own tests of optimizers, {rules['passed']:,} times" in README
    assert not rules["not run"] and not rules["failed"] + modules["failed"]
    assert f"modules of {modules['rules']} rules do, {modules['passed']:,} times" in README
    missing = len(modules["not run"])
    assert missing == 0 or f"the other {missing} have not been asked" in README
