"""What programs mean: text, through parser, lowering and reference interpreter, against NumPy written by hand.

First the programs of the ten-minute introduction, then the decisions of the language, one after the other.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from stepping import Loop, program

from optlang import ir, library, lower, philox
from optlang.backends.base import StepError
from optlang.front import parser

RNG = np.random.default_rng(20)
MATRIX, VECTOR = RNG.normal(size=(4, 3)), RNG.normal(size=5)
GRADIENTS = [(RNG.normal(size=(4, 3)), RNG.normal(size=5)) for _ in range(12)]


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-11, atol=1e-13)


cached = lru_cache(program)


def run(text, *weights, name="", **more):
    """A rule of a text on some parameters (a matrix and a vector where none are given)."""
    return Loop(cached(text, name), *(weights or (MATRIX, VECTOR)), **more)


def expression(text, weights=MATRIX, gradient=None, declared="", **hypers):
    """The value of one expression, spread over a parameter."""
    loop = run(f"rule R {{ {declared} w' = {text} }}", weights, **hypers)
    return loop.step(np.zeros_like(weights) if gradient is None else gradient)[0]


class AdamW:
    """By hand."""

    def __init__(self, weights, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=1e-2):
        self.w, self.lr, self.beta1, self.beta2, self.eps, self.decay = weights, lr, beta1, beta2, eps, weight_decay
        self.m, self.v, self.t = 0, 0, 0

    def step(self, gradient, lr=None):
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2
        u = self.m / (1 - self.beta1**self.t) / (np.sqrt(self.v / (1 - self.beta2**self.t)) + self.eps)
        self.w = self.w - (self.lr if lr is None else lr) * (u + self.decay * self.w)
        return self.w


# -------------------------------------------------------------------------------------------------- the ten minutes

ADAM = """
rule Adam "Kingma & Ba 2015, arXiv:1412.6980" {
  hyper lr    = 1e-3  in (0, inf)  "step size"
  hyper beta1 = 0.9   in [0, 1)    "decay of the gradient mean"
  hyper beta2 = 0.999 in [0, 1)    "decay of the squared-gradient mean"
  hyper eps   = 1e-8  in [0, inf)  "added to the denominator"
  state m = 0
  state v = 0
  m' = beta1*m + (1 - beta1)*g
  v' = beta2*v + (1 - beta2)*g^2
  mh = m' / (1 - beta1^t)
  vh = v' / (1 - beta2^t)
  w' = w - lr * mh / (sqrt(vh) + eps)
}
"""


def test_adam():
    loop = run(ADAM, lr=0.1, beta2=0.9)
    mine = [AdamW(w, 0.1, 0.9, 0.9, weight_decay=0) for w in (MATRIX, VECTOR)]
    for gradients in GRADIENTS:
        found = loop.step(*gradients)
        for one, by_hand, gradient in zip(found, mine, gradients, strict=True):
            close(one, by_hand.step(gradient))
    close(loop.state("m", 1), mine[1].m)
    close(loop.state("v", 1), mine[1].v)


def test_lion():
    loop = run("""
    rule Lion "Chen et al. 2023, arXiv:2302.06675" {
      hyper lr = 1e-4 in (0, inf)   hyper beta1 = 0.9 in [0, 1)   hyper beta2 = 0.99 in [0, 1)   hyper weight_decay = 0 in [0, inf)
      state m = 0
      m' = beta2*m + (1 - beta2)*g
      u  = sign(beta1*m + (1 - beta1)*g)
      w' = w - lr*(u + weight_decay*w)
    }""", VECTOR, lr=0.1, weight_decay=0.5)  # fmt: skip
    w, m = VECTOR, 0
    for _, g in GRADIENTS:
        w = w - 0.1 * (np.sign(0.9 * m + (1 - 0.9) * g) + 0.5 * w)
        m = 0.99 * m + (1 - 0.99) * g
        close(loop.step(g)[0], w)


ORTHOGONALIZE = """
def orthogonalize(x, steps = 5) {
  repeat steps {
    state y = x / (norm(x) + 1e-7)
    a  = y @ y.T
    y' = 3.4445*y + (-4.7750*a + 2.0315*(a @ a)) @ y
  }
  return y
}
"""


def newton_schulz(x, steps=5, extra=1e-7):
    y = x / (np.sqrt((x**2).sum()) + extra)
    for _ in range(steps):
        a = y @ y.T
        y = 3.4445 * y + (-4.7750 * a + 2.0315 * a @ a) @ y
    return y


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_orthogonalize(steps):
    loop = run(ORTHOGONALIZE + f"rule R {{ w' = orthogonalize(g, {steps}) }}", MATRIX)
    close(loop.step(GRADIENTS[0][0])[0], newton_schulz(GRADIENTS[0][0], steps))


def test_muon():
    loop = run("from std import ema\n" + ORTHOGONALIZE + """
    rule Muon {
      hyper lr = 0.02 in (0, inf)   hyper momentum = 0.95 in [0, 1)   hyper weight_decay = 0 in [0, inf)
      state b = 0
      b' = ema(b, g, momentum)
      u  = ema(g, b', 1 - momentum)                       # Nesterov look-ahead
      o  = orthogonalize(u) * sqrt(max(1, rows/cols))
      w' = w - lr*(o + weight_decay*w)
    }""", MATRIX, weight_decay=0.1)  # fmt: skip
    w, b = MATRIX, 0
    for g, _ in GRADIENTS:
        b = 0.95 * b + 0.05 * g
        u = 0.05 * g + 0.95 * b
        w = w - 0.02 * (newton_schulz(u) * math.sqrt(4 / 3) + 0.1 * w)
        close(loop.step(g)[0], w)


def test_the_standard_orthogonalize_turns_tall_matrices_and_takes_each_matrix_of_a_batch():
    x = RNG.normal(size=(2, 4, 3))
    loop = run("from std import orthogonalize rule R { w' = orthogonalize(g) }", np.zeros_like(x))
    found = loop.step(x)[0]
    close(found, [newton_schulz(m.T, extra=0).T for m in x])


CLIPPED = ADAM + """
from std import clip_global, warmup_cosine
rule ClippedAdam {
  hyper lr = 3e-4 in (0, inf)   hyper int warmup = 1000 in [1, inf)   hyper int total = 100000 in [1, inf)
  w' = Adam(g = clip_global(g, 1.0), lr = warmup_cosine(t, lr, warmup, total, 0.1))
}
"""


def test_clipped_adam():
    loop = run(CLIPPED, name="ClippedAdam", lr=0.1, warmup=3, total=10, Adam__beta1=0.5)
    mine = [AdamW(w, beta1=0.5, weight_decay=0) for w in (MATRIX, VECTOR)]
    for t, gradients in enumerate(GRADIENTS, 1):
        scale = min(1, 1 / (math.sqrt(sum((g**2).sum() for g in gradients)) + 1e-6))
        rate = (t - 1) / 3 if t <= 3 else 0.1 + 0.9 * (1 + math.cos(math.pi * min(t - 4, 7) / 7)) / 2
        for one, by_hand, gradient in zip(loop.step(*gradients), mine, gradients, strict=True):
            close(one, by_hand.step(scale * gradient, lr=0.1 * rate))


def test_sam():
    loop = run("""from adamw import AdamW
    rule SAM {
      hyper rho = 0.05 in (0, inf)
      e  = rho * g / (norm(g per model) + 1e-12)
      w' = AdamW(g = grad(w + e))
    }""", rho=0.2)  # fmt: skip

    def gradient(points):
        total = sum((p**2).sum() for p in points)
        return [p * total for p in points]

    mine = [AdamW(MATRIX), AdamW(VECTOR)]
    for _ in range(4):
        at = [m.w for m in mine]
        gradients = gradient(at)
        length = math.sqrt(sum((g**2).sum() for g in gradients)) + 1e-12
        there = gradient([w + 0.2 * g / length for w, g in zip(at, gradients, strict=True)])
        found = loop.step(*gradients, grad=gradient)
        for one, by_hand, g in zip(found, mine, there, strict=True):
            close(one, by_hand.step(g))


def test_sophia():
    loop = run("""from std import ema
    rule SophiaH {
      hyper lr = 1e-4 in (0, inf)   hyper beta1 = 0.965 in [0, 1)   hyper beta2 = 0.99 in [0, 1)
      hyper rho = 0.04 in (0, inf)  hyper weight_decay = 0.1 in [0, inf)   hyper int k = 10 in [1, inf)
      state m = 0
      state h = 0
      m' = ema(m, g, beta1)
      every k from 1 {
        z  = rademacher()
        h' = ema(h, z * hvp(z), beta2)
      }
      u  = clip(m' / max(rho*h', 1e-12), -1, 1)
      w' = w - lr*(u + weight_decay*w)
    }""", VECTOR, lr=0.1, rho=0.5, k=3, beta2=0.5)  # fmt: skip
    diagonal, asked = np.array([3.0, 1, 0.1, 0, -1]), []

    def hvp(vectors):
        asked.append(vectors[0])
        return [diagonal * vectors[0]]

    w, m, h = VECTOR, 0, 0
    for t, (_, g) in enumerate(GRADIENTS, 1):
        m = 0.965 * m + 0.035 * g
        h = 0.5 * h + 0.5 * diagonal if t % 3 == 1 else h  # z*(H z) is the diagonal for every z of ±1
        w = w - 0.1 * (np.clip(m / np.maximum(0.5 * h, 1e-12), -1, 1) + 0.1 * w)
        close(loop.step(g, hvp=hvp)[0], w)
    assert len(asked) == 4
    assert all(set(np.abs(z)) == {1.0} for z in asked)
    assert any(not np.array_equal(asked[0], z) for z in asked[1:])


def test_adafactor():
    x = RNG.normal(size=(2, 4, 3))
    loop = run("""from std import ema
    rule AdafactorMatrix {
      hyper decay = 0.8 in (0, 1]   hyper d = 1.0 in (0, inf)
      state r per row = 0
      state c per col = 0
      b  = 1 - t^(-decay)
      s  = g^2 + 1e-30
      r' = ema(r, mean(s per row), b)
      c' = ema(c, mean(s per col), b)
      v  = r' * c' / mean(r' per matrix)
      u  = g / sqrt(v)
      a  = max(1e-3, rms(w)) * min(1e-2, 1/sqrt(t))
      w' = w - a * u / max(1, rms(u)/d)
    }""", x, d=0.5)  # fmt: skip
    w, r, c = x, 0, 0
    for t in range(1, 6):
        g = RNG.normal(size=x.shape)
        b, s = 1 - t**-0.8, g**2 + 1e-30
        r = b * r + (1 - b) * s.mean(-1, keepdims=True)
        c = b * c + (1 - b) * s.mean(-2, keepdims=True)
        u = g / np.sqrt(r * c / r.mean(-2, keepdims=True))
        a = max(1e-3, np.sqrt((w**2).mean())) * min(1e-2, 1 / math.sqrt(t))
        w = w - a * u / max(1, np.sqrt((u**2).mean()) / 0.5)
        close(loop.step(g)[0], w)
    assert loop.state("r").shape == (2, 4, 1)
    assert loop.state("c").shape == (2, 1, 3)


AUTOCLIP = """
def autoclip(x, q = 0.1, window = 1000) {             # a transform with memory is a function with state
  state h[window] per model = nan
  n  = norm(x per model)
  h' = push(h, n)
  return x * min(1, quantile(h', q) / (n + 1e-6))
}
"""


@pytest.mark.parametrize("where", ["here", "std"])
def test_autoclip(where):
    source = AUTOCLIP if where == "here" else "from std import autoclip\n"
    loop = run(source + "rule R { w' = w - autoclip(g, 0.4, 3) }")
    w, norms = [MATRIX, VECTOR], []
    for gradients in GRADIENTS:
        norms.append(math.sqrt(sum((g**2).sum() for g in gradients)))
        scale = min(1, np.quantile(norms[-3:], 0.4) / (norms[-1] + 1e-6))
        w = [x - scale * g for x, g in zip(w, gradients, strict=True)]
        for one, expected in zip(loop.step(*gradients), w, strict=True):
            close(one, expected)
    close(loop.state("autoclip.h"), norms[-3:])
    assert all(c.state == {} for c in loop.cells)


def test_lookahead():
    loop = run("""from adamw import AdamW
    rule Lookahead {
      hyper int k = 5 in [1, inf)   hyper a = 0.5 in (0, 1]
      state slow = w
      fast = AdamW()
      every k { slow' = slow + a*(fast - slow)   w' = slow' } else { w' = fast }
    }""", VECTOR, k=3, a=0.25, fast__lr=0.1)  # fmt: skip
    fast, slow = AdamW(VECTOR, lr=0.1), VECTOR
    for t, (_, g) in enumerate(GRADIENTS, 1):
        fast.step(g)
        if t % 3 == 0:
            slow = fast.w = slow + 0.25 * (fast.w - slow)
        close(loop.step(g)[0], fast.w)
        close(loop.state("slow"), slow)


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


# ------------------------------------------------------------------------------------------- extents and reductions


def plain(reduction, x, axis):
    return {
        "sum": lambda: x.sum(axis, keepdims=True), "mean": lambda: x.mean(axis, keepdims=True),
        "max": lambda: x.max(axis, keepdims=True), "min": lambda: x.min(axis, keepdims=True),
        "norm": lambda: np.sqrt((x**2).sum(axis, keepdims=True)), "rms": lambda: np.sqrt((x**2).mean(axis, keepdims=True)),
        "var": lambda: x.var(axis, ddof=1, keepdims=True), "std": lambda: x.std(axis, ddof=1, keepdims=True),
        "count": lambda: np.ones_like(x).sum(axis, keepdims=True),
    }[reduction]()  # fmt: skip


AXES = {"per row": -1, "per col": -2, "per matrix": (-2, -1), "": None, "per tensor": None, "per group": None, "per model": None}
REDUCTIONS = ["sum", "mean", "max", "min", "norm", "rms", "var", "std", "count"]


@pytest.mark.parametrize("per", AXES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_at_every_extent(reduction, per):
    x = RNG.normal(size=(2, 4, 3))
    close(expression(f"{reduction}(w {per})", x), np.broadcast_to(plain(reduction, x, AXES[per]), x.shape))


@pytest.mark.parametrize("per", AXES)
def test_dot_and_quantile_at_every_extent(per):
    x, g = RNG.normal(size=(2, 2, 4, 3))
    close(expression(f"dot(w, g {per})", x, g), np.broadcast_to((x * g).sum(AXES[per], keepdims=True), x.shape))
    close(expression(f"quantile(w, 0.3 {per})", x), np.broadcast_to(np.quantile(x, 0.3, AXES[per], keepdims=True), x.shape))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_over_groups_and_the_model(reduction):
    xs = [MATRIX, VECTOR, np.array([2.0, 7.0])]
    for per, parts in (("model", [[0, 1, 2]] * 3), ("group", [[0], [1, 2], [1, 2]])):
        found = run(f"rule R {{ w' = {reduction}(w per {per}) }}", *xs, groups=[0, 4, 4]).step()
        for one, part in zip(found, parts, strict=True):
            together = np.concatenate([xs[i].ravel() for i in part])
            close(one.ravel()[0], plain(reduction, together, None).item())


def test_a_reduction_takes_what_its_operand_has_one_of():
    x = RNG.normal(size=(2, 4, 3))
    rows = x.sum(-1, keepdims=True)
    close(expression("mean(sum(w per row) per matrix)", x), np.broadcast_to(rows.mean(-2, keepdims=True), x.shape))
    close(expression("count(sum(w per row))", x).ravel()[0], 8)
    found = run("rule R { w' = mean(sum(w) per model) }").step()
    close(found[1][0], (MATRIX.sum() + VECTOR.sum()) / 2)
    close(run("rule R { w' = sum(numel per model) }").step()[0][0, 0], 17)


def test_smaller_values_broadcast_to_larger_ones():
    loop = run("""rule R {
      state m per model = 1  state k per group = 1  state r per row = 1  state c per col = 1  state x per matrix = 1  state n per tensor = 1
      m' = m + 1   k' = k + m'   n' = n + k'   x' = x + n'   r' = r + x'   c' = c + x'
      w' = w*r'*c' + n'
    }""", np.ones((2, 2)), np.ones((1, 3)), groups=[0, 1])  # fmt: skip
    found = loop.step()
    k = 1 + 2
    n, x, r = 1 + k, 1 + 1 + k, 1 + 1 + 1 + k
    for one in found:
        assert np.all(one == r * r + n)
    assert (loop.state("m").shape, loop.state("k").shape, loop.state("n").shape) == ((), (), ())
    assert [loop.state(s).shape for s in "rcx"] == [(2, 1), (1, 2), (1, 1)]
    assert loop.state("x")[0, 0] == x
    assert set(loop.taken.model) == {"m"}
    assert all(set(states) == {"k"} for states in loop.taken.groups.values())


def test_model_values_read_the_hypers_that_groups_agree_on():
    text = "rule R { hyper lr = 0.1  state d per model = 0  d' = d + lr*norm(g per model)  w' = w - d' }"
    loop = run(text, groups=[0, 1])
    loop.step(MATRIX, VECTOR)
    close(loop.state("d"), 0.1 * math.sqrt((MATRIX**2).sum() + (VECTOR**2).sum()))
    loop.cells[1].hypers = {"lr": 0.2}
    with pytest.raises(StepError, match=r"`lr`.*same value"):
        loop.step(MATRIX, VECTOR)


# --------------------------------------------------------------------------------------------------------- matrices


def test_matrices_are_the_trailing_two_dimensions():
    x = RNG.normal(size=(2, 3, 4, 3))
    close(expression("w @ w.T @ w", x), x @ np.swapaxes(x, -1, -2) @ x)
    close(expression("(w @ w.T + 0.5*eye(rows)) @ w", x), (x @ np.swapaxes(x, -1, -2) + 0.5 * np.eye(4)) @ x)
    close(expression("w @ (w.T @ w + eye(cols))", x), x @ (np.swapaxes(x, -1, -2) @ x + np.eye(3)))


def test_as_matrix_makes_one_matrix_of_a_convolution():
    x = RNG.normal(size=(4, 3, 2, 2))
    flat = x.reshape(4, 12)
    close(expression("as_param(as_matrix(w)/norm(as_matrix(w) per row))", x),
          (flat / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(x.shape))  # fmt: skip
    close(expression("as_param(as_matrix(w) @ as_matrix(w).T @ as_matrix(w))", x), (flat @ flat.T @ flat).reshape(x.shape))


@pytest.mark.parametrize("text", ["w @ w.T @ w", "mean(w per row)", "w.T", "as_param(as_matrix(w))"])
def test_a_vector_is_no_matrix(text):
    with pytest.raises(StepError, match=r"parameter `p0` has shape \(5,\).*rank 2"):
        expression("sum(w.T)" if text == "w.T" else text, VECTOR)


# ------------------------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(("shape", "length"), [((4, 3, 2, 2), 12), ((5, 6), 10), ((7,), 7), ((13,), 1), ((), 1), ((1, 30), 10)])
def test_values_of_elements_that_follow_each_other(shape, length):
    x = np.array(RNG.normal(size=shape))
    runs = x.reshape(-1, length)
    for text, expected in (
        ("w/(1 + norm(w per 12))", runs / (1 + np.linalg.norm(runs, axis=1, keepdims=True))),
        ("w - mean(w per 12)", runs - runs.mean(1, keepdims=True)),
        ("where(w > quantile(w, 0.3 per 12), max(w per 12), count(w per 12))",
         np.where(runs > np.quantile(runs, 0.3, axis=1, keepdims=True), runs.max(1, keepdims=True), length)),
        ("w*sum(norm(w per 12) per tensor)", runs * np.linalg.norm(runs, axis=1).sum()),
    ):  # fmt: skip
        close(expression(text, x), expected.reshape(shape))


def test_a_state_of_runs_by_a_setting_and_a_function():
    text = """def squares(x, n) = sum(x^2 per n)
    rule R { hyper int k = 3 in [1, 9]  state v per k = mean(w per k)  state h[2] per 2 = 1
      v' = v + squares(g, k)  h' = push(h, norm(v' per model))  w' = w - v' - mean(h') }"""
    w, g = RNG.normal(size=(2, 6)), RNG.normal(size=(2, 6))
    for k in (3, 5):
        length = {3: 3, 5: 4}[k]
        loop = Loop(program(text, k=k), w)
        v = w.reshape(-1, length).mean(1) + (g.reshape(-1, length) ** 2).sum(1)
        close(loop.step(g)[0], (w.reshape(-1, length) - v[:, None]).reshape(w.shape) - (1 + np.linalg.norm(v)) / 2)
        close(loop.state("v"), v[:, None])


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
