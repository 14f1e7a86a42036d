"""The costs of a rule in words, as `show --as cost` prints them: by format of state, with passes and launches."""

from __future__ import annotations

from textwrap import indent

from optlang.backends.base import StepError
from optlang.backends.formats import STATE_FORMATS
from optlang.bench.footprint import STEPS, Footprint
from optlang.plan import Plan
from optlang.printing import columns

SHAPES = {"a matrix": (1024, 1024), "a vector": (1024,)}


def table(plan: Plan) -> str:
    """The costs of a rule for people: by format of state, for a matrix and, where it differs, for a vector."""
    texts: dict[str, list[str]] = {}
    reasons = []
    for what, shape in SHAPES.items():
        try:
            texts.setdefault(_of_shape(plan, shape), []).append(f"{what} {'×'.join(map(str, shape))}")
        except StepError as problem:
            reasons.append(str(problem))
    found = [f"for {' and '.join(whats)}, bytes per element (weights and gradient float32)\n{text}" for text, whats in texts.items()]
    return "\n\n".join([*found, *reasons])


def _of_shape(plan: Plan, shape: tuple[int, ...]) -> str:
    plain = Footprint(plan, shape)
    if not plain.floor:
        return f"  none of the first {STEPS:,} steps reads or writes anything; {plain.kept:.2f} are kept"
    rows = [("state", "kept", "floor", "moved", "of fp32")]
    for form in STATE_FORMATS:
        one = plain.of(form)
        moved = "?" if one.refused else f"{one.moved:.2f}"
        rows.append((form, f"{one.kept:.2f}", f"{one.floor:.2f}", moved, f"{one.floor / plain.floor:.2f}"))
    rows = rows[:2] if all(row[1:] == rows[1][1:] for row in rows[1:]) else rows
    return indent("\n".join([*columns(rows, numbers=True), f"{_way(plain)}; {_steps(plain)}"]), "  ")


def _way(one: Footprint) -> str:
    if one.refused:
        return f"torch computes it: the rule {one.refused}, for which C++ and Triton have no kernels"
    less = f" ({one.moved_by_cpp:.2f} bytes moved by C++)" if one.passes > 1 and one.moved_by_cpp != one.moved else ""
    launches = f"{_counted(one.launches, 'launch', 'es')} of Triton for a whole model"
    return f"{_counted(one.passes, 'pass', 'es')} over each parameter{less}, {launches}"


def _counted(count: float, what: str, plural: str) -> str:
    return f"{count:g} {what}{plural * (count != 1)}"


def _steps(one: Footprint) -> str:
    kinds = len(one.truths)
    return f"{kinds} kinds of step, the figures are the mean of the first {STEPS:,}" if kinds > 1 else "every step does the same"
