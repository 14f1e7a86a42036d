"""On the planted tasks the known rules rank as is claimed: by their tuned end, over several seeds."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from optlang.search.programs.genome import Form
from optlang.search.training.assess import TRIED, Job, assess
from optlang.search.training.levels import Level
from optlang.search.training.loading import task, verify
from optlang.search.training.planted import TASKS

RULES = {
    "sgd": "u = mul(g, 1.0)",
    "momentum": "m = interp(g, m, 0.9)\nu = mul(m, 1.0)",
    "sign": "u = sign(g)",
    "signum": "m = interp(g, m, 0.9)\nu = sign(m)",
    "average of signs": "a = sign(g)\nm = interp(a, m, 0.9)\nu = mul(m, 1.0)",
    "adam": "m = interp(g, m, 0.9)\na = square(g)\nv = interp(a, v, 0.999)\nb = sqrt(v)\nc = add(b, 1e-8)\nu = div(m, c)",
    "rmsprop": "a = square(g)\nv = interp(a, v, 0.99)\nb = sqrt(v)\nu = protected_div(g, b)",
    "normalized": "u = normalize(g)",
}
CLAIMS = {  # best first: each better than the next, and all better than the rest
    "planted-momentum": ["momentum", "adam", "average of signs"],
    "planted-sign": ["average of signs", "sign"],
    "planted-normalized": ["normalized", "average of signs", "sign", "signum"],
}


@pytest.mark.parametrize("name", list(TASKS))
def test_known_rules_rank_as_claimed(name: str) -> None:
    level = Level("planted", (name,), seeds=4, measure="loss")
    found = assess(Job(tuple(RULES.values()), Form(), level, {}, (1, 2, 3, 4)))
    assert all(one.status == "ok" for one in found)
    ranked = sorted(zip(RULES, found, strict=True), key=lambda pair: -pair[1].fitness)
    claimed = CLAIMS[name]
    assert [rule for rule, _ in ranked][: len(claimed)] == claimed
    for (_, better), (_, worse) in itertools.pairwise(ranked[: len(claimed) + 1]):
        assert better.fitness - worse.fitness > 2 * (better.error**2 + worse.error**2) ** 0.5, "by more than chance"


@pytest.mark.parametrize("name", list(TASKS))
def test_they_are_tasks_like_others(name: str) -> None:
    found = task(name)
    verify(found)
    one, other = found.batch([3, 4], 5), found.batch([4, 3], 5)
    assert torch.equal(one[0], other[0].flip(0)), "noise belongs to seed and step"


def test_a_program_that_cannot_be_trained_says_why_and_others_go_on() -> None:
    level = Level("planted", ("planted-momentum",), seeds=2, measure="loss")
    good, broken, matrix = assess(Job(("u = mul(g, 1.0)", "u = mul(g, nothing)", "u = transpose(g)"), Form(), level, {}, (1, 2)))
    assert good.status == "ok"
    assert broken.status.startswith("failed: ") and "nothing" in broken.status and broken.fitness == level.worst
    assert matrix.status.startswith("failed: ") and matrix.fitness == level.worst


def test_trial_and_hurdles_save_the_training_of_the_slow() -> None:
    """Two tasks; momentum is first on the one, the sign on the other, and plain steps are slow on both."""
    level = Level("planted", ("planted-momentum", "planted-sign"), seeds=2, measure="loss")
    rules = tuple(RULES[name] for name in ("sgd", "momentum", "sign"))
    job = Job(rules, Form(), level, {}, (1, 2), starts=({"planted-momentum": 1.0},) * 3)
    free, tried, held = (assess(one) for one in (job, replace(job, trial=2.0), replace(job, hurdles=(2.0,))))
    assert [one.status for one in free] == ["ok"] * 3
    assert [one.status for one in tried] == [TRIED, "ok", TRIED]
    assert [one.status for one in held] == ["stopped at a hurdle", "ok", "stopped at a hurdle"]
    slow, quick, _ = tried
    assert slow.steps <= 3 * 200 and slow.detail["planted-momentum"]["trial"] == slow.detail["planted-momentum"]["value"] < 2.0
    assert quick.detail["planted-momentum"]["value"] == pytest.approx(free[1].detail["planted-momentum"]["value"], rel=1e-3)
    assert slow.fitness < held[0].fitness + 1.0 < free[0].fitness, "what was not reached counts as the worst"
