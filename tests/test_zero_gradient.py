"""What a step moves where the gradient is 0. (1 s)"""

from __future__ import annotations

import pytest
from stepping import program

from optlang.analysis.zero_gradient import moved

STILL = {
    "w' = w - lr*g": "",
    "w' = lr*g + w": "",
    "w' = w - lr*sign(sqrt(g))": "",
    "w' = w - g/(abs(w) + 1)": "",
    "w' = w - where(t > 3, g, 2*g)": "",
    "w' = w - where(flag, g, w)": "the weights",
    "w' = w - where(2 > 1, g, w)": "",
    "w' = w - lr*cos(g)": "the weights",
    "w' = w - lr*max(g, 1)": "the weights",
    "w' = w - lr*sum(g)": "the weights",
    "state m = 0  m' = m + g  w' = w - g": "",
    "state m = 0  m' = 0.9*m + g  w' = w - g": "the state `m`",
}


@pytest.mark.parametrize("equations", STILL)
def test_what_moves_without_a_gradient(equations: str) -> None:
    made = program(f"rule R {{ hyper lr = 0.1 in (0, inf) hyper bool flag = true {equations} }}")
    assert moved(made, {}) == STILL[equations]


@pytest.mark.parametrize(("flag", "told"), [(True, ""), (False, "the weights")])
def test_settings_decide(flag: bool, told: str) -> None:
    made = program("rule R { hyper bool flag = true w' = w - where(flag, g, w) }")
    assert moved(made, {"flag": flag}) == told
