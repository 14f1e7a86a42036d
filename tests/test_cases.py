"""Rules that choose, reduce and multiply in different words: what is proved the same, and that nothing is that is not. (60 s)"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import program

from optlang.algebra import Algebra, Cases, TooHard, deadline
from optlang.analysis.nonnegative import nonnegative
from optlang.compare.equivalence import equivalent
from optlang.host import MAPS
from optlang.ir import Node, walk

HYPERS = """hyper lr = 1e-3 in (0, inf)  hyper beta1 = 0.9 in [0, 1)  hyper beta2 = 0.999 in [0, 1)  hyper eps = 1e-8 in [0, inf)
hyper weight_decay = 0.1 in [0, inf)  hyper limit = 1 in (0, inf)  hyper mu = 0.9 in [0, 1)  hyper bool nesterov = false
hyper int warmup = 3 in [1, inf)"""
M = "state m = 0  m' = beta1*m + (1 - beta1)*g  "
V = "state v = 0  v' = beta2*v + (1 - beta2)*g^2  "
SAME = {  # what papers and packages write for the same thing: two updates, or two bodies
    "clipping, either bound first": ("min(limit, max(-limit, g))", "max(-limit, min(limit, g))"),
    "clipping by where": ("clip(g, -limit, limit)", "where(g > limit, limit, where(g < -limit, -limit, g))"),
    "clipping by size and sign": ("clip(g, -limit, limit)", "sign(g)*min(abs(g), limit)"),
    "huber's gradient": ("where(abs(g) <= limit, g, limit*sign(g))", "clip(g, -limit, limit)"),
    "clipping of a norm": ("g*min(1, limit/(norm(g) + 1e-6))", "g/max(1, (norm(g) + 1e-6)/limit)"),
    "clipping of a norm, by when": ("w' = w - lr*g*min(1, limit/(norm(g) + 1e-6))", """n = norm(g) + 1e-6
        when n > limit { u = g*limit/n } else { u = g }  w' = w - lr*u"""),
    "a size as the larger of two": ("g*abs(g)", "g*max(g, -g)"),
    "a size as a product with the sign": ("abs(g)", "g*sign(g)"),
    "a size by where": ("abs(g)", "where(g < 0, -g, g)"),
    "root of the mean square": ("g/(rms(g) + eps)", "g/(norm(g)/sqrt(numel) + eps)"),
    "the same per row": ("g/(rms(g per row) + eps)", "g/(norm(g per row)/sqrt(cols) + eps)"),
    "means as sums": ("g - mean(g per col)", "g - sum(g per col)/rows"),
    "means of means": ("g*mean(mean(g^2 per row))", "g*mean(g^2)"),
    "variance": ("g*mean((g - mean(g))^2)", "g*(mean(g^2) - mean(g)^2)"),
    "variance of a sample": ("g*var(g)", "g*sum((g - mean(g))^2)/(numel - 1)"),
    "the largest, scaled": ("g*max(abs(limit*g))", "g*limit*max(abs(g))"),
    "count": ("g/sqrt(numel)", "g/sqrt(count(g))"),
    "product of signs": (M + "w' = w - lr*sign(m')*sign(g)", M + "w' = w - lr*sign(m'*g)"),
    "sign by where": ("sign(g)", "where(g > 0, 1, where(g < 0, -1, 0))"),
    "sign of what is scaled": ("sign(limit*g)*limit", "limit*sign(g)"),
    "roots of products": (V + "state u = 1  u' = u + g^2  w' = w - lr*g/(sqrt(v')*sqrt(u') + eps)",
                          V + "state u = 1  u' = u + g^2  w' = w - lr*g/(sqrt(v'*u') + eps)"),
    "root of the largest": (V + "state x = 0  x' = max(x, v')  w' = w - lr*g/(sqrt(x') + eps)",
                            V + "state x = 0  x' = max(x, v')  w' = w - lr*g/(max(sqrt(x), sqrt(v')) + eps)"),
    "relu by where": (M + "w' = w - lr*max(m'*g, 0)", M + "w' = w - lr*where(m'*g > 0, m'*g, 0)"),
    "relu by where, the other way": (M + "w' = w - lr*max(m'*g, 0)", M + "w' = w - lr*where(m'*g < 0, 0, m'*g)"),
    "relu by size": ("max(g, 0)", "(g + abs(g))/2"),
    "the larger by size": ("max(g, w)", "(g + w + abs(g - w))/2"),
    "three, the largest": (M + "w' = w - lr*max(m', max(g, w))", M + "w' = w - lr*max(max(w, m'), g)"),
    "the larger, shifted": ("max(2*g, g + w)", "g + max(g, w)"), "the larger of the negated": ("min(-w, -g)", "-max(w, g)"),
    "when around another part": (M + "when nesterov { d = g + mu*m' } else { d = m' }  w' = w - lr*d",
                                 M + "when nesterov { w' = w - lr*(g + mu*m') } else { w' = w - lr*m' }"),
    "when by where": (M + "when nesterov { d = g + mu*m' } else { d = m' }  w' = w - lr*d",
                      M + "w' = w - lr*where(nesterov, g + mu*m', m')"),
    "a mask": (M + "w' = w - lr*m'*where(m'*g > 0, 1, 0)", M + "w' = w - lr*where(sign(m') == sign(g) and g != 0, m', 0)"),
    "Grams": (M + "w' = w - lr*sign(g)*abs(m')", M + "w' = w - lr*m'*sign(g*m')"),
    "size of a product": ("abs(w*g)", "abs(w)*abs(g)"), "size of a quotient": ("abs(g/(1 + abs(w)))", "abs(g)/(1 + abs(w))"),
    "a condition moved": ("where(w - g > 0, g, 0)", "where(2*w > 2*g, g, 0)"),
    "a condition squared": ("where(sum(g^2) > limit^2, g, 0)", "where(norm(g) > limit, g, 0)"),
    "both, one after the other": ("where(g > 0 and w > 0, g, 0)", "where(g > 0, where(w > 0, g, 0), 0)"),
    "neither": ("where(not (g < 0 or w < 0), g, 0)", "where(not (g < 0) and not (w < 0), g, 0)"),
    "warm-up": ("min(1, t/warmup)*g", "where(t < warmup, t/warmup, 1)*g"), "the first step": ("where(t == 1, g, w)", "where(t <= 1, g, w)"),
    "what a range tells": ("max(lr, 0)*g", "lr*abs(1 + limit)*g/(1 + limit)"), "always": ("where(t >= 1, g, 2*g)", "g"),
    "the next power": (M + "w' = w - lr*m'/(1 - beta1^(t + 1))", M + "w' = w - lr*m'/(1 - beta1*beta1^t)"),
    "functions by others": ("log1p(abs(g))*exp2(-t)", "log(1 + abs(g))*2^(-t)"), "a sigmoid": ("1/(1 + exp(-g))", "(1 + tanh(g/2))/2"),
    "an odd root": ("cbrt(g)", "sign(g)*abs(g)^(1/3)"),
    "products of matrices": ("(g @ g.T) @ g", "(g.T @ (g @ g.T).T).T"),
    "sums of products": ("(limit*(g @ g.T) + 2*(w @ w.T)) @ g", "limit*(g @ (g.T @ g)) + 2*(w @ (w.T @ g))"),
    "sums over choices": ("g/(mean(max(g, 0)) + limit)", "g/(sum(where(g > 0, g, 0))/numel + limit)"),
}  # fmt: skip
OTHERWISE = {  # alike, and not the same: some where nothing was found in any run, which stay open
    "bounds the wrong way round": ("min(-limit, max(limit, g))", "max(limit, min(-limit, g))", "different"),
    "decay before and after": (M + "w' = (w - lr*m')*(1 - lr*weight_decay)", M + "w' = w*(1 - lr*weight_decay) - lr*m'", "different"),
    "a power by a product, which parts when beta2 changes": (
        V + "w' = w - lr*g/(sqrt(v'/(1 - beta2^t)) + eps)",
        V + "state p per tensor = 1  p' = p*beta2  w' = w - lr*g/(sqrt(v'/(1 - p')) + eps)", "different"),
    "a condition on others": ("where(w > 0, mean(abs(g)), 0)", "where(w > 0, mean(g*sign(w)), 0)", "different"),
    "a guard of a norm that is zero": ("g/norm(g)", "where(norm(g) == 0, 100, g/norm(g))", "open"),
    "another guard": ("where(norm(g) > limit, limit/norm(g), 1)*g", "min(1, limit/norm(g))*g", "open"),
    "a condition that no run meets": ("where(norm(g) > 1e12, 0, g)", "g", "open"),
    "where this element is positive, so are not all": ("where(g > 0, mean(abs(g)), 1)", "where(g > 0, mean(g), 1)", "different"),
    "ranks of zero": ("where(rank >= 1, g, 0)", "g", "open"), "no step size": ("w' = w - where(lr > 0, g, 0)", "w' = w - g", "open"),
}  # fmt: skip


