"""Known optimizers, written in the language, take the steps of others' code or of their papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rules_by_text import ADAM, GRADIENTS, MATRIX, VECTOR, AdamW, close, drawn, run

pytestmark = pytest.mark.usefixtures("undefined")


# -------------------------------------------------------------------------------------------------- the ten minutes

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
    x = drawn(2, 4, 3)
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
    x = drawn(2, 4, 3)
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
        g = drawn(*x.shape, seed=t)
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
