"""Muon on many equal matrices, all of a shape in one call and one by one: `python tests/bench/matrices.py --json out.json`.

On one thread, in processor time, so that other work on the machine does not count. The matrix stage is the last function of a step.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

import optlang
from optlang.bench.measure import Spread, in_turn
from optlang.bench.models import parameters
from optlang.bench.results import device_name

CPU = torch.device("cpu")
SIZES = [((16, 16), 400), ((32, 32), 200), ((32, 128), 100), ((64, 64), 100), ((128, 128), 100)]


def calls_of(shape: tuple[int, int], count: int) -> tuple[Any, list[Any]]:
    """The functions of Muon's executable, and the calls of its last stage."""
    optimizer: Any = optlang.load("muon", backend="torch")(parameters([shape] * count, CPU))
    optimizer.step()
    case = optimizer.cases[0]
    functions = case.executable(case.settings.defaults)[1]._functions
    calls: list[Any] = []
    functions.run_all = lambda some, compiled: calls.extend(some)
    optimizer.step()
    del functions.run_all
    return functions, calls


def compared(shape: tuple[int, int], count: int, steps: int) -> dict[str, Any]:
    functions, calls = calls_of(shape, count)
    contestants = {
        "together": lambda: functions.run_all(calls, False),
        "one by one": lambda: [functions.run(call, False) for call in calls],
    }
    seconds = in_turn(contestants, steps, CPU, clock=time.process_time)
    ratio = Spread.ratio(seconds["one by one"], seconds["together"])
    return {"shape": shape, "matrices": count, "one by one / together": asdict(ratio), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    about = {"date": date.today().isoformat(), "device": device_name(CPU), "torch": torch.__version__, "clock": "processor"}
    text = json.dumps(about | {"Muon": [compared(*size, chosen.steps) for size in SIZES]}, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
