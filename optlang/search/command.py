"""`optlang search`: its options. Importing this is quick; the actions import torch."""

from __future__ import annotations

import argparse
import sys

from optlang.race.names import table as tasks
from optlang.resources import without

ABOUT = f"""\
Searches the space of update rules, as the search that found Lion did, from one rule or several.

  optlang search adamw --minutes 30 --store run.db      evolve AdamW; everything goes into run.db at once
  optlang search adamw --minutes 120 --baselines --finals   from AdamW to tuned and shortened rules, and a report, in one go
  optlang search my.opt lion --children 50000           two seeds; ends after so many children
  optlang search adamw --baselines --minutes 60         beside random search and constants-only evolution, 4 times the budget each
  optlang search adamw --space lion --limit statements=15 --never t
  optlang search sgd --template t.txt                   t.txt has what stays, `?` where to search: m = interp(g, m, ?)
  optlang search resume run.db                          go on where it stopped, or was killed
  optlang search resume run.db --minutes 120            with a larger budget, as if it had been given at first; also --children, --steps
  optlang search resume run.db --tasks my_task.py       from now on with one more validation task; or --level hold-out
  optlang search pick run.db                            fitness against size: the programs that nothing beats in both
  optlang search propose run.db mine.opt                a rule of one's own, or of a program that writes rules, for a search under way
  optlang search adamw --only-proposals --store run.db  a search that makes none itself: it trains what is proposed, until Ctrl-C
  my_writer | optlang search propose run.db - --json    its answer: fitness, loss by task or why it was rejected, the best rule so far
  optlang search report run.db -o report.html           one page with everything: curves, funnel, lineage, hall of fame
  optlang search export run.db best -o found.opt        a rule as a file, shortened by algebra; also Found123, as pick lists them
  optlang search export run.db best -o found.opt --ablate   and without what training over paired seeds does not miss
  optlang search finals run.db                          the best against AdamW, Lion, Signum and RMSprop, all tuned alike

Fitness is the share of its steps in which tuned AdamW gets as far: 1 is AdamW, more is better. The best go through longer
and other tasks (the funnel), and the hold-out is opened once. Ctrl-C ends the search in good order; twice, at once.

{tasks()}
A search runs tasks of the race, and those in files, as they are written for one model, several times as slowly as its own."""
SETTLED = (  # options of a search that cannot be given to one that has begun
    "space", "functions", "never", "constraint", "series", "limit", "template", "population", "islands", "only_proposals", "baselines",
    "seed",
)  # fmt: skip
ACTIONS = ("resume", "report", "pick", "propose", "export", "finals")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `optlang search`."""
    parser.add_argument("words", nargs="*", metavar="SEED", help="library names, FILE.opt or FILE.opt:Rule to start from (default: "
                        "adamw), or an action")  # fmt: skip
    parser.add_argument("--store", default="search.db", metavar="FILE", help="where everything goes; default: search.db")
    parser.add_argument("--minutes", type=float, help="of searching, all sittings together; default: 30, if no budget is given")
    parser.add_argument("--children", type=int, help="programs to make; most are merged or rejected and never trained")
    parser.add_argument("--steps", type=int, help="training steps to spend")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="for the first level: built-in names, or Python files; digits-mlp:14 "
                        "is trained for 14 times its steps")  # fmt: skip
    parser.add_argument("--validation", nargs="+", metavar="TASK", help="that selection does not see, but overfitting shows on")
    parser.add_argument("--final", nargs="+", metavar="TASK", help="trained for 14 times their steps, if their names do not say how long; "
                        "default: chars-mlp and digits-vit, an hour and more")  # fmt: skip
    parser.add_argument("--hold-out", nargs="+", metavar="TASK", help="opened once, at the end")
    parser.add_argument("--level", default="validation", metavar="LEVEL", help="of resume: where --tasks are added; default: validation")
    parser.add_argument("--space", default="default", choices=["default", "lion", "rich"], help="functions to search with")
    parser.add_argument("--functions", nargs="+", metavar="F", help="only these functions")
    parser.add_argument("--never", nargs="+", metavar="NAME", default=[], help="names that no program may read, such as t or w")
    parser.add_argument("--constraint", action="append", default=[], metavar="C", help='such as "elementwise" or "loss scale"')
    parser.add_argument("--series", action="store_true", help="constants are 1, 2 or 5 times a power of ten, or 1 less such a number")
    parser.add_argument("--limit", action="append", default=[], metavar="WHAT=N", help="statements, depth or slots, also above the seeds'")
    parser.add_argument("--template", metavar="FILE", help="a program with holes: `?` for an argument, a line `?` for statements")
    parser.add_argument("--population", type=int, default=200, help="default: 200")
    parser.add_argument("--islands", type=int, default=1, help="populations that exchange their best; default: 1")
    parser.add_argument("--only-proposals", action="store_true", help="make no children, train what `propose` sends; needs no budget")
    parser.add_argument("--baselines", action="store_true", help="also random search and constants-only evolution, 4 times the budget each")
    parser.add_argument("--seed", type=int, default=0, help="of everything random; default: 0")
    parser.add_argument("--workers", type=int, help="processes; default: one for each core")
    parser.add_argument("--jobs", type=int, help="that go to workers at once; default: half of the workers, at least 2, for twice as many "
                        "are under way. Depends on it, and not on the workers, what is found")  # fmt: skip
    parser.add_argument("--ray", metavar="ADDRESS", nargs="?", const="local", help="train on a Ray cluster; alone: one on this machine")
    parser.add_argument("--no-funnel", action="store_true", help="end after the first level; the others take 1.5 hours of one core")
    parser.add_argument("--finals", action="store_true", help="then the finals, the best as FILE.best/*.opt, and FILE.html, the report")
    parser.add_argument("-o", "--output", metavar="OUT", help="of report and export; - is standard output")
    parser.add_argument("--ablate", action="store_true", help="of export: train shorter rules, too, on --tasks (default: those of the "
                        "search), for at most --minutes (default: until none is as good, some minutes)")  # fmt: skip
    parser.add_argument("--to", default="opt", choices=["opt", "module", "latex"], help="of export; default: opt")
    parser.add_argument("--json", action="store_true", help="of pick, with the rules' texts, and propose: for programs to read")
    parser.add_argument("--quiet", action="store_true", help="print the end only")


def run(arguments: argparse.Namespace) -> int:
    """Runs one action. Raises OptError for a seed that is wrong."""
    if lacks := without("search", "rich", "matplotlib", "sklearn", "scipy", "optuna", "latex2mathml"):
        print(f"optlang search: {lacks}", file=sys.stderr)
        return 2
    if arguments.workers is not None and arguments.workers < 1:
        print(f"optlang search: --workers is {arguments.workers}; it takes 1 or more", file=sys.stderr)
        return 2
    from optlang.search import actions
    from optlang.search.store.database import StoreError
    from optlang.search.training.tasks import TaskError
    from optlang.search.workers.cluster import ClusterError
    from optlang.search.workers.jobs import JobFailed

    words = arguments.words
    action = words[0] if words and words[0] in ACTIONS else "search"
    try:
        return int(getattr(actions, action)(arguments))
    except (StoreError, ClusterError, TaskError, JobFailed, ValueError) as problem:
        print(f"optlang search: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `optlang search pick run.db | head`
        raise
    except OSError as problem:  # a full disk, say, under the hall of fame
        print(f"optlang search: {problem}. What was finished is in the store", file=sys.stderr)
        return 2
