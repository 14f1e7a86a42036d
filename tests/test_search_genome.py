"""Programs of statements: their text, their types, what of them is live, and the rule that they are."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optlang import ir
from optlang.compare.trial import refute
from optlang.search.distil.flat import Layout
from optlang.search.distil.steps import genome_function, lines_of
from optlang.search.programs.functions import FUNCTIONS
from optlang.search.programs.genome import (
    Form,
    GenomeError,
    Statement,
    from_text,
    line,
    live,
    run,
    slots_used,
    to_program,
    to_text,
)
from optlang.search.programs.mutation import RandomPrograms
from optlang.search.programs.space import Space
from optlang.search.programs.type_codes import MISFIT, code_of, codes, result_code, type_of
from optlang.types import ELEMENT, HOST, MODEL, TENSOR, Extent, Type

FORM = Form()
LION = from_text("u = interp(g, m, 0.9)\nu = sign(u)\nm = interp(g, m, 0.99)")
DRAW = RandomPrograms(Space.preset("rich"), lengths=range(3, 14))
LAYOUT = Layout(((4, 3), (5,)))


def drawn(number: int) -> tuple[Statement, ...]:
    return DRAW(random.Random(number))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_text_goes_there_and_back(number: int) -> None:
    genome = drawn(number)
    assert from_text(to_text(genome)) == genome


def test_text_may_have_comments_and_frozen_lines() -> None:
    genome = from_text("# a start\nm = interp(g, m, 0.9) !   # kept\n\nu = sign(m)\n")
    assert genome == (Statement("interp", "m", ("g", "m", 0.9), True), Statement("sign", "u", ("m",)))
    assert line(genome[0]) == "m = interp(g, m, 0.9) !"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("u = sign(g)\nu = nothing(g)", "line 2: there is no function `nothing`"),
        ("u = add(g)", "line 1: `add` takes 2 arguments, not 1"),
        ("u sign g", r"line 1, `u sign g`: write `name = function\(arguments\)`"),
        ("u = add(g, 3x)", "`3x` is neither a name nor a number"),
    ],
)
def test_text_that_is_wrong(text: str, told: str) -> None:
    with pytest.raises(GenomeError, match=told):
        from_text(text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_types_are_those_of_the_expressions(number: int) -> None:
    genome = drawn(number)
    found, values = codes(genome, FORM), run(genome, FORM)
    assert found is not None
    known = {str(name): type_of(code) for name, code in found.items()}
    assert {name: node.type.extent for name, node in values.items()} == {name: type_.extent for name, type_ in known.items()}
    assert {n for n, node in values.items() if node.type.kind == "bool"} == {n for n, type_ in known.items() if type_.kind == "bool"}


MISFITS = ["u = add(g, q)", "u = not(g)", "u = gt(g, 0.0)", "a = sign(g)", "u = norm_tensor(0.5)", "m = lt(g, w)\nu = sign(g)"]


@pytest.mark.parametrize("text", MISFITS)
def test_programs_without_types(text: str) -> None:
    assert codes(from_text(text), FORM) is None


def result_type(function: str, args: Sequence[Type]) -> Type | None:
    code = result_code((function, *map(code_of, args)))
    return None if code == MISFIT else type_of(code)


def test_types_of_calls() -> None:
    element, number = Type("real", ELEMENT), Type("real", HOST)
    assert result_type("norm_tensor", [element]) == Type("real", TENSOR)
    assert result_type("global_norm", [element]) == Type("real", MODEL)
    assert result_type("interp", [element, number, number]) == element
    assert result_type("norm_tensor", [number]) is None
    assert result_type("add", [element]) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_dead_statements_do_nothing(number: int) -> None:
    genome = drawn(number)
    kept = live(genome, FORM)
    assert live(kept, FORM) == kept and set(kept) <= set(genome)
    assert slots_used(kept, FORM) == slots_used(genome, FORM)
    values = run(genome, FORM), run(kept, FORM)
    for name in ("u", *slots_used(genome, FORM)):
        assert values[0][name] is values[1][name]


def test_a_slot_that_only_feeds_itself_is_dead() -> None:
    assert live(from_text("m = add(m, g)\nu = sign(g)"), FORM) == from_text("u = sign(g)")
    assert slots_used(from_text("m = add(m, v)\nv = add(v, g)\nu = sign(m)"), FORM) == ("m", "v")


def test_a_program_is_a_rule() -> None:
    program = to_program(LION, FORM, "Found")
    assert [state.name for state in program.states] == ["m"]
    assert program.weights.op == "sub" and ir.hyper("lr") in ir.walk([program.weights])
    plain = to_program(from_text("u = mul(g, lr)"), Form(scaled=False))
    assert refute(plain, to_program(from_text("u = mul(g, 1.0)"), FORM)) == (None, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a = sign(g)", "nothing is assigned to `u`"),
        ("u = sign(q)", "there is no 'q' here"),
        ("u = not(g)", r"statement 1, `u = not\(g\)`"),
    ],
)
def test_programs_that_cannot_be_rules(text: str, told: str) -> None:
    with pytest.raises(GenomeError, match=told):
        to_program(from_text(text), FORM)


def test_every_function_can_be_called() -> None:
    matrices = [
        Type("real", Extent("array", *sizes))
        for sizes in (("cols", "rows"), ("rows", "cols", "flat"), ("rows", "rows"), (1, "cols"))
    ]
    kinds = [Type("real", ELEMENT), Type("bool", ELEMENT), Type("real", HOST), Type("bool", HOST), *matrices]
    for name, row in FUNCTIONS.items():
        found = [result_type(name, [first, *rest]) for first in kinds for rest in ([k] * (row.operands - 1) for k in kinds)]
        assert any(found), name


def test_most_functions_run_on_flat_values() -> None:
    """The quick step knows what mutation picks; the rest is left to the interpreter."""
    slow = []
    for name, row in FUNCTIONS.items():
        genome = (Statement(name, "u", ("g",) * row.operands),)
        if row.weight and codes(genome, FORM) is not None and lines_of(genome, FORM, LAYOUT) is None:
            slow.append(name)
    assert not slow


def test_a_quick_step_leaves_old_slots_alone() -> None:
    np = pytest.importorskip("numpy")
    step = genome_function(LION, FORM, LAYOUT)
    assert step is not None
    w, g, slots = np.ones((3, 17)), np.linspace(-1.0, 1.0, 51).reshape(3, 17), {"m": np.zeros((3, 17)), "v": np.zeros((3, 17))}
    update, after = step(w, g, slots, 1.0)
    assert np.array_equal(update, np.sign(0.1 * g)) and np.allclose(after["m"], 0.01 * g)
    assert not slots["m"].any() and after["v"] is slots["v"]
