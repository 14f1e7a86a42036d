"""What the search reaches on one core: `python tests/bench/search.py [MEASURE …] [--json docs/bench-search.json]`.

Processor time is what counts, since machines are shared. `front`: children a second through mutation, types, keys, fingerprint
and descent test, while a population evolves whose fitness is drawn by behaviour, so that there is selection and no training.
`audit`: pairs of programs that were merged, run on gradients that no fingerprint has seen, of other sizes, too. `runs`: trainings
of 200 steps on digits. `ranking`: six known rules on the first level, each time with other seeds and a baseline of their own.
`levels`: one program on every level of the funnel. `workers`, `actors` (of Ray): see `search_workers.py`. Figures of one call are
put beside those that the file has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optlang.rules import Rule
from optlang.search.api import space_of
from optlang.search.evolution.population import Ageing, Evolution, Member
from optlang.search.programs.genome import Form, Genome, to_text
from optlang.search.programs.mutation import Mutator
from optlang.search.screening import fingerprint as behaviour
from optlang.search.screening.sieve import Screen
from optlang.search.training.fitness import baseline, score, tune
from optlang.search.training.levels import FUNNEL, SEARCH
from optlang.search.training.loading import task

CHILDREN, COURSES = 20_000, 3
PAIRS, DRAWS = 1_000, 3
KNOWN = ("sgd", "momentum", "adamw", "lion", "signum", "rmsprop")
RERUNS = 3


# ------------------------------------------------------------------------------------------------ children and merges


def evolved(children: int, seed: int) -> Screen:
    """A population of AdamW's descendants: the fitness of a behaviour is drawn when it is met first."""
    space = space_of("lion", ["adamw"])
    screen = Screen(space)
    branch = Evolution([Member(1, space.seeds[0], 0.5)], Mutator(space), Ageing(200, 3), seed)
    drawn: dict[str, tuple[int, float]] = {}
    source = random.Random(seed)
    screen.check(space.seeds[0])
    for _ in range(children):
        proposal = branch.propose()
        verdict = screen.check(proposal.genome)
        if verdict.level != "rejected":
            if verdict.fingerprint not in drawn:
                drawn[verdict.fingerprint] = len(drawn) + 2, source.random()
            branch.add(proposal, *drawn[verdict.fingerprint])
    return screen


def front() -> dict[str, Any]:
    speeds, new, looked = [], 0, 0
    for seed in range(COURSES):
        started = time.process_time()
        screen = evolved(CHILDREN, seed)
        speeds.append(round(CHILDREN / (time.process_time() - started)))
        new += screen.counters["fingerprint"].passed
        looked += screen.counters["fingerprint"].seen
    children = CHILDREN * COURSES
    return {
        "children": children, "children/s": round(COURSES / sum(1 / speed for speed in speeds)), "by course": speeds,
        "share run on probes": round(looked / children, 4), "share never trained": round(1 - new / children, 4),
    }  # fmt: skip


def audit() -> dict[str, Any]:
    pairs = [pair for draw in range(DRAWS) for pair in itertools.islice(merged(draw), PAIRS)]
    looks = [look(one, other, Form()) for _, one, other in pairs]
    wrong = [(level, to_text(one), to_text(other)) for (level, one, other), found in zip(pairs, looks, strict=True) if found == "wrong"]
    levels = Counter(level for level, _, _ in pairs)
    return {"pairs": len(pairs), "by level": dict(levels), "unstable": looks.count("unstable"), "wrong": len(wrong), "examples": wrong}


def merged(draw: int) -> Iterator[tuple[str, Genome, Genome]]:
    """Different programs that are taken for the same, with the level that did it: from chains of children of AdamW."""
    space = space_of("default", ["adamw"])
    screen, mutate = Screen(space), Mutator(space)
    first: dict[str, Genome] = {}
    seen: set[Genome] = set()
    for number in itertools.count(draw * 1_000_000):
        genome, source = space.seeds[0], random.Random(number)
        for _ in range(60):
            verdict = screen.check(genome)
            if verdict.level == "":
                first[verdict.fingerprint] = verdict.genome
            elif verdict.level != "rejected" and verdict.genome not in seen:
                yield verdict.level, first[verdict.fingerprint], verdict.genome
            seen.add(verdict.genome)
            genome = mutate(genome, source)[0]


