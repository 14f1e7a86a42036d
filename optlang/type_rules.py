"""The type rules of the operators: from the types of operands to the type of the result.

A rule takes the types and the node's `value` (what that is, the row of the operator says) and raises TypeProblem, with words
for the user, where the operands do not fit. `ops` names one in each of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optlang.types import ELEMENT, HOST, LEVELS, MATRIX, MODEL, Extent, Kind, Type, TypeProblem, broadcasts_to, join_extents


def _join(types: Sequence[Type]) -> Extent:
    extent = HOST
    for type_ in types:
        extent = join_extents(extent, type_.extent)
    return extent


def _window(types: Sequence[Type]) -> int:
    lengths = {t.window for t in types if t.window}
    if len(lengths) > 1:
        raise TypeProblem(f"windows of different lengths: {' and '.join(map(str, sorted(lengths)))}")
    return lengths.pop() if lengths else 0


def _want_numbers(types: Sequence[Type]) -> None:
    if any(t.kind == "bool" for t in types):
        raise TypeProblem("a truth value stands where a number is needed; use `where(c, a, b)`")


def _want_bools(types: Sequence[Type]) -> None:
    if any(t.kind != "bool" for t in types):
        raise TypeProblem("a number stands where a truth value is needed; compare it, as in `x > 0`")


def numeric(types: Sequence[Type], _value: Any = None) -> Type:
    """Numbers in, a number of the joined extent out; int only where every operand is."""
    _want_numbers(types)
    kind: Kind = "int" if all(t.kind == "int" for t in types) else "real"
    return Type(kind, _join(types), _window(types))


def real(types: Sequence[Type], value: Any = None) -> Type:
    return numeric(types, value).of("real")


def comparison(types: Sequence[Type], value: Any = None) -> Type:
    return numeric(types, value).of("bool")


def logic(types: Sequence[Type], _value: Any = None) -> Type:
    _want_bools(types)
    return Type("bool", _join(types), _window(types))


def _alternatives(types: Sequence[Type]) -> Kind:
    kinds = {types[1].kind, types[2].kind}
    if "bool" in kinds and len(kinds) > 1:
        raise TypeProblem("one alternative is a truth value, the other a number")
    return "real" if "real" in kinds else kinds.pop()


def choice(types: Sequence[Type], _value: Any = None) -> Type:
    """`where(c, a, b)`: element by element."""
    _want_bools(types[:1])
    return Type(_alternatives(types), _join(types), _window(types))


def branch(types: Sequence[Type], _value: Any = None) -> Type:
    """`when c { … } else { … }`: one decision per tensor, group or model."""
    _want_bools(types[:1])
    if types[0].extent.level == "array":
        raise TypeProblem(f"the condition of `when` is per {types[0].extent}; choose element by element with `where`")
    return Type(_alternatives(types), _join(types), _window(types[1:]))


def reduction(types: Sequence[Type], value: Any) -> Type:
    """`value` is the extent that remains, or "window" for a reduction over remembered values."""
    _want_numbers(types)
    first = types[0]
    _want_one_number(types[1:], first.extent if value == "window" else value)
    if value == "window":
        if not first.window:
            raise TypeProblem("there is no window to reduce over")
        return Type("real", first.extent)
    if first.window:
        raise TypeProblem("reduce the window first, as in `mean(h)`")
    if first.extent.level == "host":
        raise TypeProblem("this is one number for the whole step already; there is nothing to reduce")
    if value.run and first.extent == ELEMENT:
        return Type("real", value)
    if not _contains(first.extent, value):
        raise TypeProblem(f"a value per {first.extent} cannot be reduced to one per {value}")
    return Type("real", value)


def _want_one_number(types: Sequence[Type], result: Extent) -> None:
    """The share of a quantile is the same for all values that are put in order."""
    for type_ in types:
        if type_.extent.level == "array" or type_.window or type_.extent.rank > result.rank:
            raise TypeProblem(f"the second operand is one number for each result, this is {type_}; reduce it")


def _contains(large: Extent, small: Extent) -> bool:
    if small.level != "array":
        return LEVELS.index(large.level) >= LEVELS.index(small.level)
    return broadcasts_to(small, large)


def pushed(types: Sequence[Type], _value: Any = None) -> Type:
    _want_numbers(types)
    if not types[0].window:
        raise TypeProblem("`push` needs a state with a window, as in `state h[100] = nan`")
    if not broadcasts_to(types[1].extent, types[0].extent):
        raise TypeProblem(f"a value per {types[1].extent} cannot enter a window per {types[0].extent}")
    return types[0]


def _matrix(type_: Type) -> Extent:
    if type_.extent.level != "array" or type_.extent.run or type_.kind == "bool" or type_.window:
        raise TypeProblem(f"a matrix is needed, this is {type_}")
    return type_.extent


def product(types: Sequence[Type], _value: Any = None) -> Type:
    a, b = _matrix(types[0]), _matrix(types[1])
    if a.frame != b.frame and MATRIX not in (a, b):
        raise TypeProblem(f"one side is {a}, the other {b}; bring both into one shape with `as_matrix` or `as_param`")
    if a.cols != b.rows:
        raise TypeProblem(f"{a.rows}×{a.cols} times {b.rows}×{b.cols}: the inner sizes differ; transpose one with `.T`")
    return Type("real", Extent("array", a.rows, b.cols, a.frame))


def transposed(types: Sequence[Type], _value: Any = None) -> Type:
    a = _matrix(types[0])
    return Type(types[0].kind, Extent("array", a.cols, a.rows, a.frame))


def square_matrix(types: Sequence[Type], _value: Any = None) -> Type:
    a = _matrix(types[0])
    if a.rows != a.cols:
        raise TypeProblem(f"a square matrix is needed, this is {a.rows}×{a.cols}")
    return types[0].of("real")


def sorting(types: Sequence[Type], _value: Any = None) -> Type:
    a = _matrix(types[0])
    if a.rows != 1:
        raise TypeProblem(f"one value per column is needed, this is {a.rows}×{a.cols}; reduce it, as in `norm(x per col)`")
    return Type("real", Extent("array", a.cols, a.cols, a.frame))


def tall(types: Sequence[Type], _value: Any = None) -> Type:
    a = _matrix(types[0])
    if isinstance(a.rows, int) and isinstance(a.cols, int) and a.rows < a.cols:
        raise TypeProblem(f"{a.rows}×{a.cols}: the columns are longer than they are many, or they cannot be orthonormal")
    return types[0].of("real")


def flattened(types: Sequence[Type], _value: Any = None) -> Type:
    if _matrix(types[0]) != ELEMENT:
        raise TypeProblem("`as_matrix` takes a value per element of the parameter")
    return Type(types[0].kind, Extent("array", "rows", "cols", "flat"))


def restored(types: Sequence[Type], _value: Any = None) -> Type:
    a = _matrix(types[0])
    if (a.rows, a.cols, a.frame) != ("rows", "cols", "flat"):
        raise TypeProblem("`as_param` undoes `as_matrix`; it takes a value of that shape")
    return Type(types[0].kind, ELEMENT)


def each_of_run(types: Sequence[Type], _value: Any = None) -> Type:
    """A value per run, once for each of its elements."""
    if types[0].window:
        raise TypeProblem(f"this is {types[0]}; reduce the window first, as in `mean(h)`")
    return Type(types[0].kind, ELEMENT)


def at_weights(types: Sequence[Type], _value: Any = None) -> Type:
    """`grad(x)`, `hvp(v)`: something per element in, something per element out."""
    _want_numbers(types)
    if not broadcasts_to(types[0].extent, ELEMENT) or types[0].window:
        raise TypeProblem(f"one value per element of the parameter is needed, this is {types[0]}")
    return Type("real", ELEMENT)


def per_model(types: Sequence[Type], value: Any = None) -> Type:
    """`loss_at(x)`: something per element in, one number per model out."""
    at_weights(types, value)
    return Type("real", MODEL)


def given(_types: Sequence[Type], _value: Any = None) -> Type:
    raise TypeProblem("the type of a leaf is given where it is made")
