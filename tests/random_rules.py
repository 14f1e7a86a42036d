"""Random rules as text, well typed, for tests of what rewrites, compares and analyses programs."""

from __future__ import annotations

from hypothesis import strategies as st
from stepping import program

from optlang.ir import Program

HEAD = """
  hyper lr = 1e-2 in (0, inf)
  hyper beta = 0.9 in [0, 1)
  hyper eps = 1e-3 in [0, inf)
  hyper bool flag = true
  state m = 0
  state v = 0
"""
LEAVES = ["w", "g", "m", "v", "m'", "v'", "0", "1", "2", "-1", "0.5", "3", "z", "n"]
SCALARS = ["lr", "beta", "eps", "t", "2", "0.25", "(1 - beta)", "(1 - beta^t)", "(lr*2)", "(1/beta)"]
UNARY = ["-({})", "abs({})", "sqrt({})", "sqrt(abs({}))", "sign({})", "({})^2", "({})*1", "({}) - 0", "-(-({}))", "({})/4", "({})^1"]
BINARY = ["({}) + ({})", "({}) - ({})", "({})*({})", "({})*({})", "({})/({})", "max({}, {})", "min({}, {})"]
CHOICES = ["where(({}) < ({}), {}, {})", "where(flag, {0} + {1}, {2}*{3})", "where(not (({}) > ({})), {}, {})"]


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    scalar = st.sampled_from(SCALARS)
    return st.one_of(
        st.builds(str.format, st.sampled_from(UNARY), inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, inner),
        st.builds(str.format, st.sampled_from(["({})*({})", "({})/({})", "({1})*({0})", "({1})/({0})", "({}) + ({})"]), inner, scalar),
        st.builds(str.format, st.sampled_from(CHOICES), inner, inner, inner, inner),
        st.builds(lambda x, op: f"({x}) {op} ({x})", inner, st.sampled_from(["+", "-", "*", "/"])),
    )


expressions = st.recursive(st.sampled_from(LEAVES), grown, max_leaves=7)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A rule whose states are plain averages, so that `m'` and `v'` can be read anywhere."""
    mean = draw(st.sampled_from(["beta*m + (1 - beta)*g", "m + (1 - beta)*(g - m)", "beta*m + g", "m + 0*g"]))
    square = draw(st.sampled_from(["beta*v + (1 - beta)*g^2", "max(v, abs(g))", "v + g*g"]))
    z, n = draw(expressions_of_leaves), draw(st.sampled_from(["norm(g)", "mean(lr*g)", "sum(-w)", "max(abs(w))"]))
    value = draw(expressions)
    return f"rule R {{{HEAD}  m' = {mean}\n  v' = {square}\n  z = {z}\n  n = {n}\n  w' = {value}\n}}"


expressions_of_leaves = st.sampled_from(["lr*g", "m/(sqrt(v) + eps)", "m'/(1 - beta^t)", "g - 0*m", "w*w", "--g", "g*1"])
rules: st.SearchStrategy[Program] = texts().map(program)