def rule(text: str) -> str:
    return f"rule R {{ {HYPERS}  {text if '=' in text and 'w' + chr(39) in text else f'w{chr(39)} = w - lr*({text})'} }}"


@pytest.mark.parametrize("name", SAME)
def test_the_same_in_other_words(name: str) -> None:
    verdict = equivalent(*(program(rule(text)) for text in SAME[name]))
    assert verdict.status == "same", verdict.to_text()


@pytest.mark.parametrize("name", OTHERWISE)
def test_alike_and_not_the_same(name: str) -> None:
    one, other, status = OTHERWISE[name]
    verdict = equivalent(program(rule(one)), program(rule(other)))
    assert verdict.status == status, verdict.to_text()


# ------------------------------------------------------------------------------------- never "same" where they are not

LEAVES = ["w", "g", "lr", "mu", "t", "0", "1", "2"]
VALUES = {  # every combination of these
    "w": [-3, -1, -0.5, 0, 0.5, 1, 2], "g": [-3, -1, -0.5, 0, 0.5, 1, 2], "lr": [0, 0.1, 1, 2], "mu": [0, 0.25, 0.9], "t": [1, 2, 7],
}  # fmt: skip


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    forms = ["({} + {})", "({} - {})", "({}*{})", "({}/{})", "max({}, {})", "min({}, {})", "abs({})", "sign({})", "sqrt(abs({}))", "({})^2"]
    choices = ["where({} < {}, {}, {})", "where({} >= {}, {}, {})", "where({} == {}, {}, {})", "where(not ({} <= {}), {}, {})"]
    return st.builds(lambda form, *args: form.format(*args), st.sampled_from(forms + choices), inner, inner, inner, inner)


