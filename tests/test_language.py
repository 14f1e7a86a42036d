"""What rules mean, against values computed by hand: steps and clocks, names, numbers, functions, initial values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rules_by_text import ADAM, GRADIENTS, MATRIX, VECTOR, AdamW, cached, close, expression, run
from stepping import Loop, program

from optlang import library, lower
from optlang.front import parser

pytestmark = pytest.mark.usefixtures("undefined")


# ------------------------------------------------------------------------------------------------- steps and clocks


def test_t_counts_the_updates_of_this_parameter():
    loop = run("rule R { hyper int k = 2 in [1, inf)   every k { w' = t } else { w' = -t } }", VECTOR, VECTOR)
    loop.cells[1].t = 10
    assert [x[0] for x in loop.step()] == [-1, -11]
    assert [x[0] for x in loop.step()] == [2, 12]


@pytest.mark.parametrize(("words", "fires"), [
    ("every 1", {1, 2, 3, 4, 5, 6, 7}), ("every 3", {3, 6}), ("every k", {2, 4, 6}), ("every 3 from 1", {1, 4, 7}),
    ("every k from 3", {3, 5, 7}), ("every 2 from k", {2, 4, 6}), ("every 10 from 4", {4}), ("every 3 from 0", {3, 6}),
])  # fmt: skip
def test_every(words, fires):
    loop = run(f"rule R {{ hyper int k = 2 in [1, inf)  state n = 0  {words} {{ n' = n + 1 }}  w' = n' }}", VECTOR)
    count = 0
    for t in range(1, 8):
        count += t in fires
        assert loop.step()[0][0] == count


def test_every_with_else_and_a_block_inside_a_block():
    loop = run("""rule R {
      state a = 0   state b = 0
      every 2 { every 3 { a' = a + 1 } else { b' = b + 1 } } else { a' = a - 10 }
      w' = a'
    }""", VECTOR)  # fmt: skip
    a = b = 0
    for t in range(1, 9):
        if t % 2:
            a -= 10
        elif t % 3:
            b += 1
        else:
            a += 1
        loop.step()
        assert (loop.state("a")[0], loop.state("b")[0]) == (a, b)


def test_a_state_that_a_block_does_not_mention_is_held():
    loop = run("rule R { state m = 5  when t > 2 { m' = m + t } w' = w + m' }", VECTOR)
    seen = []
    for _ in range(4):
        loop.step()
        seen.append(loop.state("m")[0])
    assert seen == [5, 5, 8, 12]


def test_when_around_the_weights_skips_the_step():
    loop = run("rule R { n = norm(g per model) when n < 10 { w' = w - g } }")
    close(loop.step(MATRIX, VECTOR)[0], 0 * MATRIX)
    close(loop.step(100 * MATRIX, VECTOR)[1], 0 * VECTOR)


def test_conditions_per_tensor_group_and_model_are_real_branches():
    asked = []

    def grad(points):
        asked.append(1)
        return points

    text = "rule R {{ when norm(g{per}) > 5 {{ w' = grad(2*w) }} else {{ w' = 0 }} }}"
    for per, expected in (("", [0, 2]), (" per group", [0, 2]), (" per model", [2, 2])):
        loop = run(text.format(per=per), np.ones(1), np.ones(1), groups=[0, 1])
        assert [x.item() for x in loop.step([3.0], [8.0], grad=grad)] == expected
    assert len(asked) == 3
    quiet_loop = run(text.format(per=" per model"), np.ones(1))
    assert quiet_loop.step([1.0])[0].item() == 0  # no closure is needed where no side asks for one


def test_names_of_both_sides_are_visible_outside():
    loop = run("rule R { when mean(w) > 0 { a = w  b = 2 } else { a = -w  b = 3 }  w' = a*b }", np.array([1.0, 3]), np.array([-5.0]))
    assert [x.tolist() for x in loop.step()] == [[2, 6], [15]]


def test_else_alone_and_when_without_else():
    loop = run("rule R { state s = 1  when t == 1 { } else { s' = 2*s }  w' = s' }", VECTOR)
    assert [loop.step()[0][0] for _ in range(3)] == [1, 2, 4]


def test_a_mode_that_stays_switched():
    loop = run("rule R { state late per tensor = false  late' = late or norm(g) > 5  when late' { w' = 1 } else { w' = 0 } }", VECTOR)
    ones = np.full(5, 1.0)
    assert [loop.step(s * ones)[0][0] for s in (1, 2, 4, 1, 1)] == [0, 0, 1, 1, 1]


def test_a_switch_that_is_a_hyper():
    text = "rule R { hyper bool nesterov = false  state m = 0  m' = m + g  when nesterov { u = g + m' } else { u = m' }  w' = u }"
    assert run(text, np.zeros(1)).step([2.0])[0].item() == 2
    assert run(text, np.zeros(1), nesterov=True).step([2.0])[0].item() == 4


def test_state_in_a_static_block_exists_where_the_block_holds():
    loop = run("rule R { when rank >= 2 { state r per row = 0  r' = r + sum(g per row)  w' = r' } else { w' = g } }")
    found = loop.step(MATRIX, VECTOR)
    close(found[0], np.broadcast_to(MATRIX.sum(1, keepdims=True), (4, 3)))
    close(found[1], VECTOR)
    assert [set(c.state) for c in loop.cells] == [{"r"}, set()]


# ------------------------------------------------------------------------------------------------ names and equations


def test_equations_have_no_order_and_a_plain_name_is_the_old_value():
    text = "rule R {{ state a = 1  state b = 10  {} }}"
    equations = ["w' = c + a", "c = a' + b", "a' = b'", "b' = b + 1"]
    expected = [11 + 10 + 1, 12 + 11 + 11, 13 + 12 + 12]
    for order in (equations, equations[::-1], equations[2:] + equations[:2]):
        loop = run(text.format("  ".join(order)), np.zeros(1))
        assert [loop.step()[0].item() for _ in range(3)] == expected


def test_new_weights_may_be_read():
    loop = run("rule R { state a = w  w' = w - g  a' = 0.5*a + 0.5*w' }", np.array([4.0]))
    assert loop.step([2.0])[0].item() == 2
    assert loop.state("a").item() == 3


def test_an_anchor_is_kept_by_an_equation_that_says_so():
    loop = run("rule R { state w0 = w  w0' = w0  w' = w + 0.5*(w0 - w) - g }", np.array([4.0]))
    assert [loop.step([2.0])[0].item() for _ in range(3)] == [2, 1, 0.5]


def test_names_may_be_greek_and_are_normalised():
    assert expression("w*\u00c5*β1", np.ones(1), declared="hyper \u212b = 2  hyper β1 = 3").item() == 6


# ------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(("text", "expected"), [
    ("1/2", 0.5), ("-2^2", -4), ("2^3^2", 512), ("2^-1", 0.5), ("(1 - 2) - 3", -4), ("1 - 2 - 3", -4), ("8/4/2", 1), ("2*3 + 4*5", 26),
    ("-3 + 5", 2), ("6/k", 2), ("k/2", 1.5), ("mod(-1, 3)", 2), ("max(1, 2, 5, 3)", 5), ("min(4, 2, 3)", 2), ("clip(7, -1, 1)", 1),
    ("square(3)", 9), ("reciprocal(4)", 0.25), ("sqrt(2)^2", 2), ("pi", math.pi), ("1e3", 1000), (".5", 0.5), ("round(2.5)", 2),
    ("where(1 < 2, 10, 20)", 10), ("where(not 1 < 2, 10, 20)", 20), ("where(true and false or true, 1, 0)", 1),
    ("where(1 == 1 and 1 != 2, 1, 0)", 1), ("where(2 >= 2, 1, 0) + where(2 <= 1, 1, 0)", 1), ("exp(log(5))", 5), ("where(flag, 1, 2)", 1),
    ("where(isnan(nan), 1, 0)", 1), ("where(isfinite(inf), 1, 0)", 0), ("abs(-3) + sign(-2)", 2), ("floor(-1.5) + ceil(1.2)", 0),
])  # fmt: skip
def test_numbers(text, expected):
    assert expression(text, np.ones(1), declared="hyper int k = 3  hyper bool flag = true").item() == pytest.approx(expected, rel=1e-15)


def test_elementwise_choice():
    found = expression("where(g*w > 0, g, 0)", np.array([1.0, -1, 2]), np.array([3.0, 4, -5]))
    assert found.tolist() == [3, 0, 0]


def test_facts():
    x = np.zeros((6, 5, 2, 3))
    facts = {"rank": 4, "rows": 2, "cols": 3, "numel": 180, "fan_in": 30, "fan_out": 36}
    for name, value in facts.items():
        assert expression(name, x).ravel()[0] == value
    assert expression("rank + numel", np.zeros(7))[0] == 8


def test_undefined_values_are_nan_and_do_not_stop_the_step():
    assert np.isnan(expression("0*w/0", np.ones(2))).all()


# ------------------------------------------------------------------------------------------------ functions and rules


def test_functions_with_defaults_and_names():
    text = "def f(x, a = 2, b = 3) = a*x + b   rule R {{ w' = {} }}"
    for call, expected in (("f(w)", 5), ("f(w, 5)", 8), ("f(w, b = 1)", 3), ("f(b = w, x = 10, a = 0)", 1)):
        assert run(text.format(call), np.ones(1)).step()[0].item() == expected


def test_every_call_has_its_own_memory():
    loop = run("""
    def tally(by) { state n per tensor = 0  n' = n + by  return n' }
    rule R { a = tally(1)  b = tally(10) + tally(100)  w' = a + b }""", np.zeros(1))  # fmt: skip
    assert [loop.step()[0].item() for _ in range(2)] == [111, 222]
    assert {name: float(v) for name, v in loop.cells[0].state.items()} == {"a.n": 2, "b.n": 20, "b_2.n": 200}


def test_functions_see_the_parameter_of_the_rule_that_calls():
    loop = run("def share() = w/sum(w)   rule R { w' = share() + t }", np.array([1.0, 3.0]))
    assert loop.step()[0].tolist() == [1.25, 1.75]


def test_repeat_by_a_hyper_that_is_baked():
    text = "rule R { hyper int n = 3 in [0, 9]  repeat n { state y = w  y' = 2*y + 1 }  w' = y }"
    for n, expected in ((0, 1.0), (3, 15.0), (5, 63.0)):
        assert Loop(program(text, n=n), np.ones(1)).step()[0].item() == expected


def test_a_loop_variable_with_one_value_for_each_column():
    """What the advice says in the place of `state y per col = 1`; the sum over columns needs that shape in the first turn already."""
    loop = run("""rule R {
      repeat 2 { state y = 1 + 0*mean(w per col)  y' = y/sum(y) + sum(w per col) }
      w' = 0*w + y
    }""", np.array([[1.0, 2.0], [3.0, 4.0]]))  # fmt: skip
    first = np.array([4.5, 6.5])
    close(loop.step()[0], [first / 11 + [4, 6]] * 2)


def test_a_repeat_with_two_variables_and_a_block_inside():
    loop = run("""rule R {
      repeat 4 { state a = 0  state b = 1  a' = b  when b > 2 { c = 10 } else { c = 1 }  b' = a + b + c }
      w' = a + 100*b
    }""", np.zeros(1))  # fmt: skip
    a, b = 0, 1
    for _ in range(4):
        a, b = b, a + b + (10 if b > 2 else 1)
    assert loop.step()[0].item() == a + 100 * b


def test_a_called_rule_takes_what_is_given_and_keeps_the_rest_tunable():
    rule = cached("from adamw import AdamW rule R { hyper lr = 0.5  fast = AdamW(lr = 0.5*lr, g = 2*g)  w' = fast }", "")
    assert [h.name for h in rule.hypers] == ["lr", "fast.beta1", "fast.beta2", "fast.eps", "fast.weight_decay"]
    loop = Loop(rule, VECTOR, lr=0.2, fast__beta1=0.3, fast__weight_decay=0.7)
    mine = AdamW(VECTOR, lr=0.1, beta1=0.3, weight_decay=0.7)
    for _, g in GRADIENTS:
        close(loop.step(g)[0], mine.step(2 * g))
    assert set(loop.cells[0].state) == {"fast.m", "fast.v"}


def test_checkpoint_names_follow_equation_then_callee_then_number():
    rule = cached(ADAM + "rule R { a = Adam()  b = 0*a  w' = b + Adam() + Adam(lr = 0.1) }", "R")
    assert [s.name for s in rule.states] == ["a.m", "a.v", "Adam.m", "Adam.v", "Adam_2.m", "Adam_2.v"]
    assert "Adam_2.lr" not in [h.name for h in rule.hypers]


def test_a_called_rule_may_stand_at_another_point_and_another_step():
    inner = "rule Inner { state s = w  s' = s + w  w' = s' + t }  "
    loop = run(inner + "rule R { w' = Inner(w = 2*w, t = 10*t) }", np.ones(1), name="R")
    assert loop.step()[0].item() == 2 + 2 + 10


def test_rules_in_rules_in_rules():
    text = "rule A { hyper lr = 1  w' = w - lr*g }  rule B { hyper lr = 2  x = A(g = 3*g)  w' = x - lr*g }  rule C { w' = B(lr = 5) }"
    rule = cached(text, "C")
    assert [h.name for h in rule.hypers] == ["B.x.lr"]
    assert Loop(rule, np.zeros(1), B__x__lr=7).step([1.0])[0].item() == -(21 + 5)


# ------------------------------------------------------------------------------- initial values, windows, evaluation


def test_initial_values_read_weights_hypers_and_facts():
    loop = run("rule R { hyper lr = 0.5  state s = lr*w + numel  state n per model = norm(w per model)  s' = s  n' = n  w' = s + n }")
    total = math.sqrt((MATRIX**2).sum() + (VECTOR**2).sum())
    found = loop.step()
    close(found[0], 0.5 * MATRIX + 12 + total)
    close(found[1], 0.5 * VECTOR + 5 + total)
    close(loop.step()[0], found[0])  # they are what they were before step 1


def test_a_window_starts_filled_with_its_value():
    loop = run("rule R { state h[4] per tensor = 1  h' = push(h, t)  w' = sum(h') }", np.zeros(1))
    assert [loop.step()[0].item() for _ in range(5)] == [4, 5, 7, 10, 14]
    empty = run("rule R { state h[4] per tensor = nan  h' = push(h, t)  w' = mean(h') + 100*count(h') }", np.zeros(1))
    assert [empty.step()[0].item() for _ in range(5)] == [101, 201.5, 302, 402.5, 403.5]


@pytest.mark.parametrize(("reduction", "expected"), [("max", 5), ("min", 1), ("sum", 9), ("quantile", 2.0)])
def test_reductions_over_a_window(reduction, expected):
    share = ", 0.25" if reduction == "quantile" else ""
    loop = run(f"rule R {{ state h[9] = nan  h' = push(h, g)  w' = {reduction}(h'{share}) }}", np.zeros(2))
    for g in (3, 1, 5):
        found = loop.step(g * np.ones(2))[0]
    assert found.tolist() == [expected] * 2


def test_a_window_that_is_only_pushed_now_and_then():
    loop = run("rule R { state h[2] per tensor = 0  every 2 { h' = push(h, t) }  w' = sum(h') }", np.zeros(1))
    assert [loop.step()[0].item() for _ in range(6)] == [0, 2, 2, 6, 6, 10]


def test_weights_to_evaluate_with():
    loop = run("rule R { state a = w  w' = w - g  a' = 0.5*a + 0.5*w'  eval = a' }", np.array([4.0]))
    for expected in (3, 1.5):
        loop.step([2.0])
        assert loop.executable.evaluation(loop.taken)[0].item() == expected
    assert loop.weights[0].item() == 0


def test_schedule_free_evaluates_at_an_average_that_is_not_stored():
    file, _ = parser.parse(library.find("schedulefreeadamw"))
    loop = Loop(lower.lower(file, "ScheduleFreeAdamW"), VECTOR, lr=0.1)  # type: ignore[arg-type]
    z = x = VECTOR
    v, total = 0, 0
    for t, (_, g) in enumerate(GRADIENTS, 1):
        v = 0.999 * v + 0.001 * g**2
        z = z - 0.1 * g / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        total += 0.1**2
        x = x + 0.1**2 / total * (z - x)
        close(loop.step(g)[0], 0.9 * x + 0.1 * z)
        close(loop.executable.evaluation(loop.taken)[0], x)
