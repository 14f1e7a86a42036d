"""The torch backend's functions as one text, for people."""

from __future__ import annotations

from functools import cache

from optlang import ir
from optlang.analysis.costs import EXAMPLES, truth_of
from optlang.backends.cache.programs import simplified
from optlang.backends.outputs import Output
from optlang.backends.torch.code import generate
from optlang.host import MissingFact
from optlang.ir import Program
from optlang.plan import Plan, Truth, plan


def source(what: Program | ir.Routing) -> str:
    """The functions that a step calls, for people to read: those of a matrix and of a vector at their first steps. Raises ValueError
    for a rule that nobody reads."""
    programs = [case.program for case in what.cases] if isinstance(what, ir.Routing) else [what]
    if long := next((program for program in programs if program.unreadable), None):
        raise ValueError(f"{long.name} is not listed: {long.unreadable}; `backend=\"torch\"` runs it")
    return "\n\n".join(_listing(plan(simplified(program, "safe"))) for program in programs)


def _listing(plan: Plan) -> str:
    """Every function of the first ten steps of a matrix and of a vector, each once, with what fills `s`."""
    texts: dict[str, str] = {}
    written = cache(lambda truth: _final(plan, truth))
    for what, facts in EXAMPLES.items():
        for t in range(1, 11):
            try:
                text = written(truth_of(plan, facts, t))
            except MissingFact:
                continue
            texts.setdefault(text, f"# {what}, from step {t} on")
    head = f'"""What the torch backend compiles for {plan.program.name}; the last stage of a step, for one parameter."""\n\nimport torch\n'
    return head + "\n\n" + "\n\n".join(f"{about}\n{text}" for text, about in texts.items())


def _final(plan: Plan, truth: Truth) -> str:
    program = plan.program
    states = [s for s in program.states if s.name not in plan.shared]
    states = [s for s in states if s.guard is None or truth[plan.conditions.index(s.guard)]]
    roots = plan.decided([program.weights, *(program.updates[s.name] for s in states)], truth)
    named = tuple(zip((n for n, _ in program.names), plan.decided([x for _, x in program.names], truth), strict=True))
    code = generate("update", [Output(x, t) for x, t in zip(roots, [ir.W, *(s.node for s in states)], strict=True)], named)
    slots = "\n".join(f"# s[{i}]: {_short(node)}" for i, node in enumerate(code.slots))
    return f"{slots}\n{code.text}" if slots else code.text


def _short(node: ir.Node, levels: int = 8) -> str:
    """A scalar in one line; what lies deeper is left out."""
    if not node.args:
        return "t" if node.op == "t" else str(node.value)
    return f"{node.op}({', '.join(_short(arg, levels - 1) for arg in node.args)})" if levels else "…"
