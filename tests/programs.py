"""Random programs as lists of words, for tests of the parser and the formatter. Syntactically right; they mean nothing."""

from __future__ import annotations

from hypothesis import strategies as st

from optlang.front import syntax as s

NAMES = ["a", "b2", "beta1", "m", "v", "w", "g", "t", "β", "long_name_of_a_thing"]
EXTENTS = ["element", "row", "col", "matrix", "tensor", "group", "model"]
OPERATORS = ["+", "-", "*", "/", "^", "@", "<", "<=", ">", ">=", "==", "!=", "and", "or"]
SEPARATORS = [" ", " ", " ", "  ", "\n", "\n\n", "\n\n\n", "\t", " # a note\n", "\n# on its own\n", "\n\n  #bare\r\n"]

Words = list[str]

names = st.sampled_from(NAMES).map(lambda n: [n])
primed = st.sampled_from(NAMES).map(lambda n: [n + "'"])
numbers = st.sampled_from(["0", "1", "1e-3", "0.999", ".5", "3E+2", "1.1920929e-7"]).map(lambda n: [n])
docs = st.sampled_from([[], ['"step size"'], ['"holds { braces } and # marks"']])


def joined(*parts: st.SearchStrategy[Words] | str) -> st.SearchStrategy[Words]:
    """The words of the parts, one after the other."""
    strategies = [st.just([part]) if isinstance(part, str) else part for part in parts]
    return st.tuples(*strategies).map(lambda found: [word for part in found for word in part])


def separated(item: st.SearchStrategy[Words], least: int = 0, most: int = 3) -> st.SearchStrategy[Words]:
    """Items with commas between them."""
    return st.lists(item, min_size=least, max_size=most).map(lambda found: [w for x in found for w in [",", *x]][1:])


def many(item: st.SearchStrategy[Words], most: int = 4) -> st.SearchStrategy[Words]:
    return st.lists(item, max_size=most).map(lambda found: [word for words in found for word in words])


def maybe(item: st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    return st.one_of(st.just([]), item)


def grown(inner: st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    per = joined("per", st.sampled_from(EXTENTS).map(lambda e: [e]))
    argument = st.one_of(inner, joined(inner, per), joined(names, "=", inner), per)
    closed = st.one_of(joined("(", inner, ")"), joined(names, "(", separated(argument), ")"), names, numbers, primed)
    return st.one_of(
        joined("(", inner, ")"),
        joined("(", inner, st.sampled_from(OPERATORS).map(lambda o: [o]), inner, ")"),
        joined(closed, st.sampled_from(["+", "-", "*", "/", "@", "^"]).map(lambda o: [o]), closed),
        joined("(", st.sampled_from([["-"], ["not"]]), inner, ")"),
        joined("-", closed),
        joined("(", inner, ")", ".T"),
        joined(names, "(", separated(argument), ")"),
    )


expressions = st.recursive(st.one_of(names, primed, numbers), grown, max_leaves=8)
ranges = joined("in", st.sampled_from([["("], ["["]]), numbers, ",", numbers, st.sampled_from([[")"], ["]"]]))
extents = joined("per", st.sampled_from(EXTENTS).map(lambda e: [e]))

hypers = joined("hyper", st.sampled_from([[], ["int"], ["bool"]]), names, "=", expressions, maybe(ranges), docs)
states = joined("state", names, maybe(joined("[", expressions, "]")), maybe(extents), "=", expressions)
equations = joined(st.one_of(names, primed), "=", expressions)
simple = st.one_of(
    equations, equations, hypers, states, joined("input", names, maybe(extents), docs), joined("eval", "=", expressions),
    joined("report", names, "=", expressions), joined("return", expressions),
)  # fmt: skip


def with_blocks(inner: st.SearchStrategy[Words]) -> st.SearchStrategy[Words]:
    block = joined("{", many(inner), "}")
    rest = maybe(joined("else", block))
    return st.one_of(
        inner,
        joined("when", expressions, block, rest),
        joined("every", expressions, maybe(joined("from", expressions)), block, rest),
        joined("repeat", expressions, block),
    )


statements = st.recursive(simple, with_blocks, max_leaves=6)
body = joined("{", many(statements, 6), "}")
calls = joined(names, "(", separated(joined(names, "=", expressions)), ")")
branches = st.one_of(joined("when", expressions, "use", calls), joined("otherwise", "use", calls))
parameters = st.one_of(names, joined(names, "=", expressions))
items = st.one_of(
    joined("rule", names, docs, body),
    joined("def", names, "(", separated(parameters), ")", body),
    joined("def", names, "(", separated(parameters), ")", "=", expressions),
    joined("route", names, docs, "{", many(branches), "}"),
    joined("from", names, "import", separated(names, least=1)),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A program with any white space and any comments between its words."""
    words = draw(many(items, 3))
    gaps = draw(st.lists(st.sampled_from(SEPARATORS), min_size=len(words), max_size=len(words)))
    return "".join(word + gap for word, gap in zip(words, gaps, strict=True))


def bare(node: object) -> object:
    """A tree as nested tuples without its spans, for comparison."""
    if isinstance(node, tuple):
        return tuple(bare(x) for x in node)
    if isinstance(node, s.Call):
        return ("Call", node.func, bare(node.args))
    fields = getattr(node, "__dataclass_fields__", None)
    if fields is None:
        return node
    return (type(node).__name__, *(bare(getattr(node, f)) for f in fields if "span" not in f))
