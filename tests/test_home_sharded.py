"""Several processes: every rule takes the steps of one process, whoever holds which part. 25 seconds, most of it starting them."""

from __future__ import annotations

import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.multiprocessing as processes
from torch import Tensor, nn

import optlang

distributed = pytest.importorskip("torch.distributed")
if not distributed.is_available() or sys.platform != "linux":
    pytest.skip("torch was built without processes that work together", allow_module_level=True)

ELEMENTWISE = ["adamw", "lion", "momentum", "nadam", "schedulefreeadamw", "lookahead", "adopt", "rprop", "adan"]
WHOLE = ["lamb", "lars", "adafactor", "muonwithadamw", "prodigy", "dadaptadam", "gravity", "randomscaledadamw", "adagradnorm", "adamcm"]
SHAPES = {"body.weight": (5, 3), "embed.weight": (3, 4), "bias": (1,), "out.weight": (4, 6)}  # uneven on 2 and 4, and empty parts
CLIPPED = """rule Clipped { hyper lr = 0.1 in (0, inf) state m = 0 state far per model = 0
  n = norm(g per model)  far' = max(far, n)  m' = 0.9*m + g/max(1, n)  w' = w - lr*m'/(1 + far') }"""

SEEING = """from adagradnorm import AdaGradNorm  from adamw import AdamW
route Seeing { when rank == 2 use AdaGradNorm() otherwise use AdamW() }"""  # the norm is also that of the other rule's parts
WINDOWED = "rule Windowed { hyper lr = 0.1 in (0, inf) state old[3] = 0 old' = push(old, g) w' = w - lr*mean(old') }"
ELEMENTWISE.append(WINDOWED)
LOSS = "rule Polyak { hyper lr = 1 in (0, inf) w' = w - lr*loss*g }"


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def start() -> dict[str, Tensor]:
    return {name: some(*shape, seed=i) for i, (name, shape) in enumerate(SHAPES.items())}


def gradients(step: int) -> dict[str, Tensor]:
    return {name: some(*shape, seed=100 + 10 * step + i) for i, (name, shape) in enumerate(SHAPES.items())}


def load(rule: str) -> Any:
    return optlang.loads(rule) if "{" in rule else optlang.load(rule)


def alone(rule: str, steps: int) -> tuple[Any, dict[str, Tensor]]:
    params = {name: p.requires_grad_() for name, p in start().items()}
    optimizer = load(rule)(list(params.items()))
    run(optimizer, params, range(steps), lambda x: x)
    return optimizer, params


def run(optimizer: Any, params: dict[str, Tensor], steps: range, spread: Callable[[Tensor], Tensor]) -> None:
    for step in steps:
        for name, gradient in gradients(step).items():
            params[name].grad = spread(gradient)
        optimizer.step()


