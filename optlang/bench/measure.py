"""What is measured: steps in turn, bandwidth, first steps and memory in fresh processes."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from optlang.bench.contestants import Contestant
from optlang.bench.models import MODELS, names, parameters

One = TypeVar("One")
Clock = Callable[[], float]
WARM_UP = 3  # steps of each contestant before any is timed
LONGEST = 600  # seconds for a fresh process


@dataclass(frozen=True)
class Spread:
    """The median and the quartiles around it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Spread:
        """Of at least one measurement."""
        ordered = sorted(seconds)
        return Spread(statistics.median(ordered), ordered[len(ordered) // 4], ordered[-(len(ordered) // 4) - 1])

    @staticmethod
    def ratio(some: Sequence[float], others: Sequence[float]) -> Spread:
        """Of measurements to those taken beside them."""
        return Spread.of([a / b for a, b in zip(some, others, strict=True)])


@dataclass(frozen=True)
class Fresh:
    """In a process of its own: first steps with empty and with filled caches, and bytes that a later step takes beyond what it keeps."""

    cold: float
    warm: float
    kept: int
    extra: int | None


def timed(action: Callable[[], Any], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds until the device has done it."""
    _wait(device)
    start = clock()
    action()
    _wait(device)
    return clock() - start


def in_turn(
    steps: Mapping[One, Callable[[], Any]], count: int, device: torch.device, tell: Callable[[], None] = lambda: None,
    clock: Clock = time.perf_counter,
) -> dict[One, list[float]]:  # fmt: skip
    """Seconds of each contestant's steps. They take turns, so that a slow moment of the machine hits all of them."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    found: dict[One, list[float]] = {one: [] for one in steps}
    gc.collect()
    for _ in range(count):
        for one, step in steps.items():
            found[one].append(timed(step, device, clock))
        tell()
    return found


def bandwidth(device: torch.device, count: int = 1 << 26, repeats: int = 9) -> Spread:
    """Bytes per second that a copy of float32 numbers reads and writes; a gigabyte of memory is held meanwhile."""
    source, target = torch.ones(count, device=device), torch.empty(count, device=device)
    target.copy_(source)
    seconds = [timed(lambda: target.copy_(source), device) for _ in range(repeats)]
    return Spread.of([8 * count / one for one in seconds])


# -------------------------------------------------------------------------------------------------- fresh processes


def fresh(one: Contestant, model: str, device: torch.device, dtype: torch.dtype) -> Fresh:
    """Raises RuntimeError with what the process said where it fails."""
    with tempfile.TemporaryDirectory() as caches:
        cold, warm = (_asked(one, model, device, dtype, caches) for _ in range(2))
    return Fresh(cold["first"], warm["first"], warm["kept"], warm["extra"])


def _asked(one: Contestant, model: str, device: torch.device, dtype: torch.dtype, caches: str) -> dict[str, Any]:
    asked = json.dumps([asdict(one), model, str(device), str(dtype).removeprefix("torch.")])
    command = [sys.executable, "-m", "optlang.bench.measure", asked]
    places = {"TORCHINDUCTOR_CACHE_DIR": caches, "XDG_CACHE_HOME": caches, "TRITON_CACHE_DIR": caches}
    try:
        done = subprocess.run(command, env={**os.environ, **places}, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"a fresh process took more than {LONGEST} s") from None
    if done.returncode:
        raise RuntimeError(next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"exit code {done.returncode}"))
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _answer(asked: str) -> None:
    """What a fresh process does: steps, and prints its figures."""
    one, model, device, dtype = json.loads(asked)
    where = torch.device(device)
    weights = parameters(MODELS[model](), where, getattr(torch, dtype))
    optimizer, step = Contestant(**one).build(weights, names(model))
    first = timed(step, where)
    timed(step, where)
    timed(step, where)
    extra = _taken(step, where)
    print(json.dumps({"first": first, "kept": kept(optimizer), "extra": extra}))


def kept(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all states that are tensors."""
    states = [x for state in optimizer.state.values() if isinstance(state, Mapping) for x in state.values()]
    return sum(x.nbytes for x in states if isinstance(x, torch.Tensor))


def _taken(step: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that a step takes at its peak and gives back; None where the system does not tell."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        timed(step, device)
        return int(torch.cuda.max_memory_allocated() - before)
    try:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")  # the peak begins anew
        before = _resident("VmRSS")
        step()
        return max(_resident("VmHWM") - before, 0)
    except OSError:
        return None


def _resident(what: str) -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(what))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    _answer(sys.argv[1])
