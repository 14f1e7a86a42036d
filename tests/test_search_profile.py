"""The performance profile of the miniature AlgoPerf, on times whose scores are known by hand."""

from __future__ import annotations

import math

import pytest

from optlang.rules import Rule
from optlang.search.training.profile import factors, scattered, standings, tried
from optlang.search.training.tuning import columns, ranges


def test_scores_by_hand() -> None:
    found = {
        "quick": {"a": [10.0, 10.0, 10.0], "b": [30.0, 30.0, 30.0]},
        "half": {"a": [20.0, 20.0, 20.0], "b": [15.0, 15.0, 15.0]},
        "lost": {"a": [math.inf] * 3, "b": [math.inf] * 3},
    }
    quick, half, lost = sorted(standings(found), key=lambda s: s.rule != "quick" and (s.rule, 1) != ("half", 1))
    assert {s.rule for s in (quick, half)} == {"quick", "half"}
    # ratios 1 and 2 for both: areas (4-1)/3 and (4-2)/3
    assert quick.score == pytest.approx((1 + 2 / 3) / 2) == half.score
    assert (quick.low, quick.high) == (pytest.approx(quick.score), pytest.approx(quick.score))
    assert lost.score == 0 and lost.times["a"] == math.inf
    assert quick.profile[0] == 0.5 and quick.profile[-1] == 1.0


def test_a_rule_that_misses_in_most_studies_has_missed() -> None:
    found = {"a": {"x": [5.0, math.inf, math.inf]}, "b": {"x": [8.0, 8.0, math.inf]}}
    a, b = (next(s for s in standings(found) if s.rule == name) for name in "ab")
    assert a.score == 0.0 and b.score == 1.0
    assert b.low < b.score or a.high > a.score, "studies that differ give an interval"


def test_the_area_under_a_profile_is_the_score() -> None:
    found = {"a": {"x": [10.0], "y": [7.0], "z": [9.0]}, "b": {"x": [17.0], "y": [5.0], "z": [100.0]}}
    for standing in standings(found):
        at = factors()
        area = sum(p * (at[1] - at[0]) for p in standing.profile) / (at[-1] - at[0])
        assert area == pytest.approx(standing.score, abs=0.03)


def test_points_fill_the_ranges_and_repeat() -> None:
    program = Rule("adamw").program
    spaces = ranges(program)
    points = scattered(spaces, 64, seed=3)
    assert points == scattered(spaces, 64, seed=3) != scattered(spaces, 64, seed=4)
    for name, space in spaces.items():
        values = sorted(point[name] for point in points)
        low, high = sorted((space.value(0.0), space.value(1.0)))
        assert low <= values[0] and values[-1] <= high
        middle = space.value(0.5)
        assert sum(v < middle for v in values) == 32, name


def test_the_step_size_is_also_tried_alone() -> None:
    """Whoever has four settings is not to lose for want of trials."""
    points = tried(Rule("adamw").program, 5, seed=3)
    assert [len(point) for point in points] == [4] * 5 + [1] * 5 and len({point["lr"] for point in points[5:]}) == 5
    assert [list(point) for point in tried(Rule("adagradnorm").program, 5, seed=3)] == [["lr"]] * 5


def test_what_is_tuned_is_read_off_the_rule() -> None:
    program = Rule("adamw").program
    assert list(ranges(program)) == ["lr", "beta1", "beta2", "weight_decay"]
    assert columns(program, [{"lr": 0.5}, {"beta1": 0.7}]) == {"lr": [0.5, 1e-3], "beta1": [0.9, 0.7]}