def close(found: dict[str, Any], wanted: dict[str, Tensor]) -> None:
    for name, p in wanted.items():
        torch.testing.assert_close(found[name].full_tensor().detach(), p.detach(), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------- what each of the processes does


def sharding(mesh: Any, *placements: Any) -> Callable[[Tensor], Any]:
    from torch.distributed.tensor import distribute_tensor

    return lambda x: distribute_tensor(x.detach(), mesh, placements, src_data_rank=None)


def every_rule(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    for rule in [*ELEMENTWISE, *WHOLE, CLIPPED, SEEING]:
        _, wanted = alone(rule, 5)
        params = {name: spread(p).requires_grad_() for name, p in start().items()}
        optimizer = load(rule)(list(params.items()))
        run(optimizer, params, range(3), spread)
        # the second half in another optimizer, which has loaded the states
        again = load(rule)(list(params.items()))
        again.load_state_dict(optimizer.state_dict())
        run(again, params, range(3, 5), spread)
        close(params, wanted)
        kept = again.state[params["body.weight"]]
        if rule in ELEMENTWISE:
            assert {type(v).__name__ for k, v in kept.items() if v.ndim} == {"DTensor"}, rule


def loaded_from_one_process(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    for rule in ("adamw", "lamb", "schedulefreeadamw", "adamcm"):
        first, halfway = alone(rule, 2)
        _, wanted = alone(rule, 4)
        params = {name: spread(p).requires_grad_() for name, p in halfway.items()}
        optimizer = load(rule)(list(params.items()))
        optimizer.load_state_dict(first.state_dict())
        run(optimizer, params, range(2, 4), spread)
        close(params, wanted)


def descriptions(world: int) -> None:
    """They say what is gathered: of the route all that goes to Muon, 15 + 24 numbers and their gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    spread = sharding(init_device_mesh("cpu", (world,)), Shard(0))
    said = load("muonwithadamw")([(name, spread(p).requires_grad_()) for name, p in start().items()]).describe()
    assert "group 0 Muon: 2 parameters, 39 elements; 2 of them gathered whole in every step, 312 bytes with their gradients;" in said
    assert said.count("gathered") == 1


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
    for rule in ("adamw", "lamb", "muonwithadamw"):
        _, wanted = alone(rule, 3)
        columns, same = sharding(mesh, Shard(1)), sharding(mesh, Replicate())
        params = {n: (columns if p.ndim == 2 else same)(p).requires_grad_() for n, p in start().items()}
        optimizer = load(rule)(list(params.items()))
        run(optimizer, params, range(3), lambda x: DTensor.from_local(x / world, mesh, [Partial()], run_check=False))
        close(params, wanted)
        if world == 4:
            spread = sharding(init_device_mesh("cpu", (2, 2)), Replicate(), Shard(0))
            params = {name: spread(p).requires_grad_() for name, p in start().items()}
            run(load(rule)(list(params.items())), params, range(3), spread)
            close(params, wanted)


def models(world: int) -> None:
    """FSDP2 and DDP with half of the batch each, beside one process with all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))

    def train(net: nn.Module, optimizer: Any, data: Tensor) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (net(data) ** 2).mean()
            loss.backward()
            return loss  # type: ignore[no-any-return]

        for _ in range(3):
            optimizer.step(closure)

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


def refusals(world: int) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    p = sharding(init_device_mesh("cpu", (world,)), Shard(0))(some(5, 3)).requires_grad_()
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("sophiah", {}, "products with the Hessian"), (LOSS, {}, "reads the loss"),
        ("adamw", {"differentiable": True}, "autograd cannot go through"),
    ]  # fmt: skip
    for rule, settings, words in wrong:
        with pytest.raises(ValueError, match=f"cannot step parameter 0 of group 0, which several processes hold parts of: .*{words}"):
            load(rule)([p], **settings)
    rank = distributed.get_rank()
    for rule, settings in (("adamw" if rank else "lion", {}), ("adamw", {"lr": 0.1 * (rank + 1)})):
        optimizer = load("adamw")([sharding(init_device_mesh("cpu", (world,)), Shard(0))(some(2)).requires_grad_()])
        with pytest.raises(ValueError, match=f"the processes disagree about rules, settings or parameters; rank {rank} has "):
            load(rule)([p], **settings)
        with pytest.raises(ValueError, match="the processes disagree"):
            optimizer.add_param_group({"params": [p], "lr": rank + 1.0})
        assert len(optimizer.param_groups) == 1


TASKS = {f.__name__: f for f in (every_rule, loaded_from_one_process, descriptions, evaluation, other_meshes, models, refusals)}

# ------------------------------------------------------------------------------------------------------- the processes


def work(rank: int, world: int, port: int, results: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    for name, task in TASKS.items():
        try:
            task(world)
            results.put((name, rank, ""))
        except BaseException:
            results.put((name, rank, traceback.format_exc()))
            break
    distributed.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def found(request: Any) -> dict[str, list[str]]:
    """What went wrong in which process, by task."""
    world = request.param
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = processes.get_context("spawn")
    results = context.SimpleQueue()
    running = [context.Process(target=work, args=(rank, world, port, results)) for rank in range(world)]
    for process in running:
        process.start()
    for process in running:
        process.join(200)
        process.kill()
    said: dict[str, list[str]] = {name: [] for name in TASKS}
    while not results.empty():
        name, rank, problem = results.get()
        said[name].append(f"process {rank}: {problem}" if problem else "")
    return {name: [*lines, *["this process did not come so far"] * (world - len(lines))] for name, lines in said.items()}


@pytest.mark.parametrize("task", TASKS)
def test_several_processes(found: dict[str, list[str]], task: str) -> None:
    assert not any(found[task]), "\n".join(found[task])
