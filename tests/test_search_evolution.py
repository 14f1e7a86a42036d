"""Populations age, the fit have children, and a branch that is put away goes on as if nothing had happened."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optlang.search.evolution.population import Ageing, Evolution, Member, RandomSearch
from optlang.search.programs.genome import Genome, Statement, from_text

SEED = from_text("u = mul(g, 8.0)")


def nudged(genome: Genome, source: random.Random) -> tuple[Genome, str]:
    number = float(genome[0].args[1]) + source.choice((-1.0, 1.0))
    return (Statement("mul", "u", ("g", number)),), "nudged"


def closeness(genome: Genome) -> float:
    return -abs(float(genome[0].args[1]))


def evolution(seed: int = 0, **settings: int) -> Evolution:
    ageing = Ageing(**{"population": 12, "tournament": 3, **settings})
    return Evolution([Member(0, SEED, closeness(SEED))], nudged, ageing, seed)


def advance(branch: Evolution, count: int, first: int = 1) -> list[str]:
    seen = []
    for number in range(first, first + count):
        proposal = branch.propose()
        seen.append(repr(proposal))
        branch.add(proposal, number, closeness(proposal.genome))
    return seen


def test_it_finds_what_is_better() -> None:
    branch = evolution()
    advance(branch, 400)
    assert branch.best.fitness == 0.0


def test_the_oldest_leaves_even_if_it_is_the_best() -> None:
    branch = evolution(population=4)
    for number in range(1, 5):
        branch.add(branch.propose(), number, -100.0)
    assert {member.number for member in branch.islands[0].members} == {1, 2, 3, 4}
    assert branch.best.number == 0


@given(st.integers(0, 99), st.integers(1, 60), st.sampled_from([{}, {"islands": 3, "migrate_every": 7}, {"patience": 9}]))
def test_put_away_and_taken_up_again_it_goes_on_identically(seed: int, count: int, more: dict[str, int]) -> None:
    whole, first = evolution(seed, **more), evolution(seed, **more)
    expected = advance(whole, count + 30)
    advance(first, count)
    second = evolution(seed + 1, **more)
    second.restore(json.loads(json.dumps(first.state())))
    assert advance(second, 30, count + 1) == expected[count:]
    assert second.best == whole.best


def test_a_population_that_stands_still_starts_again() -> None:
    branch = evolution(patience=5)
    branch.add(branch.propose(), 1, -1.0)
    for number in range(2, 7):
        branch.add(branch.propose(), number, -50.0)
    assert branch.restarts == 1
    assert {member.number for member in branch.islands[0].members} == {0}, "first from the seeds"
    for number in range(7, 13):
        branch.add(branch.propose(), number, -50.0)
    assert branch.restarts == 2
    assert {member.number for member in branch.islands[0].members} <= {1, 12}, "then from the best"


def test_children_of_a_population_that_was_given_up_stay_out_of_the_next() -> None:
    branch = evolution(patience=5)
    proposals = [branch.propose() for _ in range(30)]  # many are under way at a time
    belong = [branch.add(proposal, number, -50.0) for number, proposal in enumerate(proposals, 1)]
    assert belong == [True] * 5 + [False] * 25 and branch.restarts == 1
    assert {member.number for member in branch.islands[0].members} == {0}
    branch.add(proposals[0], 31, -0.5)
    assert branch.best.number == 31, "but the best is the best"


def test_the_best_of_an_island_wanders_to_the_next() -> None:
    branch = evolution(islands=2, migrate_every=3)
    proposals = [branch.propose() for _ in range(3)]
    for proposal, fitness in zip(proposals, (-0.5, -70.0, -70.0), strict=True):
        branch.add(proposal, -int(fitness), fitness)
    assert any(member.fitness == -0.5 for member in branch.islands[1].members)


def test_random_search_goes_on_identically() -> None:
    def make(source: random.Random) -> Genome:
        return (Statement("mul", "u", ("g", source.random())),)

    one, two = RandomSearch(make, 3), RandomSearch(make, 4)
    one.propose()
    two.restore(json.loads(json.dumps(one.state())))
    assert [one.propose() for _ in range(5)] == [two.propose() for _ in range(5)]


@pytest.mark.parametrize(
    ("ageing", "what"),
    [(Ageing(population=1), "cannot evolve"), (Ageing(tournament=0), "tournament"), (Ageing(population=4, islands=3), "islands")],
)
def test_numbers_that_make_no_sense(ageing: Ageing, what: str) -> None:
    assert any(what in problem for problem in ageing.problems())
