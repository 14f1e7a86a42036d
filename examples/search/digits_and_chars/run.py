"""Lion's search, whole, on small tasks: from AdamW over Lion's functions to `.opt` files and their comparison with tuned rivals.

    python examples/search/digits_and_chars/run.py                all of it, or what is still missing; Ctrl-C, and it goes on later
    python examples/search/digits_and_chars/run.py --minutes 20   at most so long in the search itself

The store is run.db in the folder of `--runs`; everything else is written beside this file, when the search is over.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

import torch

from optlang.search import api
from optlang.search.evolution import Ageing
from optlang.search.live_view import line
from optlang.search.settings import Pace

HERE = Path(__file__).parent
CHILDREN = 300_000
SEED = 1


def searching(store: Path, minutes: float) -> api.Search:
    """The search: new, or as it was left."""
    if store.exists():
        return api.resume(store, workers=1)
    space = api.space_of("lion", ["adamw"])
    return api.search(
        store=store, space=space, children=CHILDREN, minutes=minutes, workers=1, seed=SEED, validate_every=25,
        ageing=Ageing(population=200, tournament=3), pace=Pace(jobs=1, per_job=24, hurdle=0.75),
    )  # fmt: skip


def search(store: Path, minutes: float) -> None:
    """Searches until the budget is spent, or until somebody ends it."""
    with searching(store, minutes) as run:
        signal.signal(signal.SIGINT, lambda *_: run.stop())
        print(run.describe(), flush=True)
        for progress in run:
            print(line(progress), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0, help="of searching; default: 120")
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    search(arguments.runs / "run.db", arguments.minutes)


if __name__ == "__main__":
    main()
