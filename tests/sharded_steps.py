"""Steps of parameters that several processes hold parts of: overflows, states that are loaded, descriptions, meshes, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from several_processes import along_rows, close, sharding
from sharded_rules import CLIPPED, DRAWN
from sharded_runs import alone, load, loss_of, made_as_module, made_of, run, start
from tensors import some
from torch import distributed


def overflows(world: int) -> None:
    """One part whose scaled gradients are infinite holds back all processes, whoever unscales; other steps are those of one process."""
    spread = along_rows(world)
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
    spread = along_rows(world)
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
    spread = along_rows(world)
    said = load("muonwithadamw")([(name, spread(p).requires_grad_()) for name, p in start().items()]).describe()
    wanted = ("group 0 Muon: 2 parameters, 39 elements; 2 of them gathered whole in every step, 312 bytes with their gradients, "
              "since the rule treats parameters as matrices;")  # fmt: skip
    assert wanted in said, said
    assert said.count("gathered") == 1
    said = load("lamb")([(name, spread(p).requires_grad_()) for name, p in start().items()]).describe()
    assert "5 of them stepped in parts, with values of all reduced over the processes" in said, said


def evaluation(world: int) -> None:
    spread = along_rows(world)
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


def refusals(world: int) -> None:
    """Autograd through parts, and processes that were told different things."""
    p = along_rows(world)(some(5, 3)).requires_grad_()
    with pytest.raises(ValueError, match="cannot step parameter 0 of group 0, which several processes hold parts of: autograd cannot go"):
        load("adamw")([p], differentiable=True)
    rank = distributed.get_rank()
    for rule, settings in (("adamw" if rank else "lion", {}), ("adamw", {"lr": 0.1 * (rank + 1)})):
        optimizer = load("adamw")([along_rows(world)(some(2)).requires_grad_()])
        with pytest.raises(ValueError, match=f"the processes disagree about rules, settings or parameters; rank {rank} has "):
            load(rule)([p], **settings)
        with pytest.raises(ValueError, match="the processes disagree"):
            optimizer.add_param_group({"params": [p], "lr": rank + 1.0})
        assert len(optimizer.param_groups) == 1
    for rules in (("adamw", "lion"), ("lamb", "adamw"), ("muadamw", "completepadamw")):  # the modules of these, on one process and others
        cls = made_as_module(rules[rank > 0])
        with pytest.raises(ValueError, match=f"the processes disagree about rules, settings or parameters; rank {rank} has "):
            cls([("body.weight", p)])
        with pytest.raises(ValueError, match="the processes disagree"):
            made_as_module(rules[0])([{"params": [("body.weight", p)], "lr": rank + 1.0}])
