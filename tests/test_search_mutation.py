"""Changes stay inside the space, whatever is asked of it; drawing is repeatable; settings go to JSON and back."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang.search.programs.constraints import Limits
from optlang.search.programs.functions import FUNCTIONS, LION
from optlang.search.programs.genome import Form, Genome, GenomeError, from_text, to_text
from optlang.search.programs.mutation import MUTATIONS, UNCHANGED, Mutator, RandomPrograms, in_series
from optlang.search.programs.seeds import seed
from optlang.search.programs.space import Space
from optlang.search.programs.type_codes import codes

FORM = Form()
ADAMW = seed("adamw-bare", FORM)


def walk(space: Space, start: Any, steps: int, number: int = 0, only: tuple[str, ...] = ()) -> list[Any]:
    source, mutate, genome, found = random.Random(number), Mutator(space, only), start, []
    for _ in range(steps):
        genome, change = mutate(genome, source)
        found.append((genome, change))
    return found


SPACES: list[dict[str, Any]] = [
    {},
    {"functions": dict.fromkeys(LION, 1.0)},
    {"limits": Limits(statements=9, slots=2, depth=8)},
    {"constraints": ("elementwise", "never t")},
    {"constraints": ("no model values", "once tanh"), "limits": Limits(functions={"add": 3})},
    {"constants": (-2.0, 2.0), "constraints": ("reads g",)},
]


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(SPACES))
def test_every_child_is_in_the_space(number: int, fields: dict[str, Any]) -> None:
    space = Space(seeds=(ADAMW,), **fields)
    for genome, _ in walk(space, ADAMW, 25, number):
        assert space.problem(genome) == ""
        assert codes(genome, FORM) is not None
        assert from_text(to_text(genome)) == genome


def test_all_kinds_of_change_happen_and_say_what_they_did() -> None:
    space = Space(seeds=(ADAMW,))
    words = {change.split(" ")[0] if change[0] != "`" else "argument" for _, change in walk(space, ADAMW, 200)}
    assert words == {"inserted", "deleted", "argument", "put"}
    assert len(MUTATIONS) == 6


def test_the_same_numbers_give_the_same_children() -> None:
    space = Space(seeds=(ADAMW,))
    assert walk(space, ADAMW, 50, 3) == walk(space, ADAMW, 50, 3) != walk(space, ADAMW, 50, 4)


def test_constants_only() -> None:
    space = Space(seeds=(ADAMW,))
    for genome, _ in walk(space, ADAMW, 60, only=("constant",)):
        assert [(s.function, s.target, [a for a in s.args if isinstance(a, str)]) for s in genome] == [
            (s.function, s.target, [a for a in s.args if isinstance(a, str)]) for s in ADAMW
        ]
    assert walk(space, ADAMW, 60, only=("constant",))[-1][0] != ADAMW


def test_frozen_statements_stay() -> None:
    frozen = tuple(s._replace(frozen=True) if s.target in ("m", "v") else s for s in ADAMW)
    space = Space(seeds=(frozen,))
    for genome, _ in walk(space, frozen, 100):
        assert [s for s in genome if s.frozen] == [s for s in frozen if s.frozen]


def some(*choices: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(choices)


COMBINED = st.fixed_dictionaries({
    "functions": some(dict.fromkeys(LION, 1.0), dict.fromkeys(FUNCTIONS, 1.0), {"add": 1.0, "mul": 2.0, "sign": 1.0, "interp": 1.0}),
    "constants": some((-100.0, 100.0), (0.0, 1.0), (-3.0, 3.0)),
    "limits": st.builds(
        Limits, some(8, 30), some(None, 1, 2), some(None, 6, 12), some({}, {"sign": 1}, {"mul": 2, "add": 2}),
    ),
    "constraints": st.lists(some("elementwise", "no model values", "loss scale", "once sign", "reads g", "never t"), unique=True).map(
        tuple
    ),
    "form": some(FORM, Form(scaled=False), Form(slots=("m", "v", "s"))),
    "template": some("", "? 0-2\nm = interp(g, m, ?)\n? 0-2\nu = sign(m)"),
    "seeds": some((), (from_text("m = interp(g, m, 0.9)\nu = sign(m)"), from_text("a = mul(w, 0.1)\nm = interp(g, m, 0.5)\nu = sign(m)"))),
})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(COMBINED, st.integers(0, 10**6))
def test_everything_combines(fields: dict[str, Any], number: int) -> None:
    """Functions, constants, limits, constraints, forms, templates and several seeds, each with each."""
    space = Space(**fields)
    assert Space.from_json(space.to_json()) == space
    source = random.Random(number)
    start = source.choice(space.seeds) if space.seeds else RandomPrograms(space)(source)
    assert space.problem(start) == ""
    for genome, _ in walk(space, start, 15, number):
        assert space.problem(genome) == ""
        low, high = space.constants
        assert all(low <= arg <= high for s in genome for arg in s.args if isinstance(arg, float))


TEMPLATE = "? 0-2\nm = interp(g, m, ?)\n? 0-3\nu = sign(m)"


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_templates_stay_filled(number: int) -> None:
    space = Space(template=TEMPLATE, seeds=(from_text("m = interp(g, m, 0.9)\nu = sign(m)"),))
    seen = walk(space, space.seeds[0], 30, number)
    assert all(space.problem(genome) == "" for genome, _ in seen)
    assert len({genome for genome, _ in seen}) > 5


def test_templates_are_filled_at_random() -> None:
    space = Space(template=TEMPLATE)
    draw, source = RandomPrograms(space), random.Random(1)
    assert all(space.problem(draw(source)) == "" for _ in range(20))


@pytest.mark.parametrize("fields", SPACES)
def test_random_programs_are_in_the_space(fields: dict[str, Any]) -> None:
    space = Space(seeds=(ADAMW,), **fields)
    draw = RandomPrograms(space)
    found = [draw(random.Random(number)) for number in range(15)]
    assert all(space.problem(genome) == "" for genome in found)
    assert len(set(found)) == 15
    assert {len(genome) for genome in found} <= {6, 7, 8}


@pytest.mark.parametrize("fields", [*SPACES, {"template": TEMPLATE, "seeds": ()}])
def test_a_space_goes_to_json_and_back(fields: dict[str, Any]) -> None:
    space = Space(**{"seeds": (ADAMW,), **fields})
    assert Space.from_json(space.to_json()) == space


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"functions": {}}, "the set of functions is empty"),
        ({"functions": {"addd": 1.0}}, "there is no function `addd`"),
        ({"limits": Limits(statements=0)}, "leaves no program"),
        ({"constraints": ("reads t", "never t")}, "exclude each other"),
        ({"constraints": ("sometimes t",)}, "there is no constraint `sometimes t`"),
        ({"constraints": ("elementwise",), "functions": {"normalize": 1.0}}, "no function of the space satisfies"),
        ({"template": "m = interp(g, m, 0.9)"}, "the template has no hole"),
        ({"template": "? 3\nu = sign(g)", "limits": Limits(statements=2)}, "the template needs 4 statements"),
        ({"seeds": (ADAMW,), "limits": Limits(statements=3)}, "seed 1 has 7 statements"),
        ({"constants": (1.0, -1.0)}, "no constant is from 1 to -1"),
    ],
)
def test_spaces_that_cannot_be(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(GenomeError, match=told):
        Space(**fields)


def test_a_space_in_which_nothing_can_be_drawn_says_so() -> None:
    space = Space(functions={"add": 1.0}, constraints=("reads t",), names=("g",), limits=Limits(statements=1))
    with pytest.raises(GenomeError, match="no random program satisfies the constraints"):
        RandomPrograms(space)(random.Random(0))


def test_a_program_that_nothing_can_change_is_given_back() -> None:
    frozen = tuple(s._replace(frozen=True) for s in ADAMW)
    space = Space(seeds=(frozen,), limits=Limits(statements=len(frozen)))
    assert Mutator(space)(frozen, random.Random(0)) == (frozen, UNCHANGED)


def test_lions_functions_are_there() -> None:
    assert len(LION) == 42  # and three constants
    assert all(name in FUNCTIONS for name in LION)


@given(st.floats(-90, 90).filter(lambda value: abs(value) > 1e-9))
def test_a_series_has_neighbours_by_factors_and_by_distances_from_1(value: float) -> None:
    found = in_series(value)
    assert in_series(found) == found and math.copysign(1, found) == math.copysign(1, value)
    near, exact = (1 - value, 1 - found) if 0.5 < value < 1 and found < 1 else (value, found)
    assert 0.45 < exact / near < 2.2
    digits = f"{abs(exact):.0e}"[0]
    assert digits in "125", (value, found)


def test_children_in_a_series_meet_again() -> None:
    """All constants that mutation makes are of the series, and so there are few children of one program."""
    few, many = (neighbours(Space(seeds=(AVERAGE,), series=series)) for series in (True, False))
    assert len(few) < 0.7 * len(many)
    assert all(in_series(arg) == arg for genome in few for statement in genome for arg in statement.args if isinstance(arg, float))


AVERAGE = from_text("m = interp(g, m, 0.9)\nu = mul(m, 1.0)")


def neighbours(space: Space) -> set[Genome]:
    source, change = random.Random(3), Mutator(space, only=("constant",))
    return {change(AVERAGE, source)[0] for _ in range(200)}
