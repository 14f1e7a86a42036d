"""Several processes: every rule takes the steps of one process, whoever holds which part. 60 seconds of processors.

What the processes do is in `parted_*` and `wrapped`. All rules, and their modules, are asked by `make sharded`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from marks import mark_of
from several_processes import everywhere
from sharded_checkpoints import there_and_back
from sharded_models import (
    copies_that_disagree,
    hessians_and_losses,
    hessians_of_fsdp2,
    models,
    models_apart,
    parts_put_into_groups,
    passes_without_backward,
    tensor_parallel,
)
from sharded_rules import EVERYTHING, every_module, every_rule, wrong_with
from sharded_runs import load
from sharded_steps import descriptions, evaluation, loaded_from_one_process, other_meshes, overflows, refusals
from torch import distributed, nn
from wrapped_optimizers import flattened_by_fsdp1, split_by_zero

import optlang

if not distributed.is_available() or sys.platform != "linux":
    pytest.skip("torch was built without processes that work together", allow_module_level=True)

TASKS = {task.__name__: task for task in (
    every_rule, every_module, overflows, loaded_from_one_process, descriptions, evaluation, other_meshes, models, tensor_parallel,
    there_and_back, passes_without_backward, parts_put_into_groups, refusals, copies_that_disagree, models_apart, hessians_and_losses,
    hessians_of_fsdp2, split_by_zero, flattened_by_fsdp1,
)}  # fmt: skip


@pytest.fixture(scope="module", params=[2, 4])
def found(request: Any) -> dict[str, list[str]]:
    """What went wrong in which process, by task."""
    world = request.param
    said: dict[str, list[str]] = {name: [] for name in TASKS}
    for name, rank, problem, _ in everywhere(world, list(TASKS.values())):
        said[name].append(f"process {rank}: {problem}" if problem else "")
    return {name: [*lines, *["this process did not come so far"] * (world - len(lines))] for name, lines in said.items()}


@pytest.mark.parametrize("task", TASKS)
def test_several_processes(found: dict[str, list[str]], task: str) -> None:
    assert not any(found[task]), "\n".join(found[task])


def test_tools_that_make_an_optimizer_of_some_parameters() -> None:
    """In one process, or by what a worker of torch's RPC calls."""
    from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
    from torch.distributed.optim.optimizer import _LocalOptimizer

    net = nn.Linear(3, 2)
    there: list[Any] = [SimpleNamespace(local_value=lambda p=p: p) for p in net.parameters()]
    _LocalOptimizer(load("lamb"), there)
    with pytest.raises(ValueError, match="Prodigy cannot step in torch's DistributedOptimizer, .* values per model or group"):
        _LocalOptimizer(load("prodigy"), there)
    with pytest.raises(ValueError, match="SAM cannot step in torch's _apply_optimizer_in_backward, .* asks the model"):
        _apply_optimizer_in_backward(load("sam"), net.parameters(), {})
    before = [p.detach().clone() for p in net.parameters()]
    _apply_optimizer_in_backward(load("sgd"), net.parameters(), {"lr": 1.0})
    net(torch.ones(3)).sum().backward()
    assert not any(map(torch.equal, net.parameters(), before))


def test_what_is_on_record_is_of_every_rule_as_it_is() -> None:
    """On 2 and on 4 processes; modules may refuse parts, with a reason."""
    record = json.loads((Path(__file__).parents[1] / "docs/sharded.json").read_text())
    marks = {optlang.Rule(rule).name: mark_of(rule) for rule in EVERYTHING}
    for part in ("rules", "modules"):
        for world in ("2", "4"):
            rows = record[part][world]
            assert {name: row["mark"] for name, row in rows.items()} == marks, "make sharded asks them"
            apart = {name for name, row in rows.items() if wrong_with(name, row)}
            refused = {name for name, row in rows.items() if "refused" in row}
            assert part == "modules" or all("went" in row and "lone" in row for row in rows.values())
            assert not apart and (part == "modules" or not refused)
            assert rows.keys() - refused == {name for name, row in rows.items() if "way" in row}
