"""Several processes of a test on one machine, and what their models have in common."""

from __future__ import annotations

import faulthandler
import queue
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.multiprocessing as processes
from stepping import finite
from torch import Tensor, distributed, nn

HERE = "127.0.0.1"
Task = Callable[..., Any]  # of the number of processes
Said = tuple[str, int, str, Any]  # the name of a task, the rank of a process, what went wrong, what was found


def small(width: int = 5, *after: nn.Module) -> nn.Sequential:
    """The same model everywhere."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3), *after)


def share(data: Tensor, world: int) -> Tensor:
    """The part of a batch that is for this process."""
    return data.chunk(world)[distributed.get_rank()]


def asking(net: nn.Module, optimizer: Any, data: Tensor, power: int = 2) -> Any:
    """A closure for steps on all of the data."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (net(data) ** power).mean()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    return closure


def train(net: nn.Module, optimizer: Any, data: Tensor, steps: int = 3, power: int = 2) -> None:
    for _ in range(steps):
        optimizer.step(asking(net, optimizer, data, power))


def whole(tensor: Any) -> Tensor:
    """All of what processes may hold parts of; each must ask."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()  # type: ignore[no-any-return]


def close(found: dict[str, Any], wanted: dict[str, Tensor]) -> None:
    for name, p in wanted.items():
        finite(p)
        torch.testing.assert_close(found[name].full_tensor().detach(), p.detach(), rtol=1e-5, atol=1e-6)


def sharding(mesh: Any, *placements: Any) -> Callable[[Tensor], Any]:
    from torch.distributed.tensor import distribute_tensor

    return lambda x: distribute_tensor(x.detach(), mesh, placements, src_data_rank=None)


def along_rows(world: int) -> Callable[[Tensor], Any]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard

    return sharding(init_device_mesh("cpu", (world,)), Shard(0))


# ------------------------------------------------------------------------------------------------------- the processes


def work(rank: int, world: int, port: int, results: Any, tasks: Sequence[Task], rules: Sequence[str]) -> None:
    faulthandler.enable()  # a process that ends by a signal says where its threads were
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    meeting = distributed.TCPStore(HERE, port, is_master=False)
    distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=world)
    for task in tasks:
        try:
            found = task(world, *([rules] if rules else []))
            results.put((task.__name__, rank, "", found))
        except BaseException:
            results.put((task.__name__, rank, traceback.format_exc(), None))
            break
    distributed.destroy_process_group()


def everywhere(world: int, tasks: Sequence[Task], rules: Sequence[str] = (), seconds: int = 600) -> list[Said]:
    """What each of some processes says of each task."""
    meeting = distributed.TCPStore(HERE, 0, is_master=True, wait_for_workers=False)  # a port that is free, and taken from now on
    context = processes.get_context("spawn")
    results = context.Queue()
    running = [context.Process(target=work, args=(rank, world, meeting.port, results, tasks, rules)) for rank in range(world)]
    for process in running:
        process.start()
    said = []
    for _ in range(world * len(tasks)):
        if (one := next_of(results, running, seconds)) is None:
            break
        said.append(one)
        if one[2]:
            break
    for rank, process in enumerate(running):
        process.join(5)
        if process.exitcode:
            come = {name for name, other, *_ in said if other == rank}
            last = next((task for task in tasks if task.__name__ not in come), tasks[-1]).__name__
            said.append((last, rank, f"ended with exit code {process.exitcode}: see what it wrote to stderr", None))
        process.kill()
        process.join()  # its time counts then
    return said


def next_of(results: Any, running: Sequence[Any], seconds: int) -> Said | None:
    """What a process says next; None where none does in that time, or all have ended."""
    for _ in range(seconds):
        alive = any(process.is_alive() for process in running)
        try:
            return results.get(timeout=1)  # type: ignore[no-any-return]
        except queue.Empty:
            if not alive:
                break
    return None
