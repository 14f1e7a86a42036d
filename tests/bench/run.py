"""What the compiler costs, measured on this machine: `make bench`, or `python tests/bench/run.py --json out.json`.

Recompilations under a schedule, start-up, hostile texts, the whole library checked; the torch backend's first steps and its steps
beside torch's own. `optlang bench` measures steps of other rules. `--only NAME…` measures some and leaves the others as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import torch

from optlang.bench.contestants import Contestant
from optlang.bench.measure import Spread, in_turn, timed
from optlang.bench.models import gpt2, parameters
from optlang.bench.results import device_name

Clock = Callable[[Callable[[], object]], float]
TENSORS = {  # of transformers, by their number; the first is GPT-2 small
    "148 tensors, 124 million numbers": gpt2(), "26 tensors, 1.6 million": gpt2(2, 256)[2:], "290 tensors, 1.2 million": gpt2(24, 64)[2:],
}  # fmt: skip
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
    from optlang.backends.torch import inductor_cache

    inductor_cache.name_of = lambda *_: ""  # a kernel from the disk has nothing to compile
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


def first_steps(runs: int = 3) -> dict[str, Any]:
    """AdamW by the torch backend in fresh processes, with empty and with filled caches, after torch is there and the weights are made."""
    found: dict[str, Any] = {}
    for number, what in enumerate(TENSORS):
        pairs = [_cold_and_warm(number) for _ in range(runs)]
        found[what] = {
            how: {key: spread([pair[place][key] for pair in pairs]) for key in pairs[0][place]}
            for place, how in enumerate(("cold", "warm"))
        }  # fmt: skip
    return found


def _cold_and_warm(number: int) -> list[dict[str, float]]:
    command = [sys.executable, str(Path(__file__)), "--first-step", str(number)]
    with tempfile.TemporaryDirectory() as caches:
        around = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": caches, "XDG_CACHE_HOME": caches}
        done = [subprocess.run(command, check=True, capture_output=True, env=around) for _ in range(2)]
    return [json.loads(one.stdout.splitlines()[-1]) for one in done]


def tell_a_first_step(number: int) -> None:
    """What such a process does: the step alone, and loading and making the optimizer with it, by the clock and by the processor."""
    weights = parameters(list(TENSORS.values())[number], CPU)

    def now() -> tuple[float, float]:
        return time.perf_counter(), sum(os.times()[:4])

    before = now()
    _, step = Contestant("adamw", "optlang", "torch").build(weights)
    made = now()
    step()
    after = now()
    names = ("step, by the clock", "step, of the processor", "all, by the clock", "all, of the processor")
    print(json.dumps(dict(zip(names, [b - a for start in (made, before) for a, b in zip(start, after, strict=True)], strict=True))))


def beside_torch(busy: bool, steps: int = 9) -> dict[str, Any]:
    """AdamW's steps by the torch backend and by torch itself, in turn: seconds, and each to torch's fused ones beside it."""
    if busy:
        torch.set_num_threads(1)
    weights = parameters(gpt2(), CPU)
    everyone = [Contestant("adamw", "optlang", "torch"), Contestant("adamw", "torch", "fused")]
    taken = in_turn({one: one.build(weights)[1] for one in everyone}, steps, CPU, clock=time.process_time if busy else time.perf_counter)
    mine, theirs = (taken[one] for one in everyone)
    return {"optlang": spread(mine), "torch fused": spread(theirs), "ratio": asdict(Spread.ratio(mine, theirs))}


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
    parser.add_argument("--only", nargs="+", metavar="NAME", help="figures by their names in that file, or how these begin")
    parser.add_argument("--first-step", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.first_step is not None:
        tell_a_first_step(chosen.first_step)
        return
    clock = by_the_processor if chosen.busy else by_the_clock
    measures: dict[str, Callable[[], Any]] = {
        "lines": lambda: {name: lines(name) for name in ("adam", "lion")},
        "check library (s)": lambda: check_library(clock), "start-up (s)": lambda: start_up(clock),
        "hostile input (s)": lambda: hostile(clock), "recompilations in 1000 steps of OneCycleLR": lambda: recompilations(1000),
        "first steps of the torch backend (s)": first_steps, "steps of the torch backend (s)": lambda: beside_torch(chosen.busy),
    }  # fmt: skip
    kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.only and chosen.json and chosen.json.exists() else {}
    about = {
        "date": date.today().isoformat(), "device": device_name(CPU), "torch": torch.__version__,
        "seconds": "of the processor" if chosen.busy else "by the clock",
    }  # fmt: skip
    found = {**about, **kept}
    for name, measure in measures.items():
        if not chosen.only or name.startswith(tuple(chosen.only)):
            figures = measure()
            found[name] = {**about, **figures} if kept and isinstance(figures, dict) else figures
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
