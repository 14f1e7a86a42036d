"""The examples do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path

from optlang.cli import main

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_training_with_a_rule_of_ones_own() -> None:
    assert runpy.run_path(str(EXAMPLES / "train.py"))["main"]() > 0.85


def test_the_rule_is_right_and_short() -> None:
    assert main(["check", "--pedantic", str(EXAMPLES / "my.opt")]) == 0
    assert main(["fmt", "--check", str(EXAMPLES / "my.opt")]) == 0
