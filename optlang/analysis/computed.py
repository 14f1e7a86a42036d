"""What is computed for a parameter of which some facts are known: blocks that they decide about have one side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

from optlang import host, ir

Facts = dict[str, int]


def computed_for(program: ir.Program, facts: Facts, hypers: Mapping[str, Any]) -> list[ir.Node]:
    """The expressions that are computed for such a parameter: facts decide blocks, and so do whole numbers and truths that are given."""
    decide = cache(partial(_decide, facts=facts, hypers=hypers))  # many blocks have the same few conditions
    seen: dict[ir.Node, None] = {}
    kept = [s for s in program.states if s.guard is None or decide(s.guard) is not False]
    evaluation = [] if program.evaluation is None else [program.evaluation]
    stack = [program.weights, *evaluation, *(program.updates[s.name] for s in kept), *(s.init for s in kept)]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen[node] = None
        decided = decide(node.args[0]) if node.op == "branch" else None
        stack.extend(node.args if decided is None else [node.args[1] if decided else node.args[2]])
    return list(seen)


def _decide(condition: ir.Node, facts: Facts, hypers: Mapping[str, Any]) -> bool | None:
    leaves = [n for n in ir.walk([condition]) if not n.args]
    if any(n.op not in ("const", "fact") and not (n.op == "hyper" and n.type.kind != "real" and n.value in hypers) for n in leaves):
        return None
    try:
        return bool(host.evaluate(condition, hypers, 1, facts))
    except host.MissingFact:
        return None
