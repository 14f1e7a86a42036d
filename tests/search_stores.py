"""Rounds for the tests of the store, and a writer that can be killed: `python search_stores.py PATH ROUNDS`.

A round is a function of its number alone, so a store that was killed and taken up again must end as one that never was.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from optlang.search.evolution.rounds import Birth, Known, Round
from optlang.search.programs.genome import from_text
from optlang.search.store.database import Store
from optlang.search.training.assess import Assessment
from optlang.search.training.levels import Level

LEVEL = Level("search", ("digits-mlp",))
SEEDS = (1, 2)
SETTINGS = {"seed": 3, "tasks": ["digits-mlp"]}
BRANCH = "evolution"
SIZE = 16  # programs of a round
JOBS = 4  # of a round


def assessment(number: int) -> Assessment:
    source = random.Random(number)
    fitness = source.random()
    return Assessment(fitness, 0.01, fitness / 2, 400, 0.25, "ok", {"digits-mlp": {"mean": fitness, "lr": 1e-3, "losses": [0.1, None]}})


def birth(number: int, branch_fingerprint: str = "") -> Birth:
    genome = from_text(f"m = interp(g, m, {number / 4})\nu = sign(m)")
    parent = None if number == 1 else 1 + random.Random(-number).randrange(number - 1)
    return Birth(number, f"{branch_fingerprint}{number:x}", genome, 1, parent, f"changed to {number / 4}", 10 * number, assessment(number))


def best_of(numbers: range) -> Known:
    return max((Known(n, assessment(n).fitness) for n in numbers), key=lambda known: known.fitness)


def round_(place: int, branch: str = BRANCH) -> Round:
    """Round `place`, from 0."""
    births = tuple(birth(n) for n in range(1 + place * SIZE, 1 + (place + 1) * SIZE))
    before = best_of(range(1, 1 + place * SIZE)) if place else Known(0, -1.0)
    best = best_of(range(1, 1 + (place + 1) * SIZE))
    return Round(branch, births, 160 * (place + 1), 6400 * (place + 1), best, best != before)


def state_after(place: int) -> dict[str, Any]:
    return {"done": place + 1, "random": list(random.Random(place).getstate()[1])}


def digests(place: int) -> list[str]:
    return [f"{place}-{job}" for job in range(JOBS)]


def advance(store: Store, rounds: int, say: Any = lambda text: None) -> None:
    """Goes on from where the store is. Says what is finished as soon as it is."""
    state = store.state(BRANCH)
    for place in range(state["done"] if state else 0, rounds):
        for digest in digests(place):
            if store.job(digest) is None:
                store.save_job(digest, [digest, place])
                say(f"job {digest}")
        store.save_round(round_(place), state_after(place), LEVEL, SEEDS, digests(place))
        say(f"round {place}")


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All that a search leaves, without times."""
    tables = ("genomes", "assessments", "strands", "curve", "jobs")
    return {name: store.query(f"SELECT * FROM {name} ORDER BY 1, 2, 3" if name != "jobs" else "SELECT * FROM jobs") for name in tables}


def main(path: str, rounds: str) -> None:
    with Store.open_(path) as store:
        print(json.dumps("open"), flush=True)
        advance(store, int(rounds), lambda text: print(json.dumps(text), flush=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
