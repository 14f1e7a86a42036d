"""`optlang race`: its options, and what it does with them. Importing this is quick; racing imports torch."""

from __future__ import annotations

import argparse
import sys

from optlang.backends import NAMES as BACKENDS
from optlang.race import names
from optlang.resources import without

ABOUT = f"""\
Trains the same model from the same start on the same batches with each rule, and says which does best.

  optlang race adamw lion my.opt                    three rules on handwritten digits
  optlang race my.opt:Fast my.opt:Slow --seeds 10   two rules of one file, ten final runs each
  optlang race adamw torch:AdamW --task chars       a yardstick from torch.optim, on a small transformer
  optlang race my.opt --task my_task.py             your own task (see examples/my_task.py)

The step size of every rule is tuned over the same grid, and beyond it where the best lies at its edge. Final runs start from
other seeds and are judged on held-out data. The table, the learning curves (PNG) and every run (JSON) go to --out.
Ctrl-C ends the race; what is finished is kept. Exit codes: 0, 1 when a rule failed, 2 when nothing could start.

{names.table()}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang race`."""
    parser.add_argument("rules", nargs="+", metavar="RULE", help="a library name, FILE.opt, FILE.opt:Rule, or torch:AdamW")
    parser.add_argument("--task", default="digits", help="one of those above, or a Python file; default: digits")
    parser.add_argument("--seeds", type=int, default=5, help="final runs of every rule; default: 5")
    parser.add_argument("--steps", type=int, help="training steps of a run; default: the task's own")
    parser.add_argument("--grid", type=float, nargs="+", metavar="LR", help="step sizes to tune over; default: 1e-4 to 1 by half decades")
    parser.add_argument("--out", default="race-results", metavar="FOLDER", help="for PNG and JSON; default: race-results")
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="default: auto")
    parser.add_argument("--math", default="safe", choices=["safe", "strict", "fast"], help="default: safe")
    parser.add_argument("--quiet", action="store_true", help="print nothing, write the files only")


def run(arguments: argparse.Namespace) -> int:
    """Runs the race. Raises OptError for a rule that is wrong."""
    if lacks := without("race", "rich", "matplotlib", "sklearn"):  # the last two are needed after minutes only
        print(f"optlang race: {lacks}", file=sys.stderr)
        return 2
    from optlang.race.contest import race
    from optlang.race.entrants import entrant
    from optlang.race.errors import RaceError

    try:
        entrants = [entrant(word, arguments.backend, arguments.math) for word in arguments.rules]
        results = race(entrants, arguments.task, arguments.seeds, arguments.steps, arguments.grid, arguments.out, arguments.quiet)
    except (RaceError, ValueError) as problem:
        print(f"optlang race: {str(problem).removeprefix('race: ')}", file=sys.stderr)
        return 2
    return results.status
