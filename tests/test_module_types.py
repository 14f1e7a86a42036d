"""Generated modules beside torch's own optimizers: types of all of them in one strict run of mypy, and what a training loop asks.

Every third rule is asked here; OPTLANG_EVERYTHING=1 asks all. 25 seconds.
"""

from __future__ import annotations

import inspect
import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import counts
import pytest
import torch
from stepping import finite, shapes_for
from torch import Tensor

import optlang
from optlang import library
from optlang.analysis.needs import DIVIDING
from optlang.ir import Routing

NAMES = library.names() if "OPTLANG_EVERYTHING" in os.environ else library.names()[::3]
SHAPES = [(4, 3), (5,)]
MATRICES = "torch's functions for matrices wait for the device"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules of all rules."""
    folder = tmp_path_factory.mktemp("modules")
    for name in library.names():
        (folder / f"rule_{name}.py").write_text(optlang.build(name))
    return folder


def test_every_module_passes_mypy_strictly(written: Path, tmp_path: Path) -> None:
    rules = "rule A { w' = w - g*norm(g per model) } rule B { w' = w - grad(w + g)*max(norm(g per group) per model) }"
    (written / "route.py").write_text(optlang.build(f"{rules} route R {{ when rank == 2 use A() otherwise use B() }}", "R"))
    (written / "kernels.py").write_text(optlang.build("powersign", triton=True))
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", "--cache-dir", str(tmp_path), str(written)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=800)
    assert done.returncode == 0, done.stdout[-4000:]


def test_how_many_graphs_take(written: Path) -> None:
    """As the page of limits counts them, and of the others why not."""
    texts = [path.read_text() for path in written.glob("rule_*.py")]
    why = Counter(words for text in texts for words in set(re.findall(r'cannot be capturable: (.*); "', text)))
    assert [why.pop(words) for words in ("it asks the model again", MATRICES)] == counts.uncapturable()
    assert not why


def test_they_refuse_what_the_loaded_rule_refuses_of_tools(written: Path) -> None:
    """Some of the parameters, or numbers without shapes; in the same words."""
    pytest.importorskip("torch.distributed.optim.zero_redundancy_optimizer")
    said: dict[str, Counter[bool]] = {words: Counter() for words in ("plain", "flat", *DIVIDING)}
    for name in library.names():
        cls, program = made(name, written)
        params = start(program)
        tool = list(DIVIDING)[sum(map(ord, name)) % len(DIVIDING)]
        for words, how in ((tool, tool), ("plain", "made"), ("flat", "made")):
            for _, p in params:
                p._fsdp_flattened = words == "flat"  # type: ignore[attr-defined]
            ours, theirs = (refusal(how, one, params) for one in (cls, optlang.load(name)))
            assert ours == re.sub(r"p\d, whose", "parameters whose", theirs)
            said[words][bool(ours)] += 1
    assert not said.pop("plain")[True]
    assert all(counts[True] and counts[False] for counts in said.values())


def refusal(module: str, cls: Any, params: list[tuple[str, Tensor]]) -> str:
    """What an optimizer says that is made by a function of some module."""
    try:
        eval("lambda cls, params: cls(params)", {"__name__": module})(cls, params)
    except ValueError as problem:
        return str(problem)
    return ""


def made(name: str, written: Path) -> tuple[Any, Any]:
    program = optlang.Rule(name).program
    space: dict[str, Any] = {"__name__": "made"}
    exec(compile((written / f"rule_{name}.py").read_text(), "<module>", "exec"), space)
    return space[program.name], program


def some(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(program: Any, first: int = 0) -> list[tuple[str, Tensor]]:
    return [(f"p{first + i}", some(shape, first + i).requires_grad_()) for i, shape in enumerate(shapes_for(program, SHAPES))]


def run(optimizer: Any, program: Any, steps: range, sign: int = 1) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    cases = [case.program for case in program.cases] if isinstance(program, Routing) else [program]
    for step in steps:
        for wanted in [i.name for case in cases for i in case.inputs]:
            optimizer.inputs[wanted] = {p: some(tuple(p.shape), step) ** 2 for p in params}

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = sum(((p**2).sum() / 2 + (p * some(tuple(p.shape), 100 + step + i)).sum() for i, p in enumerate(params)), torch.zeros(()))
            (sign * loss).backward()  # type: ignore[no-untyped-call]
            return sign * loss

        optimizer.step(closure)


def weights(optimizer: Any) -> list[Tensor]:
    return [p.detach() for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("name", NAMES)
def test_it_behaves_as_torchs_own(name: str, written: Path) -> None:
    """Groups and settings of their own, checkpoints through `weights_only`, groups added later, `maximize`, documentation."""
    cls, program = made(name, written)
    optimizer = cls([{"params": start(program)}])
    run(optimizer, program, range(2))
    optimizer.add_param_group({"params": start(program, 2)})
    run(optimizer, program, range(2, 3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = cls([{"params": start(program)}])
    resumed.add_param_group({"params": start(program, 2)})
    with torch.no_grad():
        for p, q in zip(weights(resumed), weights(optimizer), strict=True):
            p.copy_(q)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for o in (optimizer, resumed):
        run(o, program, range(3, 5))
    for p, q in zip(weights(optimizer), weights(resumed), strict=True):
        finite(p)
        assert torch.equal(p, q)
    told = [f for n, f in inspect.getmembers(cls, inspect.isfunction) if n in ("step", "eval", "train", "load_state_dict")]
    assert cls.__doc__ and all(f.__doc__ for f in told)


@pytest.mark.parametrize("name", NAMES)
def test_upwards_it_takes_the_steps_of_the_negative_loss(name: str, written: Path) -> None:
    cls, program = made(name, written)
    down, up = cls(start(program)), cls(start(program), maximize=True)
    run(down, program, range(3))
    run(up, program, range(3), -1)
    for p, q in zip(weights(down), weights(up), strict=True):
        finite(p)
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
