"""Every rule, and its generated module, on several processes beside one: what was found is docs/sharded.json.

`python tests/sharded_rules.py OUT.json` (`make sharded`) asks what the file does not have as it is now, on 2 and on 4 processes.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import sharded_runs
import torch
from marks import mark_of
from several_processes import everywhere, sharding
from sharded_runs import BY_COLUMNS, SHAPES, STEPS, alone, load, made_of, module_of, off, run, start
from torch import Tensor, distributed

import optlang
from optlang import library

CLIPPED = """rule Clipped { hyper lr = 0.1 in (0, inf) state m = 0 state far per model = 0
  n = norm(g per model)  far' = max(far, n)  m' = 0.9*m + g/max(1, n)  w' = w - lr*m'/(1 + far') }"""
WINDOWED = "rule Windowed { hyper lr = 0.1 in (0, inf) state old[3] = 0 old' = push(old, g) w' = w - lr*mean(old') }"
DRAWN = """rule Drawn { state m = 0 m' = where(t == 1, normal(), m) + g*uniform()
  w' = w - 0.1*m'*max(abs(g) per tensor)/count(g per tensor) }"""
BLOCKED = "rule Blocked { hyper lr = 0.1 in (0, inf) when rank >= 2 { d = g/max(1e-3, norm(g)) } else { d = g } w' = w - lr*d }"
SOME = ["adamw", "lion", "momentum", "schedulefreeadamw", "lamb", "lars", "adafactor", "muonwithadamw", "prodigy", "gravity", "adamcm",
        "sps", "sophiah"]  # fmt: skip
MODULES = ["adamw", "lamb", "prodigy", "soap", "muonwithadamw", "sam", "sps", "gravity", "smb", "sophiah", "mezo", "stablespam"]
EVERYTHING = [*library.names(), CLIPPED, WINDOWED, DRAWN]
SIXTH = [*library.names()[::-6], CLIPPED, WINDOWED, DRAWN]
TOGETHER = 40  # rules that processes are started for
MODULE_WAYS = ("by torch's DTensors", "gathered")
FAR = 1000  # how far weights go, so that a difference of a thousandth of that is seen
ALIKE = ("RandomScaledAdamW", "RandomScaledMomentum")  # all they have in common is a number that each draws from the same seed


def in_parts(world: int) -> Callable[[Tensor], Any]:
    """Some tensors along rows, some along columns."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    mesh = init_device_mesh("cpu", (world,))
    return lambda x: sharding(mesh, Shard(sharded_runs.cut_along(x.shape)))(x)


def every_rule(world: int, rules: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """How each rule is stepped, and how far it is from one process, in units of what is allowed; each process asks for its share."""
    spread, found = in_parts(world), {}
    for place, rule in enumerate(rules or (SIXTH if world == 2 else [*SOME, CLIPPED, WINDOWED, DRAWN, BLOCKED])):
        name = optlang.Rule(rule).name
        params = {name: spread(p).requires_grad_() for name, p in start(rule).items()}
        try:
            optimizer = made_of(rule, params)
        except ValueError as problem:
            found[name] = {"refused": str(problem).partition(": ")[2]}
            continue
        run(optimizer, params, range(STEPS // 2), spread)
        again = made_of(rule, params)  # the second half in another optimizer, which has loaded the states
        again.load_state_dict(optimizer.state_dict())
        run(again, params, range(STEPS // 2, STEPS), spread)
        end = sharded_runs.stored(again, params, everywhere_alike)
        if place % world == distributed.get_rank():
            wanted = sharded_runs.stored(*alone(rule, STEPS))
            proof = {"went": went(rule, wanted), "lone": sharded_runs.lone(rule, world, wanted)}
            found[name] = {"way": way_of(again), **told(sharded_runs.farthest(end, wanted) | proof)}
    wrong = {name: row for name, row in found.items() if wrong_with(name, row)}
    assert not wrong or rules, wrong
    return found


def everywhere_alike(names: list[str]) -> list[str]:
    """Those that all processes have, in one order."""
    said: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(said, names)
    return sorted(set(names).intersection(*said))


def went(rule: str, wanted: dict[str, Tensor]) -> float:
    """How far the weights went, in the units that differences are told in."""
    return max(off(wanted[name], p) for name, p in start(rule).items())


def told(numbers: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{min(x, 1e38):.3g}") for name, x in numbers.items()}


def wrong_with(name: str, row: dict[str, Any]) -> str:
    """What speaks against that a rule takes the steps of one process, or against the test of it."""
    if "refused" in row or "fails" in row:
        return row.get("fails", "")
    if max(row["off"], row.get("states", 0)) > 1:
        return "other steps"
    if row.get("went", FAR) < FAR:
        return "hardly a step"
    alike = row.get("way") in ("by element", *MODULE_WAYS) or name in ALIKE
    return "" if alike or row["lone"] > 10 else "nothing that processes must tell each other"


def every_module(world: int, rules: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The generated modules of rules, beside one process: torch's DTensors do the work, parameters are gathered, or they are refused."""
    spread, found = in_parts(world), {}
    for place, rule in enumerate(rules or MODULES):
        name = optlang.Rule(rule).name
        params = {name: spread(p).requires_grad_() for name, p in start(rule).items()}
        space, settings = module_of(rule), sharded_runs.settings_of(rule)
        try:
            optimizer = space[name](list(params.items()), **settings)
        except ValueError as problem:
            found[name] = {"refused": str(problem)}
            continue
        optimizer.cases = load(rule).cases
        try:
            run(optimizer, params, range(STEPS), spread)
        except RuntimeError as problem:  # torch's DTensors cannot, on any process
            found[name] = {"fails": str(problem)[:300]}
            continue
        end = sharded_runs.stored(optimizer, params, everywhere_alike)
        if place % world == distributed.get_rank():
            one = {name: p.requires_grad_() for name, p in start(rule).items()}
            there = space[name](list(one.items()), **settings)
            there.cases = optimizer.cases
            run(there, one, range(STEPS), lambda x: x)
            wanted = sharded_runs.stored(there, one)
            way = MODULE_WAYS["_whole_parameters" in space]
            found[name] = {"way": way, **told(sharded_runs.farthest(end, wanted) | {"went": went(rule, wanted)})}
    refused = {name for name, row in found.items() if "refused" in row}
    assert rules or (refused == {"SophiaH", "MeZO"} and not any(wrong_with(*row) for row in found.items())), found
    return found


def way_of(optimizer: Any) -> str:
    said = optimizer.describe()
    ways = [("gathered whole" in said, "whole"), ("reduced over the processes" in said, "parts with values of all")]
    return ", ".join(word for holds, word in ways if holds) or "by element"


# ------------------------------------------------------------------------------------------------------- what is kept


def main(out: Path) -> int:
    """Every rule and its module on 2 and on 4 processes that a file does not have as they are now, what was found into the file."""
    kept = json.loads(out.read_text()) if out.exists() else {"seconds": 0}
    for task, part in ((every_rule, "rules"), (every_module, "modules")):
        for world in (2, 4):
            known = kept.setdefault(part, {}).setdefault(str(world), {})
            waiting = [rule for rule in EVERYTHING if not is_known(known.get(optlang.Rule(rule).name, {}), rule)]
            for first in range(0, len(waiting), TOGETHER):
                begun = sum(os.times()[:4])
                rules = waiting[first : first + TOGETHER]
                said = everywhere(world, [task], rules, 3000)
                if problems := [problem for _, _, problem, _ in said if problem]:
                    print(problems[0])
                    return 1
                rows = {name: row for *_, found in said for name, row in found.items()}
                known |= {name: {**rows[name], "mark": mark_of(rule)} for rule in rules for name in [optlang.Rule(rule).name]}
                kept["seconds"] += sum(os.times()[:4]) - begun
                out.write_text(json.dumps(summary(kept), indent=1) + "\n")
    print(f"{kept['counts']}; {kept['different']} different; wrote {out}")
    return 1 if kept["different"] else 0


def is_known(row: dict[str, Any], rule: str) -> bool:
    """Whether a row is of the rule as it is, with what speaks for the test of it."""
    return row.get("mark") == mark_of(rule) and ("went" in row or "refused" in row)


def summary(kept: dict[str, Any]) -> dict[str, Any]:
    """What was found, with its counts before it."""
    rows = {part: kept.get(part, {}) for part in ("rules", "modules")}
    ways = {part: {world: dict(Counter(row.get("way", "refused") for row in known.values()))
                   for world, known in found.items()} for part, found in rows.items()}  # fmt: skip
    kept |= {"counts": ways, "different": sum(bool(wrong_with(*row)) for found in rows.values() for known in found.values()
                                              for row in known.items())}  # fmt: skip
    return {
        "what": "4 steps on Gloo processes that hold parts beside one process, float32; rules in 2 optimizers, the second of which has "
                "loaded the states; off: largest difference of weights over 1e-6 + 1e-5 of the value; states: that of states over 1e-4 of "
                "the largest number of each; went: how far weights went, as off; lone: how far, as the larger of off and states, processes "
                "would be that tell each other nothing, 1e38 where they cannot step at all; mark: of the equations and defaults",
        "date": str(date.today()), "machine": f"{platform.machine()} CPU, torch {torch.__version__}",
        "seconds": round(kept["seconds"]), "shapes": list(SHAPES.values()),
        "cut by columns": [SHAPES[name] for name in BY_COLUMNS], "counts": ways, "different": kept["different"], **rows,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
