"""What C++ kernels touch, counted load by load, beside the bytes and passes that `show --as cost` reports."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch

from optlang import ir
from optlang.analysis.costs import stages, truth_of
from optlang.backends.base import StepError
from optlang.backends.kernels.passes import is_lined
from optlang.bench.footprint import Footprint
from optlang.ir import Program
from optlang.plan import plan
from optlang.rules import Rule
from optlang.runtime import make_optimizer
from optlang.runtime.cases import CompileOptions
from optlang.runtime.facts import facts_of
from optlang.simplify import simplify

from . import together
from .agree import Found
from .training import asks

Touched = tuple[int, int]  # bytes, and passes over elements
SHAPES = ((24,), (8, 16))
COUNTERS = '\nextern "C" { i64 touched[2]; }\n'
DECLARED = 'extern "C" i64 touched[2];\n'
PRAGMA = re.compile(r"^ *#pragma omp .*\n", re.MULTILINE)
PASS = re.compile(r"(static void pass_\d+\([^\n]*\{\n)(.*?)(^\}\n)", re.DOTALL | re.MULTILINE)


def counting(text: str) -> str:
    """A kernel that counts, on one thread and one lane."""
    body = PASS.sub(_counted, PRAGMA.sub("", text.removeprefix(together.PRELUDE)))
    return together.PRELUDE + DECLARED + body


def _counted(found: re.Match[str]) -> str:
    head, body, end = found.groups()
    body = re.sub(r"\bload\((p\d+\[i\])\)", r"(touched[0] += sizeof(\1), load(\1))", body)
    body = re.sub(r"\bstore\((p\d+\[i\]),", r"touched[0] += sizeof(\1), store(\1,", body)
    return f"{head}  const i64 before = touched[0];\n{body}  touched[1] += touched[0] > before;\n{end}"


def counters(library: Any) -> Callable[[], Touched]:
    """What reads the counters, and sets them to 0."""
    held = (ctypes.c_int64 * 2).in_dll(library, "touched")

    def read() -> Touched:
        found = held[0], held[1]
        held[0] = held[1] = 0
        return found

    return read


def compared(rule: Rule, math: Any, matrix: bool, read: Callable[[], Touched | None], steps: int = 2) -> str:
    """What was done, to be counted. Raises Found where kernels touch other than is reported; `read` gives None where none counts."""
    program = rule.program
    if not isinstance(program, Program) or asks(program) or program.inputs:
        return "a route, or asks for more than gradients"
    shape = SHAPES[matrix]
    said = Footprint(plan(simplify(program, math)), shape)
    param = torch.ones(shape).requires_grad_()
    try:
        if said.refused or _has_lines(said):
            return "not for such kernels"
        made: Any = make_optimizer(program, rule.lowered, CompileOptions("cpp", math))([param])
        for t in range(1, steps + 1):
            param.grad = torch.ones(shape)
            read()
            made.step()
            if (found := read()) is not None:
                _agree(said, t, found)
    except (StepError, ValueError, RuntimeError):
        return "not runnable"
    return "compared"


def _has_lines(said: Footprint) -> bool:
    """Whether kernels load by rows, columns or runs, which are not counted here."""
    nodes = ir.walk(node for truth in said.truths for stage in stages(said.plan, truth) for node, _ in stage.results)
    targets = [target for truth in said.truths for stage in stages(said.plan, truth) for _, target in stage.results if target is not None]
    return any(is_lined(node.type.extent) for node in (*nodes, *targets))


def _agree(said: Footprint, t: int, found: Touched) -> None:
    truth = truth_of(said.plan, facts_of(torch.empty(said.shape, device="meta")), t)
    wanted = said.in_a_step(truth)
    if found != wanted:
        touch, report = (f"{moved / prod(said.shape)} bytes of an element in {passes} passes" for moved, passes in (found, wanted))
        raise Found(f"step {t}: kernels touch {touch}, and not {report}")

