"""The figures of the README, measured side by side on this machine: `make bench`, or `python tests/bench/run.py --json out.json`.

Rules on the tensors of GPT-2 small (148 tensors, 124 million parameters), and on many small ones. Every first step is that of
a fresh process: *cold* with an empty compiler cache, *warm* with that of the cold one; importing torch and making the optimizer are not
counted, importing torch's compiler is. Steady steps of all contestants are taken in turn in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
Shapes = list[tuple[int, ...]]


def gpt2(blocks: int = 12, width: int = 768) -> Shapes:
    block: Shapes = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,), (width,), (width,),
                     (4 * width, width), (4 * width,), (width, 4 * width), (width,)]  # fmt: skip
    return [(50257, width), (1024, width), *(block * blocks), (width,), (width,)]


def parameters(shapes: Shapes, device: str = "cpu") -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in shapes]
    for p in made:
        p.grad = 0.01 * torch.randn_like(p)
    return made


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(action: Callable[[], Any], device: str) -> float:
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - start


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {"median": statistics.median(ordered), "low": ordered[len(ordered) // 4], "high": ordered[-len(ordered) // 4 - 1]}


# ------------------------------------------------------------------------------------------------------ first steps


def first_step(blocks: int, device: str, backend: str) -> float:
    """Seconds of the first step, in this process."""
    import optlang

    optimizer = optlang.load("adamw", backend=backend)(parameters(gpt2(blocks), device), lr=1e-3)
    return timed(optimizer.step, device)


def in_fresh_process(blocks: int, cache: str, device: str, backend: str) -> float:
    command = [sys.executable, __file__, "--first-step", str(blocks), "--device", device, "--backend", backend]
    caches = {"TORCHINDUCTOR_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
    done = subprocess.run(command, env={**os.environ, **caches}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the first step failed in a fresh process:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def first_steps(device: str, repeats: int, backend: str) -> dict[str, Any]:
    found: dict[str, list[float]] = {"cold": [], "warm": [], "cold_52_tensors": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            found["cold"].append(in_fresh_process(12, cache, device, backend))
            found["warm"].append(in_fresh_process(12, cache, device, backend))
        with tempfile.TemporaryDirectory() as cache:
            found["cold_52_tensors"].append(in_fresh_process(4, cache, device, backend))
    return {name: spread(values) for name, values in found.items()}


# ----------------------------------------------------------------------------------------------------- steady steps


def steady(shapes: Shapes, device: str, steps: int) -> dict[str, Any]:
    """Contestants take turns, so that a slow moment of the machine hits all of them. Ratios are to torch's fused AdamW."""
    import optlang

    classes = {
        "AdamW, default": lambda p: optlang.load("adamw")(p, lr=1e-3),
        "AdamW, torch backend": lambda p: optlang.load("adamw", backend="torch")(p, lr=1e-3),
        "Lion, default": lambda p: optlang.load("lion")(p, lr=1e-4),
        "LAMB, default": lambda p: optlang.load("lamb")(p, lr=1e-4),
        "torch fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
        "torch foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    }
    weights = parameters(shapes, device)
    optimizers = {name: make(weights) for name, make in classes.items()}
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.step()
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(steps):
        for name, optimizer in optimizers.items():
            seconds[name].append(timed(optimizer.step, device))
    fused = seconds["torch fused"]
    ratios = {name: spread([a / b for a, b in zip(found, fused, strict=True)]) for name, found in seconds.items() if found is not fused}
    floor = copy_floor(shapes, device)
    return {"seconds": {name: spread(s) for name, s in seconds.items()}, "ratio to fused": ratios, "copy floor": floor}


def small(blocks: int = 24, width: int = 64) -> Shapes:
    return gpt2(blocks, width)[2:]


def copy_floor(shapes: Shapes, device: str) -> dict[str, float]:
    """What moving 28 bytes per parameter takes by `copy_`: 4 read and written each, seven times half."""
    count = sum(torch.Size(s).numel() for s in shapes)
    source, target = torch.randn(count, device=device), torch.empty(count, device=device)
    target.copy_(source)
    return spread([timed(lambda: target.copy_(source), device) * 28 / 8 for _ in range(9)])


def recompilations(steps: int) -> int:
    """New compilations after the first step, under OneCycleLR, which moves lr and betas."""
    from torch._dynamo.utils import counters

    import optlang

    shapes: Shapes = [(512, 700), (300, 300), (1000,), (70, 5, 3, 3)]
    optimizer = optlang.load("adamw", backend="torch")(parameters(shapes), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps + 1)
    optimizer.step()
    before = counters["stats"]["unique_graphs"]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
    assert before > 0, "nothing was compiled"
    return int(counters["stats"]["unique_graphs"] - before)


def check_library() -> dict[str, float]:
    command = [sys.executable, "-m", "optlang", "check", *map(str, sorted((ROOT / "library").rglob("*.opt")))]
    subprocess.run(command, check=True, capture_output=True)
    return spread([timed(lambda: subprocess.run(command, check=True, capture_output=True), "cpu") for _ in range(5)])


def hostile() -> dict[str, Any]:
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
        found[name] = timed(lambda c=command, t=text: subprocess.run(c, input=t.encode(), capture_output=True), "cpu")
    return found


def start_up() -> dict[str, Any]:
    found = {}
    for arguments in (["check", "adam"], ["fmt", "--check", "adam"], ["show", "adam", "--as", "text"]):
        command = [sys.executable, "-m", "optlang", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        runs = [timed(lambda c=command: subprocess.run(c, check=True, capture_output=True), "cpu") for _ in range(7)]
        found[" ".join(arguments)] = spread(runs)
    return found


def lines(name: str) -> int:
    [path] = (ROOT / "library").rglob(f"{name}.opt")
    return sum(bool(line.split("#")[0].strip()) for line in path.read_text().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-step", type=int, metavar="BLOCKS", help="print the seconds of one first step and stop")
    parser.add_argument("--backend", default="auto", help="of that first step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=3, help="of first steps")
    parser.add_argument("--steps", type=int, default=15, help="steady steps of every contestant")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    if chosen.first_step:
        print(first_step(chosen.first_step, chosen.device, chosen.backend))
        return
    device = torch.cuda.get_device_name() if chosen.device == "cuda" else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    found = {
        "date": date.today().isoformat(), "device": device, "torch": torch.__version__, "python": platform.python_version(),
        "lines": {name: lines(name) for name in ("adam", "lion")},
        "check library (s)": check_library(), "start-up (s)": start_up(), "hostile input (s)": hostile(),
        "first step (s)": {backend: first_steps(chosen.device, chosen.repeats, backend) for backend in ("auto", "torch")},
        "recompilations in 1000 steps of OneCycleLR": recompilations(1000),
        "steady step": steady(gpt2(), chosen.device, chosen.steps),
        "steady step, 290 small tensors": steady(small(), chosen.device, 4 * chosen.steps),
    }  # fmt: skip
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
