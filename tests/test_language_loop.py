"""What the training loop supplies to rules, and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rules_by_text import MATRIX, VECTOR, cached, close, expression, run
from stepping import Loop

from optlang import ir, philox
from optlang.backends.base import StepError

pytestmark = pytest.mark.usefixtures("undefined")


# --------------------------------------------------------------------------------------------- what the loop supplies


def test_the_gradient_at_the_weights_is_free():
    assert run("rule R { w' = grad(w) }", np.zeros(2)).step([3.0, 4.0])[0].tolist() == [3, 4]


def test_gradients_of_gradients():
    def grad(points):
        return [2 * p for p in points]

    found = run("rule R { a = grad(w + 1)  w' = grad(a) + a }", np.ones(1)).step([0.0], grad=grad)
    assert found[0].item() == 8 + 4


def test_a_missing_closure_is_said():
    with pytest.raises(StepError, match=r"needs gradients at other points; call `optimizer.step\(closure\)`"):
        run("rule R { w' = grad(w + 1) }", np.ones(1)).step()


def test_loss_inputs_and_reports():
    loop = run("""rule R {
      input variance per tensor   input horizon per model   report size = norm(g per model)
      w' = loss*variance + horizon
    }""")  # fmt: skip
    for c, variance in zip(loop.cells, (2.0, 3.0), strict=True):
        c.inputs = {"variance": variance}
    found = loop.step(MATRIX, VECTOR, loss=10.0, inputs={"horizon": 7})
    assert [x.ravel()[0] for x in found] == [27, 37]
    close(loop.taken.reports["size"], math.sqrt((MATRIX**2).sum() + (VECTOR**2).sum()))


def test_an_input_per_element():
    loop = run("rule R { input x  w' = w*x }", VECTOR)
    loop.cells[0].inputs = {"x": VECTOR}
    close(loop.step()[0], VECTOR**2)


# ------------------------------------------------------------------------------------------------------------ draws


def test_a_named_draw_is_one_draw_and_each_written_one_its_own():
    assert np.all(expression("z - z", VECTOR, declared="z = normal()") == 0)
    assert np.all(expression("normal() - normal()", VECTOR) != 0)


def test_each_call_of_a_function_draws_anew():
    loop = run("def noise() = normal()   rule R { w' = noise() - noise() }", VECTOR)
    assert np.all(loop.step()[0] != 0)


def test_draws_change_with_step_parameter_and_seed_and_come_again_after_a_resume():
    text = "rule R { w' = uniform() }"
    loop = run(text, VECTOR, VECTOR)
    first, second = loop.step(), loop.step()
    assert not np.any(first[0] == first[1])
    assert not np.any(first[0] == second[0])
    assert not np.any(run(text, VECTOR, VECTOR, seed=1).step()[0] == first[0])
    resumed = run(text, VECTOR, VECTOR)
    for c in resumed.cells:
        c.t = 1
    assert np.array_equal(resumed.step()[0], second[0])


def test_draws_at_every_extent():
    rule = cached("rule R { w' = normal(per row) + 10*normal(per model) + 100*exponential(per tensor) + 1000*rademacher() }", "")
    sites = {n.value[0] + str(n.type.extent): n.value[1] for n in ir.walk([rule.weights]) if n.op == "random"}
    found = Loop(rule, np.zeros((4, 3)), seed=3).step()[0]
    row, model = (philox.draw("normal", s, 1, sites[k], 3, i) for s, k, i in (((4, 1), "normalrow", 0), ((), "normalmodel", 2**32 - 1)))
    tensor = philox.draw("exponential", (), 1, sites["exponentialtensor"], 3, 0)
    sign = philox.draw("rademacher", (4, 3), 1, sites["rademacherelement"], 3, 0)
    close(found, row + 10 * model + 100 * tensor + 1000 * sign)


def test_draws_do_not_move_when_another_equation_is_added():
    first = run("rule R { z = normal()  w' = z }", VECTOR).step()[0]
    second = run("rule R { a = uniform()  z = normal()  w' = z + 0*a }", VECTOR).step()[0]
    close(first, second)
