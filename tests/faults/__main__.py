"""`python -m tests.faults --record docs/faults.json`: every fault is counted; the first that leaves something half-done ends it."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from . import kills, steps

RULES = (("adamw", "torch"), ("lamb", "torch"), ("adafactor", "torch"), ("muon", "torch"), ("lamb", "cpp"), ("adamw", "cpp"))
Counted = Callable[[Path], Counter[str]]


def memory(folder: Path) -> Counter[str]:
    """Once and for good, at operations of the steps of several rules."""
    counts: Counter[str] = Counter()
    for name, backend in RULES:
        for lasting in (False, True):
            counts[f"memory ends, {name} by {backend}"] += steps.memory_ends(name, backend, lasting)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--record", type=Path, default=Path("faults.json"))
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
    counts: Counter[str] = Counter()
    began = time.process_time()
    for name, kind in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            counts.update(kind(Path(folder)))
        print(name, dict(counts), flush=True)
        told = {"faults": sum(n for what, n in counts.items() if what not in ("searches", "searches killed", "races"))}
        about = {"date": datetime.date.today().isoformat(), "machine": platform.machine(), "torch": torch.__version__, "seed": asked.seed}
        record = {**about, **told, "nothing lost or half-done": True, "counts": dict(sorted(counts.items())),
                  "seconds without children": round(time.process_time() - began)}  # fmt: skip
        asked.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


main()
