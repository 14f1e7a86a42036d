"""What the compiler costs, measured on this machine: `make bench`, or `python tests/bench/run.py --json out.json`.

Recompilations under a schedule, start-up, hostile texts, the whole library checked. `optlang bench` measures steps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from optlang.bench.measure import Spread, timed
from optlang.bench.models import parameters
from optlang.bench.results import device_name

Clock = Callable[[Callable[[], object]], float]
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def by_the_clock(call: Callable[[], object]) -> float:
    return timed(call, CPU)


def by_the_processor(call: Callable[[], object]) -> float:
    """Seconds that processes started by a call, and ended in it, have computed: what others do on the machine counts less."""
    before = os.times()
    call()
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def recompilations(steps: int) -> int:
    """New compilations after the first step, under OneCycleLR, which moves lr and betas."""
    from torch._dynamo.utils import counters

    import optlang
    from optlang.backends.torch import kept

    kept.name_of = lambda *_: ""  # a kernel from the disk has nothing to compile
    shapes = [(512, 700), (300, 300), (1000,), (70, 5, 3, 3)]
    optimizer = optlang.load("adamw", backend="torch")(parameters(shapes, CPU), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps + 1)
    optimizer.step()
    before = counters["stats"]["unique_graphs"]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
    assert before > 0, "nothing was compiled"
    return int(counters["stats"]["unique_graphs"] - before)


def check_library(clock: Clock) -> dict[str, float]:
    command = [sys.executable, "-m", "optlang", "check", *map(str, sorted((ROOT / "library").rglob("*.opt")))]
    subprocess.run(command, check=True, capture_output=True)
    return spread([clock(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)])


def hostile(clock: Clock) -> dict[str, Any]:
    """Seconds until a hostile text has its findings or its result, in a fresh process each."""
    doublings = " ".join(f"x{i + 1} = x{i} + x{i}" for i in range(100))
    functions = " ".join(f"def f{i}(x) = f{i - 1}(x + 1) + f{i - 1}(x + 2)" for i in range(1, 40))
    texts = {
        "10,000 parentheses": f"rule R {{ w' = {'(' * 10_000}w{')' * 10_000} }}",
        "a tower of powers": "rule R { w' = w - 2^2^2^2^2^2*g }",
        "a hundred doublings": f"rule R {{ x0 = g {doublings} w' = w - x100 }}",
        "functions that double": f"{functions} def f0(x) = x rule R {{ w' = f39(g) }}",
        "10 MB": "#" * 10_000_000,
        "rubbish": "".join(chr(33 + i * i % 900) for i in range(20_000)),
    }
    found = {}
    for name, text in texts.items():
        command = [sys.executable, "-m", "optlang", "check", "-"]
        found[name] = clock(lambda c=command, t=text: subprocess.run(c, input=t.encode(), capture_output=True))
    return found


def start_up(clock: Clock) -> dict[str, Any]:
    found = {}
    for arguments in (["check", "adam"], ["fmt", "--check", "adam"], ["show", "adam", "--as", "text"]):
        command = [sys.executable, "-m", "optlang", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        runs = [clock(lambda c=command: subprocess.run(c, check=True, capture_output=True)) for _ in range(7)]
        found[" ".join(arguments)] = spread(runs)
    return found


def lines(name: str) -> int:
    [path] = (ROOT / "library").rglob(f"{name}.opt")
    return sum(bool(line.split("#")[0].strip()) for line in path.read_text().splitlines())


def spread(seconds: list[float]) -> dict[str, float]:
    return asdict(Spread.of(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--busy", action="store_true", help="the machine is used by others, too: seconds of the processor")
    chosen = parser.parse_args()
    clock = by_the_processor if chosen.busy else by_the_clock
    found = {
        "date": date.today().isoformat(), "device": device_name(CPU), "torch": torch.__version__,
        "seconds": "of the processor" if chosen.busy else "by the clock",
        "lines": {name: lines(name) for name in ("adam", "lion")},
        "check library (s)": check_library(clock), "start-up (s)": start_up(clock), "hostile input (s)": hostile(clock),
        "recompilations in 1000 steps of OneCycleLR": recompilations(1000),
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
