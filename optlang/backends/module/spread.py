"""Parameters that are not all here, in generated modules. What several processes hold parts of is stepped by torch's DTensors, gathered,
or refused; tools that give an optimizer less than its rule needs are refused as the loaded rule does."""

from __future__ import annotations

from optlang import ir
from optlang.backends.module.layout import Lines, indented
from optlang.backends.module.scene import Role
from optlang.ir import Program
from optlang.ops import CALLS, MATRIX_OPS
from optlang.printing.python_text import quoted
from optlang.types import needs_matrix

WITHOUT_CASTS = "_without_autocast()"
ORDERED = ("quantile", "amax", "amin")  # the largest and smallest of a part without elements are an error to torch


def needs_whole(program: Program) -> bool:
    """Whether torch's operators on DTensors would not compute what the rule says, or nothing at all."""
    nodes = ir.walk(program.all_roots())
    windows = any(s.type.window and s.type.extent.level not in ("group", "model") for s in program.states)
    ordered = any(n.op in ORDERED and n.value != "window" for n in nodes)
    return windows or ordered or any(n.op in ("random", *MATRIX_OPS) or needs_matrix(n.type.extent) or n.type.extent.run for n in nodes)


def refuses_parts(program: Program, role: Role) -> str:
    """Why a module does not step parts of parameters; empty where it does."""
    if program.uses("hvp"):
        return "takes products with the Hessian"
    if not needs_whole(program):
        return ""
    if role == "looking around" or program.uses("loss") or any(program.uses(op) for op in CALLS):
        return "asks the model or looks at other parameters with whole ones"
    if program.evaluation is not None:
        return "makes the weights to evaluate with of whole ones"
    return "takes inputs of whole ones" if program.inputs else ""


def in_surroundings(program: Program, role: Role, body: Lines, groups: str) -> Lines:
    """The statements of a step: where they need it on gathered parameters, and without casts, which a route switches off itself."""
    around = [WITHOUT_CASTS] * (role == "alone" and multiplies(program))
    around += [f"_whole_parameters(self, {groups})"] * (needs_whole(program) and not refuses_parts(program, role))
    return [f"with {', '.join(around)}:", *indented(body)] if around else body


def multiplies(program: Program) -> bool:
    """Whether `torch.autocast` would round what a step computes: products of matrices alone."""
    return program.uses("matmul")


def part_checks(program: Program, role: Role) -> Lines:
    """Refuses parts, for one parameter."""
    why = refuses_parts(program, role)
    lines = ['if hasattr(param, "device_mesh"):', f'    raise ValueError("parts of parameters on several processes: this file {why}; "',
             '                     "the loaded rule takes parts")']  # fmt: skip
    return lines if why else []


def all_there(name: str, why: str) -> Lines:
    """Refuses tools that make an optimizer of some parameters, where a rule needs all."""
    return [f"_check_all_there({quoted(name)}, {quoted(why)})"] if why else []


def shape_checks(name: str, why: str) -> Lines:
    """Refuses parameters without their shapes, where a rule needs these."""
    return [f"_check_shape(param, {quoted(name)}, {quoted(why)})"] if why else []


def row_checks(name: str, why: str) -> Lines:
    """Refuses rows in the place of parameters, where a rule needs their shapes."""
    return [f"_check_rows(self, {quoted(name)}, {quoted(why)})"] if why else []
