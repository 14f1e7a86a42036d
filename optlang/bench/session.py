"""One bench from start to end: contestants are made, timed in turn, measured afresh, shown and written."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from optlang.backends.base import StepError
from optlang.backends.kernels.build import NoCompiler
from optlang.bench.contestants import Contestant, contestants, rule_of
from optlang.bench.footprint import Footprint
from optlang.bench.measure import Fresh, Spread, bandwidth, fresh, in_turn
from optlang.bench.models import MODELS, Shapes, names, parameters
from optlang.bench.results import Bench, Line, device_name, plot
from optlang.bench.stream import Pass, stream
from optlang.ir import Program
from optlang.plan import plan
from optlang.simplify import simplify

Step = Callable[[], Any]
Floor = tuple[str, str, str]  # ONCE or PASSES, the rule and the format of its states
ONCE, PASSES = "once", "passes"  # each array once, or as often as the passes of its kernels go over it
WIDTH = 140  # of tables in files
MATRIX = (128, 64)  # an example


@dataclass
class Taken:
    """Seconds of the steps on one model, and of the floors that were measured beside them; why others took none."""

    times: dict[Contestant | Floor, list[float]] = field(default_factory=dict)
    failed: dict[Contestant, str] = field(default_factory=dict)


def measured(chosen: argparse.Namespace) -> int:
    """The exit code. Raises OptError, ValueError for choices that do not fit, OSError where nothing can be written."""
    device = _device(chosen.device)
    _check(chosen, device)
    everyone = contestants(chosen.rules, chosen.backends, chosen.states, chosen.peers, device.type, chosen.products)
    if chosen.busy:
        torch.set_num_threads(1)
    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        rules = len({one.rule for one in everyone})
        bar = progress.add_task("copies", total=len(chosen.model) * (rules * chosen.steps + len(everyone) * (not chosen.quick)))
        bench = Bench(device_name(device), bandwidth(device), chosen.dtype, "processor" if chosen.busy else "wall")
        for model in chosen.model:
            _measure(model, everyone, bench, chosen, device, partial(progress.update, bar))
    bench.show(console)
    bench.write(out / "bench.json")
    plot(bench, out / "bench.png")
    console.print(f"wrote {out / 'bench.json'} and {out / 'bench.png'}", highlight=False)
    return int(any(line.remark for lines in bench.models.values() for line in lines))


def _check(chosen: argparse.Namespace, device: torch.device) -> None:
    if chosen.steps < 1:
        raise ValueError(f"--steps is {chosen.steps}; it takes 1 or more")
    if chosen.busy and device.type != "cpu":
        raise ValueError("--busy is for the CPU: other work on a GPU cannot be told apart from one's own")


def _measure(
    model: str, everyone: Sequence[Contestant], bench: Bench, chosen: argparse.Namespace, device: torch.device, say: Callable[..., None],
) -> None:  # fmt: skip
    """Steps rule by rule, then what is measured in fresh processes; a line for each goes into the bench."""
    dtype, shapes = getattr(torch, chosen.dtype), MODELS[model]()
    clock = time.process_time if chosen.busy else time.perf_counter
    bench.tensors[model], bench.numbers[model] = len(shapes), sum(torch.Size(s).numel() for s in shapes)
    weights = parameters(shapes, device, dtype)
    taken = Taken()
    say(description=f"{model}: steps in turn")
    for rule in dict.fromkeys(one.rule for one in everyone):
        _steps([one for one in everyone if one.rule == rule], weights, names(model), taken,
               lambda ready: in_turn(ready, chosen.steps, device, partial(say, advance=1), clock))  # fmt: skip
        gc.collect()  # their states, before those of the next rule
    for one in everyone:
        say(description=f"{model}: {one.label}")
        line = _line(one, model, bench, taken, None if chosen.quick else (device, dtype))
        bench.models.setdefault(model, []).append(line)
        say(advance=0 if chosen.quick else 1)


def _device(name: str) -> torch.device:
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"--device is {name!r}; it takes cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device that torch can use here; leave out --device, or say --device cpu")
    return torch.device(name)


def _steps(
    everyone: Sequence[Contestant], weights: Sequence[torch.nn.Parameter], called: Sequence[str], taken: Taken,
    measure: Callable[[Any], Any],
) -> None:  # fmt: skip
    """Those that can step, and on the CPU the floors of our rules."""
    ready: dict[Contestant | Floor, Step] = {}
    for one in everyone:
        try:
            optimizer, step = one.build(weights, called)
            step()
            ready[one] = step
            if one.package == "optlang" and weights[0].device.type == "cpu":
                ready.setdefault((ONCE, one.rule, one.state), stream(optimizer))
                if len(passes := _passes(one)) > 1:
                    ready.setdefault((PASSES, one.rule, one.state), stream(optimizer, passes))
        except NoCompiler:
            continue  # the speed of a copy is left as the floor
        except Exception as problem:  # other people's packages fail in their own ways; a line says how
            taken.failed[one] = f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
    taken.times |= measure(ready)


def _line(one: Contestant, model: str, bench: Bench, taken: Taken, afresh: tuple[torch.device, torch.dtype] | None) -> Line:
    if one in taken.failed:
        return Line(one.label, None, remark=taken.failed[one])
    times = taken.times[one]
    floor, ratio = _floor(one, model, bench, taken)
    found: Fresh | None = None
    remark = ""
    if afresh is not None:
        try:
            found = fresh(one, model, *afresh)
        except RuntimeError as problem:
            remark = str(problem)
    beside = taken.times.get((PASSES, one.rule, one.state))
    passes = None if beside is None else Spread.ratio(times, beside)
    return Line(one.label, Spread.of(times), found, floor, ratio, passes, remark, times)


def _passes(one: Contestant) -> Sequence[Pass]:
    """What the passes of a rule's kernels go over in a matrix; none for a route, whose parameters go several ways."""
    program = rule_of(one.rule).program
    if not isinstance(program, Program):
        return []
    with suppress(StepError):
        footprint = Footprint(plan(simplify(program)), MATRIX, one.state)
        return [] if footprint.refused else footprint.traffic
    return []


def _floor(one: Contestant, model: str, bench: Bench, taken: Taken) -> tuple[float | None, Spread | None]:
    """Seconds, and how many of them a step takes: beside the kernel that computes nothing where there is one."""
    times = taken.times[one]
    beside = taken.times.get((ONCE, one.rule, one.state))
    if beside is not None:
        return Spread.of(beside).median, Spread.ratio(times, beside)
    floor = _by_copy(one, MODELS[model](), bench)
    return floor, None if floor is None else Spread.of([x / floor for x in times])


def _by_copy(one: Contestant, shapes: Shapes, bench: Bench) -> float | None:
    """Seconds; None for a route, whose parameters go several ways, and for weights that are not float32."""
    program = rule_of(one.rule).program
    if not isinstance(program, Program) or bench.dtype != "float32":
        return None
    cut = plan(simplify(program))
    try:
        each = {shape: Footprint(cut, shape, one.state).floor * torch.Size(shape).numel() for shape in set(shapes)}
    except StepError:
        return None
    return sum(each[shape] for shape in shapes) / bench.bandwidth.median
