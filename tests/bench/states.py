"""Learning curves of AdamW with its states in fewer bits, on characters: `python tests/bench/states.py --json out.json`.

The same starts and batches for every format. A gap is that of a format to float32 seed by seed, beside its standard error and
beside the spread of float32 itself over the seeds.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import optlang
from optlang.race import Entrant, Run, race

PLAIN = "fp32"


def entrant(state: str) -> Entrant:
    cls = optlang.load("adamw", backend="cpp", state=None if state == PLAIN else state)
    return Entrant(state, lambda named, lr: cls(named, lr=lr))


def summary(runs: list[Run], plain: list[Run]) -> dict[str, Any]:
    losses = [run.test_loss for run in runs if run.test_loss is not None]
    gaps = [a - b.test_loss for a, b in zip(losses, plain, strict=True) if b.test_loss is not None]
    curve = [{"step": points[0].step, "loss": mean(p.loss for p in points)} for points in zip(*(run.curve for run in runs), strict=True)]
    return {
        "test loss": mean(losses), "spread over seeds": stdev(losses), "gap to fp32": mean(gaps),
        "standard error of the gap": stdev(gaps) / len(gaps) ** 0.5,
        "state bytes for each parameter": runs[0].state_bytes / runs[0].parameters,
        "curve": curve,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", nargs="+", default=["int8", "bf16", "int4", "fp8"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    names = [PLAIN, *chosen.states]
    found = race([entrant(name) for name in names], "chars", chosen.seeds, chosen.steps, [chosen.lr], quiet=True)
    runs = {entry.name: entry.finals for entry in found.entries}
    about = {"date": date.today().isoformat(), "torch": torch.__version__, "steps": chosen.steps, "seeds": chosen.seeds, "lr": chosen.lr}
    text = json.dumps(about | {"formats": {name: summary(runs[name], runs[PLAIN]) for name in names}}, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
