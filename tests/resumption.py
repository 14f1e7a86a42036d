"""A run that is cut in the middle, saved with `torch.save`, loaded with `weights_only=True`, and gone on with: bit by bit the same.

`python tests/resumption.py OUT.json` asks every rule in every precision and writes what was found (`make resume`); rules that the
file has as they are now it does not ask again.
"""

from __future__ import annotations

import io
import json
import platform
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from marks import changed, mark_of
from sharded_runs import settings_of
from stepping import shapes_for
from torch import Tensor

import optlang
from optlang import library

SHAPES = [(24, 15), (7,)]  # more than one block of 256 or 128 elements, and one that is not full
Params = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Precision:
    """In which formats the parameters and states of a run are kept."""

    state: str | None = None
    weights: str = "nearest"
    low: bool = False  # parameters of bfloat16

    def __str__(self) -> str:
        return f"{'bf16' if self.low else 'fp32'} {self.weights}, states {self.state or 'fp32'}"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.low else torch.float32


PRECISIONS = [
    *(Precision(state) for state in (None, "bf16", "fp8", "int8", "int4")),
    *(Precision(None, weights, True) for weights in ("nearest", "stochastic", "compensated")),
    *(Precision(state, weights, True) for state, weights in (("bf16", "stochastic"), ("int8", "compensated"), ("int4", "stochastic"))),
]


def some(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def start(rule: Any, precision: Precision) -> Params:
    shapes = shapes_for(rule, SHAPES)
    return [(f"p{i}", some(shape, i, precision.dtype).requires_grad_()) for i, shape in enumerate(shapes)]


def run(optimizer: Any, params: Params, steps: range) -> None:
    """Some steps down a bowl, with noise of each step, by a closure that the rule may call again."""
    for step in steps:

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = torch.zeros(())
            for _, p in params:
                loss = loss + (p.float() ** 2).sum() / 2 + (p * some(tuple(p.shape), 100 + step, p.dtype)).float().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        for wanted in [i.name for case in optimizer.cases for i in case.program.inputs]:
            optimizer.inputs[wanted] = {p: some(tuple(p.shape), step, torch.float32) ** 2 for _, p in params}
        optimizer.step(closure)


def differences(name: str, precision: Precision) -> list[str]:
    """What is not the same after a run that was cut, or why that tells nothing; ValueError where the rule refuses the precision."""
    cls: Any = optlang.load(name, state=precision.state, weights=precision.weights)
    params, settings = start(cls.rule, precision), settings_of(name)
    begun = [p.detach().clone() for _, p in params]
    optimizer = cls(params, **settings)
    run(optimizer, params, range(3))
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "params": {n: p.detach() for n, p in params}}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    others = [(n, saved["params"][n].clone().requires_grad_()) for n, _ in params]
    resumed = cls(others, **settings)
    resumed.load_state_dict(saved["optimizer"])
    for o, ps in ((optimizer, params), (resumed, others)):
        run(o, ps, range(3, 6))
    if not all(p.isfinite().all() for _, p in params):
        return ["the numbers run away, so nothing can be told apart"]
    if all(torch.equal(p, old) for (_, p), old in zip(params, begun, strict=True)):
        return ["no weight moves, so nothing can be told apart"]
    found = []
    for (label, p), (_, q) in zip(params, others, strict=True):
        pairs = {"w": (p.detach(), q.detach()), **{k: (v, resumed.state[q].get(k)) for k, v in optimizer.state[p].items()}}
        found += [f"{label}.{key}" for key, (x, y) in pairs.items() if not same(x, y)]
        found += [f"{label}.{key} is new" for key in resumed.state[q].keys() - optimizer.state[p].keys()]
    return found


def same(x: Any, y: Any) -> bool:
    """Bit by bit, NaNs alike."""
    if not isinstance(y, Tensor) or x.dtype != y.dtype or x.shape != y.shape:
        return False
    return bool(torch.equal(x.contiguous().reshape(-1).view(torch.uint8), y.contiguous().reshape(-1).view(torch.uint8)))


def found_of(name: str) -> dict[str, Any]:
    """In how many precisions a rule goes on bit by bit; where it does not, and where it refuses."""
    found: dict[str, Any] = {"mark": mark_of(name), "equal": 0}
    for precision in PRECISIONS:
        try:
            apart = differences(name, precision)
        except ValueError as problem:
            found.setdefault("refused", {})[str(precision)] = str(problem)
            continue
        if apart:
            found.setdefault("different", {})[str(precision)] = apart
        found["equal"] += not apart
    return found


def main(out: Path) -> int:
    """Every rule that the file does not have as it is now, in every precision; what was found goes into the file as it comes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = json.loads(out.read_text()) if out.exists() else {"seconds": 0, "rules": {}}
    for name in changed(library.names(), {name: found["mark"] for name, found in kept["rules"].items()}):
        begun = time.process_time()
        kept["rules"][name] = found_of(name)
        kept["seconds"] += time.process_time() - begun
        out.write_text(json.dumps(summary(kept), indent=1) + "\n")
    found = kept["rules"].values()
    different, refused = (sum(key in rule for rule in found) for key in ("different", "refused"))
    print(f"{sum(rule['equal'] for rule in found)} equal, {different} rules different, {refused} refused; wrote {out}")
    return 1 if different else 0


def summary(kept: dict[str, Any]) -> dict[str, Any]:
    return {
        "what": "runs cut after 3 of 6 steps, saved, loaded with weights_only=True and gone on with: in how many precisions a rule does "
                "so bit by bit, with weights that are numbers and move; its mark stands for its equations and defaults",
        "date": str(date.today()), "machine": f"{platform.machine()} CPU, torch {torch.__version__}", "seconds": round(kept["seconds"], 1),
        "precisions": list(map(str, PRECISIONS)), "rules": dict(sorted(kept["rules"].items())),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
