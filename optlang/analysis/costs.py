"""What one step of a plan moves, stage by stage: the floor that every backend is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from optlang import ir
from optlang.host import HostScalars, MissingFact
from optlang.ir import Node
from optlang.ops import CALLS
from optlang.plan import Barrier, Plan, Truth
from optlang.types import BYTES, WORD_OF, Type

EXAMPLES = {
    "a matrix": {"rank": 2, "rows": 64, "cols": 32, "numel": 2048, "fan_in": 32, "fan_out": 64},
    "a vector": {"rank": 1, "numel": 64},
}


def truth_of(plan: Plan, facts: dict[str, int], t: int) -> Truth:
    """The conditions of a plan for a parameter with such facts at a step, hypers at their defaults."""
    return next(truths_of(plan, facts, [t]))


def truths_of(plan: Plan, facts: dict[str, int], steps: Iterable[int]) -> Iterator[Truth]:
    """The same for several steps."""
    hypers = {h.name: h.default for h in plan.program.hypers}
    together = HostScalars(plan.conditions)
    conditions = [HostScalars([condition]) for condition in plan.conditions]
    for t in steps:
        try:
            yield tuple(map(bool, together(hypers, t, facts)))
        except MissingFact:
            yield tuple(_told(condition, hypers, t, facts) for condition in conditions)


def _told(condition: HostScalars, hypers: dict[str, Any], t: int, facts: dict[str, int]) -> bool | None:
    try:
        return bool(condition(hypers, t, facts)[0])
    except MissingFact:
        return None


def describe(plan: Plan) -> str:
    """The stages of the first step, for a matrix and, where it differs, for a vector."""
    texts: dict[str, list[str]] = {}
    for what, facts in EXAMPLES.items():
        truth = truth_of(plan, facts, 1)
        if facts["rank"] >= 2 or not _needs_matrix(plan, truth):
            texts.setdefault(_stages(plan, truth), []).append(what)
    return "\n\n".join(f"step 1 of {' and of '.join(whats)}\n{text}" for text, whats in texts.items())


def _needs_matrix(plan: Plan, truth: Truth) -> bool:
    """Whether what a truth leaves of a program treats the parameter as a matrix."""
    roots = plan.decided([plan.program.weights, *_updates(plan, truth).values()], truth)
    marked = [arg for level in plan.levels(roots, [truth]) for b in level for arg in plan.decided(b.args, truth)]
    return any(map(ir.of_matrix, ir.walk([*roots, *marked])))


def _updates(plan: Plan, truth: Truth) -> dict[ir.State, Node]:
    """The states that such a parameter has, with their new values."""
    states = [s for s in plan.program.states if s.guard is None or truth[plan.conditions.index(s.guard)]]
    return {s: plan.program.updates[s.name] for s in states}


@dataclass(frozen=True)
class Stage:
    """`results`: what is computed, each with the leaf that it is written into, or None for what the barriers behind it take."""

    results: tuple[tuple[Node, Node | None], ...]
    barriers: tuple[Barrier, ...] = ()


def stages(plan: Plan, truth: Truth) -> list[Stage]:
    """What a step computes for one parameter, in order; the last stage writes."""
    program = plan.program
    states = _updates(plan, truth)
    roots = plan.decided([program.weights, *states.values()], truth)
    shared = list((program.reports or {}).values())
    found = []
    for level in plan.levels([*roots, *shared], [truth]):
        args = plan.decided([b.asked for b in level if b.asked is not None], truth)
        found.append(Stage(tuple((arg, None) for arg in args), tuple(level)))
    pairs = zip(roots, [ir.W, *(s.node for s in states)], strict=True)
    return [*found, Stage(tuple((root, target) for root, target in pairs if root is not target))]


def _stages(plan: Plan, truth: Truth) -> str:
    *before, last = stages(plan, truth)
    lines = []
    for number, stage in enumerate(before):
        what = ", ".join(dict.fromkeys(_named(b.op, b.mark.type) for b in stage.barriers))
        lines.append(f"  stage {number + 1}  {_moved([node for node, _ in stage.results], [])}  then {what}")
    moved = _moved([node for node, _ in last.results], [target for _, target in last.results if target is not None])
    lines.append(f"  {'stage ' + str(len(lines) + 1) if lines else 'one stage'}  {moved}")
    return "\n".join(lines)


def _named(op: str, type_: Type) -> str:
    if op in CALLS:
        return {"grad": "the gradient at another point", "hvp": "a product with the Hessian", "loss_at": "the loss at another point"}[op]
    return f"{op} per {type_.extent}"


def _moved(roots: Iterable[Node], written: list[Node]) -> str:
    """What is read and written, with the bytes for each element of the parameter."""
    read = [n for n in ir.walk(roots) if n.op in ("w", "g", "state", "input") and n.type.extent.level == "array"]
    per_element = sum(BYTES["real"] * max(n.type.window, 1) for n in [*read, *written] if _is_full(n))
    names = f"reads {_names(read)}" + (f", writes {_names(written)}" if written else "")
    return f"{names}: {per_element} bytes per element"


def _is_full(node: Node) -> bool:
    extent = node.type.extent
    return extent.level == "array" and WORD_OF.get((extent.rows, extent.cols)) == "element"


def _names(nodes: list[Node]) -> str:
    return " ".join(sorted({_name(n) for n in nodes})) or "nothing"


def _name(node: Node) -> str:
    if node.op == "input" and str(node.value).startswith("barrier "):
        return "answer"  # of the model, asked at another point
    return node.op if node.value is None else str(node.value)
