"""The same rule for less work: rewrite rules, constants, shared expressions, states that nothing reads.

`simplify` returns a program that takes the same steps. `safe` rewrites a tensor expression only where the accuracy guard
finds the new form no worse; infinities and NaN then appear where they did. `strict` makes exact rewrites only: float32
results keep every bit. `fast` takes what holds for real numbers, as `x*0 → 0`, and infinities and NaN may vanish or move.
Draws are neither merged nor repeated, and no gradient or Hessian product is taken more often.
"""

from __future__ import annotations

from dataclasses import replace

from optlang.analysis.live_states import without_dead
from optlang.ir import Program, walk
from optlang.simplify.forms import better_forms
from optlang.simplify.report import Report, report
from optlang.simplify.rewriting import Judge, rewritten

__all__ = ["Report", "report", "simplify"]


def simplify(program: Program, math: str = "safe") -> Program:
    """The program in its cheapest form that `math` ("safe", "strict" or "fast") allows. Raises ValueError for other words.

    States that nothing in the program as written depends on are dropped, whatever `math` is, and all others stay, with
    their names: so checkpoints do not depend on `math`. The runtime drops the same ones (`live_states.without_dead`) for every
    backend. A checkpoint with such a state may be loaded without it, for no other value was made from it.
    """
    if math not in ("safe", "strict", "fast"):
        raise ValueError(f"math is 'safe', 'strict' or 'fast', not {math!r}")
    judge = Judge(program, math)
    found = rewritten(without_dead(program), judge)
    if (formed := better_forms(found, judge)) is not found:
        found = rewritten(formed, judge)
    computed = set(walk(found.roots()))
    names, inner = (tuple((name, node) for name, node in some if node in computed) for some in (found.names, found.inner))
    return replace(found, names=names, inner=inner)
