"""Several processes: every rule takes the steps of one process, whoever holds which part. 60 seconds of processors.

`python tests/test_home_sharded.py OUT.json` asks every rule, and its generated module, on 2 and on 4 processes and writes what was
found (`make sharded`); rules that the file has as they are now are not asked again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import platform
import queue
import shutil
import socket
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import parted
import pytest
import torch
import torch.multiprocessing as processes
from marks import mark_of
from parted import BY_COLUMNS, SHAPES, STEPS, alone, load, loss_of, made_of, module_of, off, run, start
from stepping import finite
from tensors import some
from torch import Tensor, nn
from wrapped import averaged_by_replicate, flattened_by_fsdp1, split_by_zero

import optlang
from optlang import library
from optlang.runtime.distributed import sharded

distributed = pytest.importorskip("torch.distributed")
if not distributed.is_available() or sys.platform != "linux":
    pytest.skip("torch was built without processes that work together", allow_module_level=True)

CLIPPED = """rule Clipped { hyper lr = 0.1 in (0, inf) state m = 0 state far per model = 0
  n = norm(g per model)  far' = max(far, n)  m' = 0.9*m + g/max(1, n)  w' = w - lr*m'/(1 + far') }"""
WINDOWED = "rule Windowed { hyper lr = 0.1 in (0, inf) state old[3] = 0 old' = push(old, g) w' = w - lr*mean(old') }"
DRAWN = """rule Drawn { state m = 0 m' = where(t == 1, normal(), m) + g*uniform()
  w' = w - 0.1*m'*max(abs(g) per tensor)/count(g per tensor) }"""
BLOCKED = "rule Blocked { hyper lr = 0.1 in (0, inf) when rank >= 2 { d = g/max(1e-3, norm(g)) } else { d = g } w' = w - lr*d }"
SOME = ["adamw", "lion", "momentum", "schedulefreeadamw", "lamb", "lars", "adafactor", "muonwithadamw", "prodigy", "gravity", "adamcm",
        "sps", "sophiah"]  # fmt: skip
MODULES = ["adamw", "lamb", "prodigy", "soap", "muonwithadamw", "sam", "sps", "gravity", "smb", "sophiah", "mezo"]
EVERYTHING = [*library.names(), CLIPPED, WINDOWED, DRAWN]
SIXTH = [*library.names()[::-6], CLIPPED, WINDOWED, DRAWN]
TOGETHER = 40  # rules that processes are started for
MODULE_WAYS = ("by torch's DTensors", "gathered")
FAR = 1000  # how far weights go, so that a difference of a thousandth of that is seen
ALIKE = ("RandomScaledAdamW", "RandomScaledMomentum")  # all they have in common is a number that each draws from the same seed


def asking(net: nn.Module, optimizer: Any, data: Tensor, power: int = 2) -> Any:
    """A closure for steps on all of the data."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (net(data) ** power).mean()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    return closure


def train(net: nn.Module, optimizer: Any, data: Tensor) -> None:
    for _ in range(3):
        optimizer.step(asking(net, optimizer, data))


def close(found: dict[str, Any], wanted: dict[str, Tensor]) -> None:
    for name, p in wanted.items():
        finite(p)
        torch.testing.assert_close(found[name].full_tensor().detach(), p.detach(), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------- what each of the processes does


def sharding(mesh: Any, *placements: Any) -> Callable[[Tensor], Any]:
    from torch.distributed.tensor import distribute_tensor

    return lambda x: distribute_tensor(x.detach(), mesh, placements, src_data_rank=None)


def in_parts(world: int) -> Callable[[Tensor], Any]:
    """Some tensors along rows, some along columns."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    mesh = init_device_mesh("cpu", (world,))
    return lambda x: sharding(mesh, Shard(parted.cut_along(x.shape)))(x)


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
        end = parted.stored(again, params, everywhere_alike)
        if place % world == distributed.get_rank():
            wanted = parted.stored(*alone(rule, STEPS))
            proof = {"went": went(rule, wanted), "lone": parted.lone(rule, world, wanted)}
            found[name] = {"way": way_of(again), **told(parted.farthest(end, wanted) | proof)}
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
        space, settings = module_of(rule), parted.settings_of(rule)
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
        end = parted.stored(optimizer, params, everywhere_alike)
        if place % world == distributed.get_rank():
            one = {name: p.requires_grad_() for name, p in start(rule).items()}
            there = space[name](list(one.items()), **settings)
            there.cases = optimizer.cases
            run(there, one, range(STEPS), lambda x: x)
            wanted = parted.stored(there, one)
            way = MODULE_WAYS["_whole_parameters" in space]
            found[name] = {"way": way, **told(parted.farthest(end, wanted) | {"went": went(rule, wanted)})}
    refused = {name for name, row in found.items() if "refused" in row}
    assert rules or (refused == {"SophiaH", "MeZO"} and not any(wrong_with(*row) for row in found.items())), found
    return found


def way_of(optimizer: Any) -> str:
    said = optimizer.describe()
    ways = [("gathered whole" in said, "whole"), ("reduced over the processes" in said, "parts with values of all")]
    return ", ".join(word for holds, word in ways if holds) or "by element"


def overflows(world: int) -> None:
    """One part whose scaled gradients are infinite holds back all processes, whoever unscales; other steps are those of one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    for rule, fused in [(rule, fused) for rule in ("adamw", "lamb", "muonwithadamw", "prodigy") for fused in (None, True)]:
        params: dict[str, Any] = {name: spread(p).requires_grad_() for name, p in start(rule).items()}
        optimizer, scaler = made_of(rule, params, fused=fused), torch.amp.GradScaler("cpu", init_scale=2.0**8)
        for step, overflow in ((0, False), (1, True), (1, False)):
            optimizer.zero_grad()
            scaler.scale(loss_of(params, step)).backward()  # type: ignore[no-untyped-call]
            if overflow and distributed.get_rank() == world - 1:
                params["out.weight"].grad.to_local().fill_(torch.inf)
            before = [p.full_tensor().detach() for p in params.values()]
            scaler.step(optimizer)
            scaler.update()
            assert overflow == all(torch.equal(p.full_tensor(), x) for p, x in zip(params.values(), before, strict=True)), (rule, step)
        assert scaler.get_scale() == 2.0**7
        close(params, alone(rule, 2)[1])


def loaded_from_one_process(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    for rule in ("adamw", "lamb", "schedulefreeadamw", "adamcm"):
        first, halfway = alone(rule, 2)
        _, wanted = alone(rule, 4)
        params = {name: spread(p).requires_grad_() for name, p in halfway.items()}
        optimizer = made_of(rule, params)
        optimizer.load_state_dict(first.state_dict())
        run(optimizer, params, range(2, 4), spread)
        close(params, wanted)


def descriptions(world: int) -> None:
    """They say what is gathered: of the route all that goes to Muon, 15 + 24 numbers and their gradients, and what is reduced."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    said = load("muonwithadamw")([(name, spread(p).requires_grad_()) for name, p in start().items()]).describe()
    wanted = ("group 0 Muon: 2 parameters, 39 elements; 2 of them gathered whole in every step, 312 bytes with their gradients, "
              "since the rule treats parameters as matrices;")  # fmt: skip
    assert wanted in said, said
    assert said.count("gathered") == 1
    said = load("lamb")([(name, spread(p).requires_grad_()) for name, p in start().items()]).describe()
    assert "5 of them stepped in parts, with values of all reduced over the processes" in said, said


def evaluation(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    one, wanted = alone("schedulefreeadamw", 3)
    params = {name: spread(p).requires_grad_() for name, p in start().items()}
    optimizer = load("schedulefreeadamw")(list(params.items()))
    run(optimizer, params, range(3), spread)
    one.eval()
    optimizer.eval()
    close(params, wanted)
    one.train()
    optimizer.train()
    close(params, wanted)


def other_meshes(world: int) -> None:
    """Columns over processes, gradients not yet summed up, and a mesh of two dimensions."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

    mesh = init_device_mesh("cpu", (world,))
    columns, same = sharding(mesh, Shard(1)), sharding(mesh, Replicate())
    ways: list[tuple[Any, Any]] = [(lambda p: (columns if p.ndim >= 2 else same)(p), lambda p: columns(p) if p.ndim >= 2 else same(p))]
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2))
        ways += [(sharding(grid, *cut), sharding(grid, *cut)) for cut in ((Replicate(), Shard(0)), (Shard(0), Shard(0)))]
    for rule in ("adamw", "lamb", "muonwithadamw", "prodigy", "gravity", "sps", "sam", CLIPPED, DRAWN):
        _, wanted = alone(rule, 2)
        for spread, inputs in ways:
            params = {name: spread(p).requires_grad_() for name, p in start(rule).items()}
            run(made_of(rule, params), params, range(2), inputs)
            close(params, wanted)
    _, wanted = alone("lamb", 0)
    params = {n: (columns if p.ndim >= 2 else same)(p).requires_grad_() for n, p in start().items()}
    for n, p in wanted.items():
        p.grad = some(*p.shape, seed=3)
        params[n].grad = DTensor.from_local(p.grad / world, mesh, [Partial()], run_check=False)
    load("lamb")(list(params.items())).step()
    load("lamb")(list(wanted.items())).step()
    close(params, wanted)


def models(world: int) -> None:
    """FSDP2 and DDP with half of the batch each, beside one process with all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    data = some(4 * world, 6)
    mine = data[4 * distributed.get_rank() :][:4]
    for rule in ("adamw", "lamb", "muonwithadamw", "sam", "marsadamwexact"):
        one, spread, copied = model(), model(), DistributedDataParallel(model())
        train(one, load(rule)(one.named_parameters()), data)
        for layer in (spread[0], spread[2], spread):  # type: ignore[index]
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

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.LayerNorm(3))

    def train(net: nn.Module, optimizer: Any, data: Tensor) -> None:
        for _ in range(3):
            optimizer.step(asking(net, optimizer, data, power=3))

    mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "layer"))
    for rule in ("adamw", "lamb", "muonwithadamw", "sam"):
        one, many, data = model(), model(), some(8, 6)
        train(one, load(rule)(one.named_parameters()), data)
        parallelize_module(many, mesh["layer"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        for layer in (many[0], many[2], many) if world > 2 else ():  # type: ignore[index]
            fully_shard(layer, mesh=mesh["data"])
        train(many, load(rule)(many.named_parameters()), data.chunk(world // 2)[mesh["data"].get_local_rank()])
        for (name, p), q in zip(many.named_parameters(), one.parameters(), strict=True):
            found: Any = p
            found = found.full_tensor() if hasattr(p, "full_tensor") else found
            assert off(found.detach(), q.detach()) <= 1, name


def checkpoints(net: nn.Module, optimizer: Any, rule: str) -> None:
    """Through torch's distributed checkpoints, whole and back into parts."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

    optimizer.zero_grad()  # torch sees by gradients whether the states are there already
    before = [p.full_tensor().detach().clone() for p in net.parameters()]  # type: ignore[operator]
    for whole in (False, True):
        options = StateDictOptions(full_state_dict=whole)
        saved = get_optimizer_state_dict(net, optimizer, options=options)
        again = load(rule)(net.named_parameters())
        set_optimizer_state_dict(net, again, saved, options=options)
        for p in net.parameters():
            for name, value in optimizer.state[p].items():
                other = again.state[p][name]
                sides = [x.full_tensor() if hasattr(x, "full_tensor") else x for x in (value, other)]
                torch.testing.assert_close(sides[0], sides[1], rtol=0, atol=0)
    for p, q in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(p.full_tensor(), q, rtol=0, atol=0)  # type: ignore[operator]


def there_and_back(world: int) -> None:
    """A run on one process goes on with several, and then again on one: checkpoints on disk, whole or flattened."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def train(net: nn.Module, optimizer: Any, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            (net(some(8, 6, seed=step)) ** 2).mean().backward()
            optimizer.step()

    def saved(net: nn.Module, optimizer: Any, folder: str, flat: bool, alone: bool) -> None:
        states = dict(zip("mo", get_state_dict(net, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat)), strict=True))
        dcp.save(states, checkpoint_id=folder, no_dist=alone)

    def loaded(net: nn.Module, optimizer: Any, folder: str, flat: bool, alone: bool) -> None:
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        states = dict(zip("mo", get_state_dict(net, optimizer, options=options), strict=True))
        dcp.load(states, checkpoint_id=folder, no_dist=alone)
        set_state_dict(net, optimizer, model_state_dict=states["m"], optim_state_dict=states["o"], options=options)

    for rule, flat in (("adamw", True), ("lamb", False), ("muonwithadamw", False), ("prodigy", True), ("schedulefreeadamw", True)):
        where = [tempfile.mkdtemp() if distributed.get_rank() == 0 else ""]
        distributed.broadcast_object_list(where)
        first, straight = model(), model()
        one, through = load(rule)(first.named_parameters()), load(rule)(straight.named_parameters())
        train(straight, through, range(6))
        train(first, one, range(2))
        if distributed.get_rank() == 0:
            saved(first, one, f"{where[0]}/one", flat, True)
        distributed.barrier()
        spread = fully_shard(model(), mesh=init_device_mesh("cpu", (world,)))
        many = load(rule)(spread.named_parameters())
        loaded(spread, many, f"{where[0]}/one", flat, False)
        train(spread, many, range(2, 4))
        saved(spread, many, f"{where[0]}/many", flat, False)
        last = model()
        again = load(rule)(last.named_parameters())
        loaded(last, again, f"{where[0]}/many", flat, True)
        train(last, again, range(4, 6))
        for p, q in zip(last.parameters(), straight.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        distributed.barrier()
        if distributed.get_rank() == 0:
            shutil.rmtree(where[0])


def refusals(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    p = sharding(init_device_mesh("cpu", (world,)), Shard(0))(some(5, 3)).requires_grad_()
    with pytest.raises(ValueError, match="cannot step parameter 0 of group 0, which several processes hold parts of: autograd cannot go"):
        load("adamw")([p], differentiable=True)
    rank = distributed.get_rank()
    for rule, settings in (("adamw" if rank else "lion", {}), ("adamw", {"lr": 0.1 * (rank + 1)})):
        optimizer = load("adamw")([sharding(init_device_mesh("cpu", (world,)), Shard(0))(some(2)).requires_grad_()])
        with pytest.raises(ValueError, match=f"the processes disagree about rules, settings or parameters; rank {rank} has "):
            load(rule)([p], **settings)
        with pytest.raises(ValueError, match="the processes disagree"):
            optimizer.add_param_group({"params": [p], "lr": rank + 1.0})
        assert len(optimizer.param_groups) == 1


def copies_that_disagree(world: int) -> None:
    """Under DDP the process that comes last says by which rule another one steps; stages, models apart and lone optimizers go on."""
    from torch.nn.parallel import DistributedDataParallel

    rank, last, data = distributed.get_rank(), world - 1, some(8, 6, seed=distributed.get_rank())

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def stepped(net: nn.Module, optimizer: Any) -> None:
        optimizer.zero_grad()
        (net(data) ** 2).mean().backward()
        for turn in (False, True):  # the last one comes last
            if (rank == last) == turn:
                optimizer.step()
            distributed.barrier()

    for settings, problem in (({}, RuntimeError), ({"lr": 0.02}, UserWarning)):
        net = DistributedDataParallel(model())
        rule = "lion" if problem is RuntimeError and rank == last else "adamw"
        optimizer = load(rule)(net.parameters(), **(settings if rank == last else {"lr": 0.01}))
        stepped(net, optimizer)
        if rank != last:
            stepped(net, optimizer)
            continue
        optimizer.zero_grad()
        (net(data) ** 2).mean().backward()
        distributed.barrier()
        with warnings.catch_warnings(), pytest.raises(problem, match=r"rank \d steps the same gradients (by another rule|with lr = 0.01)"):
            warnings.simplefilter("error")
            optimizer.step()
        distributed.barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        apart, stage = model(), nn.Linear(6, 5 + rank)
        data = some(8, 6)
        for net in (apart, stage):
            optimizer = load("adamw" if rank else "lion")(net.parameters())
            for _ in range(4):
                stepped(net, optimizer)
        alone("lamb", 4 if rank == 0 else 0)


def hessians_and_losses(world: int) -> None:
    """With layers cut by columns and rows, and with copies of DDP that see a batch each; FSDP2's gradients are not differentiated."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
    from torch.nn.parallel import DistributedDataParallel

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def step(net: nn.Module, optimizer: Any, data: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (net(data) ** 2).mean()
            loss.backward()
            return loss  # type: ignore[no-any-return]

        optimizer.step(closure)

    data = some(4 * world, 6)
    for rule in ("sophiah", "sps", "mezo"):
        one, copied, mine = model(), DistributedDataParallel(model()), data[4 * distributed.get_rank() :][:4]
        many = parallelize_module(model(), init_device_mesh("cpu", (world,)), {"0": ColwiseParallel(), "2": RowwiseParallel()})
        for net, batch in ((one, data), (many, data), (copied, mine)):
            optimizer = load(rule)(net.named_parameters())
            step(net, optimizer, batch)
            step(net, optimizer, batch)
        for others in (many.named_parameters(), copied.named_parameters()):
            for (name, p), q in zip(others, one.parameters(), strict=True):
                found: Any = p
                assert off((found.full_tensor() if hasattr(p, "full_tensor") else found).detach(), q.detach()) <= 1, f"{rule} {name}"
    net = fully_shard(model())
    with pytest.raises(ValueError, match=r"SophiaH cannot step 0\.weight, which .* hold parts of: FSDP2's gradients cannot be"):
        load("sophiah")(net.named_parameters())
    with mock.patch.object(sharded, "is_of_fsdp", lambda parameter: False):  # as if torch did not say
        before = [p.detach().clone() for p in net.parameters()]
        with pytest.raises(RuntimeError, match="needs Hessian-vector products.*FSDP2's gradients cannot"):
            step(net, load("sophiah")(net.named_parameters()), data)
    for p, q in zip(net.parameters(), before, strict=True):
        assert torch.equal(getattr(p, "_local_tensor", p), getattr(q, "_local_tensor", q))


def passes_without_backward(world: int) -> None:
    """FSDP2 keeps what it gathered until a backward pass: evaluation and questions for a loss have none."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def train(net: nn.Module, make: Any, data: Tensor, test: Tensor) -> Tensor:
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
    mesh, mine = init_device_mesh("cpu", (world,)), data[4 * distributed.get_rank() :][:4]
    for make in (load("mezo"), load("schedulefreeadamw"), module_of("schedulefreeadamw")["ScheduleFreeAdamW"]):
        wanted = train(model(), make, data, test)
        torch.testing.assert_close(train(fully_shard(model(), mesh=mesh), make, mine, test), wanted, rtol=1e-5, atol=1e-6)


def parts_put_into_groups(world: int) -> None:
    """Accelerate takes the parameters of a model, cuts the model, and writes the parts into the groups that are there."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def cut(make: Any) -> tuple[nn.Module, Any]:
        net = model()
        optimizer, names = make(net.named_parameters()), {id(p): name for name, p in net.named_parameters()}
        fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
        parts = dict(net.named_parameters())
        for group in optimizer.param_groups:
            group["params"] = [parts[names[id(p)]] for p in group["params"]]
        return net, optimizer

    data = some(4 * world, 6)
    mine = data[4 * distributed.get_rank() :][:4]
    for rule in ("adamw", "lamb", "adafactor", "muonwithadamw", "sps"):
        one = model()
        train(one, load(rule)(one.named_parameters()), data)
        net, optimizer = cut(load(rule))
        train(net, optimizer, mine)
        close(dict(net.named_parameters()), dict(one.named_parameters()))
    for make, why in ((load("sophiah"), "FSDP2's gradients cannot be"), (optlang.load("adamw", state="int8"), "kept in blocks")):
        net, optimizer = cut(make)
        before = [p.full_tensor().detach().clone() for p in net.parameters()]  # type: ignore[operator]
        with pytest.raises(ValueError, match=why):
            train(net, optimizer, mine)
        assert all(torch.equal(p.full_tensor(), q) for p, q in zip(net.parameters(), before, strict=True))  # type: ignore[operator]
        assert not optimizer.state


TASKS = {f.__name__: f for f in (
    every_rule, every_module, overflows, loaded_from_one_process, descriptions, evaluation, other_meshes, models, tensor_parallel,
    split_by_zero, flattened_by_fsdp1, averaged_by_replicate,
    there_and_back, passes_without_backward, parts_put_into_groups, refusals, copies_that_disagree, hessians_and_losses,
)}  # fmt: skip

# ------------------------------------------------------------------------------------------------------- the processes


def work(rank: int, world: int, port: int, results: Any, names: Sequence[str], rules: Sequence[str]) -> None:
    faulthandler.enable()  # a process that ends by a signal says where its threads were
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    for name in names:
        try:
            found = TASKS[name](world, *([rules] if rules else []))
            results.put((name, rank, "", found))
        except BaseException:
            results.put((name, rank, traceback.format_exc(), None))
            break
    distributed.destroy_process_group()


def everywhere(world: int, names: Sequence[str], rules: Sequence[str] = (), seconds: int = 250) -> list[tuple[str, int, str, Any]]:
    """What each of some processes says of each task."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes.get_context("spawn")
    results = context.Queue()
    running = [context.Process(target=work, args=(rank, world, port, results, names, rules)) for rank in range(world)]
    for process in running:
        process.start()
    said = []
    for _ in range(world * len(names)):
        if (one := next_of(results, running, seconds)) is None:
            break
        said.append(one)
        if one[2]:
            break
    for rank, process in enumerate(running):
        process.join(5)
        if process.exitcode:
            come = {name for name, other, *_ in said if other == rank}
            last = next((name for name in names if name not in come), names[-1])
            said.append((last, rank, f"ended with exit code {process.exitcode}: see what it wrote to stderr", None))
        process.kill()
        process.join()  # its time counts then
    return said


def next_of(results: Any, running: Sequence[Any], seconds: int) -> tuple[str, int, str, Any] | None:
    """What a process says next; None where none does in that time, or all have ended."""
    for _ in range(seconds):
        alive = any(process.is_alive() for process in running)
        try:
            return results.get(timeout=1)  # type: ignore[no-any-return]
        except queue.Empty:
            if not alive:
                break
    return None


@pytest.fixture(scope="module", params=[2, 4])
def found(request: Any) -> dict[str, list[str]]:
    """What went wrong in which process, by task."""
    world = request.param
    said: dict[str, list[str]] = {name: [] for name in TASKS}
    for name, rank, problem, _ in everywhere(world, list(TASKS)):
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


def main(out: Path) -> int:
    """Every rule and its module on 2 and on 4 processes that a file does not have as they are now, what was found into the file."""
    kept = json.loads(out.read_text()) if out.exists() else {"seconds": 0}
    for task, part in (("every_rule", "rules"), ("every_module", "modules")):
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