@st.composite
def alike(draw: st.DrawFn) -> tuple[str, str]:
    """Two expressions that may be the same: by a law that holds, or one that does not always."""
    trees = st.recursive(st.sampled_from(LEAVES), grown, max_leaves=4)
    x, y, z = draw(trees), draw(st.sampled_from(LEAVES)), draw(st.sampled_from(LEAVES))
    laws = [
        (f"max({x}, -({x}))", f"abs({x})"), (f"sign({x})*sign({y})", f"sign(({x})*{y})"), (f"where({x} > 0, {x}, 0)", f"max(0, {x})"),
        (f"({x} + abs({x}))/2", f"max(0, {x})"), (f"max({x}, min({y}, {z}))", f"min(max({x}, {y}), max({x}, {z}))"),
        (f"max({x}, min({y}, {z}))", f"min({y}, max({x}, {z}))"), (f"where({x} < {y}, {x}, {y})", f"min({y}, {x})"),
        (f"sqrt(({x})^2)", x), (f"where({x} != 0, {x}/{y}, 0)", f"{x}/{y}"), (x, draw(trees)), (f"abs({x})*abs({y})", f"abs(({x})*{y})"),
    ]  # fmt: skip
    return draw(st.sampled_from(laws))


def value(root: Node) -> np.ndarray:
    points = dict(zip(VALUES, np.array(list(itertools.product(*VALUES.values())), dtype=np.float64).T, strict=True))
    table: dict[Node, np.ndarray] = {}
    for node in walk([root]):
        if node.op == "const":
            table[node] = np.asarray(node.value)
        else:
            table[node] = MAPS[node.op](*(table[arg] for arg in node.args)) if node.args else points[node.value or node.op]
    return table[root]


@settings(max_examples=80, deadline=None)
@given(alike())
def test_what_is_proved_is_so_at_every_point(pair: tuple[str, str]) -> None:
    a, b = (program(rule(text)) for text in pair)
    algebra = Algebra({h.name: h for h in a.hypers}, nonnegative(a, [b.weights]))
    try:
        with deadline(2):
            same = Cases(algebra).same(a.weights, b.weights)
    except TooHard:
        return
    if same:
        with np.errstate(all="ignore"):
            x, y = np.broadcast_arrays(value(a.weights), value(b.weights))
            both = np.isfinite(x) & np.isfinite(y)
            np.testing.assert_allclose(y[both], x[both], rtol=1e-9, atol=1e-9)
