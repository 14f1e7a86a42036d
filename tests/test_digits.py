"""Every rule trains: `docs/digits.json` has a run of each on the digits of `optlang race`, and a few run here again. (10 s)"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from optlang import library

sys.path.insert(0, str(Path(__file__).parent / "bench"))
import train_library as digits
from digits_runs import ENOUGH, RUNS, has_settings, run_of

KEPT = json.loads(digits.RESULTS.read_text(encoding="utf-8"))
AGAIN = ["adamw", "lion", "signum", "came", "schedulefreesgd", "sps", "unitadamw", "loraggpo"]
MOST = 1.8  # that may be stated: above it nothing is learnt


@pytest.mark.parametrize("rule", library.names())
def test_every_rule_went_below(rule: str) -> None:
    """`make digits` trains what is missing, or was trained with other equations or in another run."""
    entry = KEPT["rules"][rule]
    assert digits.is_of_today(rule, entry)
    for found in (entry, entry["second"]):
        assert found["start"] > 2 > MOST >= entry["below"] > found["loss"]
        assert found["accuracy"] > (0.8 if entry["below"] == ENOUGH else 0.5)


def test_every_rule_has_its_defaults_or_settings_of_its_authors() -> None:
    """Which are named, with what the defaults reach beside them. Two are learned: their settings are a network, which somebody gives."""
    for rule in set(library.names()) - {"mulo", "perparametermlp"}:
        run, entry = run_of(rule), KEPT["rules"][rule]
        assert has_settings(run) == bool(run.whose)
        assert not run.whose or (run.beside is not None and not has_settings(run.beside))
        assert ("beside_reached" in entry) == (run.beside is not None)


def test_what_is_not_usual_has_a_reason() -> None:
    for rule, run in RUNS.items():
        assert rule in library.names() and run.why
        assert ENOUGH <= run.below <= MOST


@pytest.mark.parametrize("rule", AGAIN)
def test_it_does_so_again(rule: str) -> None:
    kept, again = KEPT["rules"][rule], digits.trained(rule, run_of(rule))
    assert again["loss"] < kept["below"]
    assert abs(again["loss"] - kept["loss"]) < 0.05
