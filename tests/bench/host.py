"""What a step takes on the host: every rule on tiny tensors, `python tests/bench/host.py --json out.json [RULE…]`.

Processor time of one thread, in microseconds, steps of `ROUND` at a time: the median of the rounds, or with `--least` the least of
them, for machines that others work on. Tensors are so small that next
to nothing is computed. The aim is 50 µs and 0.2 µs for each tensor. `stay`: no setting changes; `lr`: it does in every step, and
nothing else; `all`: every setting that is not whole does. Rules that ask the model are told apart: their closure hands out gradients that
are there. What closures take where they are called, and with them autograd's products with the Hessian, is no work of an optimizer: it is
taken away, and stands there as `model`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

import optlang
from optlang import library
from optlang.bench.models import parameters
from optlang.bench.results import device_name
from optlang.ir import Program, Routing
from optlang.ops import ASKING

SHAPE = (4, 4)
FEW, MANY = 1, 200  # tensors
FIRST = 12  # steps, in which everything is found out
ROUND = 40  # steps: a look at the clock takes as long as some of them
LONGEST = 500.0  # microseconds of a round of more than two steps: what else runs on the machine comes in between less often
WHOLE, FEWEST = 500_000.0, 15  # microseconds of all rounds, and rounds of what takes longer
FIXED, EACH = 50.0, 0.2  # what is wanted, µs
BIT = 1e-9  # settings change by so much
Step = Callable[[], Any]
Of = Callable[[list[float]], float]  # many times become one
GRAD = torch.autograd.grad


def programs(rule: str) -> list[Program]:
    made = optlang.Rule(rule).program
    return [case.program for case in made.cases] if isinstance(made, Routing) else [made]


def asks(rule: str) -> list[str]:
    """What a rule wants from the model beside gradients."""
    return sorted({op for program in programs(rule) for op in ASKING if program.uses(op)})


class Model:
    """What a step calls that is no work of its own, and microseconds in it, those of the looks at the clock included."""

    def __init__(self, call: Step) -> None:
        self._call, self.spent, self.look = call, 0.0, 0.0

    def __call__(self, *given: Any, **more: Any) -> Any:
        start = time.thread_time_ns()
        try:
            return self._call(*given, **more)
        finally:
            self.spent += (time.thread_time_ns() - start) / 1e3 + self.look

    def calibrate(self) -> None:
        """What looking takes beside what it sees."""
        empty = Model(lambda: None)
        _round([empty], FIRST)
        found = [(_round([empty], ROUND), setattr(empty, "spent", 0.0))[0] - empty.spent / ROUND for _ in range(ROUND)]
        self.look = min(found)


def made(rule: str, count: int, backend: str) -> tuple[Any, Step, list[Model]]:
    """An optimizer of tiny tensors, its step, and what that calls."""
    params = parameters([SHAPE] * count, torch.device("cpu"))
    cls: Any = optlang.load(rule, backend=backend)
    optimizer = cls([(f"block.{i}.weight", p) for i, p in enumerate(params)])
    for program in programs(rule):
        optimizer.inputs |= {one.name: torch.full((), 0.5) for one in program.inputs}
    if not asks(rule):
        return optimizer, optimizer.step, []
    loss, gradients = torch.tensor(1.0), [p.grad for p in params]

    def closure() -> torch.Tensor:
        if is_twice:
            return _twice(params)
        for p, gradient in zip(params, gradients, strict=True):
            p.grad = gradient
        return loss

    is_twice = "hvp" in asks(rule)
    model, products = Model(closure), Model(GRAD)
    torch.autograd.grad = products  # type: ignore[assignment]  # by which batches multiply with the Hessian
    return optimizer, lambda: optimizer.step(model), [model, products]


def _twice(params: list[torch.nn.Parameter]) -> torch.Tensor:
    """A loss with gradients that can be differentiated again."""
    loss = torch.stack([(p**2).sum() for p in params]).sum()
    loss.backward()
    return loss


def changing(optimizer: Any, only_lr: bool) -> Step:
    """Gives groups other settings, hardly: from step to step by as much more or less."""
    kept = [dict(group) for group in optimizer.param_groups]
    keys = [[key for key, value in group.items() if _is_setting(key, value) and (key == "lr" or not only_lr)] for group in kept]
    turn = [0]

    def change(by: float = 1 - BIT) -> None:
        turn[0] ^= 1
        for group, old, some in zip(optimizer.param_groups, kept, keys, strict=True):
            for key in some:
                group[key] = _times(old[key], by if turn[0] else 1.0)

    try:
        change()
        optimizer.read_settings()
    except ValueError:  # one of them must not be less
        change()  # back
        return lambda: change(1 + BIT)
    return change


def _is_setting(key: str, value: Any) -> bool:
    return key != "params" and (type(value) is float or (type(value) is tuple and all(type(x) is float for x in value)))


def _times(value: Any, factor: float) -> Any:
    """Another object, as schedulers make, also of the same value."""
    return tuple(x * factor for x in value) if type(value) is tuple else value * factor


def timed(step: Step, rounds: int, before: Sequence[Step], of: Of = statistics.median, models: Sequence[Model] = ()) -> tuple[float, float]:
    """Microseconds of a step, without what comes before each and what it calls, and those of the latter; the clock of the processor is
    looked at before and after all of a round."""
    once = max(1.0, _round([*before, step], 2))
    steps = max(2, min(ROUND, int(LONGEST / once)))
    found = []
    for _ in range(min(rounds, max(FEWEST, int(WHOLE / (steps * once))))):
        for model in models:
            model.spent = 0.0
        whole = _round([*before, step], steps)
        found.append((whole, _round(before, steps), sum(model.spent for model in models) / steps))
    whole, without, called = (of([row[place] for row in found]) for place in range(3))  # the least difference would be chance
    return whole - without - called, called


def _round(calls: Sequence[Step], steps: int) -> float:
    start = time.process_time_ns()
    for _ in range(steps):
        for call in calls:
            call()
    return (time.process_time_ns() - start) / steps / 1e3


def figures(rule: str, backend: str, rounds: int, of: Of = statistics.median) -> dict[str, Any]:
    found: dict[str, Any] = {"asks": asks(rule)} if asks(rule) else {}
    for count in (FEW, MANY):
        optimizer, step, models = made(rule, count, backend)
        for model in models:
            model.calibrate()
        turn = turning(optimizer)
        _round([turn, step], FIRST)
        timed(step, 2, [turn])
        ways = {"stay": [turn], "lr": [turn, changing(optimizer, True)], "all": [turn, changing(optimizer, False)]}
        if not any("lr" in group for group in optimizer.param_groups):
            del ways["lr"]
        row = {name: timed(step, rounds, before, of, models) for name, before in ways.items()}
        found[str(count)] = {name: round(own, 1) for name, (own, _) in row.items()}
        if models:
            found[str(count)]["model"] = round(row["stay"][1], 1)
    torch.autograd.grad = GRAD
    return found


def turning(optimizer: Any) -> Step:
    """Turns all gradients around: what goes one way for ever grows beyond all numbers, with which processors are slow."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return lambda: torch._foreach_neg_(gradients)