def look(one: Genome, other: Genome, form: Form) -> str:
    """Whether two programs do the same, up to a positive factor, on gradients that no fingerprint has seen, of other sizes, too.

    "same", "wrong", or "unstable": one of them moves as far by itself when gradients change in their last digits, as
    (1 - m)a + ma does where m is huge.
    """
    found = "same"
    with np.errstate(all="ignore"):
        for seed, scale in enumerate((1.0, 0.37, 2.9)):
            data = behaviour.probe(seed)
            noise = np.random.default_rng(seed).normal(size=data.gradients.shape)
            nudged = replace(data, gradients=data.gradients * (1 + 1e-15 * noise))
            a, b = (behaviour.updates(genome, form, scale, data) for genome in (one, other))
            moved = max(apart(a, behaviour.updates(one, form, scale, nudged)), apart(b, behaviour.updates(other, form, scale, nudged)))
            if apart(a, b) > max(1e-8, 100 * moved):
                return "wrong"
            if apart(a, b) > 1e-8:
                found = "unstable"
    return found


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """1 less the cosine of two sequences of updates, where both are finite; 0 where it cannot be told."""
    finite = np.isfinite(a) & np.isfinite(b)
    size = np.sqrt((a[finite] ** 2).sum() * (b[finite] ** 2).sum())
    return float(1 - (a[finite] * b[finite]).sum() / size) if np.isfinite(size) and size > 0 else 0.0


# ------------------------------------------------------------------------------------------------------------ training


def runs() -> dict[str, Any]:
    digits, program = task("digits-mlp"), Rule("adamw").program
    tune([program], digits, (0,))  # data are there
    started = time.process_time()
    found = tune([program] * 6, digits, (0, 1))
    seconds = time.process_time() - started
    count = sum(one.runs for one in found)
    return {"runs": count, "steps": digits.steps, "runs/s": round(count / seconds, 1)}


def ranking() -> dict[str, Any]:
    names = list(KNOWN)
    programs = [Rule(name).program for name in names]
    places = [task(name) for name in SEARCH.tasks]
    reruns = []
    for again in range(RERUNS):
        seeds = (50 + 2 * again, 51 + 2 * again)
        scores = [[score(one, base, seeds).fraction for one in tune(programs, place, seeds)]
                  for place in places for base in [baseline(place, seeds)]]  # fmt: skip
        reruns.append({name: round(statistics.mean(each), 4) for name, each in zip(names, zip(*scores, strict=True), strict=True)})
    taus = [kendall(list(a.values()), list(b.values())) for a, b in itertools.combinations(reruns, 2)]
    return {"fitness": reruns, "Kendall tau": [round(tau, 3) for tau in taus], "lowest": round(min(taus), 3)}


def kendall(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation: pairs in the same order less pairs in the other order, as a share of all."""
    pairs = list(itertools.combinations(range(len(one)), 2))
    return sum(float(np.sign((one[i] - one[j]) * (other[i] - other[j]))) for i, j in pairs) / len(pairs)


def levels() -> dict[str, Any]:
    """AdamW tuned on each level near a step size that is known, as children are."""
    program, seconds = Rule("adamw").program, {}
    for level in FUNNEL:
        places = [task(name).longer(level.factor) for name in level.tasks]
        for one in places:
            tune([program], one.longer(0.05 / level.factor), (0,), starts=(-5,))  # data are there
        started = time.process_time()
        for one in places:
            tune([program], one, tuple(range(level.seeds)), starts=(-5,))
        seconds[level.name] = time.process_time() - started
    least = seconds[SEARCH.name]
    return {"seconds": {name: round(s, 2) for name, s in seconds.items()}, "times": {name: round(s / least) for name, s in seconds.items()}}


def workers() -> dict[str, Any]:
    from search_workers import compared

    return compared("processes", 24)


def actors() -> dict[str, Any]:
    from search_workers import compared

    return compared("ray", 12)


MEASURES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "front": front, "audit": audit, "runs": runs, "ranking": ranking, "levels": levels, "workers": workers, "actors": actors,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", choices=[*MEASURES, []], metavar="MEASURE", help=f"of {', '.join(MEASURES)}; default: all")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.exists() else {}
    for name in chosen.measures or MEASURES:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}"
        kept[name] = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__, **MEASURES[name]()}
        print(name, json.dumps(kept[name]), flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
