"""Tools of torch around optimizers, on several processes: a rule takes the steps of one process, or is refused where it is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from several_processes import share, small, train
from sharded_runs import STEPS, alone, load, loss_of, made_as_module, off, settings_of, start
from tensors import some
from torch import distributed, nn

TAKEN = ("lamb", "adafactor", "muon", "randomscaledmomentum")  # by tensor, row, matrix; a draw for all, which is the same everywhere
REFUSED = {
    "prodigy": "has values per model", "sps": "asks the model", "sam": "asks the model", "apollo": "draws numbers",
    "muonwithadamw": "is in a route",
}  # fmt: skip
FLAT = {"lamb": "compares elements", "muonwithadamw": "is in a route", "adafactor": "compares elements", "apollo": "treats parameters"}


def split_by_zero(world: int) -> None:
    """ZeroRedundancyOptimizer gives each process an optimizer of some of the parameters, whose steps it tells the others."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    for rule, cls in [*((rule, load(rule)) for rule in TAKEN), ("lamb", made_as_module("lamb"))]:
        params = {name: p.requires_grad_() for name, p in start(rule).items()}
        first, *others = params.values()
        optimizer = ZeroRedundancyOptimizer([first], cls, **settings_of(rule))
        optimizer.add_param_group({"params": others})
        for step in range(STEPS):
            optimizer.zero_grad()
            loss_of(params, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert max(off(params[name].detach(), p.detach()) for name, p in alone(rule, STEPS)[1].items()) <= 1, rule
    for rule, why in REFUSED.items():
        for cls in (load(rule), made_as_module(rule)):
            with pytest.raises(ValueError, match=f"cannot step in torch's ZeroRedundancyOptimizer, .*: it {why}"):
                ZeroRedundancyOptimizer(list(start(rule).values()), cls)
    lone = [distributed.new_group([rank]) for rank in range(world)][distributed.get_rank()]
    for cls in (load("prodigy"), made_as_module("prodigy")):
        ZeroRedundancyOptimizer(list(start("prodigy").values()), cls, process_group=lone)  # which has all of them


def flattened_by_fsdp1(world: int) -> None:
    """FullyShardedDataParallel makes rows of numbers of parameters, also where the optimizer has these already."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    def flat(net: nn.Module, named: bool) -> Any:
        return FullyShardedDataParallel(net, use_orig_params=named, device_id=torch.device("cpu"))

    data, one = some(4 * world, 6), small()
    mine = share(data, world)
    train(one, load("adamw")(one.parameters()), data)
    for named in (False, True):
        net = flat(small(), named)
        train(net, load("adamw")(net.named_parameters()), mine)
        with FullyShardedDataParallel.summon_full_params(net):
            whole = [p.detach().clone().flatten() for p in net.parameters()]  # its memory goes
        wanted = torch.cat([p.flatten() for p in one.parameters()])
        assert off(torch.cat(whole)[: wanted.numel()], wanted.detach()) <= 1
        for rule, why in FLAT.items():
            for cls in (load(rule), made_as_module(rule)):
                with pytest.raises(ValueError, match=f"whose shape FullyShardedDataParallel has taken away: it {why}"):
                    cls(net.named_parameters())
    for cls, what in ((load("lamb"), r"0\.weight,"), (made_as_module("lamb"), "parameters")):
        net = small()
        optimizer = cls(net.named_parameters())
        net = flat(net, True)
        before = [p.detach().clone() for p in net.parameters()]
        with pytest.raises(ValueError, match=f"LAMB cannot step {what} whose shape"):
            train(net, optimizer, mine)
        assert all(map(torch.equal, net.parameters(), before))
