"""Numbers known before the step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optlang import ir
from optlang.host import FEW, HostScalars, Missing, MissingFact, combine, evaluate
from optlang.ops import ROWS
from optlang.rules import Rule
from optlang.types import GROUP, MODEL, TENSOR

LIBRARY = Path(__file__).parent.parent / "library"
LR, BETA, RANK, ROWS_OF = ir.hyper("lr"), ir.hyper("beta"), ir.fact("rank"), ir.fact("rows")
NESTEROV, K = ir.hyper("nesterov", "bool"), ir.hyper("k", "int")
MATRIX = ir.make("ge", (RANK, ir.const(2)))


def library() -> list[ir.Program]:
    """The rules that come along."""
    found = [Rule(path.stem).program for path in sorted(LIBRARY.rglob("*.opt")) if path.stem != "std"]
    return [program for program in found if isinstance(program, ir.Program)]


def correction() -> ir.Node:
    return ir.sub(ir.const(1), ir.power(BETA, ir.T))


@given(st.floats(0, 0.999999), st.integers(1, 10**6))
def test_bias_correction_in_float64(beta, t):
    assert evaluate(correction(), {"beta": beta}, t) == 1 - math.pow(beta, t)  # that of NumPy may differ in the last place


def test_values_come_in_order_and_plain():
    scalars = HostScalars([LR, NESTEROV, ir.T, ir.make("not", (NESTEROV,)), RANK])
    values = scalars({"lr": 0.1, "nesterov": True, "unused": 3}, 7, {"rank": 2, "numel": 6})
    assert values == (0.1, True, 7.0, False, 2.0)
    assert [type(v) for v in values] == [float, bool, float, bool, float]


def test_what_is_undefined_is_nan_or_infinite_and_never_raises():
    zero = ir.const(0)
    assert math.isnan(evaluate(ir.div(zero, zero), {}))
    assert evaluate(ir.div(ir.const(-1), zero), {}) == -math.inf
    assert math.isnan(evaluate(ir.make("log", (ir.const(-1),)), {}))
    assert evaluate(ir.power(ir.const(10), ir.const(400)), {}) == math.inf
    assert evaluate(K, {"k": 10**400}) == math.inf


def test_kinds_decide_and_not_how_python_spells_the_value():
    scalars = HostScalars([ir.add(K, ir.const(1)), NESTEROV])
    assert scalars({"k": True, "nesterov": 1}, 1, {}) == (2.0, True)
    assert scalars({"k": 1, "nesterov": True}, 1, {}) == (2.0, True)
    assert type(scalars({"k": True, "nesterov": 1}, 1, {})[1]) is bool


def test_the_same_setting_is_computed_once():
    scalars = HostScalars([correction()])
    for _ in range(3):
        scalars({"beta": 0.9, "lr": np.random.default_rng().random()}, 5, {"rows": 3})  # lr and rows are not read
    info = scalars._evaluate.cache_info()
    assert (info.misses, info.hits) == (1, 2)
    scalars({"beta": 0.9}, 6, {})
    assert scalars._evaluate.cache_info().misses == 2


def test_python_s_own_numbers_are_those_of_numpy():
    """Bit by bit, of the rules of the library with their settings and others, and of each operator at the edges."""
    facts = {"rank": 2, "numel": 48, "rows": 6, "cols": 8, "fan_in": 8, "fan_out": 6}
    for program in library():
        known = ir.on_host(program.all_roots())
        scalars = HostScalars([node for node in ir.walk(program.all_roots()) if known[node]])
        for factor in (1, 0.7, 0.999999, -3, 0):
            hypers = {h.name: h.default * factor if h.kind == "real" else h.default for h in program.hypers}
            assert_same(scalars, hypers, (1, 2, 1000, 10**7), facts)
    edges = (0.0, -0.0, 0.5, -2.0, 1e308, math.inf, math.nan)
    for row in ROWS:
        if row.role in ("map", "select") and row.operands < 3:
            truths = row.name in ("and", "or", "not")
            scalars = HostScalars([ir.make(row.name, [NESTEROV if truths else LR, NESTEROV if truths else BETA][: row.operands])])
            for one in edges:
                for other in edges:
                    assert_same(scalars, {"lr": one, "beta": other, "nesterov": bool(one)}, (1,), {})


def assert_same(scalars, hypers, times, facts):
    given = tuple(hypers[name] for name in scalars.hypers), tuple(facts[name] for name in scalars.facts)
    for t in times:
        scalars._computed = 0
        scalars._settled.cache_clear()  # which takes 0 and -0 for one setting
        expected = scalars._compute(given[0], t, given[1])
        scalars._computed = FEW
        found = scalars._compute(given[0], t, given[1])
        assert [type(x) for x in found] == [type(x) for x in expected]
        assert np.array(found, dtype=np.float64).tobytes() == np.array(expected, dtype=np.float64).tobytes(), (hypers, t)


def test_a_step_count_that_is_not_read_is_no_setting():
    scalars = HostScalars([ir.mul(LR, ir.const(2))])
    assert [scalars({"lr": 1.5}, t, {}) for t in (1, 2, 3)] == [(3.0,)] * 3
    assert scalars._evaluate.cache_info().misses == 1


def test_all_maps_and_choices_may_stand_in_a_host_expression():
    for row in ROWS:
        if row.role in ("map", "select"):
            truths = row.name in ("and", "or", "not")
            operand = NESTEROV if truths else LR
            args = [operand] * row.operands
            if row.role == "select":
                args[0] = NESTEROV
            assert isinstance(evaluate(ir.make(row.name, args), {"lr": 0.7, "nesterov": True}), float | bool), row.name


def test_deep_expressions():
    node = LR
    for _ in range(10_000):
        node = ir.add(node, ir.const(1))
    assert evaluate(node, {"lr": 0.5}) == 10_000.5


# ------------------------------------------------------------------------------------------------------------ facts


def test_a_fact_that_is_missing_is_named():
    with pytest.raises(MissingFact, match="`rows`") as caught:
        evaluate(ir.mul(ROWS_OF, LR), {"lr": 1.0}, facts={"rank": 1})
    assert caught.value.fact == "rows"


@pytest.mark.parametrize("choose", ["branch", "where"])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_missing_fact_may_stand_on_the_side_not_chosen(choose, rank):
    facts = {"rank": rank, "rows": 6} if rank == 2 else {"rank": rank}
    chosen = ir.make(choose, (MATRIX, ir.make("sqrt", (ROWS_OF,)), ir.const(-1)))
    other = ir.make(choose, (ir.make("not", (MATRIX,)), ir.const(-1), ir.make("sqrt", (ROWS_OF,))))
    expected = math.sqrt(6) if rank == 2 else -1
    assert evaluate(chosen, {}, facts=facts) == evaluate(other, {}, facts=facts) == expected


def test_a_missing_fact_chosen_or_deciding_is_an_error():
    large = ir.make("gt", (ROWS_OF, ir.const(5)))
    for node in (
        ir.make("branch", (MATRIX, ir.const(1), ROWS_OF)),
        ir.make("where", (MATRIX, ir.const(1), ROWS_OF)),
        ir.make("branch", (large, ir.const(1), ir.const(2))),
        ir.make("where", (large, ir.const(1), ir.const(2))),
        ir.make("or", (MATRIX, large)),
        ir.make("not", (large,)),
        ir.make("mean", (ROWS_OF,), TENSOR),
    ):
        with pytest.raises(MissingFact, match="`rows`"):
            evaluate(node, {}, facts={"rank": 1})


@pytest.mark.parametrize("flip", [False, True])
def test_and_and_or_need_only_what_decides(flip):
    large = ir.make("gt", (ROWS_OF, ir.const(5)))
    vector = ir.make("lt", (RANK, ir.const(2)))

    def pair(a: ir.Node, b: ir.Node) -> tuple[ir.Node, ir.Node]:
        return (b, a) if flip else (a, b)

    assert evaluate(ir.make("and", pair(MATRIX, large)), {}, facts={"rank": 1}) is False
    assert evaluate(ir.make("or", pair(vector, large)), {}, facts={"rank": 1}) is True


def test_where_over_arrays_with_a_side_that_is_missing():
    lost, kept = Missing("rows"), np.array([1.0, 2.0])
    assert combine("where", [np.array([False, True]), lost, kept]) == lost
    assert np.array_equal(combine("where", [np.array([False, False]), lost, kept]), kept)
    assert np.array_equal(combine("where", [np.array([True, True]), kept, lost]), kept)
    assert combine("where", [np.True_, lost, lost]) == lost
    truths = combine("where", [np.array([False, False]), lost, np.array([True, False])])
    assert truths.dtype == bool


# -------------------------------------------------------------------------------------------------------- not known


@pytest.mark.parametrize("node", [ir.G, ir.state("s", ir.W.type), ir.make("mean", (ir.G,), TENSOR), ir.eye("rows")])
def test_only_what_is_known_before_the_step(node):
    with pytest.raises(ValueError, match="not known before the step"):
        HostScalars([node])


def test_a_sum_over_parameters_is_not_one_parameters_number():
    numel = ir.fact("numel")
    assert ir.on_host([numel])[numel]
    for extent in (GROUP, MODEL):
        gathered = ir.make("sum", (numel,), extent)
        assert not ir.on_host([gathered])[gathered]
        assert not ir.is_static([gathered])[gathered]
    alone = ir.make("sum", (numel,), TENSOR)
    assert evaluate(alone, {}, facts={"numel": 12}) == 12


def test_a_hyper_that_is_not_given_is_named():
    with pytest.raises(KeyError, match="beta"):
        evaluate(correction(), {"lr": 1.0})
