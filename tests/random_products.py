"""Random rules that multiply matrices, as text, well typed: of the parameter and of its transpose, of rows, columns and whole matrices."""

from __future__ import annotations

from hypothesis import strategies as st

HEAD = """
  hyper lr = 1e-2 in (0, inf)
  hyper beta = 0.9 in [0, 1)
  hyper bool flag = true
  state m = 0
  state l[rows, rows] = eye(rows)
  state r[cols, cols] = 0
  state v per row = 1
  state n per matrix = 0.5
  state h[2] = nan
  m' = beta*m + (1 - beta)*g
  l' = 0.9*l + 0.1*(g @ g.T)
  r' = 0.9*r + 0.1*(g.T @ g)
  v' = 0.9*v + mean(g^2 per row)
  n' = 0.9*n + norm(g per matrix)
  h' = push(h, m)
"""
Kind = tuple[str, str]
ELEMENT = ("rows", "cols")
LEAVES: dict[Kind, list[str]] = {
    ELEMENT: ["w", "g", "m", "m'", "g^2", "normal()", "0.5*g", "max(h')", "sum(where(h' < 0.1, h', nan))"],
    ("cols", "rows"): ["g.T", "m.T", "m'.T"],
    ("rows", "rows"): ["l", "l'", "eye(rows)"],
    ("cols", "cols"): ["r", "r'", "eye(cols)"],
}
KINDS = list(LEAVES)
EACH = ["-({})", "abs({})", "({})/(1 + ({})^2)", "where(({0}) < 0.237, {0}, 0.5*({1}))", "({})*lr", "0.25*({})", "({})/(1 + beta^t)"]
BOTH = [
    "({}) + ({})", "({}) - ({})", "({})*({})", "max({}, {})", "where(flag, {0}, {1})", "where(({0}) < ({1}), {1}, {0})", "({0}) - 2*({1})",
]  # fmt: skip
LINED = [
    "mean({} per row)", "norm({} per col)", "max({} per row)", "sum({} per matrix)", "norm({} per matrix)", "mean(abs({}))",
    "max({} per 3)", "v", "v'", "n'",
]  # fmt: skip


@st.composite
def matrices(draw: st.DrawFn, kind: Kind, most: int) -> str:
    """An expression of a kind of matrix, of so many operators at most. Products are kept small, or nothing could be compared."""
    if most <= 0:
        return draw(st.sampled_from(LEAVES[kind]))
    way = draw(st.sampled_from(["each", "both", "product", "product", "line", "turned", "leaf"]))
    rest = most - 1
    if way == "product":
        inner = draw(st.sampled_from(["rows", "cols"]))
        left, right = draw(matrices((kind[0], inner), rest // 2)), draw(matrices((inner, kind[1]), rest // 2))
        return draw(st.sampled_from([f"0.2*(({left}) @ ({right}))", f"(({left}) @ ({right}))/4"]))
    if way == "turned":
        return f"({draw(matrices(kind[::-1], rest))}).T"
    if way == "line" and kind == ELEMENT:
        of, line = draw(matrices(kind, rest // 2)), draw(st.sampled_from(LINED))
        return f"({of})/(1 + abs({line.format(draw(matrices(kind, rest // 2)))}))"
    if way == "both":
        return draw(st.sampled_from(BOTH)).format(draw(matrices(kind, rest // 2)), draw(matrices(kind, rest // 2)))
    if way == "each":
        one = draw(matrices(kind, rest))
        return draw(st.sampled_from(EACH)).format(one, one)
    return draw(st.sampled_from(LEAVES[kind]))


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Its states are averages, so that they can be read anywhere with a prime or without."""
    shared, own = draw(matrices(ELEMENT, 6)), draw(matrices(ELEMENT, 7))
    more = [_of_weights(kind, draw(matrices(kind, 2))) for kind in KINDS] if draw(st.booleans()) else []
    terms = " - 0.01*".join([f"w - lr*(x + {own})", *more])
    return f"rule R {{{HEAD}  x = {shared}\n  w' = {terms}\n}}"


def _of_weights(kind: Kind, one: str) -> str:
    """As many rows and columns as the parameter."""
    turned, left, right = f"({one}).T", f"(({one}) @ g)", f"(g @ ({one}))"
    return {ELEMENT: f"({one})", ("cols", "rows"): turned, ("rows", "rows"): left, ("cols", "cols"): right}[kind]
