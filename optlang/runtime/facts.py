"""What is known of a parameter before it is ever stepped: its facts, and what a rule makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch import Tensor

from optlang import ir
from optlang.analysis.computed import Facts, computed_for
from optlang.analysis.needs import mixing
from optlang.ops import MATRIX_OPS
from optlang.runtime.shapes import shape_of


def facts_of(parameter: Tensor) -> Facts:
    """Rank and number of elements; from rank 2 on also rows, cols and the fans. See `ops.FACTS`."""
    shape = tuple(parameter.shape)
    facts = {"rank": len(shape), "numel": prod(shape)}
    if len(shape) >= 2:
        receptive = prod(shape[2:])
        facts |= {"rows": shape[-2], "cols": shape[-1], "fan_in": shape[1] * receptive, "fan_out": shape[0] * receptive}
    return facts


# --------------------------------------------------------------------------------------------------------- ranks


def lacks_rank(program: ir.Program, facts: Facts, hypers: Mapping[str, Any]) -> bool:
    """Whether the program would treat a parameter of rank 0 or 1 as a matrix."""
    if facts["rank"] >= 2:
        return False
    return any(map(ir.of_matrix, computed_for(program, facts, hypers)))


def too_wide(program: ir.Program, shape: tuple[int, ...], facts: Facts, hypers: Mapping[str, Any]) -> tuple[int, int] | None:
    """The sides of a matrix that gets orthonormal columns and has more columns than rows: they cannot be, and would be NaN."""
    if not any(node.op == "orthonormal" for node in ir.walk(program.all_roots())):
        return None
    asked = (node for node in computed_for(program, facts, hypers) if node.op == "orthonormal")
    sides = (shape_of(node.type.extent, shape)[-2:] for node in asked)
    return next(((rows, cols) for rows, cols in sides if rows < cols), None)


def is_matrix_rule(program: ir.Program, facts: Facts, hypers: Mapping[str, Any]) -> bool:
    """Whether such a parameter is multiplied or decomposed as a matrix, more than summed by rows and columns."""
    return any(node.op in MATRIX_OPS for node in computed_for(program, facts, hypers))


def mixes_elements(program: ir.Program, facts: Facts, hypers: Mapping[str, Any]) -> str:
    """Why a program does not step each element of such a parameter by itself; empty where it does."""
    return mixing(computed_for(program, facts, hypers))
