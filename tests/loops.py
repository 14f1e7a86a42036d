"""Rules in closed loops of 200 steps in float32, kernels beside the reference: `python tests/loops.py RULE…`.

Each side takes gradients at its own weights, so what differs in any step feeds back. The reference computes in float64 and stores
float32. How far weights are apart in the end is told in units in the last place of the largest weight of their tensor, beside how far
torch's single operators are: rules that turn on a sign, or on what is nearly equal, go apart whatever computes them. Results in
`docs/loops.json` are kept for the rules that are as they were, and so is what steps them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from closed_loop import Params, Problem
from conformance import Stepwise, rows_of
from records import CODE, marked, recorded, save, stale
from references import Row
from references_learned import network
from references_reductions import Worker
from torch import Tensor

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "loops.json"
STEPS = 200
ULP = 2.0**-23
BACKENDS = CODE["loops"]


def steady(problem: Problem, step: int) -> dict[str, Params]:
    """Momenta up to 0.9; with those up to 2 of the table of references weights grow without end."""
    told = network(problem, step)
    return {"p": told["p"], "a": [0.45 * x for x in told["a"]]}


LONG: dict[str, dict[str, Any]] = {  # where 20 steps of the table of references tell something and 200 would not
    "l2opa": {"label": "steady", "inputs": steady, "ours": {"penalty": 0.02}},
    "entropysgd": {"label": "slow scoping", "ours": {"scoping": 0.02}},  # of 50 rounds; pulls grow 2.7 times, not 9,100 times
    "localsgd": {"label": "slow fall", "loop": partial(Worker, fall=0.995), "ours": {"total": STEPS}},  # else back where it began
}
LEAST = 0.05  # how far some weight must have gone


def apart(some: list[Tensor], others: list[Tensor]) -> float:
    """In units in the last place of the largest weight of a tensor, at worst; infinite where only one of two is a number."""
    worst = 0.0
    for a, b in zip(some, others, strict=True):
        gap = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs().nan_to_num(torch.inf, torch.inf))
        size = b.abs().nan_to_num(0, 0, 0).max()
        worst = max(worst, float(gap.max() / (size.clamp(min=1e-30) * ULP)))
    return worst


def looped(run: Stepwise, side: int) -> list[Tensor]:
    """The weights in the end."""
    params, _, loop = run.sides[side]
    for step in range(STEPS):
        run._take(loop, params, step)
    return [p.detach().double() for p in params]


def row_of(rule: str) -> Row:
    """The first of a rule, with what 200 steps of it want."""
    row, more = rows_of(rule)[0], LONG.get(rule, {})
    return replace(row, **{**more, "ours": {**row.ours, **more.get("ours", {})}})


def measured(rule: str, backends: tuple[str, ...]) -> dict[str, Any]:
    row = row_of(rule)
    runs = {backend: Stepwise(row, backend, torch.float32) for backend in backends}
    first = next(iter(runs.values()))
    begun = [p.detach().double() for p in first.sides[1][0]]
    reference = looped(first, 1)
    if not all(p.isfinite().all() for p in reference):
        raise ValueError("the reference's numbers run away, so nothing can be told apart")
    went = max(float((a - b).abs().max()) for a, b in zip(begun, reference, strict=True))
    if went < LEAST:
        raise ValueError(f"no weight is farther than {went:.1g} from where it began, so nothing can be told apart")
    found: dict[str, Any] = {**marked(rule, backends), "date": date.today().isoformat(), "row": row.id}
    found |= {backend: float(f"{apart(looped(run, 0), reference):.3g}") for backend, run in runs.items()}
    return found | {"went": float(f"{went:.2g}")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="default: all that are not those of an entry")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    chosen = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    found, failed = recorded(RESULTS), 0
    for rule in chosen.rules or stale(found, tuple(chosen.backends)):
        try:
            found[rule] = measured(rule, tuple(chosen.backends))
        except Exception as problem:  # a loop of a reference that ends before, say
            print(rule, f"{type(problem).__name__}: {problem}"[:300], flush=True)
            failed += 1
            continue
        print(rule, json.dumps(found[rule]), flush=True)
        save(RESULTS, found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
