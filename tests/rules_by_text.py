"""Rules from texts, stepped in the reference interpreter, for the tests of the language."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from stepping import Loop, program

_random = np.random.default_rng(20)
MATRIX, VECTOR = _random.normal(size=(4, 3)), _random.normal(size=5)
GRADIENTS = [(_random.normal(size=(4, 3)), _random.normal(size=5)) for _ in range(12)]
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


def drawn(*shape, seed=20):
    """Normal numbers, the same whichever tests were before."""
    return np.random.default_rng(seed).normal(size=shape)


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
