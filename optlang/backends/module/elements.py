"""Complex parameters and sparse gradients in generated modules, which a rule takes that steps each element by itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from optlang import ir
from optlang.analysis.computed import computed_for
from optlang.analysis.needs import mixing
from optlang.analysis.zero_gradient import moved, still_without
from optlang.backends.module.layout import Lines, indented
from optlang.backends.module.leaves import Words
from optlang.backends.module.scene import Rolled
from optlang.ir import Program
from optlang.printing.python_text import quoted

Complexes = Literal["all", "without dimensions", ""]
IS_COMPLEX, IS_SPARSE = "if param.is_complex():", "if param.is_leaf and param.grad is not None and param.grad.layout != torch.strided:"
REAL = [IS_COMPLEX, "    param = _as_real(param)  # steps real and imaginary parts"]
TOUCHED = ["put_back = None", "if param.grad.layout == torch.sparse_coo:  # steps the elements that have a gradient",
           "    param, state, put_back = _touched(param, state, group)"]  # fmt: skip
PUT_BACK = ["if put_back is not None:", "    put_back()"]


def mixes(program: Program, rolled: Collection[Rolled]) -> str:
    """Why a rule does not step each element by itself; empty where it does. What it reports is no part of a step."""
    nodes = [program.weights, *program.updates.values(), *(s.init for s in program.states)]
    nodes += [program.evaluation] if program.evaluation is not None else []
    return mixing(ir.walk([*nodes, *(node for one in rolled for node in one.computed)]))


def complexes(program: Program, why_mixed: str) -> Complexes:
    """Which complex parameters a rule takes: their parts, (..., 2), are numbers of their own. Of one without dimensions these are no
    matrix, and only two: a rule may go element by element there alone."""
    if not why_mixed:
        return "all"
    return "" if mixing(computed_for(program, {"rank": 1, "numel": 2}, {})) else "without dimensions"


def refuses_sparse(program: Program, why_mixed: str) -> tuple[str, Sequence[str] | None]:
    """Why a rule refuses sparse gradients, and which settings must be 0 that it does not; None: it always does."""
    if why_mixed:
        return why_mixed, None
    if program.uses("random") or program.inputs:
        return f"has {'a draw' if program.uses('random') else 'an input'} for every element", None
    if what := moved(program, {}):
        return f"changes {what} also where the gradient is 0", still_without(program)
    return "", []


def complex_checks(name: str, why_mixed: str, taken: Complexes) -> Lines:
    """Refuses complex parameters where it is not clear what the rule means."""
    refused = "if param.is_complex() and param.ndim:" if taken else IS_COMPLEX
    lines = [refused, f'    raise ValueError("a parameter is complex, but {name} {why_mixed}: only rules that go element by element "',
             '                     "take real and imaginary parts as numbers of their own; send it to one with a `route`")']  # fmt: skip
    return lines if why_mixed else []


def sparse_checks(name: str, why: str, zeros: Sequence[str] | None, words: Words) -> Lines:
    """Refuses sparse gradients of one parameter; where a rule takes them, those that it cannot take."""
    if zeros is None:
        lines = [f'raise RuntimeError("a parameter has a sparse gradient, and {name} {why}: "',
                 '                   "use a dense one, as with `torch.nn.Embedding(…, sparse=False)`")']  # fmt: skip
        return [IS_SPARSE, *indented(lines)]
    condition = " or ".join(f"{words.setting(zero)} != 0" for zero in zeros)
    lines = [f'why = "{name} {why}" if {condition} else ""'] if zeros else []
    return [IS_SPARSE, *indented([*lines, f"_check_sparse(param, group, {'why' if zeros else quoted('')})"])]
