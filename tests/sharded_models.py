"""Models on several processes, as people train them: FSDP2, DDP, layers in parts, losses and Hessians, tools that put parts into groups."""

from __future__ import annotations

import warnings
from typing import Any
from unittest import mock

import pytest
import torch
from several_processes import asking, close, share, small, train, whole
from sharded_checkpoints import checkpoints
from sharded_runs import alone, load, module_of, off
from tensors import some
from torch import Tensor, distributed, nn

import optlang
from optlang.runtime.distributed import sharded


def models(world: int) -> None:
    """FSDP2 and DDP with half of the batch each, beside one process with all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    data = some(4 * world, 6)
    mine = share(data, world)
    for rule in ("adamw", "lamb", "muonwithadamw", "sam", "marsadamwexact"):
        one, spread, copied = small(), small(), DistributedDataParallel(small())
        train(one, load(rule)(one.named_parameters()), data)
        for layer in (spread[0], spread[2], spread):
            fully_shard(layer, mesh=init_device_mesh("cpu", (world,)))
        optimizer = load(rule)(spread.named_parameters())
        train(spread, optimizer, mine)
        train(copied, load(rule)(copied.named_parameters()), mine)
        close(dict(spread.named_parameters()), dict(one.named_parameters()))
        for p, q in zip(copied.parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        checkpoints(spread, optimizer, rule)


def tensor_parallel(world: int) -> None:
    """Layers cut by columns and by rows, and on 4 processes FSDP2 over that: parts in strides, and some in both dimensions."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "layer"))
    for rule in ("adamw", "lamb", "muonwithadamw", "sam"):
        one, many, data = small(8, nn.LayerNorm(3)), small(8, nn.LayerNorm(3)), some(8, 6)
        train(one, load(rule)(one.named_parameters()), data, power=3)
        parallelize_module(many, mesh["layer"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        for layer in (many[0], many[2], many) if world > 2 else ():
            fully_shard(layer, mesh=mesh["data"])
        train(many, load(rule)(many.named_parameters()), data.chunk(world // 2)[mesh["data"].get_local_rank()], power=3)
        for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
            assert off(whole(p), q.detach()) <= 1, name


# ---------------------------------------------------------------------------------------------------- copies that differ


def stepped(net: nn.Module, optimizer: Any, data: Tensor, last: bool) -> None:
    """A step that this process takes first or `last`."""
    optimizer.zero_grad()
    (net(data) ** 2).mean().backward()
    for turn in (False, True):
        if last == turn:
            optimizer.step()
        distributed.barrier()


def copies_that_disagree(world: int) -> None:
    """Under DDP the process that comes last says by which rule another one steps, or with what settings."""
    from torch.nn.parallel import DistributedDataParallel

    last, data = distributed.get_rank() == world - 1, some(8, 6, seed=distributed.get_rank())
    for settings, problem in (({}, RuntimeError), ({"lr": 0.02}, UserWarning)):
        net = DistributedDataParallel(small())
        rule = "lion" if problem is RuntimeError and last else "adamw"
        optimizer = load(rule)(net.parameters(), **(settings if last else {"lr": 0.01}))
        stepped(net, optimizer, data, last)
        if not last:
            stepped(net, optimizer, data, last)
            continue
        optimizer.zero_grad()
        (net(data) ** 2).mean().backward()
        distributed.barrier()
        with warnings.catch_warnings(), pytest.raises(problem, match=r"rank \d steps the same gradients (by another rule|with lr = 0.01)"):
            warnings.simplefilter("error")
            optimizer.step()
        distributed.barrier()


def models_apart(world: int) -> None:
    """Stages, models that are trained apart, and optimizers of one process alone may differ."""
    rank = distributed.get_rank()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for net in (small(), nn.Linear(6, 5 + rank)):
            optimizer = load("adamw" if rank else "lion")(net.parameters())
            for _ in range(4):
                stepped(net, optimizer, some(8, 6), last=rank == world - 1)
        alone("lamb", 4 if rank == 0 else 0)


# --------------------------------------------------------------------------------------------------- asking the model


def hessians_and_losses(world: int) -> None:
    """With layers cut by columns and rows, and with copies, of DDP or `replicate`, that see a batch each."""
    from torch.distributed._composable.replicate import replicate
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    from torch.nn.parallel import DistributedDataParallel

    data = some(4 * world, 6)
    mine = share(data, world)
    for rule in ("sophiah", "sps", "mezo"):
        one = small(8)
        train(one, load(rule)(one.named_parameters()), data, steps=2)
        many = parallelize_module(small(8), init_device_mesh("cpu", (world,)), {"0": ColwiseParallel(), "2": RowwiseParallel()})
        for net, batch in ((many, data), (DistributedDataParallel(small(8)), mine), (replicate(small(8)), mine)):
            train(net, load(rule)(net.named_parameters()), batch, steps=2)
            for (name, p), q in zip(net.named_parameters(), one.parameters(), strict=True):
                assert off(whole(p), q.detach()) <= 1, f"{rule} {name}"


def hessians_of_fsdp2(world: int) -> None:
    """Its gradients are not differentiated: that is said before a step, or where torch does not tell, in the first one."""
    from torch.distributed.fsdp import fully_shard

    net, data = fully_shard(small(8)), some(4 * world, 6)
    with pytest.raises(ValueError, match=r"SophiaH cannot step 0\.weight, which .* hold parts of: FSDP2's gradients cannot be"):
        load("sophiah")(net.named_parameters())
    with mock.patch.object(sharded, "is_of_fsdp", lambda parameter: False):  # as if torch did not say
        before = [p.detach().clone() for p in net.parameters()]
        with pytest.raises(RuntimeError, match="needs Hessian-vector products.*FSDP2's gradients cannot"):
            train(net, load("sophiah")(net.named_parameters()), data)
    for p, q in zip(net.parameters(), before, strict=True):
        assert torch.equal(getattr(p, "_local_tensor", p), getattr(q, "_local_tensor", q))


def passes_without_backward(world: int) -> None:
    """FSDP2 keeps what it gathered until a backward pass: evaluation and questions for a loss have none."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def losses(net: nn.Module, make: Any, data: Tensor, test: Tensor) -> Tensor:
        optimizer, found = make(list(net.named_parameters()), lr=0.1), []
        closure = asking(net, optimizer, data)
        for _ in range(4):
            optimizer.step(closure)
            getattr(optimizer, "eval", int)()
            with torch.no_grad():
                found.append((net(test) ** 2).mean())
            getattr(optimizer, "train", int)()
        return torch.stack(found)

    data, test = some(4 * world, 6), some(8, 6, seed=1)
    mesh, mine = init_device_mesh("cpu", (world,)), share(data, world)
    for make in (load("mezo"), load("schedulefreeadamw"), module_of("schedulefreeadamw")["ScheduleFreeAdamW"]):
        wanted = losses(small(), make, data, test)
        torch.testing.assert_close(losses(fully_shard(small(), mesh=mesh), make, mine, test), wanted, rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ Accelerate's way


def cut_under(make: Any, world: int) -> tuple[nn.Module, Any]:
    """A model that is cut when its optimizer has been made, and the optimizer with the parts in its groups."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = small()
    optimizer, names = make(net.named_parameters()), {id(p): name for name, p in net.named_parameters()}
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    parts = dict(net.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [parts[names[id(p)]] for p in group["params"]]
    return net, optimizer


def parts_put_into_groups(world: int) -> None:
    """Accelerate takes the parameters of a model, cuts the model, and writes the parts into the groups that are there."""
    data = some(4 * world, 6)
    mine = share(data, world)
    for rule in ("adamw", "lamb", "adafactor", "muonwithadamw", "sps"):
        one = small()
        train(one, load(rule)(one.named_parameters()), data)
        net, optimizer = cut_under(load(rule), world)
        train(net, optimizer, mine)
        close(dict(net.named_parameters()), dict(one.named_parameters()))
    for make, why in ((load("sophiah"), "FSDP2's gradients cannot be"), (optlang.load("adamw", state="int8"), "kept in blocks")):
        net, optimizer = cut_under(make, world)
        before = [whole(p).clone() for p in net.parameters()]
        with pytest.raises(ValueError, match=why):
            train(net, optimizer, mine)
        assert all(torch.equal(whole(p), q) for p, q in zip(net.parameters(), before, strict=True))
        assert not optimizer.state
