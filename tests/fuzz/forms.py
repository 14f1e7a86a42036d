"""What an expression can be made of: one form for each row of the operator table, each macro, reduction and draw, with its type rule.

A builtin that is added to `optlang.ops` is a form at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from optlang import ir, ops
from optlang.macros import MACROS, Macro
from optlang.types import COL, ELEMENT, EXTENT_OF, GROUP, HOST, MATRIX, MODEL, ROW, TENSOR, Extent, Type, TypeProblem, run_of

Rule = Callable[[tuple[Type, ...]], Type]
WORDS = {**EXTENT_OF, "2": run_of(2), "3": run_of(3)}
REAL = Type("real", ELEMENT)
PLAIN = ("add", "sub", "mul", "mul", "div")  # drawn more often than the rest


@dataclass(frozen=True)
class Form:
    """`template` is filled with operands; `matrices`: for parameters of rank 2 and more alone; `alone`: see `grow.Grown`."""

    name: str
    template: str
    operands: int
    rule: Rule
    matrices: bool = False
    alone: bool = True

    def __hash__(self) -> int:
        return hash(self.template)


def _by_row(row: ops.Op, value: Any = None) -> Rule:
    return lambda types: made(row.name, types, value)


def made(op: str, types: tuple[Type, ...], value: Any = None) -> Type:
    """The type of an operator with such operands. Raises TypeProblem."""
    return ir.make(op, [ir.make("state", (), f"x{i}", t) for i, t in enumerate(types)], value).type


def _by_macro(macro: Macro, extent: Any = None) -> Rule:
    """The type of what a macro expands to."""
    return lambda types: macro.expand(ir, [ir.make("state", (), f"x{i}", t) for i, t in enumerate(types)], extent).type


def _call(name: str, operands: int, per: str = "") -> str:
    return f"{name}({', '.join(['{}'] * operands)}{per})"


def _maps() -> Iterable[Form]:
    for row in ops.ROWS:
        matrices = row.role == "matrix"
        if row.infix is not None:
            yield Form(row.name, f"({{}} {row.infix[0]} {{}})", 2, _by_row(row), matrices)
        elif row.surface and row.operands and row.role in ("map", "select", "matrix", "model"):
            yield Form(row.name, _call(row.name, row.operands), row.operands, _by_row(row), matrices)
    for name, template in (("neg", "(-{})"), ("not", "(not {})"), ("transpose", "{}.T")):
        yield Form(name, template, 1, _by_row(ops.OPS[name]), name == "transpose")
    for macro in MACROS.values():
        if not macro.reduces:
            for count in {macro.operands[0], min(macro.operands[1], 3)}:
                yield Form(macro.name, _call(macro.name, count), count, _by_macro(macro))


def _in_frame(extent: Extent, whole: Extent) -> Extent:
    """As the language reads `per row` of any matrix."""
    if extent.level != "array" or whole.level != "array" or extent.run or whole.run:
        return extent
    return Extent("array", whole.rows if extent.rows != 1 else 1, whole.cols if extent.cols != 1 else 1, whole.frame)


def _reduction(name: str, extent: Extent | None, per: str, matrices: bool) -> Form:
    macro = MACROS.get(ops.REDUCTIONS[name])
    row = ops.OPS.get(ops.REDUCTIONS[name])
    count = macro.operands[0] if macro else row.operands if row else 1

    def rule(types: tuple[Type, ...]) -> Type:
        left = "window" if types[0].window and extent is None else _in_frame(extent or TENSOR, types[0].extent)
        if macro and macro.reduces:
            return _by_macro(macro, left)(types)
        return made(ops.REDUCTIONS[name], types, left)

    return Form(f"{name}{per}", _call(name, count, per), count, rule, matrices, extent != GROUP and not (extent and extent.run))


def _reductions() -> Iterable[Form]:
    for name in ops.REDUCTIONS:
        yield _reduction(name, None, "", False)
        for word, extent in WORDS.items():
            if word != "element":
                yield _reduction(name, extent, f" per {word}", extent in (ROW, COL, MATRIX))


def _draws() -> Iterable[Form]:
    for name in ops.DRAWS:
        for word, extent in WORDS.items():
            yield Form(name, f"{name}(per {word})", 0, lambda types, e=extent: Type("real", e), extent in (ROW, COL, MATRIX), False)  # type: ignore[misc]


def _at_elements(types: tuple[Type, ...]) -> Type:
    if any(type_ != REAL for type_ in types):
        raise TypeProblem("values per element are needed")
    return REAL


def _weighted(types: tuple[Type, ...]) -> Type:
    return ops.OPS["add"].typing([ops.OPS["mul"].typing([Type("real", HOST), type_], None) for type_ in types], None)


def _composed() -> Iterable[Form]:
    """What single forms seldom come to."""
    yield Form("as_param", "as_param(abs(as_matrix({})))", 1, _at_elements, True)
    yield Form("as_param", "as_param((as_matrix({}) @ as_matrix({}).T) @ as_matrix({}))", 3, _at_elements, True)
    yield Form("dense", "dense(table, 2, {}, {})", 2, _weighted)


FORMS: tuple[Form, ...] = (*_maps(), *_reductions(), *_draws(), *list(_composed()) * 3)
OFTEN: tuple[Form, ...] = tuple(form for name in PLAIN for form in FORMS if form.name == name) * 3 + tuple(_maps()) * 2
EVERY: tuple[Form, ...] = OFTEN + FORMS
LEVELS = (HOST, MODEL, GROUP, TENSOR, ELEMENT)


@cache
def typed(form: Form, types: tuple[Type, ...]) -> Type | None:
    """The type of a form with such operands; None where they do not fit."""
    try:
        return form.rule(types)
    except TypeProblem:
        return None


@cache
def fitting(form: Form, known: tuple[Type, ...]) -> tuple[tuple[Type, ...], ...]:
    """The combinations of types that a form takes."""
    return tuple(types for types in product(known, repeat=form.operands) if typed(form, types) is not None)
