"""A race from Python: `results = optlang.race("adamw", "lion", "my.opt", task="digits")`.

    results                                    # in a notebook: the table and the curves; `print(results)`: the table
    results.ranking[0].name                    # the best first
    results.ranking[1].behind(results.ranking[0])
    Path("race.json").write_text(results.to_json())
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optlang.race.contest import race as run
from optlang.race.entrants import Entrant, entrant
from optlang.race.results import Results
from optlang.resources import without

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from optlang.backends.base import Math
    from optlang.rules import Rule


def race(
    *rules: str | Path | Rule | type[Optimizer] | Entrant, task: str | Path | type = "digits", seeds: int = 5,
    steps: int | None = None, grid: Sequence[float] | None = None, out: str | Path | None = None, quiet: bool = False,
    backend: str = "auto", math: Math = "safe",
) -> Results:  # fmt: skip
    """Trains the same model from the same start on the same batches with each rule, every step size tuned over the same grid.

    A rule is what `optlang race` takes (`"adamw"`, `"my.opt:Rule"`, `"torch:AdamW"`), the text of a rule, a Rule, or a class of optimizers
    with the settings `params` and `lr`. `task` is a built-in name, the path of a Python file or a class as in examples/my_task.py; `out` a
    folder for the curves and all runs. What is under way goes to standard error, unless `quiet`. Ctrl-C ends the race; what is finished is
    returned.

    Raises RaceError for a race that cannot start, OptError for a wrong rule, ImportError where packages are missing.
    """
    if lacks := without("race", "rich", "matplotlib", "sklearn"):
        raise ImportError(f"optlang.race: {lacks}")
    return run([entrant(rule, backend, math) for rule in rules], task, seeds, steps, grid, out, quiet, shown=False)
