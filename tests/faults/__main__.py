"""`python -m tests.faults --record docs/faults.json`: every fault is counted; the first that leaves something half-done ends it."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from . import kills, steps

RULES = (("adamw", "torch"), ("lamb", "torch"), ("adafactor", "torch"), ("lamb", "cpp"), ("adamw", "cpp"))
Counted = Callable[[Path], Counter[str]]


def memory(folder: Path) -> Counter[str]:
    """Once and for good, at operations of the steps of several rules."""
    counts: Counter[str] = Counter()
    for name, backend in RULES:
        for lasting in (False, True):
            counts[f"memory ends, {name} by {backend}"] += steps.memory_ends(name, backend, lasting, stride=1)
    for name, storage in steps.PACKED:
        what = " ".join(storage[part] for part in ("state", "weights") if part in storage)
        for lasting in (False, True):
            faults = steps.memory_ends(name, "torch", lasting, stride=3, **{"shapes": steps.LARGE, **storage})
            counts[f"memory ends, {name} in {what}"] += faults
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="of searches, races, memory, checkpoints, kernels; default: all")
    parser.add_argument("--record", type=Path, default=Path("faults.json"), help="counts of other kinds in it stay")
    parser.add_argument("--runs", type=int, default=50, help="of searches, and of races")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kinds: dict[str, Counted] = {
        "searches": lambda folder: kills.searches(folder, asked.runs, random.Random(asked.seed)),
        "races": lambda folder: kills.races(folder, asked.runs, random.Random(asked.seed + 1)),
        "memory": memory,
        "checkpoints": lambda folder: Counter({"checkpoints cut": steps.checkpoint_cut(400)}),
        "kernels": lambda folder: Counter({"kernels damaged": steps.kernel_damaged(folder, 100)}),
    }
    if wrong := sorted({*asked.kinds} - {*kinds}):
        parser.error(f"there is no kind {wrong[0]!r}: choose of {', '.join(kinds)}")
    counts = Counter(json.loads(asked.record.read_text(encoding="utf-8"))["counts"]) if asked.record.exists() else Counter[str]()
    for name in asked.kinds or kinds:
        with tempfile.TemporaryDirectory() as folder:
            counts |= kinds[name](Path(folder))
        print(name, dict(counts), flush=True)
        asked.record.write_text(json.dumps(told(counts, asked.seed), indent=1) + "\n", encoding="utf-8")


def told(counts: Counter[str], seed: int) -> dict[str, object]:
    """The record: an assertion that fails ends a kind before it is counted."""
    about = {"date": datetime.date.today().isoformat(), "machine": platform.machine(), "torch": torch.__version__, "seed": seed}
    faults = sum(n for what, n in counts.items() if what not in ("searches", "searches killed", "races"))
    return {**about, "faults": faults, "counts": dict(sorted(counts.items()))}


main()
