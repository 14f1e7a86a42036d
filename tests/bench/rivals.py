"""Our steps beside those of every other package that has the rule: `python tests/bench/rivals.py --json out.json`.

On one thread, in processor time, so that other work on the machine counts little; ours and theirs in turn, each rule in a process of its
own. All step the matrices of one layer of GPT-2 small, narrower ones where eigenvectors are taken; those that are not for matrices
alone step 290 small tensors, too. The model of rules that ask it answers at once, with the gradients that are there. `ratio`: the median
of ours over the rival's beside it; "foreach" and "fused" are the rival's own words for its ways. `kept`: bytes of its states.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch

from optlang.bench.contestants import Contestant, asks, contestants
from optlang.bench.measure import Spread, in_turn, kept
from optlang.bench.models import MODELS, answering, parameters
from optlang.bench.results import device_name
from optlang.library import names

CPU = torch.device("cpu")
LAYER = dict.fromkeys(("muon", "normuon", "adamuon", "marsshampoo", "galore", "fira", "apollo", "conda", "scion"), ("layer",))
NARROW = dict.fromkeys(("shampoo", "graftedshampoo", "soap", "psgdkron", "splus"), ("narrow",))
MODELS_OF = LAYER | NARROW
ROUNDED = ("muon", "marsshampoo", "scion", "normuon", "adamuon")  # whose rivals multiply matrices in bfloat16


def beside(rule: str, model: str, steps: int) -> dict[str, Any]:
    """Seconds and ratios of all contestants; the words of those that failed."""
    weights = parameters(MODELS[model](), CPU)
    products = ["bf16"] if rule in ROUNDED else ["fp32"]
    asked = [answering(weights)] if asks(rule) else []
    ready: dict[Contestant, Any] = {}
    found: dict[str, Any] = {}
    for one in contestants([rule], ["auto"], ["fp32"], "quick", "cpu", products):
        try:
            optimizer, step = one.build(weights)
            step(*asked)
            ready[one] = partial(step, *asked)
            found[one.label] = {"kept": kept(optimizer)}
        except Exception as problem:  # other people's packages fail in their own ways
            found[one.label] = {"failed": f"{type(problem).__name__}: {problem}".splitlines()[0][:200]}
    taken = in_turn(ready, steps, CPU, clock=time.process_time)
    mine = next((taken[one] for one in ready if one.package == "optlang"), None)
    for one, seconds in taken.items():
        told = found[one.label] | {"seconds": [round(x, 6) for x in seconds]}
        found[one.label] = told | ({"ratio": round(Spread.ratio(mine, seconds).median, 3)} if mine and one.package != "optlang" else {})
    return found


def has_rivals(rule: str) -> bool:
    return len(contestants([rule], ["auto"], ["fp32"], "quick", "cpu")) > 1


def in_a_process(rule: str, steps: int) -> dict[str, Any]:
    """By model."""
    done = subprocess.run([sys.executable, __file__, "--alone", rule, "--steps", str(steps)], capture_output=True, text=True)
    failed = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if not done.returncode else {"failed": failed}
    return found


def best(found: dict[str, Any]) -> float | None:
    """Ours over the quickest rival."""
    return max((one["ratio"] for one in found.values() if isinstance(one, dict) and "ratio" in one), default=None)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", help="default: those of the library that have a rival here")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures there, and keep those of other rules")
    parser.add_argument("--alone", metavar="RULE", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sys.modules["heavyball"] = None  # type: ignore[assignment]  # compiles for minutes: not asked, and long to import
    if chosen.alone:
        models = MODELS_OF.get(chosen.alone, ("layer", "small"))
        print(json.dumps({model: beside(chosen.alone, model, chosen.steps) for model in models}))
        return
    told = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.exists() else {}
    about = {"date": date.today().isoformat(), "device": device_name(CPU), "torch": torch.__version__, "clock": "processor, one thread"}
    found: dict[str, Any] = told.get("rules", {})
    for rule in [rule for rule in chosen.rules or names() if has_rivals(rule)]:
        found[rule] = in_a_process(rule, chosen.steps)
        print(rule, {model: best(one) for model, one in found[rule].items() if isinstance(one, dict)}, flush=True)
        if chosen.json:
            chosen.json.write_text(json.dumps(about | {"rules": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