def is_inside(found: dict[str, Any], what: str) -> bool:
    return all(found[str(count)].get(what, 0.0) <= FIXED + EACH * count for count in (FEW, MANY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE", help="default: all of the library")
    parser.add_argument("--backend", default="cpp")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--least", action="store_true", help="the least of the rounds instead of their median")
    parser.add_argument("--json", type=Path, help="write all figures there")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rules: dict[str, Any] = {}
    for rule in chosen.rules or library.names():
        try:
            rules[rule] = figures(rule, chosen.backend, chosen.rounds, min if chosen.least else statistics.median)
        except Exception as problem:  # one rule that cannot be stepped like this is no reason to lose the others
            rules[rule] = {"failed": f"{type(problem).__name__}: {problem}"[:200]}
        print(rule, json.dumps(rules[rule]), flush=True)
    inside = {what: sum("failed" not in x and is_inside(x, what) for x in rules.values()) for what in ("stay", "lr", "all")}
    which = "least" if chosen.least else "median"
    about = {
        "date": date.today().isoformat(), "device": device_name(torch.device("cpu")), "torch": torch.__version__,
        "what": f"microseconds of processor time, one thread, {FEW} and {MANY} tensors of {SHAPE}, {which} of the rounds",
        "wanted": [FIXED, EACH],
        "rules": len(rules), "inside": inside,
    }  # fmt: skip
    print(json.dumps(about, indent=1))
    if chosen.json:
        lines = ",\n".join(f"  {json.dumps(rule)}: {json.dumps(found)}" for rule, found in rules.items())
        chosen.json.write_text(json.dumps(about, indent=1)[:-2] + f',\n "by rule": {{\n{lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
