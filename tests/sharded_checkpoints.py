"""Checkpoints of models that several processes hold parts of, through torch's own functions for them."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import torch
from several_processes import small, whole
from sharded_runs import load
from tensors import some
from torch import distributed, nn


def checkpoints(net: nn.Module, optimizer: Any, rule: str) -> None:
    """Whole and back into parts."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

    optimizer.zero_grad()  # torch sees by gradients whether the states are there already
    before = [whole(p).clone() for p in net.parameters()]
    for at_once in (False, True):
        options = StateDictOptions(full_state_dict=at_once)
        saved = get_optimizer_state_dict(net, optimizer, options=options)
        again = load(rule)(net.named_parameters())
        set_optimizer_state_dict(net, again, saved, options=options)
        for p in net.parameters():
            for name, value in optimizer.state[p].items():
                torch.testing.assert_close(whole(value), whole(again.state[p][name]), rtol=0, atol=0)
    for p, q in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(whole(p), q, rtol=0, atol=0)


def save(net: nn.Module, optimizer: Any, folder: str, flat: bool, alone: bool) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    states = get_state_dict(net, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat))
    dcp.save(dict(zip("mo", states, strict=True)), checkpoint_id=folder, no_dist=alone)


def restore(net: nn.Module, optimizer: Any, folder: str, flat: bool, alone: bool) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    states = dict(zip("mo", get_state_dict(net, optimizer, options=options), strict=True))
    dcp.load(states, checkpoint_id=folder, no_dist=alone)
    set_state_dict(net, optimizer, model_state_dict=states["m"], optim_state_dict=states["o"], options=options)


def train_on(net: nn.Module, optimizer: Any, steps: range) -> None:
    """Each step has its own batch, so that a run goes on where another one ended."""
    for step in steps:
        optimizer.zero_grad()
        (net(some(8, 6, seed=step)) ** 2).mean().backward()
        optimizer.step()


def there_and_back(world: int) -> None:
    """A run on one process goes on with several, and then again on one: checkpoints on disk, whole or flattened."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for rule, flat in (("adamw", True), ("lamb", False), ("muonwithadamw", False), ("prodigy", True), ("schedulefreeadamw", True)):
        where = [tempfile.mkdtemp() if distributed.get_rank() == 0 else ""]
        distributed.broadcast_object_list(where)
        first, straight = small(), small()
        one, through = load(rule)(first.named_parameters()), load(rule)(straight.named_parameters())
        train_on(straight, through, range(6))
        train_on(first, one, range(2))
        if distributed.get_rank() == 0:
            save(first, one, f"{where[0]}/one", flat, True)
        distributed.barrier()
        spread = fully_shard(small(), mesh=init_device_mesh("cpu", (world,)))
        many = load(rule)(spread.named_parameters())
        restore(spread, many, f"{where[0]}/one", flat, False)
        train_on(spread, many, range(2, 4))
        save(spread, many, f"{where[0]}/many", flat, False)
        last = small()
        again = load(rule)(last.named_parameters())
        restore(last, again, f"{where[0]}/many", flat, True)
        train_on(last, again, range(4, 6))
        for p, q in zip(last.parameters(), straight.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        distributed.barrier()
        if distributed.get_rank() == 0:
            shutil.rmtree(where[0])
